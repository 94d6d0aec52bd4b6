"""Errors about the labels of cells name the call of the setup that works."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.screen._cell_labels import parse_obs

GENES = ["KLF1", "BAK1", "CEBPA", "SPI1", "HLA-A", "ACTB"]


def screen(labels, key="perturbation", **obs):
    cells = pd.DataFrame({key: labels, **obs}, index=[f"cell{i}" for i in range(len(labels))])
    X = np.random.default_rng(0).poisson(2.0, (len(labels), len(GENES))).astype(np.float32)
    return ad.AnnData(X, obs=cells, var=pd.DataFrame(index=GENES))


def test_controls_and_delimiter_are_needed_where_labels_are_to_be_learned_from():
    adata = screen(["KLF1_BAK1", "KLF1", "BAK1"])
    parsed = parse_obs(adata, "perturbation")
    assert parsed.conditions == ((), ("BAK1",), ("KLF1",), ("KLF1_BAK1",))
    assert parsed.codes.tolist() == [3, 2, 1]
    with pytest.raises(ValueError, match="No cell is labeled as control"):
        parse_obs(adata, "perturbation", require_control=True)
    adata = screen(["KLF1_BAK1", "KLF1", "BAK1", "control"])
    with pytest.raises(ValueError, match="No label has the delimiter '\\+', and 'KLF1_BAK1' .* use delimiter='_'"):
        parse_obs(adata, "perturbation", require_control=True)
    found = parse_obs(adata, "perturbation", delimiter="_", require_control=True)
    assert found.conditions == ((), ("BAK1",), ("BAK1", "KLF1"), ("KLF1",))


def call_of(message):
    return "rg." + message.split("This would work: ")[1].split("; raptorgraph.pp")[0]


@pytest.mark.parametrize(
    ("labels", "key", "arguments", "error"),
    [
        (["NT", "KLF1", "BAK1", "NT"], "gene", {}, KeyError),
        (["ctrl", "KLF1", "BAK1", "ctrl"], "perturbation", {}, ValueError),
        (["control", "KLF1", "BAK1", "KLF1_BAK1", "control"], "perturbation", {}, ValueError),
        (["ctrl", "KLF1+ctrl", "BAK1+KLF1", "ctrl"], "condition", {"control": "control"}, KeyError),
        (["control", "KLF1", "BAK1", "KLF1+BAK1", "control"], "perturbation", {"delimiter": ","}, ValueError),
    ],
)
def test_errors_name_the_call_that_works(labels, key, arguments, error):
    adata = screen(np.repeat(labels, 2), key)
    before = adata.obs.copy()
    with pytest.raises(error) as caught:
        rg.RaptorGraph.setup_anndata(adata, **arguments)
    pd.testing.assert_frame_equal(adata.obs, before)
    exec(call_of(caught.value.args[0]), {"rg": rg, "adata": adata})
    assert adata.uns["_scvi_uuid"]


def test_errors_stay_with_the_asked_column():
    adata = screen(
        np.repeat(["ctrl", "KLF1", "BAK1"], 2), "condition", perturbation=np.repeat(["NT", "ACTB", "BAK1"], 2)
    )
    with pytest.raises(ValueError, match="perturbation_key='condition', control='ctrl'"):
        rg.RaptorGraph.setup_anndata(adata, "condition")


def test_a_gene_of_its_own_can_have_another_delimiter_in_its_name():
    adata = screen(np.repeat(["control", "KLF1", "HLA_A", "BAK1"], 2))
    rg.RaptorGraph.setup_anndata(adata)
    assert "HLA_A" in rg.RaptorGraph(adata).perturbed_genes


def test_cells_without_any_column_are_told_to_have_none():
    adata = screen(["control", "KLF1"])
    del adata.obs["perturbation"]
    words = r"perturbation_key='perturbation' is not a column of adata.obs, which has none: adata.obs\['perturbation'\]"
    with pytest.raises(KeyError, match=words):
        rg.RaptorGraphModel.setup_anndata(adata)
