"""Predictions of published tools in environments of their own, scored as those of the methods of this package are."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

from raptorgraph.baselines._peer_process import CONTROL, DELIMITER, answered, labels_for
from raptorgraph.baselines._peers import PEERS
from raptorgraph.benchmark._peer_methods import asked_peers, facts_of, label_of, timeout_of, tuned_on
from raptorgraph.evaluation._predictions import Predictions
from raptorgraph.evaluation._scores import cell_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from raptorgraph.benchmark._settings import Settings, Unit
    from raptorgraph.evaluation import Split
    from raptorgraph.screen import Screen

EXPERIMENT = "prediction"
OF_SINGLES = ("singles", "paper")  # regimes in which no combination is fitted
_SPELLING = {"control": CONTROL, "delimiter": DELIMITER}


def pieces(settings: Settings, screen: Screen, regimes: Sequence[str]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """For each regime the words and the options of a unit for each tool that is asked for and can answer in it.

    Warns of a tool that is left out of a regime. ValueError where none is left, or something of it is wrong.
    """
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {regime: [] for regime in regimes}
    for name in asked_peers(settings, EXPERIMENT):
        tool = PEERS[name]
        left_out = [regime for regime in regimes if tool.needs_combinations and regime in OF_SINGLES]
        if left_out:
            why = (
                f"{tool.title} learns from combinations how genes act together and cannot extrapolate from singles "
                f"alone: it has no part in the regime {' and '.join(map(repr, left_out))}"
            )
            if len(left_out) == len(regimes):
                raise ValueError(f"methods: {why}. Add the regime 'doubles', or leave {name!r} out.")
            warnings.warn(f"{why}.", UserWarning, stacklevel=2)
        options = {"methods": [label_of(name, settings)], "peer": facts_of(name, settings, screen)}
        for regime in regimes:
            if regime not in left_out:
                found[regime].append((name, options))
    return found


def work(
    unit: Unit,
    settings: Settings,
    screen: Screen,
    split: Split,
    fitted: Sequence[str],
    scored: Sequence[str],
    draws: Mapping[str, int],
) -> tuple[pd.DataFrame, pd.DataFrame | None, np.ndarray]:
    """Have a tool fit these conditions and predict others, and score its cells where it predicts any.

    Returns
    -------
    Rows ``method``, ``condition``, ``metric`` and ``value``; predicted effects against its own control, conditions x
    genes, None where it can predict no condition; and its control minus the data's, 0 where it predicts no cells.
    """
    [name], facts = unit.options["methods"], unit.options["peer"]
    tool, known = PEERS[facts["name"]], {gene for label in fitted for gene in screen.genes_of[label]}
    asked = [x for x in scored if tool.knows_other_genes or known.issuperset(screen.genes_of[x])]
    rows: list[tuple[str, str, str, float]] = [(name, "", "not predictable", len(scored) - len(asked))]
    columns = ["method", "condition", "metric", "value"]
    drift = np.zeros(len(screen.var_names))
    if not asked:
        return pd.DataFrame(rows, columns=columns), None, drift
    validation = tuned_on(split, fitted, screen, unit.seed)
    spelled = dict(zip(screen.labels, labels_for(screen.parsed.conditions), strict=True))
    task = {
        "train": [spelled[label] for label in fitted if label not in validation],
        "val": [spelled[label] for label in validation],
        "test": [spelled[label] for label in asked],
        "seed": unit.seed,
        "epochs": facts["epochs"],
        "options": facts["options"],
        "files": facts["files"],
        "n_cells": draws["n_cells"],
    }
    cells = training_cells(screen, fitted, spelled, counts=tool.reads == "counts")
    threads, timeout = torch.get_num_threads(), timeout_of(settings)
    with answered(tool, cells, task, log=f"{tool.name}-{unit.key}", threads=threads, timeout=timeout) as answer:
        given = Predictions(answer.folder / "effects.csv", _SPELLING, screen.var_names, screen.control_mean)
        missing = given.missing(task["test"])
        if missing:
            raise ValueError(
                f"{tool.title} predicts nothing for {len(missing)} of {len(asked)}, such as {missing[0]!r}."
            )
        own = given.effects.loc[task["test"]].set_axis(asked)
        if (answer.folder / "cells.h5ad").is_file():
            drawn = Predictions(answer.folder / "cells.h5ad", _SPELLING, screen.var_names, screen.control_mean)
            drift = drawn.control - screen.control_mean
            scores = cell_scores(
                spelled_back(drawn, dict(zip(task["test"], asked, strict=True))), screen, drift, **draws
            )
            rows += [(name, *row) for row in scores.itertuples(index=False, name=None)]
    rows += [(name, "", f"seconds to {what}", value) for what, value in answer.seconds.items()]
    rows.append((name, "", "memory, MB", answer.megabytes))
    return pd.DataFrame(rows, columns=columns), own, drift


def training_cells(screen: Screen, fitted: Sequence[str], spelled: Mapping[str, str], *, counts: bool) -> ad.AnnData:
    """Control cells and those of the fitted conditions, as tools are given them: counts, or the expression scale."""
    rows = np.flatnonzero(np.isin(screen.codes, [0, *(screen.labels.index(label) for label in fitted)]))
    obs = pd.DataFrame(
        {"perturbation": [spelled[screen.labels[code]] for code in screen.codes[rows]]},
        index=[f"cell{row}" for row in rows],
    )
    X, library = screen.source
    if counts and library is not None:
        obs["library"] = np.asarray(library, dtype=float)[rows]
    var = pd.DataFrame(index=np.asarray(screen.var_names, dtype=object))
    return ad.AnnData(X[rows] if counts else screen.expression_at(rows), obs=obs, var=var)


def spelled_back(predicted: Predictions, label_of: Mapping[str, str]) -> ad.AnnData:
    """Predicted cells of the asked conditions, with the screen's labels."""
    cells = predicted.cells
    assert cells is not None
    cells = cells[cells.obs["perturbation"].isin(list(label_of))].copy()
    cells.obs["perturbation"] = cells.obs["perturbation"].astype(object).map(label_of)
    return cells
