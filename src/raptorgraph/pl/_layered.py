"""Places for the nodes of an acyclic graph, causes above effects (the steps of Sugiyama et al. 1981).

Layers are the shortest edges allow, nodes are ordered within them so that few edges cross, and then moved sideways to
straighten the edges. Each connected part is laid out by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import networkx as nx
import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, linprog
from scipy.sparse import csr_matrix

Node = Hashable
Edge = tuple[Node, Node]
_GAP, _LAYER_GAP = 8.0, 32.0  # least distances between the boxes of a layer, and between layers
_ASPECT = 1.5  # width over height, at which the packing of unconnected parts aims
_SWEEPS = 30
_WIDEST = 2.0  # width over height from which layers are moved apart
_DUMMY_WIDTH = 3.0  # room for an edge that passes a layer


@dataclass(frozen=True)
class Layout:
    """Where everything is between (0, 0) and (`width`, `height`); y grows upwards.

    `positions` are the centers of the nodes. Each of the `routes` has the points of an edge, shape (n, 2), from the
    lower side of the cause to the upper side of the effect.
    """

    positions: dict[Node, tuple[float, float]]
    routes: dict[Edge, npt.NDArray[np.float64]]
    width: float
    height: float


def layered_layout(network: nx.DiGraph, sizes: Mapping[Node, tuple[float, float]]) -> Layout:
    """Lay out an acyclic graph, in the units of the `sizes`: width and height of each node's box."""
    parts = [network.subgraph(part) for part in nx.weakly_connected_components(network) if len(part) > 1]
    # from the node order of the network, not of the components' sets, which changes between runs
    order = {node: k for k, node in enumerate(network)}
    layouts = [_connected(_ordered(part, order), sizes) for part in parts]
    for node in network:
        if network.degree(node) == 0:
            width, height = sizes[node]
            layouts.append(Layout({node: (width / 2, height / 2)}, {}, width, height))
    layouts.sort(key=lambda part: (-part.height, -part.width, min(order[node] for node in part.positions)))
    return _packed(layouts)


def _ordered(part: nx.DiGraph, order: Mapping[Node, int]) -> nx.DiGraph:
    """The same graph with nodes and edges in this order."""
    copy = nx.DiGraph()
    copy.add_nodes_from(sorted(part, key=order.__getitem__))
    copy.add_edges_from(sorted(part.edges, key=lambda edge: (order[edge[0]], order[edge[1]])))
    return copy


def _packed(layouts: list[Layout]) -> Layout:
    """Set the parts, the tallest first, in rows of columns: below another part where there is room, or beside it."""
    area = sum((part.width + 3 * _GAP) * (part.height + _LAYER_GAP) for part in layouts)
    row_width = 1.05 * max([np.sqrt(area * _ASPECT), *(part.width for part in layouts)])
    width = height = 0.0
    places: list[tuple[float, float]] = []
    columns: list[list[float]] = []
    # y grows downwards here; a column is its left side, its width and the lower end of what it holds
    top, deepest, right = 0.0, 0.0, np.inf
    for part in layouts:
        below = next((c for c in columns if c[1] >= part.width and c[2] + _LAYER_GAP + part.height <= deepest), None)
        if below is not None:
            at = below[0], below[2] + _LAYER_GAP
            below[2] = at[1] + part.height
        else:
            if right + part.width > row_width:
                top, right, columns = height + (_LAYER_GAP if places else 0.0), 0.0, []
                deepest = top + part.height
            at = right, top
            columns.append([right, part.width, top + part.height])
            right += part.width + 3 * _GAP
        places.append(at)
        width, height = max(width, at[0] + part.width), max(height, at[1] + part.height)
    whole = Layout({}, {}, width, height)
    for part, (x, y) in zip(layouts, places, strict=True):
        shift = np.array([x, height - y - part.height])
        whole.positions.update({node: tuple(np.add(place, shift).tolist()) for node, place in part.positions.items()})
        whole.routes.update({edge: route + shift for edge, route in part.routes.items()})
    return whole


