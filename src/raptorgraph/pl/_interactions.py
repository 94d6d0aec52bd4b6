"""Interaction scores of all pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from raptorgraph._arguments import check_choice
from raptorgraph._docs import docs
from raptorgraph.pl._figure import BLUE, GRAY, LIGHT, ORANGE, Floats, axes_or_new, check_columns, check_save, finish
from raptorgraph.pl._heat_map import name_squares, similar_side_by_side
from raptorgraph.pl._marks import Style, color_bar_beside, legend_beside

if TYPE_CHECKING:
    from os import PathLike

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


_RATIOS = ("synergy", "suppression")  # 1 = additive
_BAR_LABELS = {
    "synergy": "synergy\n(ratio to the sum, 1 = additive)",
    "suppression": "suppression\n(ratio of the sum to the pair, 1 = additive)",
}
_MAX_NAMES = 120  # more would overlap
_TYPES = {
    "additive": LIGHT,
    "synergy": ORANGE,
    "suppression": BLUE,
    "neomorphism": "#CC79A7",
    "redundancy": "#E69F00",
    "epistasis": "#009E73",
    "undetermined": "white",
    "undefined": "white",  # in tables of older versions, as "additive"
}
_UNKNOWN = "undetermined"
_HATCH: Style = {"hatch": "////", "edgecolor": GRAY, "linewidth": 0}
_RATIO_ENDS = (2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 50.0, 100.0)  # at which colors of ratios may end


@docs.dedent
def interactions(
    table: pd.DataFrame,
    score: str = "synergy",
    *,
    types: bool | None = None,
    order: str = "cluster",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw one interaction score of each pair, genes x genes, and the type of the interaction in the other half.

    The upper right half shows the score, the lower left half the types. Pairs whose interaction is undetermined are
    hatched in both. A dot marks the pairs that were measured.

    Parameters
    ----------
    table
        Table of :func:`raptorgraph.tl.interactions`.
    score
        Column to draw. The colors of ``"synergy"`` and ``"suppression"`` are logarithmic and centered on 1, the
        value of additive pairs; they end at 0.5 and 2, or farther out where more than 2 % of the pairs are. Of other
        scores the strongest 2 % of the pairs share the last color.
    types
        Whether to show the column ``interaction`` in the lower half; by default where the table has it. Otherwise both
        halves show the score. Without that column nothing is hatched.
    order
        ``"cluster"`` sets genes with similar scores side by side, ``"name"`` sorts them.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes; cells without a pair or a score are blank.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If the column does not hold numbers, the table is empty, or `order` is unknown.

    Examples
    --------
    >>> table = rg.tl.interactions(model)
    >>> ax = rg.pl.interactions(table, "neomorphism", order="name")
    """
    check_save(save)
    types = "interaction" in table if types is None else types
    check_columns(table, ("gene_a", "gene_b", score, *(["interaction"] if types else [])))
    if not pd.api.types.is_numeric_dtype(table[score]):
        raise ValueError(f"score={score!r} does not hold numbers: use a score such as 'synergy'.")
    if table.empty:
        raise ValueError("The table has no pairs.")
    check_choice("order", order, ("cluster", "name"))
    values = _square(table, table[score].to_numpy(dtype=float))
    if order == "cluster":
        values = _clustered(values, ratio=score in _RATIOS)
    genes = values.index
    n = len(genes)
    lower = np.tril(np.ones((n, n), dtype=bool))

    size = float(np.clip(0.26 * n, 4.0, 13.0))
    ax = axes_or_new(ax, (size + (1.7 if types else 1.1), size))
    shown = np.ma.masked_invalid(values.to_numpy())
    # of an equal aspect the layout would not know the width of the legend beside it
    image = ax.imshow(np.ma.masked_where(lower, shown) if types else shown, aspect="auto", **_colors(shown, score))
    _draw_bar(ax, image, score)
    if types:
        _draw_types(ax, table, genes)
    unknown = None
    if "interaction" in table:
        unknown = (table["interaction"].astype(str) == _UNKNOWN).to_numpy()
        _hatch(ax, _square(table, unknown.astype(float)).loc[genes, genes].to_numpy() == 1.0)
    if "measured" in table:
        measured = _square(table, table["measured"].astype(float).to_numpy()).loc[genes, genes].to_numpy() == 1.0
        y, x = np.nonzero(measured & ~lower if types else measured)
        side = float(np.clip(0.16 * 72 * size / n, 2.2, 5.0))
        if len(y):
            ax.scatter(x, y, side**2, color="black", linewidths=0.4, edgecolors="white", label="measured")
    _draw_legend(ax, table if types else None, hatched=unknown is not None and bool(unknown.any()))
    _name_genes(ax, genes, size)
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _square(table: pd.DataFrame, values: Floats) -> pd.DataFrame:
    """Symmetric genes x genes, NaN where there is no pair."""
    genes = pd.Index(sorted({*table["gene_a"], *table["gene_b"]}))
    first, second = genes.get_indexer(table["gene_a"]), genes.get_indexer(table["gene_b"])
    square = np.full((len(genes), len(genes)), np.nan)
    square[first, second] = square[second, first] = values
    return pd.DataFrame(square, genes, genes)


