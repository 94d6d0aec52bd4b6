"""Effects of the guides of each perturbation: their size, whether they agree, and a test that they are the same."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from raptorgraph._progress import progress_bar
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._noise import false_discovery_rates

if TYPE_CHECKING:
    from raptorgraph.screen import Screen

FEWEST = 5  # cells of a guide that is compared with others
APART = 0.5  # difference of a guide to the others, over the larger of both effects, from which they disagree
ASIDE = 0.05  # p-value, over the number of guides, up to which a guide is no longer one of these others
_CLEAR = 0.95  # share of resampled cells in which an effect is longer than noise, for it to have a direction
_BLOCK = 25  # resamples at a time, which bounds the memory
_LEAST_SKEW = 1e-3
_ROUNDING = 1e-20  # of sums of squares
_MEASURES = ("size", "agreement", "difference")
_INTERVALS = ("size", "agreement")


def guide_effects(
    screen: Screen,
    names: np.ndarray,
    along: pd.DataFrame | None = None,
    *,
    most: int,
    n_resamples: int,
    level: float = 0.9,
    fdr: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Measure the effect of each guide, and compare it with those of the other guides of its perturbation.

    The change of a cell is its expression less the mean of the control cells of its batch, each gene in units of
    :math:`\sqrt{v_g + \bar v}`, with the variance :math:`v_g` among control cells and its median :math:`\bar v`, so
    that rare genes do not count for more than they tell. :math:`M_{kl}` is the mean inner product of the changes of a
    cell of guide k and another one of guide l, less what they share by the noise of the control mean: it estimates the
    inner product of the guides' effects without a bias, since no cell is multiplied by itself. With the part
    :math:`f_k` of the cells that guide k has, and primes for the other guides together,

    .. math::
        \text{size}_k = \frac{(M f)_k}{f^T M f}, \qquad
        \text{agreement}_k = \frac{M_{kk'}}{\sqrt{M_{kk} M_{k'k'}}}, \qquad
        \text{difference}_k = \sqrt{\frac{M_{kk} - 2 M_{kk'} + M_{k'k'}}{\max(M_{kk}, M_{k'k'})}}.

    The others are those that were not set aside before: while three or more are left, the guide that differs most
    clearly is taken out, so that it does not make the others seem to disagree.

    Parameters
    ----------
    screen
        Cells, their labels and batches.
    names
        Guide of each cell, None where it has none.
    along
        Effects of perturbations, conditions x genes of the screen, along which guides are compared in the first of the
        two tests of :func:`different`; by default what was measured.
    most
        Cells of a guide that are looked at, drawn at random where it has more.
    n_resamples
        Draws of the cells of each guide with replacement, from which intervals are made; 0 for none.
    level
        Probability of the intervals.
    fdr
        False discovery rate among all guides that are compared.
    seed
        Seed of the draws.

    Returns
    -------
    One row for each guide of each perturbation, with the columns ``perturbation``, ``guide``, ``n_cells``; ``size``,
    ``agreement`` and ``difference``; with `n_resamples` ``size_low``, ``size_high``, ``agreement_low`` and
    ``agreement_high``; ``p``, ``q``, and ``disagrees``: whether q is at most `fdr` and the difference above 0.5. Guides
    with fewer than five cells, and those without another one, are not compared: their p is NaN.
    """
    scale = _Scale.of(screen)
    parts: list[pd.DataFrame] = []
    columns = ["perturbation", "guide", "n_cells", *_MEASURES, "p"]
    if n_resamples:
        columns += [f"{name}_{end}" for name in _INTERVALS for end in ("low", "high")]
    with progress_bar("Guides", len(screen.conditions)) as advance:
        for label in screen.conditions:
            rows, rng = screen.rows_by_name(label), np.random.default_rng([seed, zlib.crc32(label.encode())])
            found, n_cells = np.unique(names[rows][~pd.isna(names[rows])].astype(str), return_counts=True)
            each = [rng.permutation(rows[names[rows] == guide])[:most] for guide in found[n_cells >= FEWEST]]
            part = pd.DataFrame({"perturbation": label, "guide": found, "n_cells": n_cells}).reindex(columns=columns)
            if each:
                direction = None if along is None else along.loc[label].to_numpy(dtype=np.float64)
                part_of = n_cells[n_cells >= FEWEST] / n_cells[n_cells >= FEWEST].sum()
                measured = scale.changes(screen, each, part_of, direction).measure(n_resamples, level, rng)
                part.loc[n_cells >= FEWEST, list(measured)] = pd.DataFrame(measured).to_numpy()
            parts += [part] if len(part) else []
            advance()
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    table = table.astype(dict.fromkeys(columns[3:], float))
    table["q"] = false_discovery_rates(table["p"].to_numpy())
    table["disagrees"] = (table["q"] <= fdr) & (table["difference"] > APART)
    return table


