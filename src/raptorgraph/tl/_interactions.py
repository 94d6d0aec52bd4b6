"""Genetic interactions among the perturbed genes, as a model predicts them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scvi import settings

from raptorgraph import metrics
from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument, progress_bar, track
from raptorgraph.screen._asked import did_you_mean, listed
from raptorgraph.screen._setup import Setup

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel

SCORES = ("synergy", "suppression", "neomorphism", "redundancy", "epistasis")
_ADDITIVE_RATIO = (0.9, 1.1)
_ADDITIVE_ANGLE = 0.05  # 1 - cosine
_STRONGEST = 0.25  # share of the pairs that count as interacting, as in the benchmark
_SIZE_OF_DEPARTURE = 2.0  # chosen by the coverage of the intervals on simulated screens
_FROM_ZERO = ("neomorphism",)  # noise turns vectors away from each other, so that no draw says that they agree


@progress_argument()
@docs.dedent
def interactions(
    model: RaptorGraphModel,
    pairs: Sequence[tuple[str, str] | str] | None = None,
    *,
    chunk_size: int = 256,
    n_draws: int = 0,
    seed: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Score and name the interaction of pairs of perturbed genes.

    The model predicts the effects of both genes and of the pair; the scores compare the pair with the sum of the two
    (RAPTORGraph paper, section D.4, Eq. S11 to Eq. S15; formulae in :mod:`raptorgraph.metrics`). In each
    score more means stronger.

    Parameters
    ----------
    %(model)s
    pairs
        Pairs of perturbed genes, ``("A", "B")`` or labels such as ``"A+B"``, in any order; each is scored once.
        Default: all pairs.
    chunk_size
        Number of pairs predicted at a time, which bounds the memory.
    n_draws
        Draws from the posterior of the effects (:meth:`raptorgraph.RaptorGraphModel.sample_effects`) for intervals;
        0 for none. They take most of the time.
    seed
        Seed of the draws; by default ``scvi.settings.seed``.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each pair, indexed by its canonical label, with

        - ``gene_a``, ``gene_b``: the two genes, sorted;
        - ``synergy``: magnitude of the pair's effect relative to that of the sum; ``suppression``: its inverse;
          ``neomorphism``, ``redundancy``, ``epistasis``; NaN where a predicted effect is zero;
        - ``magnitude``: norm of the pair's predicted effect, on the expression scale;
        - with `n_draws`, ``<score>_low`` and ``<score>_high`` of every score and of ``magnitude``: 5 and 95 % quantiles
          over draws in which the size of each interaction is taken as unknown (``neomorphism_low`` is 0: noise turns
          vectors, so that there is an upper bound only); and ``<score>_probability`` of every score: the part of the
          pair's draws that lie among the strongest quarter of the draws of all pairs in the table;
        - ``measured``: whether the pair is among the training data;
        - ``interaction``: categorical, ``"additive"``, the name of a score, or ``"undefined"``.

    Raises
    ------
    KeyError
        If a gene is not among the perturbed genes of the model.
    TypeError
        If a pair is neither a pair of gene names nor a label.
    ValueError
        If a pair names one gene twice, or there are no pairs, `chunk_size` is not positive or `n_draws` negative, or
        intervals are asked of a model without a posterior.

    Notes
    -----
    Intervals are rough. On simulated screens those of 90 % held about nine of ten true scores of synergy and
    suppression, eight to nine of redundancy, and six to nine of epistasis (``raptorgraph benchmark intervals``).

    On the screen where it was measured, the probabilities ranked interacting pairs no better than the scores did
    (``raptorgraph benchmark ablation``): rank by the score, and judge by the interval how sure it is.

    ``interaction`` is a descriptive rule without a measure of uncertainty. A pair is additive if its synergy lies in
    [0.9, 1.1] and its neomorphism below 0.05. Any other pair gets the type in whose score it ranks highest among all
    pairs of the table (mean rank of ties; the first of the columns where types tie). Synergy is open to it only if the
    pair is stronger than the sum, suppression only if it is weaker. A pair of which a score is NaN is undefined.
    The name thus depends on the other pairs; the scores do not.

    Examples
    --------
    >>> a, b = model.perturbed_genes[:2]
    >>> table = rg.tl.interactions(model, [(a, b)])
    >>> table[["gene_a", "gene_b"]].to_numpy().tolist() == [[a, b]]
    True
    """
    check_integer("chunk_size", chunk_size, 1, hint=", the number of pairs to predict at a time")
    check_integer("n_draws", n_draws, 0, hint=", and 0 for no intervals")
    setup, genes = Setup.of(model.setup_args), list(model.perturbed_genes)
    scored = list(combinations(sorted(genes), 2)) if pairs is None else _checked(pairs, genes, setup)
    if not scored:
        raise ValueError(f"There is no pair to score among the {len(genes)} perturbed genes {genes}.")

    labels = [setup.label(pair) for pair in scored]
    needed = sorted({gene for pair in scored for gene in pair})
    singles = model.predict_effects([setup.label([gene]) for gene in needed]).to_numpy()
    row = {gene: k for k, gene in enumerate(needed)}
    first, second = (np.array([row[pair[side]] for pair in scored]) for side in (0, 1))

    chunks = []
    with progress_bar("Pairs", -(-len(scored) // chunk_size)) as advance:
        for start in range(0, len(scored), chunk_size):
            part = slice(start, start + chunk_size)
            effects = singles[first[part]], singles[second[part]], model.predict_effects(labels[part]).to_numpy()
            scores = {name: getattr(metrics, name)(*effects) for name in SCORES}
            chunks.append(pd.DataFrame({**scores, "magnitude": np.linalg.norm(effects[2], axis=1)}))
            advance()
    table = pd.concat(chunks, ignore_index=True)

    if n_draws:
        asked = ([*(setup.label([gene]) for gene in pair), label] for pair, label in zip(scored, labels, strict=True))
        drawn, wide = [], []
        for three in track(asked, "Intervals", total=len(scored)):
            draws = model.sample_effects(three, n_draws, seed)
            expected, sd = (x.to_numpy() for x in model.predict_effects(three, return_sd=True))
            drawn.append(drawn_scores(draws))
            wide.append(drawn_scores(widened(draws, expected, sd, settings.seed if seed is None else seed)))
        table = table.join(intervals(_stacked(wide))).join(probabilities(_stacked(drawn)))

    known = {setup.genes(label) for label in model.conditions}
    table.insert(0, "gene_a", [pair[0] for pair in scored])
    table.insert(1, "gene_b", [pair[1] for pair in scored])
    table["measured"] = [pair in known for pair in scored]
    table["interaction"] = _name(table)
    table.index = pd.Index(labels, name="perturbation")
    return table


def drawn_scores(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of one pair in each draw, from draws x (a, b, ab) x genes."""
    a, b, ab = np.moveaxis(draws, 1, 0)
    scores = {name: getattr(metrics, name)(a, b, ab) for name in SCORES}
    return {**scores, "magnitude": np.linalg.norm(ab, axis=1)}


def _stacked(pairs: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Scores of all pairs, each pairs x draws."""
    return {name: np.stack([scores[name] for scores in pairs]) for name in pairs[0]}


def widened(draws: np.ndarray, expected: np.ndarray, sd: np.ndarray, seed: int | None) -> np.ndarray:
    """Draws of the effects of two genes and their pair (a, b, ab), with an interaction of unknown size.

    The posterior has one spread for the departures of all pairs from the sum, so that over many genes each draw
    departs by about the same length. Pairs differ: many do not interact at all, and a few a lot. The departure from
    the expected one is therefore drawn with a size of its own for each draw, whose square is twice a chi-square
    variable with one degree of freedom, and condition-specific effects, which the given `draws` lack, are drawn too.
    `draws` and the result are draws x 3 x genes; `expected` and `sd`, the predictions and their standard deviations,
    3 x genes.
    """
    rng = np.random.default_rng(seed)
    specific = np.sqrt(np.clip(sd**2 - draws.var(axis=0), 0, None))
    full = draws + specific * rng.standard_normal(draws.shape)
    size = np.sqrt(_SIZE_OF_DEPARTURE * rng.chisquare(1, (len(draws), 1)))
    sign = np.array([-1.0, -1.0, 1.0])  # the pair, less the sum
    departure = np.einsum("s,dsg->dg", sign, full - draws.mean(axis=0))
    a, b, _ = np.moveaxis(full, 1, 0)
    return np.stack([a, b, a + b + sign @ expected + size * departure], axis=1)


def intervals(drawn: dict[str, np.ndarray]) -> pd.DataFrame:
    """Quantiles of every score, pairs x draws."""
    found = {}
    for name, scores in drawn.items():
        found[f"{name}_low"], found[f"{name}_high"] = np.quantile(scores, [0.05, 0.95], axis=1)
        if name in _FROM_ZERO:
            found[f"{name}_low"] = np.zeros(len(scores))
    return pd.DataFrame(found)


def probabilities(drawn: dict[str, np.ndarray]) -> pd.DataFrame:
    """The part of a pair's draws among the strongest quarter of all, for every score, pairs x draws."""
    return pd.DataFrame(
        {
            f"{name}_probability": (drawn[name] > np.nanquantile(drawn[name], 1 - _STRONGEST)).mean(axis=1)
            for name in SCORES
        }
    )


def _checked(pairs: Sequence[tuple[str, str] | str], genes: Sequence[str], setup: Setup) -> list[tuple[str, ...]]:
    """Sorted pairs, each once."""
    known, example = set(genes), setup.delimiter.join("AB")
    checked: dict[tuple[str, ...], None] = {}
    for given in listed(pairs):
        if not isinstance(given, (str, Collection)):
            raise TypeError(f"{given!r} is not a pair of genes: write ('A', 'B') or {example!r}.")
        if not isinstance(given, str):
            names = [gene.strip() for gene in given if isinstance(gene, str)]
            if len(names) == 2 and names[0] == names[1]:
                raise ValueError(f"The pair {given!r} names one gene twice: give two different genes.")
        pair = setup.genes(given)
        if len(pair) != 2:
            hint = did_you_mean(given, genes, **setup.spelling) if isinstance(given, str) else ""
            raise TypeError(f"{given!r} is not a pair of genes: write ('A', 'B') or {example!r}{hint or '.'}")
        missing = [gene for gene in pair if gene not in known]
        if missing:
            hint = did_you_mean(setup.delimiter.join(pair), genes, **setup.spelling)
            raise KeyError(
                f"{missing[0]!r} is not a perturbed gene of the model; these are {sorted(known)[:20]}{hint or '.'}"
            )
        checked[pair] = None
    return list(checked)


def _name(table: pd.DataFrame) -> pd.Categorical:
    scores = table[list(SCORES)]
    # rounded, so that pairs that differ by rounding errors alone are ties
    quantiles = scores.round(6).rank(pct=True)
    quantiles.loc[scores["synergy"] <= 1, "synergy"] = -1.0
    quantiles.loc[scores["synergy"] >= 1, "suppression"] = -1.0
    names = np.array(SCORES)[quantiles.fillna(-1.0).to_numpy().argmax(axis=1)].astype(object)
    names[scores["synergy"].between(*_ADDITIVE_RATIO) & (scores["neomorphism"] < _ADDITIVE_ANGLE)] = "additive"
    names[scores.isna().any(axis=1)] = "undefined"
    return pd.Categorical(names, categories=["additive", *SCORES, "undefined"])
