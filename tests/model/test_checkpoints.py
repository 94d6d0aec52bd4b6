"""A training that is stopped and resumed gives the same bits as one that was not."""

import functools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import sys

import anndata as ad
import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import SaveCheckpoint

import raptorgraph as rg
from raptorgraph.model import _calibration, _graph, _stream, _training

SCREEN = {
    "n_genes": 30, "n_perturbed": 4, "n_doubles": 2, "n_control_cells": 60, "n_cells_per_perturbation": 20,
    "n_truth_cells": 5, "seed": 0,
}  # fmt: skip
TRAIN = {"max_epochs": 5, "batch_size": 40, "accelerator": "cpu", "enable_progress_bar": False}

pytestmark = pytest.mark.usefixtures("few_steps")


@functools.cache
def screen():
    return rg.datasets.simulate(**SCREEN)


def made(preset="default", cells=None, *, weights=0, **arguments):
    """A model of the screen; `weights` are the seed of those that it is made with."""
    adata = screen().copy() if cells is None else cells
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    scvi.settings.seed = 0
    torch.manual_seed(weights)
    return rg.RaptorGraph.from_preset(adata, preset, n_hidden=4, **arguments)


class Halt(Exception):
    pass


@pytest.fixture(scope="module")
def unbroken(few_steps):
    """A model whose training nothing stopped; tests leave it as it is."""
    model = made()
    model.train(**TRAIN)
    return model


class At(Callback):
    """Do something at a batch of an epoch."""

    def __init__(self, epoch, batch, act):
        self.place, self.act = (epoch, batch), act

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.place:
            self.act(trainer)


