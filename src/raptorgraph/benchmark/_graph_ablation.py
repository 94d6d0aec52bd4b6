"""Experiment ``graph-ablation``: does the learned graph help to predict? (section 3.2; ablations of the later revision)

The model is trained on control and singles with graphs of different origin, and asked for unseen combinations:

- ``learned``: as published, on detached latents; ``learned, joint``: the graph's loss shapes the encoder too;
  ``learned, all edges``: without a threshold on the weights;
- ``random``: the learned edges with their weights, between other nodes. An empty graph cannot be shuffled: then as
  many edges as latents, of weight 0.3 (DAGMA's threshold) and random sign, and the row says so;
- ``empty``: no edge; and on simulated screens ``true``: the edges of the truth among the perturbed genes, in units of
  latents whose exogenous variables have variance 1.

Random, empty and true graphs are given and stay as they are; the rest of the model trains as ever. Where ``learned``
has no edge, it is the empty graph up to the course of the training, and their difference shows no more than noise.
MK-MMD lies between its floor (real against real cells) and ceiling (control against real cells), precision is to be
compared with chance. Nothing is chosen by these scores.

``raptorgraph benchmark graph-ablation --screen FILE``
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy import sparse

from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._methods import QUICK_EPOCHS, RaptorGraphMethod
from raptorgraph.benchmark._report import mean_and_sd, wide
from raptorgraph.benchmark._scores import sample_size
from raptorgraph.benchmark._screen import Screen, load_screen
from raptorgraph.benchmark._settings import Part, Settings, Unit
from raptorgraph.benchmark._splits import Split, singles_only
from raptorgraph.metrics import _interactions as interactions
from raptorgraph.metrics._distribution import distribution_scores
from raptorgraph.metrics._effects import pearson_delta, relative_mse
from raptorgraph.metrics._precision import chance_precision, precision_at_k
from raptorgraph.metrics._reference import floor_and_ceiling, sampled_scores
from raptorgraph.model import RaptorGraphModel
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pp import format_perturbation

TITLE = "Prediction of unseen combinations with learned and given graphs"
OPTIONS = ("presets", "graphs", "max_epochs", "n_repeats")
LEARNED: dict[str, dict[str, Any]] = {  # arguments of the training plan
    "learned": {},
    "learned, all edges": {"dag_threshold": 0.0},
    "learned, joint": {"graph_gradient": True},
}
GIVEN = ("random", "empty", "true")
PRESETS = ("default", "paper")
TYPES = ("synergy", "suppression", "neomorphism", "redundancy", "epistasis")
ADDITIVE, FLOOR, CEILING, CHANCE = (
    "sum of the measured singles",
    "floor: real against real cells",
    "ceiling: control against real cells",
    "chance",
)
TYPICAL_WEIGHT = 0.3
_K = 10
_MMD = partial(distribution_scores, bandwidths=(200.0,), energy=False)


class GivenGraph(RaptorGraphMethod):
    """The model with a graph that is set before the training and not trained.

    Parameters
    ----------
    preset
        ``"default"`` or ``"paper"``.
    adjacency
        Weights among the latents by name, row = cause; latents that are not named have no edge.
    **kwargs
        As for :class:`RaptorGraphMethod`.
    """

    def __init__(self, preset: str, adjacency: pd.DataFrame, **kwargs: Any):
        super().__init__(preset, **kwargs)
        self.plan_kwargs["dag_weight"] = 0.0
        self.adjacency = adjacency

    @property
    def model(self) -> RaptorGraphModel:
        """The model; its graph is fixed when it is set, between construction and training."""
        return self._model

    @model.setter
    def model(self, model: RaptorGraphModel) -> None:
        names = model.latent_names
        weights = self.adjacency.reindex(index=names, columns=names, fill_value=0.0).to_numpy()
        graph = model.module.graph
        with torch.no_grad():
            graph.weight.copy_(torch.as_tensor(weights))
            graph.support.copy_(torch.as_tensor(weights != 0))
            graph.projected.fill_(True)
        graph.weight.requires_grad_(False)
        self._model = model


# -- graphs ----------------------------------------------------------------------------------------------------------
def shuffled_graph(learned: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, bool]:
    """A random acyclic graph of the same density and weights as the learned one.

    Parameters
    ----------
    learned
        Weights, latents x latents, acyclic.
    seed
        Of the draw.

    Returns
    -------
    The weights with the nodes in another order, and whether they could be kept: an empty graph is replaced by one with
    as many edges as nodes (or as many as fit), of absolute weight 0.3.
    """
    rng, d = np.random.default_rng([seed, 3]), len(learned)
    weights, kept = learned.to_numpy(), bool(learned.to_numpy().any())
    if not kept:
        cause, effect = np.triu_indices(d, k=1)
        chosen = rng.choice(len(cause), min(d, len(cause)), replace=False)
        weights = np.zeros((d, d))
        weights[cause[chosen], effect[chosen]] = TYPICAL_WEIGHT * rng.choice([-1.0, 1.0], len(chosen))
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
    _split(screen)
    _graphs(settings, screen)
    presets = list(settings.options.get("presets") or PRESETS)
    for preset in presets:
        if preset not in PRESETS:
            raise ValueError(f"presets: {preset!r} is unknown; there are {', '.join(PRESETS)}.")
    return [
        Unit(f"{preset or 'reference'}-seed{seed}", seed, {"preset": preset})
        for seed in settings.seeds
        for preset in (*presets, None)
    ]


def work(unit: Unit, settings: Settings) -> Part:
    """Train with every graph, and score the unseen combinations."""
    screen, preset = load_screen(settings, unit.seed), unit.options["preset"]
    split, n_repeats = _split(screen), settings.options.get("n_repeats", 2 if settings.quick else 5)
    if preset is None:
        return Part(_references(screen, split, n_repeats, unit.seed))
    train, rows, learned = screen.cells(split.refit), [], None
    graphs = _graphs(settings, screen)
    epochs = settings.options.get("max_epochs") or (QUICK_EPOCHS if settings.quick else None)
    common = {"seed": unit.seed, "max_epochs": epochs, **screen.setup}
    for graph in graphs:
        kept = 1.0
        if graph in LEARNED:
            method = RaptorGraphMethod(preset, plan_kwargs=LEARNED[graph], **common)
        else:
            if graph == "random":
                given, kept = shuffled_graph(learned, unit.seed)
            elif graph == "empty":
                given = pd.DataFrame()
            else:
                genes = sorted(gene for label in screen.singles for gene in screen.genes_of[label])
                given = true_graph(screen.adata.uns["simulation"]["adjacency"], genes)
            method = GivenGraph(preset, given, **common)
        with Measured() as fit:
            method.fit(train)
        dag = method.model.get_dag()
        learned = dag if graph == "learned" else learned
        found = {
            **_scores(method, screen, split, n_repeats, unit.seed),
            "edges": np.count_nonzero(dag),
            "largest weight": np.abs(dag.to_numpy()).max(),
            "weights of the learned graph": float(kept),
            "seconds to fit": fit.seconds,
        }
        rows += [(preset, graph, metric, value) for metric, value in found.items()]
    return Part(pd.DataFrame(rows, columns=["preset", "graph", "metric", "value"]))


def _scores(method: RaptorGraphMethod, screen: Screen, split: Split, n_repeats: int, seed: int) -> dict[str, float]:
    test, n_cells = list(split.test), sample_size(screen)
    effects = method.predict_effects([*split.train, *test])
    mmd = []
    cells = method.predict(test, n_cells=n_cells * n_repeats, seed=seed)
    for label in _large_enough(screen, test):
        drawn = cells[(cells.obs["perturbation"] == label).to_numpy()].X
        drawn = drawn.toarray() if sparse.issparse(drawn) else np.asarray(drawn)
        found = sampled_scores(
            drawn, _cells_of(screen, label), n_cells=n_cells, n_repeats=n_repeats, seed=seed, score=_MMD
        )
        mmd.append(found["mk_mmd_200"].mean())
    return {**_effect_scores(effects, screen, test), "MK-MMD": np.mean(mmd) if mmd else np.nan}


def _effect_scores(effects: pd.DataFrame, screen: Screen, test: Sequence[str]) -> dict[str, float]:
    measured, pairs = screen.effects, [label for label in test if len(screen.genes_of[label]) == 2]
    found = {
        "relative MSE": relative_mse(effects.loc[test], measured.loc[test]),
        "Pearson": pearson_delta(effects.loc[test], measured.loc[test]),
    }
    if pairs:
        predicted, true = (_interactions(table, pairs, screen) for table in (effects, measured))
        found |= {f"precision@{_K}, {type_}": precision_at_k(predicted[type_], true[type_], k=_K) for type_ in TYPES}
    return found


def _interactions(effects: pd.DataFrame, pairs: Sequence[str], screen: Screen) -> dict[str, np.ndarray]:
    spelling = {"control": screen.setup["control"], "delimiter": screen.setup["delimiter"]}
    members = [[format_perturbation([screen.genes_of[pair][side]], **spelling) for pair in pairs] for side in (0, 1)]
    a, b, ab = (effects.loc[labels].to_numpy(float) for labels in (*members, pairs))
    return {type_: getattr(interactions, type_)(a, b, ab) for type_ in TYPES}


def _references(screen: Screen, split: Split, n_repeats: int, seed: int) -> pd.DataFrame:
    """Scores of the sum of measured singles, floor and ceiling of the cells' scores, and precision by chance."""
    test, n_cells = list(split.test), sample_size(screen)
    spelling = {"control": screen.setup["control"], "delimiter": screen.setup["delimiter"]}
    effects = screen.effects.copy()
    for label in test:
        members = [format_perturbation([gene], **spelling) for gene in screen.genes_of[label]]
        effects.loc[label] = screen.effects.loc[members].sum()
    rows = [(ADDITIVE, metric, value) for metric, value in _effect_scores(effects, screen, test).items()]
    pairs = [label for label in test if len(screen.genes_of[label]) == 2]
    if pairs:
        true = _interactions(screen.effects, pairs, screen)
        rows += [(CHANCE, f"precision@{_K}, {type_}", chance_precision(true[type_])) for type_ in TYPES]
    control = _cells_of(screen, screen.control)
    for label in _large_enough(screen, test):
        found = floor_and_ceiling(
            _cells_of(screen, label), control, n_cells=n_cells, n_repeats=n_repeats, seed=seed, score=_MMD
        )
        means = found.groupby("reference")["mk_mmd_200"].mean()
        rows += [(FLOOR, "MK-MMD", means["floor"]), (CEILING, "MK-MMD", means["ceiling"])]
    table = pd.DataFrame(rows, columns=["graph", "metric", "value"])
    over_combinations = table.groupby(["graph", "metric"], sort=False)["value"].mean().reset_index()
    return over_combinations.assign(preset="reference")


