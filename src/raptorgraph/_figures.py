"""Figures that the command line writes, drawn without touching the user's backend."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.figure import Figure

from raptorgraph import pl

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel

_MAX_CELLS = 4_000  # of the embedding; more dots hide each other
_COLORS = [f"C{k}" for k in range(10) if k != 7]  # not the gray one, which is for control cells
_N_PANELS = 4


def write_figures(
    out: Path,
    model: RaptorGraphModel,
    latents: np.ndarray,
    labels: np.ndarray,
    predicted: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    kind: str,
) -> None:
    """Write ``dag.png``, ``training.png``, ``effects.png`` and ``umap.png``.

    Parameters
    ----------
    out
        Directory, which exists.
    model
        Trained model.
    latents
        Causal latents, shape (n_cells, d).
    labels
        Canonical label of each cell, shape (n_cells,); empty for control cells.
    predicted, truth
        Effects, perturbations x genes; those of `truth` with the largest effects are drawn.
    kind
        What the effects of `truth` are: "true" or "measured".
    """
    # a Figure of its own draws with Agg, whatever the backend of pyplot
    figure = Figure(figsize=(9, 7), layout="constrained")
    pl.dag(model, ax=figure.subplots(), save=out / "dag.png")
    pl.training(model, figure=Figure(figsize=(11, 8), layout="constrained"), save=out / "training.png")
    _effects(predicted, truth, kind).savefig(out / "effects.png", dpi=150)
    _umap(latents, labels).savefig(out / "umap.png", dpi=150)


def _effects(predicted: pd.DataFrame, truth: pd.DataFrame, kind: str) -> Figure:
    sizes = pd.Series(np.linalg.norm(truth.to_numpy(dtype=float), axis=1), index=truth.index)
    largest = sizes.nlargest(_N_PANELS).index
    figure = Figure(figsize=(4.5 * len(largest), 4.5), layout="constrained")
    for ax, label in zip(figure.subplots(1, len(largest), squeeze=False)[0], largest, strict=True):
        pl.effect(predicted.loc[label], truth.loc[label], title=label, ax=ax).set_xlabel(f"{kind} effect")
    return figure


def _umap(latents: np.ndarray, labels: np.ndarray) -> Figure:
    """Embedding of the latents: control cells in gray, the perturbations that lie farthest from them in color."""
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(latents))[:_MAX_CELLS])
    latents, labels = np.asarray(latents)[chosen], labels[chosen]
    cells = ad.AnnData(latents)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, on threads and future defaults
        sc.pp.neighbors(cells, n_neighbors=min(15, len(latents) - 1), use_rep="X")
        sc.tl.umap(cells)
    points = cells.obsm["X_umap"]

    means = pd.DataFrame(latents).groupby(labels).mean()
    center = means.loc[""] if "" in means.index else means.mean()
    distance = ((means - center) ** 2).sum(axis=1).drop("", errors="ignore")
    colored = distance.nlargest(len(_COLORS)).index
    figure = Figure(figsize=(8, 6), layout="constrained")
    ax = figure.subplots()
    groups = [("other perturbations", ~np.isin(labels, ["", *colored]), "#E0E0E0"), ("control", labels == "", "0.55")]
    groups += [(label, labels == label, color) for label, color in zip(colored, _COLORS, strict=False)]
    for name, cells_of, color in groups:
        if cells_of.any():
            ax.scatter(*points[cells_of].T, s=4, color=color, label=name, linewidths=0)
    ax.legend(bbox_to_anchor=(1.0, 1.0), loc="upper left", frameon=False, markerscale=3)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2", title="causal latents of the cells")
    return figure
