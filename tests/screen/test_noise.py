"""Pseudo-perturbations of control cells, and the statistics that are compared with them."""

import numpy as np
import pytest
from scipy import stats

from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._moments import effect_moments
from raptorgraph.screen._noise import (
    ControlNoise,
    _contrasts,
    cell_classes,
    effect_statistics,
    false_discovery_rates,
    tail_probability,
)


@pytest.mark.parametrize("n_batches", [1, 2])
def test_draws_are_effects_of_such_labels(counted_cells, n_batches):
    X, library = counted_cells(n_cells=12)
    batch = np.arange(12) % n_batches
    noise = ControlNoise(X, library, batch)
    effects, variance = noise.draw(1, 200, np.random.default_rng(0))
    # with one cell of each batch there are few labels that can have been drawn
    choices = (
        [(i,) for i in range(12)] if n_batches == 1 else [(i, j) for i in range(0, 12, 2) for j in range(1, 12, 2)]
    )
    possible = []
    for chosen in choices:
        codes = np.isin(np.arange(12), chosen).astype(int)
        possible.append(effect_moments(X, codes, 2, library=library, batch=batch).effect[1])
    distance = np.abs(effects[:, None] - np.array(possible)[None]).max(axis=2)
    assert distance.min(axis=1).max() < 1e-5
    assert len(set(distance.argmin(axis=1))) == len(choices)
    if n_batches == 1:
        expected = to_expression(X, library).astype(float).var(axis=0, ddof=1) * (1 + 1 / 11)
        np.testing.assert_allclose(variance[expected > 0], expected[expected > 0], rtol=1e-6)
        assert (variance > 0).all()


def test_noise_has_the_variance_that_is_said(counted_cells):
    X, library = counted_cells(n_cells=300)
    batch = np.repeat([0, 1, 2], 100)
    effects, variance = ControlNoise(X, library, batch).draw(60, 3000, np.random.default_rng(0))
    assert effects.dtype == np.float32
    np.testing.assert_allclose(effects.var(axis=0) / variance, 1.0, atol=0.15)
    assert abs(effects.mean(axis=0) / np.sqrt(variance / 3000)).max() < 4
    again, _ = ControlNoise(X, library, batch).draw(60, 3000, np.random.default_rng(0))
    np.testing.assert_array_equal(effects, again)


def test_at_most_half_of_the_controls_are_drawn(counted_cells):
    X, library = counted_cells(n_cells=40)
    _, variance = ControlNoise(X, library).draw(1000, 5, np.random.default_rng(0))
    np.testing.assert_allclose(variance, ControlNoise(X, library).variance * (1 / 20 + 1 / 20))


def test_rare_genes_do_not_count_for_the_size_of_an_effect(counted_cells):
    X, library = counted_cells(n_cells=200)
    X[:, 3] = 0
    X[:5, 4] = 1
    X[5:, 4] = 0
    seen = ControlNoise(X, library).seen
    assert not seen[3]
    assert not seen[4]
    assert seen[:3].all()


def test_a_batch_of_one_control_is_left_out(counted_cells):
    X, library = counted_cells(n_cells=21)
    noise = ControlNoise(X, library, np.append(np.zeros(20, dtype=int), 1))
    assert noise.n_cells == 20
    with pytest.raises(ValueError, match="at least 2"):
        ControlNoise(X, library, np.arange(21))


def test_tail_probability_counts_and_extrapolates():
    rng = np.random.default_rng(0)
    null = rng.chisquare(20, (4000, 3))
    observed = np.array([np.quantile(null[:, 0], 0.95), null[:, 1].max(), stats.chi2.isf(1e-7, 20)])
    p = tail_probability(observed, null)
    assert p[0] == (1 + (null[:, 0] >= observed[0]).sum()) / 4001
    assert p[1] == 2 / 4001
    assert 1e-9 < p[2] < 1e-5
    assert tail_probability(np.array([1.0]), np.zeros((10, 1)))[0] == 1 / 11  # no spread to go by


def test_effect_statistics():
    effect = np.arange(1.0, 41.0)[None]
    broad, sparse = effect_statistics(effect, np.full(40, 4.0), np.arange(40) < 20)[0]
    assert broad == pytest.approx((np.arange(1, 21) ** 2).mean() / 4)
    assert sparse == pytest.approx((np.arange(11, 21) ** 2).mean() / 4)


def test_false_discovery_rates_leave_out_what_is_not_known():
    rates = false_discovery_rates(np.array([[0.01, np.nan, 0.04], [np.nan] * 3]))
    np.testing.assert_allclose(rates[0], [0.02, np.nan, 0.04])
    assert np.isnan(rates[1]).all()


def test_a_gene_that_was_never_perturbed_alone():
    members = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])  # A, A+B, C
    contrast = _contrasts(members, np.array([50.0, 30.0, 20.0]))
    np.testing.assert_allclose(contrast, [[1, 0, 0], [-1, 1, 0], [0, 0, 1]], atol=1e-12)


def test_cell_classes():
    assert list(cell_classes(np.array([1, 31.9, 32, 100, 5000]))) == [1, 16, 32, 64, 512]
