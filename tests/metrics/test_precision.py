from itertools import permutations

import numpy as np
import pytest

from raptorgraph.metrics import neomorphism, synergy
from raptorgraph.metrics._precision import chance_precision, precision_at_k


def test_known_order():
    measured = np.arange(40.0)  # the ten positives are the last ten
    predicted = measured.copy()
    assert precision_at_k(predicted, measured) == 1
    assert precision_at_k(-predicted, measured) == 0
    assert precision_at_k(-predicted, -measured, largest=False) == 1
    predicted[[0, 1, 2]], predicted[[39, 38, 37]] = 100, -1
    assert precision_at_k(predicted, measured) == pytest.approx(0.7)
    assert precision_at_k(predicted, measured, k=3) == 0
    assert precision_at_k(predicted, measured, k=3, fraction=1) == 1


def test_number_of_positives_is_rounded_up_as_by_the_quantile():
    for n in range(1, 140):
        scores = np.random.default_rng(n).permutation(n).astype(float)
        positives = (scores >= np.quantile(scores, 0.75)).sum()
        assert chance_precision(scores) == positives / n
    assert chance_precision(np.arange(30.0), fraction=0.1) == 0.1  # 0.1 * 30 is above 3 in binary


def test_ties_count_by_their_expected_value():
    predicted, measured = np.array([3.0, 2, 2, 2, 1]), np.array([1.0, 5, 4, 4, 4])
    values = []
    for order in permutations(range(5)):
        order = np.array(order)
        for other in permutations(range(5)):
            # order of ties: that of two independent permutations
            taken = np.lexsort([order, -predicted])[:3]
            positive = np.lexsort([np.array(other), -measured])[:2]
            values.append(len(set(taken) & set(positive)) / 3)
    assert precision_at_k(predicted, measured, k=3, fraction=0.4) == pytest.approx(np.mean(values))


def test_additive_predictions_score_chance_exactly():
    rng = np.random.default_rng(0)
    a, b, ab = rng.normal(size=(3, 131, 50))
    for score in (synergy, neomorphism):
        predicted, measured = score(a, b, a + b), score(a, b, ab)
        assert precision_at_k(predicted, measured) == pytest.approx(33 / 131)
        assert precision_at_k(predicted, measured) == pytest.approx(chance_precision(measured))
        assert precision_at_k(score(a, b, ab), measured) == 1


def test_undefined_predictions_rank_last():
    measured = np.array([1.0, 2, 3, 4])
    assert precision_at_k(np.full(4, np.nan), measured, k=2) == pytest.approx(0.25)
    for largest in (True, False):
        signed = measured if largest else -measured
        predicted = np.where(measured == 4, signed, np.nan)
        assert precision_at_k(predicted, signed, k=1, largest=largest) == 1


def test_labels_in_place_of_scores():
    labels = np.array([True, False, True, False, False])
    assert precision_at_k([5.0, 4, 3, 2, 1], labels, k=2) == 0.5
    assert precision_at_k([5.0, 4, 3, 2, 1], labels, k=100) == chance_precision(labels) == 0.4
    assert chance_precision(np.zeros(3, dtype=bool)) == 0


def test_errors():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        precision_at_k([1.0, 2], [1.0, 2, 3])
    with pytest.raises(ValueError, match="pair 1 is NaN"):
        precision_at_k([1.0, 2], [1.0, np.nan])
    with pytest.raises(ValueError, match="k=0"):
        precision_at_k([1.0, 2], [1.0, 2], k=0)
    with pytest.raises(ValueError, match="fraction=0"):
        chance_precision([1.0, 2], fraction=0)
    with pytest.raises(ValueError, match="one pair or more"):
        precision_at_k([], [])
