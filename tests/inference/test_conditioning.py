"""Posterior moments against the whole model of a gene, conditioned in numpy."""

import numpy as np
import pytest
import torch

from raptorgraph.inference._conditioning import Conditional, Sets

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
    sets, at = Sets.of(torch.as_tensor(asked), fitted).means_of_sizes(fitted)
    found = Conditional(fitted).moments(sets).mean[at]
    for g in GENES[:3]:
        model = whole_model(example.posterior, g)
        mean = model.moments(lambda klass, model=model: model.of_size(asked, klass))[0]
        np.testing.assert_allclose(found[:, g], mean, rtol=1e-6, atol=1e-9)
