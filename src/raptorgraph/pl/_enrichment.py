"""Gene sets that latents or perturbations move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.patches import Patch

from raptorgraph._arguments import check_choice, check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.pl._figure import GRAY, LIGHT, Floats, axes_or_new, check_columns, check_save, finish
from raptorgraph.pl._heat_map import name_squares, similar_side_by_side
from raptorgraph.pl._marks import Style, color_bar_beside, legend_beside, marker
from raptorgraph.pl._set_names import clean_set_names

if TYPE_CHECKING:
    from os import PathLike

    import numpy.typing as npt
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure


KINDS = ("heatmap", "dots")
_SMALLEST_FDR = 1e-3  # the largest dot
_PALE = 0.3  # opacity of what is not significant
_LIMITS = {"NES": 3.0}  # at which colors end in every figure


@docs.dedent
def enrichment(
    table: pd.DataFrame,
    *,
    kind: str = "heatmap",
    value: str = "NES",
    n_sets: int = 25,
    n_latents: int = 60,
    fdr: float = 0.05,
    limit: float | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw which gene sets go up or down with each latent, sets and latents of similar scores side by side.

    Parameters
    ----------
    table
        Table of :func:`raptorgraph.tl.enrich` or :func:`raptorgraph.tl.enrich_effects`: columns ``latent`` or
        ``perturbation``, ``gene_set``, ``FDR`` and that of `value`. Where it has ``FDR_null``, the larger of the two
        rates counts, since a set should pass both; where it has ``stands_out``, the latents without a clear effect are
        faint and named in gray.
    kind
        ``"heatmap"`` colors squares by the score and marks those below `fdr` with a dot; ``"dots"`` draws circles whose
        area grows with -log10 FDR, with a ring below `fdr`. What is not below it is pale in both.
    value
        Column with the score.
    n_sets, n_latents
        Largest number of rows and of columns. Those with the smallest FDR are drawn (of sets: in a latent that stands
        out), of equal ones those with the largest scores.
    fdr
        False discovery rate below which a score is marked.
    limit
        Score at which the colors end, in both directions; larger ones have the last color. By default 3 for ``"NES"``,
        whatever the table, so that figures can be compared; of another column the largest score in the table.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes, gene sets x latents. Names of sets lose their collection's prefix and are shortened to 42 letters,
        unless two would become the same.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If `kind` is unknown, a number is out of range, a pair of latent and set is there twice, or there is no score.

    Examples
    --------
    >>> table = rg.tl.enrich_effects(model.predict_effects(model.perturbed_genes), gene_sets, n_permutations=100)
    >>> ax = rg.pl.enrichment(table, kind="dots")
    >>> ax.get_ylabel()
    'gene set'
    """
    check_save(save)
    latent = _check(table, kind, value, n_sets, n_latents)
    check_number("fdr", fdr, 0, 1)
    if limit is not None:
        check_number("limit", limit, 0, above=True)
    table = table.astype({latent: object, "gene_set": object})  # of categories, unused ones would count
    scores, rates, clear = _matrices(table, latent, value)
    n_known = scores.shape[1]
    scores, rates = _top(scores, rates, clear, n_sets, n_latents)
    filled = scores.fillna(0.0).to_numpy()
    rows, columns = similar_side_by_side(filled), similar_side_by_side(filled.T)
    scores, rates = scores.iloc[rows, columns], rates.iloc[rows, columns]

    names = clean_set_names(scores.index)
    letters = max(len(name) for name in names)
    height, width = 0.22 * len(scores), 0.22 * scores.shape[1]
    ax = axes_or_new(ax, (float(width + 0.075 * letters + 2.3), float(max(height, 2.4) + 1.2)))
    if limit is None:
        limit = _LIMITS.get(value) or float(np.nanmax(np.abs(scores.to_numpy()))) or 1.0
    colors: Style = {"cmap": colormaps["RdBu_r"].with_extremes(bad=LIGHT), "norm": Normalize(-limit, limit)}
    faint = np.array([not clear[name] for name in scores.columns])
    draw = _draw_squares if kind == "heatmap" else _draw_dots
    mappable, handles = draw(ax, scores.to_numpy(), rates.to_numpy(), faint, fdr, colors)
    name_squares(ax, names, scores.columns)
    for tick, gray in zip(ax.get_xticklabels(), faint, strict=True):
        tick.set_color(GRAY if gray else "black")
    n_shown = scores.shape[1]
    ax.set(xlabel=latent if n_shown == n_known else f"{latent} ({n_shown} of {n_known})", ylabel="gene set")
    box = (1.03, 0.0, 0.18 / max(width, 0.5), min(0.42, 1.6 / max(height, 2.4)))
    color_bar_beside(ax, mappable, value, box)
    if faint.any():
        handles.append(Patch(facecolor=LIGHT, label="faint: effect does not\nstand out from noise"))
    if handles:
        legend_beside(ax, handles)
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _check(table: pd.DataFrame, kind: str, value: str, n_sets: int, n_latents: int) -> str:
    """Check the arguments, and give back the name of the column with latents or perturbations."""
    check_choice("kind", kind, KINDS)
    check_integer("n_sets", n_sets, 1)
    check_integer("n_latents", n_latents, 1)
    latent = next((name for name in ("latent", "perturbation") if name in table), None)
    if latent is None:
        raise KeyError(f"The table has neither a column 'latent' nor 'perturbation', only {list(table.columns)}.")
    check_columns(table, ("gene_set", "FDR", value))
    twice = table[table.duplicated([latent, "gene_set"])]
    if len(twice):
        raise ValueError(f"{twice[latent].iloc[0]!r} and {twice['gene_set'].iloc[0]!r} are there twice.")
    if not np.isfinite(table[value].to_numpy(dtype=float)).any():
        raise ValueError(f"The column {value!r} has no score: no effect moves a gene set.")
    return latent


