"""Likelihood of cells for training, against `nb_nll` and scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.nn import NegativeBinomial, Normal, SquaredError, _count_nll, nb_nll
from raptorgraph.nn._count_nll import count_nll

HIGHEST = 2.0
THETAS = [0.05, 0.4, 3.0, 50.0, 1e4]
COUNTS = {  # genes of counts up to 16 take another path than those with others
    "tabulated": [0.0, 1.0, 2.0, 5.0, 15.0, 16.0],
    "large": [0.0, 1.0, 16.0, 17.0, 40.0, 1e3, 1e5],
    "not integers": [0.0, 0.25, 1.0, 2.5, 13.7],
}


def one_gene(counts, dtype):
    """Cells of all counts, log rates and library sizes: counts, log rate and library size, cells x 1 each."""
    means = torch.logspace(-3, 5.2, 15, dtype=torch.float64)
    grid = torch.meshgrid(torch.tensor(counts).double(), means, torch.tensor([200.0, 5e3, 1e6]).double(), indexing="ij")
    counts, mean, library = (x.reshape(-1, 1) for x in grid)
    log_rate = torch.log(mean / library)
    inside = log_rate[:, 0] < HIGHEST
    return tuple(x[inside].to(dtype) for x in (counts, log_rate, library))


def derivatives(nll_of, log_rate, log_theta):
    """Value, and derivatives of a weighted sum over cells in log rate and log theta."""
    log_rate, log_theta = log_rate.clone().requires_grad_(), log_theta.clone().requires_grad_()
    nll = nll_of(log_rate, log_theta)
    weights = torch.linspace(0.1, 1.0, len(nll), dtype=nll.dtype)
    return nll.detach(), *torch.autograd.grad(nll @ weights, [log_rate, log_theta])


def fast(counts, library):
    return lambda log_rate, log_theta: count_nll(counts, log_rate, log_theta, library, highest=HIGHEST)


def by_autograd(counts, library):
    def nll(log_rate, log_theta):
        return nb_nll(counts, library * log_rate.clamp(max=HIGHEST).exp(), log_theta.exp()).sum(1)

    return nll


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("theta", THETAS)
def test_value_and_gradients_are_those_of_nb_nll(kind, theta):
    counts, log_rate, library = one_gene(COUNTS[kind], torch.float64)
    log_theta = torch.tensor([theta], dtype=torch.float64).log()
    found = derivatives(fast(counts, library), log_rate, log_theta)
    expected = derivatives(by_autograd(counts, library), log_rate, log_theta)
    # nb_nll adds 1e-10 to means, of which the smallest is 1e-3
    torch.testing.assert_close(found[0], expected[0], rtol=1e-7, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[2], expected[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("theta", THETAS)
def test_single_precision_loses_no_more_than_rounding(kind, theta):
    single = one_gene(COUNTS[kind], torch.float32)
    log_theta = torch.tensor([theta], dtype=torch.float32).log()
    counts, log_rate, library = (x.double() for x in single)  # the same numbers, computed with more digits
    expected = derivatives(by_autograd(counts, library), log_rate, log_theta.double())
    found = derivatives(fast(single[0], single[2]), single[1], log_theta)
    assert {x.dtype for x in found} == {torch.float32}
    # each is a difference of terms of this size
    mean, theta = library * log_rate.exp(), log_theta.double().exp()
    of_slope = theta * mean / (theta + mean) + counts * theta / (theta + mean)
    of_value = (counts + theta) * (1.0 + torch.log1p(mean / theta)) + torch.lgamma(counts + theta).abs()
    assert ((found[0].double() - expected[0]).abs() < 2e-6 * (of_value[:, 0] + 1.0)).all()
    weights = torch.linspace(0.1, 1.0, len(counts), dtype=torch.float64)[:, None]
    assert ((found[1].double() - expected[1]).abs() < 1e-5 * weights * of_slope).all()
    of_theta = (weights * (counts + theta * torch.log1p(mean / theta))).sum(0)
    assert ((found[2].double() - expected[2]).abs() < 1e-5 * of_theta).all()


def test_cells_are_sums_over_genes_of_scipys_probabilities():
    rng = np.random.default_rng(0)
    theta, library = np.exp(rng.normal(size=40)), np.exp(rng.normal(8, 1, size=(6, 1)))
    log_rate = rng.normal(-7, 2, size=(6, 40)).clip(max=HIGHEST)
    nb = stats.nbinom(theta, theta / (theta + library * np.exp(log_rate)))
    counts = nb.rvs(size=(6, 40), random_state=rng)
    assert (counts.max(0) > 16).any()
    assert (counts.max(0) <= 16).any()
    found = count_nll(*(torch.as_tensor(x) for x in (counts, log_rate, np.log(theta), library)), highest=HIGHEST)
    np.testing.assert_allclose(found, -nb.logpmf(counts).sum(1), rtol=1e-10)


def test_gradient_against_finite_differences():
    counts = torch.tensor([[0.0, 3.0, 20.0], [1.0, 0.0, 2.0]], dtype=torch.float64)
    log_rate = torch.tensor([[-7.0, -6.0, -5.0], [-8.0, -9.0, -6.0]], dtype=torch.float64, requires_grad=True)
    log_theta = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    library = torch.tensor([[800.0], [3e3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(fast(counts, library), (log_rate, log_theta))


def test_rates_above_the_highest_count_as_the_highest():
    counts, library = torch.full((3, 1), 4.0), torch.full((3, 1), 10.0)
    log_rate = torch.tensor([[1.9], [2.0], [30.0]], requires_grad=True)
    log_theta = torch.zeros(1, requires_grad=True)
    nll = fast(counts, library)(log_rate, log_theta)
    (slope,) = torch.autograd.grad(nll.sum(), log_rate)
    assert nll[2] == nll[1]
    assert slope[2] == 0
    assert (slope[:2] > 0.5).all()


def test_vanishing_rates_stay_finite():
    counts, library = torch.tensor([[0.0], [2.0]]), torch.full((2, 1), 1e3)
    log_rate = torch.full((2, 1), -90.0, requires_grad=True)
    nll = fast(counts, library)(log_rate, torch.zeros(1))
    (slope,) = torch.autograd.grad(nll.sum(), log_rate)
    # the probability of two molecules is mean^2 at theta = 1
    np.testing.assert_allclose(nll.detach(), [0.0, -2 * (np.log(1e3) - 90)], rtol=1e-6, atol=1e-30)
    assert slope.flatten().tolist() == pytest.approx([0.0, -2.0], abs=1e-30)


def test_a_gene_whose_values_are_no_numbers_says_so():
    counts, library = torch.tensor([[float("nan"), 1.0], [0.0, 1.0]]), torch.full((2, 1), 1e3)
    nll = fast(counts, library)(torch.full((2, 2), -7.0), torch.zeros(2))
    assert nll.isnan().tolist() == [True, False]


@pytest.mark.parametrize("block", [1, 30, 10**6])
def test_any_block_gives_the_same(monkeypatch, block):
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.full((7, 13), 6.0), generator=generator)
    counts[:, 5:] = 0.0
    counts[2, 3], counts[4, 1] = 50.0, 0.5
    log_rate = -6 + torch.randn(7, 13, generator=generator)
    log_rate[1, 2] = 3.0
    args = (fast(counts, torch.full((7, 1), 900.0)), log_rate, torch.linspace(-1, 3, 13))
    expected = derivatives(*args)
    monkeypatch.setattr(_count_nll, "_BLOCK", block)
    for found, value in zip(derivatives(*args), expected, strict=True):
        torch.testing.assert_close(found, value)


def test_log_gammas_are_taken_of_large_counts_alone(monkeypatch):
    """Once for each gene, and for each count above 16 or between integers; zeros are not even looked up."""
    counts = torch.tensor([[0.0, 3.0, 17.0, 0.0], [0.0, 16.0, 2.0, 2.5], [0.0, 0.0, 40.0, 1.0]])
    taken = {"lgamma": 0, "digamma": 0}

    def counted(name, compute):
        def counting(x):
            taken[name] += x.numel()
            return compute(x)

        return counting

    for name in taken:
        monkeypatch.setattr(torch, name, counted(name, getattr(torch, name)))
    log_theta = torch.zeros(4, requires_grad=True)
    fast(counts, torch.full((3, 1), 900.0))(torch.full((3, 4), -6.0), log_theta)
    assert taken == {"lgamma": 4 + 2 * 3, "digamma": 2 * 3}


def test_the_likelihood_of_counts_uses_it():
    nb = NegativeBinomial(3).double()
    with torch.no_grad():
        nb.log_scale.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    decoded = torch.tensor([[-6.0, -7.0, 2.5], [-5.0, -8.0, -3.0]], dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([[3.0, 0.0, 9e3], [0.0, 2.0, 40.0]], dtype=torch.float64)
    library = torch.tensor([[900.0], [1500.0]])
    leaves = [decoded, nb.log_scale]
    found = nb.training_nll(counts, decoded, library)
    expected = nb.nll(counts, nb.location(decoded, library)).sum(1)
    assert found.shape == (2,)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="needs the library sizes"):
        nb.training_nll(counts, decoded, None)


def test_a_scale_that_is_not_learned_gets_no_gradient():
    nb = NegativeBinomial(2, learn_scale=False)
    decoded = torch.full((1, 2), -6.0, requires_grad=True)
    nb.training_nll(torch.ones(1, 2), decoded, torch.full((1, 1), 1e3)).sum().backward()
    assert nb.log_scale.grad is None
    assert (decoded.grad != 0).all()


@pytest.mark.parametrize("kind", [Normal, SquaredError])
def test_on_the_expression_scale_it_is_the_sum_over_genes(kind):
    likelihood, x, decoded = kind(2), torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0, 2.0]])
    constant = 0.5 * np.log(2 * np.pi) * 2
    expected = 1.0 + 2.25 if kind is SquaredError else 0.5 * (1.0 + 2.25) + constant
    assert likelihood.training_nll(x, decoded, None).tolist() == pytest.approx([expected])
