"""Latent modulator: a perturbation shifts the latents of its own genes and no other."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


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

    def forward(self, z: torch.Tensor, mask: torch.Tensor, dose: float | torch.Tensor = 1.0) -> torch.Tensor:
        """Shift ``z`` (cells x d) by ``mask`` (cells x k or 1 x k) times ``dose`` (a number or cells x 1)."""
        shift = mask * self.strength * dose
        return z + F.pad(shift, (0, self.n_latent - shift.shape[-1]))
