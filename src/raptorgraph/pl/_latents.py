"""The latents of the cells on a UMAP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph.pl import _map
from raptorgraph.pl._cells import canonical, expression_of, screen_of
from raptorgraph.pl._figure import PALETTE, SCALE, Floats, axes_or_new, check_save, finish
from raptorgraph.screen._asked import listed
from raptorgraph.screen._matrix import as_matrix, to_dense
from raptorgraph.screen._names import gene_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel

_KEYS = {"causal": "X_raptorgraph", "exogenous": "X_raptorgraph_exogenous"}
_CONTROL_COLOR = "#6E6E6E"


@docs.dedent
def latents(
    data: RaptorGraphModel | AnnData,
    *,
    color: str | None = None,
    groups: str | Sequence[str] | None = None,
    control: str | None = None,
    kind: str = "causal",
    basis: str | np.ndarray | None = None,
    n_neighbors: int = 15,
    max_cells: int = 4_000,
    seed: int = 0,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw the UMAP of the cells' latents, computed by scanpy; the data stay as they are.

    Parameters
    ----------
    data
        A trained model, or cells that ``model.annotate()`` has written to (``obsm["X_raptorgraph"]``).
    color
        Column of ``obs`` with categories or numbers, or a gene. For a model the default is the perturbation.
    groups
        Categories to color; a model's perturbations may be spelled in any order. By default the six that are separated
        best from the control cells (from all other cells where these are not known), in this order; the others are
        light gray. The separation is the difference of the means over the standard deviation of single cells, along the
        difference that the other half of the cells shows, so that few cells or a weak effect do not seem separated.
    control
        Category of the control cells, which are drawn in dark gray behind the others. A model knows it.
    kind
        ``"causal"`` or ``"exogenous"`` latents.
    basis
        Coordinates to draw on instead: a key of ``obsm`` such as ``"X_umap"``, or an array, cells x 2.
    n_neighbors
        Number of neighbors of each cell in the graph from which the UMAP is computed.
    max_cells
        Largest number of cells that are embedded and shown, drawn at random.
    seed
        Seed of the draw and of the UMAP.
    title
        Title; by default the kind of latents and the number of cells.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes. Where a few cells (at most 2 %) lie far off, the limits leave them out and the title counts them.

    Raises
    ------
    KeyError
        If the latents, the column or gene, a group or the basis is not there.
    ValueError
        If `kind` is unknown, the model has no data, or a number is out of range.

    Notes
    -----
    The same with scanpy: ``sc.pp.neighbors(adata, use_rep="X_raptorgraph")``, ``sc.tl.umap(adata)``,
    ``sc.pl.umap(adata, color=...)``.

    Examples
    --------
    >>> ax = rg.pl.latents(model)
    >>> ax = rg.pl.latents(model, color=model.perturbed_genes[0], basis=adata.obsm["u_true"][:, :2])
    """
    check_save(save)
    check_choice("kind", kind, _KEYS)
    check_integer("n_neighbors", n_neighbors, 2)
    check_integer("max_cells", max_cells, 3)
    model = None if isinstance(data, AnnData) else data
    adata = screen_of(model).adata if model is not None else data
    if model is None and _KEYS[kind] not in adata.obsm:
        raise KeyError(f"{_KEYS[kind]!r} is not in adata.obsm: call model.annotate(adata) first.")
    values, known_control = _values(model, adata, color)
    control = known_control if control is None else control
    groups = None if groups is None else listed(groups)
    if groups is not None and model is not None and color is None:
        groups = [canonical(model, group) for group in groups]
    known = set() if values is None else set(values)
    missing = [group for group in (*(groups or ()), control) if group is not None and group not in known]
    if missing:
        raise KeyError(f"{missing[0]!r} is not among the categories of color={color!r}.")

    rows = _map.sampled(adata.n_obs, max_cells, seed)
    points = None if basis is None else _map.given_map(adata, basis)[rows]
    found = np.asarray(adata.obsm[_KEYS[kind]]) if model is None else model.get_latent_representation(kind=kind)
    found = found[rows]
    if points is None:
        points = _map.umap(found, n_neighbors=n_neighbors, seed=seed)

    ax = axes_or_new(ax, (6.6, 4.8))
    if values is None:
        _map.draw_groups(ax, points, pd.Series("cells", index=rows), {"cells": _map.GROUP_COLORS[0]}, legend=False)
    elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        _map.draw_values(ax, points, values.iloc[rows].to_numpy(dtype=float), str(values.name))
    else:
        labels = values.iloc[rows].astype(object)
        colors = _group_colors(found, labels, control, groups)
        title_of = str(values.name) if groups is not None else f"{values.name},\nbest separated first"
        _map.draw_groups(ax, points, labels, colors, behind=[control] if control else [], title=title_of)
    n_outside = _map.set_view(ax, points, _map.map_name(basis))
    if title is None:
        title = f"{kind} latents, {_map.remarks(len(rows), adata.n_obs, n_outside)}"
    ax.set_title(title, fontsize=10)
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _values(model: RaptorGraphModel | None, adata: AnnData, color: str | None) -> tuple[pd.Series | None, str | None]:
    """What colors the cells, and the category of control cells where it is known."""
    if color is None:
        if model is None:
            return None, None
        screen = screen_of(model)
        return pd.Series([screen.labels[code] for code in screen.codes], name="perturbation"), screen.control
    if color in adata.obs:
        return adata.obs[color].reset_index(drop=True), None
    names = gene_names(adata)
    if color.strip() not in names:
        raise KeyError(f"color={color!r} is neither a column of obs, {list(adata.obs)}, nor a gene.")
    column = [names.get_loc(color.strip())]
    values = as_matrix(adata[:, column].X) if model is None else expression_of(screen_of(model), genes=column)
    return pd.Series(to_dense(values).ravel(), name=f"{color} ({'X' if model is None else SCALE})"), None


