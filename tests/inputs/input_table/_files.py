"""Files: AnnData in four layouts, and what is no AnnData, or not a whole one."""

from __future__ import annotations

import gzip
import re
import shutil
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from input_table._row import Case, Row, counts, equal, plain
from raptorgraph.screen._files import open_cells, read_cells

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

G, D = "Files", "Files that are no screen"


def write(adata: ad.AnnData, path: Path, zarr_format: int | None = None) -> Path:
    """Write an AnnData in a layout."""
    if zarr_format is None:
        adata.write_h5ad(path)
        return path
    if not hasattr(ad.settings, "zarr_write_format"):  # of anndata before 0.12, which writes the second format
        pytest.importorskip("zarr", "99" if zarr_format == 3 else None)
        adata.write_zarr(path)
        return path
    with warnings.catch_warnings(), ad.settings.override(zarr_write_format=zarr_format):
        warnings.filterwarnings("ignore", "Writing zarr v2 data", UserWarning)
        warnings.filterwarnings("ignore", "zarr v3 autosharding|Consolidated metadata", UserWarning)
        adata.write_zarr(path)
    return path


LAYOUTS: dict[str, tuple[str, int | None, Callable[[np.ndarray], Any]]] = {
    "h5ad, dense": ("screen.h5ad", None, np.float32),
    "h5ad, sparse by cells (CSR)": ("screen.h5ad", None, sparse.csr_matrix),
    "zarr of format 2": ("screen.zarr", 2, sparse.csr_matrix),
    "zarr of format 3": ("screen.zarr", 3, np.float32),
}
DAMAGED = "cannot be read: it is damaged"
READERS: dict[str, Callable[[Path], ad.AnnData]] = {"in memory": read_cells, "left in the file": open_cells}


def layout(name: str, way: str) -> Row:
    """Row of a layout, read in one of two ways."""
    file, zarr_format, make = LAYOUTS[name]

    def act(case: Case) -> None:
        adata = plain()
        adata.X = make(counts())
        equal(case.effects(READERS[way](write(adata, case.folder / file, zarr_format))))

    return Row(G, f"{name}, {way}", "the same effects", act)


def backed(make: Callable[[np.ndarray], Any], have: str, **kind: Any) -> Row:
    """Row of data that anndata leaves in their file."""

    def act(case: Case) -> None:
        adata = plain()
        adata.X = make(counts())
        adata = ad.read_h5ad(write(adata, case.folder / "screen.h5ad"), backed="r")
        try:
            equal(case.effects(adata))
        finally:
            adata.file.close()

    return Row(G, have, "the same effects", act, **kind)


def odd_columns(case: Case) -> None:
    """Nullable and other columns of ``obs`` do not matter, and come back."""
    adata = plain()
    adata.obs["flag"] = pd.array([True, None] * 18, dtype="boolean")
    adata.obs["number"] = pd.array([1, None] * 18, dtype="Int64")
    adata.obs["kind"] = pd.Categorical(["a", None] * 18)
    read = read_cells(write(adata, case.folder / "screen.h5ad"))
    assert read.obs["number"].isna().sum() == 18
    equal(case.effects(read))


def damaged(have: str, make: Callable[[Path], Any], *says: str) -> Row:
    """Row of a file that is not read: the error names it."""

    def act(case: Case) -> None:
        path = case.folder / "screen.h5ad"
        make(path)
        with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
            read_cells(path)
        assert "\n" not in str(caught.value)
        raise caught.value

    return Row(D, have, "", act, ValueError, says)


def changed(change: Callable[[h5py.File], Any]) -> Callable[[Path], None]:
    """An h5ad file of the plain screen in which something is changed."""

    def make(path: Path) -> None:
        plain().write_h5ad(path)
        with h5py.File(path, "a") as file:
            change(file)

    return make


def put(file: h5py.File, name: str, values: Any) -> None:
    """Put other values in the place of an array, which keeps its attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


def cut(part: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        plain().write_h5ad(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])

    return make


def zeros_in_texts(path: Path) -> None:
    plain().write_h5ad(path)
    content = bytearray(path.read_bytes())
    start = content.find(b"GCOL") + 1000
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


def of_keys(**arrays: Any) -> Callable[[Path], None]:
    """An HDF5 file of these arrays, which are named with a double underscore for a slash."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name.replace("__", "/")] = values

    return make


def mudata(path: Path) -> None:
    import mudata

    guide = plain()
    guide.var_names = "guide of " + guide.var_names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mudata.MuData({"guide": guide, "rna": plain()}).write_h5mu(path)


def no_store(path: Path) -> None:
    path.mkdir()


def lost_chunk(path: Path) -> None:
    write(plain(), path, 2)
    shutil.rmtree(path / "X" / "indices")


