"""Fit every method, ask it for what it has not seen, and score what needs its cells.

The work behind the experiments ``prediction``, ``interactions``, ``reverse`` and ``enrichment``, which share its parts:
the reports are elsewhere, so that a change of theirs repeats no fit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from raptorgraph import metrics
from raptorgraph.baselines import ladder
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._methods import check_methods, method_names, method_of, n_repeats_of
from raptorgraph.benchmark._pairs import database
from raptorgraph.benchmark._settings import Part, Settings, Unit, units_by_seed
from raptorgraph.evaluation._methods import MODELS, ON_REQUEST
from raptorgraph.evaluation._predictions import Predictions
from raptorgraph.evaluation._scores import cell_references, cell_scores, sample_size
from raptorgraph.evaluation._splits import Split, doubles_folds, paper_split, seen_singles, singles_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.baselines import Baseline
    from raptorgraph.benchmark._experiments import Parts
    from raptorgraph.screen import Screen

OPTIONS = ("methods", "regimes", "n_folds", "on", "gene_sets", "predictions", "max_epochs", "n_repeats")
WORK_OPTIONS = ("n_folds", "on", "gene_sets", "max_epochs", "n_repeats")
REGIMES = ("singles", "doubles", "paper", "seen")
OF_SINGLES = ("singles", "paper")  # that fit singles alone: other experiments read their fits
OWN, DATA = "own control", "data's control"  # what an effect is the difference to
MEAN_CELL = "mean control cell"  # what a profile is predicted from


def units(settings: Settings) -> list[Unit]:
    """One unit for each regime, fold, seed and model; the baselines, which take seconds, share one."""
    screen = load_screen(settings, settings.seeds[0])
    regimes = _regimes(settings, screen)
    external(settings, screen)
    found = []
    for regime in regimes:
        names = method_names(settings, doubles=regime == "doubles")
        check_methods(names, settings, screen.setup, screen.adata.var_names)
        quick = [name for name in names if name in ladder()]
        groups = {"reference": ["reference"], **({"baselines": quick} if quick else {})}
        groups |= {name: [name] for name in names if name not in quick}
        for fold in range(_n_folds(settings) if regime == "doubles" else 1):
            for word, group in groups.items():
                found.append((f"{regime}{fold}-{word}", {"regime": regime, "fold": fold, "methods": group}))
    return units_by_seed(settings, found)


def units_of_singles(settings: Settings, **options: Any) -> list[Unit]:
    """The units that fit methods on singles alone, for another experiment's settings and these options."""
    options = {**settings.options, "regimes": regimes_of_singles(settings), **options}
    known = {key: value for key, value in options.items() if key in OPTIONS}
    return [unit for unit in units(replace(settings, options=known)) if unit.options["methods"] != ["reference"]]


def regimes_of_singles(settings: Settings) -> list[str]:
    """Regimes of an experiment that reads fits on singles: those that are asked for, by default ``singles``.

    ValueError for one that fits combinations, or is none.
    """
    asked = settings.options.get("regimes") or ["singles"]
    asked = [asked] if isinstance(asked, str) else list(asked)
    for regime in asked:
        if regime not in OF_SINGLES:
            raise ValueError(
                f"regimes: {regime!r} is none of {', '.join(OF_SINGLES)}, the regimes that are fitted on singles alone."
            )
    return asked


