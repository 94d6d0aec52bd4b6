import numpy as np
import pytest
from scipy import sparse

from raptorgraph.metrics import control_mse, same_cell_mse


@pytest.fixture
def cells():
    return np.random.default_rng(0).gamma(2.0, size=(600, 30))


def collapsed(cells):
    return np.broadcast_to(cells.mean(axis=0), cells.shape)


def test_control_mse_rewards_collapse(cells):
    # over splits a held-out cell is any cell, and a pair of cells any pair of different ones
    mean = np.mean([control_mse(collapsed(cells), cells, seed=seed) for seed in range(40)])
    copied = np.mean([control_mse(cells, cells, seed=seed) for seed in range(40)])
    assert mean == pytest.approx(cells.var(axis=0).mean(), rel=0.01)
    assert copied == pytest.approx(2 * cells.var(axis=0, ddof=1).mean(), rel=0.01)


def test_control_mse_compares_one_half_with_the_other():
    # reconstruction 100 * i of cell i, truth i: the difference tells which cell met which
    x = np.arange(4.0)[:, None]
    pairs = {100.0 * i - j: (i, j) for i in range(4) for j in range(4)}
    for seed in range(20):
        values = [control_mse(100 * x, x, batch_size=batch, seed=seed) for batch in (1, 2)]
        assert values[0] == pytest.approx(values[1])  # batches of equal size
        squares = {
            (a**2 + b**2) / 2 for a, (i, j) in pairs.items() for b, (k, m) in pairs.items() if len({i, j, k, m}) == 4
        }
        assert any(values[0] == pytest.approx(square) for square in squares)


def test_control_mse_is_a_mean_over_batches():
    # a small last batch counts as much as a full one
    x = np.repeat([[0.0], [1.0]], [4, 2], axis=0)
    values = {round(control_mse(np.zeros_like(x), x, batch_size=2, seed=seed), 6) for seed in range(50)}
    assert values == {0.0, 0.25, 0.5, 0.75}


def test_control_mse_repeats_under_a_seed(cells):
    assert control_mse(cells, cells, seed=2) == control_mse(cells, cells, seed=2)
    assert control_mse(cells, cells, seed=2) != control_mse(cells, cells, seed=3)


def test_same_cell_mse_does_not_reward_collapse(cells):
    variance = cells.var(axis=0).mean()
    mean = same_cell_mse(collapsed(cells), cells)
    assert mean.mse == pytest.approx(variance) == mean.variance
    assert mean.explained == pytest.approx(0, abs=1e-12)
    assert same_cell_mse(cells, cells) == (0, pytest.approx(variance), 1)
    assert same_cell_mse(0.5 * (cells + collapsed(cells)), cells).explained == pytest.approx(0.75)
    worse = same_cell_mse(cells + 10, cells)
    assert worse.mse == pytest.approx(100)
    assert worse.explained < 0


def test_sparse_cells(cells):
    x = np.where(cells > 2, cells, 0)
    assert control_mse(x / 2, sparse.csr_matrix(x), seed=4) == pytest.approx(control_mse(x / 2, x, seed=4))
    assert same_cell_mse(sparse.csr_matrix(x / 2), sparse.csc_matrix(x)) == pytest.approx(same_cell_mse(x / 2, x))


def test_cells_that_do_not_vary():
    assert np.isnan(same_cell_mse(np.ones((4, 2)), np.ones((4, 2))).explained)


@pytest.mark.parametrize("score", [control_mse, same_cell_mse])
def test_bad_reconstructions(cells, score):
    with pytest.raises(ValueError, match="same genes"):
        score(cells[:, 1:], cells)
    with pytest.raises(ValueError, match=r"shape \(599, 30\), the cells \(600, 30\)"):
        score(cells[1:], cells)
    with pytest.raises(ValueError, match="not finite"):
        score(cells * np.nan, cells)
    with pytest.raises(ValueError, match="cells"):
        score(cells[:0], cells[:0])


def test_halves_and_batches(cells):
    with pytest.raises(ValueError, match="at least 2 cells, got 1"):
        control_mse(cells[:1], cells[:1])
    with pytest.raises(ValueError, match="batch_size=0"):
        control_mse(cells, cells, batch_size=0)
