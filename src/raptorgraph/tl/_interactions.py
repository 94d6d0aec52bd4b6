"""Genetic interactions among the perturbed genes, as a model predicts them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph import metrics
from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument, progress_bar
from raptorgraph.model._status import check_trained
from raptorgraph.screen._asked import did_you_mean, listed
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._strength import singles_that_stand_out
from raptorgraph.tl._pair_scores import LONGER, SCORES, SHORTER, TURNED, PairDraws, score_draws
from raptorgraph.tl._strongest_pairs import DEPARTURE, RANKED_BY, all_pairs, strongest_of, strongest_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptorgraph.model import RaptorGraphModel

    Pair = tuple[str, ...]

logger = logging.getLogger(__name__)

UNDETERMINED = "undetermined"
N_DRAWS, _FEWEST_DRAWS = 100, 20
_FEWEST_LEARNED = 3  # measured pairs; fewer do not say how far other pairs may be from them
_ENDS = (0.05, 0.95)
_CLEAR = 0.95  # probability of a type that names a pair
_BLOCK_BYTES = 2**27  # of the draws of a block of pairs


@progress_argument()
@docs.dedent
def interactions(
    model: RaptorGraphModel,
    pairs: Sequence[tuple[str, str] | str] | None = None,
    *,
    top: int | None = None,
    by: str | None = None,
    chunk_size: int = 256,
    n_draws: int | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Score the interaction of pairs of perturbed genes, and name it where it is known.

    The scores compare the effect of the pair with the sum of the effects of its genes (RAPTORGraph paper, section D.4,
    Eq. S11 to Eq. S15; formulae in :mod:`raptorgraph.metrics`). In each score more means stronger. Points, intervals
    and probabilities are those of the same joint draws of the three effects
    (:meth:`raptorgraph.RaptorGraphModel.sample_effects`).

    Parameters
    ----------
    %(model)s
    pairs
        Pairs of perturbed genes, ``("A", "B")`` or labels such as ``"A+B"``, in any order; each is scored once.
        Default: all pairs. Their number grows with the square of that of the genes: 50 million for 10,000 genes; use
        `top` for more than a few hundred genes.
    top
        List only so many pairs, those with the largest `by` of their predicted effects, the largest first. Draws are
        made of these alone, and no table of all pairs is held. With a posterior, pairs beyond four times as many are
        ranked first by an approximate prediction in closed form: the posterior means of both genes, scaled as pairs
        like these are, and what all pairs have in common. The pairs that come first by it, at least 500 more than are
        asked for, and all measured pairs are then ranked by their predicted effects. Without a posterior all pairs are
        predicted.
    by
        Only with `top`, what pairs are ranked by: ``"departure"`` (default), the length of the difference between the
        predicted effect of the pair and the sum of both single effects; or ``"magnitude"`` or one of the five scores.
    chunk_size
        Largest number of pairs that are predicted or drawn at a time, which bounds the memory; fewer are drawn where
        effects have many genes. The draws of single effects are kept: genes of the pairs x draws x genes, float32.
    n_draws
        Draws from the posterior of the effects: 20 or more; or 0 for scores of the predicted effects without intervals,
        which takes less time and leaves every interaction undetermined. Default: 100, and 0 for a model without a
        posterior.
    seed
        Seed of the draws; by default ``scvi.settings.seed``.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each pair, indexed by its canonical label, with

        - ``gene_a``, ``gene_b``: the two genes, sorted;
        - ``synergy``: magnitude of the pair's effect relative to that of the sum; ``suppression``: its inverse;
          ``neomorphism``, ``redundancy``, ``epistasis``; NaN where an effect is zero; ``magnitude``: norm of the pair's
          effect, on the expression scale. Medians over draws; without draws, scores of the predicted effects;
        - with draws ``<score>_low`` and ``<score>_high`` of every score and of ``magnitude``: 5 and 95 % quantiles of
          the draws. Noise turns vectors away from each other; ``neomorphism_low`` is therefore the quantile of the part
          of the turn whose direction is the same in all draws, 0 where there is none;
        - with draws ``<score>_probability``: of ``synergy`` the probability that the pair's effect is longer than 1.1
          times the sum; of ``suppression``, shorter than 0.9 times the sum; of ``neomorphism``, that it turns away from
          the sum by 1 - cos > 0.05 towards a known side; of ``redundancy``, shorter than 0.9 times the sum, with a
          cosine above 0.85 to both genes' effects; of ``epistasis``, that the cosine to one gene's effect is below 0.28
          times that to the other's, where that of the sum is not;
        - ``measured``: whether the pair is among the training data;
        - ``singles_measured``: whether both genes are among the training data alone;
        - ``both_stand_out``: whether both single effects stand out from groups of control cells at a false discovery
          rate of 5 %; False for a model without data;
        - ``pairs_seen``: number of pairs among the training data, the same in every row. With 0 of them the size of
          pairs is a prior;
        - ``interaction``: categorical, ``"undetermined"`` or the name of a score.

        ``attrs`` says in words what ``intervals`` and the ``scale`` of pairs rest on, and ``pairs_learned`` is the
        number of pairs among the training data whose genes are there alone, too; with `top`, ``ranked`` says what the
        pairs were ranked by, and of how many they are the first.

    Raises
    ------
    KeyError
        If a gene is not among the perturbed genes of the model.
    TypeError
        If a pair is neither a pair of gene names nor a label.
    ValueError
        If a pair names one gene twice, or there are no pairs, `chunk_size` or `top` is not positive, `by` is no score
        or comes without `top`, `n_draws` is neither 0 nor 20 or more, or draws are asked of a model without a
        posterior.

    Notes
    -----
    ``interaction`` is ``"undetermined"`` unless all of these hold:

    - the interval excludes an additive pair: that of synergy lies above 1.1 or below 0.9, or ``neomorphism_low`` is
      above 0.05, a turn by 18 degrees;
    - both single effects were measured and stand out from noise. The direction of an effect that is next to nothing is
      arbitrary, and so are the scores of pairs with it;
    - the training data have a pair of two genes that were measured alone, and three where the pair itself was not
      measured. Without one the data do not say how effects combine, and every score is a prior; one or two do not say
      how much pairs differ.

    A determined pair is named ``"epistasis"`` or ``"redundancy"`` if that probability is 0.95 or more (in that order),
    else ``"neomorphism"`` if it turns, else ``"synergy"`` or ``"suppression"``. No name depends on the other pairs of
    the table. The limits 0.85 and 0.28 are those of GEARS (Roohani et al., Nature Biotechnology 2024) for similarity
    and for equality of contribution, here on cosines in place of distance correlations; its thresholds for magnitude
    are about coefficients of a fit, which are the root of 2 where effects add up, and do not carry over.
    "Undetermined" does not say that the pair is additive.

    How many pairs are named on screens where nothing interacts, and where something does: ``raptorgraph benchmark
    calls``.

    Examples
    --------
    >>> a, b = model.perturbed_genes[:2]
    >>> table = rg.tl.interactions(model, [(a, b)])
    >>> table[["gene_a", "gene_b"]].to_numpy().tolist() == [[a, b]]
    True
    >>> table["synergy"].between(table["synergy_low"], table["synergy_high"]).tolist()
    [True]

    The two pairs that depart most from the sum of their genes:

    >>> rg.tl.interactions(model, top=2, n_draws=0).attrs["ranked"]
    'the first 2 of 15 pairs by the departure of their predicted effects'
    """
    check_integer("chunk_size", chunk_size, 1, hint=", the number of pairs to predict at a time")
    n_draws = _checked_draws(model, n_draws)
    setup, genes = Setup.of(model.setup_args), list(model.perturbed_genes)
    if top is not None:
        check_integer("top", top, 1, hint=", the number of pairs to list")
    elif by is not None:
        raise ValueError(f"by={by!r} ranks the pairs that top=... lists: give top, or sort the table by a column.")
    by = check_choice("by", DEPARTURE if by is None else by, RANKED_BY)
    asked = None if pairs is None else _checked(pairs, genes, setup)
    n_pairs = len(genes) * (len(genes) - 1) // 2 if asked is None else len(asked)
    if not n_pairs:
        raise ValueError(f"There is no pair to score among the {len(genes)} perturbed genes {genes[:20]}.")
    if top is None:
        scored = list(all_pairs(sorted(genes))) if asked is None else asked
    elif asked is None:
        scored = strongest_pairs(model, setup, genes, top, by, chunk_size)
    else:
        scored = strongest_of(model, setup, iter(asked), top, by, chunk_size)

    labels = [setup.label(pair) for pair in scored]
    if n_draws:
        table = _drawn(model, scored, labels, setup, chunk_size=chunk_size, n_draws=n_draws, seed=seed)
    else:
        table = _predicted(model, scored, labels, setup, chunk_size)
    table.insert(0, "gene_a", [pair[0] for pair in scored])
    table.insert(1, "gene_b", [pair[1] for pair in scored])
    table.index = pd.Index(labels, name="perturbation")
    table = _judged(table, model, scored, setup, n_draws)
    if top is not None:
        table.attrs["ranked"] = f"the first {len(table):,} of {n_pairs:,} pairs by the {by} of their predicted effects"
        table.attrs["n_pairs"] = n_pairs
    return table


