"""Room on the disk for what is added to an HDF5 file: one that finds none may end the process without a word."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph._files import check_takes, reserve

if TYPE_CHECKING:
    from raptorgraph.screen._matrix import Matrix

_BESIDE = 2**16  # bytes of the tables of a file, beside its values
_SMALLEST = 3 * 2**13  # bytes of the chunks that a sparse matrix begins with


def new_file(path: Path) -> h5py.File:
    """Begin an HDF5 file, once the disk has taken what every such file holds; OSError where it does not."""
    check_takes(path, _BESIDE)
    file = h5py.File(path, "w")
    _take(file, 0)
    return file


def room_for_rows(group: Any, key: str, values: Matrix) -> None:
    """Have the disk take rows that are added to a matrix of a group, or begin it; OSError where it does not.

    The disk keeps the room for the file from then on, so that nothing else can take it. Stores of other kinds say
    themselves what fails, and have none.
    """
    if not isinstance(group, h5py.Group):
        return
    parts = (values.data, values.indices, values.indptr) if sparse.issparse(values) else (values,)
    n_bytes = sum(part.nbytes for part in parts) + (parts[-1].nbytes if len(parts) > 1 else 0)  # as int64
    if key in group:
        arrays = [group[key]] if isinstance(group[key], h5py.Dataset) else list(group[key].values())
        chunks = sum(int(np.prod(array.chunks)) * array.dtype.itemsize for array in arrays if array.chunks)
    else:
        chunks = n_bytes + _SMALLEST
    _take(group.file, n_bytes + chunks)


def room_for_tables(group: Any, *tables: Any) -> None:
    """The same for tables, arrays, and mappings of these."""
    room_for_bytes(group, sum(map(_bytes_of, tables)))


def room_for_bytes(group: Any, n_bytes: int) -> None:
    """The same for a number of bytes, such as those of chunks of which little is filled yet."""
    if isinstance(group, h5py.Group):
        _take(group.file, n_bytes)


def close_whole(file: h5py.File) -> None:
    """Close a file that is complete, and give back the room that it did not need."""
    file.flush()
    path, n_bytes = Path(file.filename), file.id.get_filesize()
    if path.stat().st_size > n_bytes:
        os.truncate(path, n_bytes)
    file.close()


def _take(file: h5py.File, n_bytes: int) -> None:
    reserve(Path(file.filename), file.id.get_filesize() + n_bytes + _BESIDE)


def _bytes_of(value: Any) -> int:
    """Bytes that a table takes in a file, at most: each text in memory has a head that is larger than that in HDF5."""
    if isinstance(value, pd.DataFrame):
        return int(value.memory_usage(deep=True).sum())
    if isinstance(value, dict):
        return sum(map(_bytes_of, value.values()))
    if isinstance(value, np.ndarray):
        return int(pd.Series(value.ravel()).memory_usage(deep=True))
    return 2**10
