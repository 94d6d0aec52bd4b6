"""Legends, color bars and grids, drawn alike in all plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.lines import Line2D

from raptorgraph.pl._figure import LIGHT, Floats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar


Style = dict[str, Any]
"""Properties that several calls of matplotlib take by keyword."""


_EXTEND: tuple[Literal["neither", "min", "max", "both"], ...] = ("neither", "min", "max", "both")


def marker(label: str, color: str, *, size: float = 5.0, shape: str = "o", **style: Any) -> Line2D:
    """Make a marker for a legend."""
    return Line2D([], [], linestyle="", marker=shape, markersize=size, color=color, label=label, **style)


def legend_beside(
    ax: Axes,
    handles: Sequence[Artist] | None = None,
    *,
    fontsize: float = 7.0,
    title: str | None = None,
    gap: float = 0.0,
) -> None:
    """Set a legend right of the axes, a gap in units of these away; by default of everything that has a label."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    place: Style = {"loc": "upper left", "bbox_to_anchor": (1.0 + gap, 1.0), "frameon": False}
    ax.legend(handles=handles, title=title, fontsize=fontsize, **place)


def color_bar_beside(
    ax: Axes, mappable: ScalarMappable, label: str, box: tuple[float, float, float, float]
) -> Colorbar:
    """Set a color bar into this box, in units of the axes, with an arrow where values lie beyond its limits."""
    values: Floats = np.ma.asarray(mappable.get_array()).compressed()
    low, high = mappable.get_clim()
    slack = 1e-9 * (high - low)
    extend = _EXTEND[int((values < low - slack).any()) + 2 * int((values > high + slack).any())]
    place = ax.inset_axes(box)
    bar = ax.figure.colorbar(mappable, cax=place, extend=extend)
    bar.set_label(label, fontsize=8)
    place.tick_params(labelsize=7)
    return bar


def vertical_grid(ax: Axes) -> None:
    """Draw faint vertical lines behind everything else."""
    ax.grid(axis="x", color=LIGHT, linewidth=0.5)
    ax.set_axisbelow(True)
