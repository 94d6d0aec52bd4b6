import numpy as np
import pytest

from raptorgraph.pl._limits import far_off, limits_with_zero


@pytest.mark.parametrize(
    ("sizes", "beyond"),
    [
        ([1.0, 1.5, 2.0, 3.0], []),
        ([1.0, 9.0, 2.0, 2.0], [1]),
        ([9.0, 1.0, 4.0, 1.0, 1.0], [0, 2]),  # 9 > 2 * 4, and 4 > 2 * 1
        ([9.0, 8.0, 1.0, 1.0, 1.0], [0, 1]),  # no gap between the two, but one below them
        ([90.0, 80.0, 70.0, 60.0, 1.0, 1.0], []),  # four are too many to be cut
        ([90.0, 80.0, 70.0, 1.0, 1.0, 1.0], [0, 1, 2]),
        ([5.0, 0.0, 0.0, 0.0], []),  # zero is no scale to compare with
        ([5.0, 1.0], []),  # what is left must be two values
        ([], []),
    ],
)
def test_at_most_three_values_above_a_gap_of_two_are_far_off(sizes, beyond):
    assert np.flatnonzero(far_off(sizes)).tolist() == beyond


def test_of_few_values_none_is_far_off_where_it_is_asked_for():
    sizes = [9.0, 1.0, 1.0, 1.0]
    assert far_off(sizes, at_least=4).sum() == 1
    assert far_off(sizes, at_least=5).sum() == 0


def test_limits_have_zero_and_a_margin():
    assert limits_with_zero([1.0, 2.0], [3.0, 10.0]) == pytest.approx((-0.8, 10.8))
    assert limits_with_zero([-4.0, np.nan], [6.0]) == pytest.approx((-4.8, 6.8))
    assert limits_with_zero([0.0]) == (-1.0, 1.0)
