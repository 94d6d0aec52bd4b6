"""Scores of predictions on held-out cells, against closed forms."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph.evaluation import HeldOut
from raptorgraph.evaluation import _held_out_scores as held_out_scores
from raptorgraph.evaluation._held_out_scores import HALF, MODEL, PERFECT

LABELS, GENES = ["A", "B", "C"], ["g", "h"]


def frame(values):
    return pd.DataFrame(values, index=LABELS, columns=GENES, dtype=float)


TRUTH = frame([[3, 4], [0, 5], [5, 0]])  # each of squared size 25


@pytest.fixture
def scores():
    predictions = {MODEL: TRUTH / 2, "no change": 0 * TRUTH, "additive": TRUTH * 0.9}
    variance, sd = 0 * TRUTH + 0.5, 0 * TRUTH + 1.0
    return held_out_scores.scores_of(predictions, TRUTH * 1.1, TRUTH, variance, sd, seed=0)


def test_errors_are_parts_of_the_squared_size(scores):
    table = scores.table.set_index("method")
    assert list(table.index) == [MODEL, "no change", "additive", HALF, PERFECT]
    np.testing.assert_allclose(table["relative_mse"], [0.25, 1, 0.01, 0.01, 1 / 25])  # the last is the mean variance
    np.testing.assert_allclose(table["relative_mse_se"].iloc[:4], 0, atol=1e-12)  # every condition has the same error
    np.testing.assert_allclose(table.loc[[MODEL, "additive", HALF], "pearson"], 1)
    np.testing.assert_allclose(table.loc[[MODEL, "additive", HALF], "discrimination"], 1)
    assert np.isnan(table.at["no change", "pearson"])


def test_the_model_is_compared_with_the_best_baseline(scores):
    assert scores.best == "additive"
    assert scores.difference == pytest.approx(0.24)
    assert scores.difference_se == pytest.approx(0, abs=1e-12)
    assert scores.verdict == "worse"


def test_intervals_hold_what_lies_within_model_and_sampling_error(scores):
    # 1.645 * sqrt(1 + 0.5) = 2.01: errors of 1.5, 2 and 0 lie within, those of 2.5 do not
    assert scores.coverage == pytest.approx(4 / 6)


def test_of_one_condition_there_is_no_spread():
    one = TRUTH.iloc[:1]
    found = held_out_scores.scores_of({MODEL: one, "no change": 0 * one}, one, one, 0 * one, None, seed=0)
    assert found.coverage is None
    assert found.difference_se == np.inf
    assert found.table["discrimination"].isna().all()


def test_correlation_of_each_condition():
    seen = {MODEL: -TRUTH}
    found = held_out_scores._by_condition({MODEL: TRUTH.iloc[:2]}, seen, TRUTH[::-1], TRUTH)
    assert found["unseen"].dropna().to_dict() == pytest.approx({"A": 1.0, "B": 1.0})
    assert found["seen"].to_dict() == pytest.approx(dict.fromkeys(LABELS, -1.0))
    assert found["half"].to_dict() == pytest.approx(dict.fromkeys(LABELS, 1.0))


def test_ranks_of_pairs(monkeypatch):
    genes = [f"P{k}" for k in range(9)]
    pairs = [f"P0+{gene}" for gene in genes[1:]]
    screen = SimpleNamespace(genes_of={pair: pair.split("+") for pair in pairs}, single=lambda gene: gene)
    effects = pd.DataFrame(np.random.default_rng(0).normal(size=(17, 12)), index=[*genes, *pairs])
    predicted = {pair: effects.loc[["P0", pair.split("+")[1], pair]].to_numpy() for pair in pairs}
    ranks = held_out_scores._ranks(predicted, screen, effects, effects)
    np.testing.assert_allclose(ranks[["raptorgraph", "half"]], 1)
    assert HeldOut(ranks=ranks).chance == pytest.approx(2 / np.sqrt(7))
    assert held_out_scores._ranks(dict(list(predicted.items())[:7]), screen, effects, effects) is None


def test_a_rank_correlation_needs_three_values_that_differ():
    correlation = held_out_scores._rank_correlation
    assert correlation(np.array([1.0, 2, 3, np.nan]), np.array([1.0, 3, 2, 5])) == pytest.approx(0.5)
    assert np.isnan(correlation(np.array([1.0, 2, np.nan]), np.array([1.0, 2, 3])))
    assert np.isnan(correlation(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_methods_that_are_as_good_are_seldom_told_apart(n):
    """Errors of the model and of a baseline have the same distribution, and hardly any verdict is not "level"."""
    rng, verdicts = np.random.default_rng(0), []
    genes = [f"g{k}" for k in range(20)]
    for seed in range(150):
        truth = pd.DataFrame(rng.normal(size=(n, 20)), [f"A{k}" for k in range(n)], genes)
        size = rng.uniform(0.2, 1.0, (2, n, 1))
        ours, theirs = (truth + size[k] * rng.normal(size=truth.shape) for k in (0, 1))
        found = held_out_scores.scores_of({MODEL: ours, "additive": theirs}, truth, truth, 0 * truth, None, seed)
        verdicts.append(found.verdict)
    assert np.mean(np.array(verdicts) != "level") < 0.1


def test_standard_errors_of_few_conditions_are_those_of_a_mean():
    """Conditions of the same size, of which each has an error of its own: that of their mean, by its closed form."""
    part = np.array([0.1, 0.5, 0.9])
    found = held_out_scores.scores_of(
        {MODEL: TRUTH.mul(1 - np.sqrt(part), axis=0), "no change": 0 * TRUTH}, TRUTH, TRUTH, 0 * TRUTH, None, seed=0
    )
    row = found.table.set_index("method").loc[MODEL]
    assert row["relative_mse"] == pytest.approx(part.mean())
    assert row["relative_mse_se"] == pytest.approx(part.std(ddof=1) / np.sqrt(3), rel=0.1)
    assert found.difference_se == pytest.approx(row["relative_mse_se"])
    assert found.errors_of(0.9) == pytest.approx(2.92, abs=0.01)