def work(unit: Unit, settings: Settings) -> Part:
    """Fit the methods of the unit, predict the unseen combinations, and score what needs the cells."""
    screen = load_screen(settings, unit.seed)
    split = splits(unit.options["regime"], screen, unit.seed, settings)[unit.options["fold"]]
    fitted, scored = (split.train, split.validation) if on_part(settings) == "validation" else (split.refit, split.test)
    n_cells = sample_size(screen)
    draws = {"n_cells": n_cells, "n_repeats": n_repeats_of(settings), "seed": unit.seed}
    if unit.options["methods"] == ["reference"]:
        return Part(cell_references(screen, scored, **draws))

    train = screen.cells(fitted)
    rows: list[tuple[str, str, str, float]] = []
    effects, index, histories = [], [], {}
    for name in unit.options["methods"]:
        method = method_of(name, settings, screen.setup, unit.seed)
        with Measured() as fit:
            method.fit(train)
        if hasattr(method, "history_"):
            histories[name] = method.history_.rename_axis("epoch").reset_index()
        known = set(method.perturbed_genes)
        asked = [label for label in scored if known.issuperset(screen.genes_of[label])]
        rows.append((name, "", "not predictable", len(scored) - len(asked)))
        if asked:
            with Measured() as ask:
                own = method.predict_effects(asked).loc[asked].to_numpy()
                cells = method.predict(asked, n_cells=n_cells * draws["n_repeats"], seed=unit.seed)
            drift = method.predict_control() - screen.control_mean
            for reference, values in ((OWN, own), (DATA, own + drift)):
                effects.append(values)
                index += [(name, label, reference, "scored") for label in asked]
            scores = cell_scores(cells, screen, drift, **draws)
            rows += [(name, *row) for row in scores.itertuples(index=False, name=None)]
            rows.append((name, "", "seconds to predict", ask.seconds))
        if unit.options["regime"] in OF_SINGLES:  # whose fits interactions, reverse and enrichment read
            more = [label for label in [*screen.singles, *database(screen)] if label not in asked]
            effects.append(method.predict_effects(more).loc[more].to_numpy())
            index += [(name, label, OWN, "further") for label in more]
            pairs = database(screen)
            effects.append(method.predict_profiles(pairs).loc[pairs].to_numpy())
            index += [(name, label, MEAN_CELL, "profile") for label in pairs]
        rows += [(name, "", "seconds to fit", fit.seconds), (name, "", "memory, MB", fit.megabytes)]
        rows += [(name, "", *found) for found in _reconstruction(method, screen, unit.seed)]
    table = pd.DataFrame(rows, columns=["method", "condition", "metric", "value"])
    if not effects:
        return Part(table)
    obs = pd.DataFrame(index, columns=["method", "condition", "reference", "role"])
    obs.index = obs.index.astype(str)
    arrays = ad.AnnData(np.vstack(effects), obs=obs, var=pd.DataFrame(index=screen.adata.var_names))
    arrays.uns["history"] = histories
    return Part(table, arrays)


def _reconstruction(method: Baseline, screen: Screen, seed: int) -> list[tuple[str, float]]:
    """Errors of the reconstruction of control cells, where the method reconstructs cells."""
    if not hasattr(method, "reconstruct"):
        return []
    real = screen.expression_of(screen.control).astype(np.float64)
    built = method.reconstruct(screen.adata[screen.codes == 0].copy())
    same = metrics.same_cell_mse(built, real)
    return [
        ("control MSE, other cells", metrics.control_mse(built, real, seed=seed)),
        ("control MSE, same cells", same.mse),
        ("control variance explained", same.explained),
    ]


# -- regimes ---------------------------------------------------------------------------------------------------------
def _regimes(settings: Settings, screen: Screen) -> list[str]:
    asked = settings.options.get("regimes")
    if on_part(settings) not in ("test", "validation"):
        raise ValueError(f"on={on_part(settings)!r} is unknown; use 'test' or 'validation'.")
    if not asked:
        singles = {screen.genes_of[label][0] for label in screen.singles}
        n_testable = sum(singles.issuperset(screen.genes_of[label]) for label in screen.combinations)
        # a part left out must be worth scoring
        asked = ["singles", "doubles"] if n_testable >= 2 * _n_folds(settings) else ["singles"]
    for regime in asked:
        if regime not in REGIMES:
            raise ValueError(f"regimes: {regime!r} is unknown; there are {', '.join(REGIMES)}.")
        if regime == "paper" and on_part(settings) == "validation":
            raise ValueError("regimes: 'paper' has no validation part, as published: use on='test', or another regime.")
        splits(regime, screen, settings.seeds[0], settings)  # raises where the screen does not allow it
    return list(asked)


