"""Mean effects that the network is held to: of measured conditions, and of singles and pairs that nobody measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

    from raptorgraph.inference import EffectPosterior
    from raptorgraph.screen._moments import EffectMoments

Values: TypeAlias = "np.ndarray | Tensor"

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
        singles = [(gene,) for gene in range(k) if (gene,) not in known]
        sets = [*singles, *_some_pairs(k, known, np.random.default_rng((seed, 5)))]
        added = np.zeros((len(sets), k))
        for row, genes in zip(added, sets, strict=True):
            row[list(genes)] = 1
        mask = np.concatenate([design[1:], added])
        mean, sd = posterior.mean_and_sd(torch.as_tensor(mask))
        return cls._of(mask, mean, sd**2 + _SD_FLOOR**2, len(design) - 1 + len(singles))

    @classmethod
    def _of(cls, mask: Values, effect: Values, variance: Values, n_core: int) -> EffectTargets:
        of = partial(torch.as_tensor, dtype=torch.float32)
        return cls(of(mask), of(effect), of(variance), n_core)

    def of_singles(self) -> Tensor:
        """Effects of all perturbed genes, shrunken by their noise; 0 of those that were not measured alone."""
        found = torch.zeros(self.mask.shape[1], self.effect.shape[1])
        alone = torch.nonzero(self.mask[: self.n_core].sum(1) == 1).squeeze(1)
        effect, variance = self.effect[alone], self.variance[alone]
        found[self.mask[alone].argmax(1)] = effect * effect**2 / (effect**2 + variance)
        return found

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of the conditions of a batch, in equal numbers from both kinds where there are enough."""
        n, rest = self.n_core, len(self.mask) - self.n_core
        n_rest = min(N_CONDITIONS // 2, rest)
        n_first = min(N_CONDITIONS - n_rest, n)
        return np.concatenate([rng.choice(n, n_first, replace=False), n + rng.choice(rest, n_rest, replace=False)])


def _some_pairs(k: int, known: Collection[tuple[int, ...]], rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Pairs of genes that are not known: all, or as many as are used, drawn at random."""
    if k * (k - 1) // 2 <= 8 * N_PAIRS:
        pairs = [pair for pair in combinations(range(k), 2) if pair not in known]
    else:  # of many genes few pairs are drawn twice, or known
        drawn = (tuple(sorted(rng.choice(k, 2, replace=False).tolist())) for _ in range(2 * N_PAIRS))
        pairs = [pair for pair in dict.fromkeys(drawn) if pair not in known]
    return [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:N_PAIRS])]