class Draws(Callback):
    """Draws random numbers of its own, as a callback of the user's may."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with torch.no_grad():
            pl_module.module.decoder.base += 1e-3 * float(torch.rand(()) + np.random.rand())


def halt(trainer):
    raise Halt


def broken(model, epoch, batch, **arguments):
    """Train until it is halted."""
    callbacks = [*arguments.pop("callbacks", []), At(epoch, batch, halt)]
    with pytest.raises(Halt):
        model.train(**{**TRAIN, **arguments}, callbacks=callbacks)


RUNS = {
    "default": ({}, {}),
    "mean alone": ({"effect_posterior": False}, {}),
    "paper": ({"preset": "paper"}, {"plan_kwargs": {"project_at": 0.5}}),
    "paper, projected at the end": ({"preset": "paper"}, {}),
    "normal": ({"likelihood": "normal"}, {"gradient_clip_val": 0.5}),
    "no validation": ({}, {"train_size": 1.0, "shuffle_set_split": False}),
    "early stopping": ({}, {
        "early_stopping": True, "early_stopping_patience": 1, "early_stopping_min_delta": 10.0,
        "early_stopping_warmup_epochs": 2, "max_epochs": 9,
    }),
    "callback that draws": ({}, {"callbacks": Draws}),
}  # fmt: skip


def fresh(arguments):
    """Callbacks keep a state: each training has its own."""
    return {**arguments, "callbacks": [arguments["callbacks"]()]} if "callbacks" in arguments else arguments


@pytest.mark.parametrize("name", RUNS)
def test_the_same_bits(name, answers, same, tmp_path):
    of_model, arguments = RUNS[name]
    whole = made(**of_model)
    whole.train(**{**TRAIN, **fresh(arguments)})
    cells = whole.adata.copy()
    expected = answers(whole, cells)
    places = [(0, 1), (2, 0), (3, 1)] if name == "default" else [(3, 1)]
    for i, (epoch, batch) in enumerate(places):
        folder = tmp_path / str(i)
        broken(made(**of_model), epoch, batch, **fresh(arguments), checkpoint_dir=folder)
        found = made(**of_model, weights=i + 1)
        torch.manual_seed(123)
        np.random.seed(123)
        found.train(**{**TRAIN, **fresh(arguments)}, checkpoint_dir=folder, resume=True)
        assert same(answers(found, cells), expected), (epoch, batch)
        assert found.stopped_ is None
        files = {path.suffix for path in folder.iterdir()}
        assert files == {".json", ".safetensors"}
        assert len(list(folder.iterdir())) == 4
    stopped_early = len(expected["history"]["train_loss"]) < {**TRAIN, **arguments}["max_epochs"]
    assert stopped_early == (name == "early stopping")


def test_checkpoints_change_nothing_and_may_be_broken_again_and_again(unbroken, answers, same, tmp_path):
    kept = made()
    kept.train(**TRAIN, checkpoint_dir=tmp_path / "kept")
    assert same(answers(kept), answers(unbroken))
    for epoch in (1, 2, 4):
        broken(made(weights=epoch - 1), epoch, 0, checkpoint_dir=tmp_path / "again", resume=True)
    found = made()
    found.train(**TRAIN, checkpoint_dir=tmp_path / "again", resume=True)
    assert same(answers(found), answers(unbroken))


def test_the_same_model_is_resumed_and_its_history_is_one(unbroken, answers, same, tmp_path):
    model = made()
    broken(model, 2, 1, checkpoint_dir=tmp_path / "c")
    model.train(**TRAIN, checkpoint_dir=tmp_path / "c", resume=True)
    assert same(answers(model), answers(unbroken))
    assert list(model.history["train_loss"].index) == [0, 1, 2, 3, 4]


def test_a_second_training_is_resumed(answers, same, tmp_path):
    models = [made() for _ in range(3)]
    for model in models[:2]:
        model.train(**TRAIN)
    models[0].train(**TRAIN)
    broken(models[1], 3, 0, checkpoint_dir=tmp_path / "c")
    models[2].train(**TRAIN, checkpoint_dir=tmp_path / "c", resume=True)  # one that was never trained
    assert same(answers(models[2]), answers(models[0]))
    assert len(models[2].history["train_loss"]) == 10


def test_cells_that_are_read_in_windows(answers, same, tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "_N_CELLS", 40)
    screen().write_h5ad(tmp_path / "cells.h5ad")

    def model():
        return made(cells=ad.read_h5ad(tmp_path / "cells.h5ad", backed="r"))

    unbroken = model()
    unbroken.train(**TRAIN)
    broken(model(), 2, 1, checkpoint_dir=tmp_path / "c")
    found = model()
    found.train(**TRAIN, checkpoint_dir=tmp_path / "c", resume=True)
    assert same(answers(found), answers(unbroken))


def test_what_was_inferred_is_not_inferred_again(unbroken, tmp_path, monkeypatch, answers, same):
    before = made()
    broken(before, 0, 0, checkpoint_dir=tmp_path / "c")
    assert not (tmp_path / "c" / "epoch.json").exists()
    monkeypatch.setattr(_calibration.Calibration, "fit", halt)
    monkeypatch.setattr(_graph.EdgeTable, "infer", halt)
    monkeypatch.setattr(_training, "start_from_effects", halt)
    found = made(weights=5)
    found.train(**TRAIN, checkpoint_dir=tmp_path / "c", resume=True)
    assert same(answers(found), answers(unbroken))


def test_a_training_that_ended_gives_its_model_at_once(answers, same, tmp_path, monkeypatch):
    model = made()
    model.train(**TRAIN, checkpoint_dir=tmp_path / "c")
    again, seen = made(weights=3), []
    again.train(**TRAIN, checkpoint_dir=tmp_path / "c", resume=True, callbacks=[At(0, 0, seen.append)])
    assert same(answers(again, model.adata.copy()), answers(model, model.adata.copy()))
    assert not seen
    again.save(tmp_path / "m")
    # without resume it is done anew
    other = made()
    other.train(**{**TRAIN, "max_epochs": 1}, checkpoint_dir=tmp_path / "c", callbacks=[At(0, 0, seen.append)])
    assert seen
    assert len(other.history["train_loss"]) == 1


def test_an_end_that_was_interrupted_is_made_up_for(unbroken, answers, same, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_training, "fit_escape", halt)
        model = made()
        with pytest.raises(Halt):
            model.train(**TRAIN, checkpoint_dir=tmp_path / "c")
    assert not model.is_trained
    found = made()
    found.train(**TRAIN, checkpoint_dir=tmp_path / "c", resume=True)
    assert same(answers(found, found.adata.copy()), answers(unbroken, unbroken.adata.copy()))


def kill_itself(trainer):
    os.kill(os.getpid(), signal.SIGKILL)


def trained_until_killed(folder):
    made().train(**TRAIN, checkpoint_dir=folder, callbacks=[At(2, 1, kill_itself)])


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_process_that_was_killed(unbroken, answers, same, tmp_path):
    """A fork of this one, which starts in no time."""
    process = multiprocessing.get_context("fork").Process(target=trained_until_killed, args=(tmp_path / "c",))
    process.start()
    process.join(200)
    assert process.exitcode == -signal.SIGKILL
    found = made(weights=1)
    found.train(**TRAIN, checkpoint_dir=tmp_path / "c", resume=True)
    assert same(answers(found), answers(unbroken))
    assert len(found.history["train_loss"]) == 5


# -- what does not fit -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def stopped(few_steps, tmp_path_factory):
    """Folder of a training that was halted in its third epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "c"
    broken(made(), 2, 0, checkpoint_dir=folder)
    return folder


def other_cells():
    return rg.datasets.simulate(**{**SCREEN, "seed": 1})


def fewer_cells():
    return screen()[:-3].copy()


def one_count():
    cells = screen().copy()
    values = cells.X.toarray()
    values[0, -1] += 1
    cells.X = type(cells.X)(values)
    return cells


def reordered():
    return screen()[::-1].copy()


