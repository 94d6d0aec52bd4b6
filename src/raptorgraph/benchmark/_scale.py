"""Experiment ``scale``: how cost grows with cells, genes, perturbations and latents, and what a larger screen takes.

Simulated screens differ from a common one in one size at a time; each is set up, trained for an epoch and asked in a
process of its own. The exponent of a size is the slope of the logarithm of the cost on that of the size, with its
standard error: 1 is proportional, 2 grows with the square. Where sizes are small, fixed costs hide the slope, so
exponents of a size that hardly counts are near 0. Latents follow the perturbations, as in the model's default, but for
the rows in which they alone are changed.

``scale_projection`` multiplies the cost of the common screen by the powers that were fitted, for a screen beyond what
was measured: it is a projection, not a measurement, and its range (two standard errors of the exponents) holds only as
far as the powers do. Of several GPUs the epochs, of several workers the sums are shared in equal parts, and nothing
else is; that GPUs are faster than the cores which were measured is left out.

``raptorgraph benchmark scale``; ``--set 'axes=["cells"]'`` narrows it, ``--set 'target={"cells": 1e6}'`` changes the
projected screen. Run it with ``--n-jobs 1``: processes that share cores change each other's times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import datasets, tl
from raptorgraph.benchmark._cost import ADDED, CPU, METRICS, Meter, exponents, log_axes
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._measured_training import train_measured
from raptorgraph.benchmark._report import all_rows, as_text, in_order, mean_and_sd
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.pl._panels import shared_legend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("axes", "target")
AXES = ("cells", "genes", "perturbations", "latents")
STAGES = ("setup", "sums", "graph", "posterior", "start", "epoch", "responders", "predict", "interactions")
_SIZES: dict[str, tuple[int, ...]] = {
    "cells": (10_000, 20_000, 40_000, 80_000),
    "genes": (500, 1000, 2000, 4000),
    "perturbations": (25, 50, 100, 200),
    "latents": (62, 100, 200, 400),
}
_COMMON = {"cells": 20_000, "genes": 1000, "perturbations": 50, "latents": 62}
_QUICK: dict[str, tuple[int, ...]] = {
    "cells": (200, 400),
    "genes": (30, 60),
    "perturbations": (4, 6),
    "latents": (9, 12),
}
_QUICK_COMMON = {"cells": 200, "genes": 30, "perturbations": 4, "latents": 9}
TARGET = {"cells": 2_500_000, "genes": 5000, "perturbations": 9900}
MACHINES: dict[str, dict[str, int]] = {  # processes that share a stage
    "1 machine": {},
    "8 GPUs": {"epoch": 8},
    "16 Dask workers": {"setup": 16, "sums": 16},
}
_N_ASKED, _N_PREDICTED = 10, 200  # perturbations, and cells of each


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed and size; the common screen serves all axes."""
    target = settings.option("target", TARGET)
    for name, size in target.items():
        if name not in TARGET or not size >= 1:
            raise ValueError(f"target: {name}={size!r} is none of {', '.join(TARGET)} with a size of 1 or more.")
    common, values = _plan(settings)
    sizes = {tuple(common.values()): common}
    for axis in chosen(settings, "axes", AXES):
        for value in values[axis]:
            changed = {**common, axis: value}
            if axis == "perturbations":
                changed["latents"] = _latents(value)
            sizes[tuple(changed.values())] = changed
    named = [("-".join(f"{axis}{size}" for axis, size in each.items()), each) for each in sizes.values()]
    return units_by_seed(settings, named)


def _plan(settings: Settings) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    return (_QUICK_COMMON, _QUICK) if settings.quick else (_COMMON, _SIZES)


