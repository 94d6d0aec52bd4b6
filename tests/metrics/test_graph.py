from itertools import combinations, permutations

import networkx as nx
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from raptorgraph.metrics._graph import (
    ancestor_auprc,
    ancestors,
    chance_auprc,
    chance_jaccard,
    edge_auprc,
    edge_correlation,
    orientation_accuracy,
    structural_hamming_distance,
    top_edge_jaccard,
    top_edges,
)


def random_dag(d: int, seed: int, share: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = np.triu(rng.normal(size=(d, d)) * (rng.random((d, d)) < share), k=1)
    order = rng.permutation(d)
    return weights[np.ix_(order, order)]


def test_correlation_ignores_the_diagonal():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 6))
    off = ~np.eye(6, dtype=bool)
    expected = np.corrcoef(a[off], b[off])[0, 1]
    assert edge_correlation(a, b) == pytest.approx(expected)
    assert edge_correlation(a + 100 * np.eye(6), b - 7 * np.eye(6)) == pytest.approx(expected)
    assert edge_correlation(a, -2 * a) == pytest.approx(-1)


def test_an_empty_graph_has_no_correlation():
    # two diagonal "graphs" would correlate at 1 with the diagonal, and at -1 / (n - 1) by an artefact without it
    assert np.isnan(edge_correlation(np.eye(5), np.eye(5)))
    assert np.isnan(edge_correlation(np.zeros((5, 5)), random_dag(5, 0)))


def test_top_edges_are_the_heaviest_and_ties_follow_the_position():
    weights = np.array([[9.0, 1.0, -3.0], [0.0, 9.0, 1.0], [2.0, 0.0, 9.0]])
    assert top_edges(weights, 10).tolist() == [2, 6, 1, 5]
    assert top_edges(weights, 3).tolist() == [2, 6, 1]
    assert top_edges(np.eye(3), 3).size == 0


def test_jaccard_of_known_sets():
    a = np.zeros((4, 4))
    b = a.copy()
    a[0, 1], a[0, 2], a[0, 3] = 3, 2, 1
    b[0, 1], b[0, 2], b[2, 3] = 1, 2, 3
    assert top_edge_jaccard(a, b, 3) == pytest.approx(2 / 4)
    assert top_edge_jaccard(a, b, 1) == 0
    assert top_edge_jaccard(a, a, 2) == 1
    assert top_edge_jaccard(a, np.zeros((4, 4)), 2) == 0
    assert np.isnan(top_edge_jaccard(np.eye(4), np.eye(4), 2))


@pytest.mark.parametrize(("n", "k", "other"), [(6, 2, 2), (6, 3, 3), (7, 2, 4), (5, 5, 2), (5, 0, 3)])
def test_chance_of_the_jaccard_is_the_mean_over_all_sets(n, k, other):
    first = set(range(k))
    values = [len(first & set(s)) / len(first | set(s)) for s in combinations(range(n), other)]
    assert chance_jaccard(n, k, other) == pytest.approx(np.mean(values))
    assert chance_jaccard(n, other, k) == pytest.approx(np.mean(values))


def test_chance_of_the_jaccard_at_published_size():
    # the published graph has 165 x 164 possible edges, of which 100 are compared
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 165, 165))
    assert chance_jaccard(165 * 164, 100) == pytest.approx(0.00186, abs=2e-5)
    first, second = (
        set(sorted(permutations(range(165), 2), key=lambda edge: -abs(weights[edge]))[:100]) for weights in (a, b)
    )
    assert top_edge_jaccard(a, b, 100) == len(first & second) / len(first | second)
    assert chance_jaccard(10, 10) == pytest.approx(1)
    assert np.isnan(chance_jaccard(10, 0))


