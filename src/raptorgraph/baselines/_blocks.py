"""Blocks of the discrepancy VAE (Zhang et al. 2023) and of SENA (de la Fuente et al. 2025), after their sources."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from raptorgraph.nn._structural import StructuralLayer

_SLOPE = 0.2  # of every LeakyReLU


class GeneSetLayer(nn.Linear):
    r"""Linear map from genes to gene sets in which a set reads its own genes: :math:`h = x (W \circ M)^\top + b`.

    The `mask` M, sets x genes, is 1 where the gene is in the set, and 0 (or SENA's lambda, a small leak) elsewhere.
    """

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])  # whose start does not know of the mask: as published
        self.register_buffer("mask", mask.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map cells x genes to cells x sets."""
        return F.linear(x, self.weight * self.mask, self.bias)


class VariationalEncoder(nn.Module):
    """One hidden layer with LeakyReLU, then heads for the mean and the variance (softplus) of each latent.

    The `hidden` layer maps genes to hidden units: dense in dVAE, a :class:`GeneSetLayer` in SENA.
    """

    def __init__(self, hidden: nn.Module, n_hidden: int, n_latent: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.mean = small_linear(n_hidden, n_latent)
        self.variance = small_linear(n_hidden, n_latent)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map cells x genes to the mean and the logarithm of the variance, both cells x latents."""
        h = F.leaky_relu(self.hidden(x), _SLOPE)
        # float32: the softplus of a very negative number is 0, which has no logarithm
        return self.mean(h), torch.log(F.softplus(self.variance(h)) + 1e-8)


class SoftmaxTarget(nn.Module):
    r"""Learn which latents a perturbation hits, and how hard.

    :math:`t_g = \mathrm{softmax}(\tau \, \mathrm{MLP}(e_g))` for the one-hot :math:`e_g` of gene g, with temperature
    :math:`\tau` (more is sharper), and a strength :math:`s_g`; a set P of genes shifts z by
    :math:`\sum_{g \in P} s_g t_g`.
    """

    def __init__(self, n_perturbed: int, n_latent: int, n_hidden: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_perturbed, n_hidden)
        self.out = nn.Linear(n_hidden, n_latent)
        self.strength = nn.Parameter(torch.ones(n_perturbed))

    def targets(self, temperature: float = 1.0) -> torch.Tensor:
        """Return the weights t, perturbed genes x latents; each row sums to 1."""
        # A layer applied to all one-hot rows is its transposed weight.
        h = F.leaky_relu(self.hidden.weight.T + self.hidden.bias, _SLOPE)
        return torch.softmax(temperature * self.out(h), dim=1)

    def forward(self, mask: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Map sets of genes (rows x perturbed genes, 0 or 1) to shifts, rows x latents."""
        return (mask * self.strength) @ self.targets(temperature)


class TriangularLayer(StructuralLayer):
    """:class:`StructuralLayer` whose graph is acyclic because only entries above the diagonal exist.

    The order of the latents is therefore given, not learned. Weights start at N(0, 0.1).
    """

    support: torch.Tensor

    def __init__(self, n_latent: int) -> None:
        super().__init__(n_latent)
        self.support.copy_(torch.triu(torch.ones(n_latent, n_latent), diagonal=1))
        nn.init.normal_(self.weight, std=0.1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map exogenous z to causal u = z (I - A)^-1, both cells x d."""
        # The diagonal of I is implied by `unitriangular`.
        adjacency = self.adjacency()
        u: torch.Tensor = torch.linalg.solve_triangular(-adjacency, z, upper=True, left=False, unitriangular=True)
        return u


class DiscrepancyModule(nn.Module):
    r"""Encoder, softmax targets, triangular graph and decoder: :math:`\hat x = f((z + \sum_g s_g t_g)(I - A)^{-1})`.

    The encoder maps cells x genes to the mean and the log variance of z; targets and decoder have `n_hidden` units.
    """

    def __init__(
        self, encoder: VariationalEncoder, n_genes: int, n_perturbed: int, n_latent: int, n_hidden: int = 128
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.target = SoftmaxTarget(n_perturbed, n_latent, n_hidden)
        self.graph = TriangularLayer(n_latent)
        self.decoder = nn.Sequential(
            small_linear(n_latent, n_hidden),
            nn.LeakyReLU(_SLOPE),
            small_linear(n_hidden, n_genes),
            nn.LeakyReLU(_SLOPE),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map exogenous z, shifted or not, (cells x latents) to cells x genes on the expression scale."""
        cells: torch.Tensor = self.decoder(self.graph(z))
        return cells


def small_linear(n_in: int, n_out: int) -> nn.Linear:
    """Dense layer with weights from N(0, 0.02) and biases of 0."""
    layer = nn.Linear(n_in, n_out)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
