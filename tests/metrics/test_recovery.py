import numpy as np
import pytest
from scipy.stats import hypergeom

from raptorgraph.metrics import de_direction_match, overlap_at_N, precision_at_N


def test_recovery_of_differential_genes():
    measured = np.array([[5.0, -4, 3, 2, 1, 0], [1, 1, 1, 1, 1, 1], [3, 2, 1, 0, 0, 0]])
    true_fdr = np.array([[0.01, 0.01, 0.01, 0.01, 0.5, 0.5], [1, 1, 1, 1, 1, 1], [0.01, 0.01, 1, 1, 1, 1]])
    predicted = np.array([[1.0, -6, 0, -5, 4, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    fdr = np.array([[0.01, 0.01, 1, 0.01, 0.01, 1], [0.01, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    tables = predicted, measured, fdr, true_fdr
    # measured 0 1 2 3, predicted 1 3 4 0
    np.testing.assert_allclose(overlap_at_N(*tables, per_row=True), [3 / 4, 0, 0])
    np.testing.assert_allclose(overlap_at_N(*tables, k=2, per_row=True), [1 / 2, 0, 0])
    np.testing.assert_allclose(precision_at_N(*tables, per_row=True), [3 / 4, 0, 0])
    np.testing.assert_allclose(precision_at_N(*tables, k=1, per_row=True), [0, 0, 0])
    assert overlap_at_N(*tables) == pytest.approx(0.25)
    assert precision_at_N(measured, measured, true_fdr, true_fdr) == pytest.approx(2 / 3)
    # threshold 0.6 makes all six genes of the first perturbation differential
    assert overlap_at_N(*tables, threshold=0.6, per_row=True)[0] == pytest.approx(4 / 6)
    direction = de_direction_match(predicted, measured, true_fdr, per_row=True)
    np.testing.assert_allclose(direction, [1 / 2, np.nan, 1])
    assert de_direction_match(predicted, measured, true_fdr) == pytest.approx(0.75)
    assert np.isnan(de_direction_match(predicted, measured, np.ones((3, 6))))


def test_chance_is_that_of_the_hypergeometric_distribution():
    # 12 of 60 genes are measured and 20 are predicted as differential, drawn at random
    rng = np.random.default_rng(0)
    change = rng.normal(size=(2, 3000, 60))
    fdr = [(rng.permuted(np.tile(np.arange(60), (3000, 1)), axis=1) >= n).astype(float) for n in (20, 12)]
    shared = hypergeom(60, 12, 20).mean()
    error = hypergeom(60, 12, 20).std() / np.sqrt(3000)
    assert precision_at_N(*change, *fdr) == pytest.approx(shared / 20, abs=4 * error / 20)
    # of the first 12 of the predicted genes
    shared, error = hypergeom(60, 12, 12).mean(), hypergeom(60, 12, 12).std() / np.sqrt(3000)
    assert overlap_at_N(*change, *fdr) == pytest.approx(shared / 12, abs=4 * error / 12)
    assert de_direction_match(*change, fdr[1]) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(12 * 3000))


def test_errors():
    zeros = np.zeros((2, 4))
    with pytest.raises(ValueError, match="k=0"):
        overlap_at_N(zeros, zeros, zeros, zeros, k=0)
    with pytest.raises(ValueError, match=r"\(2, 4\), \(1, 4\)"):
        de_direction_match(zeros, zeros[:1], zeros)
    with pytest.raises(ValueError, match="is NaN"):
        de_direction_match(zeros + np.nan, zeros, zeros)
