"""Columns of obs that functions read: library sizes that cannot be, and columns that are no such thing."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import raptorgraph as rg
from raptorgraph.screen._inputs import library_of, matrix, numbers, obs_column

READERS = {
    "setup_anndata": rg.RaptorGraphModel.setup_anndata,
    "measured_effects": rg.pp.measured_effects,
    "select_genes": lambda adata, **key: rg.pp.select_genes(adata, 10, flavor="seurat", **key),
    "pair_cells": lambda adata, **key: rg.pp.pair_cells(adata, method="nearest", **key),
}


@pytest.fixture(scope="module")
def panel():
    """A third of the genes of 200 cells, 40 of them controls, and the total counts over all genes."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(2.0, 4.0, size=90), size=(200, 90)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": np.repeat(["control", "A", "B", "C", "D"], 40), "total": counts.sum(1)})
    return ad.AnnData(sparse.csr_matrix(counts[:, :30]), obs=obs.set_index(obs.index.astype(str)))


def columns(panel):
    sums = np.asarray(panel.X.sum(1), dtype=float).ravel()
    total = panel.obs["total"].to_numpy(dtype=float)
    return sums, {
        "size_factors": total / total.mean(),
        "log1p_total": np.log1p(total),
        "fraction": sums / total,
        "n_genes": np.asarray((panel.X > 0).sum(1)).ravel(),
        "flag": np.ones(len(total), dtype=bool),
        "corrected": 0.9 * sums,
        "wrong in 60 %": np.where(np.arange(200) < 120, 0.5 * sums, total),
    }


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "column", ["size_factors", "log1p_total", "fraction", "n_genes", "flag", "corrected", "wrong in 60 %"]
)
def test_totals_below_the_row_sums_are_refused(panel, reader, column):
    adata = panel.copy()
    sums, found = columns(panel)
    adata.obs[column] = found[column]
    before = adata.copy()
    n = int((found[column] < 0.99 * sums).sum())
    assert n >= 120
    with pytest.raises(ValueError, match=rf"library_size_key='{column}': .* {n} of 200 cells \({n / 2:.0f}%\).* total"):
        READERS[reader](adata, library_size_key=column)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert list(adata.var_names) == list(before.var_names)
    assert set(adata.uns) == set(before.uns)
    assert set(adata.obsm) == set(before.obsm)


def test_totals_of_more_genes_are_what_the_column_is_for(panel):
    found = library_of(panel, panel.X, "total")
    np.testing.assert_array_equal(found, panel.obs["total"])
    adata, sums = panel.copy(), columns(panel)[0]
    adata.obs["rounded"] = sums.astype(np.float16)  # and below the sum in every second cell, by a thousandth at most
    adata.obs["few"] = np.where(np.arange(200) < 19, 0.6 * sums, sums)
    for key in ("rounded", "few"):
        np.testing.assert_array_equal(library_of(adata, adata.X, key), adata.obs[key].astype(float))


def test_totals_that_are_too_small_in_some_cells_or_too_large_in_all_are_warned_of(panel):
    adata, (sums, _) = panel.copy(), columns(panel)
    adata.obs["some"] = np.where(np.arange(200) % 5 == 3, 0.6 * sums, sums)
    with pytest.warns(UserWarning, match=r"'some': .* 40 of 200 cells \(20%; first: 3, 8, 13, 18, 23\)"):
        library_of(adata, adata.X, "some")
    adata.obs["reads"] = 1e6 * sums
    with pytest.warns(UserWarning, match="'reads': the counts of all cells are 1e-06 of their library sizes"):
        library_of(adata, adata.X, "reads")


