"""Experiment ``calls``: how many pairs get an interaction, where nothing interacts and where something does?

Screens of known truth are simulated, all singles and half of the pairs being measured:

- *additive*: effects on the log rates add up;
- *labels shuffled*: the same, with the labels of all cells permuted, so that no perturbation does anything;
- *saturating*: what two genes have in common falls short of the sum;
- *interacting*: half of the pairs interact, with several strengths;
- *no pair measured*: the strongest of these, with singles alone.

A pair truly departs if its noise-free effect does, by the limits of :func:`raptorgraph.tl.interactions`: longer than
1.1 times the sum, shorter than 0.9 times, or turned by 1 - cos > 0.05. Of the pairs that do not, at most 5 % should be
called (their ``interaction`` not be ``"undetermined"``); of those that do, as many as the data allow. Of the called
ones *rightly named* is the share whose true effect is of the type that was named. Effects come from the posterior, so
the network is trained for one epoch only.

``raptorgraph benchmark calls``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from matplotlib.figure import Figure

from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._report import all_rows, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.datasets import simulate
from raptorgraph.model import RaptorGraphModel
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pl._panels import dots, name_rows, shared_legend
from raptorgraph.tl import interactions
from raptorgraph.tl._interactions import UNDETERMINED
from raptorgraph.tl._pair_scores import TURNED, score_draws

if TYPE_CHECKING:
    import anndata as ad

    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("interaction_strengths", "n_cells", "n_draws")
STRENGTHS = (0.3, 0.6, 1.0)
N_CELLS, N_DRAWS = 100, 100
MOST = 0.05  # share of pairs that may be called where nothing interacts
ADDITIVE, SHUFFLED, SATURATING, UNSEEN = "additive", "labels shuffled", "saturating", "no pair measured"
N, ALL, FALSE, POWER, NAMED = "pairs", "called", "called without departure", "called with departure", "rightly named"
METRICS = (N, ALL, FALSE, POWER, NAMED)
BY = ["screen", "measured"]
_SIZE = {"n_genes": 400, "n_perturbed": 12, "n_doubles": 33, "n_control_cells": 1000}
_QUICK_SIZE = {"n_genes": 60, "n_perturbed": 4, "n_doubles": 3, "n_control_cells": 200, "n_truth_cells": 50}


def units(settings: Settings) -> list[Unit]:
    """One unit for each kind of screen and seed."""
    if settings.screen is not None:
        raise ValueError("calls needs the truth of screens that it simulates itself: leave --screen out.")
    strengths = settings.options.get("interaction_strengths", STRENGTHS)
    strengths = list(strengths) if isinstance(strengths, list | tuple) else [strengths]
    bad = [value for value in strengths if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0]
    if bad or not strengths:
        raise ValueError(f"interaction_strengths: {bad or strengths!r} must be numbers above 0.")
    for name, default, least in (("n_cells", N_CELLS, 2), ("n_draws", N_DRAWS, 20)):
        given = settings.options.get(name, default)
        if isinstance(given, bool) or not isinstance(given, int) or given < least:
            raise ValueError(f"{name}: {given!r} must be a whole number of {least} or more.")
    linear: dict[str, Any] = {"mechanism": "linear", "interaction_strength": 0.0}
    kinds: dict[str, dict[str, Any]] = {ADDITIVE: linear, SHUFFLED: linear, SATURATING: {"interaction_strength": 0.0}}
    kinds |= {f"interacting, {value:g}": {"interaction_strength": value} for value in strengths}
    kinds[UNSEEN] = {"interaction_strength": max(strengths), "n_doubles": 0}
    return units_by_seed(settings, [(kind, {"screen": kind, "simulate": options}) for kind, options in kinds.items()])


def work(unit: Unit, settings: Settings) -> Part:
    """Fit, and compare what is called with the truth."""
    size: dict[str, Any] = dict(_QUICK_SIZE if settings.quick else _SIZE)
    size["n_cells_per_perturbation"] = settings.option("n_cells", N_CELLS, quick=30)
    adata = simulate(**{**size, **unit.options["simulate"]}, seed=unit.seed)
    shuffled = unit.options["screen"] == SHUFFLED
    if shuffled:
        labels = adata.obs["perturbation"].astype(str).to_numpy()
        adata.obs["perturbation"] = np.random.default_rng([unit.seed, 1]).permutation(labels)
    scvi.settings.seed = unit.seed
    RaptorGraphModel.setup_anndata(adata, "perturbation", library_size_key="total_counts")
    model = RaptorGraphModel(adata)
    model.train(max_epochs=1, enable_progress_bar=False)
    table = interactions(model, n_draws=settings.option("n_draws", N_DRAWS, quick=20), seed=unit.seed)
    true = _true_types(table, adata, model)
    if shuffled:
        true[:] = False
    return Part(_counted(table, true))


def _true_types(table: pd.DataFrame, adata: ad.AnnData, model: RaptorGraphModel) -> pd.DataFrame:
    """Whether the noise-free effect of each pair is of each type, pairs x types."""
    truth = adata.uns["simulation"]["effects"].astype(float)[list(model.var_names_)]
    a, b, ab = (truth.loc[labels].to_numpy() for labels in (table["gene_a"], table["gene_b"], table.index))
    found = score_draws(a, b, ab)  # each pair in place of a draw
    types = pd.DataFrame(found.types, table.index)
    types["neomorphism"] = found.scores["neomorphism"] > TURNED  # without noise all of the turn is known
    return types


def _counted(table: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """Shares of the pairs that are called, of measured and of other pairs: a long table."""
    named = table["interaction"].astype(str)
    called = named != UNDETERMINED
    departs = true[["synergy", "suppression", "neomorphism"]].any(axis=1)
    right = pd.Series([name in true and bool(true.at[pair, name]) for pair, name in named.items()], table.index)
    rows: list[tuple[str, str, float]] = []
    for text, here in (("yes", table["measured"]), ("no", ~table["measured"])):
        if not here.any():
            continue
        of = {ALL: (called, here), FALSE: (called, here & ~departs), POWER: (called, here & departs)}
        of[NAMED] = right, here & called
        rows.append((text, N, float(here.sum())))
        rows += [(text, name, float(what[rows_].mean())) for name, (what, rows_) in of.items()]
    return pd.DataFrame(rows, columns=["measured", "metric", "value"])


def tables(parts: Parts, settings: Settings) -> Tables:
    """``calls`` (to read) and ``calls_long``."""
    summary = mean_and_sd(all_rows(parts, "screen"), [*BY, "metric"])
    return {"calls": wide(summary, BY)[[*BY, *METRICS]], "calls_long": summary}


def draw(tables: Tables) -> Figure:
    """Shares of the pairs that are called, of measured and of other ones."""
    long = tables["calls_long"]
    names = list(dict.fromkeys(long["screen"]))
    figure = Figure(figsize=(8, 1.4 + 0.35 * len(names)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, measured, title in zip(axes, ("yes", "no"), ("measured pairs", "other pairs"), strict=True):
        here = long[long["measured"] == measured].set_index("screen")
        for metric, color, shift in ((FALSE, ORANGE, -0.12), (POWER, BLUE, 0.12)):
            dots(ax, here[here["metric"] == metric], names, shift, color=color, label=metric)
        ax.axvline(MOST, color=GRAY, linewidth=1, zorder=0)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("share of the pairs")
        ax.set_title(title, fontsize=10)
    name_rows(axes, names)
    axes[0].invert_yaxis()
    shared_legend(figure, "outside upper center")
    return figure


CALLS = Experiment("calls", "Which pairs are said to interact", OPTIONS, units, work, tables, draw)
