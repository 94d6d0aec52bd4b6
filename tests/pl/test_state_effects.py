import numpy as np
import pytest

from raptorgraph import pl


def names_of(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


def test_squares_are_the_scales(state_table):
    ax = pl.state_effects(state_table)
    image = ax.images[0].get_array()
    rows = state_table.set_index("perturbation").loc[names_of(ax)]
    for column, group in enumerate(["early", "late", "resting"]):
        empty = rows[f"n_cells_{group}"].to_numpy() == 0
        np.testing.assert_array_equal(np.ma.getmaskarray(image)[:, column], empty)
        np.testing.assert_allclose(image[~empty, column], rows[f"scale_{group}"][~empty])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["early", "late", "resting"]
    assert ax.get_xlabel() == "phase"
    assert ax.images[0].get_clim() == (0, 2)


def test_bold_names_depend_on_the_group_and_dots_are_scales_that_are_not_1(state_table):
    ax = pl.state_effects(state_table, fdr=0.01)
    bold = {tick.get_text() for tick in ax.get_yticklabels() if tick.get_fontweight() == "bold"}
    assert bold == {"A", "A+B"}
    names, groups = names_of(ax), ["early", "late", "resting"]
    dots = {(names[round(y)], groups[round(x)]) for x, y in ax.collections[0].get_offsets()}
    expected = {
        (row.perturbation, group)
        for row in state_table.itertuples()
        for group in groups
        if abs(getattr(row, f"scale_{group}") - 1) > 0.15 and getattr(row, f"n_cells_{group}")
    }
    assert dots == expected


def test_the_smallest_p_values_are_shown(state_table):
    ax = pl.state_effects(state_table, n=2)
    assert set(names_of(ax)) == {"A", "A+B"}
    assert ax.get_ylabel() == "perturbation (2 of 5)"


def test_one_perturbation_in_a_table_that_lost_its_attributes(state_table):
    one = state_table.iloc[[1]].copy()
    one.attrs = {}
    ax = pl.state_effects(one)
    assert ax.get_xlabel() == "group"
    assert names_of(ax) == ["B"]


def test_bad_input(state_table):
    with pytest.raises(KeyError, match="'FDR' is not a column"):
        pl.state_effects(state_table.drop(columns="FDR"))
    with pytest.raises(KeyError, match="'scale_late_high'"):
        pl.state_effects(state_table.drop(columns="scale_late_high"))
    with pytest.raises(ValueError, match="no perturbation or no group"):
        pl.state_effects(state_table.iloc[:0])
    with pytest.raises(ValueError, match="n=0"):
        pl.state_effects(state_table, n=0)
    with pytest.raises(ValueError, match="fdr=2"):
        pl.state_effects(state_table, fdr=2)
