"""Names of points that cover neither each other nor, where it can be helped, the points."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox, BboxBase

from raptorgraph.pl._figure import GRAY, BeforeDrawing, Floats

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase

    from raptorgraph.pl._marks import Style

_DISTANCES = (7.0, 12.0, 18.0, 26.0, 36.0, 48.0, 64.0, 84.0)  # of a name from its point, in points of 1/72 inch
_ANGLES = np.deg2rad(np.arange(0, 360, 30))
_ALONG = np.linspace(0.0, 1.0, 9)[:, None]  # of a segment, where it is looked at
_MARGIN = 1.5  # around a name, in points


def label_points(
    ax: Axes,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    names: Sequence[str],
    *,
    among: npt.ArrayLike | None = None,
    obstacles: Sequence[Artist] = (),
) -> list[Annotation]:
    """Name points of a scatter plot, at places that are found anew whenever the figure is drawn.

    Points come in data coordinates, the most important first. Names cover no obstacle, such as a legend, and as few as
    possible of the points `among` which they stand, shape (n, 2), by default the named ones. A name that finds no free
    place is invisible.
    """
    points = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    style: Style = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 7, "in_layout": False}
    style["arrowprops"] = {"arrowstyle": "-", "color": GRAY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 1}
    labels = [
        ax.annotate(str(name), point, (0, _DISTANCES[0]), **style) for name, point in zip(names, points, strict=True)
    ]
    among = points if among is None else np.asarray(among, dtype=float)
    ax.add_artist(BeforeDrawing(partial(_place, ax, labels, points, among, obstacles)))
    return labels


def _place(
    ax: Axes,
    labels: list[Annotation],
    points: Floats,
    among: Floats,
    obstacles: Sequence[Artist],
    renderer: RendererBase,
) -> None:
    """Place the names one after the other, each where it covers and crosses least."""
    unit = float(np.asarray(renderer.points_to_pixels(1.0)))
    frame = ax.get_window_extent(renderer)
    points, among = (ax.transData.transform(part) for part in (points, among))
    taken: list[BboxBase] = [artist.get_window_extent(renderer) for artist in obstacles]
    lines: list[tuple[Floats, Floats]] = []
    directions = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
    for label, point in zip(labels, points, strict=True):
        label.set_visible(True)
        box = Text.get_window_extent(label, renderer)  # of the words alone, without the line
        half = 0.5 * np.array([box.width, box.height]) + _MARGIN * unit
        # the box begins at this distance from the point, whatever its shape
        reach = np.min(half / np.maximum(np.abs(directions), 1e-9), axis=1)
        shifts = np.concatenate([(reach + d * unit - 4 * unit)[:, None] * directions for d in _DISTANCES])
        best, cost = None, np.inf
        for shift in shifts:
            far = 0.08 * float(np.linalg.norm(shift)) / unit
            if far >= cost:  # a place that is as good is known
                continue
            center = point + shift
            place = Bbox([center - half, center + half])
            if frame.count_contains(place.corners()) < 4 or place.count_overlaps(taken):
                continue
            found = min(place.count_contains(among), 12) + far
            if found >= cost:
                continue
            found += 10.0 * sum(_cross(point, center, *line) or _through(place, *line) for line in lines)
            found += 10.0 * sum(_through(other, point, center) for other in taken)
            if found < cost:
                best, cost = (shift, center, place), found
        label.set_visible(best is not None)
        if best is not None:
            shift, center, place = best
            label.xyann = tuple(shift / unit)
            taken.append(place)
            lines.append((point, center))


def _cross(a: Floats, b: Floats, c: Floats, d: Floats) -> bool:
    """Whether the segments ab and cd cross."""

    def side(p: Floats, q: Floats, r: Floats) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _through(box: BboxBase, a: Floats, b: Floats) -> bool:
    """Whether the segment ab runs through the box."""
    return box.count_contains(a + _ALONG * (b - a)) > 0
