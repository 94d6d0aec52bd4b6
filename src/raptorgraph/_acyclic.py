"""The heaviest edges that form no cycle."""

from __future__ import annotations

import heapq

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components


def acyclic_support(adjacency: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """Choose the edges of an acyclic graph, the heaviest first.

    Edges are taken in the order of their absolute weight; one that would close a cycle with heavier ones is left
    out.

    Parameters
    ----------
    adjacency
        d x d weights, row = cause.
    threshold
        Edges with an absolute weight at or below it are left out.

    Returns
    -------
    d x d boolean array.

    Examples
    --------
    >>> weights = np.array([[0.0, 0.9, 0.0], [0.0, 0.0, 0.8], [0.3, 0.0, 0.0]])
    >>> rg.nn.acyclic_support(weights).astype(int)  # 2 -> 0 would close a cycle
    array([[0, 1, 0],
           [0, 0, 1],
           [0, 0, 0]])
    """
    weight = np.abs(np.asarray(adjacency, dtype=float))
    np.fill_diagonal(weight, 0.0)
    chosen: np.ndarray = weight > threshold
    # A cycle runs within a group of nodes that all reach each other; edges between groups are in none.
    n_groups, group = connected_components(csr_matrix(chosen), directed=True, connection="strong")
    if n_groups == len(weight):
        return chosen
    sizes = np.bincount(group)
    order = np.argsort(group, kind="stable")
    for nodes in np.split(order, np.cumsum(sizes)[:-1]):
        if len(nodes) > 1:
            at = np.ix_(nodes, nodes)
            chosen[at] = _heaviest_first(np.where(chosen[at], weight[at], 0.0))
    return chosen


def _heaviest_first(weight: np.ndarray) -> np.ndarray:
    """Edges with a weight above 0, one after the other, that close no cycle with those before."""
    cause, effect = np.nonzero(weight)
    order = np.argsort(-weight[cause, effect], kind="stable")
    nodes = np.arange(len(weight))
    word, bit = nodes // 64, np.uint64(1) << (nodes % 64).astype(np.uint64)
    reach = np.zeros(
        (len(weight), len(weight) // 64 + 1), dtype=np.uint64
    )  # a bit for each node to which there is a path
    reach[nodes, word] = bit
    chosen = np.zeros(weight.shape, dtype=bool)
    for i, j in zip(cause[order].tolist(), effect[order].tolist(), strict=True):
        if reach[j, word[i]] & bit[i]:
            continue
        chosen[i, j] = True
        if not reach[i, word[j]] & bit[j]:
            reach[(reach[:, word[i]] & bit[i]) != 0] |= reach[j]
    return chosen


def acyclic_order(adjacency: np.ndarray, n_edges: int) -> np.ndarray:
    """All edges that agree with an order of the nodes, in which the heaviest edges point forward.

    For graphs of thousands of nodes in which nearly all pairs have a weight, most of them next to nothing.

    Parameters
    ----------
    adjacency
        d x d weights, row = cause.
    n_edges
        Number of edges of which an acyclic graph is made by :func:`acyclic_support`; the order is one of that graph,
        of nodes that it leaves free the one first from which more weight goes out.

    Returns
    -------
    d x d boolean array; where there are no more than `n_edges` weights it is that of :func:`acyclic_support`.
    """
    weight = np.abs(adjacency)
    np.fill_diagonal(weight, 0.0)
    if np.count_nonzero(weight) <= n_edges:
        return acyclic_support(weight)
    least = np.partition(weight, weight.size - n_edges, axis=None)[weight.size - n_edges]
    graph = acyclic_support(weight, float(np.nextafter(least, -np.inf, dtype=weight.dtype)))
    outgoing = weight.sum(1)
    rank = np.empty(len(weight), dtype=np.int64)
    rank[_causal_order(graph, outgoing)] = np.arange(len(weight))
    found: np.ndarray = rank[:, None] < rank[None, :]
    return found


def _causal_order(graph: np.ndarray, first: np.ndarray) -> list[int]:
    """Nodes of an acyclic graph, causes before effects; where there is a choice those with a large value of `first`."""
    table = csr_matrix(graph)
    waiting = np.asarray(graph.sum(0)).tolist()  # causes that are not placed yet
    ready = [(-value, node) for node, value in enumerate(first.tolist()) if not waiting[node]]
    heapq.heapify(ready)
    order = []
    while ready:
        _, node = heapq.heappop(ready)
        order.append(node)
        for effect in table.indices[table.indptr[node] : table.indptr[node + 1]].tolist():
            waiting[effect] -= 1
            if not waiting[effect]:
                heapq.heappush(ready, (-float(first[effect]), effect))
    return order
