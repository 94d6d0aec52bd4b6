"""A simulated screen that is written to disk in blocks of cells."""

import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.datasets import _counts, _destination, _simulate, simulate

SMALL = {"n_genes": 15, "n_perturbed": 4, "n_control_cells": 300, "n_cells_per_perturbation": 20, "n_doubles": 3}
OPTIONS = {"states": 2, "escape": 0.2, "n_batches": 2, "targets_without_gene": 0.5}


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_the_file_holds_the_same_screen(tmp_path, monkeypatch, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr", reason="zarr stores are an option")
    whole = simulate(**SMALL, **OPTIONS)
    monkeypatch.setattr(_simulate, "BLOCK_NUMBERS", 1)  # several blocks
    path = tmp_path / f"screen{suffix}"
    opened = simulate(**SMALL, **OPTIONS, out=path)
    assert opened.isbacked == (suffix == ".h5ad")
    assert not isinstance(opened.X, sparse.spmatrix | sparse.sparray)
    read = ad.read_h5ad(path) if suffix == ".h5ad" else ad.read_zarr(path)
    for found in (opened.to_memory(), read):
        assert found.X.dtype == whole.X.dtype
        np.testing.assert_array_equal(found.X.toarray(), whole.X.toarray())
        pd.testing.assert_frame_equal(found.obs, whole.obs, check_index_type=False)
        assert list(found.var_names) == list(whole.var_names)
        np.testing.assert_array_equal(found.obsm["u_true"], whole.obsm["u_true"])
        truth, expected = found.uns["simulation"], whole.uns["simulation"]
        assert truth["settings"] == expected["settings"]
        np.testing.assert_array_equal(truth["effects"], expected["effects"])
        np.testing.assert_array_equal(truth["state_effects"]["S2"], expected["state_effects"]["S2"])
    assert [part.name for part in tmp_path.iterdir()] == [path.name]


def test_memory_does_not_grow_with_the_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(_simulate, "BLOCK_NUMBERS", 256 * 100)
    monkeypatch.setattr(_counts, "CHUNK_ENTRIES", 256 * 60)

    def peak(n_cells):
        tracemalloc.start()
        opened = simulate(
            60, 2, n_doubles=0, n_control_cells=n_cells, n_truth_cells=5, out=tmp_path / f"{n_cells}.h5ad"
        )
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert opened.n_obs == n_cells + 200
        opened.file.close()
        return found

    simulate(60, 2, n_doubles=0, n_truth_cells=5, out=tmp_path / "first.h5ad").file.close()  # what is imported
    few, many = peak(1000), peak(4000)
    assert many - few < 3000 * 200  # names and totals of cells, less than the 480 bytes of dense counts alone


def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(_simulate, "random_graph", lambda *_: pytest.fail("began to work"))
    there = tmp_path / "there.h5ad"
    there.touch()
    with pytest.raises(FileExistsError, match="there.h5ad' exists: remove it"):
        simulate(**SMALL, out=there)
    with pytest.raises(ValueError, match=r"neither a .h5ad file nor a .zarr store"):
        simulate(**SMALL, out=tmp_path / "screen.csv")
    with pytest.raises(FileNotFoundError, match="Make it first"):
        simulate(**SMALL, out=tmp_path / "none" / "screen.h5ad")
    with pytest.raises(ValueError, match=r"have 4001 columns.*Write a .zarr store"):
        simulate(**{**SMALL, "n_genes": 4001}, out=tmp_path / "wide.h5ad")


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_what_is_not_finished_is_removed(tmp_path, monkeypatch, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr", reason="zarr stores are an option")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(_destination.OnDisk, "add", fail)
    with pytest.raises(OSError, match="no space left"):
        simulate(**SMALL, out=tmp_path / f"screen{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_what_fails_at_the_end_leaves_nothing_either(tmp_path, monkeypatch, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr", reason="zarr stores are an option")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_destination.OnDisk, "finish", fail)
    with pytest.raises(KeyboardInterrupt):
        simulate(**SMALL, out=tmp_path / f"screen{suffix}")
    assert not list(tmp_path.iterdir())
