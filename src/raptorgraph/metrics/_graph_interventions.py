"""Scores of a graph without a known one: whether perturbing a cause changes the expression of its effect.

The scores are those of CausalBench (Chevalley et al. 2023), on cells that the graph was not learned from. Both compare
marginal distributions, which change with every ancestor: they do not tell direct effects from indirect ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.csgraph import shortest_path
from scipy.stats import wasserstein_distance

from raptorgraph.metrics._rank_sum import rank_sum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike


def mean_wasserstein(expression: ArrayLike, codes: ArrayLike, graph: ArrayLike) -> float:
    r"""Mean distance that the predicted causes move the expression of their effects.

    .. math::
        \frac{1}{|E|} \sum_{(i, j) \in E} W_1\left(x_j \mid \text{i perturbed},\; x_j \mid \text{control}\right)

    over the predicted edges E, with the first Wasserstein distance. Compare it with the value of as many random edges:
    it falls with the number of edges, as the strongest come first.

    Parameters
    ----------
    expression
        Expression of the nodes' own genes, cells x nodes; a column of NaN where a gene is not measured.
    codes
        Shape (n_cells,): 0 for control cells, i + 1 for cells in which node i was perturbed (and no other); negative
        for cells that are not to be used.
    graph
        Weights, nodes x nodes, row = cause; every weight other than 0 is a predicted edge. The diagonal is ignored.

    Returns
    -------
    float
        In units of the expression, at least 0. Edges from nodes that are perturbed in no cell and edges to genes that
        are not measured are left out; NaN where no edge is left.

    Raises
    ------
    ValueError
        If shapes or codes do not fit, there are no control cells, or a column is NaN in a part of the cells.

    Examples
    --------
    >>> codes = np.repeat([0, 1, 2], 100)  # control, node 0 perturbed, node 1 perturbed
    >>> expression = np.random.default_rng(0).normal(5, 1, (300, 2))
    >>> expression[codes == 1] -= 2.0  # node 0 acts on itself and on node 1
    >>> right, wrong = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> rg.metrics.mean_wasserstein(expression, codes, right) > rg.metrics.mean_wasserstein(expression, codes, wrong)
    True
    """
    expression, codes, edge = _checked(expression, codes, graph)
    control = expression[codes == 0]
    found = [
        wasserstein_distance(cells[:, j], control[:, j])
        for i, cells, columns in _perturbed(expression, codes)
        for j in columns
        if edge[i, j]
    ]
    return float(np.mean(found)) if found else float("nan")


def false_omission_rate(
    expression: ArrayLike,
    codes: ArrayLike,
    graph: ArrayLike,
    *,
    alpha: float = 0.05,
    p_values: np.ndarray | None = None,
) -> float:
    """Share of the pairs without a path in the graph in which the perturbation does change the expression.

    A pair (i, j) is omitted if the predicted graph has no path of any length from i to j, since a perturbation reaches
    all descendants. The omission is false if a Mann-Whitney test finds that the expression of j in cells with i
    perturbed differs from that in control cells (two-sided, p < `alpha`, not corrected for the number of tests).
    CausalBench tests a random sample of the omitted pairs; here all of them are tested.

    Parameters
    ----------
    expression, codes, graph
        As for :func:`mean_wasserstein`. Paths may lead through any node.
    alpha
        Level of the test, which is about the expected rate where no omission is false.
    p_values
        What :func:`intervention_p_values` returns, to score several graphs on the same cells.

    Returns
    -------
    float
        From 0 to 1; NaN where no pair that can be tested is omitted. The empty graph scores the share of all pairs that
        differ, and a graph of random edges does so on average.

    Raises
    ------
    ValueError
        As for :func:`mean_wasserstein`.

    Examples
    --------
    >>> codes = np.repeat([0, 1, 2], 100)  # control, node 0 perturbed, node 1 perturbed
    >>> expression = np.random.default_rng(0).normal(5, 1, (300, 2))
    >>> expression[codes == 1] -= 2.0  # node 0 acts on itself and on node 1
    >>> graph = np.array([[0.0, 1.0], [0.0, 0.0]])
    >>> rg.metrics.false_omission_rate(expression, codes, graph, alpha=0.01)
    0.0
    >>> rg.metrics.false_omission_rate(expression, codes, np.zeros((2, 2)), alpha=0.01)  # an effect is omitted
    0.5
    """
    expression, codes, edge = _checked(expression, codes, graph)
    if p_values is None:
        p_values = intervention_p_values(expression, codes)
    joined = np.isfinite(shortest_path(edge, unweighted=True))
    omitted = ~joined & np.isfinite(p_values)
    return float((p_values[omitted] < alpha).mean()) if omitted.any() else float("nan")


def intervention_p_values(expression: ArrayLike, codes: ArrayLike) -> np.ndarray:
    """P values of two-sided Mann-Whitney tests of the expression of j in cells with i perturbed against control.

    Parameters
    ----------
    expression, codes
        As for :func:`mean_wasserstein`.

    Returns
    -------
    numpy.ndarray
        Nodes x nodes, row = perturbed; NaN on the diagonal, for nodes that are perturbed in no cell and for genes that
        are not measured; 1 for genes with one value in all cells.

    Raises
    ------
    ValueError
        As for :func:`mean_wasserstein`.

    Examples
    --------
    >>> codes = np.repeat([0, 1, 2], 100)  # control, node 0 perturbed, node 1 perturbed
    >>> expression = np.random.default_rng(0).normal(5, 1, (300, 2))
    >>> expression[codes == 1] -= 2.0  # node 0 acts on itself and on node 1
    >>> rg.metrics.intervention_p_values(expression, codes) < 0.01
    array([[False,  True],
           [False, False]])
    """
    n_nodes = np.shape(expression)[-1]
    expression, codes, _ = _checked(expression, codes, np.zeros((n_nodes, n_nodes)))
    control = expression[codes == 0]
    found = np.full((n_nodes, n_nodes), np.nan)
    for i, cells, columns in _perturbed(expression, codes):
        if len(columns):
            found[i, columns] = rank_sum(cells[:, columns], control[:, columns])[1]
    return found


def _perturbed(expression: np.ndarray, codes: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each perturbed node with its cells, and the other nodes whose genes are measured."""
    measured = ~np.isnan(expression[0])
    for i in range(expression.shape[1]):
        cells = expression[codes == i + 1]
        if len(cells):
            yield i, cells, np.flatnonzero(measured & (np.arange(len(measured)) != i))


def _checked(expression: ArrayLike, codes: ArrayLike, graph: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    expression = np.asarray(expression, dtype=np.float64)
    codes, edge = np.asarray(codes), np.asarray(graph) != 0
    if expression.ndim != 2 or edge.shape != (expression.shape[1],) * 2 or codes.shape != (len(expression),):
        raise ValueError(
            f"expression {expression.shape} is cells x nodes, and needs one code for each cell, got {codes.shape}, "
            f"and a square graph of the nodes, got {edge.shape}."
        )
    if codes.max(initial=0) > len(edge):
        raise ValueError(f"Code {codes.max()} is that of node {codes.max() - 1}, but there are {len(edge)} nodes.")
    if not (codes == 0).any():
        raise ValueError("There are no control cells (code 0) to compare with.")
    missing = np.isnan(expression)
    partly = np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0))
    if partly.size:
        raise ValueError(f"Column {partly[0]} is NaN in a part of the cells: it must be for all of them, or for none.")
    return expression, codes, edge & ~np.eye(len(edge), dtype=bool)
