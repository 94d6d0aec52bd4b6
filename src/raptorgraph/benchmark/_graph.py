"""Experiment ``graph``: do learned graphs find the true one, and do its edges hold on cells that were not seen?

Without a screen, screens without interactions are simulated on a grid of graphs, numbers of genes and cells, and shares
of the perturbed genes that are not measured. Every method gives weights among all perturbed genes, which are scored
against the true graph among them (latents of no perturbed gene are not seen): areas under precision-recall curves of
edges, of pairs whatever their direction, and of ancestors; the share of found edges that point the right way; and, for
the graph that is called, its structural Hamming distance and whether it is exactly the true one. Weights are ranked by
their absolute value; ``raptorgraph, by share`` ranks the same graph by the share of its effect that a cause sends
along an edge. Ancestors are ranked by the total effects that the weights imply; differences of means are total effects
already. The called graph is that of probability 0.5 or more for ``raptorgraph``, of weights of 0.3 or more for
``dagma``, of 0.1 or more for ``sdcd``, without those that close a cycle with heavier ones, and all weights other than 0
for ``sort by variance`` and ``raptorgraph paper``; the other methods have no such rule and are given as many of their
heaviest edges as ``raptorgraph`` calls. ``random`` is chance.

The toy of Zhang et al. (2023) comes in addition: a chain of five latents of which the expression is the latents
themselves, five genes of nothing, and 2,048 cells for the control and each intervention. ``toy=false`` leaves it out,
``toy="only"`` leaves out the grid.

With a screen, whose graph nobody knows, methods are fitted on a random half of the cells of control and singles, and
their edges to measured genes are judged on the other half as in CausalBench: mean Wasserstein distance over the edges
(higher is better) and false omission rate of what is left out (lower is better). Once for the called graph, and once
for the 50 heaviest edges of every method. Read both beside ``random``, and know that they cannot tell a direct effect
from an indirect one: ranking total effects is what they reward.

Screens that break an assumption come in addition, one for each of ``broken`` (:func:`broken_screen`), of the size of
the first setting of the grid, and one of that size that keeps them all. There the graph is inferred again from
``resamples`` resampled screens, and it is asked whether it is as sure as it should be (``graph_support``): how many
edges have a direction (support of 0.8 or more), are in a module, and are *sure* (frequency and support of 0.9 or more);
which part of each is wrong, that is, runs from a gene that does not act on the other along any path; and which part is
reversed, the other one acting on the one. ``graph_calibration`` has, by bins, the frequencies beside the share of edges
that are true ones, and the support beside the share of directions that are right. ``broken=false`` leaves these out.

``dagma``, ``dotears``, ``sdcd``, ``dVAE`` and ``raptorgraph paper`` are fitted only where ``methods`` names them.

``raptorgraph benchmark graph --seeds 5``; ``--set 'n_perturbed=[50]'`` and the like narrow the grid.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from raptorgraph import metrics
from raptorgraph._acyclic import acyclic_support
from raptorgraph._arguments import check_integer
from raptorgraph.baselines import graph_methods
from raptorgraph.baselines._graphs_interventional import SDCD_INSTALL, SDCD_TOOL
from raptorgraph.baselines._peer_environments import installed
from raptorgraph.baselines._peer_process import made_of
from raptorgraph.benchmark import _graph_support as support
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._graph_broken import OF_BATCHES, broken_screen
from raptorgraph.benchmark._graph_screens import FACTORS, PLAIN, TOY, arguments, grid, text, toy_effects
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._methods import method_of
from raptorgraph.benchmark._peer_methods import provenance
from raptorgraph.benchmark._report import all_rows, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.datasets import simulate
from raptorgraph.evaluation._methods import gene_graph
from raptorgraph.inference import GraphPosterior, infer_graph
from raptorgraph.metrics._graph import ancestors, top_edges
from raptorgraph.model._graph import CALLED, graph_of_log_ratios
from raptorgraph.pl._figure import ORANGE
from raptorgraph.pl._panels import dots, shared_legend
from raptorgraph.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = (
    "graphs",
    "degrees",
    "n_perturbed",
    "mechanisms",
    "n_cells",
    "missing",
    "broken",
    "resamples",
    "toy",
    "methods",
    "max_epochs",
)
OURS, BY_SHARE = "raptorgraph", "raptorgraph, by share"
SUPPORT = "support"  # rows on how sure our graph is, which are no method's
RESAMPLES = 20
SLOW = ("dagma", "dotears", "sdcd", "dVAE", "raptorgraph paper")
METHODS = (OURS, "difference of means", "modular response", "sort by variance", "random", *SLOW)
TOP = 50  # heaviest edges that are judged on a screen
_OWN_CALL = {
    "dagma": 0.3,
    "sdcd": 0.1,
    "sort by variance": 0.0,
    "raptorgraph paper": 0.0,
}  # weight from which an edge is called
_TOTALS = ("difference of means",)  # weights that are total effects
_PACKAGES = {"dagma": "pip install dagma", "sdcd": SDCD_INSTALL}  # of methods
_SCREEN_SEED = 0  # all repetitions see the same screen


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed, and without a screen for each setting of the grid."""
    methods = asked_methods(settings)
    _resamples(settings)
    for name, install in _PACKAGES.items():
        if name in methods and find_spec(name) is None and not (name == "sdcd" and installed(SDCD_TOOL)):
            raise ValueError(f"methods: {name!r} needs a package: {install}.")
    # where SDCD is in an environment of its own, what it is made of counts
    apart = "sdcd" in methods and find_spec("sdcd") is None
    more = {"sdcd": json.dumps(made_of(SDCD_TOOL, {}))} if apart else {}
    if settings.screen is not None:
        k = len(load_screen(settings, _SCREEN_SEED).singles)
        if k < 2:
            raise ValueError(f"A graph needs two genes or more that were perturbed alone, the screen has {k}.")
        return units_by_seed(settings, [("screen", more)])
    toy = settings.option("toy", True)
    if toy not in (True, False, "only"):
        raise ValueError(f"toy: {toy!r} must be true, false or 'only'.")
    found = [*([] if toy == "only" else grid(settings)), *([TOY] if toy and OURS in methods else [])]
    if not found:
        raise ValueError(f"toy: it is for {OURS!r} alone, which is not among the methods.")
    return units_by_seed(settings, [("-".join(map(str, here.values())), {**here, **more}) for here in found])


