"""What all plots share: colors, axes to draw on, and what happens to the figure in the end."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure

from raptorgraph._files import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from matplotlib.backend_bases import RendererBase
    from matplotlib.gridspec import GridSpecBase

BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#7F7F7F"  # told apart by color-blind readers (Okabe and Ito)
LIGHT = "#D9D9D9"
# Okabe and Ito's colors, the yellow last, since it is faint on white
PALETTE = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", ORANGE, "#000000", "#F0E442")
SCALE = "log-normalized"  # the expression scale, as axes name it

AxesArray = npt.NDArray[Any]  # of Axes
Floats = npt.NDArray[np.float64]
Drawn = TypeVar("Drawn", Axes, AxesArray)


def check_save(save: str | PathLike[str] | None) -> None:
    """Raise, before any work is done, the error that saving the figure to this file would raise after it."""
    if save is None:
        return
    path, given = Path(save), f"save={fspath(save)!r}"
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{given}: the folder {str(path.parent)!r} does not exist; make it first.")
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in {"", *known}:
        raise ValueError(f"{given}: {path.suffix!r} is no picture format; use one of {sorted(known)}.")


def check_columns(table: pd.DataFrame, names: Iterable[str]) -> None:
    """KeyError where the table lacks a column; TypeError for what is no table, such as the model."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{type(table).__name__} is no table: give that of the function of this name in rg.tl.")
    for name in names:
        if name not in table:
            raise KeyError(f"{name!r} is not a column of the table, which has {list(table.columns)}.")


def new_figure(size: tuple[float, float]) -> Figure:
    """Make a figure of this size in inches, which pyplot knows and can show."""
    import matplotlib.pyplot as plt  # here, since it starts a backend

    return plt.figure(figsize=size, layout="constrained")


class BeforeDrawing(Artist):
    """An artist that draws nothing, but calls a function right before all other artists are drawn."""

    def __init__(self, function: Callable[[RendererBase], None]) -> None:
        super().__init__()
        self._function = function
        self.set_zorder(-1)
        self.set_in_layout(False)

    def draw(self, renderer: RendererBase) -> None:
        """Call the function."""
        self._function(renderer)


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Give back the axes, or those of a new figure of this size in inches."""
    return new_figure(size).subplots() if ax is None else ax


def panels(
    ax: Axes | None, size: tuple[float, float], n: int, *, n_columns: int | None = None, share: bool = False
) -> AxesArray:
    """Make `n` panels in a new figure of this size in inches, or in the place of the given axes, which are removed.

    Panels fill rows of `n_columns`, by default all in one row, and `share` their limits or not.
    """
    n_columns = n_columns or n
    n_rows = -(-n // n_columns)
    if ax is None:
        grid: GridSpecBase = new_figure(size).add_gridspec(n_rows, n_columns)
    elif (place := ax.get_subplotspec()) is not None:
        grid = place.subgridspec(n_rows, n_columns)
    else:
        box = ax.get_position()
        sides = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
        grid = ax.figure.add_gridspec(n_rows, n_columns, **sides)
    if ax is not None:
        ax.remove()
    axes: AxesArray = grid.subplots(squeeze=False, sharex=share, sharey=share).ravel()
    for spare in axes[n:]:
        spare.remove()
    return axes[:n]


def finish(
    drawn: Drawn, *, show: bool | None, save: str | PathLike[str] | None, return_fig: bool = False
) -> Drawn | Figure:
    """Save and show the figure of these axes as asked; give back the axes or the whole figure."""
    figure = (drawn if isinstance(drawn, Axes) else drawn.flat[0]).figure
    if isinstance(figure, SubFigure):
        figure = figure.figure  # the whole one
    if save is not None:
        write_figure(figure, save, bbox_inches="tight")
    if show:
        import matplotlib.pyplot as plt

        plt.show()
    return figure if return_fig else drawn


def write_figure(figure: Figure, path: str | PathLike[str], **options: Any) -> None:
    """Write a figure to a file, with 150 dots an inch; without an ending of its name it gets that of matplotlib."""
    path = Path(path)
    with replaced(path if path.suffix else path.with_suffix(f".{mpl.rcParams['savefig.format']}")) as part:
        figure.savefig(part, dpi=150, **options)


def ink(color: str) -> str:
    """Black or white, whichever reads better on this color."""
    red, green, blue = to_rgb(color)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
