"""Experiment ``responders``: which cells responded to their perturbation, and which escaped it?

Screens are simulated in which 0, 20 and 50 % of the cells that carry a guide are as if they did not, with effects of
the usual size and strong ones. Every method gives the probability that a cell responded:

- ``raptorgraph``: ``get_response_probability``;
- ``Mixscape``, by pertpy with its defaults, here or in an environment of its own (``raptorgraph peers install
  mixscape``), left out where it is in neither;
- ``projection``: cells projected on the measured effect of their condition, split by a mixture of two Gaussians;
- ``true effect``: the same with the true effect and share of escaping cells given, near what the counts allow;
- ``all responded``: probability 1 for all.

``AUROC`` of responders among the cells of a perturbation, and the distance of the mean probability from the share of
responders (``share off``), are means over perturbations; the expected ``calibration error`` has ten bins, which hold
the cells of all of them. They are given for conditions of one gene, for those among them that stand out, and for
combinations, in which all guides of a cell must act. A perturbation stands out if its signal to noise is above 4: the
norm over genes of its true effect, in standard deviations of a control cell.

A screen has no such truth: ``responders_shares`` then has the share of responders in each condition by every method
side by side, as mean probability, and as the part of the cells whose probability is above one half.

``raptorgraph benchmark responders``, or with ``--screen FILE``; ``--set 'escaped=[0.2]'`` and ``--set
'effect_sizes=[6]'`` choose the screens that are simulated.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import metrics
from raptorgraph._arguments import check_number
from raptorgraph.benchmark import _responders_methods as responses
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._peer_methods import provenance
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, wide
from raptorgraph.benchmark._responders_methods import MIXSCAPE, OURS, PROJECTION
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.datasets import simulate
from raptorgraph.pl._figure import PALETTE
from raptorgraph.pl._panels import dots, name_rows, shared_legend
from raptorgraph.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("methods", "escaped", "effect_sizes", "max_epochs")
METHODS = (OURS, MIXSCAPE, PROJECTION)
TRUTH, ALL_RESPONDED = "true effect", "all responded"
ESCAPED, EFFECT_SIZES = (0.0, 0.2, 0.5), (2.0, 6.0)
STANDS_OUT = 4.0
SINGLES, STRONG, COMBINATIONS = "one gene", "one gene, stands out", "combinations"
AUROC, CALIBRATION, OFF, N = "AUROC", "calibration error", "share off", "perturbations"
SHARE, ABOVE, TRUE, SIGNAL, CELLS = "share", "share above one half", "true share", "signal to noise", "cells"
GROUPS = (SINGLES, STRONG, COMBINATIONS)
_SCORES = (AUROC, CALIBRATION, OFF)
_SIZE: dict[str, Any] = {"n_genes": 500, "n_perturbed": 20, "n_doubles": 10}
_QUICK = {
    "n_genes": 60,
    "n_perturbed": 4,
    "n_doubles": 2,
    "n_control_cells": 120,
    "n_cells_per_perturbation": 40,
    "n_truth_cells": 20,
}
_SCREEN = ["effect size", "escaped"]
_logger = logging.getLogger(__name__)


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed, simulated screen and method, and one of references."""
    methods = _methods(settings)
    apart: dict[Any, dict[str, Any]] = {}
    if MIXSCAPE in methods and (made := responses.mixscape()):
        apart[MIXSCAPE] = {"peer": made}
    if not _simulates(settings):
        if not load_screen(settings, settings.seeds[0]).conditions:
            raise ValueError("The screen has no perturbed cells, which could have responded.")
        for option in ("escaped", "effect_sizes"):
            if settings.options.get(option) is not None:
                raise ValueError(f"{option}: it is for simulated screens; leave it out, or --screen.")
        return units_by_seed(settings, [(name, {"method": name, **apart.get(name, {})}) for name in methods])
    grid = [
        {"escaped": escaped, "effect size": size}
        for size in _numbers(settings, "effect_sizes", EFFECT_SIZES, (6.0,), 0.1, 100.0)
        for escaped in _numbers(settings, "escaped", ESCAPED, (0.0, 0.5), 0.0, 0.99)
    ]
    pieces = [{"method": name, **here} for here in grid for name in (*methods, TRUTH)]
    named = [(" ".join(map(str, piece.values())), {**piece, **apart.get(piece["method"], {})}) for piece in pieces]
    return units_by_seed(settings, named)


