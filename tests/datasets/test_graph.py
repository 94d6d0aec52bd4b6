import networkx as nx
import numpy as np
import pytest
from scipy import stats

from raptorgraph.datasets._graph import random_graph


@pytest.mark.parametrize(("kind", "degree"), [("erdos-renyi", 2.0), ("scale-free", 1.0), ("scale-free", 2.5)])
def test_graph_is_acyclic_and_standardized(kind, degree):
    d = 120
    graph = random_graph(d, kind, degree, np.random.default_rng(0))
    network = nx.from_numpy_array(graph.adjacency, create_using=nx.DiGraph)
    assert nx.is_directed_acyclic_graph(network)
    rows, columns = np.nonzero(graph.adjacency)
    assert 0.3 < (rows < columns).mean() < 0.7  # the order of the index says nothing
    assert 0.3 < (graph.adjacency[rows, columns] > 0).mean() < 0.7
    assert len(rows) / d == pytest.approx(degree, rel=0.15)
    np.testing.assert_allclose((np.eye(d) - graph.adjacency) @ graph.total, np.eye(d), atol=1e-12)
    variance = graph.total.T @ np.diag(graph.noise_sd**2) @ graph.total
    np.testing.assert_allclose(np.diag(variance), 1.0)
    has_path = nx.to_numpy_array(nx.transitive_closure_dag(network), nodelist=range(d), weight=None) > 0
    assert not graph.total[~has_path & ~np.eye(d, dtype=bool)].any()


@pytest.mark.parametrize(("kind", "degree"), [("erdos-renyi", 3.0), ("scale-free", 3.0)])
def test_weights_before_scaling_are_uniform_with_random_signs(kind, degree):
    graph = random_graph(200, kind, degree, np.random.default_rng(1))
    cause, effect = np.nonzero(graph.adjacency)
    weights = graph.adjacency[cause, effect] * graph.noise_sd[cause] / graph.noise_sd[effect]
    assert stats.kstest(np.abs(weights), stats.uniform(0.3, 0.6).cdf).pvalue > 1e-3
    assert stats.binomtest(int((weights > 0).sum()), len(weights)).pvalue > 1e-3


def test_numbers_of_edges():
    edges = [
        np.count_nonzero(random_graph(40, "erdos-renyi", 1.5, np.random.default_rng(k)).adjacency) for k in range(9)
    ]
    assert stats.binomtest(sum(edges), 9 * 40 * 39 // 2, 2 * 1.5 / 39).pvalue > 1e-3
    # each node but the first few joins as many others as the degree says, so degree 1 gives a tree
    for degree, expected in ((1.0, 39), (3.0, 3 * 37)):
        assert np.count_nonzero(random_graph(40, "scale-free", degree, np.random.default_rng(0)).adjacency) == expected


@pytest.mark.parametrize("kind", ["erdos-renyi", "scale-free"])
def test_degrees_follow_their_distribution(kind):
    d = 1500
    adjacency = random_graph(d, kind, 1.0, np.random.default_rng(0)).adjacency != 0
    degree = adjacency.sum(axis=0) + adjacency.sum(axis=1)
    for k in (1, 2, 3, 4, 30):
        # Barabasi-Albert with one edge a node: share 4 / (k (k + 1) (k + 2)) of degree k (Bollobas et al. 2001)
        share = 4 / (k * (k + 1) * (k + 2)) if kind == "scale-free" else stats.poisson(2.0).pmf(k)
        assert (degree == k).mean() == pytest.approx(share, abs=4 * np.sqrt(share / d))
    assert (degree.max() > np.sqrt(d)) == (kind == "scale-free")  # hubs


def test_two_latents_are_not_in_index_order():
    edges = [random_graph(2, "erdos-renyi", 0.5, np.random.default_rng(seed)).adjacency for seed in range(5)]
    assert all(edge[1, 0] != 0 and edge[0, 1] == 0 for edge in edges)


def test_answered_edges_close_loops_that_do_not_explode():
    plain = random_graph(30, "erdos-renyi", 1.5, np.random.default_rng(3))
    graph = random_graph(30, "erdos-renyi", 1.5, np.random.default_rng(3), feedback=0.5)
    edges, before = graph.adjacency != 0, plain.adjacency != 0
    assert (edges & before == before).all()  # the answers come in addition
    added = edges & ~before
    assert added.sum() == round(0.5 * before.sum())
    assert before.T[added].all()
    np.testing.assert_allclose(graph.total, np.linalg.inv(np.eye(30) - graph.adjacency), atol=1e-10)
    np.testing.assert_allclose((graph.total**2).T @ graph.noise_sd**2, 1.0)
    assert np.abs(np.linalg.eigvals(graph.adjacency)).max() < 0.8 + 1e-9
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(before, create_using=nx.DiGraph))
    assert not nx.is_directed_acyclic_graph(nx.from_numpy_array(edges, create_using=nx.DiGraph))