def work(unit: Unit, settings: Settings) -> Part:
    """Learn the graphs, and score them."""
    if settings.screen is not None:
        return Part(_judge(load_screen(settings, _SCREEN_SEED), settings, unit.seed))
    if unit.options["graph"] == TOY["graph"]:
        return Part(_toy(unit.seed))
    broken, asked = unit.options["broken"], arguments(unit.options, settings)
    adata = simulate(**asked, seed=unit.seed) if broken == PLAIN else broken_screen(broken, asked, unit.seed)
    setup = {"perturbation_key": "perturbation", "library_size_key": "total_counts"}
    if broken == OF_BATCHES:
        setup["batch_key"] = "batch"
    found, genes = learn(adata, setup, settings, unit.seed)
    truth = adata.uns["simulation"]["adjacency"].loc[genes, genes].to_numpy()
    scores = {name: _against_truth(name, graph, truth) for name, graph in found.items()}
    if broken != PLAIN and OURS in scores:
        scores[SUPPORT] = _support(adata, setup, settings, unit.seed)
    return Part(_rows(scores))


@dataclass(frozen=True)
class Learned:
    """Weights of a method, k x k, the edges that it calls, and the seconds that it took."""

    weights: np.ndarray
    edges: np.ndarray
    seconds: float


def our_graph(adata: ad.AnnData, setup: Mapping[str, Any]) -> tuple[GraphPosterior, list[str]]:
    """Posterior of the graph among the genes that were perturbed alone, and these genes."""
    screen, design, targets, genes = _read(adata, setup)
    moments = screen.log_ratios_of(np.flatnonzero(screen.n_perturbed[screen.codes] < 2))
    return graph_of_log_ratios(moments, design, targets), genes


def _read(adata: ad.AnnData, setup: Mapping[str, Any]) -> tuple[Screen, np.ndarray, np.ndarray, list[str]]:
    """The screen, its design, and columns and names of the genes that were perturbed alone."""
    screen = Screen(adata, setup)
    genes = [screen.genes_of[label][0] for label in screen.singles]
    design = np.eye(len(screen.labels))[:, screen.n_perturbed == 1]
    return screen, design, screen.adata.var_names.get_indexer(genes), genes


def _resamples(settings: Settings) -> int:
    """Number of resampled screens, checked."""
    return check_integer("resamples", settings.option("resamples", RESAMPLES, quick=3), 1)


def _support(adata: ad.AnnData, setup: Mapping[str, Any], settings: Settings, seed: int) -> dict[str, float]:
    """Whether edges and directions of our graph are as sure as they say."""
    screen, design, targets, genes = _read(adata, setup)
    moments = screen.log_ratios_of(np.flatnonzero(screen.n_perturbed[screen.codes] < 2))
    posterior = graph_of_log_ratios(moments, design, targets, directions=True)
    frequency = support.frequencies(screen, design, targets, _resamples(settings), seed)
    return support.judged(posterior, frequency, *support.truth(adata, genes))


