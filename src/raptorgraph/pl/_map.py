"""Cells as points on a map: its coordinates, its limits, and how cells are colored on it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from raptorgraph._progress import progress_bar
from raptorgraph.pl._figure import LIGHT, PALETTE, Floats
from raptorgraph.pl._marks import Style, legend_beside, marker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


GROUP_COLORS = PALETTE[:6]  # black would be taken for control cells
OTHERS = "#C8C8C8"
_TAIL = 0.01  # of the cells, on each side, that may be far off
_OUTSIDE = 0.02  # at most this part of them may lie outside the view


def umap(X: np.ndarray, *, n_neighbors: int, seed: int) -> Floats:
    """Compute the UMAP of the rows of X by scanpy, shape (n, 2)."""
    import scanpy as sc  # here, since it takes seconds

    cells = ad.AnnData(np.asarray(X, dtype=np.float32))
    with progress_bar(f"UMAP of {cells.n_obs:,} cells"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, on threads and future defaults
        sc.pp.neighbors(cells, n_neighbors=min(n_neighbors, cells.n_obs - 1), use_rep="X", random_state=seed)
        sc.tl.umap(cells, random_state=seed)
    return np.asarray(cells.obsm["X_umap"], dtype=float)


def given_map(adata: AnnData, basis: str | np.ndarray) -> Floats:
    """The coordinates that `basis` names in ``adata.obsm`` or holds, shape (n_cells, 2)."""
    if isinstance(basis, str):
        if basis not in adata.obsm:
            raise KeyError(f"basis={basis!r} is not in adata.obsm, which has {list(adata.obsm)}.")
        basis = adata.obsm[basis]
    points = np.asarray(basis, dtype=float)
    if points.ndim != 2 or points.shape[0] != adata.n_obs or points.shape[1] < 2:
        raise ValueError(f"basis of shape {points.shape} must have two coordinates for each of {adata.n_obs} cells.")
    if not np.isfinite(points[:, :2]).all():
        raise ValueError("basis has missing or infinite coordinates.")
    return points[:, :2]


def map_name(basis: str | np.ndarray | None) -> str:
    """``"X_umap"`` becomes ``"UMAP"``."""
    if basis is None:
        return "UMAP"
    name = basis.removeprefix("X_") if isinstance(basis, str) else "map"
    return {"umap": "UMAP", "tsne": "t-SNE", "pca": "PC"}.get(name, name)


def sampled(n_cells: int, max_cells: int, seed: int) -> npt.NDArray[np.int64]:
    """Indices of at most `max_cells` cells, drawn without replacement, in ascending order."""
    if n_cells <= max_cells:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng(seed).choice(n_cells, max_cells, replace=False))


def set_view(ax: Axes, points: Floats, name: str) -> int:
    """Set limits around all but a few far-off cells, and give back the number of cells outside them."""
    low, high = np.quantile(points, [_TAIL, 1 - _TAIL], axis=0)
    # a cell further from the others than a third of their extent would leave them no room
    low, high = low - 0.35 * (high - low), high + 0.35 * (high - low)
    inside = ((points >= low) & (points <= high)).all(axis=1)
    if (~inside).mean() > _OUTSIDE:
        inside[:] = True
    low, high = points[inside].min(axis=0), points[inside].max(axis=0)
    margin = 0.03 * (high - low) + 1e-9
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
    ax.set(xticks=[], yticks=[], xlabel=f"{name} 1", ylabel=f"{name} 2")
    return int((~inside).sum())


def _points(n_cells: int) -> Style:
    """Style of points whose area shrinks with their number, so that they cover about the same part of the axes."""
    size = float(np.clip(16_000 / max(n_cells, 1), 3.0, 30.0))
    return {"s": size, "linewidths": 0, "rasterized": n_cells > 5_000}


def draw_groups(
    ax: Axes,
    points: Floats,
    labels: pd.Series,
    colors: Mapping[str, str],
    *,
    behind: Sequence[str] = (),
    more: Sequence[Artist] = (),
    title: str | None = None,
    legend: bool = True,
) -> None:
    """Draw each group in its color, in the order of the legend, and all other cells in light gray below.

    `labels` has the group of each cell, NaN where it has none. Cells are drawn in random order, those of the groups
    `behind` before the others. `more` are further entries of the legend, which has a `title`, or is left out.
    """
    labels = pd.Series(np.asarray(labels, dtype=object))
    known = labels.isin(list(colors)).to_numpy()
    style = _points(len(points))
    counts = labels[known].value_counts()
    handles = []
    if not known.all():
        ax.scatter(*points[~known].T, color=OTHERS, **style)
        handles.append(marker(f"others ({(~known).sum():,})", OTHERS))
    last = ~labels.isin(list(behind)).to_numpy()
    for part, scale in ((~last, 1.0), (last, 1.6)):
        rows = np.random.default_rng(0).permutation(np.flatnonzero(known & part))
        if len(rows):
            x, y = points[rows].T
            ax.scatter(x, y, c=[colors[labels[k]] for k in rows], **style | {"s": scale * style["s"]})
    handles += [marker(f"{name} ({counts[name]:,})", color) for name, color in colors.items() if name in counts]
    if legend:
        legend_beside(ax, [*handles, *more], fontsize=8, title=title)


def draw_values(ax: Axes, points: Floats, values: Floats, label: str) -> None:
    """Draw numbers in viridis, the largest on top; cells without a number in light gray."""
    known = np.isfinite(values)
    style = _points(len(points))
    ax.scatter(*points[~known].T, color=LIGHT, **style)
    rows = np.flatnonzero(known)[np.argsort(values[known], kind="stable")]
    high = np.quantile(values[known], 0.995) if known.any() else 1.0
    low = values[known].min() if known.any() else 0.0
    x, y = points[rows].T
    dots = ax.scatter(x, y, c=values[rows], cmap="viridis", vmin=low, vmax=max(high, low + 1e-9), **style)
    extend: Literal["max", "neither"] = "max" if values[known].max(initial=low) > high else "neither"
    ax.figure.colorbar(dots, ax=ax, label=label, shrink=0.7, aspect=25, extend=extend)


def remarks(n_shown: int, n_cells: int, n_outside: int) -> str:
    """What the map leaves out, for its title."""
    parts = [f"{n_shown:,} of {n_cells:,} cells"] if n_shown < n_cells else [f"{n_cells:,} cells"]
    if n_outside:
        parts.append(f"{n_outside:,} outside the view")
    return ", ".join(parts)
