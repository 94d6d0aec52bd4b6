"""How effects travel along the graph: totals, single paths, and what one edge contributes to predictions."""

from __future__ import annotations

import heapq
import itertools
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd
import torch
from scipy.linalg import solve_triangular

from raptorgraph._arguments import check_integer
from raptorgraph.screen._asked import listed
from raptorgraph.screen._setup import Setup

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from anndata import AnnData

    from raptorgraph.model import RaptorGraphModel

logger = logging.getLogger(__name__)

_CANCELLED = 1e-12  # a total this small against the sum of its paths' sizes is a rounding error


def total_effects(model: RaptorGraphModel | pd.DataFrame) -> pd.DataFrame:
    r"""Total effect of every latent on every other, over all directed paths.

    The structural equation :math:`u = u A + z` (RAPTORGraph paper, section 2) gives :math:`u = z (I - A)^{-1}`, so a
    unit shift of latent i moves latent j by

    .. math::
        T_{ij} = [(I - A)^{-1} - I]_{ij} = [A + A^2 + \dots + A^{d-1}]_{ij}.

    Parameters
    ----------
    model
        A trained model, or an adjacency table as of ``model.get_dag()``: d x d, row = cause, column = effect.

    Returns
    -------
    pandas.DataFrame
        d x d, row = cause, column = effect, in the units of ``model.get_dag()``. Exactly 0 where no path leads, and on
        the diagonal. Totals of genes that the data cannot order (``model.get_modules()``) hold for the one direction
        that the graph has of them, and might as well be those of the other.

    Raises
    ------
    ValueError
        If a table is not square with equal row and column names, has missing values or a cycle.

    See Also
    --------
    raptorgraph.tl.paths : The paths that one total effect is made of.

    Examples
    --------
    A acts on B, and B on C:

    >>> adjacency = pd.DataFrame([[0, 0.5, 0], [0, 0, 2.0], [0, 0, 0]], index=list("ABC"), columns=list("ABC"))
    >>> rg.tl.total_effects(adjacency)
         A    B    C
    A  0.0  0.5  1.0
    B  0.0  0.0  2.0
    C  0.0  0.0  0.0
    """
    table = _adjacency(model)
    weights = table.to_numpy(dtype=float)
    return pd.DataFrame(_totals(weights, _causal_order(table)), index=table.index, columns=table.columns)


def paths(model: RaptorGraphModel | pd.DataFrame, source: str, target: str, *, max_paths: int = 20) -> pd.DataFrame:
    """Take the total effect of one latent on another apart into directed paths, the strongest first.

    The effect of a path is the product of its weights; over all paths they add up to the total effect (path analysis,
    Wright 1934).

    Parameters
    ----------
    model
        A trained model, or an adjacency table as of ``model.get_dag()``: d x d, row = cause, column = effect.
    source
        Name of the latent where the paths start, one of ``model.latent_names``.
    target
        Name of the latent where they end.
    max_paths
        Largest number of paths, which are those with the largest absolute effects. The search is best first: it does
        not visit the other paths, of which there can be exponentially many.

    Returns
    -------
    pandas.DataFrame
        One row for each path, by falling absolute effect; without a row where no path leads.

        - ``path``: names of its latents, joined with ``" -> "``;
        - ``length``: number of edges;
        - ``effect``: product of its weights, in the units of ``model.get_dag()``;
        - ``share``: ``effect`` as a part of the total effect. Shares of all paths add up to 1; where paths of either
          sign meet, a share can be negative or above 1, and NaN where they cancel;
        - ``ordered``, of a model that knows it: whether the data support the direction of every edge of the path. Where
          it is False, nothing is known of what acts through what, and the share is NaN.

        ``attrs`` holds ``n_paths``, the number of all paths; ``n_left_out``, how many of them are not in the table; and
        ``total_effect``, that of all of them (:func:`total_effects`).

    Raises
    ------
    KeyError
        If `source` or `target` is not in the graph.
    ValueError
        If both are the same, `max_paths` is not positive, or a table is no acyclic adjacency.

    Examples
    --------
    A acts on C directly, and by way of B:

    >>> adjacency = pd.DataFrame([[0, 0.5, 1.0], [0, 0, 2.0], [0, 0, 0]], index=list("ABC"), columns=list("ABC"))
    >>> rg.tl.paths(adjacency, "A", "C")
              path  length  effect  share
    0       A -> C       1     1.0    0.5
    1  A -> B -> C       2     1.0    0.5
    """
    check_integer("max_paths", max_paths, 1, hint=", the number of paths to list")
    table = _adjacency(model)
    start, end = _position(table, source), _position(table, target)
    if start == end:
        raise ValueError(f"source and target are both {source!r}: a path leads from one latent to another.")
    weights, order = table.to_numpy(dtype=float), _causal_order(table)
    total = _total(weights, order, start, end)
    n_paths, found = _strongest_paths(weights, order, start, end, max_paths)

    effects = [float(np.prod([weights[edge] for edge in itertools.pairwise(path)])) for path in found]
    ranked = sorted(zip(found, effects, strict=True), key=lambda pair: (-abs(pair[1]), len(pair[0]), pair[0]))
    effect = np.array([size for _, size in ranked], dtype=float)
    sizes = _total(np.abs(weights), order, start, end)
    undefined = abs(total) <= _CANCELLED * sizes
    result = pd.DataFrame(
        {
            "path": pd.Series([" -> ".join(str(table.index[i]) for i in path) for path, _ in ranked], dtype=object),
            "length": np.array([len(path) - 1 for path, _ in ranked], dtype=int),
            "effect": effect,
            "share": np.full(len(effect), np.nan) if undefined else effect / total,
        }
    )
    unordered = _unordered(model)
    if unordered is not None:
        result["ordered"] = [
            not any((table.index[a], table.index[b]) in unordered for a, b in itertools.pairwise(path))
            for path, _ in ranked
        ]
        result["share"] = result["share"].where(result["ordered"])
    result.attrs.update(n_paths=n_paths, n_left_out=n_paths - len(result), total_effect=total)
    return result


