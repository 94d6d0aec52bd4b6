"""Places of nodes, against the definition of each step and brute force on small graphs."""

import itertools

import networkx as nx
import numpy as np
import pytest

from raptorgraph.pl._layered import _crossings, _layers, _ordered_rows, _ports, layered_layout


def random_graph(n, n_edges, seed=0):
    """Acyclic graph of nodes whose names do not give their order away, without nodes that have no edge."""
    rng = np.random.default_rng(seed)
    cause, effect = np.triu_indices(n, 1)
    chosen = rng.choice(len(cause), n_edges, replace=False)
    names = rng.permutation([f"GENE{k}" for k in range(n)])
    edges = [(names[cause[k]], names[effect[k]]) for k in chosen]
    graph = nx.DiGraph()
    graph.add_nodes_from(sorted({node for edge in edges for node in edge}))
    graph.add_edges_from(edges)
    return graph


def connected(n, n_edges, seed):
    graph = random_graph(n, n_edges, seed)
    return graph.subgraph(max(nx.weakly_connected_components(graph), key=len)).copy()


@pytest.mark.parametrize("seed", range(4))
def test_layers_have_the_least_sum_of_edge_lengths(seed):
    graph = connected(6, 8, seed)
    layer = _layers(graph)
    assert min(layer.values()) == 0

    def length(of):
        spans = [of[effect] - of[cause] for cause, effect in graph.edges]
        return sum(spans) if min(spans) >= 1 else np.inf

    nodes = list(graph)
    best = min(length(dict(zip(nodes, of, strict=True))) for of in itertools.product(range(5), repeat=len(nodes)))
    assert length(layer) == best


def test_crossings_are_counted_pair_by_pair():
    rng = np.random.default_rng(0)
    graph = nx.DiGraph([(f"u{i}", f"l{j}") for i in range(5) for j in range(6) if rng.random() < 0.5])
    rows = [[f"u{i}" for i in range(5)], [f"l{j}" for j in rng.permutation(6)]]
    rows[1] = [node for node in rows[1] if node in graph]
    place = {node: k for row in rows for k, node in enumerate(row)}
    expected = sum(
        (place[a] - place[c]) * (place[b] - place[d]) < 0 for (a, b), (c, d) in itertools.combinations(graph.edges, 2)
    )
    assert _crossings(graph, rows) == expected > 5


@pytest.mark.parametrize("seed", range(4))
def test_orders_have_about_as_few_crossings_as_there_can_be(seed):
    rng = np.random.default_rng(seed)
    rows = [[f"a{k}" for k in range(4)], [f"b{k}" for k in range(4)], [f"c{k}" for k in range(3)]]
    edges = [(u, v) for upper, lower in itertools.pairwise(rows) for u in upper for v in lower if rng.random() < 0.45]
    graph = nx.DiGraph(edges)
    layer = {node: "abc".index(node[0]) for node in graph}
    graph = graph.subgraph(max(nx.weakly_connected_components(graph), key=len)).copy()
    rows = [[node for node in row if node in graph] for row in rows]
    orders = itertools.product(*(map(list, itertools.permutations(row)) for row in rows))
    fewest = min(_crossings(graph, list(order)) for order in orders)
    assert _crossings(graph, _ordered_rows(graph, {node: layer[node] for node in graph})) <= fewest + 1


def test_edges_start_apart_and_in_the_order_of_their_ends():
    chains = {("a", k): ["a", k] for k in (2, 0, 1)} | {("b", 0): ["b", 0]}
    x = {"a": 50.0, "b": 9.0, 0: 0.0, 1: 50.0, 2: 90.0}
    out = _ports(chains, x, dict.fromkeys(x, 20.0), end=0)
    assert out == pytest.approx({("a", 0): -8.0, ("a", 1): 0.0, ("a", 2): 8.0, ("b", 0): 0.0})  # 0.8 of the width
    into = _ports(chains, x, dict.fromkeys(x, 100.0), end=-1)
    assert into == pytest.approx({("a", 0): 5.5, ("b", 0): -5.5, ("a", 1): 0.0, ("a", 2): 0.0})  # eleven points apart


def test_a_chain_is_straight_and_as_high_as_its_boxes_and_gaps():
    sizes = {0: (30.0, 10.0), 1: (20.0, 14.0), 2: (10.0, 10.0)}
    layout = layered_layout(nx.path_graph(3, create_using=nx.DiGraph), sizes)
    assert {x for x, _ in layout.positions.values()} == {15.0}
    assert layout.width == 30.0
    assert layout.height == pytest.approx(10 + 14 + 10 + 2 * (32 + 1.2))  # 1.2 for the one edge between two layers
    assert layout.positions[0][1] == pytest.approx(layout.height - 5)
    np.testing.assert_allclose(layout.routes[1, 2], [[15.0, 10 + 33.2], [15.0, 10.0]])


@pytest.mark.parametrize("seed", range(3))
def test_layout_keeps_boxes_apart_and_edges_downward(seed):
    graph = random_graph(40, 60, seed)
    layout = layered_layout(graph, dict.fromkeys(graph, (30.0, 12.0)))
    places = np.array([layout.positions[node] for node in graph])
    gaps = np.abs(places[:, None] - places[None])
    apart = (gaps[..., 0] >= 30) | (gaps[..., 1] >= 12) | np.eye(len(places), dtype=bool)
    assert apart.all()
    assert (places >= [15, 6]).all()
    assert (places <= [layout.width - 15, layout.height - 6]).all()
    assert set(layout.routes) == set(graph.edges)
    for (cause, effect), route in layout.routes.items():
        assert (np.diff(route[:, 1]) < 0).all()
        assert route[0, 1] == pytest.approx(layout.positions[cause][1] - 6)
        assert route[-1, 1] == pytest.approx(layout.positions[effect][1] + 6)
        for node in set(graph) - {cause, effect}:  # no edge runs through the box of another node
            x, y = layout.positions[node]
            for (x0, y0), (x1, y1) in itertools.pairwise(route):
                if x0 == x1 and y1 <= y <= y0:
                    assert abs(x0 - x) >= 15


def test_layout_of_a_tree_has_no_crossing_and_is_the_same_every_time():
    tree = nx.balanced_tree(3, 3, create_using=nx.DiGraph)
    sizes = dict.fromkeys(tree, (10.0, 10.0))
    layout = layered_layout(tree, sizes)
    assert layered_layout(tree, sizes).positions == layout.positions
    ends = sorted((layout.positions[a][0], layout.positions[b][0]) for a, b in tree.edges if b >= 13)
    assert [x for _, x in ends] == sorted(x for _, x in ends)
    parents = [layout.positions[node][0] for node in range(13)]
    children = [np.mean([layout.positions[c][0] for c in tree.successors(node)]) for node in range(13)]
    np.testing.assert_allclose(parents, children, atol=1.0)


def test_unconnected_parts_share_the_room():
    graph = nx.disjoint_union_all([nx.path_graph(n, create_using=nx.DiGraph) for n in (6, 3, 2, 2, 2)])
    sizes = dict.fromkeys(graph, (20.0, 10.0))
    layout = layered_layout(graph, sizes)
    assert layout.height == layered_layout(nx.path_graph(6, create_using=nx.DiGraph), sizes).height  # of the tallest
    assert layout.width < 4 * 44  # the small parts stand below each other
    places = np.array(list(layout.positions.values()))
    gaps = np.abs(places[:, None] - places[None])
    assert ((gaps[..., 0] >= 20) | (gaps[..., 1] >= 10) | np.eye(len(places), dtype=bool)).all()
