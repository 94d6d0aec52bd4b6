from itertools import combinations
from math import comb

import numpy as np
import pytest

from raptorgraph.metrics._reverse import chance_hit_rates, hit_rates, reverse_distances

GENES = (
    "CEBPA CEBPE CNN1 FEV FOSB FOXA1 FOXF1 HOXB9 IGDCC3 IKZF3 KLF1 MAP2K6 MAPK1 OSR2 PRTG PTPN9 SAMD1 TGFBR2 "
    "UBASH3B ZBTB25"
).split()
PAIRS = list(combinations(GENES, 2))


def test_distances_leave_out_the_targets():
    rng = np.random.default_rng(0)
    predicted, queries = rng.normal(size=(5, 8)), rng.normal(size=(3, 8))
    exclude = np.arange(8) < 3
    expected = np.linalg.norm(queries[:, None, 3:] - predicted[None, :, 3:], axis=2)
    np.testing.assert_allclose(reverse_distances(predicted, queries, exclude=exclude), expected)
    queries[:, :3] += 100
    np.testing.assert_allclose(reverse_distances(predicted, queries, exclude=exclude), expected)
    assert (reverse_distances(predicted, queries) > 100).all()


def test_hits_of_a_known_order():
    database = [("A", "B"), ("A", "C"), ("B", "C"), ("D", "E")]
    queries = [("B", "A"), ("C", "A")]  # the order of the genes does not matter
    distances = [[2.0, 1, 3, 0], [0.0, 3, 2, 1]]
    rates = hit_rates(distances, database, queries, k=(1, 2, 3, 4))
    np.testing.assert_allclose(rates["correct"], [0, 0, 0.5, 1])
    np.testing.assert_allclose(rates["relevant"], [0.5, 1, 1, 1])
    perfect = hit_rates(1 - np.eye(4), database, database, k=(1,))
    assert perfect["correct"] == perfect["relevant"] == 1


def test_ties_count_by_their_expected_value():
    rng = np.random.default_rng(1)
    database, queries = PAIRS[:12], PAIRS[3:5]
    distances = rng.integers(3, size=(2, 12)).astype(float)
    rates = hit_rates(distances, database, queries, k=(1, 4))
    drawn = {"correct": [], "relevant": []}
    for _ in range(4000):
        order = hit_rates(distances + 1e-3 * rng.random(distances.shape), database, queries, k=(1, 4))
        for name, rate in drawn.items():
            rate.append(order[name])
    for name, rate in drawn.items():
        np.testing.assert_allclose(np.mean(rate, axis=0), rates[name], atol=0.03)


def test_chance_of_the_twenty_genes():
    rates = chance_hit_rates(PAIRS, PAIRS[:30])
    np.testing.assert_allclose(rates["correct"], np.array([1, 3, 5, 10]) / 190)
    # each pair shares a gene with 37 of the 190, itself included
    np.testing.assert_allclose(rates["relevant"], [1 - comb(153, k) / comb(190, k) for k in (1, 3, 5, 10)])
    np.testing.assert_allclose(rates["relevant"], [0.195, 0.480, 0.666, 0.892], atol=5e-4)


def test_no_change_scores_chance():
    predicted = np.zeros((len(PAIRS), 6))
    queries = np.random.default_rng(2).normal(size=(30, 6))
    rates, chance = hit_rates(reverse_distances(predicted, queries), PAIRS, PAIRS[:30]), chance_hit_rates(PAIRS, PAIRS)
    for name in chance:
        np.testing.assert_allclose(rates[name], chance[name])


def test_errors():
    database = [("A", "B"), ("A", "C")]
    with pytest.raises(TypeError, match="'A\\+B' in `database`"):
        hit_rates(np.zeros((1, 2)), ["A+B", "A+C"], [("A", "B")])
    with pytest.raises(ValueError, match="B\\+C is not in the database"):
        chance_hit_rates(database, [("C", "B")], k=(1,))
    with pytest.raises(ValueError, match="A\\+B is in the database twice"):
        chance_hit_rates([*database, ("B", "A")], [("A", "B")], k=(1,))
    with pytest.raises(ValueError, match="k=3"):
        chance_hit_rates(database, database)
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        hit_rates(np.zeros((2, 1)), database, database, k=(1,))
    with pytest.raises(ValueError, match="query 1 are NaN"):
        hit_rates([[0.0, 1], [np.nan, 0]], database, database, k=(1,))
    with pytest.raises(ValueError, match="0 queries"):
        chance_hit_rates(database, [], k=(1,))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        reverse_distances(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="Row 1 of `queries`"):
        reverse_distances(np.zeros((2, 3)), [[0.0, 0, 0], [0, np.inf, 0]])
    with pytest.raises(ValueError, match="leave some gene"):
        reverse_distances(np.zeros((2, 3)), np.zeros((2, 3)), exclude=np.ones(3, dtype=bool))