def work(unit: Unit, settings: Settings) -> Part:
    """Find the cells that responded, and judge that where the truth is known."""
    name = unit.options["method"]
    if not _simulates(settings):
        screen = load_screen(settings, unit.seed)
        found = shares(responses.probabilities(name, screen, settings, unit.seed), screen)
        return Part(found.assign(method=name))
    escaped, size = unit.options["escaped"], unit.options["effect size"]
    screen, truth, effects = simulated(escaped, size, settings, unit.seed)
    if name == TRUTH:
        answers = {
            TRUTH: responses.by_truth(screen, effects, escaped),
            ALL_RESPONDED: np.where(screen.codes > 0, 1.0, np.nan),
        }
    else:
        answers = {name: responses.probabilities(name, screen, settings, unit.seed)}
    signal = responses.signal_to_noise(screen, effects)
    tables = [judge(answer, truth, signal, screen).assign(method=method) for method, answer in answers.items()]
    return Part(pd.concat(tables, ignore_index=True).assign(**{"escaped": escaped, "effect size": size}))


def simulated(escaped: float, size: float, settings: Settings, seed: int) -> tuple[Screen, np.ndarray, np.ndarray]:
    """A screen, whether each of its cells responded, and the true effects of its conditions on cells that did."""
    arguments = _QUICK if settings.quick else _SIZE
    adata = simulate(**arguments, effect_size=size, escape=escaped, seed=seed)
    screen = Screen(adata, {"library_size_key": "total_counts"})
    truth = adata.obs["responded"].to_numpy(dtype=bool) if "responded" in adata.obs else screen.codes > 0
    return screen, truth, adata.uns["simulation"]["effects"].loc[screen.conditions].to_numpy(dtype=np.float64)


def judge(probability: np.ndarray, truth: np.ndarray, signal: np.ndarray, screen: Screen) -> pd.DataFrame:
    """Scores of the probability that each cell responded.

    Parameters
    ----------
    probability, truth
        Probability, and whether it did, of each cell.
    signal
        Signal to noise of each condition.
    screen
        The screen.

    Returns
    -------
    Rows ``group`` (of conditions, or one condition), ``metric`` and ``value``. The AUROC is left out of conditions all
    of whose cells responded, or none.
    """
    codes, each = screen.codes, {}
    for code, label in enumerate(screen.conditions, start=1):
        p, y = probability[codes == code], truth[codes == code]
        each[label] = {
            SIGNAL: signal[code - 1],
            TRUE: y.mean(),
            SHARE: p.mean(),
            OFF: abs(p.mean() - y.mean()),
            CALIBRATION: metrics.calibration_error(p, y),
            **({} if y.all() or not y.any() else {AUROC: metrics.auroc(p[y], p[~y])}),
        }
    table = pd.DataFrame.from_dict(each, orient="index")
    alone = screen.n_perturbed[1:] == 1
    for group, members in zip(GROUPS, (alone, alone & (signal > STANDS_OUT), ~alone), strict=True):
        if members.any():
            cells = np.isin(codes, 1 + np.flatnonzero(members))
            means = table.loc[members, [name for name in (AUROC, OFF, SHARE, TRUE) if name in table]].mean()
            pooled = metrics.calibration_error(probability[cells], truth[cells])
            each[group] = {**means.dropna().to_dict(), CALIBRATION: pooled, N: int(members.sum())}
    return _long(each, "group")


def shares(probability: np.ndarray, screen: Screen) -> pd.DataFrame:
    """Share of responders in each condition: mean probability, and share of cells above one half."""
    of = {label: probability[screen.rows(label)] for label in screen.conditions}
    found = {label: {CELLS: len(p), SHARE: p.mean(), ABOVE: (p > 0.5).mean()} for label, p in of.items()}
    return _long(found, "perturbation")


def _long(values: Mapping[str, Mapping[str, float]], name: str) -> pd.DataFrame:
    rows = [(key, metric, float(value)) for key, scores in values.items() for metric, value in scores.items()]
    return pd.DataFrame(rows, columns=[name, "metric", "value"])


def _simulates(settings: Settings) -> bool:
    return settings.screen in (None, "simulated")


def _methods(settings: Settings) -> list[str]:
    asked = chosen(settings, "methods", METHODS, "says nothing of single cells or is unknown")
    if MIXSCAPE in asked:
        try:
            responses.mixscape()
        except ImportError as error:
            if settings.options.get("methods"):
                raise
            _logger.info("%s is left out. %s", MIXSCAPE, error)
            asked.remove(MIXSCAPE)
    return asked


