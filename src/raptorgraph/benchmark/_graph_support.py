"""Whether edges are as sure as they say: frequencies over resampled screens, support of directions, and modules.

Each pair of perturbed genes is compared with the truth in two ways. An edge i -> j is *true* if i acts on j, directly
or through genes that nobody perturbed. A direction is *right* if i acts on j along any path, and can be judged where
one of both acts on the other and not the other on the one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph import metrics
from raptorgraph.inference._graph_modules import ORDERED, cautious_support, module_labels
from raptorgraph.model._graph import CALLED, graph_of_log_ratios
from raptorgraph.tl._dag_stability import _resampled

if TYPE_CHECKING:
    from anndata import AnnData

    from raptorgraph.inference import GraphPosterior
    from raptorgraph.screen import Screen

SURE = 0.9  # frequency and support from which an edge and its direction are sure
BINS = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0])  # of frequencies
_HALF = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])  # of support
CALIBRATION = "calibration"  # first word of rows of :func:`bins`


def frequencies(screen: Screen, design: np.ndarray, targets: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Share of `n` resampled screens whose graph has an edge, k x k, as of :func:`raptorgraph.tl.dag_stability`."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(screen.n_perturbed[screen.codes] < 2)
    count = np.zeros((design.shape[1], design.shape[1]))
    for _ in range(n):
        drawn = rows[_resampled(screen.codes[rows], rng)]
        count += (graph_of_log_ratios(screen.log_ratios_of(drawn), design, targets).probability >= CALLED).numpy()
    return count / n


def truth(adata: AnnData, genes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Whether gene i acts on gene j without, and with other perturbed genes in between, k x k."""
    adjacency = adata.uns["simulation"]["adjacency"]
    edges = (adjacency != 0).to_numpy()
    place = adjacency.index.get_indexer(genes)
    others = np.ones(len(edges), dtype=bool)
    others[place] = False
    # paths all of whose genes in between were not perturbed
    inner = _closure(edges & others[:, None] & others[None, :]) | np.diag(others)
    direct = edges | (edges[:, others].astype(int) @ inner[np.ix_(others, others)] @ edges[others] > 0)
    off_diagonal = ~np.eye(len(genes), dtype=bool)
    return direct[np.ix_(place, place)] & off_diagonal, _closure(edges)[np.ix_(place, place)] & off_diagonal


def _closure(edges: np.ndarray) -> np.ndarray:
    """Whether a path leads from one node to another, in a graph that may have cycles."""
    reached = edges.copy()
    for k in range(len(edges)):
        reached |= np.outer(reached[:, k], reached[k])
    return reached


def judged(posterior: GraphPosterior, frequency: np.ndarray, edge: np.ndarray, path: np.ndarray) -> dict[str, float]:
    """Numbers of edges by what is said of them, and shares that are wrong; counts in bins for the calibration.

    `edge` and `path` are what :func:`truth` gives.
    """
    assert posterior.direction_support is not None
    call = (posterior.probability >= CALLED).numpy()
    support = cautious_support(posterior.direction_support.numpy(), frequency)
    in_module = module_labels(call, support, posterior.share.numpy()) != ""
    directed = call & (support >= ORDERED)
    sure = directed & (support >= SURE) & (frequency >= SURE)
    one_way = path ^ path.T
    found = {
        "called edges": call.sum(),
        "with a direction": directed.sum(),
        "in a module": in_module.sum(),
        "sure": sure.sum(),
        "wrong, called": _share(~path, call),
        "wrong, probability of 0.9 or more": _share(~path, (posterior.probability >= SURE).numpy()),
        "wrong, with a direction": _share(~path, directed),
        "wrong, sure": _share(~path, sure),
        "reversed, called": _share(path.T, call & one_way),
        "reversed, sure": _share(path.T, sure & one_way),
        "reversed, without a direction": _share(path.T, call & ~directed & one_way),
    }
    pairs = ~np.eye(len(call), dtype=bool) & (frequency > 0)
    asked = call & one_way & ~np.isnan(support)
    # a direction that is called against its support is judged the other way round
    lean = np.maximum(support, 1 - support)[asked]
    right = np.where(support >= 0.5, path, path.T)[asked]
    for name, p, outcome in (("frequency", frequency[pairs], edge[pairs]), ("direction", lean, right)):
        if len(p):
            found[f"calibration error, {name}"] = metrics.calibration_error(p, outcome)
    return found | bins("frequency", frequency[pairs], edge[pairs], BINS) | bins("direction", lean, right, _HALF)


def bins(what: str, probability: np.ndarray, outcome: np.ndarray, limits: np.ndarray) -> dict[str, float]:
    """Number, sum of the probabilities and number of true ones in each bin; the last one is closed above."""
    place = np.clip(np.searchsorted(limits, probability, side="right") - 1, 0, len(limits) - 2)
    found = {}
    for b, (low, high) in enumerate(pairwise(limits)):
        here = place == b
        for name, value in (("n", here.sum()), ("sum", probability[here].sum()), ("true", outcome[here].sum())):
            found[f"{CALIBRATION}|{what}|{low:g} to {high:g}|{name}"] = float(value)
    return found


def reliability(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean probability and share that is true in every bin, over all seeds, by setting."""
    asked = rows[rows["metric"].str.startswith(f"{CALIBRATION}|")]
    parts = asked["metric"].str.split("|", expand=True)
    long = pd.DataFrame({"setting": asked["setting"], "of": parts[1], "bin": parts[2], "what": parts[3]})
    long["value"] = asked["value"]
    order = list(dict.fromkeys(long[["setting", "of", "bin"]].itertuples(index=False, name=None)))
    wide = long.pivot_table(index=["setting", "of", "bin"], columns="what", values="value", aggfunc="sum").loc[order]
    wide = wide[wide["n"] > 0]
    table = pd.DataFrame({"pairs": wide["n"].astype(int)})
    table["mean probability"], table["true"] = wide["sum"] / wide["n"], wide["true"] / wide["n"]
    return table.reset_index()


def _share(what: np.ndarray, among: np.ndarray) -> float:
    return float(what[among].mean()) if among.any() else np.nan
