"""The pairs to measure next, with what each is expected to add."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptorgraph._docs import docs
from raptorgraph.pl._figure import BLUE, GRAY, LIGHT, ORANGE, axes_or_new, check_columns, check_save, finish
from raptorgraph.pl._marks import Style, legend_beside, marker, vertical_grid

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("gene_a", "gene_b", "gain", "gain_alone", "gain_in", "cells_needed", "singles_measured")


@docs.dedent
def next_pairs(
    table: pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw the chosen pairs, each with what it adds to those above it.

    Parameters
    ----------
    table
        Table of :func:`raptorgraph.tl.next_pairs`.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes: gains in the order of choice, the first on top, beside what each pair would give alone (open circles).
        The cells that are needed for it stand at the right. Pairs with a gene that was never perturbed alone are
        orange.

    Raises
    ------
    KeyError
        If a column is not in the table.
    ValueError
        If the table is empty.

    Examples
    --------
    >>> ax = rg.pl.next_pairs(rg.tl.next_pairs(model, n=5))
    """
    check_save(save)
    check_columns(table, _COLUMNS)
    if table.empty:
        raise ValueError("The table has no pairs.")
    ax = axes_or_new(ax, (5.6, 0.24 * len(table) + 1.3))
    y, gain = np.arange(len(table)), table["gain"].to_numpy(dtype=float)
    alone, known = table["gain_alone"].to_numpy(dtype=float), table["singles_measured"].to_numpy(dtype=bool)
    ax.hlines(y, np.minimum(gain, 0.0), gain, color=LIGHT, linewidth=1.2, zorder=1)
    ax.scatter(alone, y, s=34, facecolors="none", edgecolors=GRAY, linewidths=1.0, zorder=2)
    ax.scatter(gain, y, s=30, color=np.where(known, BLUE, ORANGE), zorder=3)
    ax.set_yticks(y, [f"{k + 1}.  {name}" for k, name in enumerate(table.index)], fontsize=8)
    ax.set(xlabel=f"gain: {table['gain_in'].iloc[0]}", ylabel="pair, in the order of choice")
    ax.set_ylim(len(table) - 0.4, -0.6)
    low, high = min(0.0, float(gain.min())), float(max(gain.max(), alone.max()))
    ax.set_xlim(low - 0.03 * (high - low or 1.0), high + 0.06 * (high - low or 1.0))
    cells = table["cells_needed"].to_numpy(dtype=float)
    numbers = ["cells", *(f"{n:,.0f}" if np.isfinite(n) else "∞" for n in cells)]
    for row, number in zip([-0.85, *y.tolist()], numbers, strict=True):
        style: Style = {"fontsize": 7, "va": "center", "color": GRAY, "clip_on": False}
        ax.text(1.02, row, number, transform=ax.get_yaxis_transform(), **style)
    vertical_grid(ax)
    ax.spines[["top", "right"]].set_visible(False)
    handles = [marker("beside those above it", BLUE)] if known.any() else []
    if not known.all():
        handles.append(marker("the same, a gene never alone", ORANGE))
    handles.append(marker("by itself", GRAY, markerfacecolor="none"))
    legend_beside(ax, handles)
    legend = ax.get_legend()
    assert legend is not None
    legend.set_bbox_to_anchor((1.12, 1.0))  # right of the numbers of cells
    return finish(ax, show=show, save=save, return_fig=return_fig)
