"""Block-diagonal matrices of genes, with a block for each set of genes that are linked to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from scipy import sparse


class Blocks:
    """Where the blocks are: the connected components of a graph of n genes, those of one size together.

    Parameters
    ----------
    adjacency
        n x n, not 0 where two genes are linked.
    """

    def __init__(self, adjacency: sparse.csr_array) -> None:
        _, component = connected_components(adjacency, directed=False)
        sizes = np.bincount(component)
        of_gene, order = sizes[component], np.argsort(component, kind="stable")
        self.n, self.largest = len(component), int(sizes.max(initial=0))
        self.groups = []  # blocks x size: their genes
        self._first = np.zeros(self.n, dtype=np.int64)  # place of the row of each gene, and its place within a row
        self._within = np.zeros(self.n, dtype=np.int64)
        self.n_entries = 0
        for size in np.unique(sizes[sizes > 0]):
            genes = order[of_gene[order] == size].reshape(-1, size)
            self._first[genes] = self.n_entries + size * np.arange(genes.size).reshape(genes.shape)
            self._within[genes] = np.arange(size)
            self.n_entries += genes.size * size
            self.groups.append(torch.from_numpy(genes))
        self.diagonal = self.places(torch.arange(self.n), torch.arange(self.n))

    def places(self, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Places among the entries of pairs of genes that are in one block."""
        return torch.from_numpy(self._first[row.numpy()] + self._within[column.numpy()])


class BlockMatrix:
    """Block-diagonal matrices at several levels.

    Parameters
    ----------
    blocks
        Where the blocks are.
    entries
        Levels x entries, as :meth:`Blocks.places` orders them.
    """

    def __init__(self, blocks: Blocks, entries: torch.Tensor) -> None:
        self.blocks, self.entries = blocks, entries

    def parts(self) -> list[torch.Tensor]:
        """Blocks of each size, levels x blocks x size x size; views of the entries."""
        sizes = [genes.numel() * genes.shape[1] for genes in self.blocks.groups]
        split = torch.split(self.entries, sizes, dim=1)
        shapes = [(*genes.shape, genes.shape[1]) for genes in self.blocks.groups]
        return [part.view(len(part), *shape) for part, shape in zip(split, shapes, strict=True)]

    def inverse_and_log_det(self) -> tuple[BlockMatrix, torch.Tensor]:
        """Inverses of positive definite matrices, and the logarithms of their determinants, shape (levels,)."""
        log_det = torch.zeros(len(self.entries), dtype=self.entries.dtype)
        inverses = []
        for part in self.parts():
            factor = torch.linalg.cholesky(part)
            log_det += 2 * factor.diagonal(dim1=2, dim2=3).log().sum((1, 2))
            inverses.append(torch.cholesky_inverse(factor).flatten(1))
        return BlockMatrix(self.blocks, torch.cat(inverses, 1)), log_det

    @property
    def diagonal(self) -> torch.Tensor:
        """Shape levels x n."""
        return self.entries[:, self.blocks.diagonal]

    def times(self, right: torch.Tensor) -> torch.Tensor:
        """Product with matrices, levels x n x columns."""
        if len(self.blocks.groups) == 1 and self.blocks.largest == self.blocks.n:
            return self.parts()[0][:, 0] @ right
        found = torch.empty_like(right)
        for genes, part in zip(self.blocks.groups, self.parts(), strict=True):
            found[:, genes.flatten()] = (part @ right[:, genes]).flatten(1, 2)
        return found
