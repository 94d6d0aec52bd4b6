"""Prior of the latents of all cells: a perturbation moves that of its own latents, unless the cell escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from raptorgraph.nn._losses import kl_standard_normal

if TYPE_CHECKING:
    from raptorgraph.nn._modulator import ConditionalModulator


class PerturbedPrior(nn.Module):
    r"""Prior of the exogenous latents of a cell, given its perturbation P.

    .. math::
        z_g \sim \begin{cases} (1 - \pi_g) \, N(c_g m_g(z_b), s_g^2) + \pi_g \, N(0, 1) & g \in P \\
        N(0, 1) & \text{otherwise} \end{cases}

    with the shift and the spread of :class:`ConditionalModulator`. With probability :math:`\pi_g` a cell that carries
    the guide escaped, and is as a control cell.

    Parameters
    ----------
    n_perturbed
        Number of perturbed genes k.
    escape
        Starting value of every :math:`\pi_g`.

    Examples
    --------
    >>> import torch
    >>> prior, modulator = rg.nn.PerturbedPrior(2), rg.nn.ConditionalModulator(3, 2, init=2.0)
    >>> mean, log_var = torch.tensor([[2.0, 0.0, 0.0]]), torch.zeros(1, 3)
    >>> [round(x, 2) for x in prior.kl(mean, log_var, mean, torch.zeros(1, 2), modulator)[0].tolist()]  # a control
    [2.0, 0.0, 0.0]
    >>> [round(x, 2) for x in prior.kl(mean, log_var, mean, torch.tensor([[1.0, 0]]), modulator)[0].tolist()]
    [0.04, 0.0, 0.0]
    """

    def __init__(self, n_perturbed: int, escape: float = 0.05) -> None:
        super().__init__()
        self.escape_logit = nn.Parameter(torch.full((n_perturbed,), escape).logit())

    def kl(
        self,
        mean: torch.Tensor,
        log_var: torch.Tensor,
        z: torch.Tensor,
        mask: torch.Tensor,
        modulator: ConditionalModulator,
    ) -> torch.Tensor:
        r"""Divergence of N(mean, exp(log_var)) from the prior, elementwise (cells x d), in nats.

        Of the mixture it is the bound :math:`-\log \sum_i \pi_i \exp(-KL_i)` over its two components, at its best value
        over the probability that the cell escaped. `z` is a draw, in which the shift reads the state; `mask`, 0 or 1,
        is cells x k.
        """
        none = kl_standard_normal(mean, log_var)
        k = mask.shape[1]
        own = slice(0, k)
        spread = modulator.spread()
        shifted = kl_standard_normal(
            (mean[:, own] - modulator.shift(z, mask)) / spread, log_var[:, own] - 2 * spread.log()
        )
        stay, escape = F.logsigmoid(-self.escape_logit), F.logsigmoid(self.escape_logit)
        mixed = -torch.logaddexp(stay - shifted, escape - none[:, own])
        return torch.cat([torch.where(mask > 0, mixed, none[:, own]), none[:, k:]], dim=1)
