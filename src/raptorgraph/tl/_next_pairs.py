"""Which pairs to measure next: to learn about all others, to find interactions, or to reach a state."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.special import ndtri

from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument, progress_bar
from raptorgraph.inference._gain import Plan
from raptorgraph.screen._setup import Setup
from raptorgraph.tl._candidates import candidate_pairs
from raptorgraph.tl._planned import PlannedNoise, triples
from raptorgraph.tl._power import ENOUGH, cells_needed, departures
from raptorgraph.tl._reverse import check_draws, query_table
from raptorgraph.tl._strongest_pairs import PairMeans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.tl._pair_list import PairList

GOALS = ("learn", "interactions", "state")
GAIN = {
    "learn": "share of the variance of the other pairs",
    "interactions": "probability of a strong interaction",
    "state": "distance nearer to the query",
}
_STRONG = 0.75  # quantile above which an interaction is strong, as in the table of interactions
_MOST_DRAWN = 400  # pairs that are drawn
_FEW_PAIRS, _TIMES = 5000, 4  # pairs that are all predicted; of more those, so many times what is drawn
_MOST_GENES = 3000  # whose covariances fit into memory for each scale of effects
_CHUNK = 256
_Z = float(ndtri(0.95))
_AS_GOOD = 0.95  # part of the largest gain that is as good


@progress_argument()
@docs.dedent
def next_pairs(
    model: RaptorGraphModel,
    n: int = 20,
    goal: Literal["learn", "interactions", "state"] = "learn",
    *,
    query: pd.DataFrame | AnnData | None = None,
    candidates: Sequence[tuple[str, str] | str] | None = None,
    exclude: Sequence[tuple[str, str] | str] = (),
    n_cells: int | None = None,
    n_draws: int = 100,
    seed: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    r"""Choose the pairs to put into the next experiment, as a batch.

    Pairs are chosen one after the other, each by its gain beside those that are chosen already. What the gain is
    depends on the goal:

    - ``"learn"``: the posterior variance of all unmeasured pairs that the measurement would remove, in closed form
      (:doc:`/concepts/inference`). Pairs share genes and what these have in common with others, so that a pair teaches
      about others; one that repeats what a chosen one tells is worth less. That a gene acts otherwise in combinations
      than alone counts as unknown until a combination shows it, so that a batch covers the genes. Of pairs whose gain
      is within 5 %% of the largest it is the one with the largest predicted effect, which stands out most from noise.
    - ``"interactions"``: the probability that the pair's effect departs strongly from the sum of both single effects:
      that the length of the departure is among the longest quarter, over all draws of all candidates. The posterior
      gives the interactions of all pairs one variance; but genes that do little have little to interact with, and genes
      that move the same way saturate. So each departure is multiplied by the product of the lengths of both single
      effects and by 1 + the size of their cosine, relative to the mean candidate. The expected number of strong
      interactions in a batch is the sum of the probabilities, so that no choice depends on another.
    - ``"state"``: how much nearer to the query the nearest pair of the batch is expected to lie, once it is known
      which one that is. The first is compared with a candidate at random, the others with the nearest so far in each
      draw: where it is unsure which pair is the nearest, the batch holds several that are so for different reasons.

    Parameters
    ----------
    %(model)s
    n
        Number of pairs; all candidates where there are fewer.
    goal
        As above.
    query
        For the goal ``"state"``: one effect, as for :func:`raptorgraph.tl.reverse` with ``by="effect"`` (a table of one
        row, or cells), which the pair should come near to.
    candidates
        Pairs that can be measured, ``("A", "B")`` or labels such as ``"A+B"``. Default: all pairs of perturbed genes
        that were not measured.
    exclude
        Pairs among them that are not wanted, and names of genes of which no pair is.
    n_cells
        Cells planned for each pair; default as many as the median condition has. It matters for ``"learn"``.
    n_draws
        Draws from the posterior for ``"interactions"`` and ``"state"``, 20 or more. Of more than 400 candidates those
        are drawn whose predictions come first. Of more than 5,000 candidates the predictions that decide which of them
        are looked at (``"state"``) and which of equally good ones is taken (``"learn"``) are approximate, as those of
        :func:`raptorgraph.tl.interactions` with `top`; they are made in blocks.
    %(seed_draws)s
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each chosen pair, in the order of choice, indexed by its canonical label, with

        - ``gene_a``, ``gene_b``: the two genes, sorted;
        - ``rank``: from 1, the order of choice;
        - ``gain``: what the pair is expected to add to those above it; ``total``: what all of them give together;
        - ``gain_alone``: what it would give without the others;
        - ``gain_in``: what a gain is, in words. For ``"learn"`` the share of the variance that all unmeasured pairs
          have now (without the interaction that belongs to one pair alone, and less that of the chosen pairs), for
          ``"interactions"`` a probability, for ``"state"`` a Euclidean distance on the expression scale;
        - ``magnitude``: norm of the predicted effect, on the expression scale;
        - ``best_probability``: only for ``"state"``; the part of the draws in which no other drawn candidate is nearer;
        - ``n_cells``: cells planned for it;
        - ``cells_needed``: for ``"interactions"``, cells with which an interaction as large as is expected of this pair
          would be called with a probability of 0.8 (:func:`raptorgraph.tl.power`; infinite if no number suffices);
          otherwise cells that teach 80 %% of what many cells would, about other pairs or about this one;
        - ``singles_measured``: whether both genes were perturbed alone.

        ``attrs["goal"]`` is the goal, ``attrs["n_candidates"]`` how many pairs it was chosen from.

    Raises
    ------
    KeyError
        If a gene is not among the perturbed genes of the model.
    TypeError
        If a pair is neither a pair of gene names nor a label.
    ValueError
        If the goal is unknown, there is no candidate or one that was measured, a number is out of its range, the goal
        ``"state"`` lacks its query or another one has one, ``"learn"`` is asked of more than 3,000 perturbed genes, or
        the model has no posterior or no data.

    Notes
    -----
    ``raptorgraph benchmark design`` compares the choice with chance and with simple rules: :doc:`/judging`.

    Examples
    --------
    >>> table = rg.tl.next_pairs(model, n=3)
    >>> table[["rank", "singles_measured"]].to_numpy().tolist()
    [[1, True], [2, True], [3, True]]
    >>> bool((table["gain"] <= table["gain_alone"] + 1e-9).all())
    True

    Pairs that might come near to the effect of P01+P03, of which it is not known:

    >>> query = model.measured_effects().loc[["P01+P03"]]
    >>> table = rg.tl.next_pairs(model, n=2, goal="state", query=query, seed=0)
    >>> table["gain_in"].unique().tolist()
    ['distance nearer to the query']
    """
    check_integer("n", n, 1, hint=", the number of pairs")
    check_choice("goal", goal, GOALS)
    check_integer("n_draws", n_draws, 20)
    if seed is not None:
        check_integer("seed", seed, 0)
    if n_cells is not None:
        check_integer("n_cells", n_cells, 1, hint=" for each pair")
    if (query is None) == (goal == "state"):
        need = "needs a query, the effect to come near to" if query is None else "takes no query"
        raise ValueError(f"goal={goal!r} {need}; goal='state' searches pairs for one.")
    check_draws(model)
    setup = Setup.of(model.setup_args)
    unseen, pairs = candidate_pairs(model, setup, candidates, exclude)
    if goal == "learn" and len(model.perturbed_genes) > _MOST_GENES:
        raise ValueError(
            f"goal='learn' plans with a matrix of all perturbed genes for each scale of effects, which for "
            f"{len(model.perturbed_genes):,} genes do not fit into memory ({_MOST_GENES:,} do): use "
            "goal='interactions', which ranks all pairs in blocks."
        )
    planned = PlannedNoise.of(model)
    cells = int(planned.typical) if n_cells is None else n_cells
    n = min(n, len(pairs))
    if goal == "learn":
        table = _to_learn(model, pairs, unseen, n, planned, cells)
    elif goal == "interactions":
        table = _to_find_interactions(model, setup, pairs, n, planned, n_draws, seed)
    else:
        assert query is not None
        table = _to_reach(model, setup, pairs, n, planned, query, n_draws, seed)
    known = {setup.genes(label) for label in model.conditions}
    chosen = list(table.index)
    labels = [setup.label(pair) for pair in chosen]
    effects = model.predict_effects(labels).to_numpy(dtype=float)
    table.insert(0, "gene_a", [pair[0] for pair in chosen])
    table.insert(1, "gene_b", [pair[1] for pair in chosen])
    table.insert(2, "rank", np.arange(1, len(table) + 1))
    table.insert(4, "total", table["gain"].cumsum())
    table.insert(6, "gain_in", GAIN[goal])
    table.insert(7, "magnitude", np.linalg.norm(effects, axis=1))
    table.insert(len(table.columns) - 1, "n_cells", cells)
    table["singles_measured"] = [all((gene,) in known for gene in pair) for pair in chosen]
    table.index = pd.Index(labels, name="perturbation")
    table.attrs = {"goal": goal, "n_candidates": len(pairs)}
    return table


def _greedy(n: int, n_pairs: int, scores: Callable[[], np.ndarray], take: Callable[[int], None]) -> list[int]:
    """Positions of the pairs, each with the largest score beside those before it; the first where they tie."""
    chosen: list[int] = []
    with progress_bar("Choosing", n) as advance:
        for _ in range(n):
            found = scores()
            found[chosen] = -np.inf
            best = int(np.argmax(found))
            chosen.append(best)
            take(best)
            advance()
    return chosen


def _table(pairs: PairList, chosen: list[int], gain: np.ndarray, alone: np.ndarray) -> pd.DataFrame:
    index = pd.Index([None] * len(chosen), dtype=object)
    table = pd.DataFrame({"gain": gain, "gain_alone": alone[chosen]}, index=index)
    table.index = pd.Index([pairs[k] for k in chosen], tupleize_cols=False)
    return table


def _to_learn(
    model: RaptorGraphModel, pairs: PairList, unseen: PairList, n: int, planned: PlannedNoise, n_cells: int
) -> pd.DataFrame:
    """Greedy choice by the variance that is removed from all unmeasured pairs."""
    fitted = model.calibration.posterior.fitted
    at, labels = pairs.positions(model.perturbed_genes), Setup.of(model.setup_args).label
    start = Plan(fitted, unseen.positions(model.perturbed_genes))
    plan, noise, whole = copy.copy(start), float(planned.at(n_cells)), start.variance()

    def removed() -> np.ndarray:
        return np.maximum(plan.removed(at, noise).numpy() / whole, 0.0)  # below 0 by rounding alone

    alone = removed()
    left = np.ones(len(pairs), dtype=bool)
    if len(pairs) <= _FEW_PAIRS:
        size = np.linalg.norm(model.predict_effects([labels(pair) for pair in pairs]).to_numpy(dtype=float), axis=1)
    else:
        size = PairMeans.of(model, pairs.genes).values(pairs.first, pairs.second, "magnitude")
    gain: list[float] = []

    def scores() -> np.ndarray:
        found = removed() if gain else alone
        by_size = np.where(left & (found >= _AS_GOOD * found[left].max()), size, -1.0)
        gain.append(float(found[by_size.argmax()]))
        return by_size

    def take(k: int) -> None:
        left[k] = False
        plan.measure(at[k], noise)

    chosen = _greedy(n, len(pairs), scores, take)
    table = _table(pairs, chosen, np.array(gain), alone)
    table["cells_needed"] = planned.cells_at(start.noise_for(at[chosen], ENOUGH).numpy())
    return table


def _to_find_interactions(
    model: RaptorGraphModel,
    setup: Setup,
    pairs: PairList,
    n: int,
    planned: PlannedNoise,
    n_draws: int,
    seed: int | None,
) -> pd.DataFrame:
    """The pairs with the largest probability of a strong departure."""
    sizes = _relative_sizes(model, setup, pairs)
    places = _first(sizes)
    drawn = pairs.taken(places)
    lengths = np.empty((n_draws, len(drawn)))
    for part, sums, effects in triples(model, setup, drawn, n_draws, seed):
        lengths[:, part] = np.linalg.norm(effects - sums, axis=2)
    lengths *= sizes[places]
    probability = (lengths > np.quantile(lengths, _STRONG)).mean(axis=0)
    # of pairs that are as likely, the one with the longer departure first
    chosen = np.lexsort((-lengths.mean(axis=0), -probability))[:n].tolist()
    table = _table(drawn, chosen, probability[chosen], probability)
    known = departures(model, setup, [drawn[k] for k in chosen], n_draws, seed)
    size = np.sqrt(known.mean**2 + known.variance)
    table["cells_needed"] = cells_needed(known, planned, size, _Z)
    return table


def _to_reach(
    model: RaptorGraphModel,
    setup: Setup,
    pairs: PairList,
    n: int,
    planned: PlannedNoise,
    query: pd.DataFrame | AnnData,
    n_draws: int,
    seed: int | None,
) -> pd.DataFrame:
    """Greedy choice by the expected distance of the nearest of the batch to the query."""
    panel = model.predict_effects([setup.label(pairs[0])]).columns
    table = query_table(model, setup, query, panel, "effect")
    if len(table) != 1:
        raise ValueError(f"The query has {len(table)} profiles, {list(table.index[:5])}: give one.")
    genes = np.array(pairs.genes, dtype=object)
    targets = set(genes[np.union1d(pairs.first, pairs.second)])
    shared = [gene for gene in panel if gene in table.columns and gene not in targets]
    if len(shared) < 2:
        raise ValueError(
            f"{len(shared)} genes are left for the distance: the columns of the query must be gene names of the model."
        )
    wanted, columns = table[shared].to_numpy(dtype=float), panel.get_indexer(shared)

    if len(pairs) > _FEW_PAIRS:  # those that are near by approximate predictions
        means = PairMeans.of(model, pairs.genes, columns)
        pairs = pairs.taken(_first(-means.distances(pairs.first, pairs.second, wanted[0]), _TIMES * _MOST_DRAWN))
    distances = [
        cdist(wanted, model.predict_effects([setup.label(pair) for pair in pairs[start : start + _CHUNK]])[shared])[0]
        for start in range(0, len(pairs), _CHUNK)
    ]
    drawn = pairs.taken(_first(-np.concatenate(distances)))
    distance = np.empty((n_draws, len(drawn)))
    for part, _, effects in triples(model, setup, drawn, n_draws, seed):
        distance[:, part] = np.linalg.norm(effects[:, :, columns] - wanted[0], axis=2)
    nearest = distance.mean(axis=1)  # so far, in each draw: that of a candidate at random
    alone = nearest.mean() - distance.mean(axis=0)
    gain: list[float] = []

    left = np.ones(len(drawn), dtype=bool)

    def gains() -> np.ndarray:
        batch = np.minimum(distance, nearest[:, None]) if gain else distance
        found = np.asarray((nearest[:, None] - batch).mean(axis=0))
        gain.append(float(found[left].max()))
        return found

    def take(k: int) -> None:
        nonlocal nearest
        left[k] = False
        nearest = np.minimum(nearest, distance[:, k]) if len(gain) > 1 else distance[:, k]

    chosen = _greedy(min(n, len(drawn)), len(drawn), gains, take)
    found = _table(drawn, chosen, np.array(gain), alone)
    best = np.bincount(distance.argmin(axis=1), minlength=len(drawn)) / n_draws
    found["best_probability"] = best[chosen]
    at = drawn.taken(np.array(chosen)).positions(model.perturbed_genes)
    noise = Plan(model.calibration.posterior.fitted, at[:0]).noise_for_itself(at, ENOUGH)
    found["cells_needed"] = planned.cells_at(noise.numpy())
    return found


def _first(score: np.ndarray, n: int = _MOST_DRAWN) -> np.ndarray:
    """Positions of the largest scores, in order, as many as are drawn."""
    return np.sort(np.argsort(-score, kind="stable")[:n])


def _relative_sizes(model: RaptorGraphModel, setup: Setup, pairs: PairList) -> np.ndarray:
    """Product of the lengths of both single effects, times 1 + the size of their cosine; over its mean, shape (pairs,).

    The sizes of interactions that one expects before any is measured, chosen on simulated screens.
    """
    used = np.union1d(pairs.first, pairs.second)
    labels = [setup.label([pairs.genes[k]]) for k in used]
    singles = model.predict_effects(labels).to_numpy(dtype=float)
    length = np.maximum(np.linalg.norm(singles, axis=1), 1e-300)
    cosine = np.abs(singles @ singles.T) / np.outer(length, length)
    first, second = np.searchsorted(used, pairs.first), np.searchsorted(used, pairs.second)
    size = length[first] * length[second] * (1 + cosine[first, second])
    return np.asarray(size / size.mean())
