import numpy as np
import pytest
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from raptorgraph.pl._marks import color_bar_beside, legend_beside, marker, vertical_grid


@pytest.fixture
def ax():
    return Figure(figsize=(6, 4)).subplots()


def test_legend_stands_right_of_the_axes(ax):
    legend_beside(ax, [marker("x", "red", size=3, shape="D"), marker("y", "blue")], fontsize=9, title="kinds")
    legend = ax.get_legend()
    ax.figure.draw_without_rendering()
    assert legend.get_window_extent().x0 >= ax.get_window_extent().x1
    assert [text.get_text() for text in legend.get_texts()] == ["x", "y"]
    assert {text.get_fontsize() for text in legend.get_texts()} == {9}
    assert legend.get_title().get_text() == "kinds"
    assert [line.get_marker() for line in legend.legend_handles] == ["D", "o"]
    assert [line.get_markersize() for line in legend.legend_handles] == [3, 5]


def test_legend_of_all_that_has_a_label(ax):
    ax.plot([0, 1], label="line")
    ax.plot([1, 0])
    legend_beside(ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["line"]


@pytest.mark.parametrize(
    ("values", "extend"),
    [
        ([0.0, 1.0], "neither"),
        ([-0.1, 1.0], "min"),
        ([0.0, 1.1], "max"),
        ([-0.1, 1.1], "both"),
        ([0.5, np.nan], "neither"),
    ],
)
def test_color_bar_has_arrows_where_values_lie_beyond(ax, values, extend):
    image = ax.imshow(np.ma.masked_invalid([values]), norm=Normalize(0, 1))
    bar = color_bar_beside(ax, image, "score", (1.04, 0.0, 0.03, 0.5))
    assert bar.extend == extend
    assert bar.ax.get_ylabel() == "score"
    ax.figure.draw_without_rendering()
    place, box = bar.ax.get_window_extent(), ax.get_window_extent()
    assert (place.x0 - box.x0) / box.width == pytest.approx(1.04, abs=0.01)


def test_grid_is_vertical_and_behind(ax):
    vertical_grid(ax)
    ax.figure.draw_without_rendering()
    assert all(line.get_visible() for line in ax.get_xgridlines())
    assert not any(line.get_visible() for line in ax.get_ygridlines())
    assert ax.get_axisbelow() is True
