"""Experiment ``losses``: what MSE, MK-MMD and OT see at 0, 50, 90 and 99 % zeros (Table S7, section F.4).

A paired, a permuted and a collapsed prediction of a simulated population are scored by three losses. The published
table is one draw from an unknown seed; ours are means over seeds, with the published values and their distance in
standard deviations of one draw beside them. ``preferred`` is the output with the lowest mean, ``wins`` in how many of
the seeds it has the lowest value: lower is better for all three.

``raptorgraph benchmark losses --seeds 16``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._losses_study import METRICS, OUTPUTS, SPARSITIES, against_published, losses_study, verdict
from raptorgraph.benchmark._report import all_rows, as_text
from raptorgraph.benchmark._settings import Part, Settings, Unit
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("sparsities",)
_NAMES = {"mse": "MSE", "mk_mmd": "MK-MMD", "ot": "OT"}
_DIGITS = {"mse": 4, "mk_mmd": 4, "ot": 2}


def units(settings: Settings) -> list[Unit]:
    """One unit for each seed."""
    for value in _sparsities(settings):
        if not 0 <= value < 1:
            raise ValueError(f"sparsities: {value!r} must be at least 0 and below 1.")
    return [Unit(f"seed{seed}", seed) for seed in settings.seeds]


def work(unit: Unit, settings: Settings) -> Part:
    """Score the three outputs at every sparsity."""
    n_samples, n_features = (60, 200) if settings.quick else (1000, 5000)
    parts = [
        losses_study(sparsity, seed=unit.seed, n_samples=n_samples, n_features=n_features)
        for sparsity in _sparsities(settings)
    ]
    return Part(pd.concat(parts, ignore_index=True))


def tables(parts: Parts, settings: Settings) -> Tables:
    """``losses`` (to read), ``losses_published`` (against every printed cell) and ``losses_long`` (each seed)."""
    rows = all_rows(parts)
    published = against_published(rows)
    printed = published.set_index(["sparsity", "metric", "output"])["published"]
    found = []
    for choice in verdict(rows).itertuples():
        here = rows[(rows["sparsity"] == choice.sparsity) & (rows["metric"] == choice.metric)]
        values = here.pivot(index="seed", columns="output", values="value")
        digits = _DIGITS[choice.metric]
        row = {"zeros": f"{choice.sparsity:.0%}", "loss": _NAMES[choice.metric]}
        for output in OUTPUTS:
            row[output] = as_text(values[output].mean(), values[output].std(ddof=1), digits)
            row[f"{output}, published"] = as_text(
                printed.get((choice.sparsity, choice.metric, output), np.nan), digits=digits
            )
        first = choice.preferred.split("=")[0]
        others = values.drop(columns=choice.preferred.split("="))
        row["preferred"] = choice.preferred
        row["wins"] = (
            f"{int((values[first].to_numpy()[:, None] < others.to_numpy()).all(axis=1).sum())} of {len(values)}"
        )
        found.append(row)
    return {"losses": pd.DataFrame(found), "losses_published": published, "losses_long": rows}


def draw(tables: Tables) -> Figure:
    """Each loss of the three outputs over the share of zeros, with the published values as crosses."""
    rows, published = tables["losses_long"], tables["losses_published"]
    figure = Figure(figsize=(13, 4), layout="constrained")
    for ax, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        for output, color in zip(OUTPUTS, (BLUE, ORANGE, GRAY), strict=True):
            here = rows[(rows["metric"] == metric) & (rows["output"] == output)]
            groups = here.groupby("sparsity")["value"]
            places = range(groups.ngroups)
            ax.errorbar(places, groups.mean(), yerr=groups.std().fillna(0), color=color, marker="o", ms=4, label=output)
            cells = published[(published["metric"] == metric) & (published["output"] == output)]
            positions = [list(groups.groups).index(sparsity) for sparsity in cells["sparsity"]]
            ax.plot(
                positions,
                cells["published"],
                "x",
                color="black",
                ms=8,
                label="published" if output == OUTPUTS[-1] else None,
            )
        ax.set_xticks(list(places), [f"{sparsity:.0%}" for sparsity in groups.groups])
        ax.set(title=_NAMES[metric], xlabel="zeros")
    ax.legend(fontsize=8)
    return figure


def _sparsities(settings: Settings) -> tuple[float, ...]:
    return tuple(settings.options.get("sparsities", SPARSITIES))


LOSSES = Experiment(
    "losses", "Three losses on paired, permuted and collapsed predictions", OPTIONS, units, work, tables, draw
)
