"""Samples of cells as floats, checked before any score."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

Cells: TypeAlias = NDArray[np.floating] | sparse.csr_matrix


def as_samples(*samples: ArrayLike, least: int = 1) -> list[Cells]:
    """Samples of cells as floats, arrays or CSR; ValueError if genes differ, cells are too few or not finite."""
    matrices = [_floats(x) for x in samples]
    shapes = [matrix.shape for matrix in matrices]
    if any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) != 1 or shapes[0][1] == 0:
        raise ValueError(
            f"Samples have shapes {' and '.join(map(str, shapes))}: give cells x genes, the same genes in each."
        )
    for matrix in matrices:
        if matrix.shape[0] < least:
            raise ValueError(f"A sample needs at least {least} cells, got {matrix.shape[0]}.")
        if not np.isfinite(matrix if isinstance(matrix, np.ndarray) else matrix.data).all():
            wrong = np.flatnonzero(~np.isfinite(dense(matrix)).all(axis=0))
            raise ValueError(
                f"A sample has values that are not finite, first of gene {wrong[0]} (counted from 0): leave out genes "
                "that are not measured, or replace the values."
            )
    return matrices


def check_rows(**tables: NDArray[np.float64]) -> None:
    """ValueError where a row of one of the tables, given by their names, has a value that is not finite."""
    for name, values in tables.items():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise ValueError(f"Row {bad[0]} of `{name}` is not finite ({bad.size} such rows): leave it out.")


def dense(matrix: Cells) -> NDArray[np.float64]:
    """Cells x genes as a float64 array, from sparse or dense."""
    return np.asarray(matrix if isinstance(matrix, np.ndarray) else matrix.toarray(), dtype=np.float64)


def _floats(x: ArrayLike) -> Cells:
    """Cells in a type in which sums and differences do not wrap around; CSR from sparse."""
    if np.ma.is_masked(x):
        raise ValueError("A sample has masked values: remove or replace them.")
    matrix = x if isinstance(x, (sparse.spmatrix, sparse.sparray)) else np.asarray(x)
    matrix = matrix.astype(np.result_type(matrix.dtype, np.float32), copy=False)
    return matrix if isinstance(matrix, np.ndarray) else matrix.tocsr()
