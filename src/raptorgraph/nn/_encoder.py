"""GraphPathway encoder: preconditioned layer, interaction block, aggregation (paper, sections 3.1 and E.2)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

LOG_VARIANCES = (-10.0, 4.0)
"""Ends of what the encoder says of a latent."""


class PreconditionedLayer(nn.Module):
    r"""Linear maps from genes to latents in which a perturbed gene reaches its own latent only (Eq. 4, Eq. S21).

    The input holds the ``n_targets`` perturbed genes first. Column ``i`` of these feeds latent ``i`` alone, through
    a diagonal weight; all other genes feed every latent. The structural zeros are not stored, so no update can
    fill them.

    Parameters
    ----------
    n_genes
        Number of input genes n.
    n_latent
        Number of latents d.
    n_targets
        Number of perturbed genes that have a column, at most ``n_latent``.
    n_subgraphs
        Number m of parallel maps.

    Examples
    --------
    >>> import torch
    >>> layer = rg.nn.PreconditionedLayer(n_genes=6, n_latent=3, n_targets=2, n_subgraphs=1)

    Gene 0 reaches latent 0, gene 1 latent 1; all other genes reach every latent.

    >>> (layer.dense_weight()[0] != 0).int()
    tensor([[1, 0, 1, 1, 1, 1],
            [0, 1, 1, 1, 1, 1],
            [0, 0, 1, 1, 1, 1]], dtype=torch.int32)
    """

    def __init__(self, n_genes: int, n_latent: int, n_targets: int, n_subgraphs: int) -> None:
        super().__init__()
        if n_targets > min(n_genes, n_latent):
            raise ValueError(f"{n_targets} targets do not fit into {n_genes} genes and {n_latent} latents.")
        self.n_targets = n_targets
        self.n_subgraphs = n_subgraphs
        self.n_latent = n_latent
        bound = max(n_genes - n_targets, 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_subgraphs * n_latent, n_genes - n_targets).uniform_(-bound, bound))
        # A latent has one perturbed gene and thousands of others: a weight of their size would remove its input.
        self.diagonal = nn.Parameter(torch.empty(n_subgraphs, n_targets).uniform_(-0.5, 0.5))
        self.bias = nn.Parameter(torch.zeros(n_subgraphs, n_latent))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map cells x genes to cells x subgraphs x latents, before the activation."""
        target, other = x[:, : self.n_targets], x[:, self.n_targets :]
        mapped = F.linear(other, self.weight).view(-1, self.n_subgraphs, self.n_latent) + self.bias
        return mapped + F.pad(target[:, None, :] * self.diagonal, (0, self.n_latent - self.n_targets))

    def dense_weight(self) -> torch.Tensor:
        """Return the weights as subgraphs x latents x genes with the structural zeros written out (Eq. 4)."""
        block = self.weight.new_zeros(self.n_subgraphs, self.n_latent, self.n_targets)
        index = torch.arange(self.n_targets, device=block.device)
        block[:, index, index] = self.diagonal.detach()
        return torch.cat([block, self.weight.detach().view(self.n_subgraphs, self.n_latent, -1)], dim=2)


class InteractionBlock(nn.Module):
    """Map of the m subgraph activations of each latent by weights of its own (section E.2.2).

    Parameters
    ----------
    n_latent, n_subgraphs
        Numbers of latents and of subgraphs.
    residual
        Add the activations to what they are mapped to; the paper names no such path.

    Examples
    --------
    >>> import torch
    >>> block = rg.nn.InteractionBlock(n_latent=4, n_subgraphs=3)
    >>> block(torch.randn(5, 3, 4)).shape
    torch.Size([5, 3, 4])
    """

    def __init__(self, n_latent: int, n_subgraphs: int, *, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        bound = n_subgraphs**-0.5
        self.weight = nn.Parameter(torch.empty(n_latent, n_subgraphs, n_subgraphs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_subgraphs, n_latent))

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """Map cells x subgraphs x latents to the same shape, each latent for itself."""
        mapped = F.silu(torch.einsum("bmd,dmk->bkd", s, self.weight) + self.bias)
        return s + mapped if self.residual else mapped


class GraphPathwayEncoder(nn.Module):
    """Encode expression into mean and log variance of the exogenous latents z (Eq. S21, section E.2).

    Parameters
    ----------
    n_genes, n_latent, n_targets, n_subgraphs
        As in :class:`PreconditionedLayer`.
    residual
        As in :class:`InteractionBlock`.
    bounded
        Keep the log variance from -10 to 4, so that none becomes 0 or infinite; the paper names no bounds.

    Examples
    --------
    >>> import torch
    >>> encoder = rg.nn.GraphPathwayEncoder(n_genes=20, n_latent=4, n_targets=3, n_subgraphs=2)
    >>> mean, log_var = encoder(torch.randn(5, 20))
    >>> mean.shape, log_var.shape
    (torch.Size([5, 4]), torch.Size([5, 4]))
    """

    def __init__(
        self,
        n_genes: int,
        n_latent: int,
        n_targets: int,
        n_subgraphs: int,
        *,
        residual: bool = True,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        self.bounded = bounded
        self.preconditioned = PreconditionedLayer(n_genes, n_latent, n_targets, n_subgraphs)
        self.interaction = InteractionBlock(n_latent, n_subgraphs, residual=residual)
        bound = n_subgraphs**-0.5
        # The grouped convolution of kernel size m and d groups: one linear map of m activations for each latent.
        self.aggregation = nn.Parameter(torch.empty(2, n_subgraphs, n_latent).uniform_(-bound, bound))
        self.offset = nn.Parameter(torch.zeros(2, n_latent))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log variance, each cells x latents."""
        s = self.interaction(F.silu(self.preconditioned(x)))
        mean, log_var = torch.einsum("bmd,omd->obd", s, self.aggregation) + self.offset[:, None, :]
        return mean, log_var.clamp(*LOG_VARIANCES) if self.bounded else log_var
