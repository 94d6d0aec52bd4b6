import numpy as np
import pytest

from raptorgraph.tl._common_direction import CommonDirection


def unit_vectors(n=30, common=3.0, seed=0):
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(n, 400))
    own[1] = own[0] + 0.3 * rng.normal(size=400)
    units = common * rng.normal(size=400) + own
    return units / np.linalg.norm(units, axis=1, keepdims=True)


def test_the_common_direction_is_taken_out():
    units = unit_vectors()
    direction = CommonDirection(units, np.ones(30, dtype=bool))
    first = direction.specific()[0]
    assert direction.inner[0, 1:].min() > 0.8  # all look alike
    assert first[1] > 0.85
    assert abs(first[2:]).max() < 0.3
    none = CommonDirection(units, np.zeros(30, dtype=bool))
    np.testing.assert_allclose(none.specific(), units @ units.T)


@pytest.mark.parametrize("n", [2, 3, 12])
def test_every_pair_against_its_definition(n):
    units = unit_vectors(n, common=1.0, seed=1)
    clear = np.arange(n) != 1
    direction = CommonDirection(units, clear)
    found, vectors = direction.specific(), np.random.default_rng(2).normal(size=(4, 400))
    np.testing.assert_array_equal(found, found.T)
    for a in range(n):
        along = direction.along(vectors @ units.T, a)
        for b in range(a + 1, n):
            others = clear & ~np.isin(np.arange(n), [a, b])
            common = units[others].sum(axis=0)
            common = common / np.linalg.norm(common) if others.any() else common
            x, y = (units[k] - (units[k] @ common) * common for k in (a, b))
            assert found[a, b] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
            np.testing.assert_allclose(along[:, b - a - 1], vectors @ common, atol=1e-9)


def test_nothing_is_left_of_what_is_common_alone():
    units = np.tile(np.eye(5)[0], (4, 1))
    found = CommonDirection(units, np.ones(4, dtype=bool)).specific()
    np.testing.assert_array_equal(found, 0.0)
