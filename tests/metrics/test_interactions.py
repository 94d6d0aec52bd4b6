import numpy as np
import pytest
from scipy.spatial.distance import cosine

from raptorgraph import metrics

SCORES = ["synergy", "suppression", "neomorphism", "redundancy", "epistasis"]


def test_additive_pair_of_orthogonal_effects():
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    values = [getattr(metrics, name)(a, b, a + b) for name in SCORES]
    np.testing.assert_allclose(values, [1, 1, 0, np.sqrt(0.5), 0], atol=1e-12)


def test_known_pairs():
    a, b = np.array([3.0, 0.0]), np.array([0.0, 4.0])
    assert metrics.synergy(a, b, 2 * (a + b)) == pytest.approx(2)
    assert metrics.suppression(a, b, 0.25 * (a + b)) == pytest.approx(4)
    assert metrics.neomorphism(a, b, -(a + b)) == pytest.approx(2)
    assert metrics.redundancy(a, a, a) == pytest.approx(1)
    assert metrics.epistasis(a, b, a) == pytest.approx(1)


def test_batches_agree_with_scipy():
    rng = np.random.default_rng(0)
    a, b, ab = rng.normal(size=(3, 7, 20))
    for k in range(7):
        to_a, to_b = 1 - cosine(ab[k], a[k]), 1 - cosine(ab[k], b[k])
        ratio = np.linalg.norm(ab[k]) / np.linalg.norm(a[k] + b[k])
        expected = [ratio, 1 / ratio, cosine(ab[k], a[k] + b[k]), min(to_a, to_b), abs(to_a - to_b)]
        np.testing.assert_allclose([getattr(metrics, name)(a, b, ab)[k] for name in SCORES], expected)


@pytest.mark.parametrize("name", SCORES)
def test_order_of_the_genes_does_not_matter(name):
    a, b, ab = np.random.default_rng(1).normal(size=(3, 4, 10))
    score = getattr(metrics, name)
    np.testing.assert_allclose(score(a, b, ab), score(b, a, ab))


@pytest.mark.parametrize("name", SCORES)
def test_zero_effects_and_bad_shapes(name):
    a = np.ones((2, 3))
    zero = np.zeros((2, 3))
    score = getattr(metrics, name)
    assert np.isnan(score(a, -a, zero)).all()
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 3\), \(3, 3\)"):
        score(a, a, np.ones((3, 3)))
