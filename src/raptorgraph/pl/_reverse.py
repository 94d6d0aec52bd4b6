"""Perturbations ranked for a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.pl._figure import GRAY, LIGHT, PALETTE, axes_or_new, check_columns, check_save, finish
from raptorgraph.pl._marks import legend_beside, marker

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("query", "perturbation", "genes", "rank", "distance")


@docs.dedent
def reverse(
    table: pd.DataFrame,
    query: str | None = None,
    *,
    n: int = 15,
    truth: Iterable[str] = (),
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw the perturbations whose predicted effect comes nearest to a query.

    Parameters
    ----------
    table
        Table of :func:`raptorgraph.tl.reverse`.
    query
        Name of the query; may be left out where the table has one.
    n
        Number of perturbations to show.
    truth
        Genes known to have caused the query, if any. Their perturbation is set in bold, and shown whatever its rank is.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes: distances of the nearest `n`, the nearest on top, colored by the number of genes. A gray line marks
        the median distance of all perturbations in the table.

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
    check_columns(table, _COLUMNS)
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
    colors = {k: PALETTE[(k - 1) % len(PALETTE)] for k in sorted(set(n_genes.tolist()))}
    ax.scatter(shown["distance"], y, s=34, color=[colors[k] for k in n_genes], zorder=2)
    ax.axvline(found["distance"].median(), color=GRAY, linestyle="--", linewidth=1)
    names = [f"{row.rank:g}.  {row.perturbation}" for row in shown.itertuples()]
    ax.set_yticks(y, names, fontsize=8)
    for tick, genes in zip(ax.get_yticklabels(), shown["genes"], strict=True):
        tick.set_fontweight("bold" if set(genes) == truth else "normal")
    ax.set(xlabel="distance of the predicted effect to the query", ylabel="perturbation, by rank")
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_title(f"query: {query}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    handles = [marker(f"{k} gene{'s' * (k > 1)}", color, size=5.5) for k, color in colors.items()]
    handles.append(Line2D([], [], color=GRAY, linestyle="--", label=f"median of all {len(found):,}"))
    legend_beside(ax, handles)
    return finish(ax, show=show, save=save, return_fig=return_fig)
