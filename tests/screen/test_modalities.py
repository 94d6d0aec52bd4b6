"""Modalities of a MuData: found by name, without some cells, and in the order of their genes."""

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

from raptorgraph.screen._modalities import drop_cells, modality, refresh, strip_modality_names


@pytest.fixture
def mdata():
    def part(cells, genes):
        obs = pd.DataFrame(index=[f"c{i}" for i in cells])
        return ad.AnnData(np.ones((len(cells), len(genes)), np.float32), obs=obs, var=pd.DataFrame(index=genes))

    return md.MuData({"rna": part(range(4), [" A", "B", "C "]), "guides": part(range(1, 5), ["g1 ", "g2"])})


def test_a_modality_is_found_or_the_argument_named(mdata):
    assert modality(mdata, "rna", "expression") is mdata["rna"]
    with pytest.raises(KeyError, match=r"guides='crispr' is not a modality .* \['rna', 'guides'\]"):
        modality(mdata, "crispr", "guides")
    with pytest.raises(ValueError, match="view"):
        modality(mdata[:2], "rna", "expression")


def test_cells_leave_every_modality(mdata):
    drop_cells(mdata, pd.Index(["c1", "c4"]))
    assert list(mdata["rna"].obs_names) == ["c0", "c2", "c3"]
    assert list(mdata["guides"].obs_names) == ["c2", "c3"]
    drop_cells(mdata["rna"], pd.Index(["c0", "none"]))
    assert list(mdata["rna"].obs_names) == ["c2", "c3"]


def test_names_are_stripped_in_one_modality_and_the_whole(mdata):
    strip_modality_names(mdata, "rna")
    assert list(mdata["rna"].var_names) == ["A", "B", "C"]
    assert list(mdata["guides"].var_names) == ["g1 ", "g2"]
    assert list(mdata.var_names) == ["A", "B", "C", "g1 ", "g2"]


def test_the_whole_follows_the_order_of_the_genes(mdata):
    numbers = np.arange(5.0)
    mdata.var["number"], mdata.varm["number"] = numbers, numbers[:, None]
    mdata["rna"]._inplace_subset_var(np.array([2, 0, 1]))
    refresh(mdata)
    assert list(mdata.var_names) == ["C ", " A", "B", "g1 ", "g2"]
    np.testing.assert_array_equal(mdata.var["number"], [2, 0, 1, 3, 4])
    np.testing.assert_array_equal(mdata.varm["number"].ravel(), [2, 0, 1, 3, 4])
    np.testing.assert_array_equal(np.asarray(mdata.varmap["rna"]).ravel(), [1, 2, 3, 0, 0])