def _clustered(values: pd.DataFrame, *, ratio: bool) -> pd.DataFrame:
    """Set genes of similar scores side by side; pairs without a score count as typical ones."""
    x = np.log(values.where(values > 0)) if ratio else values
    typical = float(np.nanmedian(x)) if np.isfinite(x.to_numpy()).any() else 0.0
    leaves = similar_side_by_side(x.fillna(typical).to_numpy())
    return values.iloc[leaves, leaves]


def _colors(values: np.ma.MaskedArray, score: str) -> Style:
    """Color map and its limits."""
    found = values.compressed()
    if score in _RATIOS:
        found = found[found > 0]
        strongest = np.quantile(np.abs(np.log(found)), 0.98) if len(found) else 0.0
        # the same small departures must not look strong in one screen and weak in another
        limit = next((end for end in _RATIO_ENDS if np.log(end) >= strongest - 1e-9), float(np.exp(strongest)))
        return {"cmap": "RdBu_r", "norm": LogNorm(1 / limit, limit)}
    low, high = (found.min(), np.quantile(found, 0.98)) if len(found) else (0.0, 1.0)
    return {"cmap": "cividis", "norm": Normalize(low, max(high, low + 1e-9))}


def _draw_bar(ax: Axes, image: AxesImage, score: str) -> None:
    """Draw the color bar, of ratios with both ends and 1 as ticks."""
    bar = color_bar_beside(ax, image, _BAR_LABELS.get(score, score.replace("_", " ")), (1.04, 0.0, 0.03, 0.5))
    if score in _RATIOS:
        low, high = image.get_clim()
        ticks = [low, 1.0, high]
        bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.set_yticklabels([f"{tick:.2g}" for tick in ticks])


def _draw_types(ax: Axes, table: pd.DataFrame, genes: pd.Index) -> None:
    """Color the lower half by the type of the interaction."""
    unknown = sorted(set(table["interaction"].astype(str)) - set(_TYPES))
    if unknown:
        raise ValueError(f"The interaction {unknown[0]!r} is none of {list(_TYPES)}.")
    names = list(_TYPES)
    codes = table["interaction"].astype(str).map(names.index).to_numpy(dtype=float)
    square = _square(table, codes).loc[genes, genes].to_numpy()
    upper = np.triu(np.ones_like(square, dtype=bool))
    colors: Style = {"cmap": ListedColormap(list(_TYPES.values())), "norm": Normalize(-0.5, len(names) - 0.5)}
    shown = np.ma.masked_where(upper, np.ma.masked_invalid(square))
    ax.imshow(shown, interpolation="nearest", aspect="auto", **colors)


def _hatch(ax: Axes, where: npt.NDArray[np.bool_]) -> None:
    """Hatch squares of the map."""
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    squares = [corners + place for place in np.argwhere(where)[:, ::-1]]  # column, then row
    if squares:
        ax.add_collection(PolyCollection(squares, facecolors="none", **_HATCH), autolim=False)


def _draw_legend(ax: Axes, table: pd.DataFrame | None, *, hatched: bool) -> None:
    """Explain the types that occur, with their numbers, the hatching, and the dot of measured pairs."""
    handles, _ = ax.get_legend_handles_labels()
    if table is not None:
        counts = table["interaction"].astype(str).value_counts()
        plain: Style = {"edgecolor": GRAY, "linewidth": 0.5}
        handles = [
            Patch(facecolor=color, label=f"{name} ({counts[name]})", **(_HATCH if name == _UNKNOWN else plain))
            for name, color in _TYPES.items()
            if name in counts
        ] + handles
    elif hatched:
        handles = [Patch(facecolor="white", label=_UNKNOWN, **_HATCH), *handles]
    if handles:
        legend_beside(ax, handles, fontsize=8)


def _name_genes(ax: Axes, genes: pd.Index, size: float) -> None:
    """Name the genes, or say how many there are, and separate few of them by white lines."""
    n = len(genes)
    if n <= _MAX_NAMES:
        ax.set(xlabel="gene", ylabel="gene")
        name_squares(ax, genes, genes, fontsize=float(np.clip(0.72 * 72 * size / n, 4.0, 8.0)))
    else:
        ax.set(xticks=[], yticks=[], xlabel=f"{n} genes", ylabel=f"{n} genes")
    for k in range(1, n) if n <= 40 else ():
        ax.axhline(k - 0.5, color="white", linewidth=0.5)
        ax.axvline(k - 0.5, color="white", linewidth=0.5)
