"""Expectation of log-normalized expression under a negative binomial, exactly and differentiably."""

from __future__ import annotations

import math
from typing import Any

import torch

FINE = {"step": 1.0, "lower": -18.0}
"""Quadrature that is accurate to 1e-4 for expression up to 1e4 per 1e4 counts."""
COARSE = {"step": 1.3, "lower": -13.0}
"""Quadrature for training: its error is far below the sampling error of a shift, and cancels."""

# exp(-t) at t = exp(UPPER) is below 1e-15, so nothing is lost above it.
_UPPER = 3.6


class _ExpectedLog1p(torch.autograd.Function):
    """Quadrature with the gradient with respect to the mean accumulated in the same pass over the nodes."""

    @staticmethod
    def forward(
        ctx: Any,
        mean: torch.Tensor,
        inverse_dispersion: torch.Tensor,
        scale: torch.Tensor,
        step: float,
        lower: float,
    ) -> torch.Tensor:
        shape = torch.broadcast_shapes(mean.shape, inverse_dispersion.shape, scale.shape)  # type: ignore[no-untyped-call]
        value = mean.new_zeros(shape)
        slope = mean.new_zeros(shape) if ctx.needs_input_grad[0] else None
        ratio = mean / inverse_dispersion
        n_nodes = math.ceil((_UPPER - lower) / step)
        for k in range(n_nodes):
            t = math.exp(_UPPER - k * step)
            gap = -torch.expm1(-t * scale)  # 1 - w at w = exp(-ts)
            weight = step * math.exp(-t)
            log_pgf = -inverse_dispersion * torch.log1p(ratio * gap)
            value -= weight * torch.expm1(log_pgf)
            if slope is not None:
                slope += weight * gap * torch.exp(log_pgf) / (1 + ratio * gap)
        # Below the last node 1 - pgf is linear in t: the rest of the trapezoid sum is a geometric series.
        rest = step * t / math.expm1(step) * scale
        value += rest * mean
        if slope is not None:
            slope += rest
            ctx.save_for_backward(slope)
            ctx.mean_shape = mean.shape
        return value

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (grad * slope).sum_to_size(ctx.mean_shape), None, None, None, None


def expected_log1p_nb(
    mean: torch.Tensor,
    inverse_dispersion: torch.Tensor,
    scale: torch.Tensor,
    *,
    step: float = 0.7,
    lower: float = -30.0,
) -> torch.Tensor:
    r"""Expectation of ``log1p(scale * X)`` for a negative binomial count X.

    From Frullani's integral, :math:`\log(1 + s x) = \int_0^\infty (1 - e^{-tsx}) e^{-t} / t \, dt`, and the
    probability generating function of the negative binomial,

    .. math::
        E \log(1 + s X) = \int_0^\infty \frac{e^{-t}}{t}
        \left(1 - \left(1 + \frac{\mu (1 - e^{-ts})}{\theta}\right)^{-\theta}\right) dt,

    evaluated by the trapezoidal rule in :math:`\log t`, whose error falls exponentially in 1 / ``step``.

    Parameters
    ----------
    mean
        Mean counts :math:`\mu`, any shape that broadcasts with the others.
    inverse_dispersion
        :math:`\theta`; the variance is :math:`\mu + \mu^2 / \theta`. Treated as a constant by the gradient.
    scale
        :math:`s`, for example ``1e4 / library size``. Treated as a constant by the gradient.
    step
        Distance of the nodes in :math:`\log t`: about 1e-6 absolute error at 0.7, 1e-3 at 1.3.
    lower
        Smallest :math:`\log t`; the integrand must be linear below it, so ``scale * mean * exp(lower)`` must be
        far below 1.

    Returns
    -------
    Tensor of the broadcast shape, differentiable with respect to ``mean``.

    Examples
    --------
    >>> import torch
    >>> mean, theta, scale = torch.tensor([0.5, 5.0]), torch.tensor(2.0), torch.tensor(1.0)
    >>> rg.nn.expected_log1p_nb(mean, theta, scale)
    tensor([0.3014, 1.5440])
    >>> torch.log1p(scale * mean)  # the logarithm of the mean is larger than the mean of logarithms
    tensor([0.4055, 1.7918])
    """
    found: torch.Tensor = _ExpectedLog1p.apply(mean, inverse_dispersion, scale, step, lower)  # type: ignore[no-untyped-call]
    return found
