"""Experiment ``design``: does the choice of the next pairs teach more than chance does?

The model sees control and singles, and :func:`raptorgraph.tl.next_pairs` chooses for each of its goals:

- *learn*: half of the measured pairs can be chosen, the others nobody chooses. The chosen ones are revealed, the
  posterior is fitted anew, and the error of the effects it predicts is taken on the half that nobody chose, which is
  the same for all methods (``others``), and on all pairs that were not chosen (``rest``), where who chooses the pairs
  that are hard to predict is helped. Both halves take turns. Beside it: chance (the mean of several choices), the
  pairs with the largest predicted effects, and those that a plain ridge on main effects, whose covariance needs no
  data, would choose.
- *interactions*: how many of the first n pairs are among the quarter that truly departs most from the sum of both
  singles.
- *state*: the query is the true effect of an unmeasured pair; how often is this pair among n? Beside it the
  pairs whose prediction is nearest, and those whose sum of measured singles is.

Screens are simulated, one anew for each seed, whose effects add up, saturate or interact; errors are then those of the
true effects. ``--screen FILE`` asks the first question of a screen with measured pairs. The settings of the choice were
fixed on simulated screens of other seeds (100 and more).

``raptorgraph benchmark design``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import metrics, tl
from raptorgraph.benchmark._design_rules import open_pairs, predicted, refit, ridge_variance
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._report import all_rows, mean_and_sd, paired_differences, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.datasets import simulate
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.evaluation._scores import CHANCE
from raptorgraph.pl._panels import dot_panel
from raptorgraph.screen import Screen

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.model import RaptorGraphModel

OPTIONS = ("kinds", "goals", "n_pairs")
KINDS: dict[str, dict[str, Any]] = {
    "additive": {"mechanism": "linear", "interaction_strength": 0.0},
    "saturating": {"mechanism": "saturating", "interaction_strength": 0.0},
    "interacting": {"mechanism": "saturating", "interaction_strength": 1.0},
}
GOALS = ("learn", "interactions", "state")
OURS, LARGEST, RIDGE, NEAREST, SUMS = "next pairs", "largest effects", "ridge variance", "nearest", "nearest sum"
OF_FILE = "screen"
_SIZE = {"n_genes": 400, "n_perturbed": 16, "n_control_cells": 1000, "n_cells_per_perturbation": 60}
_QUICK = {
    "n_genes": 60,
    "n_perturbed": 5,
    "n_control_cells": 100,
    "n_cells_per_perturbation": 20,
    "n_truth_cells": 20,
}
_BY = ["kind", "goal", "pairs", "method"]
_STRONG = 0.75
_N_STATES = 5  # pairs of a batch that is to hold a state


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """For each seed one unit for each kind of screen and goal; of a screen that is given, to learn alone."""
    goals = chosen(settings, "goals", GOALS)
    if settings.screen is not None:
        if goals != ["learn"] and settings.options.get("goals"):
            raise ValueError(f"goals: {goals!r} need the truth of simulated screens: leave --screen out.")
        screen = load_screen(settings, settings.seeds[0])
        if len(open_pairs(screen)) < 4:
            raise ValueError("The screen measured fewer than four pairs of genes that were perturbed alone.")
        return units_by_seed(settings, [(OF_FILE, {"kind": OF_FILE, "goal": "learn"})])
    kinds = chosen(settings, "kinds", tuple(KINDS))
    pieces = [(f"{kind}-{goal}", {"kind": kind, "goal": goal}) for kind in kinds for goal in goals]
    return units_by_seed(settings, pieces)


def work(unit: Unit, settings: Settings) -> Part:
    """Fit to the singles, choose, and look what the choice was worth."""
    screen, truth = _screen(unit, settings)
    method = RaptorGraphMethod(max_epochs=1, train_kwargs={"limit_train_batches": 0}, **screen.setup)
    model = method.fit(screen.cells(screen.singles)).model
    answers = {"learn": _learn, "interactions": _interactions, "state": _state}
    rows = answers[unit.options["goal"]](model, screen, truth, unit.seed, settings)
    return Part(pd.DataFrame(rows, columns=["pairs", "method", "metric", "value"]))


def _screen(unit: Unit, settings: Settings) -> tuple[Screen, pd.DataFrame]:
    """The screen, and the true effects of its conditions (of a screen that is given, the measured ones)."""
    if unit.options["kind"] == OF_FILE:
        screen = load_screen(settings, unit.seed)
        return screen, screen.effects
    size: dict[str, Any] = _QUICK if settings.quick else _SIZE
    adata = simulate(**size, **KINDS[unit.options["kind"]], n_doubles="all", seed=unit.seed)
    screen = Screen(adata, {"library_size_key": "total_counts"})
    return screen, adata.uns["simulation"]["effects"].astype(float)[screen.adata.var_names]


def _numbers(settings: Settings, default: list[int], most: int) -> list[int]:
    """Sizes of the batches."""
    asked = settings.option("n_pairs", default, quick=[2])
    asked = [asked] if isinstance(asked, int) else list(asked)
    bad = [n for n in asked if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most]
    if bad or not asked:
        raise ValueError(f"n_pairs: {bad or asked!r} must be whole numbers from 1 to {most}.")
    return asked


def _learn(
    model: RaptorGraphModel, screen: Screen, truth: pd.DataFrame, seed: int, settings: Settings
) -> list[tuple[int, str, str, float]]:
    """Errors on other pairs, once the chosen ones are revealed."""
    rng, pairs = np.random.default_rng([seed, 11]), open_pairs(screen)
    size = dict(zip(pairs, np.linalg.norm(model.predict_effects(pairs).to_numpy(), axis=1), strict=True))
    row_of = {label: screen.design[screen.labels.index(label)] for label in pairs}
    halves = np.array_split(rng.permutation(len(pairs)), 2)
    n_random, rows = (1 if settings.quick else 3), []
    if settings.screen is None:
        halves = halves[:1]  # simulated pairs are many
    k = len(screen.singles)
    for half in halves:
        pool = [pairs[i] for i in np.sort(half)]
        others = [label for label in pairs if label not in set(pool)]
        for n in _numbers(settings, [min(m, len(pool) - 1) for m in (k // 4, k // 2)], len(pool) - 1):
            table = tl.next_pairs(model, n, candidates=pool, progress=False)
            design = np.array([row_of[label] for label in pool])
            batches = {
                OURS: [list(table.index)],
                CHANCE: [list(rng.permutation(pool)[:n]) for _ in range(n_random)],
                LARGEST: [sorted(pool, key=lambda label: -size[label])[:n]],
                RIDGE: [
                    [pool[i] for i in ridge_variance(design, np.array([row_of[label] for label in pairs]), n, rng)]
                    for _ in range(n_random)
                ],
            }
            for name, choices in batches.items():
                for batch in choices:
                    posterior = refit(screen, [*screen.singles, *batch])
                    rest = [label for label in pairs if label not in set(batch)]
                    for metric, labels in (("error on others", others), ("error on the rest", rest)):
                        error = metrics.relative_mse(predicted(posterior, screen, labels), truth.loc[labels].to_numpy())
                        rows.append((n, name, metric, error))
    found = pd.DataFrame(rows, columns=["pairs", "method", "metric", "value"])
    mean = found.groupby(["pairs", "method", "metric"], sort=False)["value"].mean()
    return [(*key, float(value)) for key, value in mean.items()]


def _interactions(
    model: RaptorGraphModel, screen: Screen, truth: pd.DataFrame, seed: int, settings: Settings
) -> list[tuple[int, str, str, float]]:
    """Part of the batch that truly departs strongly."""
    pairs = open_pairs(screen)
    departure = pd.Series(
        [
            np.linalg.norm(truth.loc[label] - sum(truth.loc[screen.single(gene)] for gene in screen.genes_of[label]))
            for label in pairs
        ],
        index=pairs,
    )
    strong = departure > departure.quantile(_STRONG)
    size = pd.Series(np.linalg.norm(model.predict_effects(pairs).to_numpy(), axis=1), index=pairs)
    rows = []
    for n in _numbers(settings, [10, 20], len(pairs)):
        table = tl.next_pairs(model, n, goal="interactions", candidates=pairs, seed=seed, progress=False)
        batches = {OURS: list(table.index), LARGEST: list(size.sort_values(ascending=False).index[:n])}
        rows += [(n, name, "strong among chosen", float(strong[batch].mean())) for name, batch in batches.items()]
        rows.append((n, CHANCE, "strong among chosen", float(strong.mean())))
    return rows


def _state(
    model: RaptorGraphModel, screen: Screen, truth: pd.DataFrame, seed: int, settings: Settings
) -> list[tuple[int, str, str, float]]:
    """How often the pair that has the state is in the batch."""
    rng, pairs = np.random.default_rng([seed, 12]), open_pairs(screen)
    queries = [pairs[i] for i in rng.permutation(len(pairs))[: 2 if settings.quick else 6]]
    n = min(_N_STATES, len(pairs) - 1)
    panel = [gene for gene in truth.columns if gene not in set(screen.perturbed_genes)]
    effects = model.predict_effects(pairs)[panel].to_numpy(dtype=float)
    singles = screen.effects[panel]
    sums = np.array([sum(singles.loc[screen.single(gene)] for gene in screen.genes_of[label]) for label in pairs])
    found: dict[str, list[int]] = {OURS: [], NEAREST: [], SUMS: []}  # place of the pair in the batch

    def place(label: str, batch: list[str]) -> int:
        return batch.index(label) if label in batch else n

    for label in queries:
        query = truth.loc[[label]]
        table = tl.next_pairs(model, n, goal="state", query=query, candidates=pairs, seed=seed, progress=False)
        found[OURS].append(place(label, list(table.index)))
        for name, known in ((NEAREST, effects), (SUMS, sums)):
            distance = np.linalg.norm(known - query[panel].to_numpy(), axis=1)
            found[name].append(place(label, [pairs[i] for i in np.argsort(distance, kind="stable")[:n]]))
    rows = []
    for m in (1, n):
        rows += [(m, name, "state found", float(np.mean(np.array(at) < m))) for name, at in found.items()]
        rows.append((m, CHANCE, "state found", m / len(pairs)))
    return rows


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``design`` (to read), ``design_differences`` (less chance, by seed) and ``design_long``."""
    rows = all_rows(parts, "kind", "goal")
    summary = mean_and_sd(rows, [*_BY, "metric"])
    less = []
    for (kind, goal, n), group in rows.groupby(["kind", "goal", "pairs"], sort=False):
        differences = paired_differences(group, CHANCE)
        less.append(differences.assign(kind=kind, goal=goal, pairs=n))
    differences = pd.concat(less, ignore_index=True)[[*_BY, "metric", "value_mean", "value_sd"]]
    return {
        "design": wide(summary, _BY).fillna("-"),
        "design_differences": wide(differences, _BY).fillna("-"),
        "design_long": summary,
    }


def draw(tables: Tables) -> Figure:
    """Scores of every method, one panel for each screen, goal and size of the batch."""
    summary = tables["design_long"]
    summary = summary[summary["metric"] != "error on the rest"]
    groups = list(summary.groupby(["goal", "kind", "pairs"], sort=False))
    n_columns = min(4, len(groups))
    n_rows = -(-len(groups) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 2.1 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax, ((goal, kind, n), group) in zip(axes, groups, strict=False):
        here = group.set_index("method")
        methods = [name for name in here.index if name != CHANCE]
        lines = {CHANCE: here["value_mean"].get(CHANCE, np.nan)}
        title = f"{kind}, {n} pairs to {'find ' if goal == 'interactions' else ''}{goal}: {here['metric'].iloc[0]}"
        dot_panel(ax, here, methods, lines, title=title, labels=True)
    for ax in axes[len(groups) :]:
        ax.remove()
    return figure


DESIGN = Experiment("design", "Choice of the pairs to measure next", OPTIONS, units, work, tables, draw, n_seeds=5)