def additive_is_excluded(table: pd.DataFrame) -> pd.Series:
    """Whether the interval of each pair excludes an additive one; False where there are no intervals."""
    if "synergy_low" not in table:
        return pd.Series(False, table.index)
    beyond = (table["synergy_low"] > LONGER) | (table["synergy_high"] < SHORTER)
    return beyond | (table["neomorphism_low"] > TURNED)


def pairs_are_a_prior(table: pd.DataFrame) -> bool:
    """Whether the model of a table learned from no pair how effects add up, whichever pairs are in the table."""
    return not table.attrs["pairs_learned"]


def _checked_draws(model: RaptorGraphModel, n_draws: int | None) -> int:
    check_trained(model)
    has_posterior = bool(getattr(model, "has_posterior", False))  # a baseline has none
    if n_draws is None:
        return N_DRAWS if has_posterior else 0
    n = check_integer("n_draws", n_draws, 0, hint=", and 0 for no intervals")
    if 0 < n < _FEWEST_DRAWS:
        raise ValueError(
            f"n_draws={n_draws!r}: quantiles of 5 and 95 % need {_FEWEST_DRAWS} draws or more; 0 is for no intervals."
        )
    if n and not has_posterior:
        raise ValueError(f"n_draws={n_draws!r}: the model has no posterior of the effects to draw from; use n_draws=0.")
    return n


