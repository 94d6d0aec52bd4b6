import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from raptorgraph.pl._heat_map import name_squares, side_of_squares, similar_side_by_side, unit_rows


def test_groups_are_not_mixed_and_neighbors_are_as_near_as_the_tree_allows():
    rng = np.random.default_rng(0)
    group = np.array([0, 1, 2, 0, 1, 2, 0])
    rows = 10.0 * np.eye(3)[group] + rng.normal(scale=0.1, size=(7, 3))
    order = similar_side_by_side(rows)
    assert sorted(order) == list(range(7))
    assert len(list(itertools.groupby(group[order]))) == 3


def test_points_on_a_line_are_sorted():
    rows = np.array([3.0, 0.0, 2.0, 1.0, 4.5])[:, None]
    sorted_rows = rows[similar_side_by_side(rows), 0].tolist()
    assert sorted_rows in ([0.0, 1.0, 2.0, 3.0, 4.5], [4.5, 3.0, 2.0, 1.0, 0.0])


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_rows_stay_in_their_order(n):
    assert similar_side_by_side(np.arange(n)[::-1, None]).tolist() == list(range(n))


def test_names_stand_beside_their_squares():
    ax = Figure().subplots()
    ax.imshow(np.zeros((2, 3)))
    name_squares(ax, ["r0", "r1"], ["c0", "c1", "c2"], fontsize=5)
    assert [(tick.get_text(), tick.get_position()[1]) for tick in ax.get_yticklabels()] == [("r0", 0), ("r1", 1)]
    columns = ax.get_xticklabels()
    assert [(tick.get_text(), tick.get_position()[0]) for tick in columns] == [("c0", 0), ("c1", 1), ("c2", 2)]
    assert {tick.get_rotation() for tick in columns} == {90.0}
    assert {tick.get_fontsize() for tick in columns} == {5.0}


def test_squares_get_smaller_where_there_are_many_and_names_fit_them():
    sides = [side_of_squares(n) for n in (1, 20, 60, 100, 300)]
    assert sides[0] == sides[1]
    assert [side for side, _ in sides] == sorted((side for side, _ in sides), reverse=True)
    assert all(size <= 8 and size / 72 < side for side, size in sides)
    assert 100 * sides[3][0] == pytest.approx(15)


def test_unit_rows_have_a_direction_alone():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [-0.3, -0.4]])
    np.testing.assert_allclose(unit_rows(rows), [[0.6, 0.8], [0, 0], [-0.6, -0.8]])
