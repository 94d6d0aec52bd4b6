"""The heaviest edges that form no cycle."""

from __future__ import annotations

import networkx as nx
import numpy as np


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
    d = adjacency.shape[0]
    weight = np.abs(np.asarray(adjacency, dtype=float))
    np.fill_diagonal(weight, 0.0)
    support: np.ndarray = weight > threshold
    if nx.is_directed_acyclic_graph(nx.from_numpy_array(support, create_using=nx.DiGraph)):
        return support
    cause, effect = np.nonzero(support)
    order = np.argsort(-weight[cause, effect], kind="stable")
    reach = np.eye(d, dtype=bool)  # reach[i, j]: there is a path from i to j
    chosen = np.zeros((d, d), dtype=bool)
    for i, j in zip(cause[order], effect[order], strict=True):
        if reach[j, i]:
            continue
        chosen[i, j] = True
        if not reach[i, j]:
            reach[reach[:, i]] |= reach[j]
    return chosen