def knock_out_edge(
    model: RaptorGraphModel,
    source: str,
    target: str,
    perturbations: str | Collection[str] | Sequence[str | Collection[str]] | None = None,
    adata: AnnData | None = None,
    *,
    return_effects: bool = False,
) -> pd.DataFrame:
    r"""Predict what one edge of the graph contributes to the effects of perturbations.

    With :math:`f_A(P)` the decoder's effect of perturbation P under the graph A, and :math:`A'` the same graph
    without the edge, the contribution is :math:`f_A(P) - f_{A'}(P)`, both over the same cells and draws of their
    latents.

    Parameters
    ----------
    model
        A trained model. It is the same afterwards, also after an error.
    source, target
        Names of the latents that the edge leads from and to.
    perturbations
        One or more, as in :meth:`raptorgraph.RaptorGraphModel.predict`; by default ``model.conditions``.
    adata
        Cells to decode, as in :meth:`raptorgraph.RaptorGraphModel.predict_effects`.
    return_effects
        Return the predicted effects without the edge instead: those of ``model.predict_effects(perturbations)`` minus
        the contribution, so that they are the model's own predictions wherever the edge contributes nothing.

    Returns
    -------
    pandas.DataFrame
        Perturbations x genes, on the expression scale. The contribution is exactly 0 for a perturbation from none of
        whose genes a directed path leads to `source`.

    Raises
    ------
    KeyError
        If `source` or `target` is not a latent of the model.
    ValueError
        If ``model.get_dag()`` has no such edge, for an unknown gene in `perturbations`, and for a model that was
        loaded without data where `adata` is missing.

    Notes
    -----
    The decoder is curved, and without the edge the latents of control cells differ, too. So the difference
    :math:`f_A(P) - f_{A'}(P)` is not quite 0 where the edge carries nothing of P. There the contribution is set to 0;
    elsewhere it holds that part. (With ``latent_norm="layer"`` a perturbation changes every latent's input, and nothing
    is set to 0.)

    Examples
    --------
    >>> edge = model.get_edges().iloc[0]
    >>> contribution = rg.tl.knock_out_edge(model, edge["source"], edge["target"], edge["source"])
    >>> contribution.shape == (1, adata.n_vars)
    True
    """
    dag = model.get_dag()
    cause, effect = _position(dag, source), _position(dag, target)
    if dag.iat[cause, effect] == 0:
        outgoing = [str(name) for name in dag.columns[dag.iloc[cause] != 0]]
        raise ValueError(
            f"The graph has no edge {source} -> {target}. "
            + (f"Edges from {source} lead to: {', '.join(outgoing)}." if outgoing else f"No edge leaves {source}.")
        )
    if (source, target) in (_unordered(model) or ()):
        logger.warning(
            "The data do not say whether %s acts on %s or the other way round: read the contribution as that of the "
            "edge in the model, and not as what %s does through %s.", source, target, source, target,
        )  # fmt: skip
    labels = list(model.conditions) if perturbations is None else listed(perturbations)

    whole = model.predict_effects(labels, adata, kind="decoder")
    with _without_edge(model, cause, effect):
        contribution = whole - model.predict_effects(labels, adata, kind="decoder")
    if isinstance(model.module.norm, torch.nn.Identity):
        upstream = {cause} | nx.ancestors(_network(dag), cause)
        genes, setup = {dag.index[i] for i in upstream}, Setup.of(model.setup_args)
        carried = [not genes.isdisjoint(setup.genes(label)) for label in labels]
        contribution.iloc[~np.array(carried)] = 0.0
    return model.predict_effects(labels, adata) - contribution if return_effects else contribution


