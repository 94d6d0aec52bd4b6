"""Experiment ``stability``: is the same graph found again? (section 3.2 of the paper, similarity across seeds)

Each method is trained on all cells of one screen, once for every seed, and the graphs are compared in pairs of seeds:
correlation of the weights without the diagonal, and Jaccard index of the heaviest edges, beside the value of random
edges. An empty graph agrees with every other empty graph and says nothing: its correlation and its Jaccard index are
undefined ("-"), and the column ``empty`` counts how often that happened. The ``all edges`` variants are trained
without a threshold on weights or probabilities, so that there is something to compare where it leaves nothing.

Graphs are compared among the perturbed genes, through which latents have names. A gene stands for its own latent, or
in dVAE and SENA for its softmax target T, with weights ``T A T'``; genes that share a target have no edge between
them. Where the true graph is known (simulated screens), the graphs are scored against it too: an edge through a
latent without a perturbed gene is then not seen, and an empty graph scores the share of edges. With ``bootstrap`` the
cells of each condition are drawn again with replacement for every seed, in addition.

``raptorgraph benchmark stability --screen FILE``
"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import metrics
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._methods import check_methods, chosen_methods, method_of
from raptorgraph.benchmark._report import all_rows, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.evaluation._methods import RaptorGraphMethod, gene_graph
from raptorgraph.metrics._graph import ancestors
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pl._panels import shared_legend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.screen import Screen

OPTIONS = ("methods", "gene_sets", "max_epochs", "top_edges", "bootstrap")
ALL_EDGES = " (all edges)"
METHODS = (
    "raptorgraph",
    "raptorgraph" + ALL_EDGES,
    "raptorgraph paper",
    "raptorgraph paper" + ALL_EDGES,
    "dVAE",
    "SENA",
)
SAME, AGAIN = "the same", "drawn again"  # cells of the repetitions
THRESHOLD = 0.3  # DAGMA's own
_SCREEN_SEED = 0  # all repetitions see the same screen


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each method and seed, and for each way of choosing cells."""
    if len(settings.seeds) < 2:
        raise ValueError("seeds: stability compares graphs of different seeds, give two or more.")
    screen = load_screen(settings, _SCREEN_SEED)
    n_genes = len({gene for genes in screen.genes_of.values() for gene in genes})
    if n_genes < 2:
        raise ValueError(f"A graph needs two perturbed genes or more, the screen has {n_genes}.")
    _top(settings, n_genes)
    methods = chosen_methods(settings, METHODS, "has no graph or is unknown")
    check_methods(methods, settings, screen.setup, screen.adata.var_names)
    ways = (SAME, AGAIN) if settings.options.get("bootstrap") else (SAME,)
    pieces = [{"method": method, "cells": cells} for method in methods for cells in ways]
    return units_by_seed(settings, [(" ".join(piece.values()), piece) for piece in pieces])


def work(unit: Unit, settings: Settings) -> Part:
    """Train, and keep the graph among the perturbed genes."""
    screen = load_screen(settings, _SCREEN_SEED)
    name = unit.options["method"]
    method = method_of(name.removesuffix(ALL_EDGES), settings, screen.setup, unit.seed)
    every = name.endswith(ALL_EDGES)
    if isinstance(method, RaptorGraphMethod) and name == "raptorgraph paper" + ALL_EDGES:
        method.plan_kwargs["dag_threshold"] = 0.0
    adata = screen.adata if unit.options["cells"] == SAME else draw_again(screen, unit.seed)
    with Measured() as fit:
        method.fit(adata)
    graph = gene_graph(method, every=every)
    rows = _alone(graph) | _against_truth(graph, screen) | {"seconds to fit": fit.seconds}
    return Part(
        pd.DataFrame(rows.items(), columns=["metric", "value"]),
        ad.AnnData(graph.to_numpy(), obs=pd.DataFrame(index=graph.index), var=pd.DataFrame(index=graph.columns)),
    )


def draw_again(screen: Screen, seed: int) -> ad.AnnData:
    """As many cells of every condition, drawn with replacement."""
    rng = np.random.default_rng([seed, 2])
    rows = [rng.choice(screen.rows(label), len(screen.rows(label))) for label in screen.labels]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Observation names are not unique")
        adata = screen.adata[np.concatenate(rows)].copy()
    adata.obs_names = [f"cell{k}" for k in range(adata.n_obs)]
    return adata


def _alone(graph: pd.DataFrame) -> dict[str, float]:
    size = np.abs(graph.to_numpy())
    return {
        "empty": float(not size.any()),
        "edges": np.count_nonzero(size),
        f"edges above {THRESHOLD}": np.count_nonzero(size > THRESHOLD),
        "largest weight": size.max(),
    }


