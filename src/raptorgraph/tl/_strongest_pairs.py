"""The pairs with the largest predicted scores among millions, of which none is kept but the best so far."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph import metrics
from raptorgraph._progress import progress_bar
from raptorgraph.screen._setup import Setup
from raptorgraph.tl._pair_scores import SCORES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from raptorgraph.inference import EffectPosterior
    from raptorgraph.model import RaptorGraphModel

    Pair = tuple[str, ...]

DEPARTURE = "departure"
RANKED_BY = (DEPARTURE, *SCORES, "magnitude")
SPARE, TIMES = 500, 4  # candidates whose effects are predicted: these more than are asked for, or so many times that
_BLOCK_VALUES = 2**21  # pairs at a time
_SAMPLE = 16  # pairs of which the part that all have in common is taken


def scores_of(a: np.ndarray, b: np.ndarray, ab: np.ndarray, by: str) -> np.ndarray:
    """One score of pairs, from the effects of their genes and their own, each pairs x genes."""
    if by == DEPARTURE:
        return np.asarray(np.linalg.norm(ab - a - b, axis=1))
    if by == "magnitude":
        return np.asarray(np.linalg.norm(ab, axis=1))
    return np.asarray(getattr(metrics, by)(a, b, ab))


def strongest_pairs(
    model: RaptorGraphModel, setup: Setup, genes: Sequence[str], top: int, by: str, chunk_size: int
) -> list[Pair]:
    """The `top` pairs of all with the largest score of their predicted effects, the largest first.

    Where there are many pairs and the model has a posterior, all of them are ranked by its approximate means
    (:class:`PairMeans`), and predicted are those that come first, with all measured pairs.
    """
    genes = sorted(genes)
    n_pairs = len(genes) * (len(genes) - 1) // 2
    n_candidates = max(TIMES * top, top + SPARE)
    if n_candidates >= n_pairs or not getattr(model, "has_posterior", False):
        return strongest_of(model, setup, all_pairs(genes), top, by, chunk_size)
    first, second = PairMeans.of(model, genes).largest(n_candidates, by)
    candidates = {(genes[i], genes[j]) for i, j in zip(first.tolist(), second.tolist(), strict=True)}
    known = set(genes)
    candidates.update(pair for pair in map(setup.genes, model.conditions) if len(pair) == 2 and known.issuperset(pair))
    return strongest_of(model, setup, iter(sorted(candidates)), top, by, chunk_size)


def all_pairs(genes: Sequence[str]) -> Iterator[Pair]:
    """All pairs of sorted genes, one after the other."""
    return ((genes[i], genes[j]) for i in range(len(genes)) for j in range(i + 1, len(genes)))


def strongest_of(
    model: RaptorGraphModel, setup: Setup, pairs: Iterator[Pair], top: int, by: str, chunk_size: int
) -> list[Pair]:
    """The `top` of some pairs with the largest score of their predicted effects, the largest first; NaN come last."""
    best = _Best(top)
    names: dict[int, Pair] = {}
    singles: dict[str, np.ndarray] = {}
    place = 0
    for part in _chunks(pairs, chunk_size):
        new = sorted({gene for pair in part for gene in pair} - set(singles))
        if new:
            found = model.predict_effects([setup.label([gene]) for gene in new]).to_numpy()
            singles.update(zip(new, found, strict=True))
        both = model.predict_effects([setup.label(pair) for pair in part]).to_numpy()
        a, b = (np.stack([singles[pair[side]] for pair in part]) for side in (0, 1))
        at = np.arange(place, place + len(part))
        best.add(scores_of(a, b, both, by), at)
        names.update(zip(at.tolist(), part, strict=True))
        names = {int(k): names[int(k)] for k in best.at}
        place += len(part)
    return [names[int(k)] for k in best.at]


class PairMeans:
    r"""Approximate predictions of all pairs, of which every score is known from inner products of single effects.

    A pair is taken to have the effect :math:`s_{ij} (t_i + t_j) + c`, with the posterior means t of what pairs inherit
    of their genes (as long as the predicted effects of these), the scale s by the likeness of both
    (:attr:`raptorgraph.inference.EffectPosterior.additivity`) and one c for all pairs. What that leaves out of a
    prediction is the interaction of a pair that was measured, that effects on targets are not scaled, and what the
    constrained estimate does to its direction.

    Parameters
    ----------
    posterior
        Posterior of the effects.
    singles
        Predicted effects of single genes, k x genes.
    order
        Position of each of these k genes in the posterior.
    """

    def __init__(self, posterior: EffectPosterior, singles: np.ndarray, order: Sequence[int]) -> None:
        self.singles = torch.as_tensor(singles, dtype=torch.float32)
        prior = posterior.fitted.hyperparameters
        self.unseen = (prior.unseen[list(order)] > 0).float()
        self.scale, self.unseen_scale = float(prior.scale), float(prior.unseen_scale)
        additivity = posterior.additivity
        inherited = additivity.single_effects[list(order)].float()
        self.inherited = inherited * (self.singles.norm(dim=1) / inherited.norm(dim=1).clamp_min(1e-12))[:, None]
        self.similarity = additivity.similarity[list(order)][:, list(order)].float()
        self.slope, self.center = float(additivity.weights @ additivity.coefficients[:, 1]), float(additivity.center)
        self.common = self._common(posterior, list(order))

    @classmethod
    def of(cls, model: RaptorGraphModel, genes: Sequence[str], columns: np.ndarray | None = None) -> PairMeans:
        """Those of pairs of some genes, in their order; of some columns of the effects alone, if these are given."""
        setup, place = Setup.of(model.setup_args), {gene: k for k, gene in enumerate(model.perturbed_genes)}
        singles = model.predict_effects([setup.label([gene]) for gene in genes]).to_numpy()
        found = cls(model.calibration.posterior, singles, [place[gene] for gene in genes])
        if columns is not None:
            at = torch.as_tensor(columns)
            found.singles, found.inherited, found.common = (
                values[..., at].contiguous() for values in (found.singles, found.inherited, found.common)
            )
        return found

    def values(self, first: np.ndarray, second: np.ndarray, by: str) -> np.ndarray:
        """One score of some pairs, the first gene before the second and in order."""
        return self._of_pairs(first, second, self._departure if by == DEPARTURE else self._scores_by(by))

    def distances(self, first: np.ndarray, second: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Euclidean distance of some pairs to an effect, as :meth:`values`."""
        return self._of_pairs(first, second, self._distance(query, "euclidean"))

    def nearest(
        self, queries: np.ndarray, metric: str, n: int, offset: np.ndarray | float = 0.0
    ) -> set[tuple[int, int]]:
        """Positions of the `n` pairs nearest to each query, when the offset is added to their effects.

        The metric is ``"euclidean"``, ``"cosine"`` or ``"pearson"``.
        """
        shifted = copy.copy(self)
        shifted.common = self.common + torch.as_tensor(offset, dtype=torch.float32)
        if metric == "pearson":
            queries = queries - queries.mean(1, keepdims=True)
            shifted.inherited = self.inherited - self.inherited.mean(1, keepdim=True)
            shifted.common = shifted.common - shifted.common.mean()
        found: set[tuple[int, int]] = set()
        for query in queries:
            first, second = self._largest(n, shifted._distance(query, metric, sign=-1.0))
            found.update(zip(first.tolist(), second.tolist(), strict=True))
        return found

    def _distance(self, query: np.ndarray, metric: str, sign: float = 1.0) -> Callable[[slice], torch.Tensor]:
        """Distance of all pairs of some rows to a query, times the sign."""
        wanted = torch.as_tensor(query, dtype=torch.float32)
        on_wanted, rest, length = self.inherited @ wanted, float(self.common @ wanted), float(wanted @ wanted)

        def distance(rows: slice) -> torch.Tensor:
            on = self.scales(rows) * (on_wanted[rows, None] + on_wanted[None, :]) + rest
            square = self._pairs(rows)[2].clamp_min(0.0)
            if metric == "euclidean":
                found: torch.Tensor = (square - 2 * on + length).clamp_min(0.0).sqrt()
            else:
                found = 1 - on / (square.sqrt() * length**0.5)
            return sign * found

        return distance

    def _of_pairs(self, first: np.ndarray, second: np.ndarray, score: Callable[[slice], torch.Tensor]) -> np.ndarray:
        """A score of some pairs, from that of blocks of rows with all genes."""
        k = len(self.singles)
        found, step = np.empty(len(first)), max(1, _BLOCK_VALUES // k)
        block = first // step
        for b in np.unique(block).tolist():
            rows = slice(b * step, min((b + 1) * step, k))
            here = np.flatnonzero(block == b)
            found[here] = score(rows).numpy()[first[here] - rows.start, second[here]]
        return found

    def largest(self, n: int, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Positions of both genes of the `n` pairs with the largest score, in blocks of rows."""
        return self._largest(n, self._departure if by == DEPARTURE else self._scores_by(by))

    def _largest(self, n: int, score: Callable[[slice], torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        k = len(self.singles)
        best, rows_at_a_time = _Best(n), max(1, _BLOCK_VALUES // k)
        with progress_bar("Ranking pairs", -(-k // rows_at_a_time)) as advance:
            for start in range(0, k, rows_at_a_time):
                rows = slice(start, min(start + rows_at_a_time, k))
                found = score(rows).numpy()
                later = np.arange(k)[None, :] > np.arange(start, rows.stop)[:, None]
                i, j = np.nonzero(later)
                best.add(found[later], (i + start) * k + j)
                advance()
        return best.at // k, best.at % k

    def scales(self, rows: slice) -> torch.Tensor:
        """Scale of the pairs of some genes with all, rows x k."""
        unseen = (self.unseen[rows, None] + self.unseen[None, :]) > 0
        scale = torch.where(unseen, self.unseen_scale, self.scale)
        return scale * (1 + self.slope * (self.similarity[rows] - self.center))

    def _common(self, posterior: EffectPosterior, order: list[int]) -> torch.Tensor:
        """What pairs have in common, from the posterior means of some that were not measured."""
        k = len(order)
        if k < 2:
            return torch.zeros(self.singles.shape[1])
        rng = np.random.default_rng(0)
        measured = {tuple(row.nonzero().squeeze(1).tolist()) for row in posterior.fitted.measured.design}
        rest = []
        for _ in range(_SAMPLE):
            i, j = sorted(rng.choice(k, 2, replace=False).tolist())
            at = sorted((order[i], order[j]))
            if tuple(at) in measured:
                continue
            design = torch.zeros(1, posterior.fitted.measured.design.shape[1], dtype=torch.float64)
            design[0, at] = 1.0
            mean = posterior.posterior_mean(design)[0].float()
            rest.append(mean - self.scales(slice(i, i + 1))[0, j] * (self.inherited[i] + self.inherited[j]))
        return torch.stack(rest).mean(0) if rest else torch.zeros(self.singles.shape[1])

    def _departure(self, rows: slice) -> torch.Tensor:
        """Length of the departure of pairs from the sum of both single effects."""
        (_, of_sum, square_sum), (_, _, square) = self._sums(rows), self._pairs(rows)
        return (square - 2 * of_sum + square_sum).clamp_min(0.0).sqrt()

    def _pairs(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inner products of pairs with the effects of their first gene, of their second, and with themselves."""
        t, e, c, s = self.inherited, self.singles, self.common, self.scales(rows)
        own = (t * e).sum(1)
        on_first = s * (own[rows, None] + e[rows] @ t.T) + (e[rows] @ c)[:, None]
        on_second = s * (t[rows] @ e.T + own[None, :]) + (e @ c)[None, :]
        length, on_c = (t**2).sum(1), t @ c
        square = s**2 * (length[rows, None] + length[None, :] + 2 * t[rows] @ t.T)
        square += 2 * s * (on_c[rows, None] + on_c[None, :]) + c @ c
        return on_first, on_second, square

    def _sums(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inner product of both single effects; of the pair with their sum; of the sum with itself."""
        e = self.singles
        length = (e**2).sum(1)
        cross = e[rows] @ e.T
        on_first, on_second, _ = self._pairs(rows)
        return cross, on_first + on_second, length[rows, None] + length[None, :] + 2 * cross

    def _scores_by(self, by: str) -> Callable[[slice], torch.Tensor]:
        def score(rows: slice) -> torch.Tensor:
            on_first, on_second, square = self._pairs(rows)
            _, of_sum, square_sum = self._sums(rows)
            size, size_sum = square.clamp_min(0.0).sqrt(), square_sum.clamp_min(0.0).sqrt()
            if by == "magnitude":
                return size
            if by in ("synergy", "suppression"):
                ratio = size / size_sum
                return ratio if by == "synergy" else 1 / ratio
            if by == "neomorphism":
                return 1 - of_sum / (size * size_sum)
            norm = self.singles.norm(dim=1)
            cos_first, cos_second = on_first / (size * norm[rows, None]), on_second / (size * norm[None, :])
            return torch.minimum(cos_first, cos_second) if by == "redundancy" else (cos_first - cos_second).abs()

        return score


class _Best:
    """The largest of many scores, added some at a time, and their positions; of equal ones the first."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.scores, self.at = np.empty(0), np.empty(0, dtype=np.int64)

    def add(self, scores: np.ndarray, at: np.ndarray) -> None:
        """Add some scores, NaN being the smallest; positions grow from call to call."""
        scores = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
        if len(self.at) == self.n:
            better = scores > self.scores[-1]
            scores, at = scores[better], at[better]
        scores, at = np.append(self.scores, scores), np.append(self.at, at)
        order = np.argsort(-scores, kind="stable")[: self.n]
        self.scores, self.at = scores[order], at[order]


def _chunks(pairs: Iterator[Pair], size: int) -> Iterator[list[Pair]]:
    part: list[Pair] = []
    for pair in pairs:
        part.append(pair)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
