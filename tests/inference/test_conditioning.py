"""Posterior moments against the whole model of a gene, conditioned in numpy."""

import numpy as np
import pytest
import torch

from raptorgraph.inference._conditioning import Conditional, Sets

N_DRAWS = 6000

GENES = (0, 5, 9, 17, 399)


def _asked(example):
    """Two measured singles, a measured pair and pairs that were not measured."""
    return np.vstack([example.design[:2], example.design[example.n - 1 : example.n + 3]])


def test_moments_are_those_of_the_whole_model(example, whole_model):
    asked, fitted = _asked(example), example.posterior.fitted
    found = Conditional(fitted).moments(Sets.of(torch.as_tensor(asked), fitted))
    for g in GENES:
        model = whole_model(example.posterior, g)
        mean, covariance, _ = model.moments(lambda klass, model=model: model.asked(asked, klass, residual=True))
        np.testing.assert_allclose(found.mean[:, g], mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.variance[:, g], np.diag(covariance), rtol=1e-6)
        within = model.moments(lambda klass, model=model: model.asked(asked, klass, residual=False))[2]
        np.testing.assert_allclose(found.set_variance[:, g], np.diag(within), rtol=1e-6)


@pytest.mark.parametrize("fraction", [0.5, 0.1])
def test_a_fraction_of_the_noise_shrinks_less(example, whole_model, fraction):
    asked, fitted = _asked(example), example.posterior.fitted
    found = Conditional(fitted, fraction).moments(Sets.of(torch.as_tensor(asked), fitted))
    for g in GENES[:3]:
        model = whole_model(example.posterior, g, fraction)
        mean = model.moments(lambda klass, model=model: model.asked(asked, klass, residual=False))[0]
        np.testing.assert_allclose(found.mean[:, g], mean, rtol=1e-6, atol=1e-9)


def test_the_mean_over_all_sets_of_a_size(example, whole_model):
    asked, fitted = _asked(example)[[0, -1]], example.posterior.fitted
    found = Conditional(fitted).moments(Sets.of(torch.as_tensor(asked), fitted).mean_of_size(fitted)).mean
    for g in GENES[:3]:
        model = whole_model(example.posterior, g)
        mean = model.moments(lambda klass, model=model: model.of_size(asked, klass))[0]
        np.testing.assert_allclose(found[:, g], mean, rtol=1e-6, atol=1e-9)


def _off(values, expected):
    """Difference of the mean of draws (along the first axis) to its expectation, in standard errors."""
    error = values.std(0) / np.sqrt(len(values))
    return np.abs(values.mean(0) - expected) / error


def test_draws_have_the_mean_and_the_covariance_of_the_whole_model(example, whole_model):
    """Two measured singles, their pair and one that was not measured; genes 5 and 9 are targets."""
    asked = np.vstack([example.design[:2], example.design[:1] + example.design[1:2], example.design[-1:]])
    fitted = example.posterior.fitted
    sets = Sets.of(torch.as_tensor(asked), fitted)
    draws = Conditional(fitted).draw(sets, N_DRAWS, torch.Generator().manual_seed(0)).numpy()
    assert draws.shape == (N_DRAWS, 4, 400)
    for g in (0, 5, 9, 399):
        model = whole_model(example.posterior, g)
        mean, covariance, _ = model.moments(lambda klass, model=model: model.asked(asked, klass, residual=False))
        found = draws[:, :, g]
        assert _off(found, mean).max() < 4.5
        products = (found - mean)[:, :, None] * (found - mean)[:, None, :]
        assert _off(products, covariance).max() < 4.5
        assert (_off(products, 1.1 * covariance).diagonal() > 2).all()  # so the test can fail


def test_genes_are_drawn_independently(tiny):
    fitted = tiny.posterior.fitted
    sets = Sets.of(torch.as_tensor(tiny.design[3:]), fitted)
    draws = Conditional(fitted).draw(sets, N_DRAWS, torch.Generator().manual_seed(1))[:, 0].numpy()
    correlation = np.corrcoef(draws.T)[np.triu_indices(12, 1)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(N_DRAWS)