def _large_enough(screen: Screen, labels: Sequence[str]) -> list[str]:
    """Conditions with cells for two samples."""
    return [label for label in labels if len(screen.rows(label)) >= 2 * sample_size(screen)]


def _cells_of(screen: Screen, label: str) -> np.ndarray:
    return screen.expression[screen.rows(label)].toarray()


def _split(screen: Screen) -> Split:
    spelling = {"control": screen.setup["control"], "delimiter": screen.setup["delimiter"]}
    return singles_only(screen.conditions, **spelling)


def _graphs(settings: Settings, screen: Screen) -> list[str]:
    """Graphs that are asked for; the learned one first, since the random one is made from it."""
    known = [*LEARNED, *GIVEN] if "simulation" in screen.adata.uns else [*LEARNED, *GIVEN[:-1]]
    asked = settings.options.get("graphs") or known
    for name in asked:
        if name not in known:
            raise ValueError(f"graphs: {name!r} is unknown or not defined here; there are {', '.join(known)}.")
    if "random" in asked and "learned" not in asked:
        raise ValueError("graphs: 'random' is made from 'learned'; ask for both.")
    return [name for name in known if name in asked]


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Sequence[tuple[Unit, Part]], settings: Settings) -> dict[str, pd.DataFrame]:
    """``graph-ablation`` (to read) and ``graph-ablation_long``."""
    by = ["preset", "graph"]
    rows = pd.concat([part.rows.assign(seed=unit.seed) for unit, part in parts], ignore_index=True)
    learned = rows[(rows["graph"] == "learned") & (rows["metric"] == "edges")]
    summary = mean_and_sd(rows, [*by, "metric"])
    summary = pd.concat([part for _, part in summary.groupby(summary["preset"] == "reference")], ignore_index=True)
    shown = summary[~summary["metric"].isin(["weights of the learned graph", "seconds to fit"])]
    table = wide(shown, by).fillna("-")
    n_seeds, notes = len(settings.seeds), []
    for preset, graph in table[by].itertuples(index=False):
        empty = int((learned.loc[learned["preset"] == preset, "value"] == 0).sum())
        note = {
            "learned": f"empty in {empty} of {n_seeds} seeds",
            "random": f"1 edge a latent, weight {TYPICAL_WEIGHT}, in {empty} of {n_seeds} seeds" if empty else "",
        }
        notes.append(note.get(graph, ""))
    table.insert(2, "note", notes)
    return {"graph-ablation": table, "graph-ablation_long": summary}