def _connected(network: nx.DiGraph, sizes: Mapping[Node, tuple[float, float]]) -> Layout:
    """Layout of a connected graph."""
    layer = _layers(network)
    chains = {}
    graph = nx.DiGraph()  # with a dummy node wherever an edge passes a layer
    graph.add_nodes_from(network)
    for edge in network.edges:
        between = [(edge, k) for k in range(layer[edge[0]] + 1, layer[edge[1]])]
        layer |= {dummy: dummy[1] for dummy in between}
        chains[edge] = [edge[0], *between, edge[1]]
        nx.add_path(graph, chains[edge])
    rows = _ordered_rows(graph, layer)
    width = {node: sizes[node][0] if node in sizes else _DUMMY_WIDTH for node in graph}
    x = _straightened(graph, rows, width)

    heights = [max(sizes[node][1] for node in row if node in sizes) for row in rows]
    width_of_all = max(x[node] + width[node] / 2 for node in graph)
    # many edges between two layers need room to be told apart, and edges across a wide graph some height
    steps = np.array([_LAYER_GAP + min(60.0, 1.2 * sum(graph.out_degree(node) for node in row)) for row in rows[:-1]])
    flat = width_of_all / _WIDEST - sum(heights) - steps.sum()
    steps += np.clip(flat / len(steps), 0.0, 2.0 * _LAYER_GAP)
    tops = np.concatenate([[0.0], np.cumsum(np.add(heights[:-1], steps))])
    height = tops[-1] + heights[-1]
    center = {k: height - tops[k] - heights[k] / 2 for k in range(len(rows))}
    positions = {node: (x[node], center[layer[node]]) for node in network}
    out = _ports(chains, x, width, end=0)
    into = _ports(chains, x, width, end=-1)
    routes = {}
    for edge, chain in chains.items():
        (x0, y0), (x1, y1) = positions[edge[0]], positions[edge[1]]
        points = [(x0 + out[edge], y0 - sizes[edge[0]][1] / 2)]
        for dummy in chain[1:-1]:
            half = heights[layer[dummy]] / 2  # straight past the boxes of the layer
            points += [(x[dummy], center[layer[dummy]] + half), (x[dummy], center[layer[dummy]] - half)]
        routes[edge] = np.array([*points, (x1 + into[edge], y1 + sizes[edge[1]][1] / 2)])
    return Layout(positions, routes, width_of_all, height)


def _layers(network: nx.DiGraph) -> dict[Node, int]:
    """Layers with the least sum of edge lengths (the constraints are totally unimodular, so they are integers)."""
    nodes = list(network)
    row = {node: k for k, node in enumerate(nodes)}
    edges = np.array([(row[a], row[b]) for a, b in network.edges])
    n_edges = len(edges)
    ends = np.repeat(np.arange(n_edges), 2), edges.ravel()
    constraints = csr_matrix((np.tile([1.0, -1.0], n_edges), ends), (n_edges, len(nodes)))
    cost = np.asarray(-constraints.sum(axis=0)).ravel()
    found = linprog(cost, A_ub=constraints, b_ub=-np.ones(n_edges), bounds=(0, None), method="highs")
    layers = np.rint(found.x).astype(int)
    return dict(zip(nodes, (layers - layers.min()).tolist(), strict=True))


def _ordered_rows(graph: nx.DiGraph, layer: Mapping[Node, int]) -> list[list[Node]]:
    """Nodes of each layer, left to right: sweeps by the mean place of the neighbors, then swaps of neighbors."""
    rows: list[list[Node]] = [[] for _ in range(max(layer.values()) + 1)]
    # depth first, so that what hangs together starts side by side
    for node in nx.dfs_preorder_nodes(graph.to_undirected(), next(iter(graph))):
        rows[layer[node]].append(node)
    best, fewest = [list(row) for row in rows], _crossings(graph, rows)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbors = graph.predecessors if down else graph.successors
        for k in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            place = {node: i for i, node in enumerate(rows[k - 1 if down else k + 1])}
            mean = {}
            for i, node in enumerate(rows[k]):
                near = [place[other] for other in neighbors(node)]
                mean[node] = np.mean(near) if near else i
            rows[k].sort(key=mean.__getitem__)
        _swap(graph, rows)
        found = _crossings(graph, rows)
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
        if fewest == 0:
            break
    return best