def learn(
    adata: ad.AnnData, setup: Mapping[str, Any], settings: Settings, seed: int, judged: np.ndarray | None = None
) -> tuple[dict[str, Learned], list[str]]:
    """Graphs of all methods that are asked for, by name, and the genes that were perturbed alone.

    With `judged` only edges to these genes count, k of True and False.
    """
    with Measured() as fit:
        posterior, genes = our_graph(adata, setup)
    judged = np.ones(len(genes), dtype=bool) if judged is None else judged
    call = (posterior.probability.numpy() >= CALLED) & judged
    found, baselines = {}, graph_methods(seed)
    for name in asked_methods(settings):
        if name == OURS:
            found[OURS] = Learned(posterior.weight.numpy() * judged, call, fit.seconds)
            found[BY_SHARE] = Learned(posterior.share.numpy() * judged, call, fit.seconds)
            continue
        with Measured() as other:
            if name in baselines:
                graph = baselines[name](adata, **setup)
            else:
                graph = gene_graph(method_of(name, settings, setup, seed).fit(adata))
        weights = graph.loc[genes, genes].to_numpy() * judged
        if name in _OWN_CALL:
            # as SDCD does with edges that close a cycle; the others have none
            edges = acyclic_support(np.where(np.abs(weights) >= _OWN_CALL[name], weights, 0.0))
        else:
            edges = heaviest(weights, int(call.sum()))
        found[name] = Learned(weights, edges, other.seconds)
    return found, genes


def heaviest(weights: np.ndarray, n: int) -> np.ndarray:
    """Whether an edge is among the n of the largest absolute weight."""
    edges = np.zeros(weights.shape, dtype=bool)
    if n:
        edges.ravel()[top_edges(weights, n)] = True
    return edges


def asked_methods(settings: Settings) -> list[str]:
    """Methods that are asked for, or all but the slow ones."""
    found = chosen(settings, "methods", METHODS, "has no graph or is unknown")
    return found if settings.options.get("methods") else [name for name in found if name not in SLOW]


def _against_truth(name: str, graph: Learned, truth: np.ndarray) -> dict[str, float]:
    n_true, n_possible = np.count_nonzero(truth), len(truth) * (len(truth) - 1)
    if not nx.is_directed_acyclic_graph(nx.from_numpy_array(truth != 0, create_using=nx.DiGraph)):
        total = np.nan  # in a cycle everything is an ancestor of everything
    elif name in _TOTALS:
        total = metrics.edge_auprc(graph.weights, ancestors(truth))
    else:
        total = metrics.ancestor_auprc(graph.weights, truth)
    return {
        "AUPRC": metrics.edge_auprc(graph.weights, truth),
        "AUPRC, undirected": metrics.edge_auprc(graph.weights, truth, directed=False),
        "AUPRC, ancestors": total,
        "AUPRC, chance": metrics.chance_auprc(n_possible, n_true),
        "orientation (chance 0.5)": metrics.orientation_accuracy(graph.weights, truth),
        "structural Hamming distance": metrics.structural_hamming_distance(graph.edges, truth),
        "called edges": graph.edges.sum(),
        "true edges": n_true,
        "exact": float((graph.edges == (truth != 0)).all()),
        "seconds": graph.seconds,
    }


def _toy(seed: int) -> pd.DataFrame:
    effect, variance, shared = toy_effects(seed)
    k = len(effect)
    with Measured() as fit:
        found = infer_graph(effect, variance, torch.arange(k), control_variance=shared)
    truth, call = np.eye(k, k=1), found.probability.numpy() >= CALLED
    graphs = {OURS: found.weight.numpy(), BY_SHARE: found.share.numpy()}
    return _rows({name: _against_truth(name, Learned(w, call, fit.seconds), truth) for name, w in graphs.items()})