def splits(regime: str, screen: Screen, seed: int, settings: Settings) -> list[Split]:
    """Splits of a regime, one for each fold; those without folds do not depend on the seed."""
    if regime == "doubles":
        return doubles_folds(screen.conditions, n_folds=_n_folds(settings), seed=seed, **screen.spelling)
    if regime == "paper":
        return [paper_split(screen.conditions, **screen.spelling)]
    if regime == "seen":
        return [seen_singles(screen.conditions, seed=seed, **screen.spelling)]
    return [singles_only(screen.conditions, seed=0, **screen.spelling)]


def on_part(settings: Settings) -> str:
    """What is scored: ``"test"``, or ``"validation"`` while settings are tuned."""
    on: str = settings.option("on", "test")
    return on


def _n_folds(settings: Settings) -> int:
    n_folds: int = settings.option("n_folds", 5, quick=2)
    return n_folds


def external(settings: Settings, screen: Screen) -> dict[str, Predictions]:
    """Predictions of other tools, read and checked; ValueError for one that is named like a method of the package."""
    taken = {*ladder(), *MODELS, *ON_REQUEST, "reference"}.intersection(settings.options.get("predictions") or {})
    if taken:
        raise ValueError(f"predictions: {min(taken)!r} is the name of a method of this package; choose another one.")
    found = {
        name: Predictions(path, screen.spelling, screen.adata.var_names, screen.control_mean)
        for name, path in (settings.options.get("predictions") or {}).items()
    }
    for name, tool in found.items():
        if len(tool.missing(screen.conditions)) == len(screen.conditions):
            raise ValueError(
                f"The predictions {name!r} are of no perturbation of the screen: its labels are like "
                f"{', '.join(screen.conditions[:3])}, theirs like {', '.join(map(str, tool.effects.index[:3]))}."
            )
    return found


def scored_of(folds: Sequence[Split], settings: Settings) -> list[str]:
    """Conditions that are scored, over all folds."""
    on_validation = on_part(settings) == "validation"
    return [label for split in folds for label in (split.validation if on_validation else split.test)]


def predicted(
    parts: Parts,
    regime: str,
    screen: Screen,
    seed: int,
    *,
    roles: Sequence[str] = ("scored", "further"),
) -> dict[tuple[str, str], pd.DataFrame]:
    """Effects that each method predicts, against each of the two controls.

    Parameters
    ----------
    parts
        Finished units, the folds of a regime together.
    regime, seed
        Regime and seed of the units to take.
    screen
        The screen of that seed.
    roles
        ``"scored"`` for the conditions that are reported, ``"further"`` for singles and all pairs, ``"profile"`` for
        the profiles of all pairs that the mean control cell is predicted to have (under :data:`MEAN_CELL`).

    Returns
    -------
    For each method and control (:data:`OWN` or :data:`DATA`) a table of conditions x genes, in the screen's order of
    genes.
    """
    found: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for unit, part in parts:
        if part.arrays is None or unit.seed != seed or unit.options["regime"] != regime:
            continue
        arrays = part.arrays[:, screen.adata.var_names]  # simulated screens of other seeds have other orders
        obs = arrays.obs.reset_index(drop=True)
        obs = obs[obs["role"].isin(roles)]
        for key, rows in obs.groupby(["method", "reference"], sort=False, observed=True).groups.items():
            frame = pd.DataFrame(arrays.X[rows], index=obs["condition"].loc[rows].to_numpy(), columns=arrays.var_names)
            found.setdefault(key, []).append(frame)
    return {key: pd.concat(frames) for key, frames in found.items()}