def later_version(file: h5py.File) -> None:
    file["X"].attrs["encoding-type"] = "csr_of_tomorrow"


def unsorted(file: h5py.File) -> None:
    start, stop = file["X/indptr"][:2]
    for name in ("X/data", "X/indices"):
        file[name][start:stop] = file[name][start:stop][::-1]


def nowhere(case: Case) -> None:
    read_cells(case.folder / "nowhere.h5ad")


def unsorted_row(case: Case) -> None:
    changed(unsorted)(case.folder / "screen.h5ad")
    equal(case.effects(read_cells(case.folder / "screen.h5ad")))


ROWS: list[Row] = [
    *(layout(name, way) for name in LAYOUTS for way in READERS),
    backed(np.float32, "`anndata.read_h5ad(path, backed='r')`, dense"),
    backed(sparse.csr_matrix, "`anndata.read_h5ad(path, backed='r')`, sparse by cells (CSR)"),
    backed(
        sparse.csc_matrix,
        "`anndata.read_h5ad(path, backed='r')`, sparse by genes (CSC)",
        warns="is stored by genes (CSC)",
    ),
    Row(G, "nullable and missing values in other columns", "the same effects", odd_columns),
    Row(G, "entries of a cell in any order", "the same effects", unsorted_row),
    Row(D, "no file", "", nowhere, FileNotFoundError, ("There is no file", "nowhere.h5ad")),
    damaged("an empty file", lambda path: path.touch(), "is an empty file, not an h5ad file"),
    damaged(
        "text", lambda path: path.write_text("cell,gene\nß,1\n", encoding="utf-8"), "is a text file, not an h5ad file"
    ),
    damaged("bytes of another kind", lambda path: path.write_bytes(b"\x00\xff\x13binary" * 9), "is of another kind"),
    damaged(
        "a file compressed with gzip",
        lambda path: path.write_bytes(gzip.compress(b"something")),
        "is compressed with gzip (unpack it first)",
    ),
    damaged("a ZIP archive", zipped, "is a ZIP archive (unpack it first)"),
    damaged("half of an h5ad file", cut(0.6), "is a damaged HDF5 file, or not a whole one: copy it again"),
    damaged("the first bytes of an h5ad file", cut(0.001), "is a damaged HDF5 file"),
    damaged(
        "zeros in the place of names, as an interrupted copy leaves them",
        zeros_in_texts,
        "is a damaged HDF5 file, or not a whole one: copy it again",
        "a block of texts has no end",
    ),
    damaged("an HDF5 file of something else", of_keys(values=[1.0, 2.0]), "has 'values' at its top, and is no AnnData"),
    damaged("an HDF5 file with nothing in it", of_keys(), "has nothing at its top"),
    damaged(
        "a matrix of Cell Ranger", of_keys(matrix__barcodes=[b"A", b"B"]), "is a matrix of Cell Ranger", "read_10x_h5"
    ),
    damaged(
        "a loom file", of_keys(matrix=[1, 2], row_attrs__Gene=[1], col_attrs__CellID=[1]), "is a loom file", "read_loom"
    ),
    damaged("a MuData", mudata, "holds a MuData, with the modalities ['guide', 'rna']", "['rna'].write_h5ad"),
    damaged("a folder", no_store, "is a folder and no zarr store"),
    damaged("a zarr store that lacks an array", lost_chunk, "is not a whole zarr store"),
    damaged(
        "an h5ad file that lacks a part of its matrix",
        changed(lambda file: file.__delitem__("X/indptr")),
        "is damaged",
        "indptr",
    ),
    damaged(
        "an h5ad file of a later version",
        changed(later_version),
        "a version of anndata that this one does not know",
        "csr_of_tomorrow",
    ),
    damaged(
        "positions beyond the last gene",
        changed(lambda file: put(file, "X/indices", file["X/indices"][:] + 1000)),
        DAMAGED,
    ),
    damaged("negative positions", changed(lambda file: put(file, "X/indices", file["X/indices"][:] - 1000)), DAMAGED),
    damaged(
        "row pointers that go back", changed(lambda file: put(file, "X/indptr", file["X/indptr"][:][::-1])), DAMAGED
    ),
    damaged("negative row pointers", changed(lambda file: put(file, "X/indptr", file["X/indptr"][:] - 5)), DAMAGED),
    damaged(
        "row pointers beyond the values",
        changed(lambda file: put(file, "X/indptr", file["X/indptr"][:] * 1000)),
        DAMAGED,
    ),
    damaged("fewer values than positions", changed(lambda file: put(file, "X/data", file["X/data"][:10])), DAMAGED),
    damaged("a matrix of fewer cells", changed(lambda file: put(file, "X/indptr", file["X/indptr"][:20])), DAMAGED),
]
