"""What the guides of each perturbation do, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.pl._figure import (
    BLUE,
    GRAY,
    LIGHT,
    ORANGE,
    AxesArray,
    Floats,
    check_columns,
    check_save,
    finish,
    panels,
)
from raptorgraph.pl._marks import legend_beside, marker, vertical_grid
from raptorgraph.tl._guides import guides as guides_of

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel

_COLUMNS = (
    "perturbation", "guide", "n_cells", "share", "share_low", "share_high", "size", "size_low", "size_high", "q",
    "difference", "disagrees",
)  # fmt: skip
_SIZES = (-1.0, 3.0)  # of an effect, beyond which it is drawn at the border
_ROW = 0.165  # inches
_GAP = 0.6  # rows between two perturbations
_LETTERS = 28  # of a name


@docs.dedent
def guides(
    data: RaptorGraphModel | pd.DataFrame,
    *,
    n: int = 12,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> AxesArray | Figure:
    """Draw the effect, the share of responders and the cells of each guide, those that disagree in orange.

    Parameters
    ----------
    data
        Table of :func:`raptorgraph.tl.guides`, or a trained model that was set up with a `guide_key`, which is asked
        for that table.
    n
        Largest number of perturbations: first those with guides that disagree, then the others, in both parts the
        smallest q-value of a guide first.
    ax
        Axes whose place the panels take; default a new figure.
    %(figure)s

    Returns
    -------
    numpy.ndarray or matplotlib.figure.Figure
        The axes of three panels with a row for each guide, below the name of its perturbation: size of its effect along
        that of all guides (1 is their mean, dashed; 0 no effect), share of cells that responded, both with intervals,
        and the number of cells. A size beyond -1 or 3 stands at the border, as a triangle. What is not known, or was
        not compared, is left out or gray.

    Raises
    ------
    KeyError
        If a column is not in the table.
    TypeError
        If `data` is neither a table nor a model.
    ValueError
        If the table is empty, `n` is not positive, or the model knows no column of guides.

    Examples
    --------
    >>> number = np.arange(adata.n_obs) % 2  # in place of what your screen has
    >>> adata.obs["guide"] = adata.obs["perturbation"].astype(str) + np.where(number, "_g1", "_g2")
    >>> table = rg.tl.guides(model, "guide", n_resamples=50)
    >>> axes = rg.pl.guides(table, n=5)
    >>> axes[0].get_title("left")
    '5 of 10 perturbations'
    """
    check_save(save)
    check_integer("n", n, 1, hint=", the number of perturbations to show")
    if isinstance(data, pd.DataFrame):
        table = data
    elif hasattr(data, "get_response_probability"):
        table = guides_of(data)
    else:
        raise TypeError(f"{type(data).__name__} is neither a trained model nor the table of rg.tl.guides.")
    check_columns(table, _COLUMNS)
    if table.empty:
        raise ValueError("The table has no guides.")
    known = table["perturbation"].nunique()
    shown = _first(table, n)
    labels = list(dict.fromkeys(shown["perturbation"]))
    heads, y, bottom = _rows(shown, labels)

    axes = panels(ax, (8.2, _ROW * bottom + 1.5), 3)
    colors = np.where(shown["disagrees"], ORANGE, np.where(shown["q"].notna(), BLUE, GRAY))
    _draw_sizes(axes[0], shown, y, colors)
    share, low, high = (100 * shown[f"share{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
    _draw_with_interval(axes[1], share, low, high, y, colors)
    axes[1].set(xlim=(-4, 104), xlabel="responded (% of cells)")
    axes[2].barh(y, shown["n_cells"], height=0.65, color=colors, alpha=0.8, linewidth=0)
    axes[2].set_xlabel("cells")
    _name_rows(axes, shown, labels, heads, y, bottom)
    axes[0].set_title(f"{len(labels):,} of {known:,} perturbations", fontsize=9, loc="left")
    _draw_legend(axes[2], shown)
    return finish(axes, show=show, save=save, return_fig=return_fig)


def _first(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Rows of the `n` perturbations to draw: those with guides that disagree, then the others, by their q-values."""
    label = table["perturbation"]
    apart = table["disagrees"].groupby(label, sort=False).any()
    q = table["q"].where(table["disagrees"] | ~label.map(apart)).groupby(label, sort=False).min()
    order = pd.DataFrame({"agree": ~apart, "q": q}).sort_values(["agree", "q"], kind="stable")
    first = list(order.index[:n])
    place = {label: k for k, label in enumerate(first)}
    shown = table[table["perturbation"].isin(first)]
    return shown.sort_values("perturbation", key=lambda labels: labels.map(place), kind="stable")


