"""Sparse interactions: single genes that a measured combination moves otherwise than its genes do."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SparseInteractions:
    """Posterior of s for P measured combinations: with a probability it is normal, else 0; each but `rows` P x G."""

    rows: torch.Tensor  # P: positions among the conditions
    probability: torch.Tensor
    center: torch.Tensor
    spread: torch.Tensor  # variance about the center

    @property
    def mean(self) -> torch.Tensor:
        """Posterior mean, P x G."""
        return self.probability * self.center

    @property
    def variance(self) -> torch.Tensor:
        """Posterior variance, P x G."""
        return self.probability * (self.spread + (1 - self.probability) * self.center**2)

    def of_rows(self, chosen: torch.Tensor) -> SparseInteractions:
        """Those of some combinations, by their positions."""
        return SparseInteractions(*(x[chosen] for x in (self.rows, self.probability, self.center, self.spread)))

    def of_columns(self, columns: torch.Tensor) -> SparseInteractions:
        """Those of the genes of the transcriptome at these columns."""
        kept = (x[:, columns] for x in (self.probability, self.center, self.spread))
        return SparseInteractions(self.rows, *kept)

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """One draw, P x G."""
        there = torch.rand(self.center.shape, generator=generator, dtype=torch.float64) < self.probability
        normal = torch.randn(self.center.shape, generator=generator, dtype=torch.float64)
        return there * (self.center + self.spread.sqrt() * normal)
