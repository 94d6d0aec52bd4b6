"""Matrices that are not in memory: files and lazy arrays, read by rows."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from raptorgraph.screen._memory import is_large

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

Rows = list[tuple[int, int]]
"""First row of each run of rows, and the row after its last."""

_GAP = 32  # rows that are read and dropped sooner than that a read is cut in two
_MOST = 8192  # rows that one read takes at most, those between the wanted ones included
_CHUNK, _CHUNK_BYTES = 4096, 2**27  # cells and bytes of a chunk, as a dense matrix
_DAMAGED = "The sparse matrix in the file is damaged, copy the file again:"


class Reader(Protocol):
    """What reads runs of rows from where they are, one under the other: CSR, or dense."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    row_bytes: float

    def read(self, runs: Rows) -> Any:
        """Rows of all runs."""


class StoredMatrix:
    """Cells x genes that are not in memory; indexing reads rows, in the order that is asked for.

    Parameters
    ----------
    reader
        What reads rows.
    rows, columns
        Rows and columns that this matrix consists of, in its order; default all.

    Attributes
    ----------
    seen
        What one pass over all values found (:func:`raptorgraph.screen._expression.look_through`); None before it.
    """

    ndim = 2

    def __init__(self, reader: Reader, rows: np.ndarray | None = None, columns: np.ndarray | None = None) -> None:
        self.reader, self.rows = reader, rows
        whole = columns is None or np.array_equal(columns, np.arange(reader.shape[1]))
        self.columns = None if whole else np.asarray(columns, dtype=np.int64)
        self.seen: Any = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of genes."""
        n, g = self.reader.shape
        return n if self.rows is None else len(self.rows), g if self.columns is None else len(self.columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.reader.dtype

    @property
    def row_bytes(self) -> float:
        """Bytes of a cell in memory, in the mean."""
        return self.reader.row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def of_genes(self, columns: np.ndarray) -> StoredMatrix:
        """The same cells with some of the genes, in the order given; nothing is read."""
        columns = np.arange(self.shape[1])[columns]
        return StoredMatrix(self.reader, self.rows, columns if self.columns is None else self.columns[columns])

    def of_cells(self, rows: np.ndarray) -> StoredMatrix:
        """Some of the cells, in the order given; nothing is read."""
        rows = self._numbers(rows)
        return StoredMatrix(self.reader, rows, self.columns)

    def chunks(self) -> Iterator[slice]:
        """Rows of the chunks of a pass over all cells."""
        step = self.chunk_size
        return (slice(i, min(i + step, len(self))) for i in range(0, len(self), step))

    @property
    def chunk_size(self) -> int:
        """Cells in a chunk of a pass, fewer where there are many genes."""
        return max(1, min(_CHUNK, _CHUNK_BYTES // (8 * max(1, self.shape[1]))))

    def __getitem__(self, key: Any) -> Any:
        """Some of the cells in memory, dense or CSR; with columns of all cells, a matrix that is not read yet."""
        if isinstance(key, tuple):
            rows, columns = key
            found = self.of_genes(columns)
            return found if isinstance(rows, slice) and rows == slice(None) else found[rows]
        rows = self._numbers(key)
        if len(rows) == 0:
            empty = self.reader.read([(0, 1)])[:0]
            return self._of_columns(empty)
        distinct, place = rows, None
        if (np.diff(rows) <= 0).any():
            distinct, place = np.unique(rows, return_inverse=True)
        parts = [self._read(part) for part in _pieces(distinct)]
        found = parts[0] if len(parts) == 1 else stack(parts)
        return found if place is None else found[place]

    def _numbers(self, rows: Any) -> np.ndarray:
        """Rows of the reader."""
        if not isinstance(rows, slice) and np.asarray(rows).dtype != bool:
            rows = np.asarray(rows, dtype=np.int64)
            if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
                raise IndexError(f"There are {len(self)} cells, and none at {rows.min()} or {rows.max()}.")
            rows = np.where(rows < 0, rows + len(self), rows)
            numbers: np.ndarray = rows if self.rows is None else self.rows[rows]
            return numbers
        of_slice: np.ndarray = (np.arange(len(self)) if self.rows is None else self.rows)[rows]
        return of_slice

    def _read(self, rows: np.ndarray) -> Any:
        """Rows in ascending order, with those between them in one go."""
        edges = np.flatnonzero(np.diff(rows) > _GAP) + 1
        starts, stops = rows[np.r_[0, edges]], rows[np.r_[edges - 1, len(rows) - 1]] + 1
        read = self.reader.read(list(zip(starts.tolist(), stops.tolist(), strict=True)))
        if read.shape[0] > len(rows):
            before = np.cumsum(np.r_[0, stops - starts])[:-1]
            run = np.repeat(np.arange(len(starts)), np.diff(np.r_[0, edges, len(rows)]))
            read = read[rows - starts[run] + before[run]]
        return self._of_columns(read)

    def _of_columns(self, read: Any) -> Any:
        if self.columns is None:
            return read
        if not sparse.issparse(read) or len(self.columns) < read.shape[1]:
            return read[:, self.columns]
        place = np.empty(len(self.columns), dtype=read.indices.dtype)
        place[self.columns] = np.arange(len(self.columns))
        return sparse.csr_matrix((read.data, place[read.indices], read.indptr), shape=read.shape)


def _pieces(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Cut ascending rows so that with all that is read between them no piece is large."""
    cost = np.cumsum(np.minimum(np.diff(rows, prepend=rows[0] - 1), _GAP))
    cuts = np.flatnonzero(np.diff(cost // _MOST)) + 1
    yield from np.split(rows, cuts)


def stack(parts: list[Any]) -> Any:
    """Matrices one under the other."""
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


class _Array:
    """Array of a file, which is opened again where it was closed, as ``adata.to_memory()`` does."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._place = (array.file.filename, array.name) if isinstance(array, h5py.Dataset) else None
        self._store = store_folder(array)

    def open(self) -> Any:
        """The array, ready to be read; FileNotFoundError where its store is gone, of which zarr would read zeros."""
        if self._store is not None and not self._store.exists():
            raise FileNotFoundError(f"The zarr store {str(self._store)!r}, which the cells are read from, is gone.")
        if self._place is not None and not self._array:
            filename, name = self._place
            self._array = h5py.File(filename)[name]
        return self._array


class SparseReader:
    """CSR in an HDF5 file or a zarr store."""

    def __init__(self, X: CSRDataset) -> None:
        group = X.group
        self.data, self.indices = _Array(group["data"]), _Array(group["indices"])
        self.indptr = np.asarray(group["indptr"][...], dtype=np.int64)
        self.shape, self.dtype = tuple(X.shape), np.dtype(X.dtype)
        n_entries, n = [tuple(group[name].shape) for name in ("data", "indices")], self.indptr
        whole = n.shape == (self.shape[0] + 1,) and n_entries[0] == n_entries[1] and len(n_entries[0]) == 1
        if not (whole and n[0] == 0 and (np.diff(n) >= 0).all() and n[-1] <= n_entries[0][0]):
            raise ValueError(f"{_DAMAGED} its row pointers do not fit its {self.shape[0]} cells and their entries.")
        self.row_bytes = (
            self.indptr[-1] / max(1, self.shape[0]) * (self.dtype.itemsize + group["indices"].dtype.itemsize)
        )

    def read(self, runs: Rows) -> sparse.csr_matrix:
        """Rows of all runs."""
        indptr = self.indptr
        data, indices = (
            np.concatenate([part[indptr[start] : indptr[stop]] for start, stop in runs])
            for part in (self.data.open(), self.indices.open())
        )
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.shape[1]:
            raise ValueError(f"{_DAMAGED} it has entries beyond its {self.shape[1]} genes.")
        sizes = np.concatenate([np.diff(indptr[start : stop + 1]) for start, stop in runs])
        ends = np.concatenate([[0], np.cumsum(sizes)])
        return sparse.csr_matrix((data, indices, ends), shape=(len(sizes), self.shape[1]))


class DenseReader:
    """Array in an HDF5 file or a zarr store."""

    def __init__(self, X: Any) -> None:
        self.X, self.shape, self.dtype = _Array(X), tuple(X.shape), np.dtype(X.dtype)
        self.row_bytes = self.shape[1] * self.dtype.itemsize

    def read(self, runs: Rows) -> np.ndarray:
        """Rows of all runs."""
        X = self.X.open()
        return np.concatenate([X[start:stop] for start, stop in runs])


class LazyReader:
    """Dask array, of which all runs are computed at once, so that a chunk is read once."""

    def __init__(self, X: Any) -> None:
        self.X, self.shape, self.dtype = X, tuple(X.shape), np.dtype(X.dtype)
        self.row_bytes = self.shape[1] * max(4, self.dtype.itemsize)

    def read(self, runs: Rows) -> Any:
        """Rows of all runs."""
        import dask

        found = stack(list(dask.compute(*(self.X[start:stop] for start, stop in runs))))
        return found.tocsr() if sparse.issparse(found) else np.asarray(found)


class LoadedReader:
    """Matrix in memory, of data of which another part is in a file."""

    def __init__(self, X: Any) -> None:
        self.X, self.shape, self.dtype = X, tuple(X.shape), np.dtype(X.dtype)
        self.row_bytes = 0.0

    def read(self, runs: Rows) -> Any:
        """Rows of all runs."""
        return stack([self.X[start:stop] for start, stop in runs])


def store_folder(array: Any) -> Path | None:
    """Folder of the zarr store of an array or group; None for others."""
    root = getattr(getattr(array, "store", None), "root", None)
    return None if root is None else Path(root)


def is_stored(X: Any) -> bool:
    """Whether a matrix is not in memory."""
    if isinstance(X, CSRDataset | CSCDataset | h5py.Dataset):
        return True
    return any(
        (module := sys.modules.get(name)) is not None and isinstance(X, getattr(module, "Array", ()))
        for name in ("zarr", "dask.array")
    )


def reader_of(X: Any, where: str) -> Reader:
    """What reads a matrix that is not in memory; errors name `where` it is.

    TypeError for values that are no numbers, ValueError for a large matrix in CSC, of which cells cannot be read apart.
    A small one is loaded, with a warning.
    """
    if len(X.shape) != 2 or np.dtype(X.dtype).kind not in "buif":
        raise TypeError(
            f"{where} holds {len(X.shape)} dimensions of type {X.dtype}, and no cells x genes of numbers: write them "
            "as numbers, for example as float32."
        )
    if isinstance(X, CSCDataset):
        found = (
            f"{where} is stored by genes (CSC), so that cells cannot be read without reading all of it. Write it by "
            f"cells (CSR) once: adata = adata.to_memory(); {where} = {where}.tocsr(); adata.write_h5ad(...)"
        )
        if is_large(X.group["data"].shape[0] * (X.dtype.itemsize + X.group["indices"].dtype.itemsize)):
            raise ValueError(f"{found}, on a machine with more memory.")
        warnings.warn(f"{found}. It is loaded into memory now.", UserWarning, stacklevel=2)
        return LoadedReader(X.to_memory().tocsr())
    if isinstance(X, CSRDataset):
        return SparseReader(X)
    if isinstance(X, h5py.Dataset) or type(X).__module__.startswith("zarr"):
        return DenseReader(X)
    return LazyReader(X)


def stored_matrix(X: Any) -> StoredMatrix:
    """A matrix that is read by rows, also where it is in memory, as a layer of backed data is."""
    return X if isinstance(X, StoredMatrix) else StoredMatrix(LoadedReader(X))


def values_of(adata: AnnData) -> Any:
    """``adata.X``, None where there is none, which backed data raise an error for."""
    try:
        return adata.X
    except KeyError:  # of HDF5
        return None


def with_columns(adata: AnnData, columns: np.ndarray) -> AnnData:
    """Some genes of all cells, in memory where these are a view into a file, of which anndata makes no further one."""
    return (adata.to_memory() if adata.isbacked and adata.is_view else adata)[:, columns]


def copy_of_cells(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Some of the cells, on a copy in memory."""
    return (adata.to_memory() if adata.isbacked and adata.is_view else adata)[rows].to_memory()


def loaded_table(table: Any) -> pd.DataFrame:
    """Table of cells or genes, in memory; itself where it is."""
    return table if isinstance(table, pd.DataFrame) else table.to_memory()


def keeps_order(adata: AnnData, layer: str | None = None) -> bool:
    """Whether the genes of an AnnData cannot be put in another order, since its values are not in memory."""
    return bool(adata.isbacked) or is_stored(adata.X if layer is None else adata.layers.get(layer))
