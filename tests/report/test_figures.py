"""Figures of the page, and what is drawn of many."""

import base64

import pandas as pd
from matplotlib.figure import Figure

from raptorgraph.report._figures import draw_effects, picture
from raptorgraph.report._findings import long_table
from raptorgraph.report._tables import Column


def test_the_largest_effects_are_drawn():
    measured = pd.DataFrame([[k, -k] for k in (1.0, 6.0, 3.0, 5.0, 2.0, 4.0)], index=list("abcdef"), columns=["g", "h"])
    figure, labels = draw_effects(measured / 2, measured, most_columns=2, size=(3.0, 2.0))
    assert labels == ["b", "d", "f", "c"]
    assert [ax.get_title(loc="left").split(",")[0] for ax in figure.axes] == labels
    assert figure.get_size_inches().tolist() == [6.0, 4.0]
    figure, labels = draw_effects(measured[:3], measured[:3], most_columns=2, size=(3.0, 2.0))
    assert len(figure.axes) == len(labels) == 3


def test_a_figure_is_embedded_with_its_width():
    one, again = (picture(Figure(figsize=(5, 2)), "words", "caption") for _ in range(2))
    assert one == again  # no date, no random names
    kind, data = one.source.split(",")
    assert kind == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(data)
    assert one.width == 480


def test_a_long_table_is_cut_and_says_so():
    frame = pd.DataFrame({"x": range(301)})
    cut = long_table("t", "caption", "Reading.", frame, {"x": Column("x")}, "all.csv")
    assert len(cut.rows) == 300
    assert cut.reading == "Reading. The first 300 of 301 rows; all.csv has all."
    assert long_table("t", "caption", "Reading.", frame[:300], {"x": Column("x")}, "all.csv").reading == "Reading."