def _matrices(table: pd.DataFrame, latent: str, value: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Scores and FDR, sets x latents, and whether each latent's effect is clear."""
    names = list(dict.fromkeys(table[latent]))
    sets = list(dict.fromkeys(table["gene_set"]))

    def square(column: str) -> pd.DataFrame:
        return table.pivot(index="gene_set", columns=latent, values=column).loc[sets, names].astype(float)

    scores, rates = square(value), square("FDR")
    if "FDR_null" in table:
        rates = rates.combine(square("FDR_null"), np.fmax)
    if "stands_out" not in table:
        return scores, rates, pd.Series(True, index=names)
    return scores, rates, table.groupby(latent, sort=False)["stands_out"].first().fillna(False).astype(bool).loc[names]


def _top(
    scores: pd.DataFrame, rates: pd.DataFrame, clear: pd.Series, n_sets: int, n_latents: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sets with the smallest FDR in a clear latent, and the latents with the smallest, the clear ones first."""
    kept = [name for name in scores if clear[name]] or list(scores)
    sets = _strongest(scores[kept], rates[kept], n_sets)
    scores, rates = scores.loc[sets], rates.loc[sets]
    latents = _strongest(scores.T, rates.T, n_latents, faint=~clear)
    return scores[latents], rates[latents]


def _strongest(scores: pd.DataFrame, rates: pd.DataFrame, n: int, faint: pd.Series | bool = False) -> list[str]:
    """Names of the `n` rows with the smallest FDR (of equal ones the largest scores), in the order given."""
    best = pd.DataFrame({"faint": faint, "FDR": rates.min(axis=1), "score": -scores.abs().max(axis=1)})
    first = set(best.sort_values(list(best), kind="stable").index[:n])
    return [name for name in scores.index if name in first]


def _draw_squares(
    ax: Axes, scores: Floats, rates: Floats, faint: npt.NDArray[np.bool_], fdr: float, colors: Style
) -> tuple[ScalarMappable, list[Artist]]:
    """Draw colored squares, with dots below `fdr` and pale above; what has the colors, and entries of the legend."""
    opacity = np.where((rates < fdr) | ~np.isfinite(scores), 1.0, _PALE)
    style: Style = {"aspect": "auto", "interpolation": "nearest", "alpha": opacity}
    image = ax.imshow(np.ma.masked_invalid(scores), **style, **colors)
    for k in np.flatnonzero(faint):
        ax.axvspan(k - 0.5, k + 0.5, color="white", alpha=0.7, linewidth=0)
    row, column = np.nonzero(rates < fdr)
    ax.scatter(column, row, s=7, color="black", linewidths=0.3, edgecolors="white", zorder=2)
    return image, [marker(f"FDR < {fdr:g}, else pale", "black", size=3)]


def _draw_dots(
    ax: Axes, scores: Floats, rates: Floats, faint: npt.NDArray[np.bool_], fdr: float, colors: Style
) -> tuple[ScalarMappable, list[Artist]]:
    """Draw circles of the size of the rate, with rings below `fdr`; what has the colors, and entries of the legend."""
    row, column = np.nonzero(np.isfinite(scores))
    rate = rates[row, column]
    opacity = np.where(faint[column], 0.3, 1.0) * np.where(rate < fdr, 1.0, _PALE)
    style: Style = {"s": _area(rate), "alpha": opacity, "linewidths": 0, "zorder": 2}
    dots = ax.scatter(column, row, c=scores[row, column], **style, **colors)
    ringed = rate < fdr
    black = [(0.0, 0.0, 0.0, alpha) for alpha in opacity[ringed]]
    style = {"s": _area(rate[ringed]), "facecolors": "none", "edgecolors": black, "linewidths": 0.8, "zorder": 3}
    ax.scatter(column[ringed], row[ringed], **style)
    ax.set(xlim=(-0.7, scores.shape[1] - 0.3), ylim=(scores.shape[0] - 0.3, -0.7))
    ax.grid(color=LIGHT, linewidth=0.4)
    ax.set_axisbelow(True)
    known = {1.0: "FDR 1", 0.1: "FDR 0.1", 0.01: "FDR 0.01", _SMALLEST_FDR: "FDR ≤ 0.001"}
    handles: list[Artist] = [
        marker(text, GRAY, size=float(np.sqrt(_area(rate))), markeredgewidth=0) for rate, text in known.items()
    ]
    ring: Style = {"markeredgecolor": "black", "markeredgewidth": 0.8}
    return dots, [*handles, marker(f"ring: FDR < {fdr:g},\nelse pale", "none", size=6, **ring)]


def _area(rate: npt.ArrayLike) -> Floats:
    """Area of the circle of a false discovery rate."""
    decades = np.clip(-np.log10(np.maximum(rate, _SMALLEST_FDR)), 0, None)
    return np.asarray(6.0 + 110.0 * decades / -np.log10(_SMALLEST_FDR))
