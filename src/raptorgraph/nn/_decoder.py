"""Decoder: causal latents and covariates to the location of each gene's distribution."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Decoder(nn.Module):
    """Dense decoder with SiLU and, on request, a linear path beside it.

    Parameters
    ----------
    n_latent, n_covariates, n_genes
        Sizes of the input u, of the covariates (one-hot and continuous, 0 for none) and of the output.
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers; 0 leaves the linear path alone.
    linear
        Add a linear path. The dense path then starts at zero, so that effects start out additive.

    Examples
    --------
    >>> import torch
    >>> decoder = rg.nn.Decoder(n_latent=4, n_covariates=2, n_genes=10, n_hidden=8)
    >>> u, batch = torch.randn(5, 4), torch.eye(2)[[0, 1, 0, 1, 0]]
    >>> decoder(u, batch).shape
    torch.Size([5, 10])
    """

    def __init__(
        self, n_latent: int, n_covariates: int, n_genes: int, n_hidden: int, n_layers: int = 1, *, linear: bool = True
    ) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.zeros(n_genes))
        width = n_latent + n_covariates
        self.linear = nn.Linear(width, n_genes, bias=False) if linear or n_layers == 0 else None
        if self.linear is not None:
            nn.init.normal_(self.linear.weight, std=0.01)
        layers: list[nn.Module] = []
        for _ in range(n_layers):
            layers += [nn.Linear(width, n_hidden), nn.SiLU()]
            width = n_hidden
        last = nn.Linear(width, n_genes, bias=False) if n_layers else None
        self.dense = None if last is None else nn.Sequential(*layers, last)
        if last is not None and self.linear is not None:
            nn.init.zeros_(last.weight)

    def features(self, u: torch.Tensor, covariates: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """What the last layers read: the input itself, and the last hidden layer (the input again without one)."""
        inputs = u if covariates is None else torch.cat([u, covariates], dim=-1)
        return inputs, inputs if self.dense is None else self.dense[:-1](inputs)

    def read(self, inputs: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Map features to cells x genes, linearly."""
        if self.linear is None:
            assert self.dense is not None
            out: torch.Tensor = self.base.expand(inputs.shape[0], -1) + self.dense[-1](hidden)
            return out
        if self.dense is None:
            return F.linear(inputs, self.linear.weight, self.base)
        last = self.dense[-1]
        assert isinstance(last, nn.Linear)
        # one product and one pass over cells x genes, which are far more than the weights
        weight = torch.cat([self.linear.weight, last.weight], dim=1)
        return F.linear(torch.cat([inputs, hidden], dim=-1), weight, self.base)

    def forward(self, u: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """Map cells x d (and cells x covariates) to cells x genes."""
        return self.read(*self.features(u, covariates))