def _group_colors(
    found: npt.NDArray[np.floating], labels: pd.Series, control: str | None, groups: list[str] | None
) -> dict[str, str]:
    """Colors of the given groups, or of those that are separated best."""
    if groups is None:
        groups = separation(found, labels, control).nlargest(len(_map.GROUP_COLORS)).index.tolist()
    palette = (*_map.GROUP_COLORS, *PALETTE[6:])
    if len(groups) > len(palette):
        raise ValueError(f"{len(groups)} groups cannot be told apart by color: name {len(palette)} at most.")
    colors = dict(zip(groups, palette, strict=False))
    return {control: _CONTROL_COLOR, **colors} if control is not None and control not in colors else colors


def separation(found: npt.NDArray[np.floating], labels: pd.Series, control: str | None) -> pd.Series:
    """Distance of each group from the control cells, or from all others, in standard deviations of single cells.

    The direction comes from half of the cells and the distance from the other half, both ways, where there are four.
    """
    x = np.asarray(found, dtype=np.float64)
    names = labels.astype(object).to_numpy()
    floor = 1e-6 * float(x.var(axis=0).sum()) or 1.0
    known = dict.fromkeys(name for name in names if name != control and not pd.isna(name))
    for name in known:
        own = names == name
        rest = x[names == control] if control in set(names) else x[~own]
        known[name] = np.mean([_distance(*halves, floor) for halves in _both_ways(x[own], rest)])
    return pd.Series(known, dtype=float)


def _both_ways(own: Floats, rest: Floats) -> list[tuple[Floats, Floats, Floats, Floats]]:
    """Cells of a group and others to find a direction with, and to measure along it."""
    (own_a, own_b), (rest_a, rest_b) = ((x[::2], x[1::2]) if len(x) > 3 else (x, x) for x in (own, rest))
    return [(own_a, rest_a, own_b, rest_b), (own_b, rest_b, own_a, rest_a)]


def _distance(own: Floats, rest: Floats, own_again: Floats, rest_again: Floats, floor: float) -> float:
    """Difference of means along that of the first two, over the standard deviation within the last two."""
    if 0 in (len(own), len(rest)):
        return 0.0
    along = own.mean(0) - rest.mean(0)
    length = float(np.linalg.norm(along))
    one, other = (cells @ (along / (length or 1.0)) for cells in (own_again, rest_again))
    return float((one.mean() - other.mean()) / np.sqrt(0.5 * (one.var() + other.var()) + floor))
