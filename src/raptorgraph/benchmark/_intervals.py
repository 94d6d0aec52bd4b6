"""Experiment ``intervals``: how many true effects and interaction scores do the intervals of 90 % hold?

Screens are simulated with all singles and about half of the pairs, for interactions of several strengths. The model
predicts every pair with intervals, which are compared with the truth of the simulation: of effects,
``prediction +- 1.645 SD``, gene by gene; of the five scores, those of :func:`raptorgraph.tl.interactions`. Nine of ten
should hold. Widths are given beside them, since an interval that holds everything says nothing. Effects come from the
posterior, so the network is trained for one epoch only.

``raptorgraph benchmark intervals``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from matplotlib.figure import Figure

from raptorgraph import metrics
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._report import all_rows, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.datasets import simulate
from raptorgraph.model import RaptorGraphModel
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pl._panels import dots, name_rows, shared_legend
from raptorgraph.tl import interactions
from raptorgraph.tl._pair_scores import SCORES

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("interaction_strengths", "n_draws")
STRENGTHS = (0.0, 0.3, 1.0)
LEVEL, _Z = 0.9, 1.645
N_DRAWS = 100
EFFECTS = "effects"
_SIZE = {"n_genes": 400, "n_perturbed": 12, "n_doubles": 30, "n_control_cells": 1000}
_QUICK_SIZE = {"n_genes": 60, "n_perturbed": 4, "n_doubles": 3, "n_control_cells": 100, "n_cells_per_perturbation": 20}
_BY = ["interaction strength", "pairs", "intervals of"]


def units(settings: Settings) -> list[Unit]:
    """One unit for each strength of interactions and seed."""
    if settings.screen is not None:
        raise ValueError("intervals needs the truth of screens that it simulates itself: leave --screen out.")
    strengths = settings.options.get("interaction_strengths", STRENGTHS)
    strengths = list(strengths) if isinstance(strengths, list | tuple) else [strengths]
    bad = [value for value in strengths if isinstance(value, bool) or not isinstance(value, int | float) or value < 0]
    if bad or not strengths:
        raise ValueError(f"interaction_strengths: {bad or strengths!r} must be numbers of 0 or more.")
    n_draws = settings.options.get("n_draws", N_DRAWS)
    if not isinstance(n_draws, int) or n_draws < 2:
        raise ValueError(f"n_draws: {n_draws!r} must be a whole number of 2 or more.")
    return units_by_seed(settings, [(f"strength{s:g}", {"strength": s}) for s in strengths])


def work(unit: Unit, settings: Settings) -> Part:
    """Fit, and count what is held."""
    size: dict[str, Any] = _QUICK_SIZE if settings.quick else _SIZE
    adata = simulate(**size, interaction_strength=unit.options["strength"], seed=unit.seed)
    scvi.settings.seed = unit.seed
    RaptorGraphModel.setup_anndata(adata, "perturbation", library_size_key="total_counts")
    model = RaptorGraphModel(adata)
    model.train(max_epochs=1, enable_progress_bar=False)
    table = interactions(model, n_draws=settings.options.get("n_draws", N_DRAWS), seed=unit.seed)
    truth = adata.uns["simulation"]["effects"].astype(float)
    rows = []
    for pairs, here in (("measured", table[table["measured"]]), ("not measured", table[~table["measured"]])):
        mean, sd = model.predict_effects(here.index.tolist(), return_sd=True)
        true = truth[mean.columns]
        rows += _counted(pairs, EFFECTS, true.loc[here.index].to_numpy(), (mean - _Z * sd, mean + _Z * sd))
        three = (true.loc[labels].to_numpy() for labels in (here["gene_a"], here["gene_b"], here.index))
        a, b, ab = three
        for name in SCORES:
            score = getattr(metrics, name)(a, b, ab)
            rows += _counted(pairs, name, score, (here[f"{name}_low"], here[f"{name}_high"]))
    return Part(pd.DataFrame(rows, columns=["pairs", "intervals of", "metric", "value"]))


def _counted(pairs: str, what: str, true: np.ndarray, interval: tuple[Any, Any]) -> list[tuple[str, str, str, float]]:
    low, high = (np.asarray(end, dtype=float) for end in interval)
    facts = {
        "held": ((true >= low) & (true <= high)).mean(),
        "true value below": (true < low).mean(),
        "width": np.median(high - low),
    }
    return [(pairs, what, metric, float(value)) for metric, value in facts.items()]


def tables(parts: Parts, settings: Settings) -> Tables:
    """``intervals`` (to read) and ``intervals_long``."""
    rows = all_rows(parts, "strength").rename(columns={"strength": _BY[0]})
    summary = mean_and_sd(rows, [*_BY, "metric"])
    return {"intervals": wide(summary, _BY), "intervals_long": summary}


def draw(tables: Tables) -> Figure:
    """Share of true values that is held, against the nominal one."""
    long = tables["intervals_long"]
    held = long[long["metric"] == "held"]
    strengths = list(dict.fromkeys(held["interaction strength"]))
    names = [EFFECTS, *SCORES]
    figure = Figure(figsize=(3 * len(strengths) + 1, 3), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(strengths), sharey=True))
    for ax, strength in zip(axes, strengths, strict=True):
        for pairs, color, shift in (("measured", BLUE, -0.12), ("not measured", ORANGE, 0.12)):
            here = held[(held["interaction strength"] == strength) & (held["pairs"] == pairs)]
            dots(ax, here.set_index("intervals of"), names, shift, color=color, label=pairs)
        ax.axvline(LEVEL, color=GRAY, linewidth=1, zorder=0)
        ax.set_xlim(0, 1.02)
        ax.set_xlabel("share of true values held")
        ax.set_title(f"interaction strength {strength:g}", fontsize=10)
    name_rows(axes, names)
    axes[0].invert_yaxis()
    shared_legend(figure, "outside upper center")
    return figure


INTERVALS = Experiment("intervals", "What the intervals hold", OPTIONS, units, work, tables, draw)