@pytest.mark.parametrize(
    ("of_model", "arguments", "words"),
    [
        ({}, {"batch_size": 41}, "batch_size is 40 there and 41 here"),
        ({}, {"max_epochs": 6}, "max_epochs is 5 there and 6 here"),
        ({}, {"plan_kwargs": {"lr": 0.1}}, r"lr \(plan_kwargs\) is 0.003 there and 0.1 here"),
        ({}, {"train_size": 0.5}, "train_size is null there and 0.5 here"),
        ({}, {"gradient_clip_val": 1.0}, "gradient_clip_val is unset there and 1.0 here"),
        ({}, {"early_stopping": True}, "early_stopping is false there and true here"),
        ({"n_latent": 9}, {}, r"n_latent \(model\) is null there and 9 here|n_latent \(model\) is 8 there and 9 here"),
        ({"preset": "paper"}, {}, 'preset is "default" there and "paper" here'),
        ({"cells": other_cells}, {}, "of other cells, or of these in another order|genes is another one"),
        ({"cells": fewer_cells}, {}, "of other cells, or of these in another order"),
        ({"cells": one_count}, {}, "of other cells, or of these in another order"),
        ({"cells": reordered}, {}, "of other cells, or of these in another order"),
    ],
)
def test_what_differs_is_named(stopped, of_model, arguments, words):
    of_model = {**of_model, "cells": of_model["cells"]()} if "cells" in of_model else of_model
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(ValueError, match=words):
        made(**of_model).train(**{**TRAIN, **arguments}, checkpoint_dir=stopped, resume=True)
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


def test_another_seed_is_named(stopped):
    model = made()
    scvi.settings.seed = 3
    with pytest.raises(ValueError, match=r"seed \(scvi.settings.seed\) is 0 there and 3 here"):
        model.train(**TRAIN, checkpoint_dir=stopped, resume=True)


def test_a_training_that_has_not_ended_is_not_overwritten(stopped):
    with pytest.raises(ValueError, match="has not ended: resume=True goes on from them"):
        made().train(**TRAIN, checkpoint_dir=stopped)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"resume": True}, ValueError, "resume=True needs checkpoint_dir"),
        ({"checkpoint_dir": 3}, TypeError, "checkpoint_dir=3 must be a path"),
        ({"checkpoint_dir": "c", "resume": 1}, TypeError, "resume=1 is neither"),
        ({"checkpoint_dir": __file__}, NotADirectoryError, "is a file"),
        ({"ckpt_path": "last"}, ValueError, "ckpt_path is lightning's own, which reads a pickle"),
        (
            {"callbacks": [SaveCheckpoint(load_best_on_end=True)]},
            ValueError,
            r"SaveCheckpoint\(load_best_on_end=True\)",
        ),
        ({"callbacks": [SaveCheckpoint()], "checkpoint_dir": "c"}, ValueError, "checkpoint_dir and SaveCheckpoint"),
        ({"enable_checkpointing": True, "checkpoint_dir": "c"}, ValueError, "Leave one of them out"),
    ],
)
def test_arguments_that_do_not_fit(arguments, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        made().train(**TRAIN, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["statistics", "epoch"])
def test_checkpoints_that_are_damaged_are_named(stopped, name, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "c")
    for path in folder.glob(f"{name}*"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(ValueError, match=f"{path.name}.* is damaged"):
            made().train(**TRAIN, checkpoint_dir=folder, resume=True)
        path.write_bytes(whole)


def test_nothing_that_is_read_is_a_pickle(stopped, tmp_path, monkeypatch):
    folder = shutil.copytree(stopped, tmp_path / "c")
    for module, name in ((torch, "load"), (torch, "save"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, halt)
    made().train(**TRAIN, checkpoint_dir=folder, resume=True)
    for path in folder.glob("*.json"):
        json.loads(path.read_bytes())


def test_the_last_finite_state_is_kept(tmp_path):
    def spoil(trainer):
        with torch.no_grad():
            trainer.lightning_module.module.decoder.linear.weight[0, 0] = torch.nan

    with pytest.raises(rg.model.NonFiniteLossError):
        made().train(**TRAIN, checkpoint_dir=tmp_path / "c", callbacks=[At(2, 2, spoil)])
    found = made()
    found.train(**TRAIN, checkpoint_dir=tmp_path / "c", resume=True)  # the spoiler is gone
    assert len(found.history["train_loss"]) == 5
    assert np.isfinite(found.get_latent_representation()).all()


def test_models_that_scvi_tools_saves_on_the_way_are_of_the_safe_format(tmp_path):
    saver = SaveCheckpoint(dirpath=str(tmp_path / "models"), monitor="validation_loss")
    model = made()
    model.train(**TRAIN, callbacks=[saver], check_val_every_n_epoch=1)
    best = rg.RaptorGraph.load(saver.best_model_path, model.adata.copy())
    assert best.is_trained
    assert not list((tmp_path / "models").rglob("*.pt"))
