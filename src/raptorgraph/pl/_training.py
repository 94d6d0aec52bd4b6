"""Curves of the loss terms over training."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure

from raptorgraph.pl._figure import BLUE, ORANGE, finish

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel

_COLORS = {"train": BLUE, "validation": ORANGE}


def training(
    model: RaptorGraphModel,
    *,
    figure: Figure | SubFigure | None = None,
    show: bool | None = None,
    save: str | PathLike | None = None,
) -> np.ndarray:
    """Draw each term of the loss over the epochs, one panel a term, train and validation cells.

    Parameters
    ----------
    model
        A trained model.
    figure
        Empty figure to draw on; default a new one.
    show
        Whether to show the figure; not by default.
    save
        File to save the figure to.

    Returns
    -------
    numpy.ndarray
        The axes, one for each term.

    Raises
    ------
    ValueError
        If the model has no history: it was not trained.
    """
    curves = _curves(model.history)
    if not curves:
        raise ValueError("The model has no training history: call model.train() first.")
    n_columns = min(3, len(curves))
    n_rows = -(-len(curves) // n_columns)
    if figure is None:
        import matplotlib.pyplot as plt  # here, since it starts a backend

        figure = plt.figure(figsize=(3.5 * n_columns, 2.6 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for spare in grid[len(curves) :]:
        spare.remove()
    axes = grid[: len(curves)]
    for ax, (term, parts) in zip(axes, curves.items(), strict=True):
        for part, values in parts.items():
            # a point where there is one epoch, since a line through it would be invisible
            ax.plot(values.index, values, color=_COLORS[part], label=part, marker="o" if len(values) == 1 else None)
        ax.set_title(term.replace("_", " "))
        ax.set_xlabel("epoch")
        ax.legend(frameon=False)
    finish(figure, show, save)
    return axes


def _curves(history: dict[str, pd.DataFrame] | None) -> dict[str, dict[str, pd.Series]]:
    """Term -> "train" or "validation" -> values by epoch."""
    curves: dict[str, dict[str, pd.Series]] = {}
    for key, table in (history or {}).items():
        if key.endswith("_step") or key.startswith("kl_global"):  # the model has no global latents
            continue
        for part in _COLORS:
            name = key.removesuffix("_epoch")
            if name == f"{part}_loss":
                term = "loss"
            elif name.endswith(f"_{part}"):
                term = name.removesuffix(f"_{part}")
            else:
                continue
            values = pd.to_numeric(table.iloc[:, 0], errors="coerce").dropna()
            if len(values):
                curves.setdefault(term, {})[part] = values
    return {term: curves[term] for term in sorted(curves, key=lambda term: term != "loss")}
