r"""Covariance of the measured effects at one class and level, as a sparse matrix plus a few directions.

.. math::
    \Sigma = E + U U^\top, \qquad E = \operatorname{diag}(d) + D \Lambda D^\top,

with the noise and the residuals of the conditions in d, what they have in common (directions of K, all combinations,
the controls) in the columns of U, and the remaining effects of genes in :math:`\Lambda`. Of a gene that is in one
condition alone these are part of d. The other genes, which combinations or a graph link, have a matrix of their own:

.. math::
    E^{-1} = d^{-1} - d^{-1} D P^{-1} D^\top d^{-1}, \qquad P = \Lambda^{-1} + D^\top d^{-1} D .

So the cost grows linearly in the number of conditions, and with the cube of that of linked genes.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

if TYPE_CHECKING:
    from raptorgraph.inference._gene_covariance import GeneCovariance


def sparse_times(matrix: sparse.csr_array, dense: torch.Tensor) -> torch.Tensor:
    """Product of a sparse and a dense matrix."""
    found: torch.Tensor = torch.from_numpy(matrix @ dense.numpy())
    return found


class Links:
    """Which genes are linked, by combinations, by several conditions or by a graph; and the conditions that hold them.

    Parameters
    ----------
    design
        Conditions x k, 0/1.
    edges
        Pairs of genes that a graph links, E x 2.
    """

    def __init__(self, design: sparse.csr_array, edges: np.ndarray) -> None:
        linked = design.sum(0) > 1
        linked[np.unique(design[design.sum(1) > 1].indices)] = True
        linked[np.unique(edges)] = True
        self.genes = np.flatnonzero(linked)
        held = design @ linked > 0
        self.rows, self.other_rows = np.flatnonzero(held), np.flatnonzero(~held)
        self.members = sparse.csr_array(design[self.rows][:, self.genes])  # linked conditions x linked genes
        self.alone = sparse.csr_array(design @ sparse.diags_array((~linked).astype(float)))  # conditions x k


class LowRank:
    """The covariance at one class and level.

    Parameters
    ----------
    links
        Which genes are linked.
    scale
        Scale of the single effects in each condition, shape (C,).
    residual
        Variance of what belongs to each condition and not to its genes, shape (C,).
    loads
        U, C x columns.
    genes
        Covariance of the single effects, without the directions that `loads` hold; None where they are not inherited.
    level
        Variance by which `genes` is multiplied.
    """

    def __init__(
        self,
        links: Links,
        scale: torch.Tensor,
        residual: torch.Tensor,
        loads: torch.Tensor,
        genes: GeneCovariance,
        level: float,
    ) -> None:
        self.links, self.loads = links, loads
        self.rows = torch.from_numpy(links.rows)
        variance = level * genes.specific
        self.own = residual + sparse_times(links.alone, variance[:, None])[:, 0]  # d
        self.log_det = self.own.log().sum()
        if len(links.genes):
            self.linked_variance = variance[torch.from_numpy(links.genes)]
            self.held = sparse.csr_array(links.members * scale[self.rows].numpy()[:, None])  # D of linked conditions
            precision = _precision(self.linked_variance, links.genes, genes)
            scaled = self.held / self.own[self.rows].sqrt().numpy()[:, None]
            self._to_genes = sparse.csr_array((self.held / self.own[self.rows].numpy()[:, None]).T)
            self.factor = torch.linalg.cholesky(precision + torch.from_numpy((scaled.T @ scaled).toarray()))
            self.log_det = self.log_det + self.linked_variance.log().sum() + 2 * self.factor.diagonal().log().sum()
        self.solved_loads = self._solve_without_loads(loads)
        capacitance = torch.eye(loads.shape[1], dtype=loads.dtype) + loads.mT @ self.solved_loads
        self.capacitance = torch.linalg.cholesky(0.5 * (capacitance + capacitance.mT))
        self.log_det = self.log_det + 2 * self.capacitance.diagonal().log().sum()

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        """Inverse of the covariance times a matrix, C x n."""
        through = torch.cholesky_solve(self.solved_loads.mT @ right, self.capacitance)
        return self._solve_without_loads(right).sub_(self.solved_loads @ through)

    def sums(self, right: torch.Tensor) -> torch.Tensor:
        """Sums over the conditions of each linked gene of their part of a matrix / d, linked genes x n."""
        return sparse_times(self._to_genes, right)

    def linked_solution(self, right: torch.Tensor, scores: torch.Tensor, pulled: torch.Tensor) -> torch.Tensor:
        """Part of :meth:`solve` of the linked conditions, from their part of the matrix, the scores and the pulls."""
        loads = self.loads[self.rows]
        pulled = pulled - (self.linked_inverse @ self.sums(loads)) @ scores
        return (right - loads @ scores - sparse_times(self.held, pulled)) / self.own[self.rows, None]

    def linked_inverse_diagonal(self) -> torch.Tensor:
        r"""Diagonal of :math:`D^\top \Sigma^{-1} D` for linked genes without a graph."""
        variance = self.linked_variance
        found = (1 - self.linked_inverse.diagonal() / variance) / variance
        through = sparse_times(self.held.T, self.solved_loads[self.rows])
        half = torch.linalg.solve_triangular(self.capacitance, through.mT, upper=False)
        return found - (half**2).sum(0)

    @cached_property
    def linked_inverse(self) -> torch.Tensor:
        """Inverse of P, linked x linked genes."""
        return torch.cholesky_inverse(self.factor)

    def inverse_diagonal(self) -> torch.Tensor:
        """Diagonal of the inverse, shape (C,)."""
        found = 1 / self.own
        if len(self.links.genes):
            through = sparse_times(self.held, self.linked_inverse).numpy()
            own = torch.from_numpy((self.held * through).sum(1))
            found[self.rows] -= own / self.own[self.rows] ** 2
        half = torch.linalg.solve_triangular(self.capacitance, self.solved_loads.mT, upper=False)
        return found - (half**2).sum(0)

    def _solve_without_loads(self, right: torch.Tensor) -> torch.Tensor:
        found = right / self.own[:, None]
        if len(self.links.genes):
            carried = sparse_times(self.held, self.linked_inverse @ self.sums(right[self.rows]))
            found[self.rows] -= carried / self.own[self.rows, None]
        return found


def _precision(variance: torch.Tensor, linked: np.ndarray, genes: GeneCovariance) -> torch.Tensor:
    """Inverse covariance of linked genes, whose direct effects have these variances."""
    if not len(genes.edges):
        return torch.diag(1 / variance)
    position = torch.full((len(genes.specific),), -1)
    position[torch.from_numpy(linked)] = torch.arange(len(linked))
    direct = torch.eye(len(linked), dtype=variance.dtype)
    direct[position[genes.edges[:, 0]], position[genes.edges[:, 1]]] -= genes.weights
    return direct.mT @ (direct / variance[:, None])
