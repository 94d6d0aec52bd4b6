"""Trainings with checkpoints that are killed, whose clock goes back, or that find no room."""

import errno
import os
import resource
import signal
import time

import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model._records import Kind, read

pytestmark = pytest.mark.slow

TRAIN = {"max_epochs": 12, "batch_size": 40, "accelerator": "cpu", "enable_progress_bar": False}
ASKED = ["P01", "P02", "P01+P02"]
N_KILLS = 20
RESUMED = "whole records alone; `resume=True` gives the bits of an unbroken training"


def train(folder, adata, **arguments):
    """A model that is trained in a folder with checkpoints, or goes on there."""
    adata = adata.copy()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    scvi.settings.seed = 0
    torch.manual_seed(0)
    model = rg.RaptorGraph(adata, n_hidden=8)
    (folder / "begun").touch()
    model.train(**TRAIN, checkpoint_dir=folder / "c", **arguments)
    return model


def numbers(model):
    """What a training leaves, as arrays of bytes by name."""
    state = {name: value for name, value in model.module.state_dict().items() if torch.is_tensor(value)}
    found = {name: value.numpy() for name, value in state.items()}
    found |= {f"history of {name}": table.to_numpy(dtype=float) for name, table in model.history.items()}
    found["effects"] = model.predict_effects(ASKED).to_numpy()
    found["cells"] = model.predict(ASKED, n_cells=9, seed=1).X.toarray()
    found["latents"] = model.get_latent_representation()
    return {name: np.ascontiguousarray(values).tobytes() for name, values in found.items()}


class Training:
    """A training in a fork, and what it leaves when nothing befalls it."""

    def __init__(self, fork, folder):
        self.fork = fork
        self.adata = rg.datasets.simulate(
            60, 5, n_doubles=3, n_control_cells=120, n_cells_per_perturbation=40, n_truth_cells=5, seed=0
        )
        self.expected = numbers(train(folder, self.adata))
        self.seconds = 0.0
        for _ in range(2):  # the first one warms up
            (folder / "again").mkdir(exist_ok=True)
            start = time.monotonic()
            process = self.start(folder / "again", resume=False)
            _, err = process.communicate()
            assert process.returncode == 0, err
            self.seconds = time.monotonic() - start

    def start(self, folder, begin=None, **arguments):
        return self.fork(lambda: train(folder, self.adata, **arguments) and 0, folder, begin)

    def check_resumed(self, folder):
        found = numbers(train(folder, self.adata, resume=True))
        assert [name for name, value in self.expected.items() if found[name] != value] == []


@pytest.fixture(scope="module")
def training(tools, with_few_steps, tmp_path_factory):
    tools["import_all"]()
    with with_few_steps():
        yield Training(tools["Fork"], tmp_path_factory.mktemp("training"))


def reached(folder):
    """Where a training is, by its records, which must be whole."""
    if not (folder / "statistics.json").exists():
        return "while graph and effects are inferred"
    read(folder, "statistics", Kind("raptorgraph statistics", 1))
    if not (folder / "epoch.json").exists():
        return "in the first epoch"
    finished = read(folder, "epoch", Kind("raptorgraph epoch", 1)).values["finished"]
    return "after the last epoch" if finished else "in a later epoch"


@pytest.mark.parametrize("k", range(N_KILLS))
def test_kills(k, training, tools, record, tmp_path):
    process = training.start(tmp_path, resume=True)
    tools["until"]((tmp_path / "begun").exists, process)
    time.sleep((k + 0.5) / N_KILLS * training.seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    where = reached(tmp_path / "c")
    training.check_resumed(tmp_path)
    assert len(list((tmp_path / "c").iterdir())) == 4  # nothing of the one that was killed is left
    record("SIGKILL of `train`", where, RESUMED)


def test_kills_again_and_again(training, tools, record, tmp_path):
    """Each after a longer part of the training, until one comes to its end."""
    for k in range(6):
        process = training.start(tmp_path, resume=True)
        time.sleep((k + 2) / 8 * training.seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached(tmp_path / "c")
    training.check_resumed(tmp_path)
    record("SIGKILL of `train`, and of what resumes it", "six times", RESUMED)


@pytest.mark.parametrize("n_bytes", [500, 5_000, 20_000])
def test_files_that_may_not_grow(n_bytes, training, record, tmp_path):
    """As on a full disk, each write beyond a size fails."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    def told():
        try:
            train(tmp_path, training.adata, resume=True)
        except OSError as error:
            return error.errno
        return 0

    process = training.fork(told, tmp_path, limit)
    process.communicate()
    assert process.returncode == errno.EFBIG
    reached(tmp_path / "c")
    assert not list((tmp_path / "c").glob(".raptorgraph-*"))
    training.check_resumed(tmp_path)
    record("no file may be larger than a limit", "`train`", "an OSError that names the file; " + RESUMED)


def test_a_clock_that_goes_back(training, record, tmp_path, monkeypatch):
    now = time.time()
    process = training.start(tmp_path, resume=True)
    time.sleep(0.7 * training.seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached(tmp_path / "c")
    for path in tmp_path.rglob("*"):  # of a time that is still to come
        os.utime(path, (now + 1e6, now + 1e6))
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 2 * now - 1e7 - time.monotonic())
        training.check_resumed(tmp_path)
    record("a clock that goes back", "`train`", RESUMED)
