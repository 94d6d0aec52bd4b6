"""Matrices in files and lazy arrays against the same values in memory."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import sparse_dataset
from scipy import sparse

from raptorgraph.screen import Screen, _stored
from raptorgraph.screen._expression import data_kind, library_sizes
from raptorgraph.screen._inputs import matrix
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._stored import StoredMatrix, copy_of_cells, is_stored, keeps_order, reader_of

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")

N, G = 300, 7
VALUES = np.random.default_rng(0).poisson(0.7, (N, G)).astype(np.float32)
VALUES[:, 0] += 1  # no cell is empty
LAYOUTS = ("csr in h5ad", "dense in h5ad", "csr in zarr", "dense in zarr", "csr in dask", "dense in dask")


def small(X=VALUES):
    labels = np.resize(["control", "A", "B"], X.shape[0])
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels)}, index=[f"c{i}" for i in range(X.shape[0])])
    return ad.AnnData(X.copy(), obs=obs, var=pd.DataFrame(index=[*"xAyBzuv"[: X.shape[1]]]))


def written(layout, folder, X=VALUES):
    """AnnData of these values, which are not in memory."""
    kind, _, place = layout.split()
    X = sparse.csr_matrix(X) if kind == "csr" else X
    if place == "h5ad":
        small(X).write_h5ad(folder / "cells.h5ad")
        return ad.read_h5ad(folder / "cells.h5ad", backed="r")
    if place == "dask":
        dask = pytest.importorskip("dask.array")
        cells = small()
        blocks = [dask.from_array(X[i : i + 90], asarray=False) for i in range(0, len(VALUES), 90)]
        cells.X = dask.concatenate(blocks)
        return cells
    import zarr

    small(X).write_zarr(folder / "cells.zarr")
    stored = zarr.open_group(str(folder / "cells.zarr"), mode="r")["X"]
    cells = small()
    return ad.AnnData(sparse_dataset(stored) if kind == "csr" else stored, obs=cells.obs, var=cells.var)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_come_in_the_order_that_is_asked_for(layout, tmp_path):
    adata = written(layout, tmp_path)
    assert is_stored(adata.X)
    assert keeps_order(adata)
    assert not keeps_order(small())
    X = matrix(adata, None)
    assert isinstance(X, StoredMatrix)
    assert X.shape == (N, G)
    assert X.dtype == np.float32
    assert len(X) == N
    rng = np.random.default_rng(1)
    asked = [
        slice(None),
        slice(3, 90, 2),
        rng.permutation(N),
        rng.choice(N, 400),
        np.array([-1, 0]),
        np.arange(N) % 3 == 0,
    ]
    asked += [np.zeros(0, dtype=int), np.array([5, 299])]
    columns = rng.permutation(G)
    for rows in asked:
        np.testing.assert_array_equal(to_dense(X[rows]), VALUES[rows])
        np.testing.assert_array_equal(to_dense(X.of_genes(columns)[rows]), VALUES[rows][:, columns])
        np.testing.assert_array_equal(to_dense(X[:, [4, 1]][rows]), VALUES[rows][:, [4, 1]])
    part = X.of_cells(np.array([9, 4, 200])).of_genes(columns).of_genes(np.array([2, 0]))
    assert part.shape == (3, 2)
    np.testing.assert_array_equal(to_dense(part[:]), VALUES[[9, 4, 200]][:, columns[[2, 0]]])
    with pytest.raises(IndexError, match="There are 300 cells"):
        X[np.array([300])]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_are_those_in_memory(layout, tmp_path):
    here = Screen(small(sparse.csr_matrix(VALUES) if layout.startswith("csr") else VALUES))
    there = Screen(written(layout, tmp_path))
    pd.testing.assert_frame_equal(there.effects, here.effects)
    for name in ("log_ratio", "variance"):
        np.testing.assert_array_equal(getattr(there.log_ratios_of(), name), getattr(here.log_ratios_of(), name))
    np.testing.assert_array_equal(there.source[1], here.source[1])
    np.testing.assert_array_equal(to_dense(there.expression_at(np.arange(5, 9))), here.expression[5:9].toarray())
    with pytest.raises(ValueError, match=r"300 cells are not in memory.*adata.to_memory\(\)"):
        there.expression  # noqa: B018


class Recorded:
    """A reader that counts what is read."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.row_bytes = X, X.shape, X.dtype, 1.0
        self.runs = []

    def read(self, runs):
        self.runs.append(runs)
        return np.concatenate([self.X[start:stop] for start, stop in runs])

    @property
    def rows(self):
        return [sum(stop - start for start, stop in runs) for runs in self.runs]


