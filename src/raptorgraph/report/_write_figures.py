"""Figures that the command line writes, drawn without touching the user's backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import pl
from raptorgraph.pl._figure import write_figure
from raptorgraph.pl._heat_map import side_of_squares
from raptorgraph.report._figures import draw_effects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.report._folder import RunFolder

_MOST_CELLS = 20_000  # of a screen that is not in memory, drawn at random
_MOST_PERTURBATIONS, _MOST_GENES = 60, 40  # of the heat maps
_N_VOLCANOS = 4
FIGURES = ("dag.png", "training.png", "effects.png", "umap.png", "effects_map.png", "similarity.png", "volcano.png")
_LETTER = 0.075  # inches


def write_figures(
    folder: RunFolder,
    model: RaptorGraphModel,
    labels: np.ndarray,
    predicted: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    kind: str,
    strong: Sequence[str],
) -> None:
    """Write the figures of a run, as far as they can be drawn.

    Parameters
    ----------
    folder
        Where they are written to.
    model
        Trained model, with its data.
    labels
        Canonical label of each cell, shape (n_cells,); empty for control cells.
    predicted, truth
        Effects, perturbations x genes; those of `truth` with the largest effects are drawn.
    kind
        What the effects of `truth` are: "true" or "measured".
    strong
        Measured perturbations that stand out from noise, the largest effect first: only of these there are
        ``effects_map.png``, ``similarity.png`` and ``volcano.png``.
    """
    drawn: dict[str, Callable[[Path], object]] = {
        "dag.png": lambda file: pl.dag(model, ax=_axes(7.5, 5.5), save=file),
        "training.png": lambda file: pl.training(model, ax=_axes(13, 2.9), save=file),
        "effects.png": lambda file: _effects(predicted, truth, kind, file),
        "umap.png": lambda file: _umap(model, labels, file),
    }
    if len(strong):
        drawn["effects_map.png"] = lambda file: _effects_map(model, strong, predicted.shape[1], file)
    if len(strong) > 1:
        drawn["similarity.png"] = lambda file: _similarity(model, strong, file)
    if len(strong) and model.has_posterior:
        drawn["volcano.png"] = lambda file: _volcano(model, strong, file)
    for name, draw in drawn.items():
        with folder.optional(name), folder.product(name) as part:
            draw(part)


def _umap(model: RaptorGraphModel, labels: np.ndarray, file: Path) -> None:
    control, given = "control cells", None
    if model.adata_manager.stored is not None and len(labels) > _MOST_CELLS:
        rows = np.sort(np.random.default_rng(0).choice(len(labels), _MOST_CELLS, replace=False))
        labels, given = labels[rows], model.adata[rows]
    cells = ad.AnnData(
        obs=pd.DataFrame({"perturbation": np.where(labels == "", control, labels)}).set_index(
            np.arange(len(labels)).astype(str)
        ),
        obsm={"X_raptorgraph": np.asarray(model.get_latent_representation(given))},
    )
    pl.latents(cells, color="perturbation", control=control, ax=_axes(7.5, 5.5), save=file)


def _axes(width: float, height: float) -> Axes:
    """Axes of a figure of its own, which draws with Agg, whatever the backend of pyplot."""
    return Figure(figsize=(width, height), layout="constrained").subplots()


def _effects(predicted: pd.DataFrame, truth: pd.DataFrame, kind: str, file: Path) -> None:
    figure, _ = draw_effects(predicted, truth, most_columns=4, size=(4.3, 4.8))
    for ax in figure.axes:
        ax.set_xlabel(f"{kind} effect (log-normalized)")
    write_figure(figure, file)


def _effects_map(model: RaptorGraphModel, strong: Sequence[str], n_genes: int, file: Path) -> None:
    rows = min(_MOST_PERTURBATIONS, len(strong))
    columns = min(_MOST_GENES, n_genes)
    height, width = (side_of_squares(n)[0] * n for n in (rows, columns))
    ax = _axes(width + _LETTER * max(map(len, strong)) + 2.4, max(height, 2.2) + 1.3)
    pl.effects_map(model, strong, n_genes=_MOST_GENES, n_perturbations=rows, ax=ax, save=file)


def _similarity(model: RaptorGraphModel, strong: Sequence[str], file: Path) -> None:
    n = min(_MOST_PERTURBATIONS, len(strong))
    side, names = max(side_of_squares(n)[0] * n, 1.6), _LETTER * max(map(len, strong))
    ax = _axes(side + names + 2.9, side + names + 0.7)
    pl.similarity(model, strong, n_perturbations=n, ax=ax, save=file)


def _volcano(model: RaptorGraphModel, strong: Sequence[str], file: Path) -> None:
    """Volcano plots of the strongest perturbations, two in a row."""
    labels = strong[:_N_VOLCANOS]
    n_columns = min(2, len(labels))
    n_rows = -(-len(labels) // n_columns)
    figure = Figure(figsize=(6.2 * n_columns, 4.4 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax, label in zip(grid, labels, strict=False):
        pl.volcano(model, label, ax=ax)
    for spare in grid[len(labels) :]:
        spare.remove()
    write_figure(figure, file)