def _rows(shown: pd.DataFrame, labels: list[str]) -> tuple[Floats, Floats, float]:
    """Places of the perturbations' names and of the guides, from top to bottom, and where they end."""
    sizes = shown.groupby("perturbation", sort=False).size().loc[labels].to_numpy()
    heads = np.concatenate([[0.0], np.cumsum(sizes + 1 + _GAP)])
    y = np.concatenate([head + 1 + np.arange(size) for head, size in zip(heads, sizes, strict=False)])
    return heads[:-1], y, float(heads[-1] - _GAP)


def _draw_sizes(ax: Axes, shown: pd.DataFrame, y: Floats, colors: np.ndarray) -> None:
    """Draw the sizes of the effects with their intervals; what lies far outside stands at the border."""
    size, low, high = (shown[f"size{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
    ends = min(np.nanmin([*low, -0.2]), 0.0), max(np.nanmax([*high, 1.4]), 0.0)
    ends = max(ends[0], _SIZES[0]), min(ends[1], _SIZES[1])
    margin = 0.04 * (ends[1] - ends[0])
    ax.axvline(0.0, color=GRAY, linewidth=0.8)
    ax.axvline(1.0, color=GRAY, linewidth=0.8, linestyle="--")
    _draw_with_interval(ax, np.where((size < ends[0]) | (size > ends[1]), np.nan, size), low, high, y, colors)
    for beyond, at, shape in ((size < ends[0], ends[0], "<"), (size > ends[1], ends[1], ">")):
        ax.scatter(np.full(beyond.sum(), at), y[beyond], s=22, marker=shape, color=colors[beyond], zorder=3)
    ax.set(xlim=(ends[0] - margin, ends[1] + margin), xlabel="size of effect (1 = mean)")


def _draw_with_interval(ax: Axes, x: Floats, low: Floats, high: Floats, y: Floats, colors: np.ndarray) -> None:
    ax.hlines(y, low, high, color=colors, linewidth=1.1, zorder=2)
    ax.scatter(x, y, s=18, color=colors, linewidths=0, zorder=3)


def _name_rows(
    axes: AxesArray, shown: pd.DataFrame, labels: list[str], heads: Floats, y: Floats, bottom: float
) -> None:
    """Name the perturbations in bold and their guides beside the first panel, and divide them by lines in all."""
    names = [_short(label) for label in labels] + [_short(name) for name in shown["guide"]]
    for k, ax in enumerate(axes):
        ax.set_yticks([*heads, *y], names if k == 0 else [""] * len(names), fontsize=7)
        ax.set_ylim(bottom - 0.2, -0.7)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelsize=7)
        ax.xaxis.label.set_fontsize(8)
        for head in heads[1:]:
            ax.axhline(head - 0.5 - _GAP / 2, color=LIGHT, linewidth=0.6, zorder=0)
        vertical_grid(ax)
        ax.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_ylabel("guide, below its perturbation", fontsize=8)
    ticks = axes[0].get_yticklabels()
    for tick in ticks[: len(labels)]:
        tick.set_fontweight("bold")
    for tick, apart in zip(ticks[len(labels) :], shown["disagrees"], strict=True):
        tick.set_color(ORANGE if apart else "black")


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"


def _draw_legend(ax: Axes, shown: pd.DataFrame) -> None:
    """Explain the colors that occur."""
    tested = shown["q"].notna()
    kinds = (
        ("disagrees with the\nother guides", ORANGE, shown["disagrees"]),
        ("does not", BLUE, tested & ~shown["disagrees"]),
        ("not compared", GRAY, ~tested & ~shown["disagrees"]),
    )
    legend_beside(ax, [marker(text, color) for text, color, found in kinds if found.any()])
