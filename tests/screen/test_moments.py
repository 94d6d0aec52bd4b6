import numpy as np
import pytest
from scipy import sparse

from raptorgraph.screen._moments import condition_moments, control_loadings_of, effect_moments, log_ratio_moments
from raptorgraph.screen._sums import add_up


@pytest.fixture
def cells():
    rng = np.random.default_rng(1)
    codes = np.r_[np.zeros(40, int), rng.integers(1, 4, size=80)]
    counts = rng.poisson(1.0 + codes[:, None] * rng.random(6), size=(120, 6))
    return counts, codes, rng.integers(20, 90, size=120).astype(float)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("chunk_size", [7, 4096])
def test_moments_against_numpy(cells, make, chunk_size):
    counts, codes, library = cells
    rows = np.random.default_rng(2).permutation(120)[:77]
    values = np.log1p(1e4 * counts / library[:, None])
    moments = condition_moments(make(counts), codes, 5, library=library, rows=rows, chunk_size=chunk_size)
    for c in range(4):
        own = values[rows][codes[rows] == c]
        assert moments.n[c] == len(own)
        np.testing.assert_allclose(moments.mean[c], own.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(moments.var[c], own.var(axis=0, ddof=1), rtol=1e-5)
    assert moments.n[4] == 0
    assert not moments.mean[4].any()
    assert not moments.var[4].any()


def test_the_variance_of_one_cell_is_zero():
    moments = condition_moments(np.array([[1.1, 2.3], [0.7, 0.1], [0.3, 0.0]]), [0, 0, 1], 2)
    np.testing.assert_array_equal(moments.var[1], 0)
    np.testing.assert_allclose(moments.mean[1], [0.3, 0.0], rtol=1e-6)


def test_effects_without_batches(cells):
    counts, codes, _ = cells
    X = np.log1p(counts)
    found = effect_moments(X, codes, 4, shrinkage=10.0)
    control = X[codes == 0]
    for c in (1, 2, 3):
        own = X[codes == c]
        np.testing.assert_allclose(found.effect[c], own.mean(0) - control.mean(0), rtol=1e-5, atol=1e-7)
        n = len(own)
        shrunk = ((n - 1) * own.var(0, ddof=1) + 10 * control.var(0, ddof=1)) / (n - 1 + 10)
        np.testing.assert_allclose(found.variance[c], shrunk / n + control.var(0, ddof=1) / 40, rtol=1e-5)
    np.testing.assert_array_equal(found.effect[0], 0)
    np.testing.assert_allclose(found.variance[0], 2 * control.var(0, ddof=1) / 40, rtol=1e-5)


def test_effects_with_batches_by_hand():
    # Batch 0: controls 1, 3 (mean 2), condition 5. Batch 1: controls 10, 14 (mean 12), condition 12, 15, 18.
    # Batch 2 has no control and is compared with all controls (mean 7): condition 9.
    X = np.array([[1], [3], [5], [10], [14], [12], [15], [18], [9.0]])
    codes = np.array([0, 0, 1, 0, 0, 1, 1, 1, 1])
    batch = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2])
    found = effect_moments(X, codes, 2, batch=batch, shrinkage=0.0)
    # (1 * (5 - 2) + 3 * (15 - 12) + 1 * (9 - 7)) / 5
    np.testing.assert_allclose(found.effect[1], (3 + 9 + 2) / 5)
    # Control cells in batches 0 and 1 carry weights (1/5 + 1/10) / 2 and (3/5 + 1/10) / 2 each; pooled control
    # variance ((1 + 1) + (4 + 4)) / 2 = 5; condition's variance within batch 1 (9 + 0 + 9) / 2 = 9.
    np.testing.assert_allclose(found.variance[1], 9 / 5 + 5 * (2 * 0.15**2 + 2 * 0.35**2))


def test_batches_remove_a_shift_of_batches():
    rng = np.random.default_rng(3)
    codes, batch = rng.integers(0, 3, 600), rng.integers(0, 4, 600)
    X = rng.random((600, 5)) + codes[:, None]
    shifted = X + 10.0 * batch[:, None] + 1.0
    plain, corrected = (effect_moments(x, codes, 3, batch=batch) for x in (X, shifted))
    np.testing.assert_allclose(corrected.effect, plain.effect, atol=1e-4)
    np.testing.assert_allclose(corrected.variance, plain.variance, rtol=1e-3)
    # The names of the batches do not matter.
    renamed = effect_moments(X, codes, 3, batch=np.array([50, -3, 7, 8])[batch])
    np.testing.assert_allclose(renamed.effect, plain.effect, atol=1e-12)


