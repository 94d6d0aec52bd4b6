"""Sums over cells by condition, batch and part: a reduction over chunks of cells, from which all moments are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from raptorgraph.screen._expression import check_library, to_expression
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._stored import StoredMatrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.screen._matrix import Matrix

_CHUNK = 4096  # cells brought to the expression scale at a time


@dataclass(frozen=True)
class Sums:
    """Number of cells, sums and sums of squares of each gene, in groups of cells: a condition in a batch and a part.

    Attributes
    ----------
    n_conditions
        Number of conditions, C; 0 is the control.
    condition, batch, part
        Shape (K,), int: which of each a group belongs to.
    n
        Shape (K,), int: cells.
    total, squares
        K x G, float64: sums on the expression scale, and of its squares.
    rate_total, rate_squares
        K x G: the same of ``1e4 * count / library size`` itself, or None.

    Examples
    --------
    >>> sums = rg.screen.Screen(adata, {"library_size_key": "total_counts"}).sums()
    >>> sums.total.shape, int(sums.n[0])  # control and ten conditions, in one batch
    ((11, 100), 300)
    """

    n_conditions: int
    condition: np.ndarray
    batch: np.ndarray
    part: np.ndarray
    n: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    rate_total: np.ndarray | None = None
    rate_squares: np.ndarray | None = None

    def of_parts(self, *parts: int) -> Sums:
        """Sums of some of the parts."""
        chosen = np.isin(self.part, parts)
        names = ("condition", "batch", "part", "n", "total", "squares", "rate_total", "rate_squares")
        return replace(self, **{name: values[chosen] for name in names if (values := getattr(self, name)) is not None})

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self.total.shape[1])


def add_up(
    X: Matrix,
    codes: Sequence[int] | np.ndarray,
    n_conditions: int,
    *,
    library: np.ndarray | None = None,
    batch: np.ndarray | None = None,
    part: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    rates: bool = False,
    chunk_size: int = _CHUNK,
) -> Sums:
    """Sums of a matrix, in one pass over chunks of its cells.

    Parameters
    ----------
    X
        Cells x genes in canonical form, or not in memory: counts if `library` is given, else values on the expression
        scale.
    codes
        Shape (n_cells,), int: condition of each cell, from 0 to ``n_conditions - 1``.
    n_conditions
        Number of conditions, C.
    library
        Shape (n_cells,): total counts of each cell.
    batch, part
        Shape (n_cells,), int: batch and part of each cell, from 0; default one of each.
    rows
        Indices of the cells to use, or a mask of them; default all.
    rates
        Whether to add up rates too.
    chunk_size
        Number of cells in a chunk.

    Raises
    ------
    ValueError
        If codes, batches, parts or library sizes do not fit the cells, or a code the number of conditions.

    Examples
    --------
    >>> sums = rg.screen.add_up(np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]]), [0, 1, 1], n_conditions=2)
    >>> sums.total / sums.n[:, None]  # means of control and of the condition
    array([[1. , 0. ],
           [4. , 3.5]])
    """
    n_cells = X.shape[0]
    condition = _per_cell(codes, "code", n_cells).astype(np.int64)
    rows = _rows(rows, n_cells)
    condition = condition[rows]
    if condition.min() < 0 or condition.max() >= n_conditions:
        raise ValueError(f"Codes must be from 0 to {n_conditions - 1}, found {condition.min()} to {condition.max()}.")
    if library is not None:
        library = _per_cell(library, "library size", n_cells).astype(np.float64)
        check_library(library[rows], names=rows)
    one = np.zeros(n_cells, dtype=np.int64)
    (parts, part), (batches, batch) = (
        np.unique((one if of is None else _per_cell(of, name, n_cells))[rows], return_inverse=True)
        for of, name in ((part, "part"), (batch, "batch"))
    )
    keys, groups = np.unique((part * len(batches) + batch) * n_conditions + condition, return_inverse=True)
    part, batch = np.divmod(keys // n_conditions, len(batches))
    sums = _empty(n_conditions, keys % n_conditions, batches[batch], parts[part], X.shape[1], rates=rates)
    if isinstance(X, StoredMatrix):
        chunk_size = min(chunk_size, X.chunk_size)
    for start in range(0, len(rows), chunk_size):
        place = slice(start, start + chunk_size)
        cells = rows[place]
        values = to_expression(X[cells], None if library is None else library[cells]).astype(np.float64)
        _add_chunk(sums, values, groups[place])
    return sums


def _empty(
    n_conditions: int, condition: np.ndarray, batch: np.ndarray, part: np.ndarray, n_genes: int, *, rates: bool
) -> Sums:
    """Sums over no cells, to which chunks are added."""
    shape = (len(condition), n_genes)
    names = ("total", "squares", *(("rate_total", "rate_squares") if rates else ()))
    n = np.zeros(len(condition), dtype=np.int64)
    return Sums(n_conditions, condition, batch, part, n, **{name: np.zeros(shape) for name in names})


def _add_chunk(sums: Sums, values: Matrix, groups: np.ndarray) -> None:
    """Add cells on the expression scale to the sums of their groups, in place."""
    present, local = np.unique(groups, return_inverse=True)
    members = sparse.csr_matrix((np.ones(len(groups)), (local, np.arange(len(groups)))), (len(present), len(groups)))
    sums.n[present] += np.bincount(local)
    sums.total[present] += to_dense(members @ values)
    sums.squares[present] += to_dense(members @ _squared(values))
    if sums.rate_total is not None and sums.rate_squares is not None:
        rates = values.expm1() if sparse.issparse(values) else np.expm1(values)
        sums.rate_total[present] += to_dense(members @ rates)
        sums.rate_squares[present] += to_dense(members @ _squared(rates))


def _squared(values: Matrix) -> Matrix:
    return values.multiply(values) if sparse.issparse(values) else values**2


def _per_cell(values: Sequence[int] | np.ndarray, name: str, n_cells: int) -> np.ndarray:
    """Values as an array; ValueError where there is not one for each cell."""
    values = np.asarray(values)
    if values.shape != (n_cells,):
        raise ValueError(f"There must be one {name} for each of the {n_cells} cells, got shape {values.shape}.")
    return values


def _rows(rows: np.ndarray | None, n_cells: int) -> np.ndarray:
    """Indices of the used cells; ValueError where there are none."""
    rows = np.arange(n_cells) if rows is None else np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    if rows.size == 0:
        raise ValueError("There are no cells to average: `rows` is empty.")
    return rows
