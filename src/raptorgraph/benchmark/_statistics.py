"""Experiment ``statistics``: what graph and posterior cost on tables of thousands of perturbations.

Measured effects of single perturbations on 5,000 genes are drawn, sparse direct effects that spread along a random
graph, with noise: these sums are all that the statistics of a training need, however many cells there were. ``peak
GB`` is the largest resident memory of the process, the table itself included.

``raptorgraph benchmark statistics``; ``--set 'perturbations=[10000]'`` asks for other numbers. Run it with
``--n-jobs 1 --n-threads 2``, or as many as there are cores: processes that share cores change each other's times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import sparse

from raptorgraph.benchmark._cost import METRICS, PEAK, WALL, Meter, exponents, log_axes
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._report import all_rows, as_text, in_order, mean_and_sd
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.inference import EffectPosterior, infer_graph
from raptorgraph.pl._panels import shared_legend

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("perturbations",)
PERTURBATIONS, _QUICK = (500, 1000, 2000), (20, 40)
GRAPH, POSTERIOR = "graph", "posterior"
_N_GENES, _N_QUICK_GENES = 5000, 100
_DIRECT, _SIZE = 0.05, 0.4  # share of the genes that a perturbation moves directly, and how far
_N_CELLS, _N_CONTROLS = 100, 5000
_CELL_SD = 0.8  # of a gene among cells


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed and number of perturbations."""
    numbers = settings.option("perturbations", PERTURBATIONS, quick=_QUICK)
    for number in numbers:
        if not (isinstance(number, int) and number >= 10):
            raise ValueError(f"perturbations: {number!r} is not a number of 10 or more.")
    return units_by_seed(settings, [(f"{number}", {"perturbations": number}) for number in numbers])


def work(unit: Unit, settings: Settings) -> Part:
    """Draw a table of effects, infer its graph and fit the posterior."""
    k, n_genes = unit.options["perturbations"], _N_QUICK_GENES if settings.quick else _N_GENES
    effect, variance, control_variance = _table(k, n_genes, np.random.default_rng(unit.seed))
    targets = torch.where(torch.arange(k) < n_genes, torch.arange(k), -1)
    meter = Meter()
    with meter.stage(GRAPH):
        graph = infer_graph(effect, variance, targets, control_variance=control_variance)
    weight = torch.where(graph.probability >= 0.5, graph.weight, 0.0)
    del graph
    with meter.stage(POSTERIOR):
        n = torch.full((k,), float(_N_CELLS))
        whole = variance + control_variance
        EffectPosterior().fit(torch.eye(k), effect, whole, n, _N_CONTROLS, targets=targets, graph=weight)
    return Part(meter.table().assign(perturbations=k))


def _table(k: int, n_genes: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Measured effects, their sampling variance and that of the controls."""
    effect = _SIZE * rng.standard_normal((k, n_genes)) * (rng.random((k, n_genes)) < _DIRECT)
    own = np.arange(min(k, n_genes))
    effect[own, own] = -1.5
    cause, target = rng.integers(0, k, (2, k))
    weight = rng.uniform(0.3, 0.8, k) * rng.choice([-1, 1], k)
    forward = cause < target
    graph = sparse.csr_matrix((weight[forward], (cause[forward], target[forward])), shape=(k, k))
    for i in range(k - 1, -1, -1):
        row = graph[i]
        if row.nnz:
            effect[i] += row.data @ effect[row.indices]
    noise, control = _CELL_SD / _N_CELLS**0.5, _CELL_SD / _N_CONTROLS**0.5
    effect += noise * rng.standard_normal(effect.shape) + control * rng.standard_normal(n_genes)
    variance = torch.full((k, n_genes), noise**2, dtype=torch.float64)
    return torch.as_tensor(effect), variance, torch.full((n_genes,), control**2, dtype=torch.float64)


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``statistics`` (to read, with the exponents) and ``statistics_long``."""
    rows = all_rows(parts).sort_values("perturbations", kind="stable", ignore_index=True)
    rows = in_order(rows, stage=(GRAPH, POSTERIOR), metric=METRICS)
    long = mean_and_sd(rows, ["perturbations", "stage", "metric"])
    shown = long[long["metric"].isin((WALL, PEAK))]
    texts = [as_text(row.value_mean, row.value_sd) for row in shown.itertuples()]
    wide = shown.assign(text=texts).pivot(index=["stage", "metric"], columns="perturbations", values="text")
    wide.columns = [f"{number:,}" for number in wide.columns]
    slopes = exponents(rows.rename(columns={"perturbations": "size"}), ["stage", "metric"], "size")
    wide["exponent"] = slopes.set_index(["stage", "metric"])["text"]
    return {"statistics": wide.reset_index(), "statistics_long": long}


def draw(tables: Tables) -> Figure:
    """Seconds and memory against the number of perturbations."""
    long = tables["statistics_long"]
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    for ax, metric in zip(figure.subplots(1, 2), (WALL, PEAK), strict=True):
        here = long[long["metric"] == metric]
        for stage in (GRAPH, POSTERIOR):
            at = here[here["stage"] == stage].sort_values("perturbations")
            ax.plot(at["perturbations"], at["value_mean"], "o-", markersize=4, linewidth=1, label=stage)
        log_axes(ax, here["perturbations"])
        ax.set(xlabel="perturbations", ylabel=metric)
    shared_legend(figure)
    return figure


STATISTICS = Experiment(
    "statistics", "Graph and posterior of thousands of perturbations", OPTIONS, units, work, tables, draw
)
