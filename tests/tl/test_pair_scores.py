"""Scores in draws: against the metrics, and what is known of a turn where the truth is known."""

import numpy as np
import pytest

from raptorgraph import metrics
from raptorgraph.tl._pair_scores import SCORES, known_turn, score_draws


def draws(mean, sd, n=200, seed=0):
    return mean + sd * np.random.default_rng(seed).normal(size=(n, len(mean)))


@pytest.fixture
def singles():
    rng = np.random.default_rng(5)
    return rng.normal(size=(2, 300))


def test_scores_are_those_of_the_metrics():
    rng = np.random.default_rng(0)
    a, b, ab = rng.normal(size=(3, 50, 30))
    found = score_draws(a, b, ab).scores
    for name in SCORES:
        np.testing.assert_allclose(found[name], getattr(metrics, name)(a, b, ab), atol=1e-12)
    np.testing.assert_allclose(found["magnitude"], np.linalg.norm(ab, axis=1))


def test_single_precision_is_enough(singles):
    a, b = (draws(x, 0.1, seed=k) for k, x in enumerate(singles))
    ab = 1.3 * (a + b)
    exact, found = (score_draws(*(x.astype(kind) for x in (a, b, ab))).scores for kind in (float, np.float32))
    for name in (*SCORES, "magnitude"):
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-5, atol=1e-5)


def test_the_turn_of_a_certain_effect_is_its_neomorphism(singles):
    a, b = singles
    rng = np.random.default_rng(1)
    ab = np.tile(a + b + 0.8 * rng.normal(size=300), (20, 1))
    total = np.tile(a + b, (20, 1))
    np.testing.assert_allclose(known_turn(ab, total), 1 - metrics._interactions._cosine(ab, total))
    np.testing.assert_allclose(known_turn(total, total), 0, atol=1e-12)


def test_the_known_turn_of_a_noisy_effect_is_below_its_neomorphism_and_near_the_truth(singles):
    a, b = singles
    new = np.random.default_rng(1).normal(size=300)
    new -= new @ (a + b) / ((a + b) @ (a + b)) * (a + b)
    new *= np.linalg.norm(a + b) / np.linalg.norm(new)  # a turn by 45 degrees
    total = draws(a + b, 0.3, seed=2)
    ab = draws(a + b + new, 0.3, seed=3)
    turn, whole = known_turn(ab, total), score_draws(draws(a, 0, 200), total - a, ab).scores["neomorphism"]
    assert (turn <= whole + 1e-12).all()
    true = 1 - np.sqrt(0.5)
    assert np.median(turn) == pytest.approx(true, abs=0.03)
    # in two dimensions: the tangent of the angle is 1, give or take the noise along and across
    assert np.quantile(turn, 0.05) == pytest.approx(true, abs=0.1)
    assert np.median(whole) > np.median(turn) + 0.01


@pytest.mark.parametrize("seed", range(5))
def test_noise_turns_nothing_to_a_known_side(singles, seed):
    a, b = singles
    total = draws(a + b, 0.2, seed=seed)
    # additive, with a departure of unknown direction in every draw
    assert not known_turn(total + 0.5 * np.random.default_rng(seed + 9).normal(size=total.shape), total).any()
    # a posterior whose mean is noise as large as its spread: the flat prior of a pair that does not interact
    noise = 0.5 * np.random.default_rng(seed + 90).normal(size=300)
    apart = np.random.default_rng(seed + 99).normal(size=total.shape)
    assert np.quantile(known_turn(total + noise + 0.55 * apart, total), 0.05) == 0
    assert np.quantile(known_turn(total + 3 * noise + 0.5 * apart, total), 0.05) > 0.05


def test_few_genes_with_a_large_departure_are_enough(singles):
    a, b = singles
    new = np.zeros(300)
    new[:6] = 7.0
    rng = np.random.default_rng(0)
    total = draws(a + b, 0.2, seed=1)
    ab = total + new + 1.3 * rng.normal(size=total.shape)
    apart = (ab - total) - (ab - total).mean(axis=0)
    assert new @ new < np.quantile((apart**2).sum(axis=1), 0.9)  # over all genes it is within the noise
    assert np.quantile(known_turn(ab, total), 0.05) > 0


@pytest.mark.parametrize(
    ("type_", "pair", "shown"),
    [
        ("synergy", lambda a, b: 1.11 * (a + b), True),
        ("synergy", lambda a, b: 1.09 * (a + b), False),
        ("suppression", lambda a, b: 0.89 * (a + b), True),
        ("suppression", lambda a, b: 0.91 * (a + b), False),
        ("epistasis", lambda a, b: a, True),
        ("epistasis", lambda a, b: a + 0.5 * b, False),
        ("redundancy", lambda a, b: a, False),
    ],
)
def test_types_of_draws_at_right_angles(type_, pair, shown):
    a, b = np.eye(2)[[0]], np.eye(2)[[1]]
    assert score_draws(a, b, pair(a, b)).types[type_].tolist() == [shown]


def test_two_genes_that_do_the_same_are_redundant_where_the_pair_does_it_once():
    a = np.array([[1.0, 2.0, 0.0]])
    b = np.array([[1.0, 2.0, 0.5]])
    assert score_draws(a, b, (a + b) / 2).types["redundancy"].tolist() == [True]
    # effects that add up resemble both genes, too, and are no interaction
    assert score_draws(a, b, a + b).types["redundancy"].tolist() == [False]


def test_a_weak_gene_beside_a_strong_one_is_not_masked():
    a, b = np.array([[10.0, 0.0]]), np.array([[0.0, 1.0]])
    assert not any(shown.any() for shown in score_draws(a, b, a + b).types.values())


def test_an_effect_of_zero_has_no_scores():
    zero = np.zeros((3, 4))
    found = score_draws(zero, zero, zero)
    assert all(np.isnan(found.scores[name]).all() for name in SCORES)
    assert not any(shown.any() for shown in found.types.values())