def _against_truth(graph: pd.DataFrame, screen: Screen) -> dict[str, float]:
    truth = screen.adata.uns.get("simulation", {}).get("adjacency")
    truth = None if truth is None else truth.loc[graph.index, graph.columns].to_numpy()
    if truth is None or not truth.any():
        return {}
    weights = graph.to_numpy()
    n_possible, n_edges = len(truth) * (len(truth) - 1), np.count_nonzero(truth)
    return {
        "AUPRC": metrics.edge_auprc(weights, truth),
        "AUPRC, chance": metrics.chance_auprc(n_possible, n_edges),
        "AUPRC, undirected": metrics.edge_auprc(weights, truth, directed=False),
        "AUPRC, undirected, chance": metrics.chance_auprc(n_possible // 2, n_edges),
        "AUPRC, ancestors": metrics.ancestor_auprc(weights, truth),
        "AUPRC, ancestors, chance": metrics.chance_auprc(n_possible, np.count_nonzero(ancestors(truth))),
        "orientation (chance 0.5)": metrics.orientation_accuracy(weights, truth),
    }


def _top(settings: Settings, n_genes: int) -> list[int]:
    """Numbers of heaviest edges to compare: as many as perturbed genes, and 100 where that is a choice."""
    n_possible = n_genes * (n_genes - 1)
    asked = settings.options.get("top_edges")
    if not asked:
        return [k for k in dict.fromkeys((n_genes, 100)) if k == n_genes or k <= n_possible // 4]
    asked = [asked] if isinstance(asked, int) else list(asked)
    for k in asked:
        if not 1 <= k <= n_possible:
            raise ValueError(f"top_edges: {k!r} must be from 1 to {n_possible}, the possible edges of {n_genes} genes.")
    return asked


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``stability`` (to read), ``stability_long``, and ``stability_pairs`` with every pair of seeds.

    Mean and SD of a comparison are over pairs of seeds, which are not independent; of all else over seeds.
    """
    by = ["method", "cells"]
    alone = all_rows(parts, *by)
    graphs: dict[tuple[str, str, int], np.ndarray] = {
        (unit.options["method"], unit.options["cells"], unit.seed): part.arrays.X
        for unit, part in parts
        if part.arrays is not None
    }
    top = _top(settings, len(next(iter(graphs.values()))))
    pairs = pd.DataFrame(
        {"method": method, "cells": cells, "seeds": f"{first} and {second}", "metric": metric, "value": value}
        for method, cells in dict.fromkeys(key[:2] for key in graphs)
        for first, second in combinations(settings.seeds, 2)
        for metric, value in compare(graphs[method, cells, first], graphs[method, cells, second], top).items()
    )
    summary = mean_and_sd(pd.concat([pairs, alone], ignore_index=True), [*by, "metric"])
    shown = summary[~summary["metric"].isin(["empty", "seconds to fit"])]
    table = wide(shown, by)
    empty = alone[alone["metric"] == "empty"].groupby(by)["value"].sum()
    counts = [f"{empty[key]:.0f} of {len(settings.seeds)}" for key in zip(table["method"], table["cells"], strict=True)]
    table.insert(2, "empty", counts)
    return {"stability": table, "stability_long": summary, "stability_pairs": pairs}


def compare(a: np.ndarray, b: np.ndarray, top: Sequence[int]) -> dict[str, float]:
    """Agreement of two graphs, 0 on the diagonal, with what random edges would give."""
    n_possible = len(a) * (len(a) - 1)
    found = {"correlation": metrics.edge_correlation(a, b)}
    for k in top:
        found[f"Jaccard of the top {k}"] = metrics.top_edge_jaccard(a, b, k)
        # a graph with fewer edges than k has a smaller set
        sizes = (min(k, np.count_nonzero(graph)) for graph in (a, b))
        found[f"Jaccard of the top {k}, chance"] = metrics.chance_jaccard(n_possible, *sizes)
    return found


# -- figure ----------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> Figure:
    """Correlation, Jaccard index and, where the truth is known, AUPRC of every method; chance as a line."""
    summary = tables["stability_long"]
    jaccard = [m for m in summary["metric"].unique() if m.startswith("Jaccard") and not m.endswith("chance")]
    panels = ["correlation", *jaccard, *(["AUPRC"] if (summary["metric"] == "AUPRC").any() else [])]
    methods, kinds = list(summary["method"].unique())[::-1], list(summary["cells"].unique())
    figure = Figure(figsize=(2.2 + 2.6 * len(panels), 1.2 + 0.45 * len(methods) * len(kinds)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    height = 0.8 / len(kinds)
    for ax, metric in zip(axes, panels, strict=True):
        for i, cells in enumerate(kinds):
            here = summary[summary["cells"] == cells].set_index(["metric", "method"])
            y = np.arange(len(methods)) + (len(kinds) / 2 - i - 0.5) * height
            values = here.loc[metric].reindex(methods)
            mean, sd = values["value_mean"].to_numpy(), values["value_sd"].fillna(0).to_numpy()
            label = f"cells {cells}" if len(kinds) > 1 else None
            ax.barh(y, np.nan_to_num(mean), height, xerr=sd, color=(BLUE, ORANGE)[i], ecolor="black", label=label)
            for at in y[np.isnan(mean)]:
                ax.annotate("undefined", (0, at), (4, 0), textcoords="offset points", va="center", color=GRAY)
            if metric != "correlation":
                chance = here.loc[f"{metric}, chance"].reindex(methods)["value_mean"].to_numpy()
                ax.vlines(chance, y - height / 2, y + height / 2, color="black", linestyle=":", label="chance")
        ax.axvline(0, color=GRAY, linewidth=0.8)
        ax.set_xlabel(metric)
        ax.set_yticks(np.arange(len(methods)), methods)
        ax.set_xlim(left=min(0.0, ax.get_xlim()[0]), right=max(1.0, ax.get_xlim()[1]))
    shared_legend(figure, "outside upper right")
    return figure


STABILITY = Experiment("stability", "Agreement of the learned graphs across seeds", OPTIONS, units, work, tables, draw)
