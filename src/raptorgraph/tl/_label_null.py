"""Whether the cells of a perturbation show an effect, and a change of a gene set, that control cells do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from raptorgraph._progress import progress_bar
from raptorgraph.tl._noise import (
    ControlNoise,
    MeasuredLatents,
    cell_classes,
    control_noise,
    effect_statistics,
    false_discovery_rates,
    measured_latents,
    tail_probability,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.tl._set_scores import Ranking

_CLEAR = 0.05


@dataclass(frozen=True)
class LabelNull:
    """``p_effect``, shape (k,), and ``change`` and ``p_change`` of each gene set, k x sets, of the perturbed genes."""

    p_effect: np.ndarray
    change: np.ndarray
    p_change: np.ndarray


def label_null(model: RaptorGraphModel, rankings: Sequence[Ranking], *, n_null: int, seed: int) -> LabelNull:
    """Compare the measured effects of the perturbed genes with those of `n_null` pseudo-perturbations.

    Parameters
    ----------
    model
        Trained, with its data.
    rankings
        Of each perturbed gene: the genes that take part, and the gene sets; or none, for ``p_effect`` alone. Their
        values are not used.
    n_null
        Pseudo-perturbations of each number of cells.
    seed
        Of their cells.
    """
    measured, noise = measured_latents(model), control_noise(model)
    targets = model.target_columns
    p_effect = np.empty(len(targets))
    change = [set_changes(measured.effect[[i]], ranking)[0] for i, ranking in enumerate(rankings)]
    p_change = [np.empty(0)] * len(change)
    classes = cell_classes(measured.n_cells)
    sizes = np.unique(classes)
    with progress_bar("Noise", len(sizes)) as advance:
        for n in sizes:
            effects, variance = noise.draw(int(n), n_null, np.random.default_rng([seed, int(n)]))
            statistics = effect_statistics(effects, variance, noise.seen)
            for i in np.flatnonzero(classes == n):
                observed = _statistics(measured, noise, i, targets[i])
                # two statistics, of which the smaller p-value counts twice
                p_effect[i] = min(1.0, 2 * tail_probability(observed, statistics).min())
                if change:
                    null = set_changes(effects, rankings[i]) * np.sqrt(np.median(measured.variance[i] / variance))
                    up, down = tail_probability(change[i], null), tail_probability(-change[i], -null)
                    p_change[i] = np.minimum(1.0, 2 * np.minimum(up, down))
            advance()
    return LabelNull(p_effect, np.array(change), np.array(p_change))


def stands_out(p_effect: np.ndarray) -> np.ndarray:
    """Whether the false discovery rate among all latents is at most 0.05; False where the p-value is NaN."""
    return false_discovery_rates(p_effect) <= _CLEAR


def set_changes(effects: np.ndarray, ranking: Ranking) -> np.ndarray:
    """Mean effect on the genes of each set minus that on the other ranked genes, n x sets.

    Weighted, it is the mean of weight times effect over the mean absolute weight, the other genes having the mean
    weight of the set.
    """
    positions = [ranking.places[found] for found in ranking.members.values()]
    sizes = np.array([len(found) for found in positions])
    weights = [np.asarray(ranking.weights[name], dtype=float) for name in ranking.members]
    rows, columns = np.concatenate(positions), np.repeat(np.arange(len(sizes)), sizes)
    shape = (effects.shape[1], len(sizes))
    members = sparse.csc_matrix((np.ones(len(rows)), (rows, columns)), shape)
    weighted = sparse.csc_matrix((np.concatenate(weights), (rows, columns)), shape)
    norm = np.array([np.abs(w).sum() for w in weights])
    total = effects[:, ranking.ranked].sum(axis=1, dtype=np.float64)[:, None]
    others = (total - effects @ members) / (len(ranking.ranked) - sizes)
    return effects @ weighted / norm - others * (np.array([w.sum() for w in weights]) / norm)


def _statistics(measured: MeasuredLatents, noise: ControlNoise, i: int, own: int) -> np.ndarray:
    """Size of an effect in units of noise, without the perturbed gene itself."""
    genes = noise.seen.copy()
    genes[own if own >= 0 else []] = False
    return effect_statistics(measured.effect[[i]], measured.variance[i], genes if genes.any() else noise.seen)[0]
