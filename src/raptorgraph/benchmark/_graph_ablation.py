"""Experiment ``graph-ablation``: does the learned graph help to predict? (section 3.2; ablations of the later revision)

The model is trained on control and singles with graphs of different origin, and asked for unseen combinations:

- ``learned``: as the preset does it, in the default inferred from the effects of single perturbations, in ``"paper"``
  by DAGMA's score on detached latents; ``DAGMA``: the latter in the default; ``DAGMA (joint)``: its loss shapes the
  encoder too; ``DAGMA (all edges)``: without a threshold on the weights;
- ``random``: the learned edges with their weights, between other nodes. An empty graph cannot be shuffled: then as
  many edges as latents, of weight 0.3 (DAGMA's threshold) and random sign, and the row says so;
- ``empty``: no edge; and on simulated screens ``true``: the edges of the truth among the perturbed genes, in units of
  latents whose exogenous variables have variance 1.

Random, empty and true graphs are given and stay as they are; the rest of the model trains as ever. Where ``learned``
has no edge, it is the empty graph up to the course of the training, and their difference shows no more than noise.
References are those of ``capacity``: MK-MMD lies between its floor (real against real cells) and ceiling (control
against real cells), one half of the cells for the other is what noise allows, precision is to be compared with chance.
Nothing is chosen by these scores.

``raptorgraph benchmark graph-ablation --screen FILE``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._report import all_rows, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.pl._figure import BLUE, ORANGE
from raptorgraph.pl._panels import dots, name_rows, shared_legend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.screen import Screen

OPTIONS = ("presets", "graphs", "max_epochs", "n_repeats")
LEARNED: dict[str, dict[str, Any]] = {  # arguments of the method
    "learned": {},
    "DAGMA": {"model_kwargs": {"graph": "dagma"}},
    "DAGMA (all edges)": {"model_kwargs": {"graph": "dagma"}, "plan_kwargs": {"dag_threshold": 0.0}},
    "DAGMA (joint)": {"model_kwargs": {"graph": "dagma"}, "plan_kwargs": {"graph_gradient": True}},
}
_SAME = {"paper": ("DAGMA",)}  # what a preset learns anyway
GIVEN = ("random", "empty", "true")
TYPICAL_WEIGHT = 0.3
_BY = ["preset", "graph"]
# of the long table alone
_NOT_SHOWN = ("variance ratio", "seconds to fit", "memory, MB", "weights of the learned graph")


# -- graphs ----------------------------------------------------------------------------------------------------------
def shuffled_graph(learned: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, bool]:
    """A random acyclic graph of the same density and weights as the learned one.

    Parameters
    ----------
    learned
        Weights, latents x latents, acyclic.
    seed
        Seed of the draws.

    Returns
    -------
    The weights with the nodes in another order, and whether they could be kept: an empty graph is replaced by one with
    as many edges as nodes (or as many as fit), of absolute weight 0.3.
    """
    rng, d = np.random.default_rng([seed, 3]), len(learned)
    weights, kept = learned.to_numpy(), bool(learned.to_numpy().any())
    if not kept:
        cause, effect = np.triu_indices(d, k=1)
        drawn = rng.choice(len(cause), min(d, len(cause)), replace=False)
        weights = np.zeros((d, d))
        weights[cause[drawn], effect[drawn]] = TYPICAL_WEIGHT * rng.choice([-1.0, 1.0], len(drawn))
    order = rng.permutation(d)
    return pd.DataFrame(weights[np.ix_(order, order)], index=learned.index, columns=learned.columns), kept


def true_graph(truth: pd.DataFrame, genes: Sequence[str]) -> pd.DataFrame:
    r"""True weights among the given latents, in units in which every exogenous variable has variance 1.

    With :math:`u = z T`, :math:`T = (I - A)^{-1}`, and unit variance of every u, the variances of z solve
    :math:`\sum_i \sigma_i^2 T_{ij}^2 = 1`, and A becomes :math:`A_{ij} \sigma_i / \sigma_j`.
    """
    total = np.linalg.inv(np.eye(len(truth)) - truth.to_numpy())
    sd = np.sqrt(np.linalg.solve((total**2).T, np.ones(len(truth))))
    return (truth * np.outer(sd, 1 / sd)).loc[list(genes), list(genes)]


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """For each seed one unit of references, and one for each preset with all its graphs."""
    screen = load_screen(settings, settings.seeds[0])
    variants.unseen_split(screen)
    _graphs(settings, screen)
    presets = [*chosen(settings, "presets", variants.PRESETS), None]
    return units_by_seed(settings, [(preset or variants.REFERENCE, {"preset": preset}) for preset in presets])


def work(unit: Unit, settings: Settings) -> Part:
    """Train with every graph, and score the unseen combinations."""
    screen, preset, rows, learned = load_screen(settings, unit.seed), unit.options["preset"], [], None
    if preset is None:
        return variants.reference_part(screen, settings, unit.seed, _BY)
    for graph in _graphs(settings, screen):
        if graph in _SAME.get(preset, ()):
            continue
        kept = True
        if graph in LEARNED:
            method = variants.variant(preset, unit.seed, settings, screen, **LEARNED[graph])
        else:
            if graph == "random":
                given, kept = shuffled_graph(learned, unit.seed)
            elif graph == "empty":
                given = pd.DataFrame()
            else:
                genes = sorted(gene for label in screen.singles for gene in screen.genes_of[label])
                given = true_graph(screen.adata.uns["simulation"]["adjacency"], genes)
            method = variants.variant(preset, unit.seed, settings, screen, kind=variants.GivenGraph, adjacency=given)
        found = variants.fit_and_score(method, screen, settings, unit.seed)
        dag = method.model.get_dag()
        learned = dag if graph == "learned" else learned
        found |= {
            "edges": float(np.count_nonzero(dag)),
            "largest weight": np.abs(dag.to_numpy()).max(),
            "weights of the learned graph": kept,
        }
        rows.append(variants.long_part((preset, graph), found, _BY).rows)
    return Part(pd.concat(rows, ignore_index=True))


def _graphs(settings: Settings, screen: Screen) -> list[str]:
    """Graphs that are asked for; the learned one first, since the random one is made from it."""
    known = [*LEARNED, *GIVEN] if "simulation" in screen.adata.uns else [*LEARNED, *GIVEN[:-1]]
    asked = chosen(settings, "graphs", known, "is unknown or not defined here")
    if "random" in asked and "learned" not in asked:
        raise ValueError("graphs: 'random' is made from 'learned'; ask for both.")
    return [name for name in known if name in asked]


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``graph-ablation`` (to read) and ``graph-ablation_long``."""
    rows = all_rows(parts)
    learned = rows[(rows["graph"] == "learned") & (rows["metric"] == "edges")]
    summary = variants.summarize(parts, _BY)
    table = wide(summary[~summary["metric"].isin(_NOT_SHOWN)], _BY).fillna("-")
    n_seeds, notes = len(settings.seeds), []
    for preset, graph in table[_BY].itertuples(index=False):
        empty = int((learned.loc[learned["preset"] == preset, "value"] == 0).sum())
        note = {
            "learned": f"empty in {empty} of {n_seeds} seeds",
            "random": f"1 edge a latent, weight {TYPICAL_WEIGHT}, in {empty} of {n_seeds} seeds" if empty else "",
        }
        notes.append(note.get(graph, ""))
    table.insert(2, "note", notes)
    return {"graph-ablation": table, "graph-ablation_long": summary}


