r"""Negative log-likelihood of counts in cells, for training: one pass over the log rates, gammas of molecules alone.

With :math:`a = \log(\mu / \theta)`, which needs no logarithm where the log rate is known, the negative log-likelihood
of a count x is

.. math::
    \theta \log(1 + e^a) + x \log(1 + e^{-a}) - \log \frac{\Gamma(x + \theta)}{\Gamma(\theta) \, x!}, \qquad
    \log \frac{\Gamma(x + \theta)}{\Gamma(\theta) \, x!} = \sum_{j < x} \log \frac{\theta + j}{1 + j},

its derivative in the log rate :math:`g = (\theta e^a - x) / (1 + e^a)`, and that in :math:`\log \theta`
:math:`\theta \log(1 + e^a) - g - \sum_{j < x} \theta / (\theta + j)`. Most counts are 0 and have no sum; for
small ones the sums come from a table of each gene, and larger ones alone take log gammas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_TABULATED = 16  # counts up to this; larger ones, and values that are no counts, take log gammas
_BLOCK = 2**17  # elements that are worked on at a time, few enough for the cache


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
    """Value and both derivatives from the same intermediate results, some cells at a time."""

    @staticmethod
    def forward(
        ctx: Any, counts: Tensor, log_rate: Tensor, log_theta: Tensor, library: Tensor, highest: float
    ) -> Tensor:
        counts, theta, log_library = counts.to(log_rate), log_theta.exp(), library.to(log_rate).log()
        (n_cells, n_genes), of_theta = log_rate.shape, None
        gammas, slope, nll = _Gammas.of(theta), torch.empty_like(log_rate), log_rate.new_empty(n_cells)
        if ctx.needs_input_grad[2]:
            of_theta = torch.empty_like(log_rate)
        n_rows = max(1, min(n_cells, _BLOCK // max(n_genes, 1)))
        buffers = log_rate.new_empty(5, n_rows, n_genes)
        above = bool(log_rate.numel()) and bool(log_rate.amax() > highest)  # rare, and found sooner than a mask
        for rows in (slice(i, i + n_rows) for i in range(0, n_cells, n_rows)):
            x, given, g = counts[rows], log_rate[rows], slope[rows]
            log_ratio, ratio, excess, sums, derivatives = buffers[:, : len(x)]
            torch.sub(given.clamp(max=highest) if above else given, log_theta, out=log_ratio).add_(log_library[rows])
            torch.exp(log_ratio, out=ratio)
            torch.log1p(ratio, out=excess)
            torch.mul(ratio, theta, out=g).sub_(x).div_(ratio.add_(1.0))
            gammas.differences(x, sums, derivatives if of_theta is not None else None)
            of_counts = torch.sub(excess, log_ratio, out=ratio).mul_(x).sub_(sums)
            torch.sum(of_counts.add_(excess.mul_(theta)), 1, out=nll[rows])
            if of_theta is not None:
                torch.sub(excess, g, out=of_theta[rows]).sub_(derivatives)
            if above:
                g.masked_fill_(given > highest, 0.0)
        ctx.save_for_backward(slope, of_theta)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor | None, None, None]:
        slope, of_theta = ctx.saved_tensors
        return None, slope * grad[:, None], None if of_theta is None else grad @ of_theta, None, None


@dataclass(frozen=True)
class _Gammas:
    """Logarithms of gamma(x + theta) / (gamma(theta) x!), and their derivatives in log theta.

    `theta` and its log gammas have the shape (genes,), the `tables` of both sums are counts x genes, flat.
    """

    theta: Tensor
    log_gamma: Tensor
    tables: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, theta: Tensor) -> _Gammas:
        j = torch.arange(_TABULATED, dtype=theta.dtype, device=theta.device)[:, None]
        raised = theta + j
        tables = theta.new_zeros(2, _TABULATED + 1, len(theta))
        torch.cumsum((raised / (1.0 + j)).log_(), 0, out=tables[0, 1:])
        torch.cumsum(theta / raised, 0, out=tables[1, 1:])
        return cls(theta, torch.lgamma(theta), (tables[0].flatten(), tables[1].flatten()))

    def differences(self, counts: Tensor, sums: Tensor, derivatives: Tensor | None) -> None:
        """Write both for the counts of some cells (cells x genes); they are 0 where there is no molecule."""
        n_genes = len(self.theta)
        at = _nonzero(counts.flatten())
        x, gene = counts.flatten()[at], at % n_genes
        rows = x.clamp(0, _TABULATED).nan_to_num_().to(torch.int64)
        of_table = rows.mul(n_genes).add_(gene)
        direct = torch.nonzero(x != rows).squeeze(1)  # NaN is not tabulated either
        x, theta = x[direct], self.theta[gene[direct]]
        sums.zero_()
        found = self.tables[0][of_table]
        found[direct] = torch.lgamma(x + theta) - self.log_gamma[gene[direct]] - torch.lgamma(x + 1.0)
        sums.view(-1)[at] = found
        if derivatives is not None:
            derivatives.zero_()
            found = self.tables[1][of_table]
            found[direct] = theta * (torch.digamma(x + theta) - torch.digamma(theta))
            derivatives.view(-1)[at] = found


def _nonzero(x: Tensor) -> Tensor:
    """Indices of the elements that are not 0; numpy finds them some times faster on the CPU."""
    if x.device != torch.device("cpu"):
        return x.nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero((x != 0).numpy()))
