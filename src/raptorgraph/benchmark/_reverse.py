"""Experiment ``reverse``: which pair of genes made this state (Table 3, Figures S5 and S6, section D.5).

Every method predicts all pairs of a set of genes (the 20 of the publication where the screen has them); the measured
pairs that were left out are the queries, the same for all methods, and the predictions nearest to a query are its
answers. Hits are correct (the very pair) or relevant (a gene in common), among the first 1, 3, 5 and 10. Chance is
printed: relevant hits are frequent by chance alone. Distances are taken between mean profiles, as published, and
between effects; the levels of the candidate genes themselves, which would give the answer away, are left out.

``raptorgraph benchmark reverse --screen FILE``
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import metrics
from raptorgraph.benchmark import _fits as fits
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._pairs import database, database_genes
from raptorgraph.benchmark._report import in_order, mean_and_sd, wide
from raptorgraph.evaluation._methods import ordered
from raptorgraph.evaluation._scores import CHANCE
from raptorgraph.pl._panels import dot_panel
from raptorgraph.screen._labels import parse_perturbation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.benchmark._settings import Settings, Unit
    from raptorgraph.screen import Screen

OPTIONS = ("methods", "gene_sets", "predictions", "max_epochs", "n_repeats", "k")


def units(settings: Settings) -> list[Unit]:
    """The units of ``prediction`` in the regime ``singles``."""
    screen = load_screen(settings, settings.seeds[0])
    if not _queries(screen, settings, settings.seeds[0]):
        raise ValueError("The screen measured no pair of the genes of the database: there is nothing to ask.")
    return fits.units_of_singles(settings)


def tables(parts: Parts, settings: Settings) -> Tables:
    """``reverse`` (to read) and ``reverse_long``."""
    rows: list[tuple[int, str, str, str, float]] = []
    for seed in settings.seeds:
        screen = load_screen(settings, seed)
        labels, queries = database(screen), _queries(screen, settings, seed)
        entries = [parse_perturbation(label, **screen.spelling) for label in labels]
        asked = [screen.genes_of[label] for label in queries]
        ks = [k for k in settings.options.get("k", (1, 3, 5, 10)) if k <= len(labels)]
        targets = np.isin(screen.adata.var_names, database_genes(screen))
        measured = screen.effects.loc[queries].to_numpy()

        for by in ("effect", "profile"):
            found = {CHANCE: metrics.chance_hit_rates(entries, asked, k=ks)}
            for name, predicted in _databases(parts, screen, seed, settings, labels, by).items():
                distances = metrics.reverse_distances(predicted, measured, exclude=targets)
                found[name] = metrics.hit_rates(distances, entries, asked, k=ks)
            for name, rates in found.items():
                for kind, values in rates.items():
                    rows += [(seed, by, name, f"{kind} @ {k}", value) for k, value in zip(ks, values, strict=True)]
    long = pd.DataFrame(rows, columns=["seed", "by", "method", "metric", "value"])
    summary = mean_and_sd(long, ["by", "method", "metric"])
    order = [CHANCE, *ordered(name for name in summary["method"] if name != CHANCE)]
    summary = in_order(summary, by=("effect", "profile"), method=order)
    return {"reverse": wide(summary, ["by", "method"]), "reverse_long": summary}


def _databases(
    parts: Parts, screen: Screen, seed: int, settings: Settings, labels: Sequence[str], by: str
) -> dict[str, np.ndarray]:
    """Predicted pairs of every method, as effects against its own control or as profiles.

    A profile minus the data's control mean orders the database as the profile itself does.
    """
    effects = fits.predicted(parts, "singles", screen, seed)
    found = {}
    for name in dict.fromkeys(name for name, _ in effects):
        own, data = (effects[name, reference] for reference in (fits.OWN, fits.DATA))
        # the two differ by the drift of the control, the same for every condition
        drift = data.iloc[0] - own.loc[data.index[0]] if by == "profile" else 0.0
        found[name] = (own.loc[labels] + drift).to_numpy(float)
    for name, tool in fits.external(settings, screen).items():
        if not tool.missing(labels):
            drift = tool.control - screen.control_mean if by == "profile" else 0.0
            found[name] = tool.effects.loc[labels].to_numpy() + drift
    return found


def _queries(screen: Screen, settings: Settings, seed: int) -> list[str]:
    """Measured pairs that were left out of the training and lie in the database."""
    [split] = fits.splits("singles", screen, seed, settings)
    asked = set(database(screen))
    return [label for label in split.test if label in asked]


def draw(tables: Tables) -> Figure:
    """Hit rates of every method, one panel for each K, with chance."""
    summary = tables["reverse_long"]
    metrics_ = list(dict.fromkeys(summary["metric"]))
    rows = [(by, kind) for kind in ("correct", "relevant") for by in dict.fromkeys(summary["by"])]
    ks = [name.split(" @ ")[1] for name in metrics_ if name.startswith("correct")]
    methods = [name for name in dict.fromkeys(summary["method"]) if name != CHANCE]
    figure = Figure(figsize=(14, len(rows) * (0.9 + 0.2 * len(methods))), layout="constrained")
    for axes, (by, kind) in zip(figure.subplots(len(rows), len(ks), squeeze=False), rows, strict=True):
        for ax, k in zip(axes, ks, strict=True):
            here = summary[(summary["by"] == by) & (summary["metric"] == f"{kind} @ {k}")].set_index("method")
            title, lines = f"{kind} @ {k}, by {by}", {"chance": here["value_mean"].get(CHANCE, np.nan)}
            dot_panel(ax, here, methods, lines, title=title, labels=ax is axes[0], limits=(0.0, 1.0))
    return figure


REVERSE = Experiment(
    "reverse", "Hit rates of the reverse task", OPTIONS, units, fits.work, tables, draw, fits.WORK_OPTIONS
)
