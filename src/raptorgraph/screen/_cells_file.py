"""Write an AnnData part by part, so that its values need not be in memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anndata as ad
import h5py
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

from raptorgraph._files import replaced
from raptorgraph.screen._files import check_folder, is_file_or_store, open_cells, zarr_module
from raptorgraph.screen._room import close_whole, new_file, room_for_rows, room_for_tables
from raptorgraph.screen._stored import is_stored, store_folder, values_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import TracebackType

    import numpy as np
    import pandas as pd

_GROUPS = ("layers", "obsm", "varm", "obsp", "varp")
_OWN = "_scvi"  # start of the names of columns that setups write


def check_out(out: str | Path, *sources: ad.AnnData) -> Path:
    """Path of a file to be written; raises before any work.

    ValueError for a name that ends neither in ``.h5ad`` nor in ``.zarr``, for what is no file of this kind that could
    be replaced, and for the files of the `sources`; NotADirectoryError and PermissionError for a folder that cannot be
    written to; ImportError where zarr is missing.
    """
    path = Path(out)
    if path.suffix not in (".h5ad", ".zarr"):
        raise ValueError(f"out={str(out)!r} must end in .h5ad or .zarr, which says how cells are written.")
    if path.suffix == ".zarr":
        zarr_module(path)
    check_folder(path.parent)
    taken = [place for place in (path, *path.absolute().parents) if place.exists()]
    for file in (file for source in sources for file in _files_of(source)):
        if any(place.samefile(file) for place in taken):
            raise ValueError(f"out={str(out)!r} is the file that the cells are read from: choose another name.")
    if path.exists() and any(map(_does_not_say, sources)):
        raise ValueError(f"out={str(out)!r} is there, and may be what the cells are read from: choose another name.")
    if path.is_dir() and (path.suffix == ".h5ad" or (any(path.iterdir()) and not is_file_or_store(path))):
        raise ValueError(f"out={str(out)!r} is a folder, which is not replaced: choose another name.")
    if path.suffix == ".zarr" and path.is_file():
        raise ValueError(f"out={str(out)!r} is a file, and a zarr store is a folder: choose another name.")
    return path


def _files_of(adata: ad.AnnData) -> list[Path]:
    """Files that the values of an AnnData are read from, as far as they say."""
    found = [adata.filename] if adata.isbacked else []
    for X in (values_of(adata), *adata.layers.values()):
        group = getattr(X, "group", X)
        file = getattr(group, "file", None)  # of HDF5
        found += [name for name in (getattr(file, "filename", None), store_folder(group)) if name is not None]
    return [Path(name) for name in found if Path(name).exists()]


def _does_not_say(adata: ad.AnnData) -> bool:
    """Whether values are read from a file that cannot be told."""
    return any(is_stored(X) and hasattr(X, "dask") for X in (values_of(adata), *adata.layers.values()))


class CellsFile:
    """An AnnData that is written part by part, under a temporary name until it is complete.

    Parameters
    ----------
    path
        An h5ad file, or the folder of a zarr store, by the end of its name; replaced where it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            part = stack.enter_context(replaced(self.path))
            self.group = self._group(part)
            stack.push(self._close)
            self.group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            for name in _GROUPS:
                write_elem(self.group, name, {})
            self._opened = stack.pop_all()
        return self

    def _group(self, part: Path) -> Any:
        if self.path.suffix != ".zarr":
            return new_file(part)
        zarr = zarr_module(self.path)
        format_of = {"zarr_format": ad.settings.zarr_write_format} if hasattr(zarr.Group, "create_array") else {}
        self._store = str(part)
        return zarr.open_group(self._store, mode="w", **format_of)

    def _close(self, kind: type[BaseException] | None, *_: object) -> None:
        if isinstance(self.group, h5py.File):
            if kind is None:
                close_whole(self.group)
            self.group.close()
        elif kind is None:
            zarr_module(self.path).consolidate_metadata(self._store)

    def append(self, key: str, values: np.ndarray | sparse.csr_matrix) -> None:
        """Add rows to a matrix, such as ``"X"`` or ``"obsm/key"``."""
        append_rows(self.group, key, values)

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: dict[str, Any] | None = None) -> None:
        """Write the tables."""
        kept = [name for name in obs.columns if not str(name).startswith(_OWN)]
        room_for_tables(self.group, obs[kept], var, uns or {})
        write_elem(self.group, "obs", obs[kept])
        write_elem(self.group, "var", var)
        write_elem(self.group, "uns", uns or {})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def read(self, layers: Collection[str] = ()) -> ad.AnnData:
        """The finished cells, whose values stay in the file."""
        return open_cells(self.path, layers)


def write_cells(path: Path, parts: Iterable[np.ndarray], obs: pd.DataFrame, var: pd.DataFrame) -> ad.AnnData:
    """Write cells x columns that come part by part; return them as they are then in the file."""
    with CellsFile(path) as file:
        for part in parts:
            file.append("X", part)
        file.finish(obs, var)
    return file.read()


def append_rows(group: Any, key: str, values: np.ndarray | sparse.csr_matrix) -> None:
    """Add rows to a matrix of a group of HDF5 or zarr, or begin it with them.

    OSError where the disk does not take them.
    """
    room_for_rows(group, key, values)
    if sparse.issparse(values):
        if key in group:
            sparse_dataset(group[key]).append(sparse.csr_matrix(values))
        else:  # positions of more entries than 32 bits count
            write_elem(group, key, sparse.csr_matrix(values), dataset_kwargs={"indptr_dtype": "int64"})
        return
    if key in group:
        array, n = group[key], group[key].shape[0]
        array.resize((n + len(values), *array.shape[1:]))
        array[n:] = values
    else:
        write_elem(group, key, values, dataset_kwargs=_growing(group, values))


def _growing(group: Any, values: np.ndarray) -> dict[str, Any]:
    chunks = (max(1, min(1024, len(values))), *values.shape[1:])
    return {"chunks": chunks, **({"maxshape": (None, *values.shape[1:])} if isinstance(group, h5py.Group) else {})}
