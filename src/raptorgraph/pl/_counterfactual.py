"""Where a perturbation would move cells on a map of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.lines import Line2D
from sklearn.neighbors import NearestNeighbors

from raptorgraph._arguments import check_integer
from raptorgraph.pl._figure import BLUE, ORANGE, axes_or_new, check_save, finish
from raptorgraph.pl._map import draw_groups, given_map, map_name, remarks, sampled, set_view, umap
from raptorgraph.pl._measured import canonical, spelling
from raptorgraph.pp import format_perturbation
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import expression_source

if TYPE_CHECKING:
    from collections.abc import Collection
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel

_N_COMPONENTS = 30
_N_NEAR = 15  # cells whose mean place is that of a predicted cell
_GRID = 12  # fields along each side of the map
_CONTROL_COLOR = "#8F8F8F"


def counterfactual(
    model: RaptorGraphModel,
    perturbation: str | Collection[str],
    *,
    kind: str = "arrows",
    basis: str | np.ndarray | None = None,
    n_cells: int = 500,
    max_cells: int = 4_000,
    seed: int = 0,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw how control cells move on a UMAP of the measured cells, were they perturbed.

    The map shows measured cells by their expression. Control cells are put under the perturbation
    (``model.predict``, with the noise of their own), and each end of an arrow is the mean place of the 15 measured
    cells nearest in 30 principal components: of the control cell itself, and of the same cell perturbed. A perturbation
    without effect thus has no arrows.

    Parameters
    ----------
    model
        A trained model with its data.
    perturbation
        Label, or tuple, list or set of genes; it need not have been measured.
    kind
        ``"arrows"``: mean shift in each field of a grid with at least three cells. ``"cells"``: the perturbed cells.
    basis
        Coordinates of the model's cells to draw on: a key of ``obsm`` such as ``"X_umap"``, or an array, cells x 2. By
        default a UMAP of the principal components is computed by scanpy.
    n_cells
        Control cells that are perturbed, at most.
    max_cells
        Measured cells on the map, at most, drawn at random.
    seed
        Of the draws and of the UMAP.
    title
        Default names the perturbation and the number of cells.
    ax
        Axes to draw on; default those of a new figure.
    show
        Whether to show the figure; not by default.
    save
        File to save the figure to.
    return_fig
        Return the figure and not the axes.

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes. The model's data stay as they are.

    Raises
    ------
    KeyError
        If `basis` is not in ``obsm``.
    ValueError
        If the model has no data, a gene is unknown, `kind` is unknown or a number is out of range.

    Notes
    -----
    A UMAP keeps neighborhoods, not distances: arrows say where to, and not how far.

    Examples
    --------
    >>> gene = model.perturbed_genes[0]
    >>> ax = rg.pl.counterfactual(model, gene, basis=adata.obsm["u_true"][:, :2], n_cells=100)
    """
    check_save(save)
    if kind not in ("arrows", "cells"):
        raise ValueError(f"kind={kind!r} is unknown; use 'arrows' or 'cells'.")
    for name, value, least in (("n_cells", n_cells, 1), ("max_cells", max_cells, 50)):
        check_integer(name, value, least)
    if model.adata is None:
        raise ValueError("The model was loaded without data: load it with adata=...")
    names = spelling(model)
    label, control = canonical(model, perturbation), format_perturbation((), **names)
    parsed = parse_obs(model.adata, model.setup_args["perturbation_key"], **names)
    labels = np.array([format_perturbation(genes, **names) for genes in parsed.conditions], dtype=object)[parsed.codes]
    rows = sampled(model.adata.n_obs, max_cells, seed)
    points = None if basis is None else given_map(model.adata, basis)[rows]
    after = model.predict(label, n_cells=n_cells, seed=seed)
    before = model.adata.obs_names.get_indexer(after.obs["control_cell"])

    coordinates, project = _components(model, model.adata, rows)
    if points is None:
        points = umap(coordinates, n_neighbors=15, seed=seed)
    near = NearestNeighbors(n_neighbors=min(_N_NEAR, len(rows))).fit(coordinates)
    start, end = (
        points[near.kneighbors(cells, return_distance=False)].mean(axis=1)
        for cells in (project(_expression(model, model.adata[before])), project(after[:, model.adata.var_names].X))
    )

    ax = axes_or_new(ax, (6.6, 4.8))
    shown = pd.Series(np.where(np.isin(labels[rows], [control, label]), labels[rows], None))
    colors = {control: _CONTROL_COLOR, label: BLUE}
    _draw_shift(ax, points, shown, colors, start, end, kind, label)
    n_outside = set_view(ax, points, map_name(basis))
    left_out = remarks(len(rows), model.adata.n_obs, n_outside)
    ax.set_title(
        title if title is not None else f"{label}: {len(start):,} control cells perturbed\n{left_out}", fontsize=10
    )
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _expression(model: RaptorGraphModel, adata: AnnData):
    setup = model.setup_args
    return to_expression(*expression_source(adata, setup.get("layer"), setup.get("library_size_key")))


def _components(model: RaptorGraphModel, adata: AnnData, rows: np.ndarray):
    """Principal components of the chosen cells, and the function that projects other cells on them."""
    import scanpy as sc  # here, since it takes seconds

    cells = ad.AnnData(_expression(model, adata[rows]))
    n = min(_N_COMPONENTS, min(cells.shape) - 1)
    sc.pp.pca(cells, n_comps=n, random_state=0)
    mean = np.asarray(cells.X.mean(axis=0)).ravel()
    loadings = cells.varm["PCs"]
    return cells.obsm["X_pca"], lambda X: np.asarray(X @ loadings) - mean @ loadings


def _draw_shift(
    ax: Axes,
    points: np.ndarray,
    shown: pd.Series,
    colors: dict[str, str],
    start: np.ndarray,
    end: np.ndarray,
    kind: str,
    label: str,
) -> None:
    if kind == "cells":
        places = np.vstack([points, end])
        name = f"{label}, predicted"
        groups = pd.concat([shown, pd.Series([name] * len(end))], ignore_index=True)
        draw_groups(ax, places, groups, {**colors, name: ORANGE}, behind=list(colors)[:1])
        return
    draw_groups(ax, points, shown, colors, behind=list(colors)[:1])
    # fields of the whole map, but at least three across the cells that move
    side = np.minimum(np.ptp(points, axis=0) / _GRID, np.ptp(start, axis=0) / 3)
    field = ((start - start.min(axis=0)) / np.maximum(side, 1e-12)).astype(int)
    table = pd.DataFrame(np.hstack([start, end - start]), columns=["x", "y", "dx", "dy"]).groupby(list(field.T))
    mean = table.mean()[table.size() >= 3]
    ax.quiver(
        mean["x"], mean["y"], mean["dx"], mean["dy"], color=ORANGE, angles="xy", scale_units="xy", scale=1, width=0.006,
        edgecolor="white", linewidth=0.3, zorder=3,
    )  # fmt: skip
    legend = ax.get_legend()
    arrow = Line2D([], [], color=ORANGE, linestyle="", marker=r"$\rightarrow$", markersize=11)
    handles = [*legend.legend_handles, arrow]
    texts = [text.get_text() for text in legend.get_texts()] + ["mean predicted shift"]
    ax.legend(handles, texts, bbox_to_anchor=(1.0, 1.0), loc="upper left", frameon=False, fontsize=8)
