"""Experiment ``reverse``: which pair of genes made this state (Table 3, Figures S5 and S6, section D.5).

Every method predicts all pairs of a set of genes (the 20 of the publication where the screen has them); the measured
pairs that were left out are the queries, the same for all methods, and the predictions nearest to a query are its
answers. Hits are correct (the very pair) or relevant (a gene in common), among the first 1, 3, 5 and 10. Chance is
printed: relevant hits are frequent by chance alone. Distances are taken in three ways:

- ``effect``: between effects, each against its own control, without the candidate genes themselves, whose levels would
  give the answer away;
- ``profile``: between mean profiles of cells, without the candidate genes;
- ``published``: between mean profiles on all genes (Eq. S18), the predicted ones from the mean control profile, as if
  it were a cell (Eq. S17).

``--regimes paper`` asks for all measured pairs, as published; ``singles`` (default) for those that ``prediction``
tests.

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

OPTIONS = ("methods", "regimes", "gene_sets", "predictions", "max_epochs", "n_repeats", "k")
WAYS = ("effect", "profile", "published")


def units(settings: Settings) -> list[Unit]:
    """The units of ``prediction`` that fit singles alone."""
    screen = load_screen(settings, settings.seeds[0])
    for regime in fits.regimes_of_singles(settings):
        if not _queries(regime, screen, settings, settings.seeds[0]):
            raise ValueError("The screen measured no pair of the genes of the database: there is nothing to ask.")
    return fits.units_of_singles(settings)


def tables(parts: Parts, settings: Settings) -> Tables:
    """``reverse`` (to read) and ``reverse_long``."""
    rows: list[tuple[int, str, str, str, str, float]] = []
    regimes = fits.regimes_of_singles(settings)
    for seed in settings.seeds:
        screen = load_screen(settings, seed)
        labels = database(screen)
        entries = [parse_perturbation(label, **screen.spelling) for label in labels]
        ks = [k for k in settings.options.get("k", (1, 3, 5, 10)) if k <= len(labels)]
        targets = np.isin(screen.adata.var_names, database_genes(screen))
        for regime in regimes:
            queries = _queries(regime, screen, settings, seed)
            asked = [screen.genes_of[label] for label in queries]
            for by in WAYS:
                found = {CHANCE: metrics.chance_hit_rates(entries, asked, k=ks)}
                measured = _measured(screen, queries, by)
                exclude = None if by == "published" else targets
                for name, predicted in _databases(parts, regime, screen, seed, settings, labels, by).items():
                    distances = metrics.reverse_distances(predicted, measured, exclude=exclude)
                    found[name] = metrics.hit_rates(distances, entries, asked, k=ks)
                for name, rates in found.items():
                    for kind, values in rates.items():
                        each = zip(ks, values, strict=True)
                        rows += [(seed, regime, by, name, f"{kind} @ {k}", value) for k, value in each]
    long = pd.DataFrame(rows, columns=["seed", "regime", "by", "method", "metric", "value"])
    summary = mean_and_sd(long, ["regime", "by", "method", "metric"])
    order = [CHANCE, *ordered(name for name in summary["method"] if name != CHANCE)]
    summary = in_order(summary, regime=regimes, by=WAYS, method=order)
    return {"reverse": wide(summary, ["regime", "by", "method"]), "reverse_long": summary}


def _measured(screen: Screen, queries: Sequence[str], by: str) -> np.ndarray:
    """Measured effects of the queries, or the mean profiles of their cells (Eq. S16)."""
    if by == "published":
        return np.asarray(screen.condition_moments.mean[[screen.labels.index(label) for label in queries]])
    return np.asarray(screen.effects.loc[list(queries)])


def _databases(
    parts: Parts, regime: str, screen: Screen, seed: int, settings: Settings, labels: Sequence[str], by: str
) -> dict[str, np.ndarray]:
    """Predicted pairs of every method, as effects against its own control or as profiles.

    A profile minus the data's control mean orders the database as the profile itself does.
    """
    if by == "published":
        profiles = fits.predicted(parts, regime, screen, seed, roles=("profile",))
        found = {name: frame.loc[labels].to_numpy(float) for (name, _), frame in profiles.items()}
        for name, tool in fits.external(settings, screen).items():
            if not tool.missing(labels):
                found[name] = tool.effects.loc[labels].to_numpy() + tool.control
        return found
    effects = fits.predicted(parts, regime, screen, seed)
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


def _queries(regime: str, screen: Screen, settings: Settings, seed: int) -> list[str]:
    """Measured pairs that were left out of the training and lie in the database."""
    [split] = fits.splits(regime, screen, seed, settings)
    asked = set(database(screen))
    return [label for label in split.test if label in asked]


def draw(tables: Tables) -> Figure:
    """Hit rates of every method, one panel for each K, with chance."""
    summary = tables["reverse_long"]
    metrics_ = list(dict.fromkeys(summary["metric"]))
    groups = list(dict.fromkeys(summary[["regime", "by"]].itertuples(index=False, name=None)))
    rows = [(regime, by, kind) for kind in ("correct", "relevant") for regime, by in groups]
    several = summary["regime"].nunique() > 1
    ks = [name.split(" @ ")[1] for name in metrics_ if name.startswith("correct")]
    methods = [name for name in dict.fromkeys(summary["method"]) if name != CHANCE]
    figure = Figure(figsize=(14, len(rows) * (0.9 + 0.2 * len(methods))), layout="constrained")
    for axes, (regime, by, kind) in zip(figure.subplots(len(rows), len(ks), squeeze=False), rows, strict=True):
        of_row = summary[(summary["regime"] == regime) & (summary["by"] == by)]
        for ax, k in zip(axes, ks, strict=True):
            here = of_row[of_row["metric"] == f"{kind} @ {k}"].set_index("method")
            title = f"{kind} @ {k}, by {by}" + (f", {regime}" if several else "")
            lines = {"chance": here["value_mean"].get(CHANCE, np.nan)}
            dot_panel(ax, here, methods, lines, title=title, labels=ax is axes[0], limits=(0.0, 1.0))
    return figure


REVERSE = Experiment(
    "reverse", "Hit rates of the reverse task", OPTIONS, units, fits.work, tables, draw, fits.WORK_OPTIONS
)
