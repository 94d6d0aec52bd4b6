r"""Covariance K of single effects without a matrix of genes x genes: few directions, and what belongs to each gene.

.. math::
    K = B B^\top + (I - W)^{-1} \operatorname{diag}(s) (I - W)^{-\top}

with loadings B of few columns, direct effects of variance s, and weights W of an acyclic graph that carries these on.
The shared class has no W, the independent class no B. It takes the place of a dense tensor in products
(``x @ K @ y``), and knows its diagonal, its trace and its sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu

if TYPE_CHECKING:
    from scipy.sparse.linalg import SuperLU

_COLUMNS = 512  # that are solved for at a time
_JITTER = 1e-9


@dataclass(frozen=True)
class GeneCovariance:
    """Covariance of the effects of k genes, for thousands of which a dense matrix would be slow.

    Attributes
    ----------
    loadings
        B, k x r; r may be 0.
    specific
        s, shape (k,).
    edges, weights
        Pairs (cause, effect) of genes with a weight in W, E x 2, and these weights, shape (E,).
    """

    loadings: torch.Tensor
    specific: torch.Tensor
    edges: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of_directions(cls, loadings: torch.Tensor, specific: torch.Tensor) -> GeneCovariance:
        """K of the shared class: no graph."""
        return cls(loadings, specific, torch.zeros(0, 2, dtype=torch.long), specific.new_zeros(0))

    @classmethod
    def along_graph(cls, graph: torch.Tensor | None, k: int) -> GeneCovariance:
        """K of the independent class, with mean diagonal 1; `graph` is k x k, row = cause."""
        one = torch.ones(k, dtype=torch.float64)
        none = one.new_zeros(k, 0)
        if graph is None:
            return cls.of_directions(none, one)
        edges = graph.nonzero()
        found = cls(none, one, edges, graph[edges[:, 0], edges[:, 1]])
        return cls(none, one / found.diagonal().mean(), edges, found.weights)

    @property
    def shape(self) -> tuple[int, int]:
        """As of a matrix."""
        return len(self.specific), len(self.specific)

    def detach(self) -> GeneCovariance:
        """The same without gradients."""
        return GeneCovariance(self.loadings.detach(), self.specific.detach(), self.edges, self.weights)

    def __matmul__(self, right: torch.Tensor) -> torch.Tensor:
        return self.loadings @ (self.loadings.mT @ right) + self._direct(right)

    def __rmatmul__(self, left: torch.Tensor) -> torch.Tensor:
        return (self @ left.mT).mT

    def diagonal(self) -> torch.Tensor:
        """Variance of the effects of each gene, shape (k,)."""
        if not len(self.edges):
            return (self.loadings**2).sum(1) + self.specific
        found = (self.loadings**2).sum(1)
        for start in range(0, len(found), _COLUMNS):  # direct effects of some of the genes at a time
            variance = self.specific[start : start + _COLUMNS]
            carried = torch.from_numpy(self._direct_effects.solve(np.eye(len(found), len(variance), -start)))
            found = found + carried**2 @ variance
        return found

    def trace(self) -> torch.Tensor:
        """Sum of the variances, scalar."""
        return self.diagonal().sum()

    def sum(self) -> torch.Tensor:
        """Sum over all pairs of genes, scalar."""
        return (self @ torch.ones_like(self.specific)[:, None]).sum()

    def dense(self) -> torch.Tensor:
        """The matrix, k x k."""
        return self @ torch.eye(len(self.specific), dtype=self.specific.dtype)

    def root_times(self, own: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """Effects with this covariance from standard normal vectors, k x n and r x n."""
        return self._carried(self.specific.sqrt()[:, None] * own) + self.loadings @ directions[: self.loadings.shape[1]]

    @cached_property
    def _direct_effects(self) -> SuperLU:
        """Factors of I - W; of an acyclic graph they are as sparse as it."""
        k = len(self.specific)
        causes, effects = self.edges.T.numpy()
        weights = sparse.csc_array((self.weights.numpy(), (causes, effects)), shape=(k, k))
        return splu(sparse.csc_matrix(sparse.eye_array(k) - weights))

    def _direct(self, right: torch.Tensor) -> torch.Tensor:
        if len(self.edges):
            right = torch.from_numpy(self._direct_effects.solve(np.ascontiguousarray(right.numpy()), trans="T"))
        return self._carried(self.specific[:, None] * right)

    def _carried(self, direct: torch.Tensor) -> torch.Tensor:
        """Effects along the graph of direct effects, k x n."""
        if not len(self.edges):
            return direct
        return torch.from_numpy(self._direct_effects.solve(np.ascontiguousarray(direct.numpy())))


@dataclass(frozen=True)
class ExtendedCovariance:
    """Covariance of the effects of k genes, and of others whose effects are a regression on these, and what is left.

    Attributes
    ----------
    perturbed
        Covariance of the k genes.
    coefficients
        Of the regression, others x k.
    left
        Covariance of what it leaves, others x others.
    """

    perturbed: GeneCovariance
    coefficients: torch.Tensor
    left: torch.Tensor

    def __matmul__(self, right: torch.Tensor) -> torch.Tensor:
        k = self.coefficients.shape[1]
        known = self.perturbed @ (right[:k] + self.coefficients.mT @ right[k:])
        return torch.cat([known, self.coefficients @ known + self.left @ right[k:]])

    def __rmatmul__(self, left: torch.Tensor) -> torch.Tensor:
        return (self @ left.mT).mT

    def dense(self) -> torch.Tensor:
        """The matrix."""
        return self @ torch.eye(sum(self.coefficients.shape), dtype=self.left.dtype)

    def root_times(self, own: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """Effects with this covariance from standard normal vectors, one for each gene and one for each direction."""
        k = self.coefficients.shape[1]
        known = self.perturbed.root_times(own[:k], directions)
        root = torch.linalg.cholesky(self.left + _JITTER * torch.eye(len(self.left), dtype=own.dtype))
        return torch.cat([known, self.coefficients @ known + root @ own[k:]])
