"""Experiment ``stream``: does a screen that stays on disk train in the same memory, however many cells it has?

Screens of more and more cells of the same conditions are simulated into a file, each in a process of its own, and
trained from it as from any backed file. As long as they fit, the same cells are trained in memory, too. ``peak GB`` is
the largest resident memory of the process from the set-up to the end of the training, ``cells a second`` those of the
training's epochs, of which there is one.

``raptorgraph benchmark stream``; ``--set 'cells=[100000]'`` narrows it. Files are written to the folder for temporary
files (``TMPDIR``): 2,000,000 cells take 11 GB there. Run it with ``--n-jobs 1``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import datasets
from raptorgraph.benchmark._cost import CPU, PEAK, WALL, Meter, log_axes
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._measured_training import train_measured
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.pl._panels import shared_legend

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("cells",)
CELLS, _QUICK_CELLS = (100_000, 500_000, 2_000_000), (300, 600)
DISK, MEMORY = "on disk", "in memory"
RATE = "cells a second"
_MOST_IN_MEMORY = 100_000
_SIZE = {"n_genes": 2000, "n_perturbed": 100, "n_doubles": 50}
_QUICK_SIZE = {"n_genes": 30, "n_perturbed": 4, "n_doubles": 2}
_CONTROLS = 0.05  # part of the cells
_ALL, _SIMULATE, _EPOCH = "training", "simulate", "epoch"


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed, number of cells and place."""
    found: list[tuple[str, dict[str, Any]]] = []
    for cells in settings.option("cells", CELLS, quick=_QUICK_CELLS):
        if not (isinstance(cells, int) and cells >= 100):
            raise ValueError(f"cells: {cells!r} is not a number of cells of 100 or more.")
        places = (DISK, MEMORY) if cells <= _MOST_IN_MEMORY else (DISK,)
        found += [(f"{cells}-{place.replace(' ', '-')}", {"cells": cells, "place": place}) for place in places]
    return units_by_seed(settings, found)


def work(unit: Unit, settings: Settings) -> Part:
    """Simulate, and train for an epoch."""
    size, cells = _QUICK_SIZE if settings.quick else _SIZE, unit.options["cells"]
    n_controls = int(_CONTROLS * cells)
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        with meter.stage(_SIMULATE):
            adata = datasets.simulate(
                **size,
                n_control_cells=n_controls,
                n_cells_per_perturbation=(cells - n_controls) // (size["n_perturbed"] + size["n_doubles"]),
                truth_order=1,
                n_truth_cells=10,
                interaction_strength=0.0,
                seed=unit.seed,
                out=Path(folder) / "screen.h5ad" if unit.options["place"] == DISK else None,
            )
        with meter.stage(_ALL):
            train_measured(meter, adata)
        rows = meter.table().drop_duplicates(["stage", "metric"])
        epoch = rows[(rows["stage"] == _EPOCH) & (rows["metric"] == WALL)]["value"].iloc[0]
        rate = pd.DataFrame({"stage": [_EPOCH], "metric": [RATE], "value": [adata.n_obs / epoch]})
        if adata.isbacked:
            adata.file.close()
    return Part(pd.concat([rows, rate], ignore_index=True).assign(cells=cells, place=unit.options["place"]))


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``stream`` (to read) and ``stream_long`` (all values, with the seconds of every stage)."""
    rows = all_rows(parts)
    rows = rows.sort_values("cells", kind="stable", ignore_index=True)
    shown = [(_ALL, PEAK), (_EPOCH, RATE), (_SIMULATE, WALL), (_ALL, WALL), (_ALL, CPU)]
    names = dict(zip(shown, (PEAK, RATE, "seconds to simulate", "seconds to train", CPU), strict=True))
    keys = list(zip(rows["stage"], rows["metric"], strict=True))
    read = rows.assign(metric=[names.get(key, "") for key in keys])
    order = {"cells": list(dict.fromkeys(rows["cells"])), "place": (DISK, MEMORY), "metric": list(names.values())}
    read = in_order(read[read["metric"] != ""], **order)
    return {
        "stream": wide(mean_and_sd(read, ["cells", "place", "metric"]), ["cells", "place"]),
        "stream_long": mean_and_sd(rows, ["cells", "place", "stage", "metric"]),
    }


def draw(tables: Tables) -> Figure:
    """Peak of the memory, and cells a second, against the number of cells."""
    long = tables["stream_long"]
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    for ax, stage, metric in zip(figure.subplots(1, 2), (_ALL, _EPOCH), (PEAK, RATE), strict=True):
        here = long[(long["stage"] == stage) & (long["metric"] == metric)]
        for place in (DISK, MEMORY):
            at = here[here["place"] == place].sort_values("cells")
            ax.plot(at["cells"], at["value_mean"], "o-", markersize=4, linewidth=1, label=place)
        log_axes(ax, here["cells"])
        ax.set_yscale("linear")  # what does not grow is flat
        ax.set(xlabel="cells", ylabel=metric, ylim=(0, 1.1 * here["value_mean"].max()))
    shared_legend(figure)
    return figure


STREAM = Experiment(
    "stream", "Training of a screen that stays on disk", OPTIONS, units, work, tables, draw, ("cells",), 1
)
