"""Mean expression for training, against the quadrature and sums over counts."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.nn import NegativeBinomial, Normal, SquaredError, _mean_expression, expected_log1p_nb
from raptorgraph.nn._mean_expression import mean_expression_nb

HIGHEST = 2.0


def approximate(log_rate, theta, library, target_sum=1e4):
    return mean_expression_nb(log_rate, theta, library, target_sum=target_sum, highest=HIGHEST)


def errors(dtype, target_sum, library_sizes, thetas=(0.05, 1e4)):
    """Largest absolute error of values and relative error of gradients, for log mean counts from -14 to 9."""
    log_mean = torch.linspace(-14, 9, 40, dtype=torch.float64)[:, None, None]
    sizes = torch.logspace(*np.log10(library_sizes), 13, dtype=torch.float64)[:, None]
    theta = torch.logspace(*np.log10(thetas), 17, dtype=torch.float64)
    log_rate = (log_mean - sizes.log()).expand(-1, -1, len(theta)).to(dtype)
    mean = (sizes * log_rate.double().exp()).requires_grad_()
    exact = expected_log1p_nb(mean, theta, target_sum / sizes)
    (slope,) = torch.autograd.grad(exact.sum(), mean)
    slope = slope * mean.detach()
    # each cell alone, so that nothing averages out
    alone = log_rate.transpose(0, 1)[:, :, None].clone().requires_grad_()
    parts = [
        approximate(x, theta.to(dtype), size[None].to(dtype), target_sum) for x, size in zip(alone, sizes, strict=True)
    ]
    found = torch.stack(parts, 1)
    assert found.dtype == dtype
    (found_slope,) = torch.autograd.grad(found.sum(), alone)
    found_slope = found_slope[:, :, 0].transpose(0, 1)
    inside = log_rate < HIGHEST
    assert inside.double().mean() > 0.75
    return (found - exact).abs()[inside].max().item(), (found_slope / slope - 1).abs()[inside].max().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_error_is_bounded_for_all_counts(dtype):
    of_value, of_slope = errors(dtype, 1e4, (200.0, 1e6))
    assert of_value < 1e-3
    assert of_slope < 5e-3


@pytest.mark.parametrize(
    ("target_sum", "library_sizes"), [(1e3, (20.0, 1e5)), (1e5, (200.0, 1e6)), (1e6, (300.0, 1e6)), (1e4, (2.0, 200.0))]
)
def test_error_is_bounded_at_other_target_sums_and_in_tiny_libraries(target_sum, library_sizes):
    of_value, of_slope = errors(torch.float32, target_sum, library_sizes)
    assert of_value < 2e-3
    assert of_slope < 6e-3


def test_error_is_small_at_the_strongest_dispersion():
    of_value, of_slope = errors(torch.float32, 1e4, (200.0, 1e6), thetas=(0.02, 0.05))
    assert of_value < 2e-4
    assert of_slope < 1e-3


@pytest.mark.parametrize(("theta", "mean", "library"), [(0.3, 2.0, 900.0), (4.0, 0.01, 5e3), (30.0, 60.0, 2e4)])
def test_value_is_the_sum_over_counts(theta, mean, library):
    counts = np.arange(4000)
    expected = stats.nbinom(theta, theta / (theta + mean)).pmf(counts) @ np.log1p(1e4 * counts / library)
    log_rate = torch.tensor([[np.log(mean / library)]])
    found = approximate(log_rate, torch.tensor([theta]), torch.tensor([[library]]))
    assert found.item() == pytest.approx(expected, abs=1e-3)


def test_rare_counts_have_the_expression_of_one_molecule():
    mean, library = 1e-8, 2500.0
    log_rate = torch.tensor([[np.log(mean / library)]], dtype=torch.float64, requires_grad=True)
    value = approximate(log_rate, torch.ones(1, dtype=torch.float64), torch.tensor([[library]], dtype=torch.float64))
    (slope,) = torch.autograd.grad(value.sum(), log_rate)
    assert value.item() == pytest.approx(mean * np.log(5.0), rel=1e-4)
    assert slope.item() == pytest.approx(mean * np.log(5.0), rel=1e-4)


def test_the_gradient_is_the_derivative_of_the_value():
    generator = torch.Generator().manual_seed(0)
    log_rate = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) - 7
    log_rate[0, 0, 0] = 3.0  # above the highest: no gradient
    theta, library = torch.tensor([0.3, 2.0, 8.0, 40.0]).double(), torch.tensor([[800.0], [3e3], [2e4]]).double()
    assert torch.autograd.gradcheck(lambda r: approximate(r, theta, library), log_rate.requires_grad_())
    (slope,) = torch.autograd.grad(approximate(log_rate, theta, library).sum(), log_rate)
    assert slope[0, 0, 0] == 0
    assert (slope != 0).sum() == slope.numel() - 1
    at_highest = approximate(log_rate.detach().clamp(max=HIGHEST), theta, library)
    assert torch.equal(approximate(log_rate, theta, library), at_highest)


@pytest.mark.parametrize("block", [1, 7, 50, 100_000])
def test_any_leading_shape_and_any_block_give_the_mean_of_the_cells(monkeypatch, block):
    monkeypatch.setattr(_mean_expression, "_BLOCK", block)
    log_rate = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 6
    theta, library = torch.tensor([0.3, 2.0, 8.0, 40.0]).double(), torch.logspace(2.5, 4.5, 5).double()[:, None]
    found = approximate(log_rate, theta, library)
    exact = expected_log1p_nb(library * log_rate.exp(), theta, 1e4 / library).mean(-2)
    assert found.shape == (2, 3, 4)
    torch.testing.assert_close(found, exact, atol=1e-3, rtol=0)
    torch.testing.assert_close(approximate(log_rate[0, 1], theta, library), found[0, 1], atol=1e-12, rtol=0)
    assert approximate(log_rate[:, :0], theta, library).shape == (2, 0, 4)


def test_beyond_the_fitted_range_the_nearest_is_taken():
    log_rate = torch.full((1, 3), -5.0)
    found = approximate(log_rate, torch.tensor([1e-4, 0.02, 0.02]), torch.full((1, 1), 1e3))
    assert found[0] == found[1]
    assert approximate(log_rate, torch.full((3,), 1e12), torch.full((1, 1), 1e3)).isfinite().all()


def test_a_table_from_inference_mode_serves_training():
    _mean_expression._table.cache_clear()
    log_rate, theta, library = torch.full((2, 1), -6.0), torch.ones(1), torch.full((2, 1), 1e3)
    log_rate, theta, library = log_rate.double(), theta.double(), library.double()
    with torch.inference_mode():
        value = approximate(log_rate, theta, library)
    trained = log_rate.clone().requires_grad_()
    again = approximate(trained, theta, library)
    again.sum().backward()
    assert torch.equal(again.detach(), value)
    assert (trained.grad > 0).all()


def test_the_likelihood_of_counts_uses_it():
    nb = NegativeBinomial(3)
    with torch.no_grad():
        nb.log_scale.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    decoded = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2)) - 6
    decoded.requires_grad_()
    library = torch.tensor([[500.0], [900.0], [1500.0], [8000.0]])
    found = nb.training_mean(decoded, library)
    exact = nb.expected_expression(nb.location(decoded, library), library).mean(-2)
    torch.testing.assert_close(found, exact, atol=1e-3, rtol=0)
    found.sum().backward()
    assert nb.log_scale.grad is None
    torch.testing.assert_close(decoded.grad, torch.autograd.grad(exact.sum(), decoded)[0], rtol=5e-3, atol=0)
    with pytest.raises(ValueError, match="needs the library sizes"):
        nb.training_mean(decoded, None)


def test_half_precision_is_read_in_single_precision():
    nb, decoded, library = (
        NegativeBinomial(2),
        torch.tensor([[-6.0, -7.0]], dtype=torch.bfloat16),
        torch.full((1, 1), 2e3),
    )
    with torch.autocast("cpu"):
        found = nb.training_mean(decoded, library), nb.training_nll(torch.ones(1, 2), decoded, library)
    assert torch.equal(found[0], nb.training_mean(decoded.float(), library))
    assert torch.equal(found[1], nb.training_nll(torch.ones(1, 2), decoded.float(), library))


@pytest.mark.parametrize("kind", [Normal, SquaredError])
def test_on_the_expression_scale_it_is_the_mean(kind):
    decoded = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    assert kind(2).training_mean(decoded, None).tolist() == [[2.0, 4.0]]


def test_the_table_is_the_same_in_every_process():
    """So that a training gives the same bits in each: least squares by LAPACK differ in their last digits."""
    code = (
        "import hashlib; from raptorgraph.nn._mean_expression import _table; "
        "print(hashlib.sha256(_table(1e4, 2.0).numpy().tobytes()).hexdigest())"
    )
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(5)}
    assert len(found) == 1
