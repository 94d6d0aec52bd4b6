r"""Covariance of the measured effects at one class and level, as a sparse matrix plus a few directions.

.. math::
    \Sigma = E + U U^\top, \qquad E = \operatorname{diag}(d) + D \Lambda D^\top,

with the noise and the residuals of the conditions in d, what they have in common (directions of K, all combinations,
the controls) in the columns of U, and the remaining effects of genes in :math:`\Lambda`. Of a gene that is in one
condition alone these are part of d. The other genes, which combinations or a graph link, have a matrix of their own:

.. math::
    E^{-1} = d^{-1} - d^{-1} D P^{-1} D^\top d^{-1}, \qquad P = \Lambda^{-1} + D^\top d^{-1} D .

P has a block for each set of genes that are linked to each other. So the cost grows linearly in the number of
conditions, and with the cube of the size of these sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from raptorgraph.inference._blocks import BlockMatrix, Blocks

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
        held = design @ linked > 0
        genes, rows = np.flatnonzero(linked), np.flatnonzero(held)
        members = sparse.csr_array(design[rows][:, genes])
        alone = np.array((design @ sparse.diags_array((~linked).astype(float))).nonzero())
        # Where D' diag(x) D has what of each linked condition: its genes x its genes.
        held_genes = np.split(members.indices, members.indptr[1:-1])
        at = [(c, i, j) for c, one in enumerate(held_genes) for i in one for j in one]
        self.genes, self.rows = torch.from_numpy(genes), torch.from_numpy(rows)
        self.alone = torch.from_numpy(alone).long().unbind()  # conditions of other genes, and these genes
        self.members, self.conditions = members, sparse.csr_array(members.T)
        position = np.full(design.shape[1], -1)
        position[genes] = np.arange(len(genes))
        row, column = position[edges.reshape(-1, 2)].T
        shape = (len(genes), len(genes))
        self.blocks = Blocks(members.T @ members + sparse.csr_array((np.ones(len(row)), (row, column)), shape=shape))
        condition, gene, other = torch.tensor(at, dtype=torch.long).view(-1, 3).T
        self.entries = condition, self.blocks.places(gene, other)
        self._along = self._products(np.r_[row, np.arange(len(genes))], np.r_[column, np.arange(len(genes))])

    def _products(self, row: np.ndarray, column: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Products of two entries of a row of I - W: places, the row, and which entries; those of I come last."""
        by_row = sparse.csr_array((np.ones(len(row)), (row, np.arange(len(row)))), shape=(len(self.genes), len(row)))
        one, other = (by_row.T @ by_row).nonzero()
        gene, another = (torch.from_numpy(column[entries]) for entries in (one, other))
        return self.blocks.places(gene, another), *(torch.from_numpy(x) for x in (row[one], one, other))

    def precision(self, variance: torch.Tensor, genes: GeneCovariance) -> torch.Tensor:
        """Entries of the inverse covariance of linked genes, whose direct effects have variances (levels x linked)."""
        place, row, one, other = self._along
        direct = torch.cat([-genes.weights, variance.new_ones(len(self.genes))])
        found = variance.new_zeros(len(variance), self.blocks.n_entries)
        return found.index_add_(1, place, direct[one] * direct[other] / variance[:, row])


