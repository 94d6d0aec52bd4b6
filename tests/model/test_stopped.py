"""A training that stops leaves a whole network, and a model that says so."""

import os
import signal

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback

import raptorgraph as rg
from raptorgraph.model import NonFiniteLossError, UnfinishedModelWarning, _calibration, _training

TRAIN = {"max_epochs": 4, "batch_size": 40, "accelerator": "cpu", "enable_progress_bar": False}

pytestmark = pytest.mark.usefixtures("few_steps")


def made(preset="default", **arguments):
    adata = rg.datasets.simulate(
        30, 4, n_doubles=2, n_control_cells=60, n_cells_per_perturbation=20, n_truth_cells=5, seed=0
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    scvi.settings.seed = 0
    return rg.RaptorGraph.from_preset(adata, preset, n_hidden=4, **arguments)


class Stopper(Callback):
    """Acts at a batch of an epoch, and keeps the weights at the start of each epoch."""

    def __init__(self, act, epoch=2, batch=1):
        self.act, self.place, self.weights = act, (epoch, batch), {}

    def on_train_epoch_start(self, trainer, pl_module):
        module = pl_module.module
        self.weights[trainer.current_epoch] = {n: p.detach().clone() for n, p in module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.place:
            self.act()


def interrupt():
    raise KeyboardInterrupt


def send(number):
    os.kill(os.getpid(), number)
    torch.zeros(1).add_(1)  # the handler runs between two lines


def leave():
    raise SystemExit(7)


STOPS = {
    "an interruption": (interrupt, KeyboardInterrupt, None),
    "SIGINT": (lambda: send(signal.SIGINT), KeyboardInterrupt, None),
    "SIGTERM": (lambda: send(signal.SIGTERM), SystemExit, 143),
    "an exit": (leave, SystemExit, 7),
}


@pytest.fixture(scope="module", params=STOPS)
def stopped(request, few_steps):
    """A model whose training was stopped in its third epoch of four, and what stopped it."""
    act, error, code = STOPS[request.param]
    model, stopper = made(), Stopper(act)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error) as raised:
        model.train(**TRAIN, callbacks=[stopper])
    assert getattr(raised.value, "code", None) == code
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    return model, stopper


WORDS = r"stopped after epoch 2 of 4: it was interrupted\. .*checkpoint_dir"


def test_the_model_is_that_of_the_last_whole_epoch(stopped):
    model, stopper = stopped
    for name, parameter in model.module.named_parameters():
        if name != "prior.escape_logit":  # which is fitted to the cells at the end
            assert torch.equal(parameter, stopper.weights[2][name]), name
    assert model.is_trained
    assert not model.module.training
    assert list(model.history["train_loss"].index) == [0, 1]
    assert len(model.train_indices) > len(model.validation_indices) > 0


def test_each_answer_says_so(stopped, tmp_path):
    model, _ = stopped
    for ask in (
        lambda: model.predict("P01", n_cells=3), lambda: model.predict_effects("P01"), model.get_edges,
        model.get_latent_representation, lambda: model.sample_effects(["P01"], 2), model.get_response_probability,
        model.annotate,
    ):  # fmt: skip
        with pytest.warns(UnfinishedModelWarning, match=WORDS):
            ask()
    with pytest.warns(UnfinishedModelWarning, match=WORDS) as said:
        model.predict_effects("P01")
    assert len(said) == 1
    assert said[0].filename == __file__
    assert "stopped after epoch 2 of 4" in model.summary_string


def test_it_is_saved_with_the_mark(stopped, same, tmp_path):
    model, _ = stopped
    with pytest.warns(UnfinishedModelWarning, match=WORDS) as said:
        model.save(tmp_path / "m")
    assert said[0].filename == __file__
    with pytest.warns(UnfinishedModelWarning, match=WORDS) as said:
        loaded = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    assert said[0].filename == __file__
    assert loaded.stopped_ == model.stopped_ == {"cause": "it was interrupted", "epoch": 2, "max_epochs": 4}
    with pytest.warns(UnfinishedModelWarning, match=WORDS):
        found = loaded.predict(["P01"], model.adata.copy(), n_cells=5, seed=0)
    with pytest.warns(UnfinishedModelWarning, match=WORDS):
        assert same(found.to_df(), model.predict(["P01"], n_cells=5, seed=0).to_df())


def test_what_is_kept_after_a_training_is_there(stopped):
    model, _ = stopped
    assert model.module.reference.z is not None
    assert model.control_digests_
    with pytest.warns(UnfinishedModelWarning):
        assert np.isfinite(model.get_response_probability().dropna()).all()


def test_a_training_that_ends_takes_the_mark_away(tmp_path):
    model = made()
    with pytest.raises(KeyboardInterrupt):
        model.train(**TRAIN, callbacks=[Stopper(interrupt)])
    model.train(**{**TRAIN, "max_epochs": 1})
    assert model.stopped_ is None
    model.predict_effects("P01")
    model.save(tmp_path / "m")
    assert "Trained" in model.summary_string


def test_nothing_is_said_about_other_errors(capsys):
    with pytest.raises(KeyboardInterrupt):
        made().train(**TRAIN, callbacks=[Stopper(interrupt)])
    said = "".join(capsys.readouterr())
    assert "NameError" not in said
    assert "Exception raised" not in said


def test_the_published_model_is_acyclic_when_it_is_stopped():
    model = made("paper")
    with pytest.raises(KeyboardInterrupt):
        model.train(**TRAIN, callbacks=[Stopper(interrupt)])
    assert model.is_trained
    assert bool(model.module.graph.projected)
    with pytest.warns(UnfinishedModelWarning):
        model.predict_effects("P01")


def test_a_network_that_was_not_trained_at_all_does_not_count():
    model = made("paper")
    with pytest.raises(KeyboardInterrupt):
        model.train(**TRAIN, callbacks=[Stopper(interrupt, epoch=0, batch=0)])
    assert not model.is_trained
    assert "stopped after epoch 0 of 4" in model.summary_string
    effects = made()  # where graph and effects are inferred, it is what they imply
    with pytest.raises(KeyboardInterrupt):
        effects.train(**TRAIN, callbacks=[Stopper(interrupt, epoch=0, batch=0)])
    assert effects.is_trained
    with pytest.warns(UnfinishedModelWarning, match="after epoch 0 of 4"):
        assert np.isfinite(effects.predict_effects("P01")).to_numpy().all()


def test_interrupted_while_effects_are_inferred(answers, same, monkeypatch):
    model, trained = made(), made()
    trained.train(**TRAIN)
    before = answers(trained)
    monkeypatch.setattr(_calibration.Calibration, "fit", lambda *args, **kwargs: interrupt())
    for each in (model, trained):
        with pytest.raises(KeyboardInterrupt):
            each.train(**TRAIN)
    assert not model.is_trained
    assert trained.is_trained
    assert same(answers(trained), before)


def test_interrupted_in_its_last_steps(monkeypatch):
    model = made()
    monkeypatch.setattr(_training, "fit_escape", lambda model: interrupt())
    with pytest.raises(KeyboardInterrupt):
        model.train(**TRAIN)
    assert not model.is_trained
    with pytest.warns(UnfinishedModelWarning, match="stopped after epoch 4 of 4: before its last steps"):
        model.predict_effects("P01")


class Failed(Exception):
    pass


def fail():
    raise Failed("of a callback")


def test_other_errors_leave_the_last_whole_epoch_and_no_trained_model(tmp_path):
    model, stopper = made(), Stopper(fail)
    with pytest.raises(Failed):
        model.train(**TRAIN, callbacks=[stopper])
    assert not model.is_trained
    for name, parameter in model.module.named_parameters():
        assert torch.equal(parameter, stopper.weights[2][name]), name
    with pytest.warns(UnfinishedModelWarning, match="after epoch 2 of 4: Failed: of a callback"):
        model.save(tmp_path / "m")


# -- numbers that are not finite -------------------------------------------------------------------------------------
def spoil(model, name="decoder.linear.weight"):
    with torch.no_grad():
        model.module.get_parameter(name).view(-1)[0] = torch.nan


def asked(model):
    return (
        lambda: model.predict("P01", n_cells=3), lambda: model.predict_effects("P01"), model.get_edges,
        lambda: model.predict_effects("P01", kind="decoder"), model.get_latent_representation, model.latent_activity,
        lambda: model.sample_effects(["P01"], 2), lambda: model.get_counterfactual("P01"),
        model.get_response_probability, model.annotate,
    )  # fmt: skip


def test_a_training_that_was_undone_says_so(tmp_path):
    model = made()
    with pytest.raises(NonFiniteLossError):
        model.train(**TRAIN, callbacks=[Stopper(lambda: spoil(model), epoch=1, batch=0)])
    assert not model.is_trained
    words = r"stopped after epoch 0 of 4: The loss is not finite in epoch 2.*Lower the learning rate"
    with pytest.warns(UnfinishedModelWarning, match=words):
        model.save(tmp_path / "m")
    with pytest.warns(UnfinishedModelWarning, match=words):
        loaded = rg.RaptorGraph.load(tmp_path / "m", model.adata.copy())
    for each in (model, loaded):
        for ask in asked(each):
            with pytest.warns(UnfinishedModelWarning, match=words):
                ask()


def test_weights_that_are_not_finite_give_no_answers(tmp_path):
    model = made()
    model.train(**{**TRAIN, "max_epochs": 1})
    spoil(model)
    spoil(model, "encoder.aggregation")
    words = (
        r"weights that are not finite \(encoder.aggregation and 1 more\), and gives no answers: build the model anew"
    )
    with pytest.warns(UnfinishedModelWarning, match=words):
        model.save(tmp_path / "m")
    with pytest.warns(UnfinishedModelWarning, match=words):
        loaded = rg.RaptorGraph.load(tmp_path / "m", model.adata.copy())
    for each in (model, loaded):
        for ask in asked(each):
            with pytest.raises(RuntimeError, match=words):
                ask()


def test_a_trained_model_stays_as_it_was_after_numbers_that_are_not_finite(answers, same):
    model = made()
    model.train(**TRAIN)
    with pytest.raises(NonFiniteLossError):
        model.train(**TRAIN, callbacks=[Stopper(lambda: spoil(model), epoch=1, batch=0)])
    assert model.is_trained
    assert model.stopped_ is None
    model.predict_effects("P01")
