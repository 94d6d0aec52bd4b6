"""Closed forms of one gene's contrasts, against the joint normal distribution that they come from."""

import numpy as np
import pytest
from scipy import stats

from raptorgraph.inference._group_contrasts import LEVELS, SCALES, Contrasts, ScaleEvidence, scale_posterior

S, G = 3, 4
TAIL = 10.0


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    effect, variance = rng.normal(size=(S, G)), rng.uniform(0.05, 0.3, (S, G))
    center, spread, unit = rng.normal(size=G), rng.uniform(0.05, 0.2, G), rng.uniform(0.5, 2, G)
    return effect, variance, center, spread, np.array([1.6, 0.1, 1.2]), unit, np.array([20, 5, 8])


def joint(example, level, gene):
    """Moments of (mu, eps, y) of one gene at one level, and the contrasts of y as a matrix."""
    _, variance, center, spread, a, unit, n = example
    t = LEVELS[level] * unit[gene]
    v = variance[:, gene] * (1 + (level == len(LEVELS) - 1) * TAIL / n)
    load = np.column_stack([a, np.eye(S)])  # y = a mu + eps + error
    prior = np.diag([spread[gene], *[t] * S])
    mean = np.array([center[gene], *[0.0] * S])
    helmert = np.linalg.svd(np.eye(S) - 1 / S)[0][:, : S - 1].T
    return load, prior, mean, v, helmert


def log_normal(example, level, gene):
    load, prior, mean, v, helmert = joint(example, level, gene)
    covariance = helmert @ (load @ prior @ load.T + np.diag(v)) @ helmert.T
    return stats.multivariate_normal(helmert @ load @ mean, covariance).logpdf(helmert @ example[0][:, gene])


def test_density_is_that_of_the_contrasts(example):
    found = Contrasts(*example).log_density()
    expected = np.array([[log_normal(example, level, gene) for gene in range(G)] for level in range(len(LEVELS))])
    # a constant is left out: that of the density, and of the choice of contrasts
    np.testing.assert_allclose(found - found[0, 0], expected - expected[0, 0], rtol=1e-10)


def test_responsibilities_are_bayes_rule(example):
    weights = np.random.default_rng(1).dirichlet(np.ones(len(LEVELS)), G).T
    found = Contrasts(*example).responsibility(np.log(weights))
    density = np.array([[log_normal(example, level, gene) for gene in range(G)] for level in range(len(LEVELS))])
    expected = np.exp(density) * weights
    np.testing.assert_allclose(found, expected / expected.sum(0), rtol=1e-8)


def test_moments_are_those_of_the_conditional_distribution(example):
    shares = np.array([0.5, 0.2, 0.3])
    rng = np.random.default_rng(2)
    responsibility = rng.dirichlet(np.ones(len(LEVELS)), G).T
    found = Contrasts(*example).moments(responsibility, shares)
    a = example[4]
    to_effects = np.column_stack([a, np.eye(S) - np.outer(np.ones(S), shares)])  # a mu + eps less its mean over cells
    for gene in range(G):
        means, variances, commons = [], [], []
        for level in range(len(LEVELS)):
            load, prior, mean, v, helmert = joint(example, level, gene)
            cross = prior @ load.T @ helmert.T
            gain = cross @ np.linalg.inv(helmert @ (load @ prior @ load.T + np.diag(v)) @ helmert.T)
            after = mean + gain @ helmert @ (example[0][:, gene] - load @ mean)
            covariance = prior - gain @ cross.T
            means.append(to_effects @ after)
            variances.append(np.diag(to_effects @ covariance @ to_effects.T))
            commons.append(after[0])
        r, means = responsibility[:, gene], np.array(means)
        np.testing.assert_allclose(found.mean[:, gene], r @ means, rtol=1e-8)
        expected = r @ np.array(variances) + r @ (means - r @ means) ** 2
        np.testing.assert_allclose(found.variance[:, gene], expected, rtol=1e-7)
        np.testing.assert_allclose(found.common[gene], r @ commons, rtol=1e-8)


