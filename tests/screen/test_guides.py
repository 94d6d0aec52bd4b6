"""The column with the guide of each cell."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.screen import Setup
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._guides import check_guides, guide_names

LABELS = ["control", "control", "A", "A", "B", "A+B"]


def cells(guides):
    obs = pd.DataFrame({"perturbation": LABELS, "guide": guides}, index=[f"c{i}" for i in range(6)])
    return ad.AnnData(np.ones((6, 2)), obs=obs)


def check(guides, **setup):
    adata, setup = cells(guides), Setup(guide_key="guide", **setup)
    check_guides(adata, parse_obs(adata, "perturbation"), setup)


def test_names_are_text_and_what_is_missing_is_none():
    values = pd.Series([" a ", None, "", "b", 3, 2.5], dtype=object).to_numpy()
    assert guide_names(cells(values), "guide").tolist() == ["a", None, None, "b", "3", "2.5"]
    found = guide_names(cells(pd.Categorical(["x", None, "y", "x", "x", "x"])), "guide")
    assert found.tolist() == ["x", None, "y", "x", "x", "x"]


@pytest.mark.parametrize(
    "guides",
    [
        ["nt", "nt", "a1", "a2", "b1", "a1|b1"],
        ["nt", None, "a1", "a1", "b1", "a1"],  # of a pair the first guide alone
        [np.nan, np.nan, 1.0, 1.0, 2.0, 3.0],
        ["a1", "nt", "a1", "a2", "b1", "x"],  # a control cell with another guide is not judged
    ],
)
def test_guides_of_one_gene_pass(guides):
    check(guides)


@pytest.mark.parametrize(
    ("guides", "match"),
    [
        (["n", "n", "a1", None, "", "x"], r"guide_key='guide' is missing for 2 perturbed cells \(first: c3, c4\)"),
        (["n", "n", "g1", "g2", "g1", "x"], "'g1' is in cells of 'A' and 'B', which have no gene in common"),
        (
            ["n", "n", 1, 2, 1, 2],
            r"and no names, put the gene before: adata.obs\['guide'\] = adata.obs\['perturbation'\]",
        ),
        (["n", "n", "g", "g", "g", "g"], "'g' is in cells of 'A', 'A\\+B' and 'B', which"),
    ],
)
def test_what_cannot_be_a_guide_is_named(guides, match):
    with pytest.raises(ValueError, match=match):
        check(guides)


def test_without_a_column_nothing_is_checked():
    adata = cells(["g"] * 6)
    check_guides(adata, parse_obs(adata, "perturbation"), Setup())


def test_setup_checks_before_it_changes_anything():
    adata = rg.datasets.simulate(30, 3, n_doubles=1, n_control_cells=40, n_cells_per_perturbation=20, n_truth_cells=5)
    adata.obs["guide"] = "g1"
    before = adata.copy()
    with pytest.raises(ValueError, match="'g1' is in cells of 'P01', "):
        rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", guide_key="guide")
    with pytest.raises(KeyError, match=r"guide_key='guides' is not a column of adata.obs; did you mean .*guide"):
        rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", guide_key="guides")
    with pytest.raises(TypeError, match="guide_key=3 must be the name of a column"):
        rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", guide_key=3)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert set(adata.obsm) == set(before.obsm)
    adata.obs["guide"] = adata.obs["perturbation"].astype(str) + "_1"
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", guide_key="guide")
    assert rg.RaptorGraphModel(adata, n_hidden=4).setup_args["guide_key"] == "guide"
