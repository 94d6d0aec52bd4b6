"""Boxes, curves and legends of a graph, in points at its natural size."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon

from raptorgraph.pl._dag_drawing import (
    _FILLS,
    FONT,
    SMALL,
    _curve,
    draw_graph,
    figure_size,
    node_colors,
    node_labels,
)
from raptorgraph.pl._figure import BLUE, LIGHT, ORANGE


def graph_of(edges, nodes=()):
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    for (cause, effect), (weight, frequency) in edges.items():
        graph.add_edge(cause, effect, weight=weight, frequency=frequency)
    return graph


@pytest.fixture
def graph():
    return graph_of({("A", "B"): (0.5, np.nan), ("A", "C"): (-1.0, np.nan)})


def drawn(graph, color=None, label=None, **options):
    texts, fills = node_labels(graph, label), node_colors(graph, color)
    layout, size = figure_size(graph, texts)
    ax = Figure(figsize=size).add_axes((0, 0, 1, 1))
    draw_graph(ax, graph, layout, texts, fills, **{"bold": set(), "weights": False, "remark": None, **options})
    ax.figure.draw_without_rendering()
    return ax, layout


def legends(ax):
    found = [artist for artist in ax.get_children() if type(artist).__name__ == "Legend"]
    return [[text.get_text() for text in legend.get_texts() if text.get_text().strip()] for legend in found]


def test_second_lines_are_wrapped_cleaned_and_left_out_where_missing():
    graph = graph_of({}, "ABCDE")
    label = pd.Series(
        {"A": "HALLMARK_E2F_TARGETS", "B": None, "C": np.nan, "D": "one two three four five six seven eight"}
    )
    assert node_labels(graph, label) == {
        "A": "E2F targets", "B": "", "C": "", "D": "one two three four\nfive six seven…", "E": "",
    }  # fmt: skip
    assert node_labels(graph, None) == dict.fromkeys("ABCDE", "")


def test_the_most_frequent_categories_have_colors_ties_by_name():
    names = [*"aab", *"cdefghij"]
    graph = graph_of({}, [f"n{k}" for k in range(len(names) + 1)])
    fills = node_colors(graph, pd.Series(names, [f"n{k}" for k in range(len(names))], name="program"))
    palette = dict(zip("abcdefg", _FILLS, strict=True))
    assert fills.categories == {**palette, "3 others": LIGHT}
    assert fills.of_node == {f"n{k}": palette.get(name, LIGHT) for k, name in enumerate(names)}
    assert (fills.mappable, fills.name) == (None, "program")


def test_numbers_have_the_colors_of_viridis_between_their_extremes():
    graph = graph_of({}, "ABCD")
    fills = node_colors(graph, pd.Series({"A": 1, "B": 3, "C": 2, "X": 90}, name="size"))
    assert fills.of_node == {"A": "#440154", "B": "#fde725", "C": "#21918c"}
    assert fills.mappable.get_clim() == (1, 3)
    assert fills.categories == {}
    assert node_colors(graph, pd.Series({"A": True, "B": False})).categories.keys() == {"True", "False"}


def test_tables_are_read_by_their_label_and_latent():
    graph = graph_of({}, "AB")
    table = pd.DataFrame({"latent": ["B", "A"], "label": ["x", "y"]})
    assert node_labels(graph, table) == node_labels(graph, table.set_index("latent")) == {"A": "y", "B": "x"}


def test_curves_leave_and_arrive_vertically_through_their_points():
    route = np.array([[0.0, 90.0], [30.0, 60.0], [30.0, 50.0], [-10.0, 0.0]])
    x, y = _curve(route).T
    assert (np.diff(y) < 0).all()
    np.testing.assert_allclose(_curve(route)[[0, -1]], route[[0, -1]])
    np.testing.assert_allclose(np.interp(-route[:, 1], -y, x), route[:, 0], atol=0.3)
    slopes = np.diff(x) / np.diff(y)  # from 0 at the ends, at half a step and one and a half
    np.testing.assert_allclose([slopes[0] / slopes[1], slopes[-1] / slopes[-2]], 1 / 3, atol=0.05)
    # between two points it is the cubic 3 t^2 - 2 t^3
    x, y = _curve(np.array([[0.0, 10.0], [4.0, 0.0]])).T
    t = 1 - y / 10
    np.testing.assert_allclose(x, 4 * (3 * t**2 - 2 * t**3), atol=1e-12)


def test_edges_end_in_an_arrow_or_a_bar_above_their_effect(graph):
    ax, layout = drawn(graph)
    (arrow,) = [patch for patch in ax.patches if isinstance(patch, Polygon)]
    assert to_hex(arrow.get_facecolor()).upper() == BLUE
    np.testing.assert_allclose(arrow.get_xy()[0], layout.routes["A", "B"][-1])
    (bar,) = [patch for patch in ax.patches if isinstance(patch, PathPatch) and len(patch.get_path()) == 2]
    assert to_hex(bar.get_edgecolor()).upper() == ORANGE
    width = 0.7 + 2.5  # of the largest weight
    x, y = layout.routes["A", "C"][-1]
    ends = [[x - 2.4 - 0.7 * width, y + 1 + width / 2], [x + 2.4 + 0.7 * width, y + 1 + width / 2]]
    np.testing.assert_allclose(bar.get_path().vertices, ends)


def test_boxes_hold_their_words_and_the_bold_ones_a_thicker_frame(graph):
    ax, layout = drawn(graph, label=pd.Series({"A": "a second line"}), bold={"B"})
    boxes = dict(zip(graph, [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)], strict=True))
    for name, box in boxes.items():
        middle = box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2
        assert middle == pytest.approx(layout.positions[name])
    assert boxes["A"].get_height() - boxes["B"].get_height() == pytest.approx(1.25 * SMALL)
    assert boxes["B"].get_linewidth() / boxes["C"].get_linewidth() == pytest.approx(2)
    words = {text.get_text(): text for text in ax.texts}
    assert words["A"].get_fontsize() / words["a second line"].get_fontsize() == pytest.approx(FONT / SMALL)
    for text, name in (("A", "A"), ("a second line", "A"), ("B", "B")):
        assert boxes[name].get_window_extent().padded(1).contains(*words[text].get_window_extent().min)
        assert boxes[name].get_window_extent().padded(1).contains(*words[text].get_window_extent().max)


def test_letters_and_lines_have_the_scale_of_the_axes(graph):
    ax, _ = drawn(graph)
    (x0, _), (x1, _) = ax.transData.transform([(0, 0), (1, 0)])
    scale = (x1 - x0) / (ax.figure.dpi / 72)
    assert [text.get_fontsize() for text in ax.texts] == pytest.approx([FONT * scale] * 3)
    ax.figure.set_size_inches(2 * ax.figure.get_size_inches())
    ax.figure.draw_without_rendering()
    assert [text.get_fontsize() for text in ax.texts] == pytest.approx([2 * FONT * scale] * 3)


def test_legend_has_what_occurs(graph):
    ax, _ = drawn(graph, remark="the 2 strongest of 9 edges")
    assert legends(ax) == [["positive", "negative", "|weight| 0.5", "|weight| 1"]]
    assert ax.get_legend().get_title().get_text() == "the 2 strongest of 9 edges"
    ax, _ = drawn(graph_of({("A", "B"): (0.5, 0.7)}))
    frequencies = ["frequency ≥ 0.9", "frequency 0.5 to 0.9", "frequency < 0.5"]
    assert legends(ax) == [["positive", "|weight| 0.5", *frequencies]]
    ax, _ = drawn(graph, color=pd.Series({"A": "x", "B": "y"}))
    assert sorted(map(len, legends(ax))) == [2, 4]


def test_weights_stand_apart_where_edges_cross():
    names = [f"{side}{k}" for side in "uv" for k in range(3)]
    graph = graph_of({(a, b): (1.0 + k, np.nan) for k, a in enumerate(names[:3]) for b in names[3:]})
    ax, _ = drawn(graph, weights=True)
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() not in names]
    assert len(boxes) == 9
    overlaps = sum(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert overlaps <= 2  # all at the middle there would be more
