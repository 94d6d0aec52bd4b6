"""Correlation between genes as common factors."""

import numpy as np
import pytest
import torch

from raptorgraph.inference import loadings_of_cells
from raptorgraph.inference._loadings import correlated, loadings_of_effects


def test_variables_have_variance_one_and_the_correlation_of_the_loadings():
    loadings = torch.tensor([[0.8, 0.0], [0.6, -0.5], [0.0, 0.3], [0.0, 0.0]], dtype=torch.float64)
    drawn = correlated(loadings, 40_000, torch.Generator().manual_seed(0))
    expected = loadings @ loadings.T
    expected.fill_diagonal_(1.0)
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), expected, atol=0.03)


def test_without_factors_genes_are_independent():
    drawn = correlated(torch.zeros(5, 0, dtype=torch.float64), 40_000, torch.Generator().manual_seed(1))
    np.testing.assert_allclose(drawn.T @ drawn / len(drawn), np.eye(5), atol=0.03)


def test_cells_show_which_genes_vary_together():
    rng = np.random.default_rng(0)
    n, shares = 4000, np.repeat([0.5, 0.2, 0.0], 20)  # of the variance of a gene that one factor makes
    values = rng.standard_normal((n, 1)) * np.sqrt(shares) + rng.standard_normal((n, 60)) * np.sqrt(1 - shares)
    loadings = loadings_of_cells(values * rng.uniform(0.1, 5, 60) + 3)
    assert loadings.shape == (60, 1)
    np.testing.assert_allclose((loadings**2).sum(1), shares, atol=0.05)


@pytest.mark.parametrize("values", [np.ones((50, 4)), np.zeros((1, 4)), np.random.default_rng(0).random((300, 1))])
def test_cells_that_show_nothing_have_no_factor(values):
    loadings = loadings_of_cells(values)
    assert len(loadings) == values.shape[1]
    assert np.abs(loadings).sum() == 0


def test_independent_genes_have_next_to_no_factor():
    loadings = loadings_of_cells(np.random.default_rng(2).standard_normal((500, 200)))
    assert (loadings**2).sum(1).mean() < 0.02


def test_effects_show_which_genes_respond_alike():
    rng = np.random.default_rng(0)
    programs = rng.standard_normal((12, 3))
    mean = torch.as_tensor(np.repeat(programs, 10, axis=1) * rng.uniform(0.2, 3, 30))
    loadings = loadings_of_effects(mean, torch.full_like(mean, 1e-6))
    together = loadings @ loadings.T
    same = np.kron(np.eye(3), np.ones((10, 10))) > 0
    assert float(together[same].min()) > 0.9
    assert float(together[~same].max()) < 0.9
    # Where nothing is known of the effects, nothing is known of what genes have in common.
    unknown = loadings_of_effects(mean, torch.full_like(mean, 1e4))
    assert float((unknown**2).sum(1).max()) < 0.01
