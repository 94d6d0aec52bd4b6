"""The expression scale: ``log1p(1e4 * count / library size)``, from sparse or dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from raptorgraph.screen._matrix import as_matrix
from raptorgraph.screen._stored import StoredMatrix

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from raptorgraph.screen._matrix import Matrix

TARGET_SUM = 1e4
"""Counts per cell after normalization, before the logarithm."""

_ROUNDING = 1e-3  # by which a count that was calculated from other values may be off, and a hundredth of that, relative
_CHUNK = 2**22  # values looked at in one go, so that temporary arrays stay at tens of megabytes
_ROWS = 8192  # cells summed in one go
_LARGEST_LOG = 30.0  # log1p of any count is far below
# Total counts of a cell, or of many cells together, lie far within; beyond, float32 has no place for the rates.
_SMALLEST_LIBRARY, _LARGEST_LIBRARY = 1e-6, 1e12


def data_kind(X: Any) -> str:
    """Tell counts from log-normalized values.

    Parameters
    ----------
    X
        Cells x genes, sparse or dense.

    Returns
    -------
    ``"counts"`` if all values are non-negative integers, else ``"log"``.

    Raises
    ------
    TypeError
        If `X` is not a matrix of numbers in memory.
    ValueError
        If a value is negative or not finite, if all are zero, if values are neither integers nor small enough to
        be logarithms (above 30), or if they are integers but for rounding errors.
    """
    X = as_matrix(X)
    if isinstance(X, StoredMatrix):
        return look_through(X).kind
    found = _Values()
    found.add(X)
    return found.kind_of(X)


@dataclass
class _Values:
    """What all values have in common, found part by part."""

    largest: float = 0.0
    integers: bool = True
    nearly: bool = True

    def add(self, X: Matrix, first: int | None = None) -> None:
        """Look at cells; `first` is the number of the first, where they are a part of the matrix.

        ValueError for negative and infinite values.
        """
        values = X.data if sparse.issparse(X) else X
        step = _CHUNK if values.ndim == 1 else max(1, _CHUNK // max(values.shape[1], 1))
        for start in range(0, len(values), step):
            part = np.asarray(values[start : start + step])
            if part.size == 0:
                continue
            low, high = part.min(), part.max()
            if not (low >= 0 and np.isfinite(high)):  # a NaN makes both NaN
                found = _bad_value_message(X, lambda v: ~np.isfinite(v) | (v < 0), "negative or not finite", first)
                raise ValueError(
                    f"{found} Use counts or log-normalized values without missing ones, not scaled or centered ones; "
                    "where a layer holds them, name it, layer=... (--layer)."
                )
            self.largest = max(self.largest, float(high))
            self.integers = self.integers and (part.dtype.kind in "bui" or bool((part == np.floor(part)).all()))
            self.nearly = self.nearly and (self.integers or bool((_off_whole(part) <= _ROUNDING).all()))

    def kind_of(self, X: Matrix) -> str:
        """Kind of the values of `X`, all of which were looked at."""
        if self.largest == 0:
            raise ValueError(f"The matrix ({X.shape[0]} cells x {X.shape[1]} genes) has no value above zero.")
        if self.integers:
            return "counts"
        if self.nearly and self.largest > 0.5:  # logarithms of rates per cell may all be near zero
            found = _first_bad(X, lambda v: v != np.rint(v), "no whole numbers, all within rounding errors of one")
            raise ValueError(
                f"{found} These are counts that were calculated: round them, adata.X = numpy.rint(adata.X), or the "
                "layer."
            )
        if self.largest > _LARGEST_LOG:
            what = f"above {_LARGEST_LOG:g} among non-integer values"
            raise ValueError(
                f"{_first_bad(X, lambda v: v > _LARGEST_LOG, what)} These are neither counts nor log1p values: pass "
                "the raw counts, or normalize with scanpy.pp.normalize_total(adata, target_sum=1e4) and "
                "scanpy.pp.log1p(adata)."
            )
        return "log"


@dataclass(frozen=True)
class Seen:
    """What one pass over a matrix found: the kind of its values, and the sum of each row."""

    kind: str
    row_sums: np.ndarray


def look_through(X: StoredMatrix) -> Seen:
    """Read a matrix that is not in memory once, and keep with it what is found; raises as :func:`data_kind`."""
    if X.seen is None:
        found, row_sums = _Values(), np.zeros(len(X))
        for rows in X.chunks():
            part = as_matrix(X[rows])
            found.add(part, rows.start)
            row_sums[rows] = library_sizes(part)
        X.seen = Seen(found.kind_of(X), row_sums)
    seen: Seen = X.seen
    return seen


def _off_whole(values: np.ndarray) -> np.ndarray:
    """Distance to the nearest whole number, less for large values, whose rounding errors are relative."""
    values = values.astype(np.float64)
    distance: np.ndarray = np.abs(values - np.rint(values)) / (1 + 0.01 * values)
    return distance


def library_sizes(X: Any) -> np.ndarray:
    """Row sums of a sparse or dense matrix (cells x genes), shape (n_cells,), float64."""
    X = as_matrix(X)
    if isinstance(X, StoredMatrix):
        return look_through(X).row_sums
    if not sparse.issparse(X):
        return np.asarray(X.sum(axis=1, dtype=np.float64))
    # The products are float64, which scipy's own sum of a narrow type is not; in parts, since it casts what it adds.
    ones = np.ones(X.shape[1])
    parts = [X[i : i + _ROWS] @ ones for i in range(0, X.shape[0], _ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0)


def to_expression(X: Any, library: np.ndarray | None = None) -> Matrix:
    """Bring counts to the expression scale, ``log1p(1e4 * count / library size)``.

    Parameters
    ----------
    X
        Cells x genes, sparse or dense; unchanged.
    library
        Shape (n_cells,): total counts of each cell. None if `X` is log-normalized already and only to be cast.

    Returns
    -------
    A new float32 matrix: CSR in canonical form from sparse input, a C-contiguous ndarray from dense input.

    Raises
    ------
    ValueError
        If a library size is zero, negative or not finite, or their number is not that of the cells, and if `X` is not
        in memory: its rows are brought there first.
    """
    X = as_matrix(X)
    if isinstance(X, StoredMatrix):
        raise ValueError(
            f"The {X.shape[0]} cells are not in memory, and this needs all of them at once: load them, "
            "adata = adata.to_memory(), or ask for some of them."
        )
    if library is not None:
        library = check_library(library)
        if len(library) != X.shape[0]:
            raise ValueError(f"{len(library)} library sizes were given for {X.shape[0]} cells.")
    if not sparse.issparse(X):
        if library is None:
            return np.array(X, dtype=np.float32, order="C")
        out = np.multiply(X, (TARGET_SUM / library)[:, None], dtype=np.float64, order="C")
        return np.log1p(out, out=out).astype(np.float32)
    out = sparse.csr_matrix(X, copy=True)
    values = out.data if library is None else np.log1p(out.data * np.repeat(TARGET_SUM / library, np.diff(out.indptr)))
    out.data = values.astype(np.float32)
    return out


def check_library(sizes: Any, *, names: pd.Index | np.ndarray | None = None, column: str = "") -> np.ndarray:
    """Library sizes as float64, or a ValueError that names the first cells where they are no numbers of counts.

    `column` names where they come from, if they are no row sums.
    """
    library = np.asarray(sizes, dtype=np.float64)
    bad = np.flatnonzero(~((library >= _SMALLEST_LIBRARY) & (library <= _LARGEST_LIBRARY)))
    if bad.size:
        cells = bad[:5] if names is None else names[bad[:5]]
        listed = ", ".join(f"{cell} ({library[i]:g})" for cell, i in zip(cells, bad[:5], strict=True))
        fix = "remove empty cells with scanpy.pp.filter_cells(adata, min_counts=1)."
        if (library[bad] > _LARGEST_LIBRARY).any():
            fix = "no cell has so many: check what the values are."
        if column:
            fix = f"the column must hold the total counts of each cell; {fix}"
        raise ValueError(
            f"{column}{bad.size} cells have no positive library size up to {_LARGEST_LIBRARY:g} (first: {listed}); "
            f"{fix}"
        )
    return library


def _first_bad(X: Matrix, is_bad: Callable[[Any], Any], what: str) -> str:
    """Name the first bad value of a matrix that has some; slow, and only called to raise."""
    if not isinstance(X, StoredMatrix):
        return _bad_value_message(X, is_bad, what)
    parts = ((rows.start, as_matrix(X[rows])) for rows in X.chunks())
    first, part = next((i, p) for i, p in parts if is_bad(p.data if sparse.issparse(p) else p).any())
    return _bad_value_message(part, is_bad, what, first)


def _bad_value_message(X: Matrix, is_bad: Callable[[Any], Any], what: str, first_cell: int | None = None) -> str:
    """Name the first bad value and where it is; `first_cell` is the number of the first, of a part of the matrix."""
    coo = X.tocoo() if sparse.issparse(X) else None
    bad = np.argwhere(is_bad(coo.data if coo is not None else X))
    first = bad[0]
    row, column = (coo.row[first[0]], coo.col[first[0]]) if coo is not None else first
    value = coo.data[first[0]] if coo is not None else X[row, column]
    found = f"{len(bad)} values are" if first_cell is None else "Values are"
    return f"{found} {what}, the first is {value!s} at cell {row + (first_cell or 0)}, gene {column} (counted from 0)."
