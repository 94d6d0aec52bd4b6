"""Reference controls: part of the model's state, and found where older models have them."""

import pytest
import torch

import raptorgraph as rg
from raptorgraph.model._reference import ReferenceControls


def test_what_is_stored_is_joined_and_what_is_missing_stays_none():
    reference = ReferenceControls()
    reference.store(z=[torch.zeros(2, 3), torch.ones(1, 3)], library=[None, None], covariates=[torch.ones(2, 1)] * 2)
    assert reference.z.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert reference.library is None
    assert reference.covariates.shape == (4, 1)
    other = ReferenceControls()
    other.load_state_dict(reference.state_dict())
    assert torch.equal(other.z, reference.z)
    assert other.library is None
    assert [x is None for x in other.on(torch.device("cpu"))] == [False, True, False]


@pytest.mark.parametrize("prefix", ["", "module."], ids=["model", "checkpoint of the training"])
def test_an_older_model_has_them_in_the_state_of_its_posterior(prefix):
    adata = rg.datasets.simulate(30, 3, n_doubles=0, n_control_cells=20, n_cells_per_perturbation=8, n_truth_cells=5)
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    module = rg.RaptorGraph(adata, n_hidden=4).module
    whole = torch.nn.ModuleDict({"module": module}) if prefix else module
    state = whole.state_dict()
    del state[f"{prefix}reference._extra_state"]
    z, library = torch.rand(5, module.modulator.strength.shape[0] + 4), torch.rand(5, 1)
    state[f"{prefix}effects._extra_state"] = {"reference_z": z, "reference_library": library}
    known = ReferenceControls.move_old_state(dict(state), prefix)
    assert known is None
    with pytest.raises(KeyError, match="design"):  # of a posterior that was never fitted there is no reference
        whole.load_state_dict(state)
