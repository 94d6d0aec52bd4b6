"""Latent modulator: a perturbation shifts the latents of its own genes and no other."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


UNCHANGED = math.log(math.e - 1)
"""Input of the softplus that leaves a shift as it is."""


class LatentModulator(nn.Module):
    r"""Shift the exogenous latents of the perturbed genes, conditionally on the state of the cell.

    .. math:: z_g \to s_g z_g + dose \cdot a_P \, c_g \, m_g(z_b), \qquad m_g(z_b) = \mathrm{softplus}(w_g^T z_b + b_g)

    for the genes g of the perturbation P; all other latents stay. The state of a cell is in its background latents
    :math:`z_b`, which belong to no perturbed gene. :math:`a_P` is 1 for a single gene and a for a combination: sums of
    effects overshoot. Unless it is conditional, the shift is a constant, :math:`m_g = s_g = a = 1`.

    Parameters
    ----------
    n_latent
        Number of latents d.
    n_perturbed
        Number of perturbed genes k; gene g belongs to latent g.
    init
        Starting value of every strength c_g, in standard deviations of the prior of z.
    conditional
        Whether the shift depends on the state and on whether other genes are perturbed too. It starts as a constant.

    Examples
    --------
    >>> import torch
    >>> modulator = rg.nn.LatentModulator(n_latent=4, n_perturbed=3, init=2.5)
    >>> z = torch.zeros(1, 4)
    >>> modulator(z, torch.tensor([[1.0, 0.0, 1.0]])).tolist()
    [[2.5, 0.0, 2.5, 0.0]]
    """

    def __init__(self, n_latent: int, n_perturbed: int, init: float = 1.0, *, conditional: bool = False) -> None:
        super().__init__()
        if n_perturbed > n_latent:
            raise ValueError(f"{n_perturbed} perturbed genes need as many latents, got {n_latent}.")
        self.n_latent = n_latent
        self.n_perturbed = n_perturbed
        self.strength = nn.Parameter(torch.full((n_perturbed,), float(init)))
        self.state: nn.Linear | None = None
        self.log_spread: nn.Parameter | None = None
        self.log_combination: nn.Parameter | None = None
        if conditional:
            self.log_spread = nn.Parameter(torch.zeros(n_perturbed))
            self.log_combination = nn.Parameter(torch.zeros(()))
            self.state = nn.Linear(n_latent - n_perturbed, n_perturbed)
            nn.init.zeros_(self.state.weight)
            nn.init.constant_(self.state.bias, UNCHANGED)

    def shift(self, z: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Shift of every own latent, 0 where its gene is not perturbed, cells x k (1 x k where all cells share it)."""
        shift = mask * self.strength
        if self.log_combination is not None:
            shift = torch.where(mask.sum(-1, keepdim=True) > 1, self.log_combination.exp(), 1.0) * shift
        return shift if self.state is None else shift * F.softplus(self.state(z[..., self.n_perturbed :]))

    def spread(self) -> torch.Tensor:
        """Standard deviation of every own latent around its shift, shape (k,)."""
        return torch.ones_like(self.strength) if self.log_spread is None else self.log_spread.exp()

    def forward(self, z: torch.Tensor, mask: torch.Tensor, dose: float | torch.Tensor = 1.0) -> torch.Tensor:
        """Shift ``z`` (cells x d) by ``mask`` (cells x k or 1 x k) times ``dose`` (a number or cells x 1)."""
        change = self.shift(z, mask) * dose
        if self.log_spread is not None:
            change = change + mask * (self.spread() - 1) * z[..., : self.n_perturbed]
        return z + F.pad(change, (0, self.n_latent - change.shape[-1]))
