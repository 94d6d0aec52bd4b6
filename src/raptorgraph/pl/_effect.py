"""Predicted against measured effect of one perturbation."""

from __future__ import annotations

from os import PathLike

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from raptorgraph.metrics import pearson_delta
from raptorgraph.pl._figure import BLUE, GRAY, axes_or_new, finish


def effect(
    predicted: pd.Series,
    measured: pd.Series,
    *,
    title: str | None = None,
    n_labels: int = 8,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike | None = None,
) -> Axes:
    """Scatter the predicted against the measured effect, one point a gene, with their correlation in the title.

    Parameters
    ----------
    predicted
        Predicted effect, indexed by gene, such as a row of ``model.predict_effects(...)``.
    measured
        Measured effect, indexed by gene, in any order; the genes of both are drawn.
    title
        Name of the perturbation; default the name of `measured`.
    n_labels
        Number of genes to label, largest measured effects first.
    ax
        Axes to draw on; default those of a new figure.
    show
        Whether to show the figure; not by default.
    save
        File to save the figure to.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; both in units of the expression scale, with the diagonal in gray.

    Raises
    ------
    ValueError
        If a gene occurs twice, or fewer than two genes are in both.
    """
    for name, series in (("predicted", predicted), ("measured", measured)):
        if not series.index.is_unique:
            twice = series.index[series.index.duplicated()][0]
            raise ValueError(f"The {name} effect has gene {twice!r} twice: make the names unique.")
    genes = measured.index.intersection(predicted.index, sort=False)
    if len(genes) < 2:
        raise ValueError(f"Predicted and measured effect share {len(genes)} genes: index both by the same gene names.")
    x, y = measured[genes].to_numpy(dtype=float), predicted[genes].to_numpy(dtype=float)
    correlation = pearson_delta(y, x)

    ax = axes_or_new(ax, (4.5, 4.5))
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    ax.plot(ends, ends, color=GRAY, linewidth=1, zorder=0)
    ax.scatter(x, y, s=10, color=BLUE, alpha=0.6, linewidths=0)
    for k in np.argsort(-np.abs(x))[:n_labels]:
        ax.annotate(str(genes[k]), (x[k], y[k]), xytext=(3, 3), textcoords="offset points", fontsize=7)
    ax.set_xlabel("measured effect")
    ax.set_ylabel("predicted effect")
    name = title if title is not None else measured.name
    pearson = "Pearson undefined" if np.isnan(correlation) else f"Pearson {correlation:.2f}"
    ax.set_title(pearson if name is None else f"{name}, {pearson}")
    finish(ax.figure, show, save)
    return ax
