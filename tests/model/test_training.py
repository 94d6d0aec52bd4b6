"""What training says and shows, what one that fails leaves, and that loading says nothing."""

import contextlib
import io
import logging

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback

import raptorgraph as rg
from raptorgraph.model import NonFiniteLossError, _training

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def adata():
    cells = rg.datasets.simulate(
        60, 4, n_control_cells=80, n_cells_per_perturbation=30, n_doubles=2, n_truth_cells=20, seed=1
    )
    rg.RaptorGraphModel.setup_anndata(cells, library_size_key="total_counts")
    return cells


@pytest.fixture
def said(monkeypatch):
    """Names of the loggers that said something, of all libraries."""
    names, handler = [], logging.Handler()
    handler.emit = lambda record: names.append(record.name)
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "scvi", "raptorgraph")]
    for logger in loggers:
        logger.addHandler(handler)
    yield names
    for logger in loggers:
        logger.removeHandler(handler)


# Also of those that pyproject.toml lets pass, but for what anndata does not know of pandas 3 yet, which nobody sees.
@pytest.mark.filterwarnings("error", r"ignore:The .+ (option|keyword) .*is deprecated:DeprecationWarning")
def test_only_the_package_speaks(adata, said, tmp_path, capsys):
    scvi.settings.seed = 0
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    said.clear()
    model.train(max_epochs=1, accelerator="cpu")
    assert said == ["raptorgraph.model._graph", "raptorgraph.model._calibration", "raptorgraph.model._training"]
    said.clear()
    model.predict(["P01", "P02"], n_cells=5)
    model.predict_effects("P01+P02")
    model.save(tmp_path / "model")
    rg.RaptorGraphModel.load(tmp_path / "model", adata)
    assert said in ([], ["raptorgraph.model._model"])  # the likelihood of the data, once
    assert "it/s" not in "".join(capsys.readouterr())  # no terminal, no bar


STEPS = {"Inferring the graph", "Fitting the effects"}


@pytest.mark.parametrize(
    ("perturbed_prior", "steps"),
    [
        (True, {*STEPS, "Starting the network from the effects", "Cells that responded"}),
        (False, {*STEPS, "Principal components"}),
    ],
)
def test_every_step_has_a_bar(adata, in_terminal, perturbed_prior, steps):
    scvi.settings.seed = 0
    model = rg.RaptorGraphModel(adata, n_hidden=8, perturbed_prior=perturbed_prior)
    with in_terminal() as terminal, contextlib.redirect_stdout(io.StringIO()) as out:
        model.train(max_epochs=2, accelerator="cpu")
    assert terminal.lines() == steps
    pairs = set() if perturbed_prior else {("Pairing cells", len(model.conditions))}  # where anything reads pairs
    assert terminal.bars() - {("Cells", 1)} == pairs
    assert "Epoch 2/2" in out.getvalue()  # scvi-tools' own bar


def test_answers_have_bars(adata, in_terminal):
    scvi.settings.seed = 0
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    with in_terminal() as terminal:
        model.predict(["P01", "P02", "P03"], n_cells=1100)
    assert {("Means", 3), ("Cells", 6)} <= terminal.bars()
    with in_terminal() as terminal:
        model.get_counterfactual("P01", batch_size=100)
    assert terminal.bars() == {("Cells", -(-adata.n_obs // 100))}


def test_no_bar_where_none_is_wanted(adata, in_terminal):
    scvi.settings.seed = 0
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    with in_terminal() as terminal, contextlib.redirect_stdout(io.StringIO()) as out:
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    assert terminal.getvalue() == ""
    assert "it/s" not in out.getvalue()


class _Spoil(Callback):
    """Take a weight from the finite numbers after the first update."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with torch.no_grad():
            pl_module.module.decoder.linear.weight[0, 0] = torch.nan


@pytest.mark.parametrize("max_epochs", [1, 2])
def test_a_training_that_failed_leaves_the_weights_for_another_one(adata, max_epochs):
    """Whether the weights after the last step were the first that were not finite, or a loss."""
    model = rg.RaptorGraphModel(adata)
    arguments = {"accelerator": "cpu", "enable_progress_bar": False, "batch_size": 200}
    with pytest.raises(NonFiniteLossError, match="Lower the learning rate"):
        model.train(max_epochs=max_epochs, callbacks=[_Spoil()], **arguments)
    assert not model.is_trained
    assert all(parameter.isfinite().all() for parameter in model.module.parameters())
    model.train(max_epochs=1, **arguments)
    assert model.is_trained
    assert np.isfinite(model.get_latent_representation()).all()


class Asked(Exception):
    """What the trainer was asked for."""


@pytest.mark.parametrize(
    ("arguments", "batch_size", "expected"),
    [
        ({}, 256, 200),  # one update an epoch
        ({}, 1, 2),
        ({"linear_decoder": False}, 256, 400),
        ({"perturbed_prior": False}, 1, 10),
    ],
)
def test_a_network_that_starts_from_the_effects_needs_fewer_epochs(adata, monkeypatch, arguments, batch_size, expected):
    def runner(*args, max_epochs, **kwargs):
        raise Asked(max_epochs)

    monkeypatch.setattr(_training, "_runner", runner)
    with pytest.raises(Asked, match=f"^{expected}$"):
        rg.RaptorGraphModel(adata, n_hidden=4, **arguments).train(batch_size=batch_size)
