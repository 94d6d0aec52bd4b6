"""Perturbations ranked for a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from raptorgraph._arguments import check_integer
from raptorgraph.pl._figure import GRAY, LIGHT, PALETTE, axes_or_new, check_save, finish

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("query", "perturbation", "genes", "rank", "distance")


def reverse(
    table: pd.DataFrame,
    query: str | None = None,
    *,
    n: int = 15,
    truth: Iterable[str] = (),
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw the perturbations whose predicted effect comes nearest to a query.

    Parameters
    ----------
    table
        Table of :func:`raptorgraph.tl.reverse`.
    query
        Which query of the table; may be left out where there is one.
    n
        Number of perturbations to show.
    truth
        Genes known to be behind the query, if any. Their perturbation is set in bold and shown however far down it is.
    ax
        Axes to draw on; default those of a new figure.
    show
        Whether to show the figure; not by default.
    save
        File to save the figure to.
    return_fig
        Return the figure and not the axes.

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes: distance of the nearest `n`, the nearest on top, colored by the number of genes; a gray line marks the
        median distance of all perturbations in the table.

    Raises
    ------
    KeyError
        If a column or the query is not in the table.
    ValueError
        If no query is named and the table has several, no distance is defined, or `n` is not positive.

    Examples
    --------
    >>> table = rg.tl.reverse(model, model.measured_effects().iloc[:1])
    >>> ax = rg.pl.reverse(table, n=5)
    """
    check_save(save)
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise KeyError(f"{missing[0]!r} is not a column of the table, which has {list(table.columns)}.")
    check_integer("n", n, 1, hint=", the number of perturbations to show")
    queries = list(dict.fromkeys(table["query"]))
    if query is None:
        if len(queries) != 1:
            raise ValueError(f"The table has {len(queries)} queries, {queries[:10]}: name one, query=...")
        query = queries[0]
    if query not in queries:
        raise KeyError(f"{query!r} is not a query of the table; these are {queries[:20]}.")
    found = table[(table["query"] == query) & np.isfinite(table["distance"].to_numpy(dtype=float))]
    if found.empty:
        raise ValueError(f"No distance to {query!r} is defined.")
    found = found.sort_values(["rank", "perturbation"], kind="stable")
    truth = {gene.strip() for gene in ([truth] if isinstance(truth, str) else truth)}
    right = found["genes"].map(set) == truth
    shown = pd.concat([found.iloc[:n], found[right & ~found.index.isin(found.index[:n])]])

    ax = axes_or_new(ax, (4.8, 0.23 * len(shown) + 1.3))
    y, n_genes = np.arange(len(shown)), shown["genes"].map(len).to_numpy()
    start = float(shown["distance"].min()) - 0.08 * float(np.ptp(found["distance"]) or 1.0)
    ax.hlines(y, start, shown["distance"], color=LIGHT, linewidth=1.2, zorder=1)
    colors = [PALETTE[(k - 1) % len(PALETTE)] for k in n_genes]
    ax.scatter(shown["distance"], y, s=34, color=colors, zorder=2)
    ax.axvline(found["distance"].median(), color=GRAY, linestyle="--", linewidth=1)
    names = [f"{row.rank:g}.  {row.perturbation}" for row in shown.itertuples()]
    ax.set_yticks(y, names, fontsize=8)
    for tick, genes in zip(ax.get_yticklabels(), shown["genes"], strict=True):
        tick.set_fontweight("bold" if set(genes) == truth else "normal")
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel("distance of the predicted effect to the query")
    ax.set_ylabel("perturbation, by rank")
    ax.set_title(f"query: {query}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    mark = {"marker": "o", "linestyle": "", "markersize": 5.5}
    handles = [
        Line2D([], [], color=PALETTE[(k - 1) % len(PALETTE)], label=f"{k} gene{'s' * (k > 1)}", **mark)
        for k in sorted(set(n_genes.tolist()))
    ]
    handles.append(Line2D([], [], color=GRAY, linestyle="--", label=f"median of all {len(found):,}"))
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=7)
    return finish(ax, show=show, save=save, return_fig=return_fig)
