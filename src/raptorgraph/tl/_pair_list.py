"""Many pairs of genes: their positions, not their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray

    Pair = tuple[str, ...]


class PairList(Sequence["Pair"]):
    """Pairs of genes, in order.

    Parameters
    ----------
    genes
        Names of genes, sorted.
    first, second
        Positions of both genes of each pair, the first before the second.
    """

    def __init__(self, genes: Sequence[str], first: NDArray[np.int32], second: NDArray[np.int32]) -> None:
        self.genes, self.first, self.second = list(genes), first, second

    @classmethod
    def of(cls, genes: Iterable[str], pairs: Sequence[Pair]) -> PairList:
        """Pairs that are named, each sorted, in their order."""
        genes = sorted(genes)
        place = {gene: k for k, gene in enumerate(genes)}
        at = np.array([[place[gene] for gene in pair] for pair in pairs], dtype=np.int32).reshape(-1, 2)
        return cls(genes, at[:, 0], at[:, 1])

    @classmethod
    def all_but(cls, genes: Iterable[str], without: Collection[Pair]) -> PairList:
        """All pairs of genes but some, in the order of their names."""
        genes = sorted(genes)
        place = {gene: k for k, gene in enumerate(genes)}
        wanted = np.triu(np.ones((len(genes), len(genes)), dtype=bool), 1)
        for pair in without:
            if len(pair) == 2 and all(gene in place for gene in pair):
                wanted[place[pair[0]], place[pair[1]]] = False
        first, second = np.nonzero(wanted)
        return cls(genes, first.astype(np.int32), second.astype(np.int32))

    def __len__(self) -> int:
        return len(self.first)

    @overload
    def __getitem__(self, at: int) -> Pair: ...

    @overload
    def __getitem__(self, at: slice) -> PairList: ...

    def __getitem__(self, at: int | slice) -> Pair | PairList:
        if isinstance(at, slice):
            return PairList(self.genes, self.first[at], self.second[at])
        return self.genes[self.first[at]], self.genes[self.second[at]]

    def taken(self, at: np.ndarray) -> PairList:
        """Pairs at some positions, or where a mask says so."""
        return PairList(self.genes, self.first[at], self.second[at])

    def positions(self, perturbed: Sequence[str]) -> torch.Tensor:
        """Positions of both genes among the perturbed genes of a model, pairs x 2."""
        column = {gene: k for k, gene in enumerate(perturbed)}
        at = np.array([column[gene] for gene in self.genes], dtype=np.int64)
        return torch.as_tensor(np.stack([at[self.first], at[self.second]], axis=1))
