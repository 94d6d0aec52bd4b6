"""Labels of the cells as a mask of genes, for the cells of a setup and for others."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.model._field import MASK_KEY, PerturbationField
from raptorgraph.screen import Setup
from raptorgraph.screen._labels import parse_labels

SETUP = Setup(perturbation_key="guide", control=["NT", "safe"], delimiter="_")


def screen(*labels):
    obs = pd.DataFrame({"guide": labels}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(np.ones((len(labels), 3), np.float32), obs=obs, var=pd.DataFrame(index=["C", "B", "X"]))


@pytest.fixture
def state():
    return PerturbationField(SETUP).register_field(screen("NT", "A", "B_A", "C"))


def test_the_mask_has_the_genes_of_each_label_those_in_var_first(state):
    adata = screen("NT", "safe", "B_A", "A_B_A", "A", "C_NT", "B")
    found = PerturbationField(SETUP).register_field(adata)
    assert found == {
        "perturbed_genes": ["B", "C", "A"], "n_targets": 2, "control": ["NT", "safe"], "delimiter": "_",
        "conditions": [[], ["A"], ["A", "B"], ["B"], ["C"]], "perturbation_key": "guide",
    }  # fmt: skip
    mask = adata.obsm[MASK_KEY]
    assert (mask.format, mask.dtype) == ("csr", np.float32)
    genes = [[], [], ["A", "B"], ["A", "B"], ["A"], ["C"], ["B"]]
    expected = [[float(gene in one) for gene in ("B", "C", "A")] for one in genes]
    np.testing.assert_array_equal(mask.toarray(), expected)
    assert PerturbationField(SETUP).get_summary_stats(found) == {"n_perturbed": 3}


def test_labels_that_are_known_are_not_read_again():
    adata, parsed = screen("NT", "A"), parse_labels(["C", "NT"], control="NT")
    found = PerturbationField(SETUP, parsed).register_field(adata)
    assert found["perturbed_genes"] == ["C"]
    np.testing.assert_array_equal(adata.obsm[MASK_KEY].toarray(), [[1], [0]])
    adata = screen("A", "B")
    with pytest.raises(ValueError, match="No cell is labeled as control"):
        PerturbationField(SETUP).register_field(adata)
    assert not adata.obsm


def test_other_cells_are_written_in_the_order_of_the_model(state):
    assert state["perturbed_genes"] == ["B", "C", "A"]
    adata = screen("A_C", "B", "A")  # no controls, no B_A
    assert PerturbationField(SETUP).transfer_field(state, adata) == state
    np.testing.assert_array_equal(adata.obsm[MASK_KEY].toarray(), [[0, 1, 1], [1, 0, 0], [0, 0, 1]])
    assert sparse.issparse(adata.obsm[MASK_KEY])


def test_unknown_genes_are_named_and_nothing_is_written(state):
    adata = screen("NT", "TP53_A", "MYC")
    with pytest.raises(ValueError, match=r"obs\['guide'\] perturbs genes .* not trained on: MYC, TP53\."):
        PerturbationField(SETUP).transfer_field(state, adata)
    assert not adata.obsm


def test_the_table_of_latents(state):
    table = PerturbationField(SETUP).view_state_registry(state)
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["0", "1", "2"], ["B", "C", "A"], ["yes", "yes", "no"]]
