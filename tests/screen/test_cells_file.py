"""Files of cells that are written part by part."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.screen._cells_file import CellsFile, check_out, write_cells
from raptorgraph.screen._files import open_cells, values_bytes
from raptorgraph.screen._inputs import matrix

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")

OBS = pd.DataFrame({"a": np.arange(5), "_scvi_batch": 0}, index=[*"vwxyz"])
VAR = pd.DataFrame(index=["g", "h"])
VALUES = np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.mark.parametrize("end", ["h5ad", "zarr"])
def test_parts_make_the_whole(end, tmp_path):
    path = tmp_path / "new" / f"cells.{end}"
    with CellsFile(path) as file:
        for rows in (slice(0, 2), slice(2, 5)):
            file.append("X", sparse.csr_matrix(VALUES[rows]))
            file.append("layers/dense", VALUES[rows] + 1)
            file.append("obsm/u", VALUES[rows, :1])
        assert not path.exists()
        file.finish(OBS, VAR, {"k": {"x": "y"}})
    assert list(path.parent.iterdir()) == [path]
    found = (ad.read_h5ad if end == "h5ad" else ad.read_zarr)(path)
    np.testing.assert_array_equal(found.X.toarray(), VALUES)
    np.testing.assert_array_equal(found.layers["dense"], VALUES + 1)
    np.testing.assert_array_equal(found.obsm["u"], VALUES[:, :1])
    pd.testing.assert_frame_equal(found.obs, OBS[["a"]])
    assert list(found.var_names) == ["g", "h"]
    assert found.uns["k"] == {"x": "y"}
    there = file.read(["dense"])
    np.testing.assert_array_equal(there.layers["dense"][1:3], VALUES[1:3] + 1)
    np.testing.assert_array_equal(there.X[1:3].toarray(), VALUES[1:3])
    n = np.count_nonzero(VALUES)
    assert values_bytes(path) == n * (4 + there.X.group["indices"].dtype.itemsize)
    assert (values_bytes(path, "dense"), values_bytes(path, "missing")) == (40, 0)
    assert list(open_cells(path).layers) == []


@pytest.mark.parametrize("end", ["h5ad", "zarr"])
def test_a_failure_leaves_what_was_there(end, tmp_path):
    path = tmp_path / f"cells.{end}"
    write_cells(path, [VALUES], OBS, VAR)

    def parts():
        yield VALUES[:2] + 1
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_cells(path, parts(), OBS, VAR)
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(open_cells(path).X[:], VALUES)
    write_cells(path, [VALUES + 2], OBS, VAR)  # replaced
    np.testing.assert_array_equal(open_cells(path).X[:], VALUES + 2)
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_do_not_do(tmp_path):
    with pytest.raises(ValueError, match=r"out='.*cells.csv' must end in .h5ad or .zarr"):
        check_out(tmp_path / "cells.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        check_out(tmp_path / "file" / "cells.h5ad")
    for end in ("h5ad", "zarr"):
        cells = write_cells(tmp_path / f"cells.{end}", [VALUES], OBS, VAR)
        with pytest.raises(ValueError, match="is the file that the cells are read from"):
            check_out(tmp_path / f"cells.{end}", cells)
        assert check_out(tmp_path / f"other.{end}", cells) == tmp_path / f"other.{end}"
    with pytest.raises(ValueError, match="is the file that the cells are read from"):
        check_out(tmp_path / "cells.h5ad", ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"))
    with pytest.raises(ValueError, match="is the file that the cells are read from"):
        check_out(tmp_path / "cells.zarr" / "part.h5ad", open_cells(tmp_path / "cells.zarr"))


def test_lazy_cells_replace_nothing_since_they_do_not_say_where_they_are_from(tmp_path):
    pytest.importorskip("dask")
    write_cells(tmp_path / "cells.h5ad", [VALUES], OBS, VAR)
    lazy = ad.experimental.read_lazy(tmp_path / "cells.h5ad")
    with pytest.raises(ValueError, match="may be what the cells are read from"):
        check_out(tmp_path / "cells.h5ad", lazy)
    assert check_out(tmp_path / "other.h5ad", lazy) == tmp_path / "other.h5ad"


def test_backed_cells_without_x_are_refused(tmp_path):
    with CellsFile(tmp_path / "cells.h5ad") as file:
        file.append("layers/counts", VALUES)
        file.finish(OBS, VAR)
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert check_out(tmp_path / "other.h5ad", backed) == tmp_path / "other.h5ad"
    with pytest.raises(ValueError, match="adata.X is empty; name the layer"):
        matrix(backed, None)
    with pytest.raises(ValueError, match="The file of adata has no X"):
        matrix(backed, "counts")
    assert matrix(ad.read_h5ad(tmp_path / "cells.h5ad"), "counts").shape == (5, 2)


def test_what_is_no_file_of_cells_is_not_replaced(tmp_path):
    for name in ("results.h5ad", "results.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=f"{name}' is a folder, which is not replaced"):
            check_out(tmp_path / name)
    (tmp_path / "file.zarr").write_text("")
    with pytest.raises(ValueError, match="is a file, and a zarr store is a folder"):
        check_out(tmp_path / "file.zarr")
    (tmp_path / "empty.zarr").mkdir()
    assert check_out(tmp_path / "empty.zarr") == tmp_path / "empty.zarr"
