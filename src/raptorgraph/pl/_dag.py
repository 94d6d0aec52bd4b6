"""The learned graph between the perturbed genes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.pl._dag_drawing import draw_graph, figure_size, node_colors, node_labels
from raptorgraph.pl._figure import axes_or_new, check_save, finish

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel

_COLUMNS = ("source", "target", "weight")
_KNOWN = ("frequency", "direction_support", "module")  # where it is known
_LINE = 90  # letters


@docs.dedent
def dag(
    graph: RaptorGraphModel | pd.DataFrame,
    *,
    genes: str | Sequence[str] | None = None,
    n_hops: int = 1,
    max_edges: int = 200,
    color: pd.Series | pd.DataFrame | None = None,
    label: pd.Series | pd.DataFrame | None = None,
    weights: bool | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw a causal graph in layers, causes above effects.

    Blue edges that end in an arrow are positive, orange edges that end in a bar negative; the width grows with the
    absolute weight. Edges whose direction the data do not support (``direction_support`` below 0.8 in
    ``model.get_edges()``) are lines without an arrow or a bar: which of their genes acts on the other is not known, and
    that one of them is above the other says nothing. Modules, the groups of genes that cannot be ordered, are named
    below the graph. Where the frequencies of edges are known (:func:`raptorgraph.tl.dag_stability`), edges that are
    found in at least 90 % of the resampled screens are solid, in at least 50 % dashed, and all others dotted and faint.
    Latents without an edge are left out.

    Parameters
    ----------
    graph
        A trained model, an adjacency table as of ``model.get_dag()`` (d x d, row = cause, column = effect), or a table
        of edges as of ``model.get_edges()`` (columns ``source``, ``target``, ``weight`` and, if known, ``frequency``,
        ``direction_support`` and ``module``).
    genes
        Genes around which the graph is drawn; their names are bold.
    n_hops
        With `genes`: the largest number of edges to a gene, along or against their direction. 0 draws the edges between
        the genes themselves.
    max_edges
        Number of edges to draw, largest absolute weights first.
    color
        Numbers or categories that color the nodes, indexed by latent; of a table, such as that of
        ``rg.tl.annotate_latents``, the column ``label``. The seven most frequent categories get a color.
    label
        Second line of the nodes, indexed by latent; of a table the column ``label``.
    weights
        Whether to write the weight on each edge; by default where there are at most 12.
    title
        Title of the axes.
    ax
        Axes to draw on; default those of a new figure, as large as the graph needs. Letters and boxes scale with the
        axes.
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes; with the text "no edges" where there is nothing to draw.

    Raises
    ------
    KeyError
        If a gene is not in the graph, or a table lacks a column.
    TypeError
        If `graph` is neither a model nor a table, or `color` or `label` neither a series nor a table.
    ValueError
        If an adjacency table is not square with equal row and column names, weights are missing, an edge is there
        twice, there is a cycle, or a number is out of range.

    Examples
    --------
    >>> ax = rg.pl.dag(model)

    Around one gene, from a table of edges:

    >>> edges = model.get_edges()
    >>> ax = rg.pl.dag(edges, genes=edges["source"].iloc[0], n_hops=2)
    """
    check_save(save)
    check_integer("max_edges", max_edges, 1)
    check_integer("n_hops", n_hops, 0)
    edges, nodes = _edges_and_nodes(graph)
    chosen = None if genes is None else [gene.strip() for gene in ([genes] if isinstance(genes, str) else genes)]
    network, n_left_out = _network(edges, nodes, chosen, n_hops, max_edges)
    texts = node_labels(network, label)
    fills = node_colors(network, color)

    layout, size = figure_size(network, texts)
    ax = axes_or_new(ax, size)
    remarks = [f"the {max_edges} strongest of {max_edges + n_left_out} edges"] if n_left_out else []
    remark = "\n".join([*remarks, *_modules(network)]) or None
    draw_graph(ax, network, layout, texts, fills, bold=set(chosen or ()), weights=weights, remark=remark)
    if title is not None:
        ax.set_title(title)
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _edges_and_nodes(graph: RaptorGraphModel | pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Table of edges (source, target, weight, and the known columns or NaN) and all nodes of a model or a table."""
    if not isinstance(graph, pd.DataFrame):
        if not hasattr(graph, "get_edges"):
            raise TypeError(f"graph must be a trained model or a table, not {type(graph).__name__}.")
        edges, nodes = graph.get_edges(), list(graph.latent_names)
    elif set(_COLUMNS) <= set(graph.columns):
        edges, nodes = graph, list(dict.fromkeys([*graph["source"], *graph["target"]]))
    else:
        edges, nodes = _of_adjacency(graph), list(graph.index)
    edges = edges.reindex(columns=[*_COLUMNS, *_KNOWN])
    bad = edges[~np.isfinite(edges["weight"].to_numpy(dtype=float))]
    if len(bad):
        raise ValueError(f"The weight of {bad['source'].iloc[0]} -> {bad['target'].iloc[0]} is missing or infinite.")
    twice = edges[edges.duplicated(["source", "target"])]
    if len(twice):
        raise ValueError(f"The edge {twice['source'].iloc[0]} -> {twice['target'].iloc[0]} is there twice.")
    return edges[edges["weight"] != 0], nodes


def _of_adjacency(table: pd.DataFrame) -> pd.DataFrame:
    """Edges of an adjacency table."""
    if table.shape[0] != table.shape[1] or list(table.index) != list(table.columns) or not table.index.is_unique:
        raise ValueError(
            f"The table of shape {table.shape} is neither an adjacency, with the same unique names as rows and as "
            f"columns, nor a table of edges with the columns {', '.join(_COLUMNS)}."
        )
    weight = table.to_numpy(dtype=float)
    source, target = np.nonzero(weight)  # NaN is not 0
    names = table.index.to_numpy()
    return pd.DataFrame({"source": names[source], "target": names[target], "weight": weight[source, target]})


def _network(
    edges: pd.DataFrame, nodes: list[str], genes: list[str] | None, n_hops: int, max_edges: int
) -> tuple[nx.DiGraph, int]:
    """The part of the graph to draw, and how many of its edges are too many."""
    whole = nx.DiGraph()
    whole.add_nodes_from(nodes)
    for source, target, weight, frequency, support, module in edges[[*_COLUMNS, *_KNOWN]].itertuples(index=False):
        known = {"frequency": float(frequency), "support": float(support), "module": "" if pd.isna(module) else module}
        whole.add_edge(source, target, weight=float(weight), **known)
    if not nx.is_directed_acyclic_graph(whole):
        cycle = " -> ".join(str(edge[0]) for edge in nx.find_cycle(whole))
        raise ValueError(f"The graph has a cycle, {cycle}, and cannot be drawn in layers: give an acyclic one.")
    if genes is not None:
        missing = [gene for gene in genes if gene not in whole]
        if missing:
            raise KeyError(f"{missing[0]!r} is not in the graph; its nodes are {list(whole)[:20]}.")
        near = set(nx.multi_source_dijkstra_path_length(whole.to_undirected(), set(genes), n_hops, weight=None))
        # in the order of the model, since that of a set changes between runs
        part = nx.DiGraph()
        part.add_nodes_from(node for node in whole if node in near)
        part.add_edges_from(edge for edge in whole.edges(data=True) if near.issuperset(edge[:2]))
        whole = part
    by_weight = sorted(whole.edges.data("weight"), key=lambda edge: -abs(edge[2]))
    whole.remove_edges_from([edge[:2] for edge in by_weight[max_edges:]])
    kept = set(genes or ())
    whole.remove_nodes_from([node for node in whole if whole.degree(node) == 0 and node not in kept])
    return whole, len(by_weight[max_edges:])


def _modules(network: nx.DiGraph) -> list[str]:
    """Lines that name the genes of each module, as far as they are drawn."""
    genes: dict[str, list[str]] = {}
    for source, target, module in network.edges.data("module"):
        if module:
            genes.setdefault(str(module), []).extend((str(source), str(target)))
    lines = []
    for module, found in sorted(genes.items()):
        names = ", ".join(dict.fromkeys(found))
        lines += textwrap.wrap(f"{module}: the data do not order {names}", _LINE)
    return lines
