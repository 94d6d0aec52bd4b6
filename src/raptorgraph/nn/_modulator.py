"""Latent modulator: a perturbation shifts the latents of its own genes and no other."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


class LatentModulator(nn.Module):
    r"""Shift the exogenous latents, :math:`z_{int} = z + \sum_{g \in P} dose \cdot c_g e_g`.

    Parameters
    ----------
    n_latent
        Number of latents d.
    n_perturbed
        Number of perturbed genes k; gene g belongs to latent g.
    init
        Starting value of every strength c_g, in standard deviations of the prior of z.

    Examples
    --------
    >>> import torch
    >>> modulator = rg.nn.LatentModulator(n_latent=4, n_perturbed=3, init=2.5)
    >>> z = torch.zeros(1, 4)
    >>> modulator(z, torch.tensor([[1.0, 0.0, 1.0]])).tolist()
    [[2.5, 0.0, 2.5, 0.0]]
    """

    def __init__(self, n_latent: int, n_perturbed: int, init: float = 1.0) -> None:
        super().__init__()
        if n_perturbed > n_latent:
            raise ValueError(f"{n_perturbed} perturbed genes need as many latents, got {n_latent}.")
        self.n_latent = n_latent
        self.strength = nn.Parameter(torch.full((n_perturbed,), float(init)))

    def shift(self, z: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Shift of every own latent, 0 where its gene is not perturbed, cells x k (1 x k where all cells share it)."""
        return mask * self.strength

    def of_state(self) -> list[nn.Parameter]:
        """Parameters by which the shift depends on the state: none."""
        return []

    def forward(self, z: torch.Tensor, mask: torch.Tensor, dose: float | torch.Tensor = 1.0) -> torch.Tensor:
        """Shift ``z`` (cells x d) by ``mask`` (cells x k or 1 x k) times ``dose`` (a number or cells x 1)."""
        shift = self.shift(z, mask) * dose
        return z + F.pad(shift, (0, self.n_latent - shift.shape[-1]))


class ConditionalModulator(LatentModulator):
    r"""Shift that depends on the state of the cell, and on whether other genes are perturbed too.

    .. math:: z_g \to s_g z_g + dose \cdot a_P \, c_g \, m_g(z_b)

    for the genes g of the perturbation P; all other latents stay. The state of a cell is in its background latents
    :math:`z_b`, which belong to no perturbed gene, and :math:`m_g` (:func:`relative_response`) is 1 in the mean over
    control cells. :math:`a_P` is 1 for a single gene and a for a combination, since sums of effects overshoot.
    It starts as a constant, with :math:`m_g = s_g = a = 1`.

    Parameters
    ----------
    n_latent, n_perturbed, init
        As in :class:`LatentModulator`.

    Examples
    --------
    >>> import torch
    >>> modulator = rg.nn.ConditionalModulator(n_latent=4, n_perturbed=3, init=2.0)
    >>> z, mask = torch.tensor([[0.0, 0.0, 0.0, -1.0], [0.0, 0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> modulator(z, mask)[:, 0].tolist()
    [2.0, 2.0]
    >>> _ = modulator.state_weight.data.fill_(3.0)  # the response grows with the background latent
    >>> [round(x, 1) for x in modulator(z, mask)[:, 0].tolist()]
    [0.1, 4.4]
    """

    def __init__(self, n_latent: int, n_perturbed: int, init: float = 1.0) -> None:
        super().__init__(n_latent, n_perturbed, init)
        self.log_spread = nn.Parameter(torch.zeros(n_perturbed))
        self.log_combination = nn.Parameter(torch.zeros(()))
        self.state_weight = nn.Parameter(torch.zeros(n_perturbed, n_latent - n_perturbed))
        self.state_bias = nn.Parameter(torch.zeros(n_perturbed))

    def shift(self, z: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Shift of every own latent, 0 where its gene is not perturbed, cells x k."""
        combined = torch.where(mask.sum(-1, keepdim=True) > 1, self.log_combination.exp(), 1.0)
        state = z[..., self.state_weight.shape[0] :]
        return mask * self.strength * combined * relative_response(state, self.state_weight, self.state_bias)

    def of_state(self) -> list[nn.Parameter]:
        """Parameters by which the shift depends on the state."""
        return [self.state_weight, self.state_bias]

    def spread(self) -> torch.Tensor:
        """Standard deviation of every own latent around its shift, shape (k,)."""
        return self.log_spread.exp()

    def forward(self, z: torch.Tensor, mask: torch.Tensor, dose: float | torch.Tensor = 1.0) -> torch.Tensor:
        """Shift ``z`` (cells x d) by ``mask`` (cells x k or 1 x k) times ``dose`` (a number or cells x 1)."""
        change = F.pad(mask * (self.spread() - 1), (0, self.n_latent - mask.shape[-1]))
        return super().forward(z, mask, dose) + change * z


def relative_response(state: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    r"""Size of the response of cells in a state, relative to the mean over control cells, cells x k.

    .. math:: m_g(z_b) = \mathrm{softplus}(w_g^T z_b + b_g) / E_{z_b \sim N(0, I)} \mathrm{softplus}(w_g^T z_b + b_g)

    The expectation is one over :math:`N(b_g, |w_g|^2)`, taken by Gauss-Hermite quadrature.

    Parameters
    ----------
    state
        Background latents, cells x (d - k).
    weight, bias
        Shapes (k, d - k) and (k,).

    Examples
    --------
    >>> import torch
    >>> state, weight = torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    >>> size = rg.nn.relative_response(state, weight, torch.zeros(2))
    >>> [[round(x, 1) for x in row] for row in size.T.tolist()]  # the same in all states, and a switch
    [[1.0, 1.0, 1.0], [0.0, 0.5, 2.2]]
    """
    return F.softplus(state @ weight.T + bias) / _mean_response(weight, bias)


def own_response(state: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, gene: torch.Tensor) -> torch.Tensor:
    """Response of each cell to one gene, shape (cells,): the entries of :func:`relative_response` at `gene` alone."""
    drive = (state * weight[gene]).sum(1) + bias[gene]
    return F.softplus(drive) / _mean_response(weight, bias)[gene]


def _mean_response(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Mean of the softplus over control cells, shape (k,)."""
    nodes, weights = (torch.as_tensor(x, dtype=bias.dtype, device=bias.device) for x in (_NODES, _WEIGHTS))
    # The square root has no gradient at 0, where the weights start.
    scale = (weight.square().sum(1) + 1e-12).sqrt()
    mean: torch.Tensor = F.softplus(bias + nodes[:, None] * scale).T @ (weights / weights.sum())
    return mean
