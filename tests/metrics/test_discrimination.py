import numpy as np
import pytest
from scipy.spatial.distance import cdist

from raptorgraph.metrics._discrimination import centroid_accuracy, discrimination_score

SCIPY = {"l1": "cityblock", "l2": "euclidean", "cosine": "cosine"}


@pytest.fixture
def effects():
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(12, 30))
    return measured + 2 * rng.normal(size=measured.shape), measured


@pytest.mark.parametrize("metric", SCIPY)
def test_share_of_farther_truths(effects, metric):
    predicted, measured = effects
    distance = cdist(predicted, measured, SCIPY[metric])
    farther = (distance > distance.diagonal()[:, None]).sum(axis=1)
    share = centroid_accuracy(predicted, measured, metric, per_row=True)
    np.testing.assert_allclose(share, farther / 11)
    assert 0.5 < share.mean() < 1  # neither chance nor trivial
    # cell-eval's: the place of the own truth among all
    place = np.argmax(np.argsort(distance, axis=1) == np.arange(12)[:, None], axis=1)
    score = discrimination_score(predicted, measured, metric, per_row=True)
    np.testing.assert_allclose(score, 1 - place / 12)
    np.testing.assert_allclose(share, (12 * score - 1) / 11)
    assert discrimination_score(predicted, measured, metric) == pytest.approx(score.mean())


@pytest.mark.parametrize("metric", SCIPY)
def test_perfect_and_uninformative_predictions(effects, metric):
    _, measured = effects
    assert centroid_accuracy(measured, measured, metric) == 1
    assert discrimination_score(measured, measured, metric) == 1
    constant = np.tile(measured[:4].mean(axis=0), (12, 1))
    assert centroid_accuracy(constant, measured, metric) == pytest.approx(0.5)
    assert discrimination_score(constant, measured, metric) == pytest.approx(0.5 + 0.5 / 12)


def test_no_change_ties_with_all_others(effects):
    _, measured = effects
    np.testing.assert_allclose(centroid_accuracy(0 * measured, measured, "cosine", per_row=True), 0.5)
    twins = measured[[0, 0, 1]]
    np.testing.assert_allclose(centroid_accuracy(twins, twins, per_row=True), [0.75, 0.75, 1])


@pytest.mark.parametrize("metric", SCIPY)
def test_excluded_genes_do_not_matter(effects, metric):
    predicted, measured = effects
    exclude = np.zeros(predicted.shape, dtype=bool)
    exclude[np.arange(12), np.arange(12)] = True
    rows = []
    for p in range(12):
        keep = np.arange(30) != p
        rows.append(discrimination_score(predicted[:, keep], measured[:, keep], metric, per_row=True)[p])
    np.testing.assert_allclose(discrimination_score(predicted, measured, metric, exclude=exclude, per_row=True), rows)
    none = np.zeros(predicted.shape, dtype=bool)
    assert discrimination_score(predicted, measured, metric, exclude=none) == discrimination_score(
        predicted, measured, metric
    )


def test_targets_tell_the_answer_until_all_are_left_out(effects):
    _, measured = effects
    own = np.eye(12, 30, dtype=bool)
    knockdown = -100.0 * own
    assert centroid_accuracy(knockdown, measured + knockdown) == 1
    # the measured levels of the other targets still tell whose effect it is not
    assert centroid_accuracy(knockdown, measured + knockdown, exclude=own) == 1
    targets = np.tile(own.any(axis=0), (12, 1))
    assert centroid_accuracy(knockdown, measured + knockdown, exclude=targets) == pytest.approx(0.5)


def test_errors(effects):
    predicted, measured = effects
    with pytest.raises(ValueError, match="two or more, got 1"):
        discrimination_score(predicted[:1], measured[:1])
    with pytest.raises(ValueError, match="'euclidean'"):
        discrimination_score(predicted, measured, "euclidean")
    with pytest.raises(ValueError, match=r"\(11, 30\).*\(12, 30\)"):
        centroid_accuracy(predicted[1:], measured)
    with pytest.raises(ValueError, match="int64"):
        centroid_accuracy(predicted, measured, exclude=np.zeros((12, 30), dtype=int))
    with pytest.raises(ValueError, match="row 0"):
        centroid_accuracy(predicted, measured, exclude=np.ones((12, 30), dtype=bool))
    predicted[3, 0] = np.nan
    with pytest.raises(ValueError, match="Row 3 of `predicted`"):
        centroid_accuracy(predicted, measured)
