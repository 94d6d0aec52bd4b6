"""Files that hold no AnnData, or not a whole one: each error names the file and says what it is."""

import gzip
import json
import shutil
import sys
import zipfile

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.screen._files import check_folder, is_file_or_store, read_cells

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")


@pytest.fixture(scope="module")
def cells():
    X = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (30, 20)).astype(np.float32))
    obs = pd.DataFrame({"perturbation": pd.Categorical(["control", "A"] * 15)}, index=[f"c{i}" for i in range(30)])
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(20)]))


def cut(path, part):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def text(path, cells):
    path.write_text("cell,gene\nß,1\n")


def compressed(path, cells):
    path.write_bytes(gzip.compress(b"something"))


def zipped(path, cells):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


def truncated(path, cells):
    cells.write_h5ad(path)
    cut(path, 0.6)


def cut_in_its_head(path, cells):
    cells.write_h5ad(path)
    cut(path, 0.001)


def without_matrix_data(path, cells):
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file["X/indptr"]


def of_a_later_version(path, cells):
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        file["X"].attrs["encoding-type"] = "csr_of_tomorrow"


def hdf5(path, cells):
    with h5py.File(path, "w") as file:
        file["values"] = [1.0, 2.0]


def nothing_in_hdf5(path, cells):
    h5py.File(path, "w").close()


def cell_ranger(path, cells):
    with h5py.File(path, "w") as file:
        file["matrix/barcodes"] = [b"A", b"B"]


def loom(path, cells):
    with h5py.File(path, "w") as file:
        for key in ("matrix", "row_attrs/Gene", "col_attrs/CellID"):
            file[key] = [1, 2]


def mudata(path, cells):
    import mudata

    guide = cells.copy()
    guide.var_names = "guide of " + guide.var_names
    mudata.MuData({"guide": guide, "rna": cells.copy()}).write_h5mu(path)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Cannot join columns:UserWarning")
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path, cells: path.touch(), "empty file"),
        (text, "a text file, not an h5ad file"),
        (lambda path, cells: path.write_bytes(b"\x00\xff\x13binary" * 9), "of another kind, not an h5ad"),
        (compressed, "gzip"),
        (zipped, "ZIP"),
        (truncated, "copy it again.*truncated"),
        (cut_in_its_head, "damaged HDF5 file"),
        (without_matrix_data, "damaged.*indptr"),
        (of_a_later_version, "csr_of_tomorrow"),
        (hdf5, "'values' at its top"),
        (nothing_in_hdf5, "nothing at its top"),
        (cell_ranger, "read_10x_h5"),
        (loom, "read_loom"),
        (mudata, r"\['guide', 'rna'\].*\['rna'\].write_h5ad"),
    ],
)
def test_other_files_are_named_for_what_they_are(make, match, cells, tmp_path):
    path = tmp_path / "screen.h5ad"
    make(path, cells)
    with pytest.raises(ValueError, match=match) as caught:
        read_cells(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_to_be_read(tmp_path, cells, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere.h5ad"):
        read_cells(tmp_path / "nowhere.h5ad")
    cells.write_h5ad(tmp_path / "locked.h5ad")

    def locked(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "open", locked)
    with pytest.raises(PermissionError, match="locked.h5ad"):
        read_cells(tmp_path / "locked.h5ad")


@pytest.mark.parametrize("damage", [None, "folder", "metadata", "array", "other"])
def test_zarr_stores(damage, cells, tmp_path):
    path = tmp_path / "screen.zarr"
    if damage == "folder":
        path.mkdir()
    else:
        cells.write_zarr(path)
    if damage == "metadata":
        for file in (*path.glob(".z*"), *path.glob("zarr.json")):
            file.write_text("{")
    if damage == "array":
        shutil.rmtree(path / "X" / "indices")
    if damage == "other":
        shutil.move(path / "obs", path / "other")
        (path / ".zmetadata").unlink(missing_ok=True)
        if (path / "zarr.json").exists():  # the third format keeps the summary in the file of the group
            group = json.loads((path / "zarr.json").read_text())
            group = {key: value for key, value in group.items() if key != "consolidated_metadata"} | {"attributes": {}}
            (path / "zarr.json").write_text(json.dumps(group))
        (path / ".zattrs").unlink(missing_ok=True)
    if damage is None:
        found = read_cells(path)
        np.testing.assert_array_equal(found.X.toarray(), cells.X.toarray())
        assert list(found.obs["perturbation"]) == list(cells.obs["perturbation"])
        assert is_file_or_store(path)
        return
    with pytest.raises(ValueError, match="screen.zarr"):
        read_cells(path)
    assert is_file_or_store(path) == (damage != "folder")


def chunks(array):
    return [file for file in array.rglob("*") if file.is_file() and not file.name.startswith((".z", "zarr.json"))]


@pytest.mark.parametrize("array", ["X/data", "obs/_index", "var/_index", "obs/perturbation/categories"])
def test_a_zarr_store_with_a_lost_chunk(array, cells, tmp_path):
    path = tmp_path / "screen.zarr"
    cells.write_zarr(path)
    (chunk,) = chunks(path / array)
    chunk.unlink()
    with pytest.raises(ValueError, match=f"screen.zarr' is not a whole zarr store: '{array}' lacks chunks; copy it"):
        read_cells(path)


def test_a_zarr_store_leaves_out_zeros(cells, tmp_path):
    # zarr writes no chunk that holds zeros alone: codes and numbers of one category, columns of the first gene
    cells = ad.AnnData(cells.X[:, :1], obs=cells.obs, var=cells.var[:1])
    cells.obs["site"], cells.obs["lane"] = pd.Categorical(["here"] * cells.n_obs), pd.Categorical([0] * cells.n_obs)
    cells.obs["remark"] = ""
    cells.layers["nothing"] = 0 * cells.X
    cells.layers["nothing"].eliminate_zeros()
    cells.write_zarr(tmp_path / "screen.zarr")
    found = read_cells(tmp_path / "screen.zarr")
    np.testing.assert_array_equal(found.X.toarray(), cells.X.toarray())
    assert found.obs["lane"].tolist() == [0] * cells.n_obs
    assert found.layers["nothing"].nnz == 0


def test_a_zarr_store_without_zarr(cells, tmp_path, monkeypatch):
    cells.write_zarr(tmp_path / "screen.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match="screen.zarr' is a zarr store: reading it needs zarr: pip install zarr"):
        read_cells(tmp_path / "screen.zarr")


def test_results_go_to_a_folder_of_their_own(tmp_path, cells, monkeypatch):
    cells.write_zarr(tmp_path / "screen.zarr")
    check_folder(tmp_path / "new" / "results", tmp_path / "screen.zarr")
    for out in (tmp_path / "screen.zarr", tmp_path / "screen.zarr" / "results"):
        with pytest.raises(ValueError, match="lies in the screen"):
            check_folder(out, tmp_path / "screen.zarr")
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "results"):
        with pytest.raises(NotADirectoryError, match="file' is a file"):
            check_folder(out)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="cannot be written to"):
        check_folder(tmp_path / "results")
