import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import TheilSenRegressor

from raptorgraph.metrics._gears import distance_correlation, gears_classes, gears_scores, gears_strengths
from raptorgraph.metrics._precision import precision_at_k

TYPES = ["synergy", "suppression", "redundancy", "neomorphism", "epistasis"]


@pytest.fixture
def effects():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 80))
    a[:, 60:70], b[:, 65:] = 0, 0  # genes of which one, or no, single effect is known
    weights = np.array([[1.0, 1], [0.6, 0.9], [1.5, 0.1], [0.3, 0.2]])
    return a, b, weights[:, :1] * a + weights[:, 1:] * b + 0.3 * rng.normal(size=a.shape)


def test_fit_is_that_of_scikit_learn(effects):
    a, b, ab = effects
    scores = gears_scores(a, b, ab)
    for k in range(4):
        X = np.column_stack([a[k], b[k]])
        fit = TheilSenRegressor(fit_intercept=False, max_subpopulation=1e5, max_iter=10000, tol=1e-9, random_state=0)
        fit.fit(X, ab[k])
        c1, c2 = fit.coef_
        np.testing.assert_allclose([scores["c1"][k], scores["c2"][k]], [c1, c2], atol=1e-4)
        assert scores["magnitude"][k] == pytest.approx(np.hypot(c1, c2), abs=1e-4)
        assert scores["dominance"][k] == pytest.approx(abs(np.log10(c1 / c2)), abs=1e-3)
        assert scores["model_fit"][k] == pytest.approx(np.corrcoef(fit.predict(X), ab[k])[0, 1], abs=1e-6)


