"""The cells of a model's screen: how their labels are written, and their expression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._setup import Setup

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen._matrix import Matrix
    from raptorgraph.screen._screen import Screen


def canonical(model: RaptorGraphModel, perturbation: str | Collection[str]) -> str:
    """Label of one perturbation, given by a label or its genes, as the model writes it."""
    setup = Setup.of(model.setup_args)
    return setup.label(setup.genes(perturbation))


def screen_of(model: RaptorGraphModel, hint: str = "") -> Screen:
    """Screen of the model's data; ValueError, with the hint, where it was loaded without."""
    if model.adata is None:
        raise ValueError(f"The model was loaded without data: load it with adata=...{hint}")
    screen: Screen = model.screen
    return screen


def expression_of(
    screen: Screen, rows: np.ndarray | slice = slice(None), genes: list[int] | slice = slice(None)
) -> Matrix:
    """Values of some cells and genes on the expression scale, read as the screen's setup says."""
    X, library = screen.source
    X = X[rows] if isinstance(genes, slice) else X[:, genes][rows]
    return to_expression(X, None if library is None else library[rows])