# -- figure ----------------------------------------------------------------------------------------------------------
def draw(tables: dict[str, pd.DataFrame]) -> Figure:
    """Scores of every graph, with what needs no model as lines."""
    summary = tables["graph-ablation_long"]
    lines = summary[summary["preset"] == "reference"].set_index(["metric", "graph"])["value_mean"]
    values = summary[summary["preset"] != "reference"]
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
    styles = {ADDITIVE: "-", CHANCE: ":", FLOOR: "--", CEILING: "-."}
    handles = {}
    for ax, metric in zip(grid, panels, strict=False):
        for i, preset in enumerate(presets):
            here = values[(values["metric"] == metric) & (values["preset"] == preset)].set_index("graph")
            here = here.reindex(graphs)
            y = np.arange(len(graphs)) + 0.12 * (len(presets) - 1 - 2 * i)
            handles[f"preset {preset}"] = ax.errorbar(
                here["value_mean"], y, xerr=here["value_sd"].fillna(0), fmt="o", color=(BLUE, ORANGE)[i], markersize=4
            )
        for name, style in styles.items():
            if (metric, name) in lines.index and np.isfinite(lines[metric, name]):
                handles[name] = ax.axvline(lines[metric, name], color=GRAY, linestyle=style, linewidth=1.2)
        ax.set_xlabel(metric)
        ax.set_yticks(np.arange(len(graphs)), graphs)
        ax.set_ylim(-0.6, len(graphs) - 0.4)
        ax.grid(axis="y", color="0.92")
        if metric.startswith("precision"):
            ax.set_xlim(-0.05, 1.05)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure
