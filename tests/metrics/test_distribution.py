import tracemalloc

import numpy as np
import pytest
import scipy.stats
import torch
from scipy import sparse
from scipy.spatial.distance import cdist

from raptorgraph.metrics._distribution import distribution_scores, energy_distance, mk_mmd, variance_ratio
from raptorgraph.nn import _losses


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(70, 40)), rng.normal(0.3, 1.2, size=(55, 40))


def brute_mmd(x, y, bandwidth, n_kernels=10, factor=2.0, biased=False):
    if bandwidth == "mean-distance":
        pooled = np.concatenate([x, y])
        bandwidth = cdist(pooled, pooled, "sqeuclidean").sum() / (len(pooled) ** 2 - len(pooled))

    def kernel(a, b):
        distance = cdist(a, b, "sqeuclidean")
        return sum(np.exp(-distance / (bandwidth * factor ** (i - n_kernels // 2))) for i in range(n_kernels))

    return brute(kernel, x, y, biased)


def brute(kernel, x, y, biased):
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    if biased:
        return xx.mean() + yy.mean() - 2 * xy.mean()
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    return sum(within) - 2 * xy.mean()


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("bandwidth", [20.0, 200.0, "mean-distance"])
@pytest.mark.parametrize(("n_kernels", "factor"), [(10, 2.0), (5, 2.0), (4, 3.5), (1, 2.0)])
def test_mmd_is_that_of_all_pairs(samples, offset, biased, bandwidth, n_kernels, factor):
    x, y = (sample + offset for sample in samples)
    expected = brute_mmd(x, y, bandwidth, n_kernels, factor, biased)
    options = {"bandwidth": bandwidth, "n_kernels": n_kernels, "factor": factor, "biased": biased}
    # a chunk that divides neither sample
    assert mk_mmd(x, y, chunk_size=16, **options) == pytest.approx(expected, abs=1e-10)
    assert mk_mmd(x, y, **options) == pytest.approx(expected, abs=1e-10)


def test_mmd_is_that_of_the_loss(samples):
    x, y = samples
    loss = _losses.mk_mmd(torch.tensor(x), torch.tensor(y), fix_sigma=50.0, n_kernels=7)
    assert mk_mmd(x, y, bandwidth=50.0, n_kernels=7) == pytest.approx(float(loss), abs=1e-10)


def test_mmd_of_two_points():
    # one distance of 2 between two samples of equal cells: k(x, x') = L, k(x, y) = sum exp(-4 / b)
    x, y = np.zeros((3, 4)), np.ones((2, 4))
    expected = 2 * 2 - 2 * (np.exp(-4 / 1.0) + np.exp(-4 / 2.0))
    for biased in (False, True):
        assert mk_mmd(x, y, bandwidth=2.0, n_kernels=2, biased=biased) == pytest.approx(expected, abs=1e-12)


def test_mmd_of_equal_distributions_is_unbiased_and_biased_has_its_floor():
    rng = np.random.default_rng(1)
    n, genes = 20, 30
    draws = rng.normal(size=(200, 2, n, genes))
    unbiased = np.array([mk_mmd(x, y) for x, y in draws])
    assert abs(unbiased.mean()) < 4 * unbiased.std() / np.sqrt(len(unbiased))
    assert (unbiased < 0).mean() > 0.2
    biased = np.array([mk_mmd(x, y, biased=True) for x, y in draws])
    assert (biased > 0).all()
    # each cell's kernel with itself, 10 instead of the mean over pairs, enters with weight 1/n in both samples
    scales = 200 * 2.0 ** (np.arange(10) - 5)
    between = np.sum((1 + 4 / scales) ** (-genes / 2))  # E exp(-|x - x'|^2 / b) of a normal difference of variance 2
    assert biased.mean() == pytest.approx(2 * (10 - between) / n, rel=0.02)


def test_the_unbiased_mmd_of_a_permuted_sample(samples):
    x, _ = samples
    kernel = np.exp(-cdist(x, x, "sqeuclidean") / 30.0)
    off_diagonal = (kernel.sum() - len(x)) / (len(x) * (len(x) - 1))
    shuffled = x[np.random.default_rng(0).permutation(len(x))]
    value = mk_mmd(shuffled, x, bandwidth=30.0, n_kernels=1)
    assert value == pytest.approx(-2 / len(x) * (1 - off_diagonal), abs=1e-12)
    assert mk_mmd(shuffled, x, biased=True) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_energy_distance_is_that_of_all_pairs(samples, biased, offset):
    x, y = samples
    expected = -brute(lambda a, b: cdist(a, b), x, y, biased)
    assert energy_distance(x + offset, y + offset, biased=biased, chunk_size=9) == pytest.approx(expected, abs=1e-9)


def test_energy_distance_of_one_gene_is_the_square_of_scipys(samples):
    x, y = samples[0][:, :1], samples[1][:, :1]
    expected = scipy.stats.energy_distance(x.ravel(), y.ravel()) ** 2
    assert energy_distance(x, y, biased=True) == pytest.approx(expected, abs=1e-12)


def test_equal_cells_have_distance_zero():
    # without care the root turns a rounding error of 1e-10 into 1e-5
    x = np.tile(np.random.default_rng(0).normal(100, 30, size=500), (40, 1))
    assert energy_distance(x, x + 0.0) == 0
    y = np.concatenate([x, x[:1] + 1])
    assert energy_distance(x, y, biased=True) == pytest.approx((2 / 41 - 2 * 40 / 41**2) * np.sqrt(500), abs=1e-9)


def test_scores_share_one_pass(samples):
    x, y = samples
    scores = distribution_scores(x, y)
    assert scores == {
        "mk_mmd_200": mk_mmd(x, y),
        "mk_mmd_1000": mk_mmd(x, y, bandwidth=1000),
        "mk_mmd_mean_distance": mk_mmd(x, y, bandwidth="mean-distance"),
        "energy_distance": energy_distance(x, y),
    }
    assert scores == distribution_scores(x, y)
    assert list(distribution_scores(x, y, bandwidths=[0.5], energy=False)) == ["mk_mmd_0.5"]
    swapped = distribution_scores(y, x)
    assert all(swapped[name] == pytest.approx(value, abs=1e-12) for name, value in scores.items())


def test_sparse_and_single_precision_and_integers(samples):
    rng = np.random.default_rng(3)
    x, y = rng.poisson(0.4, size=(60, 30)), rng.poisson(0.5, size=(50, 30))
    expected = distribution_scores(x.astype(float), y.astype(float))
    assert distribution_scores(x, y) == expected
    assert distribution_scores(sparse.csc_matrix(x.astype(np.float32)), sparse.csr_array(y)) == expected
    assert variance_ratio(sparse.csr_matrix(x), y) == pytest.approx(variance_ratio(x, y), rel=1e-12)


def test_inputs_stay_as_they_are(samples):
    x, y = samples
    before = x.copy(), y.copy()
    distribution_scores(x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_memory_is_that_of_chunks():
    n = 3000
    x = np.random.default_rng(0).normal(size=(n, 10))
    tracemalloc.start()
    mk_mmd(x, x + 1, n_kernels=2, chunk_size=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.2 * 8 * n**2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": "median"}, "'median'"),
        ({"bandwidth": 0.0}, "bandwidth=0.0"),
        ({"bandwidth": np.nan}, "bandwidth=nan"),
        ({"n_kernels": 0}, "n_kernels=0"),
        ({"factor": 1.0}, "factor=1.0"),
        ({"chunk_size": 0}, "chunk_size=0"),
    ],
)
def test_bad_options(samples, options, message):
    with pytest.raises(ValueError, match=message):
        mk_mmd(*samples, **options)


def test_bad_samples(samples):
    x, y = samples
    with pytest.raises(ValueError, match=r"\(70, 40\) and \(55, 39\)"):
        mk_mmd(x, y[:, 1:])
    with pytest.raises(ValueError, match="at least 2 cells, got 1"):
        energy_distance(x[:1], y)
    assert energy_distance(x[:1], y[:1], biased=True) == pytest.approx(2 * np.linalg.norm(x[0] - y[0]))
    with pytest.raises(ValueError, match="not finite"):
        mk_mmd(x, np.where(y > 2, np.nan, y))
    with pytest.raises(ValueError, match="All cells are equal"):
        mk_mmd(np.ones((3, 2)), np.ones((3, 2)), bandwidth="mean-distance")


def test_variance_ratio():
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(30, 5))
    scales = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(variance_ratio(measured * scales + 7, measured, per_gene=True), scales**2, atol=1e-12)
    assert variance_ratio(measured * scales, measured) == pytest.approx(1.0)
    predicted = rng.normal(size=(20, 5))
    expected = predicted.var(axis=0, ddof=1) / measured.var(axis=0, ddof=1)
    np.testing.assert_allclose(variance_ratio(predicted, measured, per_gene=True), expected)
    # the mean of equal values is not exact in binary
    measured[:, :2] = 0.1
    ratios = variance_ratio(predicted, measured, per_gene=True)
    np.testing.assert_array_equal(np.isnan(ratios), [True, True, False, False, False])
    assert variance_ratio(predicted, measured) == pytest.approx(np.median(expected[2:]))
    assert np.isnan(variance_ratio(predicted, np.zeros((3, 5))))
    collapsed = sparse.csr_matrix(np.tile([0.1, 0.0, 0.1, 0.3, 0.0], (9, 1)))
    np.testing.assert_array_equal(variance_ratio(collapsed, measured, per_gene=True)[2:], 0.0)
    with pytest.raises(ValueError, match="at least 2 cells"):
        variance_ratio(predicted[:1], measured)
