"""Columns of ``obs``: library sizes, batches and covariates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from input_table._row import LABELS, N_CELLS, Case, Row, closed_form, counts, equal, labels, plain, refused, same

if TYPE_CHECKING:
    import anndata as ad

B, K, S = "Batches", "Covariates", "Library sizes"
LANES = np.resize(["x", "y"], N_CELLS)
TOTAL = counts().sum(axis=1) + 50
KEY = {"library_size_key": "total"}
NO_SIZE = "no positive library size"


def total(values, **more):
    """Change of the column of library sizes."""
    return {"change": labels(values, "total"), **KEY, **more}


def one_total(value: float):
    found = TOTAL.copy()
    found[5] = value
    return labels(found, "total")


def of_totals(library=TOTAL):
    return lambda: closed_form(library=library)


ROWS: list[Row] = [
    same(S, "no column", happens="row sums are taken"),
    same(S, "totals over more genes than the screen has", expected=of_totals(), **KEY),
    same(S, "nullable whole numbers", expected=of_totals(), **total(pd.array(TOTAL.astype(int), dtype="Int64"))),
    same(S, "numbers of Arrow", expected=of_totals(), **total(pd.array(TOTAL, dtype="double[pyarrow]"))),
    same(S, "`float16` and rounded", expected=of_totals(TOTAL.astype(np.float16)), **total(TOTAL.astype(np.float16))),
    same(
        S,
        "1e12 in all cells",
        warns="of their library sizes",
        happens="all expression is near zero",
        expected=of_totals(np.full(N_CELLS, 1e12)),
        **total(np.full(N_CELLS, 1e12)),
    ),
    refused(
        S,
        "1e13 in a cell",
        one_total(1e13),
        ValueError,
        NO_SIZE,
        "cell5 (1e+13)",
        "no cell has so many: check what the values are",
        **KEY,
    ),
    refused(
        S,
        "1e-3 in all cells",
        labels(np.full(N_CELLS, 1e-3), "total"),
        ValueError,
        "the library size is below the sum of the cell's counts in 36 of 36 cells (100%)",
        "no size factors",
        **KEY,
    ),
    refused(
        S,
        "1e-3 in a cell",
        one_total(1e-3),
        ValueError,
        "below the sum of the cell's counts in 1 of 36 cells",
        "as in cell5 (0.001 <",
        **KEY,
    ),
    refused(S, "size factors", labels(TOTAL / TOTAL.mean(), "total"), ValueError, "in 36 of 36 cells", **KEY),
    refused(S, "logarithms of totals", labels(np.log1p(TOTAL), "total"), ValueError, "in 36 of 36 cells", **KEY),
    *(
        refused(S, f"{name} in a cell", one_total(value), ValueError, NO_SIZE, f"cell5 ({value:g})", **KEY)
        for name, value in {"0": 0.0, "a negative number": -3.0, "`NaN`": np.nan, "infinity": np.inf}.items()
    ),
    refused(
        S,
        "a missing nullable number",
        labels(pd.array([None, *TOTAL[1:].astype(int)], dtype="Int64"), "total"),
        ValueError,
        NO_SIZE,
        "cell0 (nan)",
        **KEY,
    ),
    refused(
        S,
        "numbers as text",
        labels(TOTAL.astype(str).astype(object), "total"),
        ValueError,
        "'total' holds text, not numbers; convert it, adata.obs['total'] = pandas.to_numeric",
        **KEY,
    ),
    refused(
        S,
        "words",
        labels(LANES.astype(object), "total"),
        ValueError,
        "holds text, not numbers",
        "name a column of numbers",
        **KEY,
    ),
    refused(
        S,
        "categories",
        labels(lambda column: column.astype("category"), "total"),
        ValueError,
        "holds values of type category, not numbers",
        **KEY,
    ),
    refused(
        S,
        "dates",
        labels(pd.date_range("2020-01-01", periods=N_CELLS), "total"),
        ValueError,
        "turn them into a number, such as days since the first",
        **KEY,
    ),
    refused(S, "complex numbers", labels(TOTAL * 1j, "total"), ValueError, "take their real part", **KEY),
    refused(S, "truth values", labels(TOTAL > 0, "total"), ValueError, "in 36 of 36 cells", **KEY),
    refused(
        S,
        "a column that is not there",
        lambda adata: None,
        KeyError,
        "library_size_key='n_counts' is not a column of adata.obs",
        library_size_key="n_counts",
    ),
    refused(
        S,
        "logarithms in `X`, and a column that is not there",
        lambda adata: setattr(adata, "X", np.log1p(counts())),
        KeyError,
        "library_size_key='n_counts'",
        library_size_key="n_counts",
    ),
]


def lane(values, **more):
    """Change of the column of batches."""
    return {"change": labels(values, "lane"), "batch_key": "lane", **more}


def shifted(adata: ad.AnnData, by: float) -> ad.AnnData:
    values = np.log1p(1e4 * counts() / counts().sum(axis=1, keepdims=True))
    adata.X = values + by * (LANES == "y")[:, None]
    return adata


def batches_apart(case: Case) -> None:
    """What differs between batches as a whole is no effect."""
    one, other = (case.effects(shifted(plain(), by), batch_key="lane") for by in (0.0, 2.0))
    equal(one, other)


def by_lane(of: np.ndarray = LANES):
    """Effects within batches that have the same share of each condition: the mean of those of each."""

    def effects() -> pd.DataFrame:
        parts = [closed_form(counts()[of == name], labels=LABELS[of == name]) for name in np.unique(of)]
        return sum(parts[1:], parts[0]) / len(parts)

    return effects


def covariate(key: str, values, **more):
    """Change of a covariate."""
    return {"change": labels(values, key), **more}


ROWS += [
    same(B, "text", expected=by_lane(), happens="effects within batches", batch_key="lane"),
    Row(B, "a batch in which all values are higher", "the same effects", batches_apart),
    *(
        same(B, name, expected=by_lane(), happens="effects within batches", **lane(values))
        for name, values in {
            "categories, some that no cell has": pd.Categorical(LANES, ["z", "y", "x"]),
            "whole numbers": np.where(LANES == "x", 3, 0),
            "numbers": np.where(LANES == "x", 0.5, 1.5),
            "truth values": LANES == "x",
            "nullable whole numbers": pd.array(np.where(LANES == "x", 3, 0), dtype="Int64"),
            "nullable strings": pd.array(LANES, dtype="string"),
            "strings of Arrow": pd.array(LANES, dtype="string[pyarrow]"),
            "dates": pd.to_datetime(np.where(LANES == "x", "2020-01-01", "2020-01-02")),
        }.items()
    ),
    same(B, "one batch", **lane(np.full(N_CELLS, "x", dtype=object))),
    same(
        B,
        "empty text as a name",
        expected=by_lane(),
        happens="a batch of that name",
        warns="which reads as a missing value",
        **lane(np.where(LANES == "x", "", "y").astype(object)),
    ),
    same(
        B,
        "`nan` as text",
        expected=by_lane(),
        happens="a batch of that name",
        warns="which reads as a missing value",
        **lane(np.where(LANES == "x", "nan", "y").astype(object)),
    ),
    refused(
        B,
        "`None` in a cell",
        labels(["x"] * 5 + [None] + ["y"] * (N_CELLS - 6), "lane"),
        ValueError,
        "batch_key='lane' is missing for 1 cells (first: cell5)",
        batch_key="lane",
    ),
    refused(
        B,
        "`NaN` among numbers",
        labels([1.0] * 5 + [np.nan] + [2.0] * (N_CELLS - 6), "lane"),
        ValueError,
        "batch_key='lane' is missing for 1 cells (first: cell5)",
        batch_key="lane",
    ),
    refused(
        B,
        "lists",
        lambda adata: adata.obs.__setitem__("lane", pd.Series([["x"]] * N_CELLS, adata.obs_names)),
        TypeError,
        "batch_key='lane' holds what is no name of a batch",
        batch_key="lane",
    ),
    refused(
        B,
        "the column of labels",
        lambda adata: None,
        ValueError,
        "batch_key='perturbation' is the perturbation_key",
        batch_key="perturbation",
    ),
    refused(
        B,
        "a column that is not there",
        lambda adata: None,
        KeyError,
        "batch_key='plate' is not a column of adata.obs",
        batch_key="plate",
    ),
    refused(
        B,
        "a key that is no text",
        lambda adata: None,
        TypeError,
        "batch_key=['lane'] must be the name of a column",
        batch_key=["lane"],
    ),
    same(
        B,
        "batches without control cells",
        warns="have no control cells",
        happens="compared with all controls",
        **lane(np.where(LABELS == "KLF1", "y", "x").astype(object)),
    ),
    same(
        B,
        "a batch for each perturbation",
        warns="it is the perturbation",
        happens="compared with all controls",
        **lane(LABELS.astype(object)),
    ),
    same(K, "a category that has no effect", happens="the same effects", categorical_covariate_keys=["lane"]),
    same(K, "numbers", happens="the same effects", continuous_covariate_keys=["depth"]),
    same(
        K,
        "nullable numbers",
        happens="the same effects",
        continuous_covariate_keys=["depth"],
        change=labels(lambda column: column.astype("Float64"), "depth"),
    ),
    same(
        K,
        "a number that is the same in all cells",
        warns="is the same in all cells and has no effect",
        happens="read",
        continuous_covariate_keys=["depth"],
        change=labels(np.ones(N_CELLS), "depth"),
    ),
    refused(
        K,
        "a missing category",
        labels(["x", None] + ["y"] * (N_CELLS - 2), "lane"),
        ValueError,
        "categorical_covariate_keys: 'lane' is missing in 1 cells",
        categorical_covariate_keys=["lane"],
    ),
    refused(
        K,
        "a category for each cell",
        labels([f"c{i}" for i in range(N_CELLS)], "lane"),
        ValueError,
        "'lane' has 36 values in 36 cells",
        categorical_covariate_keys=["lane"],
    ),
    refused(
        K,
        "a missing number",
        labels([np.nan, *range(N_CELLS - 1)], "depth"),
        ValueError,
        "continuous_covariate_keys: 'depth' is missing in 1 cells (first: cell0)",
        continuous_covariate_keys=["depth"],
    ),
    refused(
        K,
        "an infinite number",
        labels([np.inf, *range(N_CELLS - 1)], "depth"),
        ValueError,
        "'depth' is infinite or missing in 1 cells",
        continuous_covariate_keys=["depth"],
    ),
    refused(
        K,
        "text as a number",
        lambda adata: None,
        ValueError,
        "'lane' holds text, not numbers",
        "or name this one in categorical_covariate_keys",
        continuous_covariate_keys=["lane"],
    ),
    refused(
        K,
        "a column twice",
        lambda adata: None,
        ValueError,
        "names 'lane' more than once",
        categorical_covariate_keys=["lane", "lane"],
    ),
    refused(
        K,
        "a column in two roles",
        lambda adata: None,
        ValueError,
        "'lane' is the batch_key already",
        batch_key="lane",
        categorical_covariate_keys=["lane"],
    ),
    refused(
        K,
        "the column of labels",
        lambda adata: None,
        ValueError,
        "'perturbation' is the perturbation_key already",
        categorical_covariate_keys=["perturbation"],
    ),
    refused(
        K,
        "text instead of a list",
        lambda adata: None,
        TypeError,
        "must be a list: continuous_covariate_keys=['depth']",
        continuous_covariate_keys="depth",
    ),
    refused(
        K,
        "a column that is not there",
        lambda adata: None,
        KeyError,
        "continuous_covariate_keys='age' is not a column",
        continuous_covariate_keys=["age"],
    ),
]
