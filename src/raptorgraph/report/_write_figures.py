"""Figures that the command line writes, drawn without touching the user's backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import pl
from raptorgraph.pl._figure import write_figure
from raptorgraph.report._figures import draw_effects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.report._folder import RunFolder

_MOST_CELLS = 20_000  # of a screen that is not in memory, drawn at random


def write_figures(
    folder: RunFolder,
    model: RaptorGraphModel,
    labels: np.ndarray,
    predicted: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    kind: str,
) -> None:
    """Write ``dag.png``, ``training.png``, ``effects.png`` and ``umap.png``, as far as they can be drawn.

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
    """
    drawn: dict[str, Callable[[Path], object]] = {
        "dag.png": lambda file: pl.dag(model, ax=_axes(7.5, 5.5), save=file),
        "training.png": lambda file: pl.training(model, ax=_axes(13, 2.9), save=file),
        "effects.png": lambda file: _effects(predicted, truth, kind, file),
        "umap.png": lambda file: _umap(model, labels, file),
    }
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
