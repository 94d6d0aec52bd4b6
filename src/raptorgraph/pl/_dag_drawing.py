"""Boxes, curves and legends of a graph whose places are known; everything scales with the axes."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from raptorgraph.inference._graph_modules import ORDERED
from raptorgraph.pl._figure import BLUE, GRAY, LIGHT, ORANGE, BeforeDrawing, Floats, ink
from raptorgraph.pl._layered import Edge, Layout, Node, layered_layout
from raptorgraph.pl._set_names import clean_set_names, readable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import networkx as nx
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.typing import LineStyleType

    from raptorgraph.pl._marks import Style

FONT, SMALL = 8.0, 6.0  # points at the natural size
_PAD = 3.5
_LINE = 1.25  # line height over font size
_WIDTHS = (0.7, 3.2)
_MAX_SIZE = (18.0, 13.0)  # inches
_MAX_SCALE = 1.5
_FEW_EDGES = 12
# tints of the palette light enough for black letters
_FILLS = ("#8CC4E8", "#F2C879", "#7FD1B9", "#E6BCD3", "#F0A67A", "#C9B458", "#B8A9D9")
_STYLES: tuple[tuple[float, LineStyleType, float, str], ...] = (
    (0.9, "-", 0.9, "frequency ≥ 0.9"),
    (0.5, (0, (4, 1.5)), 0.75, "frequency 0.5 to 0.9"),
    (-np.inf, (0, (1, 1.5)), 0.5, "frequency < 0.5"),
)


Scaled = tuple[Text | Patch, float]
"""An artist, and its font size or line width in points at the natural size."""


class Fills(NamedTuple):
    """Color of each node that has one, and how the legend explains the colors."""

    of_node: Mapping[str, str]
    categories: Mapping[str, str]
    mappable: ScalarMappable | None
    name: str


def node_labels(network: nx.DiGraph, label: pd.Series | pd.DataFrame | None) -> dict[str, str]:
    """Second line of each node, wrapped; empty where there is none."""
    texts = dict.fromkeys(network, "")
    if label is not None:
        for node, value in _column(label, "label").reindex(list(network)).items():
            if not _is_missing(value):
                texts[node] = "\n".join(textwrap.wrap(readable(str(value)), 18, max_lines=2, placeholder="…"))
    return texts


def node_colors(network: nx.DiGraph, color: pd.Series | pd.DataFrame | None) -> Fills:
    """Colors of the nodes by numbers or by categories."""
    if color is None:
        return Fills({}, {}, None, "")
    series = _column(color, "color")
    name = str(series.name or "")
    values = series.reindex(list(network))
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        values = values.astype(float)
        if values.isna().all():
            return Fills({}, {}, None, name)
        mappable = ScalarMappable(Normalize(values.min(), values.max()), "viridis")
        return Fills({n: to_hex(tuple(mappable.to_rgba(v))) for n, v in values.dropna().items()}, {}, mappable, name)
    values = values[[not _is_missing(value) for value in values]].astype(str)
    # the most frequent ones first, ties by name
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    palette = dict(zip(counts.index, _FILLS, strict=False))
    categories = dict(zip(clean_set_names(palette), palette.values(), strict=True))
    if len(counts) > len(_FILLS):
        categories[f"{len(counts) - len(_FILLS)} others"] = LIGHT
    return Fills({node: palette.get(value, LIGHT) for node, value in values.items()}, categories, None, name)


def _column(values: pd.Series | pd.DataFrame, argument: str) -> pd.Series:
    if isinstance(values, pd.DataFrame):
        if "label" not in values:
            raise KeyError(f"The table given as {argument} has no column 'label', only {list(values.columns)}.")
        if "latent" in values:
            values = values.set_index("latent")
        values = values["label"]
    if not isinstance(values, pd.Series):
        raise TypeError(f"{argument} must be a series or a table indexed by latent, not {type(values).__name__}.")
    if not values.index.is_unique:
        raise ValueError(f"{argument} names {values.index[values.index.duplicated()][0]!r} twice.")
    return values


def _is_missing(value: object) -> bool:
    return value is None or value == "" or (not isinstance(value, str) and bool(pd.isna(value)))


def figure_size(network: nx.DiGraph, texts: Mapping[str, str]) -> tuple[Layout, tuple[float, float]]:
    """Places of all nodes, in points at the natural size, and inches in which they are legible."""
    sizes = {node: _box(str(node), texts[node]) for node in network}
    layout = layered_layout(network, sizes)
    width, height = np.clip([layout.width / 72 + 0.4, layout.height / 72 + 1.0], (4.5, 3.0), _MAX_SIZE)
    return layout, (float(width), float(height))


def _box(name: str, text: str) -> tuple[float, float]:
    """Width and height of a node's box in points."""
    lines = text.split("\n") if text else []
    widths = [_width(name, FONT, "bold"), *(_width(line, SMALL, "normal") for line in lines)]
    return max(widths) + 2 * _PAD, _LINE * (FONT + SMALL * len(lines)) + _PAD


def _width(text: str, size: float, weight: str) -> float:
    """Width of a line in points, without a renderer."""
    return float(TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight)).get_extents().width)


