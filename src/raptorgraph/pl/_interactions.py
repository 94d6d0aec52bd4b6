"""Interaction scores of all pairs."""

from __future__ import annotations

from os import PathLike

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm

from raptorgraph.pl._figure import axes_or_new, finish

_RATIOS = ("synergy", "suppression")  # 1 = additive
_MAX_NAMES = 60  # more would overlap


def interactions(
    table: pd.DataFrame,
    score: str = "synergy",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike | None = None,
) -> Axes:
    """Draw one interaction score of each pair as a gene x gene heat map.

    Parameters
    ----------
    table
        Table of :func:`raptorgraph.tl.interactions`.
    score
        Column to draw; the colors of ``"synergy"`` and ``"suppression"`` are centered on 1, the additive pairs.
    ax
        Axes to draw on; default those of a new figure.
    show
        Whether to show the figure; not by default.
    save
        File to save the figure to.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; cells without a pair or a score are blank.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If the column does not hold numbers, or the table is empty.
    """
    for column in ("gene_a", "gene_b", score):
        if column not in table:
            raise KeyError(f"{column!r} is not a column of the table, which has {list(table.columns)}.")
    if not pd.api.types.is_numeric_dtype(table[score]):
        raise ValueError(f"score={score!r} does not hold numbers: use a score such as 'synergy'.")
    if table.empty:
        raise ValueError("The table has no pairs.")
    genes = pd.Index(sorted({*table["gene_a"], *table["gene_b"]}))
    first, second = genes.get_indexer(table["gene_a"]), genes.get_indexer(table["gene_b"])
    values = np.full((len(genes), len(genes)), np.nan)
    values[first, second] = values[second, first] = table[score]

    size = float(np.clip(0.3 * len(genes), 4, 12))
    ax = axes_or_new(ax, (size + 1, size))
    colors = {"cmap": "RdBu_r", "norm": CenteredNorm(1.0)} if score in _RATIOS else {"cmap": "viridis"}
    image = ax.imshow(np.ma.masked_invalid(values), **colors)
    ax.figure.colorbar(image, ax=ax, label=score)
    if len(genes) <= _MAX_NAMES:
        ax.set_xticks(range(len(genes)), genes, rotation=90, fontsize=8)
        ax.set_yticks(range(len(genes)), genes, fontsize=8)
    else:
        ax.set(xticks=[], yticks=[], xlabel=f"{len(genes)} genes", ylabel=f"{len(genes)} genes")
    finish(ax.figure, show, save)
    return ax
