import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from raptorgraph.inference._mixture import LEVELS, GeneMixture

C, G = 6, 9


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, C, 3))
    signals = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(C)
    noise = np.diag(rng.uniform(0.5, 2, C)) + 0.3
    weights = np.log(rng.dirichlet(np.ones(2 * len(LEVELS))).reshape(2, -1, 1))
    return signals, noise, weights, 2 * rng.normal(size=(C, G))


def _tensors(*arrays):
    return [torch.as_tensor(x) for x in arrays]


def test_density_and_probabilities_are_scipys(example):
    signals, noise, weights, y = example
    expected = np.array(
        [
            [
                multivariate_normal(cov=level * signal + noise).logpdf(y.T) + weight + C / 2 * np.log(2 * np.pi)
                for level, weight in zip(LEVELS.numpy(), row, strict=True)
            ]
            for signal, row in zip(signals, weights, strict=True)
        ]
    )
    mixture = GeneMixture(*_tensors(signals, noise, weights))
    np.testing.assert_allclose(mixture.log_density(torch.as_tensor(y)), expected, rtol=1e-9, atol=1e-9)
    _, value = mixture.objective(torch.as_tensor(y))
    assert value == pytest.approx(logsumexp(expected, axis=(0, 1)).sum())


@pytest.mark.parametrize("equal", [False, True], ids=["distinct eigenvalues", "equal eigenvalues"])
def test_gradient_is_that_of_the_evidence(example, equal):
    """Against automatic differentiation of the densities by Cholesky factors."""
    signals, noise, weights, y = _tensors(*example)
    if equal:
        signals[1] = noise = torch.eye(C, dtype=torch.float64)
    given = [x.clone().requires_grad_() for x in (signals, noise, weights)]
    GeneMixture(*given).objective(y)[0].backward()
    plain = [x.clone().requires_grad_() for x in (signals, noise, weights)]
    factor = torch.linalg.cholesky(LEVELS[:, None, None] * plain[0][:, None] + plain[1])
    white = torch.linalg.solve_triangular(factor, y.expand(2, len(LEVELS), -1, -1), upper=False)
    log_det = factor.diagonal(dim1=2, dim2=3).log().sum(2)
    density = plain[2] - 0.5 * (white**2).sum(2) - log_det[:, :, None]
    torch.logsumexp(density.flatten(0, 1), 0).sum().backward()
    for found, expected in zip(given, plain, strict=True):
        expected = expected.grad
        # A covariance is symmetric: what counts is the symmetric part.
        if expected.shape[-1] == C:
            expected = 0.5 * (expected + expected.mT)
        np.testing.assert_allclose(found.grad, expected, rtol=1e-8, atol=1e-9)