class LowRank:
    """The covariances at one class and several levels, the first axis of all that follows.

    Parameters
    ----------
    links
        Which genes are linked.
    scale
        Scale of the single effects in each condition, shape (C,).
    residual
        Variance of what belongs to each condition and not to its genes, levels x C.
    loads
        U, levels x C x columns.
    genes
        Covariance of the single effects at level 1, whose directions are in `loads`.
    levels
        Shape (levels,).
    """

    def __init__(
        self,
        links: Links,
        scale: torch.Tensor,
        residual: torch.Tensor,
        loads: torch.Tensor,
        genes: GeneCovariance,
        levels: torch.Tensor,
    ) -> None:
        self.links, self.loads, self.rows = links, loads, links.rows
        rows, held = links.alone
        self.own = residual.index_add(1, rows, levels[:, None] * genes.specific[held])  # d
        self.log_det = self.own.log().sum(1)
        if len(links.genes):
            self.scale = scale[self.rows]
            self.weight = self.scale / self.own[:, self.rows]  # of conditions in their genes
            self.variance = levels[:, None] * genes.specific[links.genes]
            condition, place = links.entries
            precision = links.precision(self.variance, genes)
            precision.index_add_(1, place, (self.weight * self.scale)[:, condition])
            self.inverse, log_det = BlockMatrix(links.blocks, precision).inverse_and_log_det()  # of P
            self.log_det += self.variance.log().sum(1) + log_det
        self.solved_loads = self._without_loads(loads)
        capacitance = torch.eye(loads.shape[2], dtype=loads.dtype) + loads.mT @ self.solved_loads
        self.capacitance = torch.linalg.cholesky(0.5 * (capacitance + capacitance.mT))
        self.log_det += 2 * self.capacitance.diagonal(dim1=1, dim2=2).log().sum(1)

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        """Inverse of each covariance times a matrix C x n, levels x C x n."""
        through = torch.cholesky_solve(self.solved_loads.mT @ right, self.capacitance)
        found = self._without_loads(right[None].expand(len(self.own), -1, -1))
        return found.sub_(self.solved_loads @ through)

    def inverse_diagonal(self) -> torch.Tensor:
        """Diagonals of the inverses, levels x C."""
        found: torch.Tensor = 1 / self.own
        if len(self.rows):
            rows, at = self.links.entries
            among = torch.zeros_like(self.weight).index_add_(1, rows, self.inverse.entries[:, at])
            found[:, self.rows] -= self.weight**2 * among
        half: torch.Tensor = torch.linalg.solve_triangular(self.capacitance, self.solved_loads.mT, upper=False)
        return found - half.square().sum(1)

    # -- linked genes ----------------------------------------------------------------------------------------------
    def sums(self, right: torch.Tensor) -> torch.Tensor:
        """Weighted sums over the conditions of each linked gene, levels x linked x n, of linked conditions x 1 x n."""
        weighted = right * self.weight.T.contiguous()[:, :, None]
        summed = sparse_times(self.links.conditions, weighted.flatten(1))
        return summed.view(len(summed), *weighted.shape[1:]).transpose(0, 1)

    def spread(self, pulled: torch.Tensor) -> torch.Tensor:
        """What effects of linked genes (levels x linked x n) take from the linked conditions, levels x these x n."""
        n_levels, _, n = pulled.shape
        spread = sparse_times(self.links.members, pulled.transpose(0, 1).flatten(1))
        found: torch.Tensor = spread.view(len(spread), n_levels, n).transpose(0, 1) * self.weight[:, :, None]
        return found

    def inverse_of_genes(self) -> torch.Tensor:
        r"""Diagonal of :math:`D^\top \Sigma^{-1} D` for linked genes without a graph, levels x linked."""
        found: torch.Tensor = (1 - self.inverse.diagonal / self.variance) / self.variance
        through = self.of_genes(self.solved_loads[:, self.rows])
        half: torch.Tensor = torch.linalg.solve_triangular(self.capacitance, through.mT, upper=False)
        return found - half.square().sum(1)

    def of_genes(self, values: torch.Tensor) -> torch.Tensor:
        """D' times values of the linked conditions, levels x these x n."""
        n_levels, _, n = values.shape
        scaled = (values * self.scale[:, None]).transpose(0, 1).flatten(1)
        return sparse_times(self.links.conditions, scaled).view(-1, n_levels, n).transpose(0, 1)

    def _without_loads(self, right: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = right / self.own[:, :, None]
        if len(self.rows):
            pulled = self.inverse.times(self.sums(right[:, self.rows].transpose(0, 1)))
            found[:, self.rows] -= self.spread(pulled)
        return found
