"""Experiment ``prediction``: all models and baselines on unseen combinations (Tables 1 and S6, with everything beside).

Every method is fitted on the same cells and asked for the same combinations, which it has not seen, in up to four
regimes (:mod:`raptorgraph.evaluation._splits`): ``singles`` (control and singles are seen), ``doubles`` (and four of
five parts of the combinations, each part left out once), ``paper`` (as ``singles``, without a validation part) and
``seen`` (some singles are left out too). Effects are scored against the method's own predicted control and against the
data's control; a method whose control drifts differs in the two. Cells are scored at a fixed number, beside the floor
(real against real) and the ceiling (control against real). ``control MSE, other cells`` is the reconstruction error of
Table 1 (section D.1), which the mean in place of every cell wins; ``control variance explained`` tells it apart.

Published tools that are installed in environments of their own (``raptorgraph peers``) are fitted where ``methods``
names them, with the epochs ``peer_epochs``, one number or one by tool, the settings ``peer_options`` by tool, and the
time limit ``peer_timeout`` in seconds; ``gene2go`` is the file of GO terms that GEARS needs.

``raptorgraph benchmark prediction --screen FILE``
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph.benchmark import _fits as fits
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._fits import DATA, OWN
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._methods import n_repeats_of
from raptorgraph.benchmark._peer_methods import OPTIONS as PEER_OPTIONS
from raptorgraph.benchmark._peer_methods import provenance
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, wide
from raptorgraph.evaluation._methods import OURS, ordered
from raptorgraph.evaluation._scores import CEILING, FLOOR, HALF, cell_scores, effect_scores, sample_size
from raptorgraph.pl._figure import BLUE, ORANGE
from raptorgraph.pl._panels import dot_panel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.benchmark._settings import Settings
    from raptorgraph.evaluation import Predictions, Split
    from raptorgraph.screen import Screen

_SHORT = {HALF: "half of the cells", FLOOR: "floor", CEILING: "ceiling"}
_REFERENCES = tuple(_SHORT)
_SHOWN = (
    "relative_mse",
    "relative_mse, data's control",
    "pearson_delta",
    "cosine_delta",
    "pearson_delta_centroid",
    "pearson_delta_top50",
    "centroid_accuracy_cosine",
    "mk_mmd_200",
    "energy_distance",
    "variance_ratio",
    "control MSE, other cells",
    "control variance explained",
    "seconds to fit",
    "memory, MB",
)


def tables(parts: Parts, settings: Settings) -> Tables:
    """``prediction`` (to read), ``prediction_long`` (all scores) and ``prediction_conditions`` (each combination).

    ``prediction_training`` has the losses of what was trained here, ``prediction_peers`` the versions of other tools.
    """
    rows = all_rows(parts, "regime")
    by_seed, of_tools = [], []
    for seed in settings.seeds:
        screen = load_screen(settings, seed)
        tools = fits.external(settings, screen)
        for regime in dict.fromkeys(rows["regime"]):
            effects = fits.predicted(parts, regime, screen, seed, roles=("scored",))
            folds = fits.splits(regime, screen, seed, settings)
            by_seed += _score_effects(effects, screen, folds, tools, seed, regime, settings)
            of_tools += [
                (regime, seed, name, *item)
                for name, tool in tools.items()
                for item in _tool_scores(tool, screen, fits.scored_of(folds, settings), seed, settings)
            ]
    columns = ["regime", "seed", "method", "condition", "metric", "value"]
    if of_tools:
        rows = pd.concat([rows, pd.DataFrame(of_tools, columns=columns)], ignore_index=True)
    cells = rows.groupby(["regime", "seed", "method", "metric"], sort=False)["value"].mean().reset_index()
    cells["reference"] = ""
    scores = pd.concat([pd.DataFrame(by_seed), cells], ignore_index=True)
    scores["group"] = scores["group"].fillna("all")
    summary = mean_and_sd(scores, ["regime", "group", "method", "reference", "metric"])
    conditions = rows[rows["condition"].fillna("") != ""]
    curves = _curves(parts)
    apart = {unit.options["methods"][0]: unit.options["peer"] for unit, _ in parts if "peer" in unit.options}
    return {
        "prediction": _to_read(summary),
        "prediction_long": summary,
        "prediction_conditions": mean_and_sd(conditions, ["regime", "method", "condition", "metric"]),
        **({"prediction_peers": provenance(apart)} if apart else {}),
        **({} if curves.empty else {"prediction_training": mean_and_sd(curves, ["method", "term", "epoch"])}),
    }


def _curves(parts: Parts) -> pd.DataFrame:
    """Terms of the loss over the epochs, of the first regime: method, term, epoch, seed, value."""
    found = []
    for unit, part in parts:
        if part.arrays is None or unit.options["regime"] != parts[0][0].options["regime"] or unit.options["fold"]:
            continue
        for method, history in part.arrays.uns.get("history", {}).items():
            found.append(history.melt("epoch", var_name="term").assign(method=method, seed=unit.seed))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _tool_scores(
    tool: Predictions, screen: Screen, scored: Sequence[str], seed: int, settings: Settings
) -> list[tuple[str, str, float]]:
    """Scores of the cells that another tool predicted."""
    known = [label for label in scored if label not in tool.missing(scored)]
    rows: list[tuple[str, str, float]] = [("", "not predictable", len(scored) - len(known))]
    n_cells = sample_size(screen)
    if tool.cells is None:
        return rows
    counts = tool.cells.obs["perturbation"].value_counts()
    cells = tool.cells[tool.cells.obs["perturbation"].isin([x for x in known if counts[x] >= n_cells])].copy()
    if not cells.n_obs:
        return rows
    drift, n_repeats = tool.control - screen.control_mean, n_repeats_of(settings)
    scores = cell_scores(cells, screen, drift, n_cells=n_cells, n_repeats=n_repeats, seed=seed)
    return rows + list(scores.itertuples(index=False, name=None))


def _score_effects(
    predictions: dict[tuple[str, str], pd.DataFrame],
    screen: Screen,
    folds: Sequence[Split],
    tools: Mapping[str, Predictions],
    seed: int,
    regime: str,
    settings: Settings,
) -> list[dict[str, Any]]:
    """Scores of one regime and seed: the folds together, so that every combination is predicted once."""
    scored = fits.scored_of(folds, settings)
    groups = {label: name for split in folds for label, name in split.groups.items()}
    fitted = [label for label in folds[0].train if len(screen.genes_of[label]) == 1]
    for name, tool in tools.items():
        known = [label for label in scored if label not in tool.missing(scored)]
        predictions[name, OWN] = tool.effects.loc[known]
        predictions[name, DATA] = tool.effects.loc[known] + (tool.control - screen.control_mean)
    half, other = (screen.effects_of(rows) for rows in screen.halves(seed))
    found: list[dict[str, Any]] = []

    def add(group: str, method: str, reference: str, effects: pd.DataFrame, measured: pd.DataFrame) -> None:
        row = {"regime": regime, "group": group, "method": method, "reference": reference, "seed": seed}
        scores = effect_scores(effects, measured, screen, fitted)
        found.extend({**row, "metric": metric, "value": value} for metric, value in scores.items())

    for group in dict.fromkeys(["all", *groups.values()]):
        labels = [label for label in scored if group == "all" or groups.get(label) == group]
        if not labels or (group != "all" and len(labels) == len(scored)):
            continue
        for (name, reference), frame in predictions.items():
            known = [label for label in labels if label in frame.index]
            if known:
                add(group, name, reference, frame.loc[known], screen.effects.loc[known])
        add(group, HALF, OWN, half.loc[labels], other.loc[labels])
    return found


def _to_read(summary: pd.DataFrame) -> pd.DataFrame:
    """One row for each regime, group and method, references last; the scores that tell most."""
    drift = summary["reference"] == DATA
    shown = summary[~drift | (summary["metric"] == "relative_mse")].assign(
        metric=lambda table: table["metric"].where(~drift, "relative_mse, data's control")
    )
    shown = shown[shown["metric"].isin(_SHOWN)]
    regimes, groups = summary["regime"].unique(), summary["group"].unique()
    shown = in_order(shown, regime=regimes, group=groups, method=_rank(summary["method"]), metric=_SHOWN)
    # one group alone needs no column
    return wide(shown, ["regime", "group", "method"] if len(groups) > 1 else ["regime", "method"]).fillna("-")


def _rank(methods: Iterable[str]) -> list[str]:
    """Methods in their order, and what they are measured by."""
    found = set(methods)
    return [*ordered(name for name in methods if name not in _REFERENCES), *(n for n in _REFERENCES if n in found)]


def draw(tables: Tables) -> dict[str, Figure]:
    """The scores of every method, and the loss curves of those that are trained."""
    figures = {"prediction": _scores_figure(tables["prediction_long"])}
    if "prediction_training" in tables:
        figures["prediction_training"] = _training_figure(tables["prediction_training"])
    return figures


def _training_figure(curves: pd.DataFrame) -> Figure:
    """Terms of the loss over the epochs, one row of panels for each method; mean and SD over seeds."""
    methods = list(dict.fromkeys(curves["method"]))
    terms = {name: list(dict.fromkeys(curves.loc[curves["method"] == name, "term"])) for name in methods}
    # weights of a schedule are no terms, a weighted term has the course of its weight, and totals repeat the terms
    left_out = re.compile("weighted_|.*_weight$|elbo|reconstruction_loss|kl_local|kl_global")
    terms = {name: [term for term in found if not left_out.match(term)] for name, found in terms.items()}
    n_columns = max(len(found) for found in terms.values())
    figure = Figure(figsize=(2.3 * n_columns, 2.1 * len(methods)), layout="constrained")
    for axes, name in zip(figure.subplots(len(methods), n_columns, squeeze=False), methods, strict=True):
        for ax in axes[len(terms[name]) :]:
            ax.remove()
        for ax, term in zip(axes, terms[name], strict=False):
            here = curves[(curves["method"] == name) & (curves["term"] == term)]
            mean, sd = here["value_mean"], here["value_sd"].fillna(0)
            ax.plot(here["epoch"], mean, color=ORANGE if name in OURS else BLUE, marker="." if len(here) == 1 else None)
            ax.fill_between(here["epoch"], mean - sd, mean + sd, color="0.8")
            ax.set_title(f"{name}: {term}", fontsize=8)
            ax.tick_params(labelsize=7)
            if mean.min() > 0 and mean.max() > 50 * mean.min():
                ax.set_yscale("log")
    return figure


def _scores_figure(summary: pd.DataFrame) -> Figure:
    """Relative MSE, Pearson and MK-MMD of every method, one row of panels for each regime."""
    summary = summary[(summary["group"] == "all") & (summary["reference"] != DATA)]
    regimes = list(dict.fromkeys(summary["regime"]))
    panels = {"relative_mse": "relative MSE", "pearson_delta": "Pearson of the effect", "mk_mmd_200": "MK-MMD (200)"}
    figure = Figure(figsize=(13, 1.2 + 0.28 * summary["method"].nunique() * len(regimes)), layout="constrained")
    for axes, regime in zip(figure.subplots(len(regimes), len(panels), squeeze=False), regimes, strict=True):
        here = summary[summary["regime"] == regime]
        methods = [name for name in _rank(here["method"]) if name not in _REFERENCES]
        for ax, (metric, title) in zip(axes, panels.items(), strict=True):
            values = here[here["metric"] == metric].set_index("method")
            lines = {short: values["value_mean"].get(name, np.nan) for name, short in _SHORT.items()}
            dot_panel(ax, values, methods, lines, title=f"{regime}: {title}", labels=ax is axes[0])
    return figure


PREDICTION = Experiment(
    "prediction",
    "Prediction of unseen combinations",
    (*fits.OPTIONS, *PEER_OPTIONS),
    fits.units,
    fits.work,
    tables,
    draw,
    fits.WORK_OPTIONS,
)
