"""Reference controls: part of the model's state, and found where older models have them."""

import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model._reference import ReferenceControls


def test_what_is_stored_is_saved_and_what_is_missing_stays_none():
    reference = ReferenceControls()
    reference.store(torch.arange(6.0).view(2, 3), None, torch.ones(2, 1))
    assert reference.z.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert reference.library is None
    assert reference.covariates.tolist() == [[1], [1]]
    other = ReferenceControls()
    other.load_state_dict(reference.state_dict())
    assert torch.equal(other.z, reference.z)
    assert other.library is None
    assert [x is None for x in other.on(torch.device("cpu"))] == [False, True, False]


@pytest.fixture(scope="module")
def model(few_steps):
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(30, 3, n_doubles=2, n_control_cells=40, n_cells_per_perturbation=12, n_truth_cells=5)
    rg.RaptorGraph.setup_anndata(adata)
    model = rg.RaptorGraph(adata, n_hidden=4)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.mark.parametrize("prefix", ["", "module."], ids=["model", "checkpoint of the training"])
def test_an_older_model_has_them_in_the_state_of_its_posterior(model, prefix):
    state = {f"{prefix}{name}": value for name, value in model.module.state_dict().items()}
    reference = state.pop(f"{prefix}reference._extra_state")
    assert sorted(reference) == ["library", "z"]
    effects = f"{prefix}effects._extra_state"
    state[effects] = {**state[effects], **{f"reference_{name}": value for name, value in reference.items()}}
    other = rg.RaptorGraph(model.adata, n_hidden=4)
    whole = torch.nn.ModuleDict({"module": other.module}) if prefix else other.module
    whole.load_state_dict(state)
    assert torch.equal(other.module.reference.z, model.module.reference.z)
    other.is_trained_ = True
    asked = ["P01", "P01+P02"]
    found, expected = (x.predict(asked, n_cells=5, seed=0).X.toarray() for x in (other, model))
    np.testing.assert_array_equal(found, expected)
    assert "reference_z" not in other.module.effects.get_extra_state()
