import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.nn import expected_log1p_nb

MEANS = [1e-6, 1e-3, 0.1, 1.0, 30.0, 3000.0]
THETAS = [0.3, 2.0, 50.0]
SCALES = [0.1, 1.0, 20.0]


def _support(shape, p):
    return np.arange(int(stats.nbinom.isf(1e-13, shape, p)) + 2)


@pytest.fixture(scope="module")
def grid():
    """Mean, inverse dispersion, scale, and value and slope in the mean from sums over the counts."""
    rows = []
    for mean, theta in itertools.product(MEANS, THETAS):
        p = theta / (theta + mean)
        x = _support(theta, p)
        pmf = stats.nbinom.pmf(x, theta, p)
        # d/d mean E f(X) = E[f(Y + 1) - f(Y)] with Y of shape theta + 1 and the same p
        y = _support(theta + 1, p)
        slope_pmf = stats.nbinom.pmf(y, theta + 1, p)
        for s in SCALES:
            value = pmf @ np.log1p(s * x)
            slope = slope_pmf @ (np.log1p(s * (y + 1.0)) - np.log1p(s * y))
            rows.append((mean, theta, s, value, slope))
    return torch.tensor(rows, dtype=torch.float64).T


def test_value_is_the_sum_over_counts(grid):
    mean, theta, s, value, _ = grid
    torch.testing.assert_close(expected_log1p_nb(mean, theta, s), value, atol=1e-5, rtol=0)


def test_coarse_nodes_are_good_to_a_few_thousandths(grid):
    mean, theta, s, value, _ = grid
    # the geometric tail needs s * mean * exp(lower) far below 1
    inside = s * mean * np.exp(-13.0) < 0.02
    assert inside.sum() >= 45
    coarse = expected_log1p_nb(mean, theta, s, step=1.3, lower=-13.0)
    torch.testing.assert_close(coarse[inside], value[inside], atol=3e-3, rtol=0)


def test_slope_in_the_mean_is_the_sum_over_counts(grid):
    mean, theta, s, _, slope = grid
    mean = mean.clone().requires_grad_()
    expected_log1p_nb(mean, theta, s).sum().backward()
    torch.testing.assert_close(mean.grad, slope, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("nodes", [{}, {"step": 1.3, "lower": -13.0}])
def test_gradcheck_with_broadcasting(nodes):
    mean = torch.tensor([[0.2], [1.5], [40.0]], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.5, 4.0], dtype=torch.float64)
    s = torch.tensor([[1.3]], dtype=torch.float64)
    assert expected_log1p_nb(mean, theta, s, **nodes).shape == (3, 2)
    assert torch.autograd.gradcheck(lambda m: expected_log1p_nb(m, theta, s, **nodes), (mean,))


def test_single_precision_agrees(grid):
    mean, theta, s, value, _ = grid
    single = expected_log1p_nb(mean.float(), theta.float(), s.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), value, atol=2e-5, rtol=1e-5)


def test_poisson_limit():
    mean = 3.0
    x = np.arange(80)
    expected = stats.poisson.pmf(x, mean) @ np.log1p(2.0 * x)
    value = expected_log1p_nb(*torch.tensor([mean, 1e8, 2.0], dtype=torch.float64))
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_zero_mean_has_value_zero_and_the_slope_of_one_count():
    mean = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    s = torch.tensor([5.0], dtype=torch.float64)
    value = expected_log1p_nb(mean, torch.ones_like(s), s)
    value.backward()
    # Y of shape 2 and mean 0 is always 0
    assert value.item() == 0.0
    assert mean.grad.item() == pytest.approx(np.log(6.0), abs=1e-5)


def test_jensen_gap():
    mean = torch.tensor([0.5, 5.0, 500.0], dtype=torch.float64)
    value = expected_log1p_nb(mean, torch.full_like(mean, 0.3), torch.ones_like(mean))
    assert (value < torch.log1p(mean)).all()