def test_hamming_distance_counts_a_reversal_once():
    a = np.zeros((4, 4))
    a[0, 1] = a[1, 2] = 0.5
    b = np.zeros((4, 4))
    b[1, 0] = b[2, 3] = -2
    assert structural_hamming_distance(a, b) == 3  # one reversed, one missing, one added
    assert structural_hamming_distance(a, 3 * a + np.eye(4)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_auprc_against_sklearn(seed):
    truth = random_dag(7, seed)
    weights = np.random.default_rng(seed + 10).normal(size=(7, 7))
    pairs = list(permutations(range(7), 2))
    expected = average_precision_score([truth[i, j] != 0 for i, j in pairs], [abs(weights[i, j]) for i, j in pairs])
    assert edge_auprc(weights, truth) == pytest.approx(expected)
    pairs = list(combinations(range(7), 2))
    joined = [truth[i, j] != 0 or truth[j, i] != 0 for i, j in pairs]
    expected = average_precision_score(joined, [max(abs(weights[i, j]), abs(weights[j, i])) for i, j in pairs])
    assert edge_auprc(weights, truth, directed=False) == pytest.approx(expected)


def test_auprc_of_the_truth_its_reverse_and_nothing():
    truth = random_dag(8, 1)
    n_edges = (truth != 0).sum()
    assert edge_auprc(truth, truth) == pytest.approx(1)
    assert edge_auprc(truth.T, truth, directed=False) == pytest.approx(1)
    assert edge_auprc(truth.T, truth) == pytest.approx(n_edges / 56)  # no better than an empty graph
    assert edge_auprc(np.zeros((8, 8)), truth) == pytest.approx(n_edges / 56)
    assert np.isnan(edge_auprc(truth, np.zeros((8, 8))))


@pytest.mark.parametrize(("n", "m"), [(5, 2), (6, 1), (6, 5), (4, 4)])
def test_chance_of_the_auprc_is_the_mean_over_all_orders(n, m):
    values = [
        average_precision_score(np.isin(np.arange(n), list(edges)), -np.arange(n))
        for edges in combinations(range(n), m)
    ]
    assert chance_auprc(n, m) == pytest.approx(np.mean(values))
    assert np.isnan(chance_auprc(n, 0))


@pytest.mark.parametrize("seed", range(3))
def test_ancestors_against_networkx(seed):
    weights = random_dag(9, seed)
    graph = nx.DiGraph([(i, j) for i, j in permutations(range(9), 2) if weights[i, j] != 0])
    graph.add_nodes_from(range(9))
    expected = np.array([[i in nx.ancestors(graph, j) for j in range(9)] for i in range(9)])
    np.testing.assert_array_equal(ancestors(weights), expected)
    np.testing.assert_array_equal(ancestors(weights + np.eye(9)), expected)


def test_ancestor_auprc_follows_paths():
    truth = np.zeros((4, 4))
    truth[0, 1] = truth[1, 2] = 0.5
    shortcut = np.zeros((4, 4))
    shortcut[0, 1] = shortcut[0, 2] = shortcut[1, 2] = 0.5
    assert ancestor_auprc(truth, truth) == pytest.approx(1)
    assert ancestor_auprc(shortcut, truth) == pytest.approx(1)
    assert edge_auprc(shortcut, truth) < 1
    total = np.linalg.inv(np.eye(4) - shortcut.T)
    off = ~np.eye(4, dtype=bool)
    expected = average_precision_score(ancestors(truth)[off], np.abs(total)[off])
    assert ancestor_auprc(shortcut.T, truth) == pytest.approx(expected)
    assert expected < 1


def test_orientation():
    truth = np.zeros((4, 4))
    truth[0, 1] = truth[1, 2] = truth[2, 3] = 1
    weights = np.zeros((4, 4))
    weights[0, 1], weights[1, 0] = -2, 1  # right
    weights[2, 1] = 1  # wrong
    weights[0, 3] = 5  # no true edge
    assert orientation_accuracy(weights, truth) == pytest.approx(0.5)
    weights[2, 3] = weights[3, 2] = 1  # undecided
    assert orientation_accuracy(weights, truth) == pytest.approx(0.5)
    assert orientation_accuracy(truth, truth) == 1
    assert orientation_accuracy(truth.T, truth) == 0
    assert np.isnan(orientation_accuracy(np.zeros((4, 4)), truth))


def test_bad_graphs():
    with pytest.raises(ValueError, match=r"a has shape \(2, 3\)"):
        edge_correlation(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"a \(2, 2\), b \(3, 3\)"):
        top_edge_jaccard(np.ones((2, 2)), np.ones((3, 3)), 1)
    with pytest.raises(ValueError, match="not finite"):
        edge_auprc(np.full((2, 2), np.nan), np.ones((2, 2)))
    with pytest.raises(ValueError, match="k=0"):
        top_edges(np.ones((2, 2)), 0)
    with pytest.raises(ValueError, match="7 cannot be drawn from 6"):
        chance_jaccard(6, 7)
    with pytest.raises(ValueError, match="3 edges among 2"):
        chance_auprc(2, 3)
    with pytest.raises(ValueError, match="cycle"):
        ancestors(np.ones((2, 2)))


def test_weights_without_total_effects_have_no_score():
    assert np.isnan(ancestor_auprc(np.ones((2, 2)), np.triu(np.ones((2, 2)), k=1)))
