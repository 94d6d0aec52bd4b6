"""Files of HDF5 that are written into room which the disk has given before."""

import errno
import os
from itertools import count

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.screen import _room
from raptorgraph.screen._cells_file import CellsFile, append_rows

N_ROWS, N_COLUMNS = 300, 200
OBS = pd.DataFrame({"label": ["long label of a cell"] * 4 * N_ROWS}, index=[f"cell {i}" for i in range(4 * N_ROWS)])
VAR = pd.DataFrame(index=[f"gene {i}" for i in range(N_COLUMNS)])


def values(part, dense):
    X = sparse.random(N_ROWS, N_COLUMNS, 0.3, "csr", np.float32, rng=np.random.default_rng(part))
    return X.toarray() if dense else X


def write(path, dense):
    """Cells in four parts."""
    with CellsFile(path) as file:
        for part in range(4):
            file.append("X", values(part, dense))
            file.append("obsm/u", values(part, True)[:, :20])
        file.finish(OBS, VAR, {"effects": {"table": OBS, "values": np.ones((50, 50))}})


@pytest.mark.parametrize("dense", [True, False])
def test_room_is_there_before_it_is_needed_and_given_back(dense, tmp_path, monkeypatch):
    steps, reserve = [], _room.reserve

    def noted(path, n_bytes):
        steps.append((path, path.stat().st_size, n_bytes))
        reserve(path, n_bytes)
        assert path.stat().st_size >= n_bytes

    with monkeypatch.context() as patch:
        patch.setattr(_room, "reserve", noted)
        write(tmp_path / "cells.h5ad", dense)
        assert len(steps) == 10  # eight parts, the beginning and the tables
        patch.setattr(_room, "reserve", lambda path, n_bytes: None)
        write(tmp_path / "plain.h5ad", dense)
    assert (tmp_path / "cells.h5ad").stat().st_size == (tmp_path / "plain.h5ad").stat().st_size
    found = ad.read_h5ad(tmp_path / "cells.h5ad")
    expected = np.concatenate([values(part, True) for part in range(4)])
    np.testing.assert_array_equal(found.X if dense else found.X.toarray(), expected)
    pd.testing.assert_frame_equal(found.obs, OBS, check_dtype=False, check_categorical=False)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("n_rows", [1, 3, 1025, 2000])
def test_what_is_written_fits_into_the_room(n_rows, dense, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(_room, "reserve", lambda path, n_bytes: given.append(n_bytes))
    X = sparse.random(n_rows, 50, 0.5, "csr", np.float32, rng=np.random.default_rng(0))
    with _room.new_file(tmp_path / "file.h5") as file:
        for _ in range(5):
            append_rows(file, "X", X.toarray() if dense else X)
            file.flush()
            assert file.id.get_filesize() <= given[-1]
        before = file.id.get_filesize()
        table = pd.DataFrame({f"c{i}": [f"text {i} {k}" for k in range(n_rows)] for i in range(20)})
        table.index = table.index.astype(str)
        _room.room_for_tables(file, table, {"a": {"b": table}}, np.zeros(10))
        for name in ("one", "two"):
            ad.io.write_elem(file, name, table)
        file.flush()
        assert before < file.id.get_filesize() <= given[-1]


@pytest.mark.parametrize("dense", [True, False])
def test_a_disk_that_becomes_full_is_told_and_leaves_what_was_there(dense, tmp_path, monkeypatch):
    path, allocate = tmp_path / "cells.h5ad", os.posix_fallocate
    path.write_bytes(b"earlier")
    for full_at in count():
        asked = count()

        def takes(number, start, size, asked=asked, full_at=full_at):
            if next(asked) >= full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            allocate(number, start, size)

        monkeypatch.setattr(os, "posix_fallocate", takes)
        said = None
        try:
            write(path, dense)
        except OSError as error:
            said = str(error)
        if said is None:
            break
        assert said == f"[Errno 28] No space left on device: {str(path)!r}"
        assert [each.name for each in tmp_path.iterdir()] == ["cells.h5ad"]
        assert path.read_bytes() == b"earlier"
    assert full_at > 5  # the beginning, some of the parts and the tables
    assert ad.read_h5ad(path).n_obs == 4 * N_ROWS


def test_a_file_system_that_knows_no_allocation_is_written_to(tmp_path, monkeypatch):
    def unknown(number, start, size):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    write(tmp_path / "cells.h5ad", True)
    assert ad.read_h5ad(tmp_path / "cells.h5ad").shape == (4 * N_ROWS, N_COLUMNS)


def test_stores_of_other_kinds_have_no_room_to_be_taken():
    _room.room_for_rows({}, "X", np.ones((2, 2)))
    _room.room_for_tables({}, VAR)