# -- figure ----------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> Figure:
    """Scores of every graph, with what needs no model as lines."""
    summary = tables["graph-ablation_long"]
    values = summary[summary["preset"] != variants.REFERENCE]
    precision = [metric for metric in values["metric"].unique() if metric.startswith("precision")]
    panels = ["relative MSE", "Pearson", "MK-MMD", *precision]
    graphs, presets = list(values["graph"].unique())[::-1], list(values["preset"].unique())
    n_columns = min(4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(
        figsize=(2 + 2.6 * n_columns, n_rows * (1.2 + 0.22 * len(graphs) * len(presets))), layout="constrained"
    )
    grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    for spare in grid[len(panels) :]:
        spare.remove()
    for ax, metric in zip(grid, panels, strict=False):
        for i, preset in enumerate(presets):
            here = values[(values["metric"] == metric) & (values["preset"] == preset)].set_index("graph")
            shift = 0.12 * (len(presets) - 1 - 2 * i)
            dots(ax, here, graphs, shift, color=(BLUE, ORANGE)[i], label=f"preset {preset}")
        variants.draw_references(ax, summary, metric, horizontal=False)
        ax.set_xlabel(metric)
        if metric.startswith("precision"):
            ax.set_xlim(-0.05, 1.05)
    name_rows(figure.axes, graphs)
    shared_legend(figure)
    return figure


GRAPH_ABLATION = Experiment(
    "graph-ablation",
    "Prediction of unseen combinations with learned and given graphs",
    OPTIONS,
    units,
    work,
    tables,
    draw,
)
