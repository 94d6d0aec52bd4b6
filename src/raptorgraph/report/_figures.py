"""Figures of the page, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import pl
from raptorgraph.evaluation._held_out_scores import HALF, PERFECT, Scores
from raptorgraph.pl._panels import dot_panel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_N_PANELS = 4
_N_GUIDED = 12  # perturbations whose guides are drawn
MOST_EDGES = 60


@dataclass(frozen=True)
class Picture:
    """A figure of the page: ``source`` is a data URI, ``alt`` says in words what it shows, ``width`` is in pixels."""

    source: str
    alt: str
    caption: str
    width: int


def picture(figure: Figure, alt: str, caption: str, *, kind: str = "svg") -> Picture:
    """Embed a figure, as SVG where it consists of few shapes and as PNG where it does not."""
    file = io.BytesIO()
    # the same figure gives the same bytes
    with mpl.rc_context({"svg.hashsalt": "raptorgraph", "svg.fonttype": "path"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=150, metadata=metadata)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return Picture(_uri(file.getvalue(), mime), alt, caption, round(96 * figure.get_figwidth()))


def picture_file(path: Path, alt: str, caption: str) -> Picture:
    """Embed a PNG file that was drawn with 150 dots an inch."""
    from PIL import Image

    with Image.open(path) as image:
        width = round(image.width * 96 / 150)
    return Picture(_uri(path.read_bytes(), "image/png"), alt, caption, width)


def _uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def draw_scores(scores: Scores, names: Mapping[str, str]) -> Figure:
    """Relative squared error and correlation of every method, with what limits them as lines."""
    table = scores.table.set_index("method")
    methods = [name for name in table.index if name not in (HALF, PERFECT)]
    ordered = sorted(methods, key=lambda name: table.at[name, "relative_mse"])
    figure = Figure(figsize=(8.5, 1.5 + 0.3 * len(methods)), layout="constrained")
    panels = {"relative_mse": "relative squared error (smaller is better)", "pearson": "correlation (larger is better)"}
    for ax, (column, title) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        values = pd.DataFrame({"value_mean": table[column], "value_sd": table[f"{column}_se"]})
        lines = {"other half": table.at[HALF, column], "perfect": table.at[PERFECT, column]}
        dot_panel(ax, values, ordered, lines, title=title, labels=False)
        if column == "relative_mse":
            ax.set_yticks(range(len(ordered)), [names[name] for name in ordered[::-1]], fontsize=8)
    return figure


def draw_effects(
    predicted: pd.DataFrame, measured: pd.DataFrame, *, most_columns: int, size: tuple[float, float]
) -> tuple[Figure, list[str]]:
    """Predicted against measured effect of the conditions with the largest effects, and which these are.

    Panels have the given width and height in inches.
    """
    lengths = pd.Series(np.linalg.norm(measured.to_numpy(dtype=float), axis=1), index=measured.index)
    largest = list(lengths.nlargest(_N_PANELS).index)
    n_columns = min(most_columns, len(largest))
    n_rows = -(-len(largest) // n_columns)
    figure = Figure(figsize=(size[0] * n_columns, size[1] * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax, label in zip(grid, largest, strict=False):
        pl.effect(predicted.loc[label], measured.loc[label], title=label, ax=ax)
    for spare in grid[len(largest) :]:
        spare.remove()
    return figure, largest


def draw_graph(edges: pd.DataFrame, labels: pd.DataFrame | None) -> Figure:
    """The heaviest edges of the graph, the latents with their labels."""
    n_nodes = len({*edges["source"], *edges["target"]})
    side = float(np.clip(3.5 + 0.14 * n_nodes, 5, 9))
    figure = Figure(figsize=(min(side + 2, 10.5), side), layout="constrained")
    pl.dag(edges, max_edges=MOST_EDGES, label=labels, ax=figure.subplots())
    return figure


def draw_pairs(table: pd.DataFrame) -> Figure:
    """Synergy of all pairs, and their types."""
    n_genes = len({*table["gene_a"], *table["gene_b"]})
    side = float(np.clip(0.26 * n_genes, 4, 9))
    figure = Figure(figsize=(side + 1.8, side), layout="constrained")
    pl.interactions(table, "synergy", ax=figure.subplots())
    return figure


def draw_guides(table: pd.DataFrame) -> Figure:
    """What each guide does, of the perturbations whose guides differ most."""
    n_guides = table.groupby("perturbation").size().nlargest(_N_GUIDED)
    rows = n_guides.sum() + 1.6 * len(n_guides)  # with a name above the guides of each, and a gap below
    figure = Figure(figsize=(8.2, 0.165 * rows + 1.5), layout="constrained")
    pl.guides(table, n=_N_GUIDED, ax=figure.subplots())
    return figure
