"""Effects by state from labeled cells, against independent computations."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph.benchmark._states_methods import (
    Labeled,
    average_effect,
    differences_by_state,
    regression_by_state,
    shrunken_by_state,
)


def gaussian_cells(deviation_sd, n_each=10, n_controls=200, n_genes=4000, seed=0):
    """Cells of unit noise in two states: one perturbation with effect 1 +- a deviation of its own in each gene."""
    rng = np.random.default_rng(seed)
    deviation = deviation_sd * rng.standard_normal(n_genes)
    effects = np.stack([1 + deviation, 1 - deviation])
    perturbation = np.repeat([0, 0, 1, 1], [n_controls, n_controls, n_each, n_each])
    state = np.repeat([0, 1, 0, 1], [n_controls, n_controls, n_each, n_each])
    expression = rng.standard_normal((len(state), n_genes)) + perturbation[:, None] * effects[state]
    return Labeled(expression, perturbation, state), effects[None]


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 12, size=300)
    return Labeled(rng.gamma(1.0, size=(300, 7)), codes // 3, codes % 3)


def test_differences_of_means(cells):
    frame = pd.DataFrame(cells.expression)
    mean = frame.groupby([cells.perturbation, cells.state]).mean()
    whole = frame.groupby(cells.perturbation).mean()
    for p in range(3):
        for s in range(3):
            np.testing.assert_allclose(average_effect(cells)[p, s], whole.loc[p + 1] - whole.loc[0])
            np.testing.assert_allclose(differences_by_state(cells)[p, s], mean.loc[p + 1, s] - mean.loc[0, s])


@pytest.mark.parametrize("method", [differences_by_state, shrunken_by_state])
def test_a_state_without_cells_has_the_average_effect(cells, method):
    kept = (cells.perturbation != 2) | (cells.state != 1)
    fewer = Labeled(cells.expression[kept], cells.perturbation[kept], cells.state[kept])
    np.testing.assert_allclose(method(fewer)[1, 1], average_effect(fewer)[1, 1])
    assert np.isfinite(method(fewer)).all()


@pytest.mark.parametrize("deviation_sd", [0.2, 0.5, 2.0])
def test_shrinkage_is_that_of_the_normal_model(deviation_sd):
    cells, truth = gaussian_cells(deviation_sd)
    found, average, raw = (method(cells) for method in (shrunken_by_state, average_effect, differences_by_state))
    # the two deviations +-x have variance 2 x^2 around their mean; each difference of means has 1/10 + 1/200
    weight = 2 * deviation_sd**2 / (2 * deviation_sd**2 + 1 / 10 + 1 / 200)
    # sampling of a gene's pooled variance, 7 % of it, is in each weight
    assert np.median((found - average) / (raw - average)) == pytest.approx(weight, abs=0.02)
    error = [np.square(effects - truth).sum() for effects in (found, average, raw)]
    assert error[0] < min(error[1:])


def test_where_nothing_depends_on_the_state_shrinkage_leaves_little():
    cells, _ = gaussian_cells(0.0)
    found, average, raw = (method(cells) for method in (shrunken_by_state, average_effect, differences_by_state))
    assert np.abs(found - average).max() < 0.1 * np.abs(raw - average).max()


def test_regression_finds_effects_that_follow_the_leading_components():
    rng = np.random.default_rng(2)
    n_genes, n = 60, 3000
    program, effect = np.zeros(n_genes), np.zeros((2, n_genes))
    program[:30] = 3.0
    effect[:, 40:] = rng.standard_normal((2, 20))
    perturbation, state = rng.integers(0, 3, size=n), rng.integers(0, 2, size=n)
    # the first acts in state 1 alone, the second in both
    acts = np.where(perturbation == 1, state, perturbation > 0)
    expression = rng.standard_normal((n, n_genes)) + np.outer(state, program)
    expression += acts[:, None] * effect[np.maximum(perturbation, 1) - 1]
    found = regression_by_state(Labeled(expression, perturbation, state))
    truth = np.stack([[0 * effect[0], effect[0]], [effect[1], effect[1]]])
    np.testing.assert_allclose(found, truth, atol=5 * np.sqrt(2 / 500))
    assert np.square(found - truth).sum() < 0.05 * np.square(truth).sum()
    # leaving out a cell at a time finds that the second does not depend on it
    assert np.abs(found[1, 0] - found[1, 1]).max() < 0.1
