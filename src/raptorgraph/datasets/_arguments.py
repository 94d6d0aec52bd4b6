"""Checks of the arguments of the simulator."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

from raptorgraph._arguments import check_choice, check_integer, check_number
from raptorgraph.datasets._states import CONTINUOUS, NO_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

CHOICES = {"graph": ("erdos-renyi", "scale-free"), "mechanism": ("saturating", "linear")}
LEAST = {  # integers, and the least value of each
    "n_genes": 1,
    "n_perturbed": 1,
    "n_control_cells": 1,
    "n_cells_per_perturbation": 1,
    "n_batches": 1,
    "n_truth_cells": 1,
    "truth_order": 1,
    "n_guides": 1,
    "seed": 0,
}
RANGES = {  # real numbers, and the bounds of each (inclusive)
    "expected_degree": (0.0, float("inf")),
    "interaction_strength": (0.0, 10.0),
    "effect_size": (0.0, 10.0),
    "targets_without_gene": (0.0, 1.0),
    "batch_effect": (0.0, 3.0),
    "library_size_sd": (0.0, 3.0),
    "library_size": (1.0, 1e7),
    "dispersion": (1e-3, 1e6),
    "state_effect": (0.0, 3.0),
    "state_dependence": (0.0, 1.0),
    "programs_per_gene": (0.0, float("inf")),
    "feedback": (0.0, 1.0),
    "off_target": (0.0, 1.0),
    "dead_guides": (0.0, 1.0),
}


def check_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`raptorgraph.datasets.simulate` by name, checked, with the default of ``n_latent``."""
    settings = dict(arguments)
    for name, choices in CHOICES.items():
        check_choice(name, settings[name], choices)
    for name, least in LEAST.items():
        check_integer(name, settings[name], least)
    for name, (low, high) in RANGES.items():
        check_number(name, settings[name], low, high)

    check_integer("n_truth_cells", settings["n_truth_cells"], settings["n_batches"], hint=", one for each batch")

    n_perturbed = settings["n_perturbed"]
    if settings["n_latent"] is None:
        settings["n_latent"] = n_perturbed + max(5, n_perturbed // 4)
    check_integer("n_latent", settings["n_latent"], n_perturbed, hint=", a latent for each perturbed gene")

    n_with_gene = n_perturbed - n_targets_without_gene(n_perturbed, settings["targets_without_gene"])
    if settings["n_genes"] < n_with_gene:
        raise ValueError(
            f"n_genes={settings['n_genes']} leaves no room for the {n_with_gene} perturbed genes in the panel: "
            "use more genes or a larger targets_without_gene."
        )

    if isinstance(settings["states"], str):
        check_choice("states", settings["states"], (NO_STATES, CONTINUOUS))
    else:
        check_integer("states", settings["states"], 2, hint=f", '{CONTINUOUS}' or '{NO_STATES}'")
    if settings["dead_guides"] and settings["n_guides"] == 1:
        raise ValueError(
            f"dead_guides={settings['dead_guides']} needs guides that work beside them: n_guides=2 or more."
        )
    settings["escape"] = _escape(settings["escape"], n_perturbed)

    if settings["n_doubles"] != "all":
        n_pairs = n_perturbed * (n_perturbed - 1) // 2
        check_integer("n_doubles", settings["n_doubles"], 0, hint=" or 'all'")
        if settings["n_doubles"] > n_pairs:
            raise ValueError(
                f"n_doubles={settings['n_doubles']} but {n_perturbed} perturbed genes have {n_pairs} pairs: "
                "use fewer, or 'all'."
            )

    n_latent, scale_free = settings["n_latent"], settings["graph"] == "scale-free"
    low, high = (1, n_latent - 1) if scale_free else (0, (n_latent - 1) / 2)
    if not low <= settings["expected_degree"] <= high:
        raise ValueError(
            f"expected_degree={settings['expected_degree']} is impossible: a {settings['graph']} graph of {n_latent} "
            f"latents takes {low} to {high:g}."
        )
    return settings


def _escape(value: Any, n_perturbed: int) -> float | list[float]:
    """Share of escaping cells, one or one for each perturbed gene."""
    if isinstance(value, Real):
        return check_number("escape", value, 0.0, 1.0)
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple):
        raise TypeError(f"escape={value!r} is neither a number nor a list of one for each perturbed gene.")
    if len(value) != n_perturbed:
        raise ValueError(
            f"escape has {len(value)} shares for {n_perturbed} perturbed genes: give as many, or one number."
        )
    return [check_number("escape", share, 0.0, 1.0) for share in value]


def n_targets_without_gene(n_perturbed: int, share: float) -> int:
    """Number of perturbed genes without a column."""
    return round(share * n_perturbed)
