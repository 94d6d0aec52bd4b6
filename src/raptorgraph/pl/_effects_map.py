"""What many perturbations do, in one picture: perturbations x genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.patches import Patch

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.pl._figure import GRAY, LIGHT, SCALE, Floats, axes_or_new, check_save, finish
from raptorgraph.pl._heat_map import name_squares, side_of_squares, similar_side_by_side, unit_rows
from raptorgraph.pl._marks import color_bar_beside, legend_beside, marker
from raptorgraph.screen._setup import Setup
from raptorgraph.tl._effect_blocks import SURE, asked_labels, gene_columns, gene_names, strongest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import numpy.typing as npt
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._types import Perturbations
    from raptorgraph.pl._marks import Style
    from raptorgraph.tl._effect_blocks import EffectBlock

_COLORED = 0.95  # quantile of the sizes of effects at which the colors end


@docs.dedent
def effects_map(
    model: RaptorGraphModel,
    perturbations: Perturbations | None = None,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 50,
    n_perturbations: int = 100,
    max_lfsr: float = SURE,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    r"""Draw the effects of many perturbations on the genes that they move most, similar ones side by side.

    Squares fade as the sign of an effect becomes unsure: their opacity is :math:`1 - 2\,\text{lfsr}`, 1 where the sign
    is known and 0 where either is as likely (:func:`raptorgraph.tl.effects`).

    Parameters
    ----------
    model
        A trained model. Without a posterior of the effects no square is faded.
    perturbations
        Labels or tuples of genes, measured or not; by default all measured ones.
    genes
        Names of the genes to draw. By default they are taken in turn: the largest sure effect of each perturbation, the
        strongest perturbation first, then the second largest of each, until there are `n_genes`.
    n_genes
        Largest number of genes that are chosen.
    n_perturbations
        Largest number of perturbations: those with the most sure effects, of equally many those with the longest
        effect.
    max_lfsr
        Local false sign rate up to which an effect is sure. Effects of a perturbation on its own genes do not count.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes, perturbations x genes. Colors are symmetric about zero and end where 5 % of the sure effects are
        larger. A dot marks the perturbed gene itself; perturbations without any sure effect are named in gray.

    Raises
    ------
    TypeError
        If a number is no integer or `genes` is no list.
    ValueError
        For an unknown gene, the control, or a number out of its range.

    Examples
    --------
    >>> ax = rg.pl.effects_map(model, n_genes=20)
    >>> len(ax.get_yticklabels())
    10
    """
    check_save(save)
    check_integer("n_genes", n_genes, 1)
    check_integer("n_perturbations", n_perturbations, 1)
    check_number("max_lfsr", max_lfsr, 0, 1, above=True)
    labels = asked_labels(model, perturbations)
    names = gene_names(model, labels)
    wanted = None if genes is None else gene_columns(names, genes, Setup.of(model.setup_args))
    block = strongest(model, labels, n_perturbations, max_lfsr)
    gray = ~block.clear(max_lfsr) if block.has_sd else np.zeros(len(block.labels), dtype=bool)
    shown = block.columns(_in_turn(block, n_genes, max_lfsr) if wanted is None else wanted)
    opacity = np.clip(1 - 2 * shown.lfsr, 0, 1) if shown.has_sd else np.ones(shown.mean.shape)
    faded = shown.mean * opacity
    rows, columns = (similar_side_by_side(unit_rows(x)) for x in (faded, faded.T))
    shown, opacity, gray = shown.rows(rows).columns(columns), opacity[rows][:, columns], gray[rows]

    (height, fontsize), (width, _) = side_of_squares(len(shown.labels)), side_of_squares(len(shown.genes))
    height, width = height * len(shown.labels), width * len(shown.genes)
    letters = max(len(label) for label in shown.labels)
    ax = axes_or_new(ax, (max(width, 1.0) + 0.075 * letters + 2.4, max(height, 2.2) + 1.3))
    limit = _limit(shown, max_lfsr)
    style: Style = {"aspect": "auto", "interpolation": "nearest", "cmap": "RdBu_r", "norm": Normalize(-limit, limit)}
    image = ax.imshow(shown.mean, alpha=opacity, **style)
    name_squares(ax, shown.labels, list(shown.genes), fontsize)
    for tick, faint in zip(ax.get_yticklabels(), gray, strict=True):
        tick.set_color(GRAY if faint else "black")
    for tick in ax.get_xticklabels():
        tick.set_fontsize(side_of_squares(len(shown.genes))[1])
    some = "" if len(shown.labels) == len(labels) else f" ({len(shown.labels):,} of {len(labels):,})"
    ax.set(xlabel=f"gene ({len(shown.genes):,} of {len(names):,})", ylabel="perturbation" + some)
    box = (1.03, 0.0, 0.16 / max(width, 1.0), min(0.5, 1.6 / max(height, 2.2)))
    color_bar_beside(ax, image, f"effect\n({SCALE})", box)
    handles: list[Artist] = []
    if shown.own.any():
        row, column = np.nonzero(shown.own)
        ax.scatter(column, row, s=7, color="black", linewidths=0.3, edgecolors="white", zorder=2)
        handles.append(marker("perturbed gene", "black", size=3))
    if shown.has_sd:
        handles.append(Patch(facecolor="white", edgecolor=LIGHT, label="fades to white: sign\nis not sure"))
    if gray.any():
        handles.append(marker("gray name: no effect\nis sure", "none", markeredgecolor="none"))
    if handles:
        legend_beside(ax, handles)
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _in_turn(block: EffectBlock, n_genes: int, max_lfsr: float) -> npt.NDArray[np.int_]:
    """Columns of the genes that perturbations move most, one of each perturbation in turn.

    Where no effect is sure the largest ones are taken.
    """
    size, candidates = np.abs(block.mean), block.sure(max_lfsr)
    if not candidates.any():
        candidates = ~block.own
    ranked = np.argsort(np.where(candidates, -size, np.inf), axis=1, kind="stable")[:, :n_genes]
    n_candidates = candidates.sum(axis=1)
    chosen: dict[int, None] = {}
    order = block.by_strength(max_lfsr).tolist()
    for place in range(ranked.shape[1]):
        for row in order:
            if place < n_candidates[row] and len(chosen) < n_genes:
                chosen[int(ranked[row, place])] = None
    return np.array(list(chosen), dtype=int)


def _limit(block: EffectBlock, max_lfsr: float) -> float:
    """Size of the effect at which the colors end, so that a few far larger ones do not set it."""
    sizes: Floats = np.abs(block.mean)
    counts = block.sure(max_lfsr)
    for chosen in (counts, ~block.own, np.ones(sizes.shape, dtype=bool)):
        if chosen.any():
            return float(np.quantile(sizes[chosen], _COLORED)) or 1.0
    return 1.0
