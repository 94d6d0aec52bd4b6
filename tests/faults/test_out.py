"""Answers that are written to a file part by part, on a disk that becomes full."""

import ctypes
import resource
import subprocess
import sys
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
import scvi

import raptorgraph as rg

pytestmark = pytest.mark.slow

ASKED = ["P01", "P02", "P01+P02"]


@pytest.fixture(scope="module")
def model(with_few_steps, tmp_path_factory):
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        400, 4, n_doubles=2, n_control_cells=900, n_cells_per_perturbation=40, n_truth_cells=5, seed=0
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, n_hidden=8)
    with with_few_steps():
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


def simulated(model, out):
    rg.datasets.simulate(400, 4, n_doubles=2, n_control_cells=20_000, n_truth_cells=5, seed=0, out=out)


WRITE = {
    "predict(out=)": lambda model, out: model.predict(ASKED, n_cells=800, seed=0, out=out),
    "annotate(out=)": lambda model, out: model.annotate(counterfactuals=ASKED, out=out),
    "get_latent_representation(out=)": lambda model, out: model.get_latent_representation(batch_size=128, out=out),
    "datasets.simulate(out=)": simulated,
}


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """What is written where there is room, and its bytes, by name."""
    found, folder = {}, tmp_path_factory.mktemp("whole")
    for i, (name, write) in enumerate(WRITE.items()):
        path = folder / f"{i}.h5ad"
        write(model, path)
        found[name] = SimpleNamespace(cells=ad.read_h5ad(path), size=path.stat().st_size)
    return found


def told(name, model, out):
    """Exit code 1 and a line for an error of the disk, 0 without, unless HDF5 has something to say at the end."""

    def work():
        code = 0
        try:
            WRITE[name](model, out)
        except OSError as error:
            print(error)
            code = 1
        sys.stdout.flush()
        ctypes.CDLL(None).exit(code)  # as Python does at last: libraries clean up

    return work


def check_same(path, expected):
    found = ad.read_h5ad(path)
    assert found.shape == expected.shape
    for key, values in {"X": expected.X, **expected.obsm, **expected.layers}.items():
        other = found.X if key == "X" else found.obsm[key] if key in found.obsm else found.layers[key]
        if values is not None:
            one, two = (x.toarray() if hasattr(x, "toarray") else np.asarray(x) for x in (values, other))
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("name", WRITE)
def test_files_that_may_not_grow(name, share, model, whole, tools, record, tmp_path):
    limit, out = int(share * whole[name].size), tmp_path / "cells.h5ad"
    earlier = name != "datasets.simulate(out=)"  # which writes over nothing
    if earlier:
        out.write_bytes(b"earlier")
    process = tools["Fork"](
        told(name, model, out), tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    said, err = process.communicate()
    assert (process.returncode, err) == (1, "")
    assert said.startswith("[Errno 27] File too large: ")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"] * earlier
    assert not earlier or out.read_bytes() == b"earlier"
    WRITE[name](model, out)
    check_same(out, whole[name].cells)
    record("no file may be larger than a limit", f"`{name}`", "an OSError that names the file; what was there stays")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("name", WRITE)
def test_full_disk(name, share, model, whole, tools, record, tmp_path):
    folder, size = tmp_path / "disk", int(share * whole[name].size) // 4096 * 4 + 4
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        process = tools["Fork"](told(name, model, folder / "cells.h5ad"), tmp_path)
        said, err = process.communicate()
        assert (process.returncode, err) == (1, "")
        assert said.startswith("[Errno 28] No space left on device: ")
        assert said.count("\n") == 1
        assert not list(folder.iterdir())
        subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)
        WRITE[name](model, folder / "cells.h5ad")
        check_same(folder / "cells.h5ad", whole[name].cells)
    finally:
        subprocess.run(["umount", folder], check=True)
    record("full disk", f"`{name}`", "an OSError that names the file; nothing is left of it")


def test_a_save_on_a_full_disk(model, tools, record, tmp_path):
    model.save(tmp_path / "m", save_anndata=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    sizes = sorted(map(len, before.values()))

    def work():
        model.mark_ = "new"
        try:
            model.save(tmp_path / "m", overwrite=True, save_anndata=True)
        except OSError as error:
            print(error)
            return 1
        return 0

    for limit in (100, *(int(0.9 * size) for size in sizes)):
        process = tools["Fork"](work, tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))  # noqa: B023
        said, err = process.communicate()
        assert (process.returncode, err) == (1, "")
        assert said.startswith("[Errno 27] File too large: ")
        assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
    record("no file may be larger than a limit", "`save(save_anndata=True)`", "an OSError; the earlier model as it was")
