import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from raptorgraph.pl._labels import label_points


def drawn(figure, labels):
    figure.draw_without_rendering()
    return [Text.get_window_extent(label) for label in labels if label.get_visible()]


@pytest.mark.parametrize("size", [2.5, 5.0])
def test_names_cover_neither_each_other_nor_the_legend(size):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 2))
    figure = Figure(figsize=(size, size), layout="constrained")
    ax = figure.subplots()
    ax.scatter(*points.T, label="genes")
    legend = ax.legend(loc="upper left")
    names = [f"a long name {k}" for k in range(25)]
    labels = label_points(ax, *points[:25].T, names, among=points, obstacles=[legend])
    boxes = drawn(figure, labels)
    frame, taken = ax.get_window_extent(), legend.get_window_extent()
    assert len(boxes) >= (5 if size == 2.5 else 15)
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert not any(box.overlaps(taken) for box in boxes)
    assert all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes)


def test_a_lone_point_is_named_beside_it_and_a_crowd_is_spared():
    figure = Figure(figsize=(4, 4))
    ax = figure.subplots()
    crowd = np.column_stack([np.linspace(0, 1, 200), np.full(200, 0.55)])
    labels = label_points(ax, [0.5], [0.5], ["x"], among=np.vstack([[[0.5, 0.5]], crowd]))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    (box,) = drawn(figure, labels)
    center = ax.transData.inverted().transform([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    assert np.linalg.norm(center - 0.5) < 0.06
    assert center[1] < 0.54


def test_a_name_without_room_is_left_out_until_there_is_some():
    figure = Figure(figsize=(1, 1))
    ax = figure.add_axes((0, 0, 1, 1))
    labels = label_points(ax, [0.5], [0.5], ["a name much too long for so small a figure"])
    assert drawn(figure, labels) == []
    figure.set_size_inches(6, 6)
    assert len(drawn(figure, labels)) == 1