@dataclass(frozen=True)
class Changes:
    """Cells of the guides of one perturbation, cells by guide.

    Attributes
    ----------
    product
        Shape (n, n): inner products of the changes of cells, less what two cells share by the noise of controls.
    guide
        Shape (n,), int: guide of each cell, from 0.
    batch
        Shape (n,), int: batch of each cell.
    score
        Shape (n,): change of each cell along the effect of the perturbation.
    share
        Part of the perturbation's cells that each guide has, also of those that are not looked at here.
    """

    product: np.ndarray
    guide: np.ndarray
    batch: np.ndarray
    score: np.ndarray
    share: np.ndarray

    def measure(self, n_resamples: int, level: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Measures of each guide, their intervals, and the p-value of the test that it does as the others do."""
        inner = self.inner(np.ones((len(self.guide), 1)))[0]
        others, p = self._others(inner)
        found = {**compared(inner, self.share, others), "p": p}
        if n_resamples:
            found |= self._intervals(found, others, n_resamples, level, rng)
        return found

    def _others(self, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Guides that each guide is compared with, guides x guides, bool, and p-values.

        While three or more are left, the one that differs most clearly is set aside: it would make the others seem to
        disagree.
        """
        n = len(self.share)
        others, p, left = ~np.eye(n, dtype=bool), np.full(n, np.nan), np.ones(n, dtype=bool)
        while True:
            for k in np.flatnonzero(left):
                others[k] = left & (np.arange(n) != k)
                used = np.isin(self.guide, [k, *np.flatnonzero(others[k])])
                p[k] = different(
                    self.product[np.ix_(used, used)], self.score[used], self.guide[used] == k, self.batch[used]
                )
            clear = left & (p <= ASIDE / left.sum()) & (compared(inner, self.share, others)["difference"] > APART)
            if left.sum() < 3 or not clear.any():
                return others, p
            left[np.flatnonzero(clear)[np.argmin(p[clear])]] = False

    @property
    def sizes(self) -> np.ndarray:
        """Number of cells of each guide."""
        return np.bincount(self.guide)

    def inner(self, weights: np.ndarray) -> np.ndarray:
        """Inner products of the guides' effects, without those of a cell with itself, for each weighting of the cells.

        `weights` is cells x w; the result w x guides x guides.
        """
        n, k, w = len(self.guide), len(self.sizes), weights.shape[1]
        members = weights[:, :, None] * (self.guide[:, None] == np.arange(k))[:, None]  # cells x w x guides
        off = self.product.copy()
        np.fill_diagonal(off, 0.0)
        image = (off @ members.reshape(n, w * k)).reshape(n, w, k)
        total = members.sum(0)
        own = np.einsum("nwk,nwl->wkl", members, members)
        pairs = np.einsum("wk,wl->wkl", total, total) - own
        # few cells can be drawn as one alone, which has no pairs
        return np.asarray(np.einsum("nwk,nwl->wkl", members, image) / np.where(pairs > 0, pairs, np.nan))

    def _intervals(
        self,
        found: dict[str, np.ndarray],
        others: np.ndarray,
        n_resamples: int,
        level: float,
        rng: np.random.Generator,
    ) -> dict[str, np.ndarray]:
        """Intervals from resampled cells; measures of effects that are not longer than noise become NaN in `found`."""
        draws: dict[str, list[np.ndarray]] = {name: [] for name in (*_INTERVALS, "clear", "clear_pair")}
        for start in range(0, n_resamples, _BLOCK):
            counts = np.empty((len(self.guide), min(_BLOCK, n_resamples - start)))
            for k, n in enumerate(self.sizes):
                counts[self.guide == k] = rng.multinomial(n, np.full(n, 1 / n), counts.shape[1]).T
            for inner in self.inner(counts):
                drawn = compared(inner, self.share, others)
                for name in _INTERVALS:
                    draws[name].append(drawn[name])
                draws["clear"].append(~np.isnan(drawn["size"]))
                draws["clear_pair"].append(~np.isnan(drawn["agreement"]))
        intervals = {}
        for name, clear in zip(_INTERVALS, ("clear", "clear_pair"), strict=True):
            kept = (np.mean(draws[clear], axis=0) >= _CLEAR) & ~np.isnan(found[name])
            values = np.array(draws[name])
            found[name] = np.where(kept, found[name], np.nan)
            for end, share in (("low", (1 - level) / 2), ("high", (1 + level) / 2)):
                ends = [
                    np.nanquantile(column, share) if ok else np.nan for column, ok in zip(values.T, kept, strict=True)
                ]
                intervals[f"{name}_{end}"] = np.array(ends)
        return intervals


def compared(inner: np.ndarray, share: np.ndarray, others: np.ndarray) -> dict[str, np.ndarray]:
    """Size, agreement and difference of each guide, from the inner products of their effects and their shares.

    `others`, guides x guides, bool, says which ones each is compared with.

    NaN where an effect is not longer than noise, so that it has no direction, and without another guide.
    """
    total = share @ inner @ share
    size = inner @ share / total if total > 0 else np.full(len(share), np.nan)
    agreement, difference = np.full((2, len(share)), np.nan)
    for k in np.flatnonzero(others.any(axis=1)):
        weight = others[k] * share / (others[k] * share).sum()
        own, rest, cross = inner[k, k], weight @ inner @ weight, inner[k] @ weight
        if own > 0 and rest > 0:
            agreement[k] = np.clip(cross / np.sqrt(own * rest), -1.0, 1.0)
        if max(own, rest) > 0:
            difference[k] = np.sqrt(max(own - 2 * cross + rest, 0.0) / max(own, rest))
    return {"size": size, "agreement": agreement, "difference": difference}


def different(product: np.ndarray, score: np.ndarray, chosen: np.ndarray, batch: np.ndarray) -> float:
    r"""P-value of the test that the `chosen` cells change as the others of their perturbation do.

    If all guides do the same, which cells of a batch have which guide is chance. Two statistics are compared with what
    that gives, and the smaller p-value is doubled: the difference of the mean `score`, by a t-test within batches; and
    the squared distance :math:`U = \sum_{i \ne j} r_i r_j k_{ij}` of the mean changes, with r one for chosen cells less
    the share of these in the batch, and k the inner products of changes less the mean of their batch. Under the null
    hypothesis

    .. math::
        E\,U = 0, \qquad E\,U^2 = 2 \, \overline{k_{ij}^2} \sum_{i \ne j} r_i^2 r_j^2, \qquad
        E\,U^3 = 8 \, \overline{k_{ij} k_{jl} k_{li}} \sum_{i \ne j \ne l} r_i^2 r_j^2 r_l^2,

    and a Pearson distribution of type III has these moments.

    Parameters
    ----------
    product
        Shape (n, n): inner products of the changes of cells.
    score
        Shape (n,).
    chosen
        Shape (n,), bool.
    batch
        Shape (n,), int.

    Returns
    -------
    The p-value; NaN where no batch has both kinds of cells, or fewer than four cells are compared.
    """
    both = [b for b in np.unique(batch) if 0 < chosen[batch == b].sum() < (batch == b).sum()]
    used = np.isin(batch, both)
    n, n_batches = int(used.sum()), len(both)
    if n < n_batches + 3:
        return np.nan
    product, score, chosen, batch = product[np.ix_(used, used)], score[used], chosen[used], batch[used]
    member = (batch[:, None] == np.array(both)).astype(float)
    mean = member / member.sum(0)  # of each batch, as weights of its cells
    r = chosen - member @ (mean.T @ chosen)
    by_distance = _distance_test(product, r, member, mean)
    length = score @ score
    score = score - member @ (mean.T @ score)
    if score @ score <= _ROUNDING * length:  # the same in all cells of a batch
        return by_distance
    along, freedom = r @ score, n - n_batches - 1
    left = max(float(score @ score - along**2 / (r @ r)), _ROUNDING * float(score @ score))
    by_score = 2 * stats.t.sf(abs(along) / np.sqrt(r @ r * left / freedom), freedom)
    return float(min(1.0, 2 * np.fmin(by_score, by_distance)))


def _distance_test(product: np.ndarray, r: np.ndarray, member: np.ndarray, mean: np.ndarray) -> float:
    """P-value of the distance between the mean changes of two kinds of cells; NaN where cells do not differ."""
    n = len(r)
    centered = product - member @ (mean.T @ product)
    centered -= (centered @ mean) @ member.T
    # the mean of a batch holds each of its cells, which makes inner products within it too small
    size = member.sum(0)
    own = (member.T @ np.diag(centered)) / (size * np.maximum(size - 1, 1))
    centered += (member * own) @ member.T
    np.fill_diagonal(centered, 0.0)
    square = centered @ centered
    second = np.trace(square) / (n * (n - 1))
    third = float((square * centered).sum()) / (n * (n - 1) * (n - 2))
    if second <= 0:
        return np.nan
    p2, p4, p6 = (r**2).sum(), (r**4).sum(), (r**6).sum()
    variance = 2 * second * (p2**2 - p4)
    skew = 8 * third * (p2**3 - 3 * p2 * p4 + 2 * p6) / variance**1.5
    return float(stats.pearson3.sf(r @ centered @ r / np.sqrt(variance), max(skew, _LEAST_SKEW)))


@dataclass(frozen=True)
class _Scale:
    """Control cells: weights of the genes, the mean that cells of each batch are compared with, and its noise.

    `noise` is batches x batches: the covariance of two of these means, summed over genes.
    """

    root: np.ndarray
    reference: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, screen: Screen) -> _Scale:
        """Scale of the control cells of a screen."""
        sums = screen.sums(screen.rows(screen.control))
        n_batches = 1 if screen.batch is None else int(screen.batch.max()) + 1
        n = np.zeros(n_batches)
        total = np.zeros((n_batches, sums.n_genes))
        n[sums.batch], total[sums.batch] = sums.n, sums.total
        within = sums.squares - sums.total**2 / sums.n[:, None]
        variance = np.maximum(within.sum(0), 0.0) / max(n.sum() - (n > 0).sum(), 1)
        positive = variance[variance > 0]
        root = 1 / np.sqrt(variance + (np.median(positive) if positive.size else 1.0))
        # weight of the controls of each batch in the reference of a batch: its own, or all where it has none
        weight = np.where((n > 0)[:, None], np.eye(n_batches), n / n.sum())
        reference = weight @ (total / np.maximum(n, 1)[:, None])
        noise = (weight / np.maximum(n, 1)) @ weight.T * float((variance * root**2).sum())
        return cls(root, reference, noise)

    def changes(
        self, screen: Screen, each: list[np.ndarray], share: np.ndarray, direction: np.ndarray | None
    ) -> Changes:
        """Changes of the cells of each guide, given by their rows; scores by default by the other cells."""
        rows, guide = np.concatenate(each), np.repeat(np.arange(len(each)), [len(cells) for cells in each])
        batch = np.zeros(len(rows), dtype=np.int64) if screen.batch is None else screen.batch[rows]
        change = to_dense(screen.expression_at(rows)).astype(np.float64) - self.reference[batch]
        change *= self.root
        product = change @ change.T - self.noise[np.ix_(batch, batch)]
        if direction is not None and direction.any():
            score = change @ (direction * self.root)
        else:
            score = product.sum(1) - np.diag(product)
        return Changes(product, guide, batch, score, share)
