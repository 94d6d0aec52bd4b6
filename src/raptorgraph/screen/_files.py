"""Read cells from a file, or say what is wrong with it."""

from __future__ import annotations

import json
import mmap
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import anndata as ad
import h5py
import numpy as np
from anndata._io.specs.registry import IORegistryError
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from raptorgraph._failures import FAILURES, one_line

if TYPE_CHECKING:
    from collections.abc import Collection

_HOW = "write one with adata.write_h5ad(...)"
_MUDATA = (
    "holds a MuData, with the modalities {modalities}: write the one with the expression, labels in its obs, as a file "
    "of its own, mudata.{reader}({path!r})[{first!r}].write_h5ad(...)"
)
# anndata < 0.12 does not bring zarr, and cannot be imported beside zarr >= 3
_NEEDS_ZARR = 'reading it needs zarr: pip install zarr "anndata>=0.12"'
_OF_STORES = (".zgroup", "zarr.json", ".zmetadata", ".zarray")
# HDF5 keeps texts in blocks: a signature with a version, a size, and entries of a number, a length and a text
_TEXTS, _ENTRY = b"GCOL\x01\0\0\0", 16
_LOOKED_AT = 2**27  # bytes at the start and at the end of a file


def read_cells(path: str | Path) -> ad.AnnData:
    """Read an AnnData from an h5ad file or a zarr store.

    Parameters
    ----------
    path
        An h5ad file, or the folder of a zarr store.

    Returns
    -------
    anndata.AnnData
        The cells, in memory.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    PermissionError
        If it must not be read.
    ImportError
        If it is a zarr store and zarr is not installed.
    ValueError
        If it is something else than an AnnData, or damaged; names the file and says what it is.
    """
    path = Path(path)
    check_cells(path)
    try:
        adata = ad.read_zarr(path) if path.is_dir() else ad.read_h5ad(path)
        _check_positions(adata)
    except MemoryError:
        raise
    except (*FAILURES, IORegistryError) as error:
        raise _damaged(path, error) from error
    return adata


def _damaged(path: Path, error: BaseException) -> ValueError:
    return ValueError(
        f"{str(path)!r} cannot be read: it is damaged, was not copied as a whole, or was written by a version of "
        f"anndata that this one does not know. {one_line(error)[:300]}"
    )


def _check_positions(adata: ad.AnnData) -> None:
    """ValueError where a sparse matrix has positions outside of it, at which scipy would read and write."""
    slots = ("layers", "obsm", "varm", "obsp", "varp")
    found = {f"{slot}/{key}": values for slot in slots for key, values in getattr(adata, slot).items()}
    found |= {"X": adata.X} | ({} if adata.raw is None else {"raw/X": adata.raw.X})
    for where, values in found.items():
        if sparse.issparse(values):
            try:
                values.check_format(full_check=True)
            except ValueError as error:
                raise ValueError(f"{where}: {error}.") from None


def open_cells(path: str | Path, layers: Collection[str] = ()) -> ad.AnnData:
    """Open an h5ad file or a zarr store, whose matrix and layers stay there and are read when they are needed.

    Raises as :func:`read_cells`. `layers` are those to be had; others, ``raw``, and what compares cells or genes by
    pairs are left out.
    """
    path = Path(path)
    check_cells(path)
    file: Any = zarr_module(path).open_group(str(path), mode="r") if path.is_dir() else h5py.File(path)
    try:
        parts = {key: read_elem(file[key]) for key in ("obs", "var", "obsm", "varm", "uns") if key in file}
        found = {name: lazily(file["layers"][name]) for name in layers if "layers" in file and name in file["layers"]}
        return ad.AnnData(lazily(file["X"]) if "X" in file else None, layers=found, **parts)
    except MemoryError:
        raise
    except (*FAILURES, IORegistryError) as error:
        raise _damaged(path, error) from error


