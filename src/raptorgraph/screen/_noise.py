"""Sampling noise of measured effects: control cells compared with control cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, sparse, stats

from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._matrix import Matrix, to_dense
from raptorgraph.screen._moments import effects_of

if TYPE_CHECKING:
    from raptorgraph.screen._screen import Screen
    from raptorgraph.screen._sums import Sums

_FLOOR = 1e-2  # smallest variance, as a part of the typical one, as in effect_moments
_CHUNK = 250  # pseudo-perturbations at a time, which bounds the memory
_SEEN = 10  # control cells that show a gene which the test of an effect counts
_TOP = 10  # genes of the statistic for sparse effects
_CLEAR = 0.05  # false discovery rate of what stands out
_MOST_CELLS = 512  # the shape of the noise no longer depends on the number of cells; its size is put in
_MOST_PARTS = 8  # of the controls, from which halves are made


class ControlNoise:
    """Pseudo-perturbations: control cells drawn at random, whose effect against the other control cells is measured.

    The cells x genes `X` are counts if `library` has the total counts of each cell, else values on the expression
    scale. `batch` has the batch of each cell; ValueError if none has two control cells.
    """

    def __init__(self, X: Matrix, library: np.ndarray | None = None, batch: np.ndarray | None = None) -> None:
        values = to_expression(X, library).astype(np.float64)
        batch = np.zeros(values.shape[0], dtype=int) if batch is None else np.asarray(batch)
        by_batch = [np.flatnonzero(batch == value) for value in np.unique(batch)]
        # of a batch with one control cell none can be spared
        self._cells = [values[rows] for rows in by_batch if len(rows) > 1]
        if not self._cells:
            raise ValueError("Sampling noise is learned from control cells, of which one batch must have at least 2.")
        self._sums = [_row(cells.sum(0)) for cells in self._cells]
        self.n_cells = sum(cells.shape[0] for cells in self._cells)
        squares = [cells**2 if isinstance(cells, np.ndarray) else cells.multiply(cells) for cells in self._cells]
        between = [sums**2 / cells.shape[0] for sums, cells in zip(self._sums, self._cells, strict=True)]
        within = np.sum([_row(values.sum(0)) for values in squares], axis=0) - np.sum(between, axis=0)
        variance = np.maximum(within, 0.0) / (self.n_cells - len(self._cells))
        typical = np.median(variance[variance > 0]) if (variance > 0).any() else 1.0
        self.variance = np.maximum(variance, _FLOOR * typical)
        n_seen = np.sum([_row((cells != 0).sum(0)) for cells in self._cells], axis=0)
        self.seen = n_seen >= min(_SEEN, 0.1 * self.n_cells)
        if not self.seen.any():
            self.seen = n_seen > 0

    def draw(self, n: int, n_draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Effects of pseudo-perturbations of about `n` cells, draws x genes, and their sampling variance, shape (G,).

        The cells are drawn without replacement, from each batch the same share and at most half, and compared with
        the controls that are left in it, as :func:`raptorgraph.screen._moments.effects_of` compares.
        """
        in_batch = [cells.shape[0] for cells in self._cells]
        sizes = [max(1, min(n_here // 2, round(n / self.n_cells * n_here))) for n_here in in_batch]
        total = sum(sizes)
        effects = np.empty((n_draws, self.variance.size), dtype=np.float32)
        for start in range(0, n_draws, _CHUNK):
            some = range(start, min(start + _CHUNK, n_draws))
            effect = np.zeros((len(some), self.variance.size))
            for cells, sums, n_here, size in zip(self._cells, self._sums, in_batch, sizes, strict=True):
                drawn = np.argpartition(rng.random((len(some), n_here)), size - 1, axis=1)[:, :size]
                where = (np.repeat(np.arange(len(some)), size), drawn.ravel())
                found = to_dense(sparse.csr_matrix((np.ones(drawn.size), where), (len(some), n_here)) @ cells)
                effect += size / total * (found / size - (sums - found) / (n_here - size))
            effects[some] = effect
        share = sum((size / total) ** 2 / (n_here - size) for n_here, size in zip(in_batch, sizes, strict=True))
        return effects, self.variance * (1 / total + share)


@dataclass(frozen=True)
class MeasuredLatents:
    """Measured effects of the perturbed genes.

    The effect of a gene that was perturbed alone is that of its condition. That of any other is its coefficient in a
    least squares fit of the conditions, weighted by their cells, in which effects add up; the variance is then somewhat
    too large, since the noise of the shared controls is counted for each condition.

    Attributes
    ----------
    effect
        k x G: difference to the controls on the expression scale.
    variance
        k x G: sampling variance of `effect`. The variance among cells is taken to be the same in a condition as among
        controls, and is estimated from both.
    n_cells
        Shape (k,): number of perturbed cells; where conditions are combined, as many as would have that variance.
    shared
        k x k: covariance of two effects in units of the variance of a single cell, as they are differences to the same
        controls.
    same_cells
        k x k: whether two effects rest, in part, on the same perturbed cells.
    """

    effect: np.ndarray
    variance: np.ndarray
    n_cells: np.ndarray
    shared: np.ndarray
    same_cells: np.ndarray


def measured_latents(screen: Screen, sums: Sums | None = None) -> MeasuredLatents:
    """Effects of all perturbed genes in the cells of a screen, or in those of which the sums are given."""
    sums = screen.sums() if sums is None else sums
    counts = np.zeros((len(screen.labels), sums.batch.max() + 1))
    np.add.at(counts, (sums.condition, sums.batch), sums.n)
    pooled = max(1, int(counts[0].sum()) - 1)
    moments = effects_of(sums, shrinkage=pooled)
    contrast = _contrasts(screen.design[1:], moments.n[1:])
    per_batch = contrast @ (counts[1:] / moments.n[1:, None])
    return MeasuredLatents(
        effect=contrast @ moments.effect[1:],
        variance=contrast**2 @ moments.variance[1:],
        n_cells=1 / (contrast**2 @ (1 / moments.n[1:])),
        shared=per_batch / np.maximum(counts[0], 1) @ per_batch.T,
        same_cells=np.abs(contrast) @ np.abs(contrast).T > 0,
    )


def measured_on_halves(screen: Screen, rng: np.random.Generator) -> list[tuple[MeasuredLatents, MeasuredLatents]]:
    """Effects against one half of the controls and against the other, for several pairs of halves.

    The controls are dealt out at random to eight parts (fewer, where a batch has fewer controls), evenly within
    batches, and the halves are those of the parts in the rows of a Hadamard matrix: of them any two parts are in the
    same half equally often. The cells are read once. The parts depend on the names of the cells, not on their order.
    """
    rows = rng.permutation(screen.rows_by_name(screen.control))
    n_in_batch = np.array([len(rows)])
    if screen.batch is not None:
        rows = rows[np.argsort(screen.batch[rows], kind="stable")]
        n_in_batch = np.unique(screen.batch[rows], return_counts=True)[1]
    fewest = int(n_in_batch[n_in_batch > 1].min(initial=_MOST_PARTS))
    n_parts = min(_MOST_PARTS, 2 ** int(np.log2(fewest)))
    part = np.zeros(len(screen.codes), dtype=np.int64)
    part[rows] = 1 + np.arange(len(rows)) % n_parts
    sums, found = screen.sums(part=part), []
    for signs in linalg.hadamard(n_parts)[1:]:
        one, other = (
            measured_latents(screen, sums.of_parts(0, *(1 + np.flatnonzero(signs == sign)).tolist()))
            for sign in (1, -1)
        )
        found.append((one, other))
    return found


def control_noise(screen: Screen) -> ControlNoise:
    """Noise of the control cells of a screen, in the order of their names."""
    X, library = screen.source
    rows = screen.rows_by_name(screen.control)
    return ControlNoise(X[rows], *(None if values is None else values[rows] for values in (library, screen.batch)))


def _contrasts(design: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """Weights of the conditions in the effect of each perturbed gene, k x C."""
    weighted = design.T * n_cells
    contrasts: np.ndarray = np.linalg.pinv(weighted @ design) @ weighted
    for row in np.flatnonzero(design.sum(1) == 1):
        gene = int(design[row].argmax())
        contrasts[gene] = 0.0
        contrasts[gene, row] = 1.0
    contrasts[np.abs(contrasts) < 1e-9] = 0.0
    return contrasts


def cell_classes(n_cells: np.ndarray) -> np.ndarray:
    """Number of cells of the pseudo-perturbations that each effect is compared with: the power of two below its own."""
    return np.asarray(np.minimum(2 ** np.floor(np.log2(np.maximum(n_cells, 1))), _MOST_CELLS).astype(int))


def effect_statistics(effect: np.ndarray, variance: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Mean of squared z over `genes` (a mask), for broad effects, and over the ten largest, for sparse ones; n x 2.

    Effects are n x G, and their variance has shape (G,).
    """
    squared = effect[:, genes] ** 2 / variance[genes]
    top = min(_TOP, squared.shape[1])
    largest = np.partition(squared, squared.shape[1] - top, axis=1)[:, -top:]
    return np.stack([squared.mean(axis=1), largest.mean(axis=1)], axis=1)


def tail_probability(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    r"""Probability of the null, draws x any shape, at or above the statistics of that shape that were observed.

    From D draws it is :math:`(1 + \#\{null \ge observed\}) / (1 + D)`. Beyond the largest draw it is that of a gamma
    distribution (Pearson III) with the mean, variance and skewness of the draws, where this is smaller.
    """
    n_draws = len(null)
    p: np.ndarray = (1 + (null >= observed).sum(axis=0)) / (1 + n_draws)
    mean, sd = null.mean(axis=0), null.std(axis=0, ddof=1)
    # draws that differ by rounding alone have no skewness
    beyond = (p <= 1 / (1 + n_draws)) & (sd > 1e-12 * np.abs(mean))
    if beyond.any():
        # a negative skewness, of few draws, would say that nothing larger is possible
        skew = np.maximum(stats.skew(null[:, beyond], axis=0), 0.0)
        tail = stats.pearson3.sf(observed[beyond], skew, mean[beyond], sd[beyond])
        p[beyond] = np.minimum(p[beyond], np.maximum(tail, 1e-300))
    return p


def false_discovery_rates(p: np.ndarray) -> np.ndarray:
    """Rates of Benjamini and Hochberg along the last axis; NaN stays NaN and is not counted."""
    known = ~np.isnan(p)
    n_known, rates = known.sum(axis=-1, keepdims=True), np.full(np.shape(p), np.nan)
    for n in np.unique(n_known[n_known > 0]):  # rows of as many values at once
        here = known & (n_known == n)
        rates[here] = stats.false_discovery_control(p[here].reshape(-1, n), axis=1).ravel()
    return rates


def stands_out(p: np.ndarray) -> np.ndarray:
    """Whether the false discovery rate among all effects is at most 0.05; False where the p-value is NaN."""
    return np.asarray(false_discovery_rates(p) <= _CLEAR)


def _row(values: np.ndarray) -> np.ndarray:
    """Values of a matrix with one row, as scipy gives sums, as a vector."""
    return np.asarray(values, dtype=np.float64).ravel()
