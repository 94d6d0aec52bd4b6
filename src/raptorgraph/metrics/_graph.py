"""Agreement of weighted graphs with each other and with a known graph.

A graph is a square array of weights, ``weights[i, j]`` the edge from i to j and 0 for none. The diagonal is ignored,
since no node is its own cause. Scores that rank edges do so by the absolute weight.
"""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
from scipy.stats import hypergeom, pearsonr
from sklearn.metrics import average_precision_score

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@docs.dedent
def edge_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson correlation of the weights of two graphs on the same nodes, over all off-diagonal entries.

    Parameters
    ----------
    %(graphs)s

    Returns
    -------
    float
        From -1 to 1; NaN where a graph has the same weight everywhere, as an empty one has.

    %(wrong_graphs)s

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # 0 -> 1 -> 2
    >>> round(rg.metrics.edge_correlation(2 * truth, truth), 6)
    1.0
    """
    x, y = (off_diagonal(weights) for weights in _graphs(a=a, b=b))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(pearsonr(x, y).statistic)


def top_edges(weights: ArrayLike, k: int) -> np.ndarray:
    """Flat positions ``i * n_nodes + j`` of the `k` edges with the largest absolute weights, heaviest first.

    They are fewer where the graph has fewer edges, since a weight of 0 is no edge. Of equal weights the one with the
    smaller position comes first.
    """
    (weights,) = _graphs(weights=weights)
    check_integer("k", k, 1)
    size = np.abs(weights)
    np.fill_diagonal(size, 0.0)
    order = np.argsort(-size, axis=None, kind="stable")[:k]
    return order[size.ravel()[order] > 0]


@docs.dedent
def top_edge_jaccard(a: ArrayLike, b: ArrayLike, k: int) -> float:
    r"""Overlap of the heaviest edges of two graphs on the same nodes.

    .. math::
        \frac{|T_k(a) \cap T_k(b)|}{|T_k(a) \cup T_k(b)|}

    with :math:`T_k` the k edges of largest absolute weight. Compare with :func:`chance_jaccard`.

    Parameters
    ----------
    %(graphs)s
    k
        Number of edges.

    Returns
    -------
    float
        From 0 to 1; NaN where both graphs are empty.

    Raises
    ------
    ValueError
        As for :func:`edge_correlation`, or if `k` is below 1.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # 0 -> 1 -> 2
    >>> other = np.array([[0.0, 0.9, 0.8], [0.0, 0.0, 0.1], [0.0, 0.0, 0.0]])
    >>> round(rg.metrics.top_edge_jaccard(other, truth, k=2), 3)  # one edge shared of three
    0.333
    """
    a, b = _graphs(a=a, b=b)
    first, second = top_edges(a, k), top_edges(b, k)
    union = len(np.union1d(first, second))
    return len(np.intersect1d(first, second)) / union if union else float("nan")


def chance_jaccard(n_possible: int, k: int, k_other: int | None = None) -> float:
    r"""Expected Jaccard index of two sets drawn at random.

    .. math::
        \sum_o P(o) \, \frac{o}{k + k' - o}, \qquad o \sim \mathrm{Hypergeometric}(n, k, k')

    Parameters
    ----------
    n_possible
        Number n of elements to draw from; ``d * (d - 1)`` edges of a graph of d nodes.
    k
        Size of the first set.
    k_other
        Size k' of the second set; default `k`.

    Returns
    -------
    float
        From 0 to 1; NaN where both sets are empty.

    Raises
    ------
    ValueError
        If a size is negative or above `n_possible`.

    Examples
    --------
    >>> round(rg.metrics.chance_jaccard(n_possible=90, k=10), 3)
    0.062
    """
    k_other = k if k_other is None else k_other
    for size in (k, k_other):
        if not isinstance(size, Integral) or not 0 <= size <= n_possible:
            raise ValueError(f"A set of {size} cannot be drawn from {n_possible} possible edges.")
    if k == k_other == 0:
        return float("nan")
    overlap = np.arange(min(k, k_other) + 1)
    return float((hypergeom.pmf(overlap, n_possible, k, k_other) * overlap / (k + k_other - overlap)).sum())


@docs.dedent
def structural_hamming_distance(a: ArrayLike, b: ArrayLike) -> int:
    """Number of pairs of nodes that two graphs join differently: an added, missing or reversed edge counts 1.

    Parameters
    ----------
    %(graphs)s

    Returns
    -------
    int
        From 0 to the number of pairs of nodes.

    %(wrong_graphs)s

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # 0 -> 1 -> 2
    >>> rg.metrics.structural_hamming_distance(truth.T, truth)  # both edges reversed
    2
    """
    a, b = _graphs(a=a, b=b)
    different = (a != 0) != (b != 0)
    return int(np.triu(different | different.T, k=1).sum())


@docs.dedent
def edge_auprc(weights: ArrayLike, truth: ArrayLike, *, directed: bool = True) -> float:
    """Area under the precision-recall curve (average precision) of the true edges, ranked by absolute weight.

    Parameters
    ----------
    %(graph_truth)s
    directed
        Whether the direction counts. Otherwise pairs of nodes are ranked by the larger of their two weights.

    Returns
    -------
    float
        From 0 to 1; NaN where the truth has no edge. Ties are one step of the curve, so an empty estimate scores the
        share of true edges among the candidates; a random order scores :func:`chance_auprc`.

    %(wrong_graphs)s

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # 0 -> 1 -> 2
    >>> rg.metrics.edge_auprc(truth, truth)
    1.0
    >>> rg.metrics.edge_auprc(truth.T, truth, directed=False)
    1.0
    """
    weights, truth = _graphs(weights=weights, truth=truth)
    size, edge = np.abs(weights), truth != 0
    if directed:
        return _average_precision(off_diagonal(edge), off_diagonal(size))
    upper = np.triu_indices(len(size), k=1)
    return _average_precision((edge | edge.T)[upper], np.maximum(size, size.T)[upper])


@docs.dedent
def ancestor_auprc(weights: ArrayLike, truth: ArrayLike) -> float:
    """Average precision of "i is an ancestor of j", ranked by the absolute total effect of i on j.

    The total effects of weights A in ``u = u A + z`` are the off-diagonal part of ``(I - A)^-1``. An estimate that
    replaces a path by an edge loses nothing.

    Parameters
    ----------
    %(graph_truth)s

    Returns
    -------
    float
        From 0 to 1 as :func:`edge_auprc`. NaN where the truth has no edge, and where I - A has no inverse, as may be
        for weights with cycles.

    Raises
    ------
    ValueError
        As for :func:`edge_correlation`, or if the truth has a cycle.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # 0 -> 1 -> 2
    >>> rg.metrics.ancestor_auprc(truth, truth)
    1.0
    """
    weights, truth = _graphs(weights=weights, truth=truth)
    matrix = np.eye(len(weights)) - weights * (1 - np.eye(len(weights)))
    if np.linalg.matrix_rank(matrix) < len(matrix):
        return float("nan")
    return _average_precision(off_diagonal(ancestors(truth)), off_diagonal(np.abs(np.linalg.inv(matrix))))


def ancestors(weights: ArrayLike) -> np.ndarray:
    """Whether a directed path leads from node i to node j, nodes x nodes; ValueError where the graph has a cycle."""
    (weights,) = _graphs(weights=weights)
    edge = weights != 0
    np.fill_diagonal(edge, False)
    graph = nx.from_numpy_array(edge, create_using=nx.DiGraph)
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError("The graph has a cycle, so ancestors are undefined: give an acyclic one.")
    closure = nx.transitive_closure_dag(graph)
    return np.asarray(nx.to_numpy_array(closure, nodelist=range(len(edge)), weight=None) > 0)


def chance_auprc(n_possible: int, n_edges: int) -> float:
    r"""Expected average precision of a random order.

    .. math::
        \frac{1}{n} \sum_{r=1}^{n} \frac{1}{r} \left(1 + (r - 1) \frac{m - 1}{n - 1}\right)
        = \frac{1}{n} \left(H_n + \frac{m - 1}{n - 1} (n - H_n)\right), \qquad H_n = \sum_{r=1}^n \frac{1}{r}

    which is above m / n for small n.

    Parameters
    ----------
    n_possible
        Number n of what is ranked.
    n_edges
        Number m of true ones among them.

    Returns
    -------
    float
        From 0 to 1; NaN where there is no true edge.

    Raises
    ------
    ValueError
        If `n_edges` is negative or above `n_possible`.

    Examples
    --------
    >>> round(rg.metrics.chance_auprc(n_possible=90, n_edges=9), 3)
    0.141
    """
    if not 0 <= n_edges <= n_possible:
        raise ValueError(f"There cannot be {n_edges} edges among {n_possible} possible ones.")
    if n_edges in (0, n_possible):
        return float("nan") if n_edges == 0 else 1.0
    harmonic = (1.0 / np.arange(1, n_possible + 1)).sum()
    return float((harmonic + (n_edges - 1) / (n_possible - 1) * (n_possible - harmonic)) / n_possible)


@docs.dedent
def orientation_accuracy(weights: ArrayLike, truth: ArrayLike) -> float:
    """Share of the found edges that point in the true direction.

    Parameters
    ----------
    %(graph_truth)s

    Returns
    -------
    float
        Share of the true edges i -> j, among those with an estimated weight in either direction, for which the weight
        of i -> j is the larger one in absolute value; equal weights count a half. 0.5 by chance; NaN where no true
        edge is found in either direction.

    %(wrong_graphs)s

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # 0 -> 1 -> 2
    >>> rg.metrics.orientation_accuracy(truth, truth), rg.metrics.orientation_accuracy(truth.T, truth)
    (1.0, 0.0)
    """
    weights, truth = _graphs(weights=weights, truth=truth)
    size, edge = np.abs(weights), truth != 0
    np.fill_diagonal(edge, False)
    forward, backward = size[edge], size.T[edge]
    found = (forward > 0) | (backward > 0)
    if not found.any():
        return float("nan")
    return float((0.5 + 0.5 * np.sign(forward - backward)[found]).mean())


def _graphs(**graphs: ArrayLike) -> list[NDArray[np.float64]]:
    arrays = {name: np.asarray(graph, dtype=np.float64) for name, graph in graphs.items()}
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < 2:
            raise ValueError(f"{name} has shape {array.shape}: a graph is a square array of two nodes or more.")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has weights that are not finite.")
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"The graphs differ in their nodes: {shapes}.")
    return list(arrays.values())


def off_diagonal(values: np.ndarray) -> np.ndarray:
    """Entries of a square array without its diagonal, row by row."""
    return values[~np.eye(len(values), dtype=bool)]


def _average_precision(edge: np.ndarray, score: np.ndarray) -> float:
    return float(average_precision_score(edge, score)) if edge.any() else float("nan")