@contextmanager
def _without_edge(model: RaptorGraphModel, cause: int, effect: int) -> Iterator[None]:
    """Set the weight of one edge to zero, and put it back whatever happens."""
    weight = model.module.graph.weight.data
    kept = weight[cause, effect].clone()
    weight[cause, effect] = 0.0
    try:
        yield
    finally:
        weight[cause, effect] = kept


def _unordered(graph: RaptorGraphModel | pd.DataFrame) -> set[tuple[str, str]] | None:
    """Edges whose direction is not supported; None where that is not known."""
    if isinstance(graph, pd.DataFrame) or np.isnan(graph.edges.values("direction_support")).all():
        return None
    genes = graph.perturbed_genes
    return {(genes[i], genes[j]) for i, j in np.argwhere(graph.edges.unordered)}


def _adjacency(graph: RaptorGraphModel | pd.DataFrame) -> pd.DataFrame:
    """Table d x d of a model or as given, checked."""
    table = graph if isinstance(graph, pd.DataFrame) else graph.get_dag()
    if table.shape[0] != table.shape[1] or list(table.index) != list(table.columns) or not table.index.is_unique:
        raise ValueError(
            f"The adjacency table of shape {table.shape} must have the same unique names as rows and as columns."
        )
    if not np.isfinite(table.to_numpy(dtype=float)).all():
        raise ValueError("The adjacency table has missing or infinite weights: fill them, for instance with 0.")
    return table


def _network(table: pd.DataFrame) -> nx.DiGraph:
    """Graph of positions in the table."""
    return nx.from_numpy_array(table.to_numpy(dtype=float) != 0, create_using=nx.DiGraph)


def _causal_order(table: pd.DataFrame) -> list[int]:
    """Positions of the latents, causes before effects."""
    network = _network(table)
    if not nx.is_directed_acyclic_graph(network):
        cycle = " -> ".join(str(table.index[edge[0]]) for edge in nx.find_cycle(network))
        raise ValueError(f"The graph has a cycle, {cycle}, and effects along it have no end: give an acyclic one.")
    return list(nx.topological_sort(network))


def _position(table: pd.DataFrame, name: str) -> int:
    name = name.strip() if isinstance(name, str) else name
    if name not in table.index:
        known = ", ".join(str(other) for other in table.index[:20])
        more = ", ..." if len(table) > 20 else ""
        raise KeyError(f"{name!r} is not a latent of the graph; these are: {known}{more}")
    return int(table.index.get_loc(name))


def _totals(weights: np.ndarray, order: list[int]) -> np.ndarray:
    """(I - A)^-1 - I. In causal order I - A is triangular, and solving it leaves exact zeros where no path leads."""
    place = np.ix_(order, order)
    identity = np.eye(len(order))
    totals = np.empty_like(weights)
    totals[place] = solve_triangular(identity - weights[place], identity, unit_diagonal=True) - identity
    return totals


def _total(weights: np.ndarray, order: list[int], start: int, end: int) -> float:
    """One entry of :func:`_totals`, from the children of each latent."""
    reached = np.zeros(len(order))
    reached[end] = 1.0
    for i in reversed(order[order.index(start) : order.index(end)]):
        children = np.flatnonzero(weights[i])
        reached[i] = weights[i, children] @ reached[children]
    return float(reached[start]) if start != end else 0.0


def _strongest_paths(
    weights: np.ndarray, order: list[int], start: int, end: int, max_paths: int
) -> tuple[int, list[tuple[int, ...]]]:
    """Count all paths from `start` to `end`, and find those with the largest absolute products of weights.

    A* search: a beginning of a path is worth the best path that it can become, known from a pass against the arrows.
    Each is taken by its loss in log size against the best path of all. The best continuation loses exactly 0, so that
    rounding never makes the search leave a path for its equals before it ends.
    """
    children = [np.flatnonzero(row).tolist() for row in weights]
    log_size = np.log(np.abs(weights), out=np.full_like(weights, -np.inf), where=weights != 0)
    n_paths = [0] * len(order)  # to the end, exact: Python's integers do not overflow
    best = np.full(len(order), -np.inf)  # log size of the best path to the end
    n_paths[end], best[end] = 1, 0.0
    for i in reversed(order):
        if i != end:
            children[i] = [j for j in children[i] if n_paths[j]]
            n_paths[i] = sum(n_paths[j] for j in children[i])
            best[i] = max((log_size[i, j] + best[j] for j in children[i]), default=-np.inf)

    found: list[tuple[int, ...]] = []
    waiting: list[tuple[float, tuple[int, ...]]] = [(0.0, (start,))] if n_paths[start] else []
    while waiting and len(found) < max_paths:
        loss, path = heapq.heappop(waiting)
        last = path[-1]
        if last == end:
            found.append(path)
            continue
        for j in children[last]:
            heapq.heappush(waiting, (loss + (best[last] - (log_size[last, j] + best[j])), (*path, j)))
    return n_paths[start], found
