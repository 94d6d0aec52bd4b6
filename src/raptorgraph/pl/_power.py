"""How likely an interaction would be called, by the number of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.pl._figure import BLUE, GRAY, LIGHT, PALETTE, axes_or_new, check_columns, check_save, finish
from raptorgraph.pl._marks import legend_beside

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("n_cells", "power", "size", "cells_needed")
_ENOUGH = 0.8


@docs.dedent
def power(
    table: pd.DataFrame,
    *,
    n_named: int = 6,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw the power to call an interaction against the number of cells of the pair.

    Parameters
    ----------
    table
        Table of :func:`raptorgraph.tl.power`.
    n_named
        Up to so many pairs have a color and a name each; of more pairs all lines are gray, with their median and
        the quarters about it in blue.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes: one line for each pair, the cells on a logarithmic axis. A dashed line marks a power of 0.8.

    Raises
    ------
    KeyError
        If a column is not in the table.
    TypeError, ValueError
        If `n_named` is no number of 0 or more, or the table is empty.

    Examples
    --------
    >>> ax = rg.pl.power(rg.tl.power(model, seed=0))
    """
    check_save(save)
    check_columns(table, _COLUMNS)
    check_integer("n_named", n_named, 0, hint=", the number of pairs with a name")
    if table.empty:
        raise ValueError("The table has no pairs.")
    pairs = list(dict.fromkeys(table.index))
    wide = table.assign(pair=table.index).pivot_table(index="n_cells", columns="pair", values="power")[pairs]
    cells, values = wide.index.to_numpy(dtype=float), wide.to_numpy(dtype=float)
    ax = axes_or_new(ax, (5.6, 3.6))
    handles: list[Artist] = []
    if len(pairs) <= n_named:
        for k, pair in enumerate(pairs):
            color = PALETTE[k % len(PALETTE)]
            needed = float(table.loc[[pair], "cells_needed"].iloc[0])
            label = f"{pair} ({needed:,.0f} cells)" if np.isfinite(needed) else f"{pair} (never)"
            handles += ax.plot(cells, values[:, k], color=color, marker="o", markersize=4, linewidth=1.4, label=label)
    else:
        ax.plot(cells, values, color=LIGHT, linewidth=0.8, zorder=1)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
        handles.append(Line2D([], [], color=LIGHT, label=f"each of {len(pairs):,} pairs"))
        handles.append(ax.fill_between(cells, low, high, color=BLUE, alpha=0.25, linewidth=0, label="middle half"))
        handles += ax.plot(cells, middle, color=BLUE, marker="o", markersize=4, linewidth=1.6, label="median")
    handles.append(
        ax.axhline(_ENOUGH, color=GRAY, linestyle="--", linewidth=1, label=f"{_ENOUGH:g}, as for `cells_needed`")
    )
    ax.set_xscale("log")
    ax.set_xticks(cells, [f"{n:,.0f}" for n in cells])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(-0.02, 1.02)
    size = table["size"].iloc[0]
    ax.set(xlabel="cells of the pair", ylabel=f"probability of a call\n(pair {size:.0%} off the sum)")
    ax.spines[["top", "right"]].set_visible(False)
    legend_beside(ax, handles)
    return finish(ax, show=show, save=save, return_fig=return_fig)