def test_the_variance_is_that_of_repeated_experiments():
    rng = np.random.default_rng(4)
    codes, batch = np.repeat([0, 1, 0, 1, 1], [40, 10, 15, 30, 8]), np.repeat([0, 0, 1, 1, 2], [40, 10, 15, 30, 8])
    # One gene a repetition.
    X = rng.normal(size=(len(codes), 20_000)) + 20
    found = effect_moments(X, codes, 2, batch=batch)
    np.testing.assert_allclose(found.variance[1].mean(), found.effect[1].var(), rtol=0.05)


def test_effects_share_the_error_of_the_controls_of_their_batches():
    """Covariance of the reference means over repeated experiments, of nested, crossed and uncontrolled conditions."""
    batch = np.repeat([0, 1, 2], [46, 14, 10])  # the last has no controls
    codes = np.r_[np.repeat([0, 1, 3], [30, 10, 6]), np.repeat([0, 2, 3], [5, 6, 3]), np.repeat([4, 1], [8, 2])]
    loadings = control_loadings_of(add_up(np.ones((70, 1)), codes, 6, batch=batch))
    assert loadings.shape == (6, 1)
    rng, draws = np.random.default_rng(0), []
    for _ in range(4000):
        mean = rng.normal(size=2) / np.sqrt([30, 5])
        of_all = (30 * mean[0] + 5 * mean[1]) / 35
        draws.append([(10 * mean[0] + 2 * of_all) / 12, mean[1], (6 * mean[0] + 3 * mean[1]) / 9, of_all])
    np.testing.assert_allclose((1 / 35 + loadings @ loadings.T)[1:5, 1:5], np.cov(np.array(draws).T), atol=0.015)
    moments = effect_moments(np.random.default_rng(1).random((70, 2)), codes, 6, batch=batch)
    assert moments.n[5] == 0
    assert not loadings[5].any()  # a condition without cells
    one = add_up(np.ones((70, 1)), codes, 6)
    assert control_loadings_of(one).shape == (6, 0)


def test_of_many_batches_that_all_perturbations_are_spread_over_few_columns_are_kept():
    rng = np.random.default_rng(0)
    codes, batch = rng.choice(20, 20_000, p=[0.24, *[0.04] * 19]), rng.integers(0, 200, 20_000)
    found = control_loadings_of(add_up(np.ones((20_000, 1)), codes, 20, batch=batch))
    assert found.shape[1] < 5


def test_log_ratios_by_hand(cells):
    counts, codes, library = cells
    found = log_ratio_moments(sparse.csr_matrix(counts), codes, 4, library=library, shrinkage=30.0)
    rates = 1e4 * counts / library[:, None]
    control = rates[codes == 0]
    mean_0, var_0 = control.mean(0), control.var(0, ddof=1)
    for c in (1, 2, 3):
        own = rates[codes == c]
        n, offset = len(own), 0.5 * var_0 / mean_0 / len(own)
        mean, reference = own.mean(0) + offset, mean_0 + offset
        np.testing.assert_allclose(found.log_ratio[c], np.log(mean / reference), rtol=1e-5, atol=1e-6)
        shrunk = ((n - 1) * own.var(0, ddof=1) + 30 * var_0 * mean / reference) / (n - 1 + 30)
        np.testing.assert_allclose(found.whole_variance[c],
                                   shrunk / n / mean**2 + var_0 / 40 / reference**2, rtol=1e-4)  # fmt: skip
    np.testing.assert_array_equal(found.log_ratio[0], 0)
    offset = 0.5 * var_0 / mean_0 / np.array([(codes == c).sum() for c in (1, 2, 3)])[:, None]
    shared = (var_0 / 40 / (mean_0 + offset) ** 2).min(0)
    np.testing.assert_allclose(found.shared_variance, shared, rtol=1e-4)


def test_the_variance_of_log_ratios_is_that_of_repeated_experiments():
    rng = np.random.default_rng(5)
    codes = np.repeat([0, 1, 2], [400, 60, 60])
    fold = np.array([1.0, 0.3, 2.0])
    rate = 0.8 * fold[codes][:, None] * rng.gamma(2.0, 0.5, size=(len(codes), 4000))  # one gene a repetition
    counts, library = rng.poisson(rate), np.full(len(codes), 5000.0)
    found = log_ratio_moments(sparse.csr_matrix(counts), codes, 3, library=library)
    for c in (1, 2):
        np.testing.assert_allclose(found.log_ratio[c].mean(), np.log(fold[c]), atol=0.03)
        total = found.whole_variance[c]
        np.testing.assert_allclose(total.mean(), found.log_ratio[c].var(), rtol=0.12)
    # the part that both conditions share is their covariance
    covariance = np.cov(found.log_ratio[1], found.log_ratio[2])[0, 1]
    np.testing.assert_allclose(found.shared_variance.mean(), covariance, rtol=0.25)


