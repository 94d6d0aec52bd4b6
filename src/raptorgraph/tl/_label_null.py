"""Test the measured effect of a perturbation, and the change of a gene set in it, against control cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from raptorgraph._arguments import check_integer
from raptorgraph._progress import progress_bar
from raptorgraph.screen import _noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.tl._set_scores import Ranking


@dataclass(frozen=True)
class LabelNull:
    """Test results of the perturbed genes: ``p_effect``, shape (k,), and ``change`` and ``p_change``, k x gene sets."""

    p_effect: np.ndarray
    change: np.ndarray
    p_change: np.ndarray


def check_null(model: RaptorGraphModel, n_null: int) -> None:
    """ValueError if pseudo-perturbations are too few, or the model has no control cells to draw them from."""
    if check_integer("n_null", n_null, 0) and n_null < 20:
        raise ValueError(f"n_null={n_null!r} must be 0 or at least 20.")
    if n_null and model.adata is None:
        raise ValueError("The model was loaded without data: load it with adata=..., or use n_null=0.")


def label_null(model: RaptorGraphModel, rankings: Sequence[Ranking], *, n_null: int, seed: int) -> LabelNull:
    """Compare the measured effects of the perturbed genes with those of `n_null` pseudo-perturbations.

    The `rankings` say, for each perturbed gene, which genes take part and which gene sets there are; their values are
    not used. Without any there is only ``p_effect``.
    """
    screen = model.screen
    measured, noise = _noise.measured_latents(screen), _noise.control_noise(screen)
    targets = model.target_columns
    p_effect = np.empty(len(targets))
    change = [set_changes(measured.effect[[i]], ranking)[0] for i, ranking in enumerate(rankings)]
    p_change = [np.empty(0)] * len(change)
    classes = _noise.cell_classes(measured.n_cells)
    sizes = np.unique(classes)
    with progress_bar("Noise", len(sizes)) as advance:
        for n in sizes:
            effects, variance = noise.draw(int(n), n_null, np.random.default_rng([seed, int(n)]))
            statistics = _noise.effect_statistics(effects, variance, noise.seen)
            for i in np.flatnonzero(classes == n).tolist():
                observed = _statistics(measured, noise, i, targets[i])
                # two statistics, of which the smaller p-value counts twice
                p_effect[i] = min(1.0, 2 * _noise.tail_probability(observed, statistics).min())
                if change:
                    null = set_changes(effects, rankings[i]) * np.sqrt(np.median(measured.variance[i] / variance))
                    up, down = _noise.tail_probability(change[i], null), _noise.tail_probability(-change[i], -null)
                    p_change[i] = np.minimum(1.0, 2 * np.minimum(up, down))
            advance()
    return LabelNull(p_effect, np.array(change), np.array(p_change))


def clear_latents(model: RaptorGraphModel, p_effect: np.ndarray, n_latents: int) -> np.ndarray:
    """Whether the first latents stand out; of those without a gene, and so without a p-value, which are active."""
    clear = _noise.stands_out(p_effect)
    if n_latents > len(clear):
        clear = np.append(clear, model.latent_activity()["active"].to_numpy()[len(clear) : n_latents])
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
    return np.asarray(effects @ weighted / norm - others * (np.array([w.sum() for w in weights]) / norm))


def _statistics(measured: _noise.MeasuredLatents, noise: _noise.ControlNoise, i: int, target: int) -> np.ndarray:
    """Size of an effect in units of noise, without the perturbed gene itself."""
    genes = noise.seen.copy()
    genes[target if target >= 0 else []] = False
    genes = genes if genes.any() else noise.seen
    return np.asarray(_noise.effect_statistics(measured.effect[[i]], measured.variance[i], genes)[0])
