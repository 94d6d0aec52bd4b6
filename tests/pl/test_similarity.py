import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from raptorgraph import pl, tl


def shown(ax):
    rows, columns = ([tick.get_text() for tick in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels()))
    return pd.DataFrame(np.ma.filled(ax.images[0].get_array(), np.nan), rows, columns)


@pytest.fixture
def table():
    """Two groups of perturbations, mixed up."""
    group = np.arange(6) % 2
    values = np.where(group[:, None] == group, 0.8, -0.2) + 0.2 * np.eye(6)
    return pd.DataFrame(values, list("abcdef"), list("abcdef"))


@pytest.mark.parametrize("kind", ["cosine", "specific"])
def test_squares_are_the_similarities_of_effects(fixed, kind):
    ax = pl.similarity(fixed, kind=kind)
    found = shown(ax)
    assert list(found.index) == list(found.columns)
    expected = tl.effect_similarity(fixed, kind=kind)
    np.testing.assert_allclose(found, expected.loc[found.index, found.columns])
    assert ax.images[0].get_clim() == (-1, 1)
    assert ax.get_ylabel() == "perturbation"


def test_groups_stand_side_by_side(table):
    names = list(shown(pl.similarity(table)).index)
    assert {frozenset(names[:3]), frozenset(names[3:])} == {frozenset("ace"), frozenset("bdf")}


def test_modules_are_marked_at_the_side(fixed):
    ax = pl.similarity(fixed)  # A and B are of one module
    names = list(shown(ax).index)
    (marks,) = ax.collections
    assert {names[round(y)] for _, y in marks.get_offsets()} == {"A", "B", "A+B"}
    assert min(x for x, _ in marks.get_offsets()) > len(names) - 0.5
    assert ax.get_xlim() == (-0.5, len(names) - 0.5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["module M1: A, B"]
    given = pl.similarity(fixed, modules={"stress": ["C"], "absent": ["D"]})
    assert [text.get_text() for text in given.get_legend().get_texts()] == ["module stress: C"]
    assert pl.similarity(fixed, modules={}).get_legend() is None
    many = pl.similarity(fixed, modules={"M1": ["A", *(f"longgene{k}" for k in range(60))]})
    assert many.get_legend().get_texts()[0].get_text().endswith(" ...")
    assert many.get_legend().get_texts()[0].get_text().count("\n") == 2


def test_weak_perturbations_are_faint(fixed):
    fixed.effects.loc["C"] *= 0.01
    ax = pl.similarity(fixed, modules={})
    gray = {tick.get_text() for tick in ax.get_yticklabels() if to_hex(tick.get_color()) != "#000000"}
    assert gray == {"C"}
    assert len(ax.patches) == 2
    at = list(shown(ax).index).index("C")
    y = ax.transData.inverted().transform(ax.patches[0].get_extents().get_points())[:, 1]
    assert sorted(y) == pytest.approx([at - 0.5, at + 0.5])
    fixed.has_posterior = False
    assert not pl.similarity(fixed, modules={}).patches


def test_the_strongest_of_many_and_those_asked_for(fixed, table):
    ax = pl.similarity(fixed, n_perturbations=3)
    assert set(shown(ax).index) == {"A+B", "B", "C"}  # A has the fewest sure effects
    assert ax.get_xlabel() == "perturbation (3 of 4)"
    assert set(shown(pl.similarity(fixed, ["B", ("B", "A")])).index) == {"B", "A+B"}
    assert set(shown(pl.similarity(table, ["a", "d"])).index) == {"a", "d"}


def test_missing_similarities_are_blank(table):
    table.loc["a", "d"] = table.loc["d", "a"] = np.nan
    found = shown(pl.similarity(table))
    assert np.isnan(found.loc["a", "d"])
    assert found.isna().to_numpy().sum() == 2


def test_bad_input(fixed, table):
    with pytest.raises(TypeError, match="not list"):
        pl.similarity([1])
    with pytest.raises(ValueError, match="kind='spearman'"):
        pl.similarity(fixed, kind="spearman")
    with pytest.raises(ValueError, match="n_perturbations=1"):
        pl.similarity(fixed, n_perturbations=1)
    with pytest.raises(ValueError, match="two perturbations or more"):
        pl.similarity(fixed, ["A"])
    with pytest.raises(ValueError, match="is none of similarities"):
        pl.similarity(table.iloc[:3])
    with pytest.raises(ValueError, match="not symmetric"):
        pl.similarity(table.assign(a=0.3))
    with pytest.raises(ValueError, match="the table has"):
        pl.similarity(table.loc[["a"], ["a"]])
    with pytest.raises(KeyError, match="'z' is not in the table"):
        pl.similarity(table, ["a", "z"])
    with pytest.raises(ValueError, match=r"two perturbations or more, and these are \['a'\]"):
        pl.similarity(table, ["a", "a"])
