"""Scale of a public screen: counts per 10,000, per median cell, or what its file has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from raptorgraph.screen._expression import TARGET_SUM, to_expression

if TYPE_CHECKING:
    import pandas as pd

NORMALIZATIONS = ("1e4", "median", "file")
_LIBRARY_COLUMNS = ("total_counts", "ncounts", "n_counts", "nCount_RNA")
_ROUNDING = 1e-3  # relative, of a sum that is told from rounded values
_AGREE = 0.95  # share of the cells that must tell the same


def to_median(counts: sparse.csr_matrix, library: np.ndarray) -> tuple[sparse.csr_matrix, float]:
    """``log1p(m * count / library size)`` with the median library size m, and m, as scanpy normalizes by default."""
    target = float(np.median(library))
    # the scale of counts per 10,000 of cells whose library is so many times smaller
    return sparse.csr_matrix(to_expression(counts, library * (TARGET_SUM / target))), target


def to_target(X: sparse.csr_matrix, obs: pd.DataFrame) -> sparse.csr_matrix:
    """Log-normalized values of a part of the genes on the scale of counts per 10,000, where they tell their own.

    One molecule is the smallest value of nearly every cell: times the library size, of which `obs` may have a column,
    it is the sum that counts were normalized to. Values without such a column, or with cells that disagree, and values
    that are on that scale already, stay as they are.
    """
    column = next((name for name in _LIBRARY_COLUMNS if name in obs), None)
    if column is None:
        return X
    found = _target_sum(X, obs[column].to_numpy(dtype=float))
    if found is None or abs(found / TARGET_SUM - 1) < _ROUNDING:
        return X
    scaled = X.copy()
    scaled.data = np.log1p(np.expm1(scaled.data.astype(np.float64)) * (TARGET_SUM / found)).astype(X.dtype)
    return scaled


def _target_sum(X: sparse.csr_matrix, library: np.ndarray) -> float | None:
    """Sum that counts were normalized to; None where the cells do not agree."""
    X = sparse.csr_matrix(X, copy=True)
    X.eliminate_zeros()
    filled = np.flatnonzero(np.diff(X.indptr))
    if not len(filled):
        return None
    smallest = np.minimum.reduceat(X.data.astype(np.float64), X.indptr[filled])
    sums = np.expm1(smallest) * library[filled]
    target = float(np.median(sums))
    agree = np.isfinite(target) and (np.abs(sums / target - 1) < _ROUNDING).mean() >= _AGREE
    return target if agree else None


def check_log(X: Any, counts: Any, n_vars: int) -> None:
    """ValueError where a file has counts alone, so that there is no normalization to keep."""
    if X is counts:
        raise ValueError(
            f"normalization='file': the file has counts of {n_vars} genes and no log-normalized values to keep; use "
            "'1e4' or 'median'."
        )