def _swap(graph: nx.DiGraph, rows: list[list[Node]]) -> None:
    """Swap neighbors in a layer while that takes crossings away."""
    for k, row in enumerate(rows):
        above = {node: i for i, node in enumerate(rows[k - 1])} if k else {}
        below = {node: i for i, node in enumerate(rows[k + 1])} if k + 1 < len(rows) else {}
        ends = {
            node: (
                np.array([above[other] for other in graph.predecessors(node)]),
                np.array([below[other] for other in graph.successors(node)]),
            )
            for node in row
        }
        for i in range(len(row) - 1):
            left, right = ends[row[i]], ends[row[i + 1]]
            gain = sum((a[:, None] > b).sum() - (a[:, None] < b).sum() for a, b in zip(left, right, strict=True))
            if gain > 0:
                row[i], row[i + 1] = row[i + 1], row[i]


def _crossings(graph: nx.DiGraph, rows: list[list[Node]]) -> int:
    """Number of crossings between neighboring layers."""
    total = 0
    for upper, lower in itertools.pairwise(rows):
        place = {node: i for i, node in enumerate(lower)}
        ends = [np.sort([place[other] for other in graph.successors(node)]) for node in upper]
        sequence = np.concatenate(ends)
        start = 0
        for part in ends:  # inversions; edges of one node do not cross
            earlier = sequence[:start]
            total += int((earlier[:, None] > part).sum())
            start += len(part)
    return total


def _straightened(graph: nx.DiGraph, rows: list[list[Node]], width: Mapping[Node, float]) -> dict[Node, float]:
    """Centers that keep the order and the gaps; each node is drawn to the mean of its neighbors.

    With the order fixed, the places of a layer that are nearest to their targets are an isotonic regression.
    """
    offsets = []
    for row in rows:
        half = np.array([width[node] / 2 for node in row])
        passing = np.array([width[node] == _DUMMY_WIDTH for node in row])
        room = np.where(passing[:-1] & passing[1:], _GAP / 4, np.where(passing[:-1] | passing[1:], _GAP / 2, _GAP))
        offsets.append(np.concatenate([[0.0], np.cumsum(half[:-1] + half[1:] + room)]))
    widest = max(offset[-1] for offset in offsets)
    x: dict[Node, float] = {}
    for row, offset in zip(rows, offsets, strict=True):
        x |= zip(row, offset + (widest - offset[-1]) / 2, strict=True)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0  # the last sweep goes up, and sets causes above the middle of their effects
        for k in range(len(rows)) if down else reversed(range(len(rows))):
            target, weight = [], []
            for node in rows[k]:
                above, below = list(graph.predecessors(node)), list(graph.successors(node))
                near = (above or below) if down else (below or above)
                target.append(np.mean([x[other] for other in near]))
                # edges that pass are kept straight first
                weight.append(4.0 if width[node] == _DUMMY_WIDTH else len(near))
            places = isotonic_regression(np.array(target) - offsets[k], weights=weight).x + offsets[k]
            x |= zip(rows[k], places.tolist(), strict=True)
    left = min(x[node] - width[node] / 2 for node in x)
    return {node: place - left for node, place in x.items()}


def _ports(
    chains: Mapping[Edge, list[Node]], x: Mapping[Node, float], width: Mapping[Node, float], *, end: int
) -> dict[Edge, float]:
    """Where on its node's side each edge begins (end=0) or ends (-1), from the middle, so that arrows stay apart."""
    ports: dict[Edge, float] = {}
    of_node: dict[Node, list[Edge]] = {}
    for edge in chains:
        of_node.setdefault(edge[end], []).append(edge)
    for node, edges in of_node.items():
        # by the direction from which they come
        edges.sort(key=lambda edge: x[chains[edge][1 if end == 0 else -2]])
        spread = min(0.8 * width[node], 11.0 * (len(edges) - 1))
        ports |= zip(edges, np.linspace(-spread / 2, spread / 2, len(edges)) if len(edges) > 1 else [0.0], strict=True)
    return ports
