"""Where a perturbation would move cells on a map of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph.pl._cells import canonical, expression_of, screen_of
from raptorgraph.pl._figure import BLUE, ORANGE, Floats, axes_or_new, check_save, finish
from raptorgraph.pl._map import draw_groups, given_map, map_name, remarks, sampled, set_view, umap
from raptorgraph.pl._marks import marker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from os import PathLike

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen._screen import Screen

_N_COMPONENTS = 30
_N_NEAR = 15  # cells whose mean place is that of a predicted cell
_GRID = 12  # fields along each side of the map
_CONTROL_COLOR = "#8F8F8F"


@docs.dedent
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
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw how control cells would move on a UMAP of the measured cells if they were perturbed.

    The map shows measured cells by their expression. Control cells are put under the perturbation by
    ``model.predict``, which keeps each cell's own noise. An arrow leads from the mean place of the 15 measured cells
    that are nearest to the control cell, in 30 principal components, to that of those nearest to the same cell
    perturbed. A perturbation without effect thus has no arrows.

    Parameters
    ----------
    model
        A trained model with its data.
    perturbation
        Label, or tuple, list or set of genes; it need not have been measured.
    kind
        ``"arrows"`` draws the mean shift in each field of a grid with at least three cells, ``"cells"`` the perturbed
        cells.
    basis
        Coordinates of the model's cells to draw on: a key of ``obsm`` such as ``"X_umap"``, or an array, cells x 2. By
        default scanpy computes a UMAP of the principal components.
    n_cells
        Largest number of control cells that are perturbed.
    max_cells
        Largest number of measured cells on the map, drawn at random.
    seed
        Seed of the draws and of the UMAP.
    title
        Title; by default the perturbation and the number of cells.
    %(ax)s
    %(figure)s

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
    check_choice("kind", kind, ("arrows", "cells"))
    check_integer("n_cells", n_cells, 1)
    check_integer("max_cells", max_cells, 50)
    screen = screen_of(model)
    adata, label = model.adata, canonical(model, perturbation)
    rows = sampled(adata.n_obs, max_cells, seed)
    points = None if basis is None else given_map(adata, basis)[rows]
    after = model.predict(label, n_cells=n_cells, seed=seed)
    before = adata.obs_names.get_indexer(after.obs["control_cell"])

    coordinates, project = _components(screen, rows)
    if points is None:
        points = umap(coordinates, n_neighbors=15, seed=seed)
    near = NearestNeighbors(n_neighbors=min(_N_NEAR, len(rows))).fit(coordinates)
    start, end = (
        points[near.kneighbors(cells, return_distance=False)].mean(axis=1)
        for cells in (project(expression_of(screen, before)), project(after[:, adata.var_names].X))
    )

    ax = axes_or_new(ax, (6.6, 4.8))
    colors = {screen.control: _CONTROL_COLOR, label: BLUE}
    _draw_shift(ax, points, [screen.labels[code] for code in screen.codes[rows]], colors, start, end, kind)
    n_outside = set_view(ax, points, map_name(basis))
    if title is None:
        title = f"{label}: {len(start):,} control cells perturbed\n{remarks(len(rows), adata.n_obs, n_outside)}"
    ax.set_title(title, fontsize=10)
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _components(screen: Screen, rows: npt.NDArray[np.int64]) -> tuple[Floats, Callable[[npt.ArrayLike], Floats]]:
    """Principal components of the cells, and the function that projects other cells on them."""
    import scanpy as sc  # here, since it takes seconds

    cells = ad.AnnData(expression_of(screen, rows))
    sc.pp.pca(cells, n_comps=min(_N_COMPONENTS, min(cells.shape) - 1), random_state=0)
    mean = np.asarray(cells.X.mean(axis=0)).ravel()
    loadings = cells.varm["PCs"]
    return cells.obsm["X_pca"], lambda X: np.asarray(X @ loadings) - mean @ loadings


def _draw_shift(
    ax: Axes, points: Floats, labels: list[str], colors: dict[str, str], start: Floats, end: Floats, kind: str
) -> None:
    """Draw the measured cells, the control cells behind, and the shift from `start` to `end` as arrows or cells."""
    control, label = colors
    if kind == "cells":
        name = f"{label}, predicted"
        places, groups = np.vstack([points, end]), pd.Series(labels + [name] * len(end))
        draw_groups(ax, places, groups, {**colors, name: ORANGE}, behind=[control])
        return
    arrow = marker("mean predicted shift", ORANGE, size=11, shape=r"$\rightarrow$")
    draw_groups(ax, points, pd.Series(labels), colors, behind=[control], more=[arrow])
    # fields of the whole map, but at least three across the cells that move
    side = np.minimum(np.ptp(points, axis=0) / _GRID, np.ptp(start, axis=0) / 3)
    field = ((start - start.min(axis=0)) / np.maximum(side, 1e-12)).astype(int)
    table = pd.DataFrame(np.hstack([start, end - start]), columns=["x", "y", "dx", "dy"]).groupby(list(field.T))
    mean = table.mean()[table.size() >= 3]
    ax.quiver(
        mean["x"], mean["y"], mean["dx"], mean["dy"], color=ORANGE, angles="xy", scale_units="xy", scale=1, width=0.006,
        edgecolor="white", linewidth=0.3, zorder=3,
    )  # fmt: skip
