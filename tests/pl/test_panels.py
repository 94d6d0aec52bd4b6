import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from raptorgraph.pl._figure import BLUE, ORANGE
from raptorgraph.pl._panels import dot_panel, dots, name_rows, shared_legend

VALUES = pd.DataFrame(
    {"value_mean": [1.0, 3.0, 42.0], "value_sd": [0.5, np.nan, 1.0]}, index=["additive", "raptorgraph", "dVAE"]
)


@pytest.fixture
def ax():
    return Figure().subplots()


def test_dots_are_at_the_place_of_their_name_with_their_sd(ax):
    dots(ax, VALUES, ["raptorgraph", "unknown", "additive"], 0.25, color="black", label="seen")
    line, _, [bars] = ax.containers[0]
    np.testing.assert_array_equal(np.asarray(line.get_xdata(), dtype=float), [3, np.nan, 1])
    np.testing.assert_array_equal(line.get_ydata(), [0.25, 1.25, 2.25])
    ends = [segment[:, 0].tolist() for segment in bars.get_segments() if len(segment)]
    assert [3, 3] in ends  # no SD
    assert [0.5, 1.5] in ends
    assert ax.containers[0].get_label() == "seen"


def test_a_panel_has_the_first_method_at_the_top_and_writes_what_lies_far_outside_at_the_edge(ax):
    lines = {"floor": 0.5, "chance": np.nan, "ceiling": 2.0}
    dot_panel(ax, VALUES, ["additive", "raptorgraph", "dVAE"], lines, title="MSE", labels=True)
    places = {to_hex(line.get_color()): line for line in ax.get_lines() if line.get_marker() == "o"}
    assert [places[to_hex(color)].get_ydata()[0] for color in (BLUE, ORANGE)] == [2, 1]
    assert [text.get_text() for text in ax.texts] == ["42"]
    assert ax.get_xlim()[1] < 10
    assert ax.get_xlabel() == "solid: floor 0.500, dashed: ceiling 2.000"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dVAE", "raptorgraph", "additive"]


def test_a_panel_without_values_says_so(ax):
    dot_panel(ax, VALUES.iloc[:0], ["additive"], {}, title="MSE", labels=False)
    assert [text.get_text() for text in ax.texts] == ["undefined"]


def test_rows_have_names_and_a_legend_every_label_once():
    figure = Figure(layout="constrained")
    axes = figure.subplots(1, 2)
    for ax in axes:
        dots(ax, VALUES, list(VALUES.index), label="ours")
    axes[1].axvline(1, label="chance")
    name_rows(axes, list(VALUES.index))
    shared_legend(figure)
    assert [label.get_text() for label in axes[1].get_yticklabels()] == list(VALUES.index)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "chance"]