def test_neighbors_are_read_together_and_little_at_a_time():
    reader = Recorded(np.zeros((100_000, 2), dtype=np.float32))
    X = StoredMatrix(reader)
    X[np.array([5, 8, 40, 41, 90_000])]
    assert reader.runs == [[(5, 42), (90_000, 90_001)]]
    reader.runs.clear()
    X[np.arange(0, 100_000, 20)]  # with the rows between them these are all
    assert max(reader.rows) <= _stored._MOST + _stored._GAP
    assert sum(reader.rows) <= 100_000


def test_kind_and_library_sizes_take_one_pass(monkeypatch):
    monkeypatch.setattr(_stored, "_CHUNK", 64)
    reader = Recorded(VALUES)
    X = StoredMatrix(reader)
    assert data_kind(X) == "counts"
    np.testing.assert_array_equal(library_sizes(X), VALUES.sum(1))
    assert data_kind(X) == "counts"
    assert sum(reader.rows) == N
    assert max(reader.rows) == 64


@pytest.mark.parametrize(
    ("value", "message"),
    [(-1.0, "negative or not finite, the first is .*-1.0.* at cell 130, gene 2"),
     (np.nan, "not finite, the first is .*nan.* at cell 130, gene 2"),
     (40.5, "above 30 among non-integer values, the first is .*40.5.* at cell 130, gene 2"),
     (1.0001, "no whole numbers.*at cell 130, gene 2")],
)  # fmt: skip
def test_bad_values_are_named_with_their_place(value, message, monkeypatch):
    monkeypatch.setattr(_stored, "_CHUNK", 64)
    values = VALUES.copy()
    values[130, 2] = value
    with pytest.raises(ValueError, match=message):
        data_kind(StoredMatrix(Recorded(values)))


def test_a_file_by_genes_is_loaded_where_it_is_small(tmp_path, monkeypatch):
    small(sparse.csc_matrix(VALUES)).write_h5ad(tmp_path / "cells.h5ad")
    adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.warns(UserWarning, match=r"adata.X is stored by genes \(CSC\).*adata.X = adata.X.tocsr\(\)"):
        X = matrix(adata, None)
    np.testing.assert_array_equal(to_dense(X[np.array([7, 3])]), VALUES[[7, 3]])
    monkeypatch.setattr(_stored, "is_large", lambda n_bytes: True)
    with pytest.raises(ValueError, match=r"stored by genes \(CSC\).*on a machine with more memory"):
        matrix(adata, None)


def test_what_holds_no_numbers_is_refused(tmp_path):
    with (
        h5py.File(tmp_path / "x.h5", "w") as file,
        pytest.raises(TypeError, match="layer 'x' holds 1 dimensions of type int64"),
    ):
        reader_of(file.create_dataset("one", data=np.arange(3)), "layer 'x'")


@pytest.mark.parametrize("layout", ["csr in h5ad", "dense in h5ad"])
def test_a_file_that_was_closed_is_opened_again(layout, tmp_path):
    adata = written(layout, tmp_path)
    X = matrix(adata, None)
    adata.file.close()
    np.testing.assert_array_equal(to_dense(X[np.array([4, 2])]), VALUES[[4, 2]])


def test_a_zarr_store_that_is_gone_is_not_read_as_zeros(tmp_path):
    X = matrix(written("csr in zarr", tmp_path), None)
    assert X[:2].sum() > 0
    (tmp_path / "cells.zarr").rename(tmp_path / "other.zarr")
    with pytest.raises(FileNotFoundError, match="cells.zarr', which the cells are read from, is gone"):
        X[:2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_parts_of_cells_in_a_file(layout, tmp_path):
    adata, genes = written(layout, tmp_path), ["v", "B", "x"]
    expected = Screen(small()[:200].copy()).of_genes(genes)
    part = Screen(adata[:200]).of_genes(genes)
    np.testing.assert_array_equal(part.effects, expected.effects)
    np.testing.assert_array_equal(part.of_genes(genes[1:]).effects, expected.effects[genes[1:]])
    assert list(part.of_genes(genes[1:]).adata.var_names) == genes[1:]
    for cells in (adata, adata[:200]):
        copied = copy_of_cells(cells, np.array([7, 3]))
        np.testing.assert_array_equal(to_dense(copied.X), VALUES[[7, 3]])
        assert not copied.isbacked
        assert not copied.is_view


def test_blanks_around_the_genes_of_a_file(tmp_path):
    adata = small()
    adata.var_names = [f"{name} " for name in adata.var_names]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    screen = Screen(ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"))
    assert list(screen.of_genes(["B", "x"]).adata.var_names.str.strip()) == ["B", "x"]
