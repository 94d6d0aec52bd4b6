"""Covariances between sets against their equations, entry by entry."""

from itertools import combinations

import numpy as np
import pytest
import torch

from raptorgraph.inference._covariances import Covariances
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import (
    CONDITION_SPECIFIC,
    INDEPENDENT,
    N_CLASSES,
    SHARED,
    along_graph,
    inherited,
    noise,
    scale_of,
    signals,
)
from raptorgraph.inference._state import Hyperparameters, Measured

K = 4
SINGLES, PAIRS = np.eye(K), np.array([np.isin(np.arange(K), pair) for pair in combinations(range(K), 2)], dtype=float)
SETS = np.vstack([SINGLES[:3], PAIRS])
OF_SETS = np.r_[np.ones(3), 0.6, 0.7, 1.3, 0.9, 1.3, 1.3]  # scales as measured


def _tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


@pytest.fixture
def prior():
    """The last gene was never perturbed alone."""
    rng = np.random.default_rng(0)
    root, other = rng.normal(size=(2, K, K))
    return Hyperparameters(
        shared_covariance=_tensor(root @ root.T),
        independent_covariance=_tensor(other @ other.T),
        scale=_tensor(0.7),
        unseen_scale=_tensor(1.3),
        unseen=_tensor([0, 0, 0, 1]),
        scale_by_condition=_tensor(OF_SETS),
        combination_variance=_tensor(0.2),
        interaction_variance=_tensor(0.3),
        residual_variance=_tensor(0.05),
        excess=_tensor(1.0),
        excess_by_condition=_tensor(rng.uniform(0.5, 2, len(SETS))),
        log_weights=_tensor(np.zeros((3, 11))),
    )


def _by_entries(covariance, one, other, a, b):
    both = one.sum() > 1 and other.sum() > 1
    return a * b * sum(covariance[i, j] for i in np.flatnonzero(one) for j in np.flatnonzero(other)) + 0.2 * both


def test_what_sets_inherit(prior):
    """Any sets have the scale that is given, and the conditions their own."""
    scale = np.linspace(0.5, 1.5, len(PAIRS))
    found = inherited(prior, _tensor(PAIRS), _tensor(scale), _tensor(SETS)).numpy()
    for m, covariance in ((SHARED, prior.shared_covariance), (INDEPENDENT, prior.independent_covariance)):
        expected = [
            [float(_by_entries(covariance, one, other, a, b)) for other, b in zip(SETS, OF_SETS, strict=True)]
            for one, a in zip(PAIRS, scale, strict=True)
        ]
        np.testing.assert_allclose(found[m], expected)
    assert not found[CONDITION_SPECIFIC].any()


def test_sets_that_were_not_measured_have_the_usual_scale(prior):
    sets = np.vstack([SINGLES[3], PAIRS])
    np.testing.assert_array_equal(scale_of(prior, _tensor(sets)), [1.0, 0.7, 0.7, 1.3, 0.7, 1.3, 1.3])
    np.testing.assert_array_equal(scale_of(prior, _tensor(sets), by_size=True), [1.0, *[0.7] * 6])


def test_signals_add_what_is_of_one_set(prior):
    found = signals(prior, _tensor(SETS)).numpy()
    more = np.diag(0.3 * (SETS.sum(1) > 1) + 0.05)
    of_genes = inherited(prior, _tensor(SETS), _tensor(OF_SETS), _tensor(SETS))[:2].numpy()
    np.testing.assert_allclose(found[:2], of_genes + more)
    np.testing.assert_array_equal(found[CONDITION_SPECIFIC], np.eye(len(SETS)))


@pytest.mark.parametrize("size", [1, 2])
def test_the_mean_over_sets_of_a_size(prior, size):
    """With one scale for all combinations, the mean of the covariances is the covariance of the mean."""
    prior = Hyperparameters(**{**vars(prior), "unseen": torch.zeros(K, dtype=torch.float64)})
    sets = _tensor(SINGLES if size == 1 else PAIRS)
    scale = scale_of(prior, sets)
    found = inherited(prior, sets[:1], scale[:1], _tensor(SETS), by_size=True)
    torch.testing.assert_close(found, inherited(prior, sets, scale, _tensor(SETS)).mean(1, keepdim=True))


def test_noise_and_covariances_are_the_covariance_of_the_measured_effects(prior):
    n_cells = np.linspace(20, 80, len(SETS))
    unused, of_batches = torch.zeros(0), np.random.default_rng(0).normal(size=(len(SETS), 2))
    measured = Measured(
        _tensor(SETS), unused, unused, _tensor(1 / n_cells), _tensor(1 / 300), *[unused] * 3, _tensor(of_batches)
    )
    errors = np.diag(0.5 * (1 + prior.excess_by_condition.numpy()) / n_cells) + 1 / 300 + of_batches @ of_batches.T
    np.testing.assert_allclose(noise(prior, measured, 0.5), errors)
    found = Covariances(prior, measured, 0.5)
    of_signals = signals(prior, _tensor(SETS)).numpy()
    for m, level in np.ndindex(N_CLASSES, len(LEVELS)):
        covariance = float(LEVELS[level]) * of_signals[m] + errors
        one = found.at(m, level)
        np.testing.assert_allclose(one.solve(_tensor(covariance)), np.eye(len(SETS)), atol=1e-8)
        assert float(one.log_det) == pytest.approx(np.linalg.slogdet(covariance)[1])
        np.testing.assert_allclose(one.inverse_diagonal(), np.linalg.inv(covariance).diagonal())


def test_effects_along_the_graph_are_sums_over_its_paths():
    graph = np.zeros((3, 3))
    graph[0, 1], graph[1, 2], graph[0, 2] = 0.8, -0.5, 0.3
    paths = np.eye(3) + graph + graph @ graph
    covariance = paths @ paths.T
    np.testing.assert_allclose(along_graph(_tensor(graph), 3), covariance * 3 / np.trace(covariance))
    np.testing.assert_array_equal(along_graph(None, 3), np.eye(3))