def draw_graph(
    ax: Axes,
    network: nx.DiGraph,
    layout: Layout,
    texts: Mapping[str, str],
    fills: Fills,
    *,
    bold: set[str],
    weights: bool | None,
    remark: str | None,
) -> None:
    """Draw edges, nodes and legends on empty axes."""
    ax.set_axis_off()
    ax.set_aspect("equal")
    if not network.number_of_edges():
        ax.text(0.5, 0.9, "no edges", ha="center", va="center", transform=ax.transAxes, fontsize=14)
    if not network.number_of_nodes():
        return
    _set_limits(ax, layout)
    scaled: list[Scaled] = []
    edges = list(network.edges(data=True))
    largest = max((abs(data["weight"]) for *_, data in edges), default=1.0)
    for source, target, data in sorted(edges, key=lambda edge: abs(edge[2]["weight"])):  # the strong ones on top
        scaled += _draw_edge(ax, layout.routes[source, target], data, largest)
    if weights or (weights is None and len(edges) <= _FEW_EDGES):
        boxes = [(np.array(layout.positions[node]), np.array(_box(str(node), texts[node]))) for node in network]
        scaled += _draw_weights(ax, layout.routes, {(a, b): data["weight"] for a, b, data in edges}, boxes)
    for node in network:
        scaled += _draw_node(ax, str(node), layout.positions[node], texts[node], fills.of_node.get(node), node in bold)
    ax.add_artist(BeforeDrawing(partial(_scale, ax, scaled)))
    _draw_legends(ax, edges, largest, fills, remark)


def _set_limits(ax: Axes, layout: Layout) -> None:
    """Limits around the layout, wide enough that a small graph is not blown up."""
    margin = 6.0
    box = ax.get_window_extent()
    room = np.array([box.width, box.height]) * 72 / ax.figure.dpi / _MAX_SCALE
    size = np.array([layout.width, layout.height])
    half = (size / 2 + margin) * max(1.0, float((room / (size + 2 * margin)).min()))
    ax.set_xlim(size[0] / 2 - half[0], size[0] / 2 + half[0])
    ax.set_ylim(size[1] / 2 - half[1], size[1] / 2 + half[1])


def _scale(ax: Axes, scaled: list[Scaled], renderer: RendererBase) -> None:
    """Set font sizes and line widths by the scale of the axes."""
    (x0, _), (x1, _) = ax.transData.transform([(0, 0), (1, 0)])
    scale = (x1 - x0) / float(np.asarray(renderer.points_to_pixels(1.0)))
    for artist, size in scaled:
        if isinstance(artist, Text):
            artist.set_fontsize(max(size * scale, 1.0))
        else:
            artist.set_linewidth(size * scale)


def has_direction(data: Mapping[str, float]) -> bool:
    """Whether the data say which way an edge runs, or nothing is known of that."""
    return not data.get("support", np.nan) < ORDERED


def _draw_edge(ax: Axes, route: Floats, data: Mapping[str, float], largest: float) -> list[Scaled]:
    """Draw an edge that ends in an arrow if its weight is positive, else in a bar; as a line without a direction."""
    weight, frequency = data["weight"], data["frequency"]
    color = BLUE if weight > 0 else ORANGE
    width = _line_width(weight, largest)
    _, style, alpha, _ = _STYLES[0] if np.isnan(frequency) else next(s for s in _STYLES if frequency >= s[0])
    x, y = route[-1]
    head = 4.0 + 1.2 * width
    directed = has_direction(data)
    end = y + (0.0 if not directed else head if weight > 0 else 1.0 + width / 2)
    stroke: Style = {"facecolor": "none", "linestyle": style, "alpha": alpha, "capstyle": "butt", "zorder": 1}
    line = PathPatch(Path(_curve(np.vstack([route[:-1], [x, end]]))), edgecolor=color, **stroke)
    ax.add_artist(line)
    scaled: list[Scaled] = [(line, width)]
    if not directed:
        return scaled
    if weight > 0:
        corners = [(x, y), (x - 0.42 * head, y + head), (x + 0.42 * head, y + head)]
        tip: Patch = Polygon(corners, color=color, linewidth=0, zorder=1.5)
    else:
        half = 2.4 + 0.7 * width
        tip = PathPatch(Path([(x - half, end), (x + half, end)]), edgecolor=color, zorder=1.5, capstyle="butt")
        scaled.append((tip, max(width, 1.6)))
    ax.add_artist(tip)
    return scaled


def _line_width(weight: float, largest: float) -> float:
    return _WIDTHS[0] + (_WIDTHS[1] - _WIDTHS[0]) * abs(weight) / largest


def _curve(route: Floats) -> Floats:
    """Points of a smooth curve that leaves and arrives vertically."""
    x, y = route[:, 0], route[:, 1]
    slopes = np.zeros(len(x))
    if len(x) > 2:
        slopes[1:-1] = PchipInterpolator(-y, x).derivative()(-y)[1:-1]
    t = np.linspace(-y[0], -y[-1], 16 * len(x))
    return np.column_stack([CubicHermiteSpline(-y, x, slopes)(t), -t])


