"""How often an edge is found again, and how often it would be found by chance."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph._order import name_order, places
from raptorgraph._progress import progress_argument, progress_bar
from raptorgraph.metrics import chance_jaccard
from raptorgraph.metrics._graph import off_diagonal, top_edges
from raptorgraph.model._graph import CALLED, EDGE_COLUMNS, graph_of_log_ratios
from raptorgraph.model._status import check_trained

if TYPE_CHECKING:
    from raptorgraph.inference import GraphPosterior
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen._screen import Screen


@progress_argument()
@docs.dedent
def dag_stability(
    model: RaptorGraphModel, *, n: int = 50, n_null: int = 10, seed: int = 0, progress: bool | None = None
) -> pd.DataFrame:
    r"""Infer the graph again from resampled cells, and from cells with permuted labels.

    The inference has no randomness of its own: what a seed changes is which cells were measured. Each of `n` resampled
    screens draws the cells of every condition with replacement, as many as there are; the frequency of an edge is the
    share of them whose graph has it. For the null, labels are permuted among all cells of a batch, `n_null` times. With
    t the absolute weight of an edge and :math:`N_0`, :math:`N` the numbers of weights at least as large in all permuted
    screens and in the model's own posterior,

    .. math:: q(t) = \min_{s \le t} \frac{(N_0(s) + 1) / n_{null}}{N(s)},

    at most 1: the expected share of such edges that a screen without any effect would show.

    Parameters
    ----------
    model
        A trained model with ``graph="interventional"`` and its data.
    n
        Number of resampled screens.
    n_null
        Number of screens with permuted labels.
    %(seed_draws)s
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        Every edge of the model's graph, or of at least one resampled one: ``source``, ``target``, ``weight``,
        ``probability``, ``share``, ``direction_support`` (as in ``model.get_edges``), ``frequency``, ``q_value``; the
        most frequent first.
        In ``attrs``: ``n_edges`` of the model's graph, ``jaccard`` (mean Jaccard index over pairs of resampled screens
        of as many heaviest edges, the diagonal left out) with ``chance_jaccard`` for random edges, and ``null_edges``,
        the mean number of edges with permuted labels.

    Raises
    ------
    ValueError
        If the graph was not inferred from interventions, the model has no data, `n` is below 2 or `n_null` below 1.

    Notes
    -----
    Writes frequencies and q-values into the model: ``model.get_dag(min_frequency=...)``, ``model.get_edges()`` and a
    saved model have them from then on, and the support of directions and the modules are those of both the evidence and
    the frequencies.

    Resampling says how much an edge owes to these very cells. It does not repeat the experiment: errors that all cells
    of a condition share, such as a guide that hits a second gene, are found again every time. Permuted labels have no
    effects at all; so q-values say that there is *something*, and not that it runs from this gene to that.

    Examples
    --------
    >>> stability = rg.tl.dag_stability(model, n=2, n_null=1, progress=False)
    >>> bool(stability["frequency"].between(0, 1).all())
    True
    """
    check_integer("n", n, 2)
    check_integer("n_null", n_null, 1)
    check_trained(model)
    if not model.edges.is_inferred:
        raise ValueError("Only graphs that were inferred from interventions are drawn again: graph='interventional'.")
    if model.adata is None:
        raise ValueError("The model was loaded without data: load it with adata=...")
    screen, edges, targets = model.screen.by_name(), model.edges, model.target_columns
    codes, order = screen.codes, name_order(screen.adata.obs_names)  # cells are drawn by their names
    batch = np.zeros(len(codes), dtype=int) if screen.batch is None else screen.batch

    def graph(screen: Screen, rows: np.ndarray | None = None) -> GraphPosterior:
        return graph_of_log_ratios(screen.log_ratios_of(rows), screen.design, targets)

    rng = np.random.default_rng(seed)
    weight, called = edges.values("weight").astype(float), edges.called
    n_edges = int(called.sum())
    count, heaviest, n_null_edges = np.zeros(weight.shape, dtype=np.float32), [], 0
    null = _Null(np.abs(off_diagonal(weight)))
    with progress_bar("Graphs", n + n_null) as advance:
        for step in range(n + n_null):
            if step < n:
                found = graph(screen, order[_resampled(codes[order], rng)])
                count += (found.probability >= CALLED).numpy()
                heaviest.append(top_edges(found.weight.numpy(), n_edges) if n_edges else np.empty(0, dtype=int))
            else:
                found = graph(screen.with_codes(_permuted(codes[order], batch[order], rng)[places(order)]))
                n_null_edges += int((found.probability >= CALLED).sum())
                null.add(np.abs(off_diagonal(found.weight.numpy())))
            advance()

    frequency, q_value = count / n, np.ones(weight.shape)
    q_value[~np.eye(len(weight), dtype=bool)] = null.q_values()
    edges.keep_stability(frequency, q_value)
    source, target = np.nonzero((count > 0) | called)
    genes = np.asarray(model.perturbed_genes)
    table = pd.DataFrame({"source": genes[source], "target": genes[target]})
    for column in ("weight", *EDGE_COLUMNS):
        table[column] = edges.values(column).astype(float)[source, target]
    table = table.sort_values(["frequency", "share"], ascending=False, kind="stable", ignore_index=True)
    jaccard = chance = np.nan
    if n_edges:
        jaccard = float(np.nanmean([_jaccard(a, b) for a, b in combinations(heaviest, 2)]))
        chance = chance_jaccard(len(weight) * (len(weight) - 1), n_edges)
    table.attrs = {
        "n_edges": n_edges,
        "jaccard": jaccard,
        "chance_jaccard": chance,
        "null_edges": n_null_edges / n_null,
    }
    return table


class _Null:
    """Statistics of null data sets, counted one data set after the other against those that were observed."""

    def __init__(self, observed: np.ndarray) -> None:
        self.order = np.argsort(-observed, kind="stable")
        self.observed = observed[self.order]
        self.beyond = np.zeros(len(observed), dtype=np.int64)
        self.n = 0

    def add(self, null: np.ndarray) -> None:
        """Count those of one more data set that are as large."""
        self.beyond += len(null) - np.searchsorted(np.sort(null), self.observed, side="left")
        self.n += 1

    def q_values(self) -> np.ndarray:
        """False discovery rates of the observed statistics, all null data sets pooled."""
        # of equal statistics the last one counts all of them
        rank = np.searchsorted(-self.observed, -self.observed, side="right")
        rate = np.minimum((self.beyond + 1) / self.n / rank, 1.0)
        found = np.empty(len(rate))
        found[self.order] = np.minimum.accumulate(rate[::-1])[::-1]
        return found


def q_values(observed: np.ndarray, null: np.ndarray, n_null: int) -> np.ndarray:
    """False discovery rates of observed statistics against those of `n_null` null data sets, all of them pooled."""
    counted = _Null(observed)
    counted.add(null)
    counted.n = n_null
    return counted.q_values()


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two sets of edges; NaN where both are empty."""
    union = len(np.union1d(first, second))
    return len(np.intersect1d(first, second)) / union if union else np.nan


def _resampled(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of cells of every condition, drawn with replacement, as many as it has."""
    conditions = (np.flatnonzero(codes == code) for code in np.unique(codes))
    return np.concatenate([rng.choice(rows, len(rows)) for rows in conditions])


def _permuted(codes: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Codes of conditions, permuted among the cells of each batch."""
    found = codes.copy()
    for value in np.unique(batch):
        rows = np.flatnonzero(batch == value)
        found[rows] = codes[rng.permutation(rows)]
    return found
