import numpy as np
import pytest
import torch
from dagma.linear import DagmaLinear
from scipy import stats
from torch.distributions import Normal, kl_divergence

from raptorgraph.nn import (
    acyclicity,
    dagma_loss,
    free_bits,
    kl_standard_normal,
    mk_mmd,
    nb_nll,
    normal_nll,
    shift_nll,
)


def _mmd_by_loops(x, y, fix_sigma=200.0, n_kernels=10, *, biased=False):
    bandwidths = [fix_sigma * 2.0 ** (k - n_kernels // 2) for k in range(n_kernels)]

    def mean_kernel(a, b, skip):
        values = [
            sum(np.exp(-np.sum((p - q) ** 2) / w) for w in bandwidths)
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (skip and i == j)
        ]
        return np.mean(values)

    return mean_kernel(x, x, not biased) + mean_kernel(y, y, not biased) - 2 * mean_kernel(x, y, False)


def _mean_gaussian_kernel(d, distance, bandwidth):
    """E exp(-|x - y|^2 / b) of two standard normals in d dimensions whose means lie a distance apart."""
    return (1 + 4 / bandwidth) ** (-d / 2) * np.exp(-(distance**2) / (bandwidth + 4))


def test_nb_nll_against_scipy():
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.01, 200, size=(40, 8))
    theta = rng.uniform(0.3, 50, size=8)
    x = rng.negative_binomial(theta, theta / (theta + mean)).astype(float)
    x[0] = 0.0
    nll = nb_nll(torch.tensor(x), torch.tensor(mean), torch.tensor(theta))
    assert nll.shape == (40, 8)
    np.testing.assert_allclose(nll.numpy(), -stats.nbinom.logpmf(x, theta, theta / (theta + mean)), rtol=1e-6)


def test_nb_nll_of_a_mean_of_zero_is_finite():
    theta = torch.tensor([2.0])
    mean = torch.zeros(1, requires_grad=True)
    assert nb_nll(torch.zeros(1), mean, theta).item() == pytest.approx(0.0, abs=1e-6)
    nll = nb_nll(torch.ones(1), mean, theta)
    nll.backward()
    # the logarithm of the mean is taken of 1e-10 more; a larger mean explains the count better
    assert nll.item() == pytest.approx(-np.log(1e-10), rel=1e-6)
    assert mean.grad.item() == pytest.approx(-1e10, rel=1e-6)


def test_normal_nll_against_scipy():
    rng = np.random.default_rng(1)
    x, mean, sd = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.uniform(0.1, 4, size=3)
    nll = normal_nll(*(torch.tensor(a) for a in (x, mean, sd)))
    np.testing.assert_allclose(nll.numpy(), -stats.norm.logpdf(x, mean, sd), rtol=1e-10)


def test_kl_against_torch_distributions():
    mean = torch.randn(6, 4, dtype=torch.float64)
    log_var = torch.randn(6, 4, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(torch.zeros_like(mean), 1.0))
    torch.testing.assert_close(kl_standard_normal(mean, log_var), expected)
    assert kl_standard_normal(torch.zeros(1), torch.zeros(1)).item() == 0.0


def test_free_bits_floor_the_mean_of_each_latent():
    kl = torch.tensor([[0.0, 1.0, 0.3], [0.2, 3.0, 0.1]], requires_grad=True)
    value = free_bits(kl, 0.15)
    assert value.item() == pytest.approx(0.15 + 2.0 + 0.2)
    value.backward()
    # a latent under the floor is not pushed further
    torch.testing.assert_close(kl.grad, torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]))
    assert free_bits(kl, 0.0).item() == pytest.approx(kl.mean(0).sum().item())


@pytest.mark.parametrize("kernels", [{}, {"fix_sigma": 3.0, "n_kernels": 5}, {"fix_sigma": 7.0, "n_kernels": 1}])
def test_mk_mmd_against_loops(kernels):
    x = torch.randn(9, 5, dtype=torch.float64)
    y = 1.5 * torch.randn(6, 5, dtype=torch.float64) + 0.5
    value = mk_mmd(x, y, **kernels).item()
    assert value == pytest.approx(_mmd_by_loops(x.numpy(), y.numpy(), **kernels), abs=1e-10)
    assert value == pytest.approx(mk_mmd(y, x, **kernels).item(), abs=1e-12)
    assert abs(value - _mmd_by_loops(x.numpy(), y.numpy(), **kernels, biased=True)) > 1e-3


