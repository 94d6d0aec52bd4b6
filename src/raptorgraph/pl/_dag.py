"""The learned graph between the perturbed genes."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from raptorgraph.pl._figure import BLUE, ORANGE, axes_or_new, finish

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel


def dag(
    graph: RaptorGraphModel | pd.DataFrame,
    *,
    genes: Sequence[str] | None = None,
    max_edges: int = 60,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike | None = None,
) -> Axes:
    """Draw the strongest edges of a causal graph, causes above effects.

    Each node stands one layer below the lowest of its causes. Width grows with the weight; blue edges are positive,
    orange ones negative. Latents without an edge are left out.

    Parameters
    ----------
    graph
        A trained model, or an adjacency table as of ``model.get_dag()``: d x d, row = cause, column = effect.
    genes
        Draw the edges between these genes only, and the genes themselves even if they have none.
    max_edges
        Number of edges to draw, largest absolute weights first.
    ax
        Axes to draw on; default those of a new figure.
    show
        Whether to show the figure; not by default.
    save
        File to save the figure to.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; with the text "no edges" where there is nothing to draw.

    Raises
    ------
    KeyError
        If a gene is not in the graph.
    ValueError
        If the table is not square with equal row and column names, has missing values or a cycle, or `max_edges` is
        not positive.
    """
    if max_edges < 1:
        raise ValueError(f"max_edges={max_edges!r} is not positive: use the number of edges to draw.")
    table = graph if isinstance(graph, pd.DataFrame) else graph.get_dag()
    network = _network(table, genes, max_edges)

    ax = axes_or_new(ax, (8, 6))
    ax.set_axis_off()
    if network.number_of_edges() == 0:
        ax.text(0.5, 0.5, "no edges", ha="center", va="center", transform=ax.transAxes, fontsize=14)
    if network.number_of_nodes():
        _draw(network, ax)
    finish(ax.figure, show, save)
    return ax


def _network(table: pd.DataFrame, genes: Sequence[str] | None, max_edges: int) -> nx.DiGraph:
    if table.shape[0] != table.shape[1] or list(table.index) != list(table.columns) or not table.index.is_unique:
        raise ValueError(
            f"The adjacency table of shape {table.shape} must have the same unique names as rows and as columns."
        )
    if genes is not None:
        missing = [gene for gene in genes if gene not in table.index]
        if missing:
            raise KeyError(f"{missing[0]!r} is not in the graph; its nodes are {list(table.index[:20])}.")
        table = table.loc[list(genes), list(genes)]
    weights = table.to_numpy(dtype=float)
    if not np.isfinite(weights).all():
        raise ValueError("The adjacency table has missing or infinite weights: fill them, for instance with 0.")

    cause, effect = np.nonzero(weights)
    strongest = np.argsort(-np.abs(weights[cause, effect]), kind="stable")[:max_edges]
    network = nx.DiGraph()
    network.add_nodes_from(genes if genes is not None else [])
    for k in strongest:
        network.add_edge(table.index[cause[k]], table.index[effect[k]], weight=weights[cause[k], effect[k]])
    if not nx.is_directed_acyclic_graph(network):
        cycle = " -> ".join(str(edge[0]) for edge in nx.find_cycle(network))
        raise ValueError(f"The graph has a cycle, {cycle}, and cannot be drawn in layers: give an acyclic one.")
    return network


def _draw(network: nx.DiGraph, ax: Axes) -> None:
    for layer, nodes in enumerate(nx.topological_generations(network)):
        for node in nodes:
            network.nodes[node]["layer"] = -layer  # causes on top
    positions = nx.multipartite_layout(network, subset_key="layer", align="horizontal")
    weights = np.array([weight for *_, weight in network.edges.data("weight")])
    if weights.size:
        nx.draw_networkx_edges(
            network,
            positions,
            ax=ax,
            width=0.5 + 3.0 * np.abs(weights) / np.abs(weights).max(),
            edge_color=[BLUE if weight > 0 else ORANGE for weight in weights],
            connectionstyle="arc3,rad=0.08",
            node_size=900,
            alpha=0.8,
        )
        ax.legend(
            handles=[Line2D([], [], color=BLUE, label="positive"), Line2D([], [], color=ORANGE, label="negative")],
            loc="best",
            frameon=False,
        )
    nx.draw_networkx_labels(
        network,
        positions,
        ax=ax,
        font_size=9 if len(network) <= 30 else 7,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "0.6"},
    )
    ax.margins(0.1)