def test_random_gene_pairs_are_near_all_of_them_and_repeat(effects):
    a, b, ab = effects
    exact, some = gears_scores(a, b, ab), gears_scores(a, b, ab, max_subpopulation=2000)
    np.testing.assert_allclose(some["magnitude"], exact["magnitude"], atol=0.05)
    again, other = (gears_scores(a, b, ab, max_subpopulation=2000, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(some["magnitude"], again["magnitude"])
    assert (some["magnitude"] != other["magnitude"]).all()
    # no pair depends on the others
    alone = gears_scores(a[2:3], b[2:3], ab[2:3], max_subpopulation=2000)
    assert alone["magnitude"][0] == some["magnitude"][2]


def test_outliers_do_not_move_the_fit(effects):
    a, b, _ = effects
    ab = a + b
    ab[:, :6] += 50
    scores = gears_scores(a, b, ab)
    np.testing.assert_allclose([scores["c1"], scores["c2"]], 1, atol=0.02)


def test_known_pairs():
    a, b = np.random.default_rng(1).normal(size=(2, 5, 300))
    ab = np.stack([a[0] + b[0], 2 * a[1] + 2 * b[1], 0.5 * (a[2] + b[2]), a[3], a[4]])
    b[4] = a[4]
    ab[3] += 0.01 * b[3]
    scores = gears_scores(a, b, ab)
    np.testing.assert_allclose(scores["magnitude"][:3], np.sqrt([2, 8, 0.5]), atol=1e-5)
    np.testing.assert_allclose(scores["dominance"][:3], 0, atol=1e-5)
    np.testing.assert_allclose(scores["dominance"][3], 2, atol=1e-3)
    np.testing.assert_allclose(scores["model_fit"], 1)
    assert scores["equality_contribution"][:3].min() > 0.8 > 0.28 > scores["equality_contribution"][3]
    # one and the same effect: twice the distances of a, hence linear, and half to each
    np.testing.assert_allclose(
        [scores[name][4] for name in ("c1", "c2", "similarity", "equality_contribution")], [0.5, 0.5, 1, 1], atol=1e-6
    )
    classes = gears_classes(scores)
    assert list(classes) == TYPES
    np.testing.assert_array_equal(classes["synergy"], [True, True, False, False, False])
    np.testing.assert_array_equal(classes["suppression"], [False, False, True, False, True])
    np.testing.assert_array_equal(classes["epistasis"], [False, False, False, True, False])
    assert classes["redundancy"][4]
    assert not classes["neomorphism"].any()


def test_strengths_rank_as_the_thresholds(effects):
    scores = gears_scores(*effects)
    classes, strengths = gears_classes(scores), gears_strengths(scores)
    for kind in TYPES:
        positive = classes[kind]
        if positive.any():
            assert precision_at_k(strengths[kind], positive, k=int(positive.sum())) == 1
    assert classes["synergy"].any()
    assert classes["suppression"].any()


def test_no_effect_of_the_pair_is_undefined(effects):
    a, b, ab = effects
    scores = gears_scores(a, b, 0 * ab)
    for name in ("c1", "c2", "magnitude", "similarity"):
        np.testing.assert_array_equal(scores[name], 0)
    for name in ("dominance", "model_fit", "equality_contribution"):
        assert np.isnan(scores[name]).all()
    assert not gears_classes(scores)["neomorphism"].any()


def test_distance_correlation_of_known_samples():
    # two groups: the centered distances are those of the indicator, so dcor is the absolute phi coefficient
    x, y = np.array([0.0, 0, 0, 1, 1, 1, 1, 1]), np.array([0.0, 0, 1, 1, 1, 1, 0, 1])
    phi = np.corrcoef(x, y)[0, 1]
    assert distance_correlation(x, y) == pytest.approx(abs(phi))
    z = np.random.default_rng(2).normal(size=100)
    assert distance_correlation(z, 3 - 2 * z) == pytest.approx(1)
    assert distance_correlation(z, np.ones(100)) == 0
    # turning a sample in space changes no distance
    points = np.random.default_rng(3).normal(size=(100, 2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert distance_correlation(points @ turn, z) == pytest.approx(distance_correlation(points, z))


def test_distance_correlation_is_that_of_mean_distances():
    # Szekely et al. 2007, remark 3: the covariance is S1 + S2 - 2 S3, means over pairs and triples of observations
    def covariance(a, b):
        return (a * b).mean() + a.mean() * b.mean() - 2 * (a.mean(axis=0) * b.mean(axis=0)).mean()

    z = np.random.default_rng(2).normal(size=100)
    points = np.random.default_rng(3).normal(size=(100, 3))
    for x, y in ((z, z**2), (points, z), (points, points[:, 0])):
        a, b = (cdist(sample.reshape(100, -1), sample.reshape(100, -1)) for sample in (x, y))
        expected = np.sqrt(covariance(a, b) / np.sqrt(covariance(a, a) * covariance(b, b)))
        assert distance_correlation(x, y) == pytest.approx(expected)


def test_distance_correlation_is_that_of_dcor(effects):
    dcor = pytest.importorskip("dcor")
    a, b, ab = (effect[0] for effect in effects)
    for x in (a, np.column_stack([a, b])):
        assert distance_correlation(x, ab) == pytest.approx(dcor.distance_correlation(x, ab), abs=1e-10)


def test_scores_use_the_distance_correlation(effects):
    a, b, ab = effects
    scores = gears_scores(a, b, ab)
    for k in range(4):
        both = distance_correlation(np.column_stack([a[k], b[k]]), ab[k])
        parts = sorted([distance_correlation(a[k], ab[k]), distance_correlation(b[k], ab[k])])
        assert scores["similarity"][k] == pytest.approx(both)
        assert scores["equality_contribution"][k] == pytest.approx(parts[0] / parts[1])


def test_errors(effects):
    a, b, ab = effects
    with pytest.raises(ValueError, match=r"\(4, 80\), \(4, 80\) and \(3, 80\)"):
        gears_scores(a, b, ab[:3])
    with pytest.raises(ValueError, match="three genes"):
        gears_scores(a[:, :2], b[:, :2], ab[:, :2])
    with pytest.raises(ValueError, match="max_subpopulation=0"):
        gears_scores(a, b, ab, max_subpopulation=0)
    b[1, 3] = np.nan
    with pytest.raises(ValueError, match="Row 1 of `b`"):
        gears_scores(a, b, ab)
    with pytest.raises(ValueError, match="4 observations of x and 3"):
        distance_correlation(np.ones(4), np.ones(3))
