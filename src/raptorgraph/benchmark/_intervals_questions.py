"""What one may ask of draws of effects: genes, sets of genes, sizes, scores, ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptorgraph import metrics
from raptorgraph.tl._pair_scores import SCORES, known_turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
GENES, STRONGEST, RANDOM, TOGETHER = "genes", "50 strongest genes", "random gene sets", "gene sets that move together"
GENE_SETS, LENGTH, ALONG, COSINE, RANK = "gene sets", "length", "along the prediction", "cosine with a single", "rank"
NEOMORPHISM, KNOWN_TURN = "neomorphism", "known part of the turn"
QUESTIONS = (GENES, STRONGEST, RANDOM, TOGETHER, GENE_SETS, LENGTH, ALONG, COSINE, RANK, *SCORES)
_N_SETS, _SIZE, _STRONGEST = 20, 30, 50


def sets_of_genes(singles: np.ndarray, own: np.ndarray, seed: int) -> dict[str, list[np.ndarray]]:
    """Columns of random sets of genes and of sets that move together in the singles (singles x genes).

    The perturbed genes themselves (a mask, `own`) are left out, and so is the half that responds least of the sets that
    move together: each has a gene and those whose effects resemble its own most.
    """
    rng = np.random.default_rng(seed)
    usual = np.flatnonzero(~own)
    size = max(2, min(_SIZE, len(usual) // 4))
    unit = singles / np.maximum(np.linalg.norm(singles, axis=0), 1e-12)
    strong = usual[np.argsort(-np.linalg.norm(singles[:, usual], axis=0))][: max(1, len(usual) // 2)]
    chosen = rng.choice(strong, min(_N_SETS, len(strong)), replace=False)
    together = [usual[np.argsort(-(unit[:, usual].T @ unit[:, gene]), kind="stable")][:size] for gene in chosen]
    return {RANDOM: [rng.choice(usual, size, replace=False) for _ in range(_N_SETS)], TOGETHER: together}


def answers(
    draws: np.ndarray,
    true: np.ndarray,
    expected: np.ndarray,
    singles: tuple[np.ndarray, np.ndarray],
    members: Sequence[tuple[int, ...]],
    sets: dict[str, list[np.ndarray]],
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name of a question, its answer in each draw (draws x ...) and the true one.

    `draws` are draws x perturbations x genes, `true` and `expected` perturbations x genes; `singles` the draws and the
    truth of the single genes, whose positions `members` gives for each perturbation (empty where they are not known).
    """
    yield GENES, draws, true
    top = np.argsort(-np.abs(expected), axis=1)[:, :_STRONGEST]
    yield STRONGEST, np.take_along_axis(draws, top[None], axis=2), np.take_along_axis(true, top, axis=1)
    for name, columns in sets.items():
        if columns:
            yield name, np.stack([draws[:, :, c].mean(2) for c in columns], 2), _means(true, columns)
    yield LENGTH, np.linalg.norm(draws, axis=2), np.linalg.norm(true, axis=1)
    unit = expected / np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    yield ALONG, np.einsum("dsg,sg->ds", draws, unit), (true * unit).sum(axis=1)
    drawn, known = singles
    yield COSINE, np.stack([_cosines(a, b) for a, b in zip(draws, drawn, strict=True)]), _cosines(true, known)
    if len(true) > 1:
        # The query is what another perturbation really does; those that were asked for are ranked by likeness.
        query = np.roll(true, 1, axis=0)
        yield RANK, np.stack([_ranks(_cosines(query, one)) for one in draws]), _ranks(_cosines(query, true))
    pairs = [(s, *at) for s, at in enumerate(members) if len(at) == 2]
    if pairs:
        which, a, b = (list(x) for x in zip(*pairs, strict=True))
        for name in SCORES:
            score = getattr(metrics, name)
            found = [score(one[a], one[b], both[which]) for one, both in zip(drawn, draws, strict=True)]
            yield name, np.stack(found), score(known[a], known[b], true[which])
        total = drawn[:, a] + drawn[:, b]
        turned = [known_turn(draws[:, s], total[:, i]) for i, s in enumerate(which)]
        yield KNOWN_TURN, np.stack(turned, axis=1), np.zeros(len(which))


def held(drawn: np.ndarray, true: np.ndarray, from_below: np.ndarray | None = None) -> Iterator[tuple[str, float]]:
    """Share of the true answers that the intervals of each level hold, and the median width of those of 90 %.

    Lower ends are quantiles of `from_below`, by default of the draws themselves.
    """
    for level in LEVELS:
        low, high = np.nanquantile(drawn, ((1 - level) / 2, (1 + level) / 2), axis=0)
        if from_below is not None:
            low = np.nanquantile(from_below, (1 - level) / 2, axis=0)
        yield f"held at {level:.0%}", float(((true >= low - 1e-9) & (true <= high + 1e-9)).mean())
        if level == 0.9:
            yield "width", float(np.median(high - low))


def _means(values: np.ndarray, columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([values[:, c].mean(axis=1) for c in columns], axis=1)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of all rows of one with all of the other; 0 where one has no length."""
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    found: np.ndarray = np.divide(a @ b.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return found


def _ranks(likeness: np.ndarray) -> np.ndarray:
    """Rank of each column in each row, 0 for the most alike."""
    return np.argsort(np.argsort(-likeness, axis=1, kind="stable"), axis=1)
