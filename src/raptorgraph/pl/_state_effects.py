"""How large effects are in each group of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.pl._figure import LIGHT, axes_or_new, check_columns, check_save, finish
from raptorgraph.pl._heat_map import name_squares, similar_side_by_side
from raptorgraph.pl._marks import color_bar_beside, legend_beside, marker

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COUNT = "n_cells_"  # begins the names of the columns by which groups are known


@docs.dedent
def state_effects(
    table: pd.DataFrame,
    *,
    n: int = 30,
    fdr: float = 0.05,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw how large the effect of each perturbation is in each group of cells.

    Parameters
    ----------
    table
        Table of :func:`raptorgraph.tl.state_effects`.
    n
        Largest number of perturbations: those with the smallest p-value, of equal ones those with the largest share
        that differs between groups.
    fdr
        False discovery rate up to which a perturbation is set in bold.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes, perturbations x groups, similar ones side by side. White is an effect as large as in all groups
        together, blue a smaller, red a larger one; a dot marks scales whose interval does not hold 1. Groups without
        cells of a perturbation are gray.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If the table is empty, or a number is out of its range.

    Examples
    --------
    >>> model.adata.obs["half"] = np.resize(["first", "second"], model.adata.n_obs)
    >>> ax = rg.pl.state_effects(rg.tl.state_effects(model, "half", n_permutations=50))
    >>> ax.get_ylabel()
    'perturbation'
    """
    check_save(save)
    check_integer("n", n, 1, hint=", the number of perturbations to show")
    check_number("fdr", fdr, 0, 1)
    check_columns(table, ("perturbation", "p_value", "FDR", "dependence"))
    groups = [name.removeprefix(_COUNT) for name in table.columns if str(name).startswith(_COUNT)]
    if table.empty or not groups:
        raise ValueError("The table has no perturbation or no group: give that of rg.tl.state_effects.")
    for end in ("", "_low", "_high"):
        check_columns(table, [f"scale_{group}{end}" for group in groups])
    shown = table.sort_values(["p_value", "dependence"], ascending=[True, False], kind="stable").iloc[:n]
    scale, low, high = (
        shown[[f"scale_{group}{end}" for group in groups]].to_numpy(dtype=float) for end in ("", "_low", "_high")
    )
    order = similar_side_by_side(scale)
    shown, scale, low, high = shown.iloc[order], scale[order], low[order], high[order]
    empty = shown[[_COUNT + group for group in groups]].to_numpy() == 0

    height, width = 0.22 * len(shown), 0.45 * len(groups)
    ax = axes_or_new(ax, (width + 3.4, max(height, 2.0) + 1.2))
    ax.set_facecolor(LIGHT)
    image = ax.imshow(
        np.ma.masked_array(scale, empty), aspect="auto", interpolation="nearest", cmap="RdBu_r", norm=Normalize(0, 2)
    )
    row, column = np.nonzero(((low > 1) | (high < 1)) & ~empty)
    ax.scatter(column, row, s=7, color="black", linewidths=0.3, edgecolors="white", zorder=2)
    name_squares(ax, list(shown["perturbation"]), groups)
    for tick, rate in zip(ax.get_yticklabels(), shown["FDR"], strict=True):
        tick.set_fontweight("bold" if rate <= fdr else "normal")
    some = "" if len(shown) == len(table) else f" ({len(shown)} of {len(table)})"
    ax.set(xlabel=str(table.attrs.get("groupby", "group")), ylabel="perturbation" + some)
    label = "scale of the effect\n(1 = as in all groups)"
    color_bar_beside(ax, image, label, (1.05, 0.0, 0.14 / width, min(0.5, 1.6 / max(height, 2.0))))
    handles = [
        marker("90 % interval without 1", "black", size=3),
        marker(f"bold: FDR ≤ {fdr:g}", "none", markeredgecolor="none"),
    ]
    legend_beside(ax, handles)
    return finish(ax, show=show, save=save, return_fig=return_fig)