def test_scales_are_a_regression_of_the_contrasts_on_the_common_effect(example):
    probability = np.zeros((len(LEVELS), G))
    probability[2] = 1.0
    found = Contrasts(*example).scale_evidence(probability, 3.0)
    precision, data, once, inflated = np.zeros((S, S)), np.zeros(S), 0.0, 0.0
    for gene in range(G):
        load, prior, _, v, helmert = joint(example, 2, gene)
        inverse = helmert.T @ np.linalg.inv(helmert @ (load @ prior @ load.T + np.diag(v)) @ helmert.T) @ helmert
        precision += example[2][gene] ** 2 * inverse
        data += example[2][gene] * inverse @ example[0][:, gene]
        # the variance of a weighted sum of effects when the errors, but not the remainders, have it three times
        t = prior[1, 1]
        once += example[2][gene] ** 2 * (1 / (t + v)).sum()
        inflated += example[2][gene] ** 2 * ((t + 3 * v) / (t + v) ** 2).sum()
    np.testing.assert_allclose(found.precision, once / inflated * precision, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.data, once / inflated * data, rtol=1e-8)


def test_a_network_is_a_regression_of_what_is_left(example):
    direction = np.random.default_rng(3).normal(size=(S, G))
    responsibility = np.zeros((len(LEVELS), G))
    responsibility[1] = 1.0
    score, information = Contrasts(*example).slope(direction, responsibility)
    expected = np.zeros(2)
    for gene in range(G):
        load, prior, mean, v, helmert = joint(example, 1, gene)
        inverse = helmert.T @ np.linalg.inv(helmert @ (load @ prior @ load.T + np.diag(v)) @ helmert.T) @ helmert
        d = direction[:, gene]
        expected += d @ inverse @ (example[0][:, gene] - load @ mean), d @ inverse @ d
    np.testing.assert_allclose([score, information], expected, rtol=1e-8)


def test_posterior_of_the_scales():
    shares, weights = np.array([0.6, 0.4]), np.array([0.4, 0.3, 0.2, 0.1])
    contrast = np.array([1.0, -1.0])
    truth, sd = 0.9, 0.2  # measured difference of the scales, and its error
    evidence = ScaleEvidence(np.outer(contrast, contrast) / sd**2, contrast * truth / sd**2)
    found = scale_posterior(evidence, weights, shares)
    # the difference of two scales has twice the prior variance of one
    density = weights * stats.norm(0, np.sqrt(2 * SCALES + sd**2)).pdf(truth)
    np.testing.assert_allclose(found.probability, density / density.sum(), rtol=1e-8)
    kept = 2 * SCALES / (2 * SCALES + sd**2)
    difference = found.probability @ (kept * truth)
    np.testing.assert_allclose(found.mean, difference * np.array([0.4, -0.6]), rtol=1e-8)
    second = found.probability @ (kept * sd**2 + (kept * truth) ** 2) - difference**2
    np.testing.assert_allclose(contrast @ found.covariance @ contrast, second, rtol=1e-8)
    np.testing.assert_allclose(shares @ found.covariance, 0, atol=1e-12)
    draws = found.draw(20_000, np.random.default_rng(0))
    np.testing.assert_allclose(draws @ shares, 0, atol=1e-6)
    np.testing.assert_allclose(draws.mean(0), found.mean, atol=0.01)
    np.testing.assert_allclose(np.cov(draws.T), found.covariance, rtol=0.05, atol=1e-3)


def test_groups_without_cells_say_nothing(example):
    effect, variance, center, spread, a, unit, n = example
    empty = variance.copy()
    empty[1] = np.inf
    n = np.where(np.arange(S) == 1, 0, n)
    found = Contrasts(effect, empty, center, spread, a, unit, n)
    other = effect.copy()
    other[1] = 77.0
    same = Contrasts(other, empty, center, spread, a, unit, n)
    without = [0, 2]
    fewer = Contrasts(effect[without], variance[without], center, spread, a[without], unit, n[without])
    np.testing.assert_allclose(found.log_density(), fewer.log_density())
    np.testing.assert_allclose(found.log_density(), same.log_density())
    responsibility = fewer.responsibility(np.zeros((len(LEVELS), G)))
    moments = found.moments(responsibility, np.array([0.6, 0.0, 0.4]))
    few = fewer.moments(responsibility, np.array([0.6, 0.4]))
    np.testing.assert_allclose(moments.mean[without], few.mean)
    np.testing.assert_allclose(moments.variance[without], few.variance)
    # there the effect is the common one times the scale, and its remainder is free
    free = (responsibility * LEVELS[:, None] * unit).sum(0)
    assert (moments.variance[1] > free).all()