def test_a_few_cells_of_a_screen_are_not_held_against_its_library_sizes(panel):
    """In parts of a screen, cells whose rounded or corrected total is small can be many by chance."""
    cells, sums = panel[:15].copy(), columns(panel)[0][:15]
    for below in (2, 8):
        cells.obs["noisy"] = np.where(np.arange(15) < below, 0.9 * sums, 2 * sums)
        np.testing.assert_array_equal(library_of(cells, cells.X, "noisy"), cells.obs["noisy"])
    cells.obs["halved"] = 0.5 * sums
    with pytest.raises(ValueError, match="15 of 15 cells"):
        library_of(cells, cells.X, "halved")
    few = cells[:3].copy()
    with pytest.warns(UserWarning, match="3 of 3 cells"):
        library_of(few, few.X, "halved")
    few.obs["size_factor"] = 1.0
    with pytest.raises(ValueError, match="3 of 3 cells"):
        library_of(few, few.X, "size_factor")


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan, np.inf, 1e300, 1e-300, 0.5])
def test_one_impossible_library_size_is_named(panel, value):
    adata = panel.copy()
    adata.obs["total"] = adata.obs["total"].astype(float)
    adata.obs.loc["17", "total"] = value
    with pytest.raises(ValueError, match=rf"library_size_key='total': .*17 \({re.escape(f'{value:g}')}"):
        library_of(adata, adata.X, "total")


def test_the_counts_of_one_gene_are_no_library_sizes(panel):
    one = panel[:, :1].copy()
    with pytest.raises(ValueError, match="adata has one gene, .* library_size_key="):
        rg.pp.measured_effects(one)
    effects = rg.pp.measured_effects(one, library_size_key="total")
    scale = np.log1p(1e4 * one.X.toarray().ravel() / one.obs["total"].to_numpy())
    expected = scale[40:80].mean() - scale[:40].mean()
    assert effects.loc["A"].item() == pytest.approx(expected, rel=1e-5)


def test_columns_that_hold_no_numbers_are_named_with_what_would_do():
    obs = pd.DataFrame(
        {
            "text": ["1", "2"], "words": ["a", "b"], "objects": pd.Series([1, 2], dtype=object),
            "categories": pd.Categorical([1, 2]), "dates": pd.to_datetime(["2020-01-01", "2020-01-02"]),
            "complex": [1j, 2j], "missing": pd.array([1, None], dtype="Int64"), "flags": [True, False],
        },
        index=["x", "y"],
    )  # fmt: skip
    adata = ad.AnnData(np.ones((2, 1), dtype=np.float32), obs=obs)
    for key, words in {
        "text": "holds text, not numbers; convert it", "words": "holds text, not numbers; name a column of numbers",
        "objects": "values of type object.*convert it", "categories": "values of type category.*convert it",
        "dates": "datetime64.*days", "complex": "complex128.*real part",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"depth: '{key}' holds .*{words.removeprefix('holds ')}"):
            numbers(adata, key, "depth")
    np.testing.assert_array_equal(numbers(adata, "missing", "depth"), [1.0, np.nan])
    np.testing.assert_array_equal(numbers(adata, "flags", "depth"), [1.0, 0.0])


def test_keys_and_matrices_that_are_none_are_named():
    adata = ad.AnnData(np.ones((2, 1), dtype=np.float32), obs=pd.DataFrame({"a": [1, 2]}, index=["x", "y"]))
    for key in (None, ["a"], 3):
        with pytest.raises(TypeError, match="batch_key=.* must be the name of a column of obs"):
            obs_column(adata, key, "batch_key")
        if key is not None:
            with pytest.raises(TypeError, match="layer=.* must be the name of a layer"):
                matrix(adata, key)
    with pytest.raises(ValueError, match="adata has no cells"):
        obs_column(adata[:0], "a", "batch_key")
    with pytest.raises(ValueError, match="2 cells and 0 genes"):
        matrix(adata[:, :0], None)
    for dtype in (complex, object, str):
        adata.layers["odd"] = np.ones((2, 1)).astype(dtype)
        with pytest.raises(TypeError, match=r"adata.layers\['odd'\] holds values of type .*astype\('float32'\)"):
            matrix(adata, "odd")


def test_columns_of_a_setup_are_no_names_to_take(panel):
    cells = panel.copy()
    rg.RaptorGraphModel.setup_anndata(cells, library_size_key="total")
    with pytest.raises(KeyError, match=r"did you mean one of \['perturbation', 'total'\]"):
        obs_column(cells, "lane", "batch_key")
