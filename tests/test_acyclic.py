"""The heaviest edges without a cycle, against a search edge by edge."""

import networkx as nx
import numpy as np
import pytest

from raptorgraph._acyclic import acyclic_order, acyclic_support


def edge_by_edge(weights, threshold=0.0):
    size = np.abs(weights) * ~np.eye(len(weights), dtype=bool)
    cause, effect = np.nonzero(size > threshold)
    graph, found = nx.DiGraph(), np.zeros(weights.shape, dtype=bool)
    graph.add_nodes_from(range(len(weights)))
    for k in np.argsort(-size[cause, effect], kind="stable"):
        i, j = int(cause[k]), int(effect[k])
        if not nx.has_path(graph, j, i):
            graph.add_edge(i, j)
            found[i, j] = True
    return found


@pytest.mark.parametrize("density", [0.05, 0.2, 1.0])
def test_support_is_that_of_a_search_edge_by_edge(density):
    rng = np.random.default_rng(round(100 * density))
    for n in (1, 2, 7, 20, 70 if density < 1 else 30):  # more than 64 nodes are kept in several words
        weights = rng.normal(size=(n, n)) * (rng.random((n, n)) < density)
        weights = np.round(weights, 1)  # with ties
        np.testing.assert_array_equal(acyclic_support(weights), edge_by_edge(weights))
        np.testing.assert_array_equal(acyclic_support(weights, 0.5), edge_by_edge(weights, 0.5))


def test_an_order_holds_the_heaviest_edges_and_all_that_agree_with_them():
    rng = np.random.default_rng(0)
    weights = 1e-3 * rng.random((30, 30)).astype(np.float32)
    weights[rng.integers(0, 30, 40), rng.integers(0, 30, 40)] = 1 + rng.random(40).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    order = acyclic_order(weights, 40)
    heavy = edge_by_edge(weights, 0.5)
    assert order[heavy].all()
    assert not order[(weights > 0.5) & ~heavy].any()  # those that would close a cycle
    off = ~np.eye(30, dtype=bool)
    assert (order ^ order.T)[off].all()  # each pair in one direction
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(order, create_using=nx.DiGraph))
    np.testing.assert_array_equal(acyclic_order(weights, 900), acyclic_support(weights))


def test_nodes_that_are_free_come_by_what_goes_out_of_them():
    weights = np.array([[0.0, 0.1, 0.1], [0.1, 0.0, 0.9], [0.3, 0.2, 0.0]])
    order = acyclic_order(weights, 1)  # 1 -> 2 is kept, and 2 has more to give than 0
    np.testing.assert_array_equal(order, [[False, False, False], [True, False, True], [True, False, False]])
