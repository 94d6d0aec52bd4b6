"""Stores that are not whole, and what must not be read or written; other files are in the table of tests/inputs."""

import json
import shutil
import sys

import anndata as ad
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