def _latents(n_perturbed: int) -> int:
    """Default of the model and of the simulator."""
    return n_perturbed + max(5, n_perturbed // 4)


def work(unit: Unit, settings: Settings) -> Part:
    """Simulate, then measure set-up, the parts of a training of one epoch, and two questions."""
    size = unit.options
    k = size["perturbations"]
    n_doubles = k // 2
    n_each = max(2, size["cells"] // (k + n_doubles + 5))
    adata = datasets.simulate(
        size["genes"],
        k,
        n_control_cells=size["cells"] - n_each * (k + n_doubles),
        n_cells_per_perturbation=n_each,
        n_doubles=n_doubles,
        truth_order=1,
        n_truth_cells=10,
        interaction_strength=0.0,
        seed=unit.seed,
    )
    meter = Meter()
    model = train_measured(meter, adata, n_latent=size["latents"])
    with meter.stage("predict"):
        model.predict(model.perturbed_genes[:_N_ASKED], n_cells=_N_PREDICTED)
    with meter.stage("interactions"):
        tl.interactions(model)
    # the trainer sets the splitter up again, which has nothing left to do
    rows = meter.table().drop_duplicates(["stage", "metric"]).assign(**size)
    return Part(rows)


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``scale`` (exponents, to read), ``scale_projection``, ``scale_exponents``, ``scale_long`` (all values)."""
    rows = all_rows(parts)
    common, _ = _plan(settings)
    found = []
    for axis in chosen(settings, "axes", AXES):
        others = [name for name in AXES if name != axis and not (axis == "perturbations" and name == "latents")]
        here = rows[(rows[others] == pd.Series(common)[others]).all(axis=1)]
        if axis == "perturbations":
            here = here[here["latents"] == here["perturbations"].map(_latents)]
        slopes = exponents(here.rename(columns={axis: "size"}), ["stage", "metric"], "size")
        found.append(slopes.assign(axis=axis))
    slopes = in_order(pd.concat(found, ignore_index=True), stage=STAGES, metric=METRICS)
    at_common = rows[(rows[list(AXES)] == pd.Series(common)[list(AXES)]).all(axis=1)]
    cost = mean_and_sd(in_order(at_common, stage=STAGES, metric=METRICS), ["stage", "metric"])
    table = slopes.pivot(index=["stage", "metric"], columns="axis", values="text")
    table = table.reindex(columns=chosen(settings, "axes", AXES)).reindex(
        [(stage, metric) for stage in STAGES for metric in (CPU, ADDED) if stage in set(rows["stage"])]
    )
    texts = {(row.stage, row.metric): as_text(row.value_mean, row.value_sd) for row in cost.itertuples()}
    table.insert(0, "common screen", [texts[key] for key in table.index])
    long = mean_and_sd(in_order(rows, stage=STAGES, metric=METRICS), [*AXES, "stage", "metric"])
    return {
        "scale": table.fillna("-").reset_index(),
        "scale_projection": _projection(cost, slopes, common, settings.option("target", TARGET)),
        "scale_exponents": slopes.drop(columns="text"),
        "scale_long": long,
    }


def _projection(
    cost: pd.DataFrame, slopes: pd.DataFrame, common: Mapping[str, int], target: Mapping[str, float]
) -> pd.DataFrame:
    """Hours of each stage of a larger screen on each kind of machine, by the powers that were fitted."""
    found: list[dict[str, Any]] = []
    seconds = cost[cost["metric"] == CPU].set_index("stage")["value_mean"]
    powers = slopes[slopes["metric"] == CPU].set_index(["stage", "axis"])
    for machine, shares in MACHINES.items():
        total = np.zeros(3)
        for stage, base in seconds.items():
            log, error = np.log(base / 3600 / shares.get(str(stage), 1)), 0.0
            for axis, size in target.items():
                if (stage, axis) in powers.index:
                    factor = np.log(size / common[axis])
                    log += powers.loc[(stage, axis), "exponent"] * factor
                    error += (np.nan_to_num(powers.loc[(stage, axis), "exponent_se"]) * factor) ** 2
            hours = np.exp(log + np.array([0.0, -2.0, 2.0]) * np.sqrt(error))
            total += hours
            found.append({"machine": machine, "stage": stage, **_hours(hours)})
        found.append({"machine": machine, "stage": "all", **_hours(total)})
    return pd.DataFrame(found)


def _hours(hours: np.ndarray) -> dict[str, str]:
    return dict(zip(("projected hours", "from", "to"), (f"{value:.2g}" for value in hours), strict=True))


def draw(tables: Tables) -> Figure:
    """CPU seconds of every stage against each size."""
    long = tables["scale_long"]
    long = long[long["metric"] == CPU]
    axes = list(dict.fromkeys(tables["scale_exponents"]["axis"]))
    figure = Figure(figsize=(3.2 * len(axes), 3.4), layout="constrained")
    usual = {axis: long[axis].mode().iloc[0] for axis in AXES}
    for ax, axis in zip(np.atleast_1d(figure.subplots(1, len(axes), sharey=True)), axes, strict=True):
        others = [name for name in AXES if name != axis and not (axis == "perturbations" and name == "latents")]
        here = long[(long[others] == pd.Series(usual)[others]).all(axis=1)]
        if axis == "perturbations":
            here = here[here["latents"] == here["perturbations"].map(_latents)]
        for stage in STAGES:
            of_stage = here[here["stage"] == stage].sort_values(axis)
            ax.plot(of_stage[axis], of_stage["value_mean"], "o-", markersize=3, linewidth=1, label=stage)
        log_axes(ax, here[axis])
        ax.set_xlabel(axis)
    figure.axes[0].set_ylabel(CPU)
    shared_legend(figure)
    return figure


SCALE = Experiment(
    "scale", "How cost grows with the size of a screen", OPTIONS, units, work, tables, draw, ("axes",), 1
)
