r"""Mean expression over cells of negative binomial counts, for training: polynomials instead of a quadrature.

A log rate r stands for the mean count :math:`\mu = l e^r` in a cell of library size l, and s for the scale, target sum
over library size. With :math:`\kappa = (1 / \theta + 1/2) \sqrt{s / (1 + s)}`, the expectation of
:math:`\log(1 + s X)` is a smooth function of :math:`u = \log(1 + \kappa \mu)`, which like the expectation is
exponential in r where counts are rare and linear where they are many. It is approximated by a polynomial in u for each
pair of s and :math:`\theta`, whose coefficients are Chebyshev series in :math:`\log s` and
:math:`\log(1 / \theta + 1/2)`, fitted once to :func:`raptorgraph.nn.expected_log1p_nb`. Value and slope are
exact at :math:`\mu = 0`, which keeps the relative error of the gradient small where counts are rare.

For library sizes from 200 to 1e6 at a target sum of 1e4, :math:`\theta` from 0.05 to 1e4 and log mean counts from -14
to 9, the absolute error of the value is below 1e-3 and the relative error of the gradient below 5e-3; at target sums
from 1e3 to 1e6, below 2e-3 and 6e-3.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from raptorgraph.nn._expectation import expected_log1p_nb

_SCALES = (5e-3, 5e3)  # beyond, the nearest is taken; library sizes from 2 to 2e6 for a target sum of 1e4
_LOWEST_THETA = 0.02
_ENDS = (
    (math.log(_SCALES[0]), math.log(_SCALES[1])),  # of log s
    (math.log(0.5), math.log(1.0 / _LOWEST_THETA + 0.5)),  # of log(1 / theta + 1/2)
)
_LOWEST_DEGREE = 15  # of the polynomials in u
_N_TERMS = (18, 14)  # of the series in s and theta
_N_FITTED = 120  # values that each polynomial is fitted to
_BLOCK = 2**18  # elements that are worked on at a time, few enough for the cache


def mean_expression_nb(
    log_rate: Tensor, theta: Tensor, library: Tensor, *, target_sum: float, highest: float
) -> Tensor:
    """Mean over cells of the expected expression, approximately; the module says how, and how well.

    Parameters
    ----------
    log_rate
        Logarithm of mean counts over library size, shape (..., cells, genes); above `highest` it counts as `highest`.
    theta
        Inverse dispersion, shape (genes,). Treated as a constant by the gradient.
    library
        Library sizes, shape (cells, 1). Treated as constants by the gradient.
    target_sum
        Expression is ``log1p(target_sum * count / library)``.
    highest
        Upper end of the log rates.

    Returns
    -------
    Tensor of shape (..., genes), once differentiable with respect to `log_rate`.
    """
    stacked = log_rate.reshape(-1, *log_rate.shape[-2:])
    with torch.autocast(log_rate.device.type, enabled=False):
        mean: Tensor = _MeanExpression.apply(stacked, theta, library, target_sum, highest)  # type: ignore[no-untyped-call]
    return mean.view(*log_rate.shape[:-2], log_rate.shape[-1])


class _MeanExpression(torch.autograd.Function):
    """Values and slopes by Horner's scheme, in one pass over the coefficients."""

    @staticmethod
    def forward(
        ctx: Any, log_rate: Tensor, theta: Tensor, library: Tensor, target_sum: float, highest: float
    ) -> Tensor:
        n_draws, n_cells, n_genes = log_rate.shape
        above = None
        if log_rate.numel() and log_rate.amax() > highest:  # rare, and the maximum is found sooner than a mask
            above, log_rate = log_rate > highest, log_rate.clamp(max=highest)
        scale, theta = (target_sum / library).to(log_rate).clamp(*_SCALES), theta.to(log_rate).clamp_min(_LOWEST_THETA)
        wide = torch.float64 if log_rate.is_cuda else log_rate.dtype  # TF32 has too few digits for the coefficients
        of_cells = _series(scale[:, 0].to(wide), _ENDS[0], _N_TERMS[0])
        of_cells = of_cells @ _table(target_sum, highest).to(of_cells)
        of_genes = _series(1.0 / theta.to(wide) + 0.5, _ENDS[1], _N_TERMS[1]).T
        log_bend = _log_bend(scale, theta, target_sum)
        per_unit = 2.0 / F.softplus(log_bend + highest)
        mean, slope = log_rate.new_zeros(n_draws, n_genes), torch.empty_like(log_rate)
        n_rows = max(1, math.ceil(n_cells / max(1, math.ceil(n_cells * n_genes / _BLOCK))))
        n_at_once = max(1, min(n_draws, _BLOCK // (n_rows * n_genes)))
        buffers = log_rate.new_empty(3, n_at_once, n_rows, n_genes)
        for rows in (slice(i, i + n_rows) for i in range(0, n_cells, n_rows)):
            coefficients = (of_cells[:, rows].flatten(0, 1) @ of_genes).to(log_rate)
            *lower, second, first = coefficients.view(len(of_cells), -1, n_genes)
            for draws in (slice(i, i + n_at_once) for i in range(0, n_draws, n_at_once)):
                given, derivative = log_rate[draws, rows], slope[draws, rows]
                bent, y, value = buffers[:, : given.shape[0], : given.shape[1]]
                torch.add(given, log_bend[rows], out=bent)
                torch.exp(bent, out=y).log1p_().mul_(per_unit[rows]).sub_(1.0)
                torch.addcmul(second, y, first, out=value)
                torch.addcmul(value, y, first, out=derivative)
                for coefficient in reversed(lower[1:]):
                    torch.addcmul(coefficient, y, value, out=value)
                    torch.addcmul(value, y, derivative, out=derivative)
                torch.addcmul(lower[0], y, value, out=value)
                derivative.mul_(bent.sigmoid_()).mul_(per_unit[rows])
                mean[draws] += value.sum(-2)
        if above is not None:
            slope.masked_fill_(above, 0.0)
        ctx.save_for_backward(slope)
        return mean.div_(n_cells)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * (grad / slope.shape[1])[:, None], None, None, None, None


@lru_cache(maxsize=8)
def _table(target_sum: float, highest: float) -> Tensor:
    """Coefficients: powers of y x terms of the series in log s x terms of the series in log(1 / theta + 1/2).

    Float64, on the CPU. y is linear in u, from -1 at mean 0 to 1 at the highest log rate. The polynomials are fitted by
    least squares at Chebyshev's nodes, which comes close to the smallest largest error.
    """
    y, *nodes = (_nodes(n) for n in (_N_FITTED, *_N_TERMS))
    scale, overdispersion = (torch.exp(_from_unit(t, ends)) for t, ends in zip(nodes, _ENDS, strict=True))
    scale, theta = scale[:, None], 1.0 / (overdispersion - 0.5).clamp_min(1e-9)
    log_bend = _log_bend(scale, theta, target_sum)
    bend = log_bend.exp() * scale / target_sum
    width = torch.log1p((log_bend + highest).exp())
    degree = max(_LOWEST_DEGREE, round(4.0 + math.log1p(target_sum * math.exp(highest))))  # grows with the range of u
    up = y[:, None, None] + 1.0
    exact = expected_log1p_nb(torch.expm1(up * width / 2.0) / bend, theta, scale, step=0.5, lower=-36.0)
    # slope * (1 + y) + (1 + y)^2 * rest
    slope = torch.log1p(scale) * width / (2.0 * bend)
    design = (y[:, None] + 1.0) ** 2 * y[:, None] ** torch.arange(degree - 1)
    # not lstsq, whose last digits differ between processes
    q, r = torch.linalg.qr(design)
    rest = torch.linalg.solve_triangular(r, q.mT @ (exact - slope * up).flatten(1), upper=True).view(-1, *_N_TERMS)
    powers = exact.new_zeros(degree + 1, *_N_TERMS)
    powers[:2] += slope
    for k, times in enumerate((1.0, 2.0, 1.0)):
        powers[k : k + degree - 1] += times * rest
    in_scale, in_theta = (torch.linalg.inv(_chebyshev(t, len(t))) for t in nodes)
    table: Tensor = in_scale @ powers @ in_theta.T
    return table


def _log_bend(scale: Tensor, theta: Tensor, target_sum: float) -> Tensor:
    """Logarithm of kappa * library, cells x genes: u is the softplus of its sum with the log rate."""
    return math.log(target_sum) - 0.5 * torch.log(scale * (1.0 + scale)) + torch.log(1.0 / theta + 0.5)


def _series(x: Tensor, ends: tuple[float, float], n: int) -> Tensor:
    """Chebyshev polynomials of log x, from one end to the other, shape (len(x), n)."""
    low, high = ends
    return _chebyshev(((2.0 * x.log() - low - high) / (high - low)).clamp(-1.0, 1.0), n)


def _chebyshev(t: Tensor, n: int) -> Tensor:
    return torch.cos(torch.arccos(t)[:, None] * torch.arange(n, dtype=t.dtype, device=t.device))


def _nodes(n: int) -> Tensor:
    return torch.cos(math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def _from_unit(t: Tensor, ends: tuple[float, float]) -> Tensor:
    low, high = ends
    return low + (t + 1.0) * (high - low) / 2.0
