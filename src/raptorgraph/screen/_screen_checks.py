"""All checks of a screen, whether or not a model was trained on it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from raptorgraph.screen import _cell_checks as of_cells
from raptorgraph.screen import _value_checks as of_values
from raptorgraph.screen._checks import Checked, checked

if TYPE_CHECKING:
    import pandas as pd

    from raptorgraph.screen._screen import Screen

LOOKS_FOR = {
    "cells": "Enough control cells, and cells of each perturbation.",
    "labels": "Labels that name controls or more than two genes.",
    "values": "Counts of genes and not of guides, with the library size of whole cells.",
    "library sizes": "Cells with twice the counts of others, as doublets have, and counts that shift effects.",
    "batches": "Control cells in every batch, so that batches are no part of effects.",
    "targets": "Perturbed genes that are measured, and change themselves.",
    "effects": "Effects that are larger than the noise of sampling cells.",
    "combinations": "Combinations from which can be learned how effects add up.",
}


def check_screen(screen: Screen, strength: pd.DataFrame, *, singles_only: bool = False) -> list[Checked]:
    """Make all checks of a screen.

    Parameters
    ----------
    screen
        All cells.
    strength
        Table of :func:`~raptorgraph.screen._strength.strengths`.
    singles_only
        Whether combinations were left out of a training.
    """
    checks = {
        "cells": partial(of_cells.few_cells, screen),
        "labels": partial(of_cells.labels, screen),
        "values": partial(of_values.values, screen),
        "library sizes": partial(of_values.library_sizes, screen),
        "batches": partial(of_values.batches, screen),
        "targets": partial(of_cells.targets, screen, strength),
        "effects": partial(of_cells.effects, strength),
        "combinations": partial(of_cells.combinations, screen, singles_only=singles_only),
    }
    return [checked(name, LOOKS_FOR[name], check) for name, check in checks.items()]
