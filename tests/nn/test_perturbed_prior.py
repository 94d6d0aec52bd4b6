"""Divergence from the prior of perturbed cells against quadrature, and against the bound that it is the best of."""

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

from raptorgraph.nn import ConditionalModulator, PerturbedPrior, kl_standard_normal

MEAN = torch.tensor([[1.9, -0.3, 0.7], [0.2, 2.4, -1.0], [3.1, 0.0, 0.4]], dtype=torch.float64)
LOG_VAR = torch.tensor([[-1.0, 0.2, -0.5], [-0.3, -2.0, 0.0], [0.1, -0.7, -1.2]], dtype=torch.float64)
Z = torch.tensor([[2.0, -0.1, 0.6], [0.1, 2.2, -1.3], [2.5, 0.3, 0.4]], dtype=torch.float64)
MASK = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def modulator():
    module = ConditionalModulator(3, 2, init=2.0).double()
    with torch.no_grad():
        module.state_weight.copy_(torch.tensor([[0.8], [-1.1]]))
        module.log_spread.copy_(torch.tensor([-0.3, 0.2]))
        module.log_combination.fill_(np.log(0.9))
    return module


def prior(*logits):
    module = PerturbedPrior(2).double()
    with torch.no_grad():
        module.escape_logit.copy_(torch.tensor(logits))
    return module


def divergence(mean, log_var, density):
    """KL of a normal distribution from a density, by adaptive quadrature."""
    q = stats.norm(mean, np.exp(log_var / 2))
    return integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - density(z)), *q.interval(1 - 1e-13), epsabs=1e-10)[0]


def components(modulator, i, g):
    """Both components of the prior of the own latent g in cell i, as in the class's formula."""
    shift = modulator.shift(Z, MASK)[i, g].item()
    return stats.norm(shift, modulator.spread()[g].item()), stats.norm()


def test_starts_with_the_escape_asked_for():
    np.testing.assert_allclose(PerturbedPrior(3, escape=0.2).escape_logit.sigmoid().detach(), 0.2, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("logit", "which"), [(-60.0, 0), (60.0, 1)])
def test_pure_components_are_those_of_quadrature(modulator, logit, which):
    """With no escape the perturbed component, with certain escape the standard normal."""
    found = prior(logit, logit).kl(MEAN, LOG_VAR, Z, MASK, modulator)
    for i, g in MASK.nonzero().tolist():
        density = components(modulator, i, g)[which].logpdf
        assert found[i, g].item() == pytest.approx(
            divergence(MEAN[i, g].item(), LOG_VAR[i, g].item(), density), abs=1e-7
        )


@torch.no_grad()
def test_the_mixture_is_the_best_of_the_bound_over_escape(modulator):
    """And lies above the divergence from the mixture itself, and below that of either component with its price."""
    logits = (-1.2, 0.4)
    found = prior(*logits).kl(MEAN, LOG_VAR, Z, MASK, modulator)
    for i, g in MASK.nonzero().tolist():
        escape = 1 / (1 + np.exp(-logits[g]))
        mean, log_var = MEAN[i, g].item(), LOG_VAR[i, g].item()
        parts = components(modulator, i, g)
        shifted, none = (divergence(mean, log_var, part.logpdf) for part in parts)

        def bound(r, shifted=shifted, none=none, escape=escape):
            price = r * np.log(r / escape) + (1 - r) * np.log((1 - r) / (1 - escape))
            return r * none + (1 - r) * shifted + price

        best = optimize.minimize_scalar(bound, bounds=(1e-9, 1 - 1e-9), method="bounded", options={"xatol": 1e-10}).fun
        assert found[i, g].item() == pytest.approx(best, abs=1e-6)
        exact = divergence(mean, log_var, lambda z, e=escape, p=parts: np.log((1 - e) * p[0].pdf(z) + e * p[1].pdf(z)))
        assert exact - 1e-9 < found[i, g].item()
        assert found[i, g].item() < min(shifted - np.log(1 - escape), none - np.log(escape))


@torch.no_grad()
def test_latents_that_are_not_perturbed_have_a_standard_normal_prior(modulator):
    found, plain = prior(-2.0, -2.0).kl(MEAN, LOG_VAR, Z, MASK, modulator), kl_standard_normal(MEAN, LOG_VAR)
    free = torch.cat([MASK == 0, torch.ones(3, 1, dtype=torch.bool)], dim=1)
    assert torch.equal(found[free], plain[free])
    assert (found != plain)[~free].all()
    assert torch.equal(prior(-2.0, -2.0).kl(MEAN, LOG_VAR, Z, torch.zeros_like(MASK), modulator), plain)


def test_the_gradient_of_escape_is_its_share_beyond_the_prior(modulator):
    r"""d KL / d logit = :math:`\pi - r`, with r the probability that the cell escaped, given its latent."""
    module = prior(-1.2, 0.4)
    module.kl(MEAN, LOG_VAR, Z, MASK, modulator).sum().backward()
    expected = np.zeros(2)
    for i, g in MASK.nonzero().tolist():
        escape = 1 / (1 + np.exp([1.2, -0.4][g]))
        shifted, none = (
            divergence(MEAN[i, g].item(), LOG_VAR[i, g].item(), part.logpdf) for part in components(modulator, i, g)
        )
        weight = np.array([(1 - escape) * np.exp(-shifted), escape * np.exp(-none)])
        expected[g] += escape - weight[1] / weight.sum()
    np.testing.assert_allclose(module.escape_logit.grad, expected, atol=1e-7)