def _draw_weights(
    ax: Axes, routes: Mapping[Edge, Floats], weights: Mapping[Edge, float], taken: list[tuple[Floats, Floats]]
) -> list[Scaled]:
    """Write each weight on its edge, at a place that neither another one nor a node has; without one it is left out.

    `taken` are the middles and sizes of the nodes' boxes.
    """
    scaled: list[Scaled] = []
    style: Style = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    for edge, weight in weights.items():
        text, curve = f"{weight:.2g}", _curve(routes[edge])
        size = np.array([_width(text, SMALL, "normal") + 2.0, SMALL + 2.0])
        # before the next layer, since a node may stand beside the middle of a long edge
        y0, y1 = routes[edge][:2, 1]
        places = [np.abs(curve[:, 1] - (y0 + part * (y1 - y0))).argmin() for part in (0.5, 0.3, 0.65, 0.15)]
        places += [int(part * (len(curve) - 1)) for part in (0.5, 0.35, 0.65, 0.8)]
        free = [
            at
            for at in curve[places]
            if not any((np.abs(at - other) < (size + room) / 2).all() for other, room in taken)
        ]
        if not free:
            continue
        at = free[0]
        taken = [*taken, (at, size)]
        x, y = at
        label = ax.text(x, y, text, fontsize=SMALL, ha="center", va="center", zorder=2, bbox=style, clip_on=True)
        scaled.append((label, SMALL))
    return scaled


def _draw_node(
    ax: Axes, name: str, place: tuple[float, float], text: str, fill: str | None, bold: bool
) -> list[Scaled]:
    """Draw the box of a node with its name and its second line."""
    width, height = _box(name, text)
    x, y = place
    frame: Style = {"facecolor": fill or "white", "edgecolor": "black" if bold else GRAY, "zorder": 3}
    corner = (x - width / 2, y - height / 2)
    box = FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=3", **frame)
    ax.add_artist(box)
    lines = text.count("\n") + 1 if text else 0
    middle, lower = y + _LINE * SMALL * lines / 2, y - _LINE * FONT / 2
    style: Style = {"ha": "center", "zorder": 4, "color": ink(fill or "white")}
    weight = "bold" if bold else "normal"
    upper = ax.text(x, middle, name, fontsize=FONT, fontweight=weight, va="center_baseline", **style)
    scaled: list[Scaled] = [(box, 1.6 if bold else 0.8), (upper, FONT)]
    if text:
        scaled.append((ax.text(x, lower, text, fontsize=SMALL, linespacing=1.15, va="center", **style), SMALL))
    return scaled


def _draw_legends(
    ax: Axes, edges: list[tuple[Node, Node, dict[str, float]]], largest: float, fills: Fills, remark: str | None
) -> None:
    """Explain signs, widths, styles and colors of the graph."""
    weights = [data["weight"] for *_, data in edges]
    signs = [
        Line2D([], [], color=color, marker=shape, markersize=4, markeredgewidth=2, label=label)
        for label, sign, color, shape in (("positive", 1, BLUE, "v"), ("negative", -1, ORANGE, "_"))
        if any(sign * weight > 0 for weight in weights)
    ]
    if not all(has_direction(data) for *_, data in edges):
        signs.append(Line2D([], [], color=GRAY, label="direction not known"))
    widths = [
        Line2D([], [], color=GRAY, linewidth=_line_width(value, largest), label=f"|weight| {value:.2g}")
        for value in (dict.fromkeys((min(map(abs, weights)), largest)) if edges else ())
    ]
    styles = [
        Line2D([], [], color=GRAY, linestyle=style, alpha=alpha, linewidth=1.5, label=label)
        for _, style, alpha, label in (_STYLES if any(not np.isnan(data["frequency"]) for *_, data in edges) else ())
    ]
    groups = [group for group in (signs, widths, styles) if group]
    n_rows = max((len(group) for group in groups), default=0)
    # each group in a column of its own
    handles = [h for group in groups for h in (group + [Line2D([], [], linewidth=0, label=" ")] * n_rows)[:n_rows]]
    plain: Style = {"frameon": False, "fontsize": 7, "title_fontsize": 7, "alignment": "left", "loc": "upper left"}
    if handles or remark:
        below: Style = {"bbox_to_anchor": (0.0, 0.0), "ncols": max(1, len(groups)), "handlelength": 2.2}
        legend = ax.legend(handles=handles, title=remark, **below, **plain)
        if fills.categories:  # whose legend would take its place
            ax.add_artist(legend).set_clip_on(False)
    if fills.categories:
        edge: Style = {"edgecolor": GRAY, "linewidth": 0.5}
        patches = [Patch(facecolor=fill, label=text, **edge) for text, fill in fills.categories.items()]
        ax.legend(handles=patches, bbox_to_anchor=(1.0, 1.0), title=fills.name or None, **plain)
    if fills.mappable is not None:
        ax.figure.colorbar(fills.mappable, ax=ax, shrink=0.5, aspect=25, label=fills.name or "value")
