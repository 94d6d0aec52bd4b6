import numpy as np
import pytest

from raptorgraph.metrics import calibration_error


def test_by_hand():
    p = np.array([0.05, 0.05, 0.35, 0.35, 0.38, 1.0, 0.95])
    y = np.array([0, 1, 0, 0, 1, 1, 1])
    bins = [abs(0.05 - 0.5) * 2, abs(0.36 - 1 / 3) * 3, abs(0.975 - 1) * 2]
    assert calibration_error(p, y) == pytest.approx(sum(bins) / 7)
    assert calibration_error(p, y.astype(bool), n_bins=1) == pytest.approx(abs(p.mean() - y.mean()))


def test_probabilities_that_are_right():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    assert calibration_error(p, y) < 0.01
    # half of what is said is off: the mean of |p - p^2| over p from 0 to 1 is 1/6
    assert calibration_error(p**2, y) == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize(
    ("p", "y", "match"),
    [
        ([0.5], [1, 0], r"\(1,\) and \(2,\)"),
        ([], [], "one of each"),
        ([0.2, 1.2], [0, 1], "1.2 in case 1"),
        ([np.nan, 0.2], [0, 1], "nan in case 0"),
        ([0.1, 0.2], [0, 2], "`outcome` is 2.0 in case 1"),
    ],
)
def test_errors(p, y, match):
    with pytest.raises(ValueError, match=match):
        calibration_error(p, y)
