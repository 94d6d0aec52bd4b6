"""The rank-one update on targets against the full covariance."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from raptorgraph.inference._covariances import Dense
from raptorgraph.inference._targets import TARGET_VARIANCE, TargetEffects

C, K, G, CLASSES, LEVELS = 5, 3, 7, 3, 11


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(CLASSES, LEVELS, C, C))
    covariance = root @ root.swapaxes(2, 3) + np.eye(C)
    design = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1]], dtype=float)
    effect, columns = rng.normal(size=(C, G)), np.array([4, -1, 2])
    measured = SimpleNamespace(design=torch.as_tensor(design), target_columns=torch.as_tensor(columns))
    covariances = SimpleNamespace(at=lambda m, level: Dense(torch.as_tensor(covariance[m, level])))
    return covariance, design, effect, TargetEffects.given(torch.as_tensor(effect), measured, covariances)


def test_only_measured_targets_have_an_effect(example):
    found = example[-1]
    assert found.genes.tolist() == [0, 2]
    assert found.columns.tolist() == [4, 2]


def test_posterior_and_evidence_are_those_of_the_full_covariance(example):
    covariance, design, effect, found = example
    evidence = found.log_evidence()
    for m, level in np.ndindex(CLASSES, LEVELS):
        for t, (gene, column) in enumerate(((0, 4), (2, 2))):
            x, y, plain = design[:, gene], effect[:, column], covariance[m, level]
            whole = plain + TARGET_VARIANCE * np.outer(x, x)
            gain = TARGET_VARIANCE * x @ np.linalg.inv(whole)
            assert float(found.mean[m, level, t]) == pytest.approx(gain @ y)
            left = TARGET_VARIANCE - gain @ x * TARGET_VARIANCE
            assert 1 / float(found.precision[m, level, t]) == pytest.approx(left)
            zero = np.zeros(C)
            ratio = multivariate_normal(zero, whole).logpdf(y) - multivariate_normal(zero, plain).logpdf(y)
            assert float(evidence[m, level, t]) == pytest.approx(ratio)


def test_other_sets_hold_the_effect_on_the_target_whole(example):
    covariance, design, effect, found = example
    rng = np.random.default_rng(1)
    asked = np.array([[1.0, 0, 0], [0, 1, 1], [0, 1, 0]])
    cross = rng.normal(size=(CLASSES, LEVELS, len(asked), C))
    for m, level in np.ndindex(CLASSES, LEVELS):
        maps = np.linalg.solve(covariance[m, level], cross[m, level].T)
        loads = found.load(torch.as_tensor(asked), torch.as_tensor(maps), torch.arange(2)).numpy()
        for t, (gene, column) in enumerate(((0, 4), (2, 2))):
            x, part = design[:, gene], TARGET_VARIANCE * np.outer(asked[:, gene], design[:, gene])
            whole = covariance[m, level] + TARGET_VARIANCE * np.outer(x, x)
            expected = (cross[m, level] + part) @ np.linalg.solve(whole, effect[:, column])
            mean = maps.T @ effect[:, column] + loads[:, t] * float(found.mean[m, level, t])
            np.testing.assert_allclose(mean, expected)
            derivative = asked[:, gene] - cross[m, level] @ np.linalg.solve(covariance[m, level], x)
            np.testing.assert_allclose(loads[:, t], derivative)
