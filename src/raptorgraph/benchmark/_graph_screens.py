"""Screens on which graphs are learned: a grid of simulated ones, and the toy of Zhang et al. (2023)."""

from __future__ import annotations

import inspect
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raptorgraph.benchmark._graph_broken import BROKEN
from raptorgraph.benchmark._settings import chosen
from raptorgraph.datasets import simulate
from raptorgraph.datasets._arguments import CHOICES, check_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptorgraph.benchmark._settings import Settings

_GRID = {
    "graphs": CHOICES["graph"],
    "degrees": (1, 3),
    "n_perturbed": (20, 50, 100),
    "mechanisms": ("linear", "saturating"),
    "n_cells": (50, 200),
    "missing": (0.0, 0.3),
}
_QUICK_GRID = {
    "graphs": ("erdos-renyi",),
    "degrees": (1,),
    "n_perturbed": (6,),
    "mechanisms": ("linear",),
    "n_cells": (30,),
    "missing": (0.0,),
}
FACTORS = ("graph", "degree", "genes", "mechanism", "cells", "missing", "broken")
PLAIN = "none"  # of the grid, whose graphs are not resampled
# few cells for the true effects, which are not used and of which there are many
_SIZE = {"n_genes": 500, "n_control_cells": 1000, "n_doubles": 0, "interaction_strength": 0.0, "n_truth_cells": 50}
_QUICK_SIZE = {**_SIZE, "n_genes": 60, "n_control_cells": 100, "n_truth_cells": 20}
TOY: dict[str, Any] = dict(zip(FACTORS, ("toy chain", 1, 5, "rectified", 2048, 0.0, PLAIN), strict=True))
_TOY_SHIFT, _TOY_PADDING = 5.0, 5


def grid(settings: Settings) -> list[dict[str, Any]]:
    """All settings, checked: the cross of what is asked for, and its first setting with one thing broken each."""
    asked = []
    for option, default in (_QUICK_GRID if settings.quick else _GRID).items():
        values = settings.options.get(option, default)
        values = list(values) if isinstance(values, list | tuple) else [values]
        if not values:
            raise ValueError(f"{option}: give at least one value.")
        asked.append(values)
    found = [dict(zip(FACTORS, (*values, PLAIN), strict=True)) for values in product(*asked)]
    if settings.options.get("broken", True):
        broken = chosen(settings, "broken", list(BROKEN)) if "broken" in settings.options else list(BROKEN)
        found += [{**found[0], "broken": name} for name in broken]
    defaults = {name: value.default for name, value in inspect.signature(simulate).parameters.items()}
    for here in found:
        try:
            check_arguments({**defaults, **arguments(here, settings)})
        except (TypeError, ValueError) as error:
            raise ValueError(f"The grid cannot be simulated: {error}") from None
        if here["genes"] < 2:
            raise ValueError(f"n_perturbed: a graph needs two genes or more, not {here['genes']}.")
    return found


def arguments(setting: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Arguments of the simulator for a setting of the grid."""
    return {
        **(_QUICK_SIZE if settings.quick else _SIZE),
        "graph": setting["graph"],
        "expected_degree": setting["degree"],
        "n_perturbed": setting["genes"],
        "mechanism": setting["mechanism"],
        "n_cells_per_perturbation": setting["cells"],
        "targets_without_gene": setting["missing"],
    }


def text(setting: Mapping[str, Any]) -> str:
    """Name of a setting in tables and figures."""
    if setting["graph"] == TOY["graph"]:
        return str(setting["graph"])
    if setting["broken"] != PLAIN:
        return f"{setting['broken']}, {setting['genes']} genes, {setting['cells']} cells"
    return (
        f"{setting['graph']}, degree {setting['degree']:g}, {setting['genes']} genes, {setting['mechanism']}, "
        f"{setting['cells']} cells, {setting['missing']:.0%} missing"
    )


def toy_effects(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Differences of means of the toy, 5 x 10, their sampling variance, and that of the control.

    Each latent is standard normal noise and the positive part of the one before; an intervention adds 5 to it.
    """
    rng = np.random.default_rng(seed)
    k, n = TOY["genes"], TOY["cells"]

    def moments(hit: int | None) -> tuple[np.ndarray, np.ndarray]:
        u = rng.standard_normal((n, k))
        for j in range(k):
            u[:, j] += (np.maximum(u[:, j - 1], 0.0) if j else 0.0) + _TOY_SHIFT * (j == hit)
        x = np.pad(u, ((0, 0), (0, _TOY_PADDING)))
        return x.mean(axis=0), x.var(axis=0, ddof=1) / n

    mean, variance = map(np.array, zip(*(moments(hit) for hit in (None, *range(k))), strict=True))
    shared = variance[0]
    # genes that are always 0 say nothing
    return (
        torch.as_tensor(mean[1:] - mean[0]),
        torch.as_tensor(np.where(shared > 0, variance[1:], np.inf)),
        torch.as_tensor(shared),
    )