def values_bytes(path: Path, layer: str | None = None) -> int:
    """Bytes that the matrix of a file, or a layer, takes in memory; 0 where it is not there, or not to be read."""
    try:
        opened = nullcontext(zarr_module(path).open_group(str(path), mode="r")) if path.is_dir() else h5py.File(path)
        with opened as file:
            key = "X" if layer is None else f"layers/{layer}"
            if key not in file:
                return 0
            arrays = [file[key]] if hasattr(file[key], "shape") else [file[key][name] for name in ("data", "indices")]
            return int(sum(np.prod(array.shape) * array.dtype.itemsize for array in arrays))
    except FAILURES:  # reading it says what is wrong
        return 0


def lazily(item: Any) -> Any:
    """A matrix of a file, of which nothing is read yet."""
    return item if hasattr(item, "dtype") else sparse_dataset(item)


def zarr_module(path: Path) -> Any:
    """The package zarr; ImportError that says how to install it."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{str(path)!r} is a zarr store: {_NEEDS_ZARR}") from error
    return zarr


def check_cells(path: Path) -> None:
    """Raise the errors of :func:`read_cells` that show without reading the values."""
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    problem = _problem_of_folder(path) if path.is_dir() else _problem_of_file(path)
    if problem:
        raise ValueError(f"{str(path)!r} {problem}.")


def check_folder(out: Path, screen: Path | None = None) -> None:
    """Raise where results cannot be written to a folder, which need not exist, or would go into the screen."""
    parent = next((part for part in (out, *out.absolute().parents) if part.exists()), out)
    if not parent.is_dir():
        raise NotADirectoryError(f"{str(parent)!r} is a file: choose another directory for the results.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{str(parent)!r} cannot be written to: choose another directory for the results.")
    if screen is not None and screen.is_dir() and out.resolve().is_relative_to(screen.resolve()):
        raise ValueError(f"{str(out)!r} lies in the screen {str(screen)!r}: choose another directory for the results.")


def is_file_or_store(path: str | Path) -> bool:
    """Whether there is a file or a zarr store, which is a folder."""
    return Path(path).is_file() or any((Path(path) / name).is_file() for name in _OF_STORES)


def _problem_of_folder(path: Path) -> str | None:
    if not is_file_or_store(path):
        return "is a folder and no zarr store: name the file in it"
    zarr = zarr_module(path)
    try:
        missing = [name for name in _listed(path) if not (path / name).is_file()]
        if missing:  # zarr would fill it with zeros
            return f"is not a whole zarr store: {missing[0]!r} is missing; copy it again"
        store: Any = zarr.open_group(str(path), mode="r")
        modalities = list(store["mod"]) if "mod" in store else []
        problem = _problem_of_store(path, dict(store.attrs), list(store), modalities)
        return problem or _lost_chunks(store)
    except FAILURES as error:
        return f"is a damaged zarr store, or not a whole one ({one_line(error)[:300]})"


def _listed(path: Path) -> list[str]:
    """Files that the summary of a zarr store says it has, which describe its groups and arrays."""
    for name in (".zmetadata", "zarr.json"):
        if (path / name).is_file():
            summary = json.loads((path / name).read_text(encoding="utf-8"))
            if name == ".zmetadata":
                return list(summary["metadata"])
            return [f"{key}/{name}" for key in (summary.get("consolidated_metadata") or {}).get("metadata", ())]
    return []


def _lost_chunks(store: Any) -> str | None:
    """Say which array lacks chunks, which zarr would fill with zeros; None where none does.

    zarr itself leaves out chunks of zeros alone, which entries of a sparse matrix and names never are; other arrays are
    not looked at.
    """
    lost = [name for key in ("obs", "var", "X", "layers") if key in store for name in _lacking(store[key], key)]
    return f"is not a whole zarr store: {lost[0]!r} lacks chunks; copy it again" if lost else None


def _lacking(item: Any, name: str) -> list[str]:
    """Names of the arrays below a group that lack chunks and cannot be zeros."""
    if hasattr(item, "shape"):
        return []
    kind = item.attrs.get("encoding-type")
    if kind in ("dataframe", "dict", None):
        found = [place for key in item for place in _lacking(item[key], f"{name}/{key}")]
    else:
        found = []
    key = {"csr_matrix": "data", "csc_matrix": "data", "categorical": "categories"}.get(kind, item.attrs.get("_index"))
    array: Any = item[key] if key is not None and key in item else None
    if hasattr(array, "keys"):  # text of the newest anndata, with a mask beside it
        array = array.get("values")
    is_text = kind not in ("csr_matrix", "csc_matrix")
    if not hasattr(array, "shape") or (is_text and array.dtype.kind in "biuf"):
        return found
    # the one category of a column of blanks is left out as zeros are
    whole = array.size <= is_text or array.nchunks_initialized == array.nchunks
    return found if whole else [*found, f"{name}/{key}"]


def _problem_of_file(path: Path) -> str | None:
    with _opened(path) as file:
        start = file.read(2048)
    if not start:
        return f"is an empty file, not an h5ad file: {_HOW}"
    if not h5py.is_hdf5(path) and not start.startswith(b"\x89HDF"):
        return f"is {_kind(start)}, not an h5ad file: {_HOW}"
    if _has_endless_texts(path):
        return "is a damaged HDF5 file, or not a whole one: copy it again (a block of texts has no end)"
    try:
        with h5py.File(path) as file:
            return _problem_of_store(path, dict(file.attrs), list(file), list(file["mod"]) if "mod" in file else [])
    except FAILURES as error:
        return f"is a damaged HDF5 file, or not a whole one: copy it again ({one_line(error)[:300]})"


def _has_endless_texts(path: Path) -> bool:
    """Whether a block of texts has an entry of no length, at which HDF5 would stay forever, and not be interrupted.

    Zeros that an interrupted copy leaves in a file make one. Of a large file start and end are looked at, where
    attributes and names are.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        n = len(content)
        for start, stop in ((0, min(n, _LOOKED_AT)), (max(_LOOKED_AT, n - _LOOKED_AT), n)):
            place = content.find(_TEXTS, start, stop)
            while place >= 0:
                if _is_endless(content, place):
                    return True
                place = content.find(_TEXTS, place + len(_TEXTS), stop)
    return False