def test_log_ratios_of_a_batch_share_the_error_of_its_controls():
    """Two conditions in one batch with few controls, one in another with many, one in both."""
    rng = np.random.default_rng(7)
    codes = np.concatenate([np.repeat([0, 1, 2, 4], [20, 60, 60, 30]), np.repeat([0, 3, 4], [80, 60, 30])])
    batch = np.repeat([0, 1], [170, 170])
    counts = rng.poisson(10 * rng.gamma(20.0, 0.05, size=(len(codes), 6000)))  # a gene a repetition
    found = log_ratio_moments(sparse.csr_matrix(counts), codes, 5, library=np.full(len(codes), 1e4), batch=batch)
    assert found.control_loadings.shape == (5, 1)
    np.testing.assert_allclose(found.control_loadings[0], 0, atol=1e-12)
    loadings = np.column_stack([np.ones(4), found.control_loadings[1:]])
    shared = loadings @ loadings.T * found.shared_variance.mean()
    seen = np.cov(found.log_ratio[1:])
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(shared[off], seen[off], atol=0.12 * seen[off].max())
    np.testing.assert_allclose(found.whole_variance[1:].mean(1), seen.diagonal(), rtol=0.12)


def test_log_ratios_of_unseen_genes_and_absent_conditions():
    counts = np.zeros((12, 3))
    counts[:, 0] = np.random.default_rng(0).poisson(5, 12)
    counts[:6, 1] = [0, 1, 2, 0, 1, 3]  # never seen when perturbed
    codes = np.r_[np.zeros(6, int), np.ones(6, int)]
    found = log_ratio_moments(sparse.csr_matrix(counts), codes, 3, library=np.full(12, 100.0))
    assert np.isfinite(found.log_ratio).all()
    assert found.log_ratio[1, 1] < -1
    assert np.isfinite(found.variance[1, :2]).all()
    assert np.isinf(found.variance[:, 2]).all()  # no control cell shows it
    assert np.isinf(found.variance[2]).all()
    assert found.shared_variance[2] == 0


def test_log_ratios_with_batches():
    """A gene that a batch doubles in all of its cells has no log ratio."""
    rng = np.random.default_rng(6)
    codes, batch = np.repeat([0, 1, 0, 1], [300, 50, 300, 250]), np.repeat([0, 0, 1, 1], [300, 50, 300, 250])
    rate = 3.0 * (1 + 3 * batch)[:, None] * np.where(codes == 1, 0.5, 1.0)[:, None] * np.ones(200)
    counts = sparse.csr_matrix(rng.poisson(rate))
    found = log_ratio_moments(counts, codes, 2, library=np.full(len(codes), 1e4), batch=batch)
    np.testing.assert_allclose(found.log_ratio[1].mean(), np.log(0.5), atol=0.01)
    ignored = log_ratio_moments(counts, codes, 2, library=np.full(len(codes), 1e4))
    assert abs(ignored.log_ratio[1].mean() - np.log(0.5)) > 0.1


def test_absent_conditions_and_silent_genes_are_safe():
    X = np.zeros((10, 3))
    X[:, 0] = np.random.default_rng(0).random(10)
    X[:, 1] = X[:, 0] ** 2
    codes = np.r_[np.zeros(5, int), np.ones(4, int), 3]
    found = effect_moments(X, codes, 4)
    assert found.n.tolist() == [5, 4, 0, 1]
    np.testing.assert_array_equal(found.effect[2], 0)
    assert np.isinf(found.variance[2]).all()
    np.testing.assert_array_equal(found.effect[[1, 3], 2], 0)
    typical = np.median(X[:5, :2].var(axis=0, ddof=1))
    np.testing.assert_allclose(found.variance[[1, 3], 2], [0.01 * typical / 4, 0.01 * typical], rtol=1e-5)


def test_wrong_arguments_are_named(cells):
    counts, codes, library = cells
    with pytest.raises(ValueError, match="0 to 1, found 0 to 3"):
        condition_moments(counts, codes, 2)
    with pytest.raises(ValueError, match="120 cells"):
        condition_moments(counts, codes[:5], 4)
    with pytest.raises(ValueError, match="rows"):
        condition_moments(counts, codes, 4, rows=[])
    with pytest.raises(ValueError, match="at least 2; found 0"):
        effect_moments(counts, codes, 4, rows=np.flatnonzero(codes))
    with pytest.raises(ValueError, match="one batch"):
        effect_moments(counts, codes, 4, batch=[0, 1])
    with pytest.raises(ValueError, match="shrinkage"):
        effect_moments(counts, codes, 4, shrinkage=-1)
    library[13] = 0
    with pytest.raises(ValueError, match=r"first: 13 \(0\)"):
        condition_moments(counts, codes, 4, library=library, rows=[12, 13])
    assert condition_moments(counts, codes, 4, library=library, rows=[12, 14]).n.sum() == 2
