r"""Negative log-likelihood of counts in cells, for training: one pass over the log rates, gammas from a table.

With :math:`a = \log(\mu / \theta)`, which needs no logarithm where the log rate is known, the negative log-likelihood
of a count x is

.. math::
    \theta \log(1 + e^a) + x \log(1 + e^{-a}) - \log \frac{\Gamma(x + \theta)}{\Gamma(\theta) \, x!}, \qquad
    \log \frac{\Gamma(x + \theta)}{\Gamma(\theta) \, x!} = \sum_{j < x} \log \frac{\theta + j}{1 + j},

its derivative in the log rate :math:`g = \theta \sigma(a) - x \sigma(-a)`, and that in :math:`\log \theta`
:math:`\theta \log(1 + e^a) - g - \sum_{j < x} \theta / (\theta + j)`. The sums are taken for small counts of each gene
at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_TABULATED = 16  # counts up to this; genes with larger ones, or with values that are no counts, take log gammas


def count_nll(counts: Tensor, log_rate: Tensor, log_theta: Tensor, library: Tensor, *, highest: float) -> Tensor:
    """Negative log-likelihood of each cell under negative binomials, summed over genes, in nats.

    :func:`raptorgraph.nn.nb_nll` of the same counts at the mean ``library * exp(log_rate)``, but for its guard against
    a mean of 0.

    Parameters
    ----------
    counts
        Cells x genes. Values that are no integers are read by the same formula, more slowly.
    log_rate
        Logarithm of mean counts over library size, cells x genes; above `highest` it counts as `highest`.
    log_theta
        Logarithm of the inverse dispersion, shape (genes,).
    library
        Library sizes, shape (cells, 1). Treated as constants by the gradient.
    highest
        Upper end of the log rates.

    Returns
    -------
    Tensor of shape (cells,), once differentiable with respect to `log_rate` and `log_theta`.
    """
    nll: Tensor = _CountNLL.apply(counts, log_rate, log_theta, library, highest)  # type: ignore[no-untyped-call]
    return nll


class _CountNLL(torch.autograd.Function):
    """Value and both derivatives from the same intermediate results."""

    @staticmethod
    def forward(
        ctx: Any, counts: Tensor, log_rate: Tensor, log_theta: Tensor, library: Tensor, highest: float
    ) -> Tensor:
        counts, theta = counts.to(log_rate), log_theta.exp()
        log_ratio = log_rate.clamp(max=highest).add_(library.to(log_rate).log() - log_theta)
        excess = F.softplus(log_ratio)
        gammas, digammas = _gamma_differences(counts, theta)
        nll = (excess - log_ratio).mul_(counts).sub_(gammas)
        nll = nll.add_(excess.mul_(theta)).sum(1)
        # both signs: 1 - sigmoid would lose the digits of large counts
        slope = torch.sigmoid(log_ratio).mul_(theta)
        slope.addcmul_(counts, log_ratio.neg_().sigmoid_(), value=-1.0)
        of_theta = excess.sub_(slope).sub_(digammas) if ctx.needs_input_grad[2] else None
        if log_rate.amax() > highest:  # rare, and the maximum is found sooner than a mask
            slope.masked_fill_(log_rate > highest, 0.0)
        ctx.save_for_backward(slope, of_theta)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor | None, None, None]:
        slope, of_theta = ctx.saved_tensors
        grad = grad[:, None]
        return None, slope * grad, None if of_theta is None else (of_theta * grad).sum(0), None, None


def _gamma_differences(counts: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of gamma(x + theta) / (gamma(theta) x!), and its derivative in log theta; cells x genes each."""
    n_genes = counts.shape[1]
    j = torch.arange(_TABULATED, dtype=theta.dtype, device=theta.device)[:, None]
    raised = theta + j
    tables = theta.new_zeros(2, _TABULATED + 1, n_genes)
    torch.cumsum((raised / (1.0 + j)).log_(), 0, out=tables[0, 1:])
    torch.cumsum(theta / raised, 0, out=tables[1, 1:])
    rows = counts.clamp(0, _TABULATED).to(torch.int32)
    at = rows.mul(n_genes).add_(torch.arange(n_genes, dtype=torch.int32, device=theta.device)).flatten()
    gammas, digammas = (table.flatten().index_select(0, at).view_as(counts) for table in tables)
    # NaN is not tabulated either
    direct = torch.nonzero(~((counts - rows).abs_().amax(0) == 0)).squeeze(1)
    if len(direct):
        x, theta = counts[:, direct], theta[direct]
        gammas[:, direct] = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1.0)
        digammas[:, direct] = theta * (torch.digamma(x + theta) - torch.digamma(theta))
    return gammas, digammas