def _judge(screen: Screen, settings: Settings, seed: int) -> pd.DataFrame:
    """Learn from one half of the cells of control and singles, judge on the other."""
    codes = np.full(len(screen.codes), -1)
    for code, label in enumerate([screen.control, *screen.singles]):
        codes[screen.rows(label)] = code
    first, second = (rows[codes[rows] >= 0] for rows in screen.halves(seed))
    genes = [screen.genes_of[label][0] for label in screen.singles]
    var_names = screen.adata.var_names
    judged = np.array([gene in var_names for gene in genes])
    found, learned_genes = learn(screen.adata[first].copy(), screen.setup, settings, seed, judged)
    # a condition of one cell has none in the first half
    places = [genes.index(gene) for gene in learned_genes]
    expression = np.full((len(second), len(genes)), np.nan)
    columns = [var_names.get_loc(gene) for gene in np.array(genes)[judged]]
    expression[:, judged] = screen.expression[second][:, columns].toarray()
    p_values = metrics.intervention_p_values(expression, codes[second])

    parts = []
    for setting in ("called edges", f"top {TOP} edges"):
        scores = {}
        for name, graph in found.items():
            if name == BY_SHARE and setting == "called edges":  # the same graph
                continue
            edges = np.zeros((len(genes), len(genes)), dtype=bool)
            here = graph.edges if setting == "called edges" else heaviest(graph.weights, TOP)
            edges[np.ix_(places, places)] = here
            scores[name] = {
                "edges": edges.sum(),
                "mean Wasserstein": metrics.mean_wasserstein(expression, codes[second], edges),
                "false omission rate": metrics.false_omission_rate(expression, codes[second], edges, p_values=p_values),
                "seconds": graph.seconds,
            }
        parts.append(_rows(scores).assign(setting=setting))
    return pd.concat(parts, ignore_index=True)


def _rows(scores: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    rows = [(method, metric, value) for method, found in scores.items() for metric, value in found.items()]
    return pd.DataFrame(rows, columns=["method", "metric", "value"]).astype({"value": float})


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``graph`` (to read), ``graph_auprc`` (methods side by side) and ``graph_long``, with columns of the setting.

    ``graph_peers`` has the version of SDCD where it is in an environment of its own.
    """
    rows = all_rows(parts, *parts[0][0].options)
    if "graph" in rows:
        rows["setting"] = [text(setting) for setting in rows[list(FACTORS)].to_dict("records")]
    asked = rows[rows["method"] == SUPPORT]
    rows = rows[rows["method"] != SUPPORT]
    by = [name for name in ("setting", *FACTORS, "method") if name in rows]
    summary = mean_and_sd(rows, [*by, "metric"])
    shown = summary[summary["metric"] != "AUPRC, chance"].copy()
    shown.loc[shown["metric"].isin(["exact", "true edges"]), "value_sd"] = np.nan
    of_grid = shown["setting"] != text(TOY)
    auprc = shown[(shown["metric"] == "AUPRC") & of_grid]
    shown = shown[~of_grid | (shown["metric"] != "exact")]  # hundreds of edges are never all right
    found = {"graph": wide(shown, ["setting", "method"]).fillna("-"), "graph_long": summary}
    if len(auprc):
        found["graph_auprc"] = wide(auprc, ["setting"], columns="method")
    if len(asked):
        plain = asked[~asked["metric"].str.startswith(support.CALIBRATION + "|")]
        found["graph_support"] = wide(mean_and_sd(plain, ["setting", "metric"]), ["setting"]).fillna("-")
        found["graph_calibration"] = support.reliability(asked)
    if made := parts[0][0].options.get("sdcd"):
        found["graph_peers"] = provenance({"sdcd": json.loads(made)})
    return found


# -- figure ----------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> Figure:
    """AUPRC of every method in every setting; with a screen, the two scores of its edges."""
    summary = tables["graph_long"]
    panels = [name for name in ("AUPRC", "mean Wasserstein", "false omission rate") if name in set(summary["metric"])]
    order, methods = list(dict.fromkeys(summary["setting"])), list(dict.fromkeys(summary["method"]))
    others = iter(f"C{i}" for i in (0, *range(2, 10)))  # of the color cycle, whose second is like ours
    colors = {name: ORANGE if name == OURS else next(others) for name in methods}
    step = 0.7 / len(methods)  # one below the other, so that none hides another
    size = (4 + 4 * len(panels), 1.6 + (0.05 + 0.045 * len(methods)) * len(order))
    figure = Figure(figsize=size, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for ax, metric in zip(axes, panels, strict=True):
        here = summary[summary["metric"] == metric]
        for row, name in enumerate(methods):
            values = here[here["method"] == name].set_index("setting")
            dots(ax, values, order, (row - (len(methods) - 1) / 2) * step, elinewidth=1, color=colors[name], label=name)
        ax.set_xlim(0, 1.02 if metric == "AUPRC" else None)
        ax.set_xlabel(metric)
        ax.grid(axis="x", color="0.92")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(order)), order, fontsize=8)
    axes[0].set_ylim(len(order) - 0.4, -0.6)
    shared_legend(figure, "outside upper center")
    return figure


GRAPH = Experiment("graph", "Do learned graphs find the true one?", OPTIONS, units, work, tables, draw)
