"""Test the measured effect of a perturbation, and the change of a gene set in it, against control cells."""

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
    """Test results of the perturbed genes: ``p_effect``, shape (k,), and ``change`` and ``p_change``, k x gene sets."""

    p_effect: np.ndarray
    change: np.ndarray
    p_change: np.ndarray


def label_null(model: RaptorGraphModel, rankings: Sequence[Ranking], *, n_null: int, seed: int) -> LabelNull:
    """Compare the measured effects of the perturbed genes with those of `n_null` pseudo-perturbations.

    Parameters
    ----------
    model
        A trained model with its data.
    rankings
        Genes that take part and gene sets, for each perturbed gene; or none, for ``p_effect`` alone. Their values are
        not used.
    n_null
        Pseudo-perturbations of each number of cells.
    seed
        Seed of the draws of their cells.
    """
    screen = model.screen
    measured, noise = measured_latents(screen), control_noise(screen)
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
            for i in np.flatnonzero(classes == n).tolist():
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
    clear: np.ndarray = false_discovery_rates(p_effect) <= _CLEAR
    return clear


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
    change: np.ndarray = effects @ weighted / norm - others * (np.array([w.sum() for w in weights]) / norm)
    return change


def _statistics(measured: MeasuredLatents, noise: ControlNoise, i: int, target: int) -> np.ndarray:
    """Size of an effect in units of noise, without the perturbed gene itself."""
    genes = noise.seen.copy()
    genes[target if target >= 0 else []] = False
    genes = genes if genes.any() else noise.seen
    found: np.ndarray = effect_statistics(measured.effect[[i]], measured.variance[i], genes)[0]
    return found
