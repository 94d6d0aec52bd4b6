"""Experiment ``pairing-cost``: what pairing costs with more cells (optimal transport and simpler means).

Perturbed and control cells, as many of each, are drawn in 50 coordinates and paired by each method, first with all
controls and then with the 2,500 that :func:`raptorgraph.pp.pair_cells` uses by default. The exponent is the slope of
the logarithm of the cost on that of the number of cells, with its standard error.

``raptorgraph benchmark pairing-cost``; ``--set 'methods=["emd"]'`` and ``--set 'sizes=[500, 1000]'`` narrow it. Run it
with ``--n-jobs 1``: processes that share cores change each other's times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from raptorgraph.benchmark._cost import ADDED, CPU, METRICS, Meter, exponents, log_axes
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._report import all_rows, as_text, in_order, mean_and_sd
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.pl._panels import shared_legend
from raptorgraph.pp._pairing import METHODS, pairing_plan

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("methods", "sizes")
SIZES = (500, 1000, 2000, 4000, 8000)
ALL, CAPPED = "all", "2,500"
_N_COORDINATES = 50
_BY = ["method", "controls", "metric"]


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed, method and number of cells."""
    sizes = settings.option("sizes", SIZES, quick=(20, 40))
    for size in sizes:
        if not (isinstance(size, int) and size >= 2):
            raise ValueError(f"sizes: {size!r} is not a number of cells of 2 or more.")
    methods = chosen(settings, "methods", METHODS)
    return units_by_seed(
        settings, [(f"{method}-{size}", {"method": method, "cells": size}) for method in methods for size in sizes]
    )


def work(unit: Unit, settings: Settings) -> Part:
    """Pair the cells of one condition with all controls, and with some."""
    n, meter = unit.options["cells"], Meter()
    coordinates = np.random.default_rng(unit.seed).standard_normal((2 * n, _N_COORDINATES))
    codes = np.repeat([0, 1], n)
    for controls, most in ((ALL, None), (CAPPED, 2500)):
        with meter.stage(controls):
            pairing_plan(coordinates, codes, method=unit.options["method"], max_controls=most, seed=unit.seed)
    return Part(meter.table().rename(columns={"stage": "controls"}))


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``pairing_cost`` (the largest size, and exponents) and ``pairing_cost_long``."""
    rows = all_rows(parts, "method", "cells")
    rows = in_order(rows, method=chosen(settings, "methods", METHODS), controls=(ALL, CAPPED), metric=METRICS)
    slopes = exponents(rows, _BY, "cells").set_index(_BY)
    largest = mean_and_sd(rows[rows["cells"] == rows["cells"].max()], [*_BY, "cells"])
    shown = largest[largest["metric"].isin((CPU, ADDED))].reset_index(drop=True)
    keys = list(shown[_BY].itertuples(index=False, name=None))
    shown["value"] = [as_text(mean, sd) for mean, sd in zip(shown["value_mean"], shown["value_sd"], strict=True)]
    shown["exponent"] = [slopes.loc[key, "text"] for key in keys]
    return {
        "pairing_cost": shown[["method", "controls", "cells", "metric", "value", "exponent"]],
        "pairing_cost_long": mean_and_sd(rows, [*_BY, "cells"]),
    }


def draw(tables: Tables) -> Figure:
    """CPU seconds of the methods against the number of cells."""
    long = tables["pairing_cost_long"]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for ax, controls in zip(figure.subplots(1, 2, sharey=True), (ALL, CAPPED), strict=True):
        here = long[(long["controls"] == controls) & (long["metric"] == CPU)]
        for method, of_method in here.groupby("method", sort=False):
            ax.errorbar(
                of_method["cells"], of_method["value_mean"], of_method["value_sd"].fillna(0.0), label=method, marker="o"
            )
        log_axes(ax, here["cells"])
        ax.set_xlabel("perturbed cells of a condition, and controls")
        ax.set_title(f"{controls} controls")
    figure.axes[0].set_ylabel(CPU)
    shared_legend(figure)
    return figure


PAIRING_COST = Experiment(
    "pairing-cost", "Cost of pairing against the number of cells", OPTIONS, units, work, tables, draw
)
