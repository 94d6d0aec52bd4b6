import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from raptorgraph.metrics import batch_mixing, label_accuracy, own_latent_ranks


@pytest.fixture
def cells():
    """Cells of three labels of different sizes, which overlap."""
    rng = np.random.default_rng(3)
    labels = np.repeat(["a", "b", "c"], [60, 30, 20])
    latents = rng.normal(size=(110, 4)) * [1, 3, 1, 0.2]
    latents[labels == "b", 0] += 4
    latents[labels == "c", 3] += 0.5
    order = rng.permutation(110)
    return latents[order], labels[order]


def balanced(found: np.ndarray, labels: np.ndarray) -> float:
    return np.mean([(found[labels == name] == name).mean() for name in np.unique(labels)])


def test_neighbors_by_hand(cells):
    latents, labels = cells
    found, distance = np.empty_like(labels), cdist(latents, latents)
    for fitted, told in StratifiedKFold(4, shuffle=True, random_state=5).split(latents, labels):
        for cell in told:
            near = fitted[np.argsort(distance[cell, fitted])[:15]]
            votes = [(labels[near] == name).sum() / (labels == name).sum() for name in "abc"]
            found[cell] = "abc"[np.argmax(votes)]
    assert label_accuracy(latents, labels, seed=5) == pytest.approx(balanced(found, labels))
    assert 0.4 < balanced(found, labels) < 0.9


def test_logistic_regression_by_hand(cells):
    latents, labels = cells
    found = np.empty_like(labels)
    for fitted, told in StratifiedKFold(4, shuffle=True, random_state=0).split(latents, labels):
        mean, sd = latents[fitted].mean(axis=0), latents[fitted].std(axis=0)
        sizes = {name: (labels[fitted] == name).sum() for name in "abc"}
        weight = [len(fitted) / (3 * sizes[name]) for name in labels[fitted]]
        model = LogisticRegression(C=0.1).fit((latents[fitted] - mean) / sd, labels[fitted], sample_weight=weight)
        found[told] = model.predict((latents[told] - mean) / sd)
    assert label_accuracy(latents, labels, "logistic") == pytest.approx(balanced(found, labels))
    # unlike that of neighbors, it does not depend on the units of a latent
    assert label_accuracy(latents * [1, 100, 1, 1], labels, "logistic") == label_accuracy(latents, labels, "logistic")
    assert label_accuracy(latents * [1, 100, 1, 1], labels) < label_accuracy(latents, labels)


def test_accuracy_by_chance():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c", "d"], [400, 100, 100, 100])
    latents = rng.normal(size=(700, 3))
    for classifier in ("neighbors", "logistic"):
        assert label_accuracy(latents, labels, classifier) == pytest.approx(0.25, abs=0.03)


def test_ranks_of_own_latents():
    values = np.array([[5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0], [1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 2.0, 1.0]])
    np.testing.assert_array_equal(own_latent_ranks(values, [0, 3, 2, 1]), [1, 4, 2.5, 1.5])
    rng = np.random.default_rng(0)
    by_chance = own_latent_ranks(rng.normal(size=(4000, 9)), rng.integers(9, size=4000))
    assert by_chance.mean() == pytest.approx(5, abs=0.15)


def test_batch_mixing_by_hand():
    rng = np.random.default_rng(1)
    latents, batches = rng.normal(size=(50, 2)), np.repeat(["x", "y"], [35, 15])
    latents[batches == "y"] += 0.7
    distance = cdist(latents, latents)
    np.fill_diagonal(distance, np.inf)
    shares = [(batches[np.argsort(row)[:6]] != own).mean() for row, own in zip(distance, batches, strict=True)]
    expected = (35 * 15 / 49 + 15 * 35 / 49) / 50
    assert batch_mixing(latents, batches, n_neighbors=6) == pytest.approx(np.mean(shares) / expected)
    # all other cells are neighbors
    assert batch_mixing(latents, batches, n_neighbors=49) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: label_accuracy(x, ["a"] * 20), "label 'a'"),
        (lambda x: label_accuracy(x, ["a"] * 18 + ["b"] * 2), "'b' has 2 cells, fewer than the 4 folds"),
        (lambda x: label_accuracy(x, ["a", "b"] * 9), r"`labels` has the shape \(18,\)"),
        (lambda x: label_accuracy(x, ["a", "b"] * 10, n_neighbors=16), "n_neighbors=16 are more than the 15 cells"),
        (lambda x: label_accuracy(x, ["a", "b"] * 10, "tree"), "classifier='tree' is unknown"),
        (lambda x: label_accuracy(x[0], ["a"]), r"shape \(2,\): give cells x latents"),
        (lambda x: label_accuracy(x / 0, ["a", "b"] * 10), r"Row 0 of `latents` is not finite \(20 such rows\)"),
        (lambda x: own_latent_ranks(x, [2] * 20), "columns from 0 to 1"),
        (lambda x: own_latent_ranks(x, [1.0] * 20), "as integers"),
        (lambda x: batch_mixing(x, [0] * 20), "All cells are of the batch"),
        (lambda x: batch_mixing(x, [0, 1] * 10, n_neighbors=20), "n_neighbors=20"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_errors(call, match):
    with pytest.raises(ValueError, match=match):
        call(np.ones((20, 2)))
