"""Experiment ``states``: are effects found that depend on the state of a cell?

Screens are simulated whose cells are in two states, in three, or on a line between two (judged in tertiles). Half of
the perturbations depend on the state: they act fully in some states and not at all in the others, or in proportion to
the place on the line. In the screen ``none`` cells carry labels of two states that mean nothing. The cells of each
perturbation in each state, or tertile, are 10, 30 and 100 in the mean. Effects are strong (effect size 4), so that the
cells of one state have something to say.

A method predicts the effect of every measured perturbation in every state, which is known to it by the true labels:

- ``raptorgraph`` and ``raptorgraph network``: ``predict_effects(..., groupby="state")``, and the same of the decoder;
- ``average effect``: the difference of means of all cells, the same in every state;
- ``true average``: the true one, the best that can be said without states;
- ``differences of means by state``: of the cells of a state alone, and ``..., shrunken`` to the average effect by
  empirical Bayes (a normal distribution between states, one variance for each perturbation);
- ``conditional-mean regression``: ridge regression of the cells' expression on the perturbation and its products with
  the two leading principal components of control cells.

Scored by the squared error over states, perturbations and genes, relative to the squared truth, for perturbations that
depend on the state (combinations: where one of their genes does) and for those that do not. ``states_paired`` has the
error of ``raptorgraph`` minus that of each other method on the same screens: below 0 it is better.

``states_test`` has the test of :func:`raptorgraph.tl.state_effects`: power is the share of the perturbations that
depend on the state which it calls at an FDR of 0.05, false alarms are that share of the others. Only in the screen
``none`` is the null hypothesis strictly true: elsewhere a shift that is the same in all states changes ``log1p`` counts
by a little more where a gene is expressed more.

``raptorgraph benchmark states``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import tl
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._methods import method_of
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.benchmark._states_methods import (
    Labeled,
    average_effect,
    differences_by_state,
    regression_by_state,
    shrunken_by_state,
)
from raptorgraph.datasets import simulate
from raptorgraph.pl._panels import dots, name_rows, shared_legend
from raptorgraph.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.model import RaptorGraphModel

OPTIONS = ("screens", "cells", "methods", "max_epochs")
SCREENS: dict[str, dict[str, Any]] = {  # arguments of the simulator
    "two states": {"states": 2},
    "three states": {"states": 3},
    "continuous state": {"states": "continuous"},
    "none": {"states": 2, "state_effect": 0.0, "state_dependence": 0.0},
}
CELLS = (10, 30, 100)  # per state and perturbation
OURS, NETWORK, TRUE_AVERAGE = "raptorgraph", "raptorgraph network", "true average"
BASELINES = {
    "average effect": average_effect,
    "differences of means by state": differences_by_state,
    "differences of means, shrunken": shrunken_by_state,
    "conditional-mean regression": regression_by_state,
}
METHODS = (OURS, NETWORK, TRUE_AVERAGE, *BASELINES)
DEPENDS = {True: "depend on the state", False: "do not"}
FDR = 0.05
ERROR, CALLED, SMALL_P = "relative squared error", f"called at FDR {FDR}", f"p below {FDR}"
TESTS = {  # of what is called among the perturbations of a kind
    (DEPENDS[True], CALLED): "power",
    (DEPENDS[False], CALLED): "false alarms",
    (DEPENDS[False], SMALL_P): f"{SMALL_P} where nothing depends",
}
_SETUP = {"perturbation_key": "perturbation", "library_size_key": "total_counts"}
_SIZE = {"n_genes": 300, "n_perturbed": 12, "n_doubles": 6, "n_control_cells": 1000, "effect_size": 4.0}
_QUICK_SIZE = {"n_genes": 60, "n_perturbed": 4, "n_doubles": 2, "n_control_cells": 100, "n_truth_cells": 20}
_STATE = "state"
_BY = ["screen", "perturbations", "method"]


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each screen, number of cells and seed."""
    if settings.screen is not None:
        raise ValueError("states needs the truth of screens that it simulates itself: leave --screen out.")
    _methods(settings)
    cells = settings.option("cells", CELLS, quick=CELLS[:1])
    cells = list(cells) if isinstance(cells, list | tuple) else [cells]
    bad = [n for n in cells if isinstance(n, bool) or not isinstance(n, int) or n < 2]
    if bad or not cells:
        raise ValueError(f"cells: {bad or cells!r} must be whole numbers of 2 or more.")
    pieces = [{"screen": name, "cells": n} for name in chosen(settings, "screens", list(SCREENS)) for n in cells]
    return units_by_seed(settings, [(f"{piece['screen']}-{piece['cells']}", piece) for piece in pieces])