def _is_endless(content: mmap.mmap, place: int) -> bool:
    """Walk through a block of texts as HDF5 does; an entry of number 0 is free room, and counts itself."""

    def number(start: int, n_bytes: int) -> int:
        return int.from_bytes(content[start : start + n_bytes], "little")

    end, place = min(place + number(place + 8, 8), len(content)), place + _ENTRY
    while place + _ENTRY <= end:
        length = number(place + 8, 8)
        if number(place, 2):
            place += _ENTRY + -(-length // 8) * 8
        elif length:
            place += length
        else:
            return True
    return False


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except PermissionError as error:
        raise PermissionError(f"{str(path)!r} must not be read by this user: see its permissions.") from error


def _problem_of_store(path: Path, attributes: dict[str, Any], keys: list[str], modalities: list[str]) -> str | None:
    """Say what a store is, by the keys at its top; None for an AnnData."""
    kind = str(attributes.get("encoding-type", "")).lower()
    if modalities or kind == "mudata":
        first = next((name for name in modalities if name in ("rna", "gex")), modalities[0] if modalities else "rna")
        reader = "read_zarr" if path.is_dir() else "read_h5mu"
        return _MUDATA.format(modalities=modalities, reader=reader, path=str(path), first=first)
    if kind == "anndata" or {"obs", "var"} <= set(keys):
        return None
    if {"row_attrs", "col_attrs"} <= set(keys):
        return f"is a loom file, not an h5ad file: scanpy.read_loom({str(path)!r}).write_h5ad(...) makes one"
    if "matrix" in keys:
        return (
            f"is a matrix of Cell Ranger, without labels of cells, not an h5ad file: read it with "
            f"scanpy.read_10x_h5({str(path)!r}), add the labels to obs, and {_HOW}"
        )
    return f"has {', '.join(map(repr, keys[:5])) or 'nothing'} at its top, and is no AnnData: {_HOW}"


def _kind(start: bytes) -> str:
    if start.startswith(b"\x1f\x8b"):
        return "compressed with gzip (unpack it first)"
    if start.startswith(b"PK\x03\x04"):
        return "a ZIP archive (unpack it first)"
    return "a text file" if _is_text(start) else "of another kind"


def _is_text(start: bytes) -> bool:
    try:
        text = start[:-4].decode() if len(start) > 4 else start.decode()  # a letter may be cut off at the end
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.start > 0
    return "\x00" not in text
