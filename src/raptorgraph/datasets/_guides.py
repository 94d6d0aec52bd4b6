"""Guides of the perturbed genes, some of which do nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Guides:
    """Which guides work, (n_perturbed, n_guides), bool; every cell has one of each of its genes, drawn at random."""

    works: np.ndarray
    rng: np.random.Generator

    def draw(self, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Guide of each gene in each cell, -1 where the gene is none of its own, and whether that guide works.

        `members` is cells x n_perturbed, bool, and so are the results.
        """
        n_perturbed, n_guides = self.works.shape
        carried = self.rng.integers(n_guides, size=members.shape)
        return np.where(members, carried, -1), self.works[np.arange(n_perturbed), carried]

    def column(self, carried: np.ndarray, names: Sequence[str]) -> pd.Categorical:
        """Guides of each cell as text, those of a double joined by ``"|"``; missing in control cells."""
        texts = [
            "|".join(f"{names[gene]}_{guides[gene] + 1}" for gene in np.flatnonzero(guides >= 0).tolist()) or None
            for guides in carried
        ]
        return pd.Categorical(texts)

    def table(self, names: Sequence[str]) -> pd.DataFrame:
        """One row for each guide: its gene, and whether it works."""
        gene, guide = np.indices(self.works.shape).reshape(2, -1)
        index = pd.Index([f"{names[i]}_{k + 1}" for i, k in zip(gene, guide, strict=True)], name="guide")
        return pd.DataFrame({"gene": [names[i] for i in gene], "works": self.works.ravel()}, index=index)


def random_guides(n_perturbed: int, n_guides: int, dead: float, rng: np.random.Generator) -> Guides | None:
    """Guides of which one does nothing in the share `dead` of the genes; None where each gene has one guide."""
    if n_guides == 1:
        return None
    works = np.ones((n_perturbed, n_guides), dtype=bool)
    chosen = rng.permutation(n_perturbed)[: round(dead * n_perturbed)]
    works[chosen, rng.integers(n_guides, size=len(chosen))] = False
    return Guides(works, rng)
