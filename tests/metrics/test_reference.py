import numpy as np
import pytest
from scipy import sparse

from raptorgraph.metrics import energy_distance, floor_and_ceiling, sampled_scores


@pytest.fixture
def screen():
    rng = np.random.default_rng(5)
    return rng.normal(0.5, 1, size=(100, 20)), rng.normal(size=(300, 20))


def test_floor_and_ceiling_of_normal_cells():
    # E exp(-|x - y|^2 / b) of x - y ~ N(m, 2 I) in d dimensions is (1 + 4 / b)^(-d / 2) exp(-|m|^2 / (b + 4))
    rng = np.random.default_rng(5)
    measured, control = rng.normal(0.5, 1, size=(6000, 20)), rng.normal(size=(6000, 20))
    scales = 200 * 2.0 ** (np.arange(10) - 5)
    expected = np.sum(2 * (1 + 4 / scales) ** -10 * (1 - np.exp(-20 * 0.25 / (scales + 4))))
    table = floor_and_ceiling(measured, control, n_cells=500, n_repeats=12, seed=1)
    assert list(table.columns[:2]) == ["reference", "repeat"]
    assert table["reference"].tolist() == ["floor", "ceiling"] * 12
    mean = table.groupby("reference")["mk_mmd_200"].mean()
    assert mean["ceiling"] == pytest.approx(expected, rel=0.06)
    assert mean["floor"] == pytest.approx(0, abs=0.02 * expected)


def test_scores_are_those_of_the_drawn_cells(screen):
    measured, control = screen
    table = floor_and_ceiling(measured, control, n_cells=30, n_repeats=2, seed=1, score=energy_distance)
    sampled = sampled_scores(control, measured, n_cells=30, n_repeats=2, seed=1, score=energy_distance)
    for repeat in range(2):
        rng = np.random.default_rng([1, repeat])
        order = rng.permutation(100)
        first, second = measured[order[:30]], measured[order[30:60]]
        controls = control[rng.choice(300, 30, replace=False)]
        rows = table.loc[table["repeat"] == repeat].set_index("reference")["value"]
        assert rows["floor"] == energy_distance(second, first)
        assert rows["ceiling"] == energy_distance(controls, first) == sampled.loc[repeat, "value"]


def test_samples_are_disjoint_and_shared(screen):
    measured, control = (np.arange(len(sample), dtype=float)[:, None] for sample in screen)
    calls = []

    def score(x, y):
        calls.append((set(x.ravel()), set(y.ravel())))
        return float(len(calls))

    table = floor_and_ceiling(measured, control, n_cells=50, n_repeats=2, seed=3, score=score)
    assert table["value"].tolist() == [1, 2, 3, 4]
    (second, first), (controls, same) = calls[:2]
    assert first.isdisjoint(second)
    assert len(first | second) == 100
    assert same == first
    assert len(controls) == 50
    sampled = sampled_scores(control, sparse.csr_matrix(measured), n_cells=50, n_repeats=2, seed=3, score=score)
    assert sampled["value"].tolist() == [5, 6]
    assert calls[4][1] == first
    assert calls[5][1] == calls[2][1] != first


def test_too_few_cells(screen):
    measured, control = screen
    with pytest.raises(ValueError, match="n_cells=51 cells, but only 100.*50 at most"):
        floor_and_ceiling(measured, control, n_cells=51)
    with pytest.raises(ValueError, match="only 40 control cells"):
        floor_and_ceiling(measured, control[:40], n_cells=50)
    with pytest.raises(ValueError, match="30 predicted and 100 measured.*30 at most"):
        sampled_scores(control[:30], measured, n_cells=50)
    with pytest.raises(ValueError, match="n_cells=0"):
        sampled_scores(control, measured, n_cells=0)
    with pytest.raises(ValueError, match="n_repeats=0"):
        floor_and_ceiling(measured, control, n_cells=5, n_repeats=0)