@pytest.mark.parametrize("distance", [0.0, 1.5])
def test_mk_mmd_is_unbiased(distance):
    d, n, m, n_draws = 4, 6, 8, 1500
    shift = torch.zeros(d, dtype=torch.float64)
    shift[0] = distance
    values = []
    for _ in range(n_draws):
        x, y = torch.randn(n, d, dtype=torch.float64), torch.randn(m, d, dtype=torch.float64) + shift
        values.append(mk_mmd(x, y, fix_sigma=8.0, n_kernels=4).item())
    # 0 for equal distributions
    expected = sum(
        2 * (_mean_gaussian_kernel(d, 0, b) - _mean_gaussian_kernel(d, distance, b)) for b in (2.0, 4.0, 8.0, 16.0)
    )
    error = np.std(values) / np.sqrt(n_draws)
    assert abs(np.mean(values) - expected) < 4 * error
    # the biased estimator keeps the diagonal; its excess would show
    excess = sum((1 - _mean_gaussian_kernel(d, 0, b)) * (1 / n + 1 / m) for b in (2.0, 4.0, 8.0, 16.0))
    assert excess > 20 * error
    if distance == 0:
        assert min(values) < 0


def test_mk_mmd_of_far_samples_reaches_two_for_each_kernel():
    x = torch.full((3, 2), 0.0, dtype=torch.float64)
    assert mk_mmd(x, x + 1e4, n_kernels=7).item() == pytest.approx(14.0)


def test_mk_mmd_gradient():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: mk_mmd(v, y, fix_sigma=4.0, n_kernels=4), (x,))


@pytest.mark.parametrize("n", [(1, 4), (4, 1)])
def test_mk_mmd_needs_two_cells(n):
    with pytest.raises(ValueError, match=f"two cells on each side, got {n[0]} and {n[1]}"):
        mk_mmd(torch.zeros(n[0], 3), torch.zeros(n[1], 3))


def test_shift_nll_is_the_normal_likelihood_up_to_a_constant():
    rng = np.random.default_rng(2)
    predicted, measured = rng.normal(size=(2, 4, 7))
    variance = rng.uniform(0.1, 2.0, size=(4, 7))

    def likelihood(p):
        return -stats.norm.logpdf(measured, p, np.sqrt(variance)).mean()

    value = shift_nll(*(torch.tensor(a) for a in (predicted, measured, variance)))
    assert value.shape == ()
    assert value.item() == pytest.approx(likelihood(predicted) - likelihood(measured))


def test_dagma_loss_against_dagma():
    rng = np.random.default_rng(3)
    z, weight = rng.normal(size=(30, 5)), rng.normal(scale=0.3, size=(5, 5))
    np.fill_diagonal(weight, 0.0)
    reference = DagmaLinear("l2")
    reference.d, reference.Id, reference.lambda1 = 5, np.eye(5), 0.052
    reference.cov = z.T @ z / len(z)
    expected, _, h = reference._func(weight, 0.27)
    value = dagma_loss(torch.tensor(z), torch.tensor(weight), mu=0.27, lambda1=0.052)
    assert value.item() == pytest.approx(expected)
    without_score = dagma_loss(torch.tensor(z), torch.tensor(weight), mu=0.0, lambda1=0.052)
    assert without_score.item() == pytest.approx(h) == acyclicity(torch.tensor(weight)).item()


def test_dagma_loss_does_not_grow_with_the_cells():
    z = torch.randn(20, 4, dtype=torch.float64)
    weight = 0.2 * torch.randn(4, 4, dtype=torch.float64)
    once = dagma_loss(z, weight, mu=1.0, lambda1=0.1)
    torch.testing.assert_close(dagma_loss(torch.cat([z, z, z]), weight, mu=1.0, lambda1=0.1), once)
