"""Structural layer: a linear acyclic graph among the latents, with DAGMA's log-determinant acyclicity."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from raptorgraph._acyclic import acyclic_support


def acyclicity(adjacency: torch.Tensor, s: float = 1.0, *, clamped: bool = False) -> torch.Tensor:
    r"""DAGMA's :math:`h_s(A) = -\log\det(sI - A \circ A) + d \log s` (Eq. 5, Eq. S23).

    Zero if and only if A is acyclic, within the domain that :func:`in_domain` checks. It is infinite where the
    determinant is not positive; elsewhere outside the domain its value means nothing. `clamped` as published (section
    E.3.4) takes the logarithm of the absolute determinant and sets negative values to 0, which hides that A has left
    the domain and has no gradient there.

    Examples
    --------
    >>> import torch
    >>> chain = torch.tensor([[0.0, 0.5], [0.0, 0.0]])
    >>> rg.nn.acyclicity(chain).item()
    0.0
    >>> cycle = chain + chain.T
    >>> round(rg.nn.acyclicity(cycle).item(), 4)  # -log(1 - 0.25 ** 2)
    0.0645
    """
    d = adjacency.shape[0]
    matrix = s * torch.eye(d, dtype=adjacency.dtype, device=adjacency.device) - adjacency * adjacency
    sign, log_det = torch.slogdet(matrix)
    if clamped:
        return (-log_det + d * float(np.log(s))).clamp_min(0.0)
    if sign <= 0:
        return torch.full_like(log_det, torch.inf)
    return -log_det + d * float(np.log(s))


@torch.no_grad()
def in_domain(adjacency: torch.Tensor, s: float = 1.0) -> bool:
    """Whether sI - A o A is an M-matrix: positive determinant and an inverse without negative entries.

    Examples
    --------
    >>> import torch
    >>> rg.nn.in_domain(torch.tensor([[0.0, 0.5], [0.5, 0.0]]))
    True
    >>> rg.nn.in_domain(torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
    False
    """
    d = adjacency.shape[0]
    matrix = s * torch.eye(d, dtype=adjacency.dtype, device=adjacency.device) - adjacency * adjacency
    inverse, info = torch.linalg.inv_ex(matrix)
    if info != 0 or not bool(torch.isfinite(inverse).all()):
        return False
    return bool(torch.linalg.slogdet(matrix)[0] > 0) and bool((inverse >= -1e-6).all())


class StructuralLayer(nn.Module):
    r"""Spread latents along a graph (Eq. 1): u = u A + z, so u = z (I - A)^-1, with A[i, j] the effect of i on j.

    Parameters
    ----------
    n_latent
        Number of latents d.
    init
        ``"zero"``, or ``"uniform"`` for U[-0.1, 0.1] as published (scaled down where that would leave the domain
        of the acyclicity, which happens from about 300 latents on).
    self_effects
        Let latents act on themselves: the diagonal of A is trained too. The paper masks nothing.
    guarded
        Keep A in the domain of its acyclicity: the start is scaled down, and steps that lead out of it are halved. If
        not, as published, the acyclicity is clamped at 0 and a matrix I - A without an inverse has a pseudo-inverse.

    Examples
    --------
    >>> import torch
    >>> layer = rg.nn.StructuralLayer(3)
    >>> layer.fix(torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))  # 0 -> 1 -> 2
    >>> layer(torch.tensor([[1.0, 0.0, 0.0]])).tolist()  # a shift of latent 0 travels along the graph
    [[1.0, 0.5, 1.0]]
    """

    support: torch.Tensor
    projected: torch.Tensor

    def __init__(self, n_latent: int, init: str = "zero", *, self_effects: bool = False, guarded: bool = True) -> None:
        super().__init__()
        self.guarded = guarded
        self.weight = nn.Parameter(torch.zeros(n_latent, n_latent))
        # 0 on the diagonal, without self-effects; the support of an acyclic graph once it has been projected.
        off_diagonal = 1.0 - torch.eye(n_latent)
        self.register_buffer("support", torch.ones_like(off_diagonal) if self_effects else off_diagonal)
        self.register_buffer("projected", torch.tensor(False))
        if init == "uniform":
            nn.init.uniform_(self.weight, -0.1, 0.1)
            with torch.no_grad():
                while guarded and not in_domain(self.adjacency()):
                    self.weight.mul_(0.5)
        elif init != "zero":
            raise ValueError(f"init={init!r} is unknown; use 'zero' or 'uniform'.")

    def adjacency(self) -> torch.Tensor:
        """Return A, d x d."""
        return self.weight * self.support

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map exogenous z to causal u, both cells x d."""
        a = self.adjacency()
        matrix = torch.eye(a.shape[0], dtype=a.dtype, device=a.device) - a
        if self.guarded:
            u: torch.Tensor = torch.linalg.solve(matrix, z, left=False)
            return u
        u, failed = torch.linalg.solve_ex(matrix, z, left=False)
        return z @ torch.linalg.pinv(matrix) if failed or not bool(u.isfinite().all()) else u

    def acyclicity(self) -> torch.Tensor:
        """Return h of the current A."""
        return acyclicity(self.adjacency(), clamped=not self.guarded)

    @torch.no_grad()
    def retreat(self, previous: torch.Tensor) -> int:
        """Halve the last step, from weights in the domain, until A is in it again; return the number of halvings.

        A layer that is not guarded keeps its step.
        """
        if not self.guarded:
            return 0
        for n_halvings in range(30):
            if in_domain(self.adjacency()):
                return n_halvings
            self.weight.copy_(previous + 0.5 * (self.weight - previous))
        self.weight.copy_(previous)
        return 30

    @torch.no_grad()
    def fix(self, weight: torch.Tensor) -> None:
        """Take over weights (at most d x d) among the first latents, and train them no more; ValueError for a cycle."""
        k = len(weight)
        if not (acyclic_support(weight.cpu().numpy()) == (weight != 0).cpu().numpy()).all():
            raise ValueError("The weights have a cycle or a diagonal: give those of an acyclic graph.")
        self.weight.zero_()
        self.weight[:k, :k] = weight
        self.support.copy_(self.weight != 0)
        self.projected.fill_(True)
        self.weight.requires_grad_(False)

    @torch.no_grad()
    def project(self, threshold: float = 0.0) -> None:
        """Keep the heaviest acyclic set of edges; the forward pass uses it from then on."""
        support = acyclic_support(self.adjacency().cpu().double().numpy(), threshold)
        self.support.copy_(torch.as_tensor(support, dtype=self.support.dtype))
        self.weight.mul_(self.support)
        self.projected.fill_(True)