def _predicted(
    model: RaptorGraphModel, scored: Sequence[Pair], labels: Sequence[str], setup: Setup, chunk_size: int
) -> pd.DataFrame:
    """Scores of the predicted effects."""
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
    return pd.concat(chunks, ignore_index=True)


def _drawn(
    model: RaptorGraphModel,
    scored: Sequence[Pair],
    labels: Sequence[str],
    setup: Setup,
    *,
    chunk_size: int,
    n_draws: int,
    seed: int | None,
) -> pd.DataFrame:
    """Summaries of the scores in joint draws.

    A seed gives the same draw of a set in every call, so singles are drawn once, and pairs in blocks.
    """
    block = max(1, min(chunk_size, _BLOCK_BYTES // (8 * n_draws * len(model.var_names_))))
    needed = sorted({gene for pair in scored for gene in pair})
    alone = [setup.label([gene]) for gene in needed]
    with progress_bar("Draws", -(-len(alone) // block) - (-len(labels) // block)) as advance:

        def blocks(asked: Sequence[str]) -> Iterator[np.ndarray]:
            for start in range(0, len(asked), block):
                draws = model.sample_effects(list(asked[start : start + block]), n_draws, seed)
                yield from np.moveaxis(draws, 1, 0).astype(np.float32)
                advance()

        singles = dict(zip(needed, blocks(alone), strict=True))
        rows = [
            _summary(score_draws(singles[pair[0]], singles[pair[1]], both))
            for pair, both in zip(scored, blocks(labels), strict=True)
        ]
    return pd.DataFrame(rows)


def _summary(drawn: PairDraws) -> dict[str, float]:
    """Medians, ends of intervals and probabilities of one pair."""
    names = list(drawn.scores)
    values = np.stack([*drawn.scores.values(), drawn.known_turn])
    low, middle, high = np.quantile(values, (_ENDS[0], 0.5, _ENDS[1]), axis=1).tolist()
    found = dict(zip(names, middle, strict=False))
    for place, name in enumerate(names):
        found |= {f"{name}_low": low[-1 if name == "neomorphism" else place], f"{name}_high": high[place]}
    for name, shown in drawn.types.items():
        found[f"{name}_probability"] = float(shown.mean()) if np.isfinite(found[name]) else np.nan
    return found


def _judged(
    table: pd.DataFrame, model: RaptorGraphModel, scored: Sequence[Pair], setup: Setup, n_draws: int
) -> pd.DataFrame:
    """Add what each pair rests on, and its name where that is enough."""
    seen = {setup.genes(label) for label in model.conditions}
    alone = {genes[0] for genes in seen if len(genes) == 1}
    pairs_seen = [genes for genes in seen if len(genes) == 2]
    learned = sum(alone.issuperset(genes) for genes in pairs_seen)
    strong: set[str] = set()
    if getattr(model, "adata", None) is not None:
        strong = singles_that_stand_out(model.screen)
    elif n_draws:
        logger.info("The model has no data, so no effect is known to stand out: load(folder, adata) gives it some.")
    table["measured"] = [pair in seen for pair in scored]
    table["singles_measured"] = [alone.issuperset(pair) for pair in scored]
    table["both_stand_out"] = [strong.issuperset(pair) for pair in scored]
    table["pairs_seen"] = len(pairs_seen)
    enough = table["measured"] & (learned > 0) | (learned >= _FEWEST_LEARNED)
    known = additive_is_excluded(table) & table["singles_measured"] & table["both_stand_out"] & enough
    table["interaction"] = _named(table, known.to_numpy())
    table.attrs["pairs_learned"] = learned
    table.attrs["intervals"] = (
        f"5 and 95 % quantiles of {n_draws} joint draws" if n_draws else "none: scores of the predicted effects"
    )
    table.attrs["scale"] = (
        f"learned; pairs whose genes were measured alone: {learned}"
        f"{'' if learned >= _FEWEST_LEARNED else ', too few to name interactions of pairs that were not measured'}"
        if learned
        else "a prior: no pair was measured whose genes were measured alone, so no interaction is determined"
    )
    return table


def _named(table: pd.DataFrame, known: np.ndarray) -> pd.Categorical:
    """Name of each pair that is known to be no additive one."""
    names = np.full(len(table), UNDETERMINED, dtype=object)
    if known.any():
        turned, longer = table["neomorphism_low"] > TURNED, table["synergy_low"] > LONGER
        specific = [table[f"{name}_probability"] >= _CLEAR for name in ("epistasis", "redundancy")]
        found = np.select(
            [*specific, turned, longer], ["epistasis", "redundancy", "neomorphism", "synergy"], "suppression"
        )
        names[known] = found[known]
    return pd.Categorical(names, categories=[UNDETERMINED, *SCORES])


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
