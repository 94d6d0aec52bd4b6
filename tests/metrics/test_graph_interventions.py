import numpy as np
import pytest
from scipy.stats import mannwhitneyu, wasserstein_distance

from raptorgraph.metrics import false_omission_rate, intervention_p_values, mean_wasserstein


@pytest.fixture(scope="module")
def screen():
    """Four nodes, the last not measured; perturbing 0 moves 1 and 2, perturbing 3 moves 0, node 2 is not perturbed."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2, 4, -1], [60, 30, 25, 20, 40])
    X = rng.normal(3.0, 1.0, size=(len(codes), 4))
    X[codes == 1, 1] += 2.0
    X[codes == 1, 2] -= 1.5
    X[codes == 4, 0] += 3.0
    X[codes == -1] += 100.0  # not to be used
    X[:, 3] = np.nan
    return X, codes


def graph(*edges) -> np.ndarray:
    found = np.zeros((4, 4))
    for i, j in edges:
        found[i, j] = -0.2
    return found


def test_wasserstein_of_the_edges(screen):
    X, codes = screen

    def by_hand(i, j):
        return wasserstein_distance(X[codes == i + 1, j], X[codes == 0, j])

    assert mean_wasserstein(X, codes, graph((0, 1))) == pytest.approx(by_hand(0, 1))
    both = graph((0, 1), (3, 0), (1, 1))  # without the diagonal
    assert mean_wasserstein(X, codes, both) == pytest.approx((by_hand(0, 1) + by_hand(3, 0)) / 2)
    # to a gene that is not measured, and from a node that was not perturbed
    more = both + graph((0, 3), (2, 0))
    assert mean_wasserstein(X, codes, more) == mean_wasserstein(X, codes, both)
    assert np.isnan(mean_wasserstein(X, codes, graph()))
    assert np.isnan(mean_wasserstein(X, codes, graph((2, 0))))
    # a shift of all cells is the distance
    shifted = np.array([[1.0, 2.0], [3.0, 5.0], [1.0, 6.0], [3.0, 9.0]])
    assert mean_wasserstein(shifted, [0, 0, 1, 1], [[0, 1], [0, 0]]) == pytest.approx(4)


def test_p_values_are_those_of_scipy(screen):
    X, codes = screen
    found = intervention_p_values(X, codes)
    for i, j in np.ndindex(4, 4):
        if i in (j, 2) or j == 3:
            assert np.isnan(found[i, j])
        else:
            assert found[i, j] == pytest.approx(mannwhitneyu(X[codes == i + 1, j], X[codes == 0, j]).pvalue)
    silent = np.ones((6, 2))  # nothing ever changes
    assert intervention_p_values(silent, [0, 0, 0, 1, 1, 2])[0, 1] == 1


def test_omissions_are_pairs_without_a_path(screen):
    X, codes = screen
    differ = intervention_p_values(X, codes) < 0.05
    tested = [(0, 1), (0, 2), (1, 0), (1, 2), (3, 0), (3, 1), (3, 2)]
    assert sorted(zip(*np.nonzero(differ), strict=True)) == [(0, 1), (0, 2), (3, 0)]  # the planted ones

    assert false_omission_rate(X, codes, graph()) == pytest.approx(3 / len(tested))
    assert false_omission_rate(X, codes, graph((0, 1))) == pytest.approx(2 / 6)
    # 0 -> 1 -> 2 says that 0 reaches 2, and 3 -> 0 that 3 reaches all
    assert false_omission_rate(X, codes, graph((0, 1), (1, 2))) == pytest.approx(1 / 4)
    assert false_omission_rate(X, codes, graph((3, 0), (0, 1), (1, 2))) == 0
    # a cycle reaches everything on it, also through nodes that are not tested
    assert np.isnan(false_omission_rate(X, codes, graph((0, 1), (1, 2), (2, 3), (3, 0))))
    assert false_omission_rate(X, codes, graph(), alpha=1.01) == 1
    p_values = np.full((4, 4), np.nan)
    p_values[0, 1], p_values[1, 0] = 0.5, 0.01
    assert false_omission_rate(X, codes, graph(), p_values=p_values) == 0.5


def test_genes_with_one_value_in_all_cells_do_not_differ(screen):
    X, codes = np.array(screen[0], dtype=float), screen[1]
    expected = intervention_p_values(X, codes)
    X[:, 2] = 3.0
    expected[[0, 1, 3], 2] = 1.0
    np.testing.assert_array_equal(intervention_p_values(X, codes), expected)
    assert false_omission_rate(X, codes, graph((0, 1), (3, 0))) == 0


def test_nothing_to_find_is_the_level_of_the_test():
    rng = np.random.default_rng(1)
    k = 30
    codes = np.repeat(np.arange(k + 1), 40)
    X = rng.normal(size=(len(codes), k))
    tests = k * (k - 1)
    expected = pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / tests))
    assert false_omission_rate(X, codes, np.zeros((k, k))) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": [0, 1]}, "one code for each cell"),
        ({"graph": np.zeros((3, 3))}, "square graph"),
        ({"codes": [0, 1, 5]}, "node 4, but there are 2"),
        ({"codes": [1, 1, 2]}, "no control cells"),
        ({"expression": [[1, np.nan], [2, 3], [3, 4]]}, "Column 1 is NaN in a part"),
    ],
)
def test_bad_input(change, message):
    good = {"expression": np.ones((3, 2)), "codes": [0, 1, 2], "graph": np.zeros((2, 2))}
    for score in (mean_wasserstein, false_omission_rate):
        with pytest.raises(ValueError, match=message):
            score(**{**good, **change})
