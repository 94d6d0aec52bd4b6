"""Files of models and of checkpoints that are damaged, malicious, of another version or killed; trainings that stop."""

import hashlib
import json
import os
import pickle
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback

import raptorgraph as rg
from raptorgraph.model import NonFiniteLossError, UnfinishedModelWarning

pytestmark = pytest.mark.slow

TRAIN = {"max_epochs": 6, "batch_size": 40, "accelerator": "cpu", "enable_progress_bar": False}


def made():
    adata = rg.datasets.simulate(
        40, 4, n_doubles=2, n_control_cells=80, n_cells_per_perturbation=30, n_truth_cells=5, seed=0
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    scvi.settings.seed = 0
    return rg.RaptorGraph(adata, n_hidden=8)


@pytest.fixture(scope="module")
def saved(with_few_steps, tmp_path_factory):
    """Folder of a model with its cells."""
    model, folder = made(), tmp_path_factory.mktemp("model") / "m"
    with with_few_steps():
        model.train(**TRAIN)
    model.save(folder, save_anndata=True)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "m")


@pytest.mark.parametrize("name", ["model.json", "model-*.safetensors", "adata.h5ad"])
def test_flipped_bits(name, folder, record):
    (path,) = folder.glob(name)
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(len(whole), size=30):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(place) % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=path.name):
            rg.RaptorGraph.load(folder)
    record("a bit of a saved model that is flipped", f"`{name}`, 30 places", "a ValueError that names the file")


@pytest.mark.parametrize("name", ["model.json", "model-*.safetensors", "adata.h5ad"])
def test_files_that_are_cut(name, folder, record):
    (path,) = folder.glob(name)
    whole = path.read_bytes()
    for share in (0, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=path.name):
            rg.RaptorGraph.load(folder)
    record("a file of a saved model that is cut", f"`{name}`, four places", "a ValueError that names the file")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("came",)


def test_a_model_with_code_in_it(folder, record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in folder.glob("model*"):
        path.unlink()
    torch.save({"model_state_dict": {}, "var_names": Malicious()}, folder / "model.pt")
    with pytest.raises(ValueError, match="a pickle, which runs what code it holds"):
        rg.RaptorGraph.load(folder)
    (folder / "model.json").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match=r"model\.json"):
        rg.RaptorGraph.load(folder)
    assert not (tmp_path / "came").exists()
    record("a saved model with code in it", "`model.pt`, `model.json`", "a ValueError; the code does not run")


def test_a_model_of_a_later_version(folder, record):
    content = json.loads((folder / "model.json").read_text())
    content["format_version"] += 1
    del content["sha256"]
    text = json.dumps(content, indent=1).encode("ascii")[1:]
    digest = hashlib.sha256(text).hexdigest().encode()
    (folder / "model.json").write_bytes(b'{"sha256": "' + digest + b'",' + text)
    with pytest.raises(ValueError, match=r"has format 2, which this version of raptorgraph .* does not know"):
        rg.RaptorGraph.load(folder)
    record("a saved model of a later format", "`load`", "a ValueError that says which version reads it")


def test_weights_that_are_not_finite(folder, record, tmp_path):
    model = rg.RaptorGraph.load(folder)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.fill_(torch.nan)
    with pytest.warns(UnfinishedModelWarning, match="not finite"):
        model.save(tmp_path / "spoiled", save_anndata=True)
    with pytest.warns(UnfinishedModelWarning, match="not finite"):
        loaded = rg.RaptorGraph.load(tmp_path / "spoiled")
    for ask in (loaded.predict_effects, loaded.predict, loaded.get_latent_representation):
        with pytest.raises(RuntimeError, match="not finite"):
            ask(*(["P01"] if ask != loaded.get_latent_representation else []))
    record("weights that are all NaN", "`save`, `load`, answers", "a warning; answers are refused in words")


def kill_in_save(model, folder):
    model.mark_ = model.adata.obs["mark"] = "new"
    model.save(folder, overwrite=True, save_anndata=True)
    return 0


@pytest.mark.parametrize("k", range(20))
def test_kills_of_save(k, saved, tools, record, tmp_path):
    model = rg.RaptorGraph.load(saved)
    model.mark_ = model.adata.obs["mark"] = "old"
    model.save(tmp_path / "m", save_anndata=True)
    start = time.monotonic()
    model.save(tmp_path / "timed", save_anndata=True)
    seconds = time.monotonic() - start
    process = tools["Fork"](lambda: kill_in_save(model, tmp_path / "m"), tmp_path)
    time.sleep((k + 0.5) / 20 * 1.2 * seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    loaded = rg.RaptorGraph.load(tmp_path / "m")  # compares all files with their hashes
    assert set(loaded.adata.obs["mark"]) == {loaded.mark_}
    loaded.save(tmp_path / "m", overwrite=True, save_anndata=True)
    assert len(list((tmp_path / "m").iterdir())) == len(list((tmp_path / "timed").iterdir()))
    record("SIGKILL of `save(save_anndata=True)`", "over an earlier model", "one of the two, with its own cells")


class Send(Callback):
    """Sends a signal from another thread, as others do, in the third epoch."""

    def __init__(self, number):
        self.number = number

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            threading.Timer(0.01, os.kill, (os.getpid(), self.number)).start()
            time.sleep(0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_training(number, with_few_steps, record):
    model = made()
    seen = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}
    with with_few_steps(), pytest.raises(seen[number]):
        model.train(**TRAIN, callbacks=[Send(number)])
    with pytest.warns(UnfinishedModelWarning, match="it was interrupted"):
        effects = model.predict_effects(["P01"])
    assert np.isfinite(effects.to_numpy()).all()
    record(f"{number.name} in `train`", "an epoch", "the model is that of the last whole epoch, and says so")


class Spoil(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 2:
            with torch.no_grad():
                pl_module.module.decoder.linear.weight.fill_(torch.nan)


def test_a_loss_that_is_not_finite(with_few_steps, record):
    model = made()
    with with_few_steps(), pytest.raises(NonFiniteLossError, match="The loss is not finite in epoch 3: "):
        model.train(**TRAIN, callbacks=[Spoil()])
    with pytest.warns(UnfinishedModelWarning, match="stopped after epoch 0 of 6: The loss is not finite in epoch 3"):
        model.predict(["P01"])
    record(
        "a loss that is not finite", "`train`", "an error that names the term; answers come with a warning that says so"
    )
