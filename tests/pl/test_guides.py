import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from raptorgraph import pl
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE


def names(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


def test_each_guide_has_a_row_below_its_perturbation(guide_table):
    axes = pl.guides(guide_table)
    # B has a guide that disagrees; of the others C has the smaller q-value
    assert names(axes[0]) == ["B", "C", "A", "B_1", "B_2", "C_1", "C_2", "A_1", "A_2", "A_3"]
    y = dict(zip(names(axes[0]), axes[0].get_yticks(), strict=True))
    assert y["B"] < y["B_1"] < y["B_2"] < y["C"] < y["C_1"]
    at = {place: name for name, place in y.items()}
    sizes = {at[place]: x for x, place in np.ma.filled(axes[0].collections[1].get_offsets(), np.nan) if place in at}
    expected = guide_table.set_index("guide")["size"]
    assert {name: x for name, x in sizes.items() if x == x} == pytest.approx(expected.dropna().to_dict())
    bars = axes[2].patches
    assert [bar.get_width() for bar in bars] == [30, 20, 40, 25, 50, 45, 3]


def test_what_disagrees_is_orange_and_what_was_not_compared_gray(guide_table):
    axes = pl.guides(guide_table)
    colors = dict(zip(names(axes[0])[3:], (to_hex(bar.get_facecolor()) for bar in axes[2].patches), strict=True))
    expected = {"B_2": ORANGE, "A_3": GRAY}
    assert colors == {name: expected.get(name, BLUE).lower() for name in colors}
    ticks = {tick.get_text(): tick.get_color() for tick in axes[0].get_yticklabels()}
    assert {name for name, color in ticks.items() if color == ORANGE} == {"B_2"}
    texts = [text.get_text() for text in axes[2].get_legend().get_texts()]
    assert texts == ["disagrees with the\nother guides", "does not", "not compared"]


def test_a_size_far_outside_stands_at_the_border(guide_table):
    guide_table.loc[guide_table["guide"] == "C_2", ["size", "size_low", "size_high"]] = [9.0, 7.0, 11.0]
    (ax, *_) = pl.guides(guide_table)
    (beyond,) = [dots for dots in ax.collections[2:] if len(dots.get_offsets())]
    assert np.asarray(beyond.get_offsets())[0, 0] == 3
    assert ax.get_xlim()[1] < 3.3


def test_the_first_of_many(guide_table):
    many = pd.concat(
        [
            guide_table.assign(perturbation=guide_table["perturbation"] + str(k), disagrees=False, q=0.2)
            for k in range(30)
        ]
        + [guide_table]
    )
    axes = pl.guides(many, n=4)
    assert axes[0].get_title(loc="left") == "4 of 93 perturbations"
    assert names(axes[0])[:2] == ["B", "A0"]


def test_a_model_is_asked(fixed, guide_table, monkeypatch):
    monkeypatch.setattr("raptorgraph.pl._guides.guides_of", lambda model: guide_table)
    fixed.get_response_probability = None
    assert len(names(pl.guides(fixed)[0])) == 10


def test_bad_input(guide_table):
    with pytest.raises(KeyError, match="'size' is not a column"):
        pl.guides(guide_table.drop(columns="size"))
    with pytest.raises(ValueError, match="n=0"):
        pl.guides(guide_table, n=0)
    with pytest.raises(ValueError, match="no guides"):
        pl.guides(guide_table.iloc[:0])
    with pytest.raises(TypeError, match="neither a trained model nor the table"):
        pl.guides([1, 2])
