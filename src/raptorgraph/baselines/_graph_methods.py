"""Graphs by other methods, by name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from raptorgraph.baselines._graphs import (
    dagma_on_targets,
    difference_of_means,
    modular_response,
    random_graph_weights,
    sort_by_variance,
)
from raptorgraph.baselines._graphs_interventional import dotears, sdcd

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd


def graph_methods(seed: int = 0) -> dict[str, Callable[..., pd.DataFrame]]:
    """Methods by name, each a function from a screen to a graph among its perturbed genes.

    Parameters
    ----------
    seed
        Seed of the methods that draw.

    Returns
    -------
    dict of str to function
        All take ``(adata, perturbation_key="perturbation", *, control="control", delimiter="+", layer=None,
        library_size_key=None, batch_key=None)`` as :meth:`raptorgraph.RaptorGraphModel.setup_anndata` does, use the
        control cells and those of single perturbations, and return a DataFrame k x k of the genes that were perturbed
        alone: row = cause, 0 on the diagonal and where a method finds no edge.

    Examples
    --------
    >>> list(rg.baselines.graph_methods())
    ['difference of means', 'modular response', 'sort by variance', 'dagma', 'dotears', 'sdcd', 'random']
    >>> graph = rg.baselines.graph_methods(seed=1)["random"](adata, library_size_key="total_counts")
    >>> graph.shape
    (6, 6)
    """
    return {
        "difference of means": difference_of_means,
        "modular response": modular_response,
        "sort by variance": sort_by_variance,
        "dagma": partial(dagma_on_targets, seed=seed),
        "dotears": dotears,
        "sdcd": partial(sdcd, seed=seed),
        "random": partial(random_graph_weights, seed=seed),
    }
