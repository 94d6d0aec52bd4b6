"""What all plots share: colors, axes to draw on, and what happens to the figure in the end."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure

BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#7F7F7F"  # told apart by color-blind readers (Okabe and Ito)
LIGHT = "#D9D9D9"
# Okabe and Ito's colors, the yellow last, since it is faint on white
PALETTE = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", ORANGE, "#000000", "#F0E442")
SCALE = "log-normalized"  # the expression scale, as axes name it

Drawn = TypeVar("Drawn", Axes, np.ndarray)


def check_save(save: str | PathLike | None) -> None:
    """Fail before any work where the file could not be written after it."""
    if save is None:
        return
    path, given = Path(save), f"save={fspath(save)!r}"
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{given}: the folder {str(path.parent)!r} does not exist; make it first.")
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in {"", *known}:
        raise ValueError(f"{given}: {path.suffix!r} is no picture format; use one of {sorted(known)}.")


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure of this size in inches, which pyplot knows of and can show."""
    import matplotlib.pyplot as plt  # here, since it starts a backend

    return plt.figure(figsize=size, layout="constrained")


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The given axes, or those of a new figure of this size in inches."""
    return new_figure(size).subplots() if ax is None else ax


def panels(
    ax: Axes | None, size: tuple[float, float], n_rows: int = 1, n_columns: int = 1, *, n: int | None = None, **options
) -> np.ndarray:
    """Panels in a new figure of this size, or in the place of the given axes, which are taken away.

    Parameters
    ----------
    ax
        Axes to replace.
    size
        Width and height of a new figure in inches.
    n_rows, n_columns
        Of the grid.
    n
        Number of panels, row by row; default all of the grid.
    **options
        Of ``GridSpec.subplots`` (``sharex``, ``sharey``) and of the grid (``width_ratios``, ``height_ratios``).

    Returns
    -------
    numpy.ndarray
        The `n` axes.
    """
    ratios = {key: options.pop(key) for key in ("width_ratios", "height_ratios") if key in options}
    if ax is None:
        grid = new_figure(size).add_gridspec(n_rows, n_columns, **ratios)
    elif (place := ax.get_subplotspec()) is not None:
        grid = place.subgridspec(n_rows, n_columns, **ratios)
    else:
        box = ax.get_position()
        sides = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
        grid = ax.figure.add_gridspec(n_rows, n_columns, **ratios, **sides)
    if ax is not None:
        ax.remove()
    axes = grid.subplots(squeeze=False, **options).ravel()
    for spare in axes[n:] if n is not None else ():
        spare.remove()
    return axes[:n]


def finish(drawn: Drawn, *, show: bool | None, save: str | PathLike | None, return_fig: bool = False) -> Drawn | Figure:
    """Save and show the figure of these axes as asked; give back the axes or the whole figure."""
    figure = np.ravel(drawn)[0].figure
    if isinstance(figure, SubFigure):
        figure = figure.figure  # the whole one
    if save is not None:
        figure.savefig(save, dpi=150, bbox_inches="tight")
    if show:
        import matplotlib.pyplot as plt

        plt.show()
    return figure if return_fig else drawn


def ink(color: str) -> str:
    """Black or white, whichever reads better on this color."""
    red, green, blue = to_rgb(color)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