def _numbers(
    settings: Settings, option: str, default: Sequence[float], quick: Sequence[float], low: float, high: float
) -> list[float]:
    values = settings.option(option, default, quick=quick)
    values = list(values) if isinstance(values, list | tuple) else [values]
    if not values:
        raise ValueError(f"{option}: give one number or more.")
    return [check_number(option, value, low, high) for value in values]


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``responders`` (to read), ``_long`` and ``_perturbations``; of a screen ``responders_shares`` and ``_long``.

    ``responders_peers`` has the version of Mixscape where it is in an environment of its own.
    """
    rows = all_rows(parts)
    apart = {unit.options["method"]: unit.options["peer"] for unit, _ in parts if "peer" in unit.options}
    more = {"responders_peers": provenance(apart)} if apart else {}
    if not _simulates(settings):
        summary = mean_and_sd(rows, ["perturbation", "method", "metric"])
        return {"responders_shares": side_by_side(summary), "responders_long": summary} | more
    by = [*_SCREEN, "group", "method", "metric"]
    whole = rows["group"].isin(GROUPS)
    order = {name: list(dict.fromkeys(rows[name])) for name in by}
    order["effect size"], order["escaped"] = (sorted(order[name]) for name in _SCREEN)
    order["group"] = [*GROUPS, *sorted(rows.loc[~whole, "group"].unique())]
    order["metric"] = [*_SCORES, SHARE, TRUE, SIGNAL, N]
    summary, each = (in_order(mean_and_sd(rows[of], by), **order) for of in (whole, ~whole))
    table = wide(summary[summary["metric"].isin((*_SCORES, SHARE))], by[:-1])
    table = table.reindex(columns=[*by[:-1], *_SCORES, SHARE]).fillna("-")
    numbers = summary[summary["metric"] == N].set_index(by[:-1])["value_mean"]
    table.insert(4, N, [f"{numbers[key]:.3g}" for key in table[by[:-1]].itertuples(index=False, name=None)])
    return {"responders": table, "responders_long": summary, "responders_perturbations": each} | more


def side_by_side(summary: pd.DataFrame) -> pd.DataFrame:
    """Shares of responders in each condition, one column for each method and way to count."""
    n_cells = summary[summary["metric"] == CELLS].drop_duplicates("perturbation").set_index("perturbation")
    counted = summary[summary["metric"] != CELLS]
    counted = counted.assign(metric=counted["method"] + ", " + counted["metric"])
    table = wide(counted, ["perturbation"])
    table.insert(1, CELLS, n_cells["value_mean"].reindex(table["perturbation"]).to_numpy().astype(int))
    return table


# -- figures ---------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> Figure | dict[str, Figure]:
    """Scores of each method by share of escaping cells, a figure for each effect size; or shares in each condition."""
    summary = tables["responders_long"]
    if "perturbation" in summary:
        return _draw_shares(summary[summary["metric"] == SHARE])
    sizes = summary["effect size"].unique()
    return {f"responders_{size:g}": _draw_scores(summary[summary["effect size"] == size]) for size in sizes}


def _draw_scores(summary: pd.DataFrame) -> Figure:
    methods = list(summary["method"].unique())[::-1]
    groups = [group for group in GROUPS if group in set(summary["group"])]
    figure = Figure(figsize=(2.2 + 2.4 * len(_SCORES), 0.8 + (0.7 + 0.28 * len(methods)) * len(groups)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(len(groups), len(_SCORES), squeeze=False)
    shares = list(summary["escaped"].unique())
    for row, group in zip(axes, groups, strict=True):
        for ax, metric in zip(row, _SCORES, strict=True):
            here = summary[(summary["group"] == group) & (summary["metric"] == metric)]
            for i, escaped in enumerate(shares):
                values = here[here["escaped"] == escaped].set_index("method")
                place = 0.2 * ((len(shares) - 1) / 2 - i)
                dots(ax, values, methods, place, color=PALETTE[i % len(PALETTE)], label=f"{escaped:.0%} escaped")
            ax.set_title(f"{group}: {metric}", fontsize=9)
        name_rows(row, methods)
        for ax in row[1:]:
            ax.set_yticklabels([])
    shared_legend(figure)
    return figure


def _draw_shares(shares: pd.DataFrame) -> Figure:
    names = list(shares["perturbation"].unique())[::-1]
    figure = Figure(figsize=(6, min(40.0, 1.2 + 0.22 * len(names))), layout="constrained")
    ax = figure.subplots()
    for i, (method, values) in enumerate(shares.groupby("method", sort=False)):
        dots(ax, values.set_index("perturbation"), names, color=PALETTE[i], label=method)
    name_rows([ax], names)
    ax.set(xlim=(-0.03, 1.03), xlabel="share of cells that responded, mean probability")
    shared_legend(figure)
    return figure


RESPONDERS = Experiment(
    "responders",
    "Cells that responded to their perturbation, and cells that escaped it",
    OPTIONS,
    units,
    work,
    tables,
    draw,
)
