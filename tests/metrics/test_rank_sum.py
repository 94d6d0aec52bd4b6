from itertools import combinations
from math import erfc, sqrt
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from raptorgraph.metrics._rank_sum import auroc, rank_sum


def test_exact_p_value_is_that_of_all_splits():
    x, y = np.array([[1.2], [3.4], [5.6]]), np.array([[0.1], [2.0], [0.5], [7.0], [0.7]])
    pooled = np.concatenate([x, y]).ravel()
    wins = np.array(
        [
            sum(pooled[i] > pooled[j] for i in chosen for j in set(range(8)) - set(chosen))
            for chosen in combinations(range(8), 3)
        ]
    )
    u, p = rank_sum(x, y)
    assert u == (x > y.T).sum() == 11
    assert p == pytest.approx(2 * (wins >= 11).mean())


def test_asymptotic_p_value_corrects_for_ties_and_continuity():
    rng = np.random.default_rng(0)
    x, y = rng.poisson(1.0, size=(20, 3)), rng.poisson([1.0, 2.0, 0.5], size=(30, 3))
    u, p = rank_sum(x, y, method="asymptotic")
    for gene in range(3):
        wins = (x[:, gene, None] > y[:, gene]).sum() + 0.5 * (x[:, gene, None] == y[:, gene]).sum()
        _, ties = np.unique(np.concatenate([x[:, gene], y[:, gene]]), return_counts=True)
        variance = 20 * 30 / 12 * (51 - (ties**3 - ties).sum() / (50 * 49))
        z = (max(wins, 600 - wins) - 300 - 0.5) / sqrt(variance)
        assert u[gene] == wins
        assert p[gene] == pytest.approx(min(1.0, erfc(z / sqrt(2))))


@pytest.mark.parametrize("answer", [1.0, np.nan])
def test_equal_values_do_not_differ_by_any_version_of_scipy(monkeypatch, answer):
    def other_version(x, y, **options):
        found = mannwhitneyu(x, y, **options)
        constant = np.ptp(np.vstack([x, y]), axis=0) == 0
        return SimpleNamespace(statistic=found.statistic, pvalue=np.where(constant, answer, found.pvalue))

    x, y = np.array([[1.0, 0.0], [1.0, 2.0]]), np.array([[1.0, 5.0], [1.0, 6.0], [1.0, 7.0]])
    expected = [1.0, erfc(2.5 / sqrt(3) / sqrt(2))]  # U = 0 of 3 with variance 3, less the continuity correction
    np.testing.assert_allclose(rank_sum(x, y)[1], expected)
    monkeypatch.setattr("raptorgraph.metrics._rank_sum.mannwhitneyu", other_version)
    u, p = rank_sum(x, y)
    np.testing.assert_array_equal(u, [3, 0])
    np.testing.assert_allclose(p, expected)


def test_missing_values_have_no_p_value():
    x, y = np.array([[1.0, np.nan], [2.0, np.nan]]), np.array([[3.0, 1.0], [4.0, 1.0]])
    np.testing.assert_allclose(rank_sum(x, y)[1], [1 / 3, np.nan])


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.integers(6, size=30), rng.integers(5, size=20)
    above, equal = (x[:, None] > y).mean(), (x[:, None] == y).mean()
    assert auroc(x, y) == pytest.approx(above + equal / 2)
    assert auroc(x, y) == pytest.approx(roc_auc_score(np.repeat([1, 0], [30, 20]), np.concatenate([x, y])))
    for wrong in ([], [1.0, np.nan], [[1.0]]):
        with pytest.raises(ValueError, match="`negative` has the shape"):
            auroc(x, wrong)
