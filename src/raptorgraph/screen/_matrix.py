"""The canonical form in which matrices of users are read, whatever their type and storage."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from raptorgraph.screen._stored import StoredMatrix

Matrix: TypeAlias = Any
"""An ndarray, a csr_matrix or a StoredMatrix, as :func:`as_matrix` returns; scipy has no types."""


def as_matrix(X: Any) -> Matrix:
    """Bring a cells x genes matrix into canonical form, on a copy where it does not have that form.

    Whatever is summed, squared or iterated comes through here: entries of a sparse matrix may be stored in parts that
    add up, in any order and as zeros, so that a function of each stored value would not be a function of the matrix.

    Parameters
    ----------
    X
        Array or sparse matrix (or array) in any of scipy's formats, or a matrix that is not in memory; unchanged.

    Returns
    -------
    An ndarray from dense input. From sparse input CSR with every entry stored once, in the order of the genes, and no
    zeros. `X` itself where it is that already, without a copy. Entries that were stored in parts are float64; other
    values keep their type. A StoredMatrix is returned as it is; its rows come through here once they are read.

    Raises
    ------
    TypeError
        If `X` is not a matrix of numbers in memory, or sparse of a type that scipy cannot compute with.
    ValueError
        If values are masked, or a sparse matrix has more room than entries.
    """
    if isinstance(X, StoredMatrix):
        return X
    check_matrix(X)
    return _canonical(X) if sparse.issparse(X) else np.asarray(X)


def to_dense(X: Matrix) -> np.ndarray:
    """The matrix as an array; itself where it is one."""
    return np.asarray(X.toarray() if sparse.issparse(X) else X)


def check_matrix(X: Any) -> None:
    """Raise the errors of :func:`as_matrix`, before rows or columns are taken."""
    if not sparse.issparse(X):
        if np.ma.is_masked(X):
            raise ValueError(
                f"{np.ma.getmaskarray(X).sum()} values are masked; missing values cannot be learned from: fill them, "
                "adata.X = adata.X.filled(0), or drop the cells or genes."
            )
        kind, X = type(X).__name__, np.asarray(X)
        if not X.ndim:
            raise TypeError(
                f"Expected a cells x genes matrix of numbers in memory, not {kind}; load backed data with "
                "adata.to_memory()."
            )
    if X.ndim != 2 or X.dtype.kind not in "buif":
        raise TypeError(
            f"Expected a cells x genes matrix of numbers, got {X.ndim} dimensions of type {X.dtype}; convert it, for "
            "example adata.X = adata.X.astype('float32')."
        )
    if sparse.issparse(X) and (X.dtype == np.float16 or not X.dtype.isnative):
        raise TypeError(f"scipy cannot compute with sparse matrices of type {X.dtype}: use X.astype(numpy.float32).")
    if sparse.issparse(X) and X.format in ("csr", "csc") and len(X.indices) > X.nnz:
        # scipy then writes out of bounds when columns are taken
        raise ValueError(
            f"The arrays of the sparse matrix have room for {len(X.indices)} entries and hold {X.nnz}: call X.prune()."
        )


def _canonical(X: Any) -> sparse.csr_matrix:
    # Sums are taken in float64, as 200 + 100 is not 300 in uint8; two of these formats add up on the way to CSR.
    wide = X.dtype if X.dtype == bool else np.float64
    csr = (X.astype(wide) if X.format in ("coo", "bsr") else X).tocsr()
    # A new object on the same arrays: scipy keeps what it once found out, also when the arrays were replaced since.
    same = found = sparse.csr_matrix((csr.data, csr.indices, csr.indptr), shape=csr.shape)
    if not found.has_sorted_indices:
        found = found.sorted_indices()
    if not found.has_canonical_format:
        found = found.astype(wide)
        found.sum_duplicates()
    if np.count_nonzero(found.data) < found.nnz:
        found = found.copy() if found is same else found
        found.eliminate_zeros()
    return X if found is same and isinstance(X, sparse.csr_matrix) else found
