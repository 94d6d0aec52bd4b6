"""Mean effects that the network is held to: of measured conditions, and of singles and pairs that nobody measured."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from raptorgraph.inference import EffectPosterior
    from raptorgraph.screen._moments import EffectMoments

N_CONDITIONS = 8  # in a batch
N_PAIRS = 512  # that were not measured
_SD_FLOOR = 0.02  # on the expression scale


@dataclass(frozen=True)
class EffectTargets:
    """Effects of conditions with their uncertainty.

    `mask` is conditions x perturbed genes; `effect` and `variance` are conditions x genes on the expression scale; the
    first `n_core` conditions were measured or are singles, the others are pairs.
    """

    mask: Tensor
    effect: Tensor
    variance: Tensor
    n_core: int

    @classmethod
    def measured(cls, effects: EffectMoments, design: np.ndarray) -> EffectTargets:
        """Take the effects as they were measured, of the conditions that have cells (the first is the control)."""
        found = np.flatnonzero(effects.n > 0)
        found = found[found > 0]
        return cls._of(design[found], effects.effect[found], effects.variance[found], len(found))

    @classmethod
    def inferred(cls, posterior: EffectPosterior, design: np.ndarray, seed: int) -> EffectTargets:
        """Take them from the posterior, for the measured conditions, and for singles and some pairs that were not."""
        known, k = {tuple(np.flatnonzero(row).tolist()) for row in design}, design.shape[1]
        rng = np.random.default_rng((seed, 5))
        pairs = [pair for pair in combinations(range(k), 2) if pair not in known]
        if len(pairs) > N_PAIRS:
            pairs = [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:N_PAIRS])]
        singles = [(gene,) for gene in range(k) if (gene,) not in known]
        sets = [*singles, *pairs]
        added = np.zeros((len(sets), k))
        for row, genes in zip(added, sets, strict=True):
            row[list(genes)] = 1
        mask = np.concatenate([design[1:], added])
        mean, sd = posterior.mean_and_sd(torch.as_tensor(mask))
        return cls._of(mask, mean, sd**2 + _SD_FLOOR**2, len(design) - 1 + len(singles))

    @classmethod
    def _of(cls, mask: np.ndarray, effect: np.ndarray, variance: np.ndarray, n_measured: int) -> EffectTargets:
        return cls(*(torch.as_tensor(x, dtype=torch.float32) for x in (mask, effect, variance)), n_measured)

    def of_singles(self) -> Tensor:
        """Effects of all perturbed genes, shrunken by their noise; 0 of those that were not measured alone."""
        found = torch.zeros(self.mask.shape[1], self.effect.shape[1])
        alone = torch.nonzero(self.mask[: self.n_core].sum(1) == 1).squeeze(1)
        effect, variance = self.effect[alone], self.variance[alone]
        found[self.mask[alone].argmax(1)] = effect * effect**2 / (effect**2 + variance)
        return found

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the conditions of a batch, in equal numbers from both kinds where there are enough."""
        n, rest = self.n_core, len(self.mask) - self.n_core
        n_rest = min(N_CONDITIONS // 2, rest)
        n_first = min(N_CONDITIONS - n_rest, n)
        return np.concatenate([rng.choice(n, n_first, replace=False), n + rng.choice(rest, n_rest, replace=False)])
