"""What is saved, in the layout of today and in that of older versions."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior
from raptorgraph.inference._state import Fitted


@pytest.fixture
def old_state(tiny):
    """The state dict as versions before this layout wrote it, their reference cells included."""
    measured, prior = tiny.posterior.fitted.measured, tiny.posterior.fitted.hyperparameters
    return {
        "members": measured.design,
        "measured": measured.effect,
        "gene_noise": measured.gene_noise,
        "own_noise": measured.condition_noise,
        "common_noise": measured.control_noise,
        "targets": measured.target_columns,
        "lowest": measured.lowest,
        "along": prior.independent_covariance,
        "scale": prior.scale,
        "scale_unseen": prior.unseen_scale,
        "shared": prior.combination_variance,
        "interaction": prior.interaction_variance,
        "own": prior.residual_variance,
        "excess": prior.excess,
        "covariance": prior.shared_covariance,
        "unseen": prior.unseen,
        "excess_of": prior.excess_by_condition,
        "log_weights": prior.log_weights,
        "share": tiny.posterior.fitted.responsibility,
        "reference_z": torch.zeros(2, 3),
        "reference_library": torch.ones(2, 1),
    }


def _assert_same(one: Fitted, other: Fitted):
    for name, value in one.to_tensors().items():
        torch.testing.assert_close(other.to_tensors()[name], value, rtol=0, atol=0, msg=name)


def test_the_state_survives_saving(tiny, tmp_path):
    torch.save(tiny.posterior.state_dict(), tmp_path / "state.pt")
    other = EffectPosterior()
    assert not other.is_fitted
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    _assert_same(tiny.posterior.fitted, other.fitted)


@pytest.fixture
def older(tiny):
    """The posterior as it was then, when all combinations had one scale."""
    fitted = tiny.posterior.fitted
    one_scale = torch.tensor([1.0, 1.0, 1.0, float(fitted.hyperparameters.scale)], dtype=torch.float64)
    prior = replace(fitted.hyperparameters, scale_by_condition=one_scale)
    return EffectPosterior()._of(replace(fitted, hyperparameters=prior))


def test_an_older_state_is_read(older, old_state):
    posterior = EffectPosterior()
    posterior.load_state_dict({"_extra_state": old_state})
    _assert_same(older.fitted, posterior.fitted)
    asked = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(posterior.mean(asked), older.mean(asked), rtol=0, atol=0)
    assert not any(name.startswith("reference") for name in posterior.get_extra_state())


def test_reading_another_state_forgets_the_first(older, old_state):
    """The factors of a state are kept for the next question."""
    posterior, asked = EffectPosterior(), torch.eye(3, dtype=torch.float64)
    posterior.set_extra_state(old_state)
    before = posterior.mean(asked)
    posterior.set_extra_state({**old_state, "measured": 2 * old_state["measured"]})
    np.testing.assert_allclose(posterior.posterior_mean(asked), 2 * older.posterior_mean(asked))
    assert not torch.equal(posterior.mean(asked), before)
    posterior.set_extra_state({})
    assert not posterior.is_fitted


def test_a_posterior_that_has_answered_is_copied(example):
    """What it keeps for the next answer is found again."""
    asked = torch.as_tensor(example.design[-3:])
    expected = example.posterior.mean(asked), example.posterior.draw(asked, 2)
    copied = pickle.loads(pickle.dumps(example.posterior))
    for found, one in zip((copied.mean(asked), copied.draw(asked, 2)), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=0, atol=0)