def work(unit: Unit, settings: Settings) -> Part:
    """Simulate a screen, and score what each method says of it."""
    adata = screen_of(unit.options, settings, unit.seed)
    screen, truth = Screen(adata, _SETUP), adata.uns["simulation"]
    asked, states = screen.conditions, list(adata.obs[_STATE].cat.categories)
    true = np.stack([truth["state_effects"][state].loc[asked] for state in states], axis=1)
    varies = (truth["state_activity"] != 1).any(axis=1)
    depends = np.array([varies[list(screen.genes_of[label])].any() for label in asked])

    labeled = Labeled(
        screen.expression.toarray().astype(float), screen.codes, adata.obs[_STATE].cat.codes.to_numpy().astype(int)
    )
    methods, rows = _methods(settings), []
    if OURS in methods or NETWORK in methods:
        model = method_of(OURS, settings, screen.setup, unit.seed).fit(adata).model
    for name in methods:
        if name in BASELINES:
            found = BASELINES[name](labeled)
        elif name == TRUE_AVERAGE:
            found = truth["effects"].loc[asked].to_numpy()[:, None]
        else:
            effects = effects_by_state(model, asked, "decoder" if name == NETWORK else None)
            index = pd.MultiIndex.from_product([asked, states])
            found = effects.loc[index, adata.var_names].to_numpy().reshape(true.shape)
        for kind, text in DEPENDS.items():
            here = depends == kind
            if here.any():
                error = np.square(found[here] - true[here]).sum() / np.square(true[here]).sum()
                rows.append((text, name, ERROR, error))
    if OURS in methods:
        test = tl.state_effects(model, groupby=_STATE).set_index("perturbation").loc[asked]
        for kind, text in DEPENDS.items():
            here = test[depends == kind]
            rows += [
                (text, OURS, CALLED, (here["FDR"] <= FDR).mean()),
                (text, OURS, SMALL_P, (here["p_value"] <= FDR).mean()),
            ]
    return Part(pd.DataFrame(rows, columns=["perturbations", "method", "metric", "value"]))


def screen_of(options: Mapping[str, Any], settings: Settings, seed: int) -> ad.AnnData:
    """Simulated screen, with its states, or the tertiles of a continuous one, as categories in ``obs["state"]``."""
    states = SCREENS[options["screen"]]
    n_states = states["states"] if isinstance(states["states"], int) else 3
    size: dict[str, Any] = _QUICK_SIZE if settings.quick else _SIZE
    adata = simulate(**size, **states, n_cells_per_perturbation=n_states * options["cells"], seed=seed)
    if adata.obs[_STATE].dtype == float:
        names = sorted(adata.uns["simulation"]["state_effects"])
        adata.obs[_STATE] = pd.cut(adata.obs[_STATE], np.linspace(0, 1, n_states + 1), labels=names)
    return adata


def effects_by_state(model: RaptorGraphModel, perturbations: Sequence[str], kind: str | None) -> pd.DataFrame:
    """Predicted effects, (perturbation, state) x genes."""
    return model.predict_effects(perturbations, groupby=_STATE, kind=kind)


def _methods(settings: Settings) -> list[str]:
    return chosen(settings, "methods", METHODS)


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``states`` (to read), ``states_paired``, ``states_test`` and ``states_long``."""
    rows = all_rows(parts, "screen", "cells").dropna(subset="value")
    cells = list(dict.fromkeys(f"{n} cells" for n in rows["cells"]))
    rows["cells"] = rows["cells"].map("{} cells".format)
    order = {"screen": list(SCREENS), "perturbations": list(DEPENDS.values()), "method": METHODS, "cells": cells}
    summary = in_order(mean_and_sd(rows, [*_BY, "cells", "metric"]), **order)
    errors = rows[rows["metric"] == ERROR]
    found = {"states": wide(summary[summary["metric"] == ERROR], _BY, columns="cells").fillna("-")}
    if OURS in set(errors["method"]):
        key = ["screen", "perturbations", "cells", "seed"]
        others = errors[errors["method"] != OURS]
        ours = errors[errors["method"] == OURS].set_index(key)["value"]
        paired = others.assign(value=ours.loc[pd.MultiIndex.from_frame(others[key])].to_numpy() - others["value"])
        if len(paired):
            paired = in_order(mean_and_sd(paired, [*_BY, "cells"]), **order)
            found["states_paired"] = wide(paired, _BY, columns="cells").fillna("-")
        tests = rows.assign(
            metric=[TESTS.get(pair) for pair in zip(rows["perturbations"], rows["metric"], strict=True)]
        )
        tests = in_order(
            mean_and_sd(tests.dropna(subset="metric"), ["screen", "cells", "metric"]),
            screen=order["screen"],
            cells=cells,
        )
        found["states_test"] = wide(tests, ["screen", "cells"]).fillna("-")
    return {**found, "states_long": summary}


# -- figure ----------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> Figure:
    """Error of every method in every screen, for perturbations of both kinds and each number of cells."""
    long = tables["states_long"]
    errors = long[long["metric"] == ERROR]
    screens, kinds, methods, cells = (
        list(dict.fromkeys(errors[c])) for c in ("screen", "perturbations", "method", "cells")
    )
    size = (3 + 2.6 * len(screens), 1 + len(kinds) * (0.6 + 0.3 * len(methods)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(kinds), len(screens), sharex=True, sharey=True, squeeze=False)
    for row, kind in zip(grid, kinds, strict=True):
        for ax, screen in zip(row, screens, strict=True):
            here = errors[(errors["screen"] == screen) & (errors["perturbations"] == kind)]
            ax.set_visible(len(here) > 0)
            for i, n in enumerate(cells):
                shift = 0.2 * (i - (len(cells) - 1) / 2)
                values = here[here["cells"] == n].set_index("method")
                dots(ax, values, methods, shift, color=f"C{i}", label=f"{n} per state")
            ax.set_title(f"{screen}:\neffects that {kind}", fontsize=9)
            ax.set_xscale("log")
    name_rows(grid.ravel(), methods)
    grid[0, 0].invert_yaxis()
    figure.supxlabel("squared error by state, relative to the squared truth", fontsize=10)
    shared_legend(figure, "outside upper center")
    return figure


STATES = Experiment("states", "Effects in each state of the cells", OPTIONS, units, work, tables, draw)
