"""Perturbations by how alike their effects are."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.patches import Patch

from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph.pl._figure import GRAY, LIGHT, PALETTE, axes_or_new, check_save, finish
from raptorgraph.pl._heat_map import name_squares, side_of_squares, similar_side_by_side
from raptorgraph.pl._marks import color_bar_beside, legend_beside, marker
from raptorgraph.screen._asked import listed
from raptorgraph.screen._setup import Setup
from raptorgraph.tl._effect_blocks import asked_labels, strongest
from raptorgraph.tl._effect_similarity import KINDS, similarity_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from os import PathLike

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._types import Perturbations
    from raptorgraph.pl._marks import Style

_LINE, _MOST_LINES = 34, 3  # letters and lines of the genes of a module in the legend


@docs.dedent
def similarity(
    effects: RaptorGraphModel | pd.DataFrame,
    perturbations: Perturbations | None = None,
    *,
    kind: str = "cosine",
    n_perturbations: int = 100,
    modules: Mapping[str, Collection[str]] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Draw how alike the effects of perturbations are, similar ones side by side.

    Parameters
    ----------
    effects
        A trained model; or similarities that are known, a symmetric table such as that of
        :func:`raptorgraph.tl.effect_similarity` or ``raptorgraph.tl.program_similarity(model, matrix="specific")``.
    perturbations
        Labels or tuples of genes, measured or not; by default all measured ones, or all of the table.
    kind
        Of a model: ``"cosine"``, or ``"specific"`` without the direction that all perturbations have in common
        (:func:`raptorgraph.tl.effect_similarity`), here those that are drawn.
    n_perturbations
        Of a model: largest number of perturbations, those with the most sure effects (false discovery rate up to
        0.05).
    modules
        Genes that belong together, by name, which are marked at the side: by default, of a model, those that its graph
        cannot order (``model.get_modules()``). A combination is of a module if all its genes are.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes, perturbations x perturbations, from -1 (opposite, blue) to 1 (red). Perturbations without any sure
        effect are faint and named in gray: the likeness of next to nothing is arbitrary.

    Raises
    ------
    KeyError
        If a perturbation is not in the table.
    TypeError
        If what is given is neither a model nor a table.
    ValueError
        For fewer than two perturbations, an unknown gene, the control, an unknown `kind`, and a table that is not
        symmetric.

    Examples
    --------
    >>> ax = rg.pl.similarity(model)
    >>> [text.get_text() for text in ax.get_xticklabels()] == [text.get_text() for text in ax.get_yticklabels()]
    True
    """
    check_save(save)
    check_choice("kind", kind, KINDS)
    check_integer("n_perturbations", n_perturbations, 2)
    if isinstance(effects, pd.DataFrame):
        table = _some(effects, perturbations)
        faint, n_known = np.zeros(len(table), dtype=bool), len(table)
        genes_of: dict[str, tuple[str, ...]] = {label: (label,) for label in table.index}
    elif hasattr(effects, "predict_effects"):
        labels = asked_labels(effects, perturbations)
        if len(labels) < 2:
            raise ValueError(f"Similarity is of two perturbations or more, and these are {labels}: name others.")
        block, n_known = strongest(effects, labels, n_perturbations), len(labels)
        table = similarity_of(block, kind)
        faint = ~block.clear() if block.has_sd else np.zeros(len(table), dtype=bool)
        setup = Setup.of(effects.setup_args)
        genes_of = {label: setup.genes(label) for label in block.labels}
        modules = effects.get_modules() if modules is None and hasattr(effects, "get_modules") else modules
    else:
        raise TypeError(f"effects must be a trained model or a table, not {type(effects).__name__}.")
    order = similar_side_by_side(table.fillna(0.0).to_numpy(dtype=float))
    table, faint = table.iloc[order, order], faint[order]

    n, names = len(table), [str(name) for name in table.index]
    side, fontsize = side_of_squares(n)
    size = max(n * side, 1.6)
    letters = max(len(name) for name in names)
    ax = axes_or_new(ax, (float(size + 0.07 * letters + 2.9), float(size + 0.07 * letters + 0.7)))
    ax.set_facecolor(LIGHT)
    style: Style = {"aspect": "auto", "interpolation": "nearest", "cmap": "RdBu_r", "norm": Normalize(-1, 1)}
    image = ax.imshow(np.ma.masked_invalid(table.to_numpy(dtype=float)), **style)
    for k in np.flatnonzero(faint):
        for span in (ax.axhspan, ax.axvspan):
            span(k - 0.5, k + 0.5, color="white", alpha=0.5, linewidth=0)
    name_squares(ax, names, names, fontsize)
    for tick, gray in zip([*ax.get_yticklabels(), *ax.get_xticklabels()], [*faint, *faint], strict=True):
        tick.set_color(GRAY if gray else "black")
    handles = _mark_modules(ax, [genes_of[name] for name in table.index], modules or {}, size)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    some = "" if n == n_known else f" ({n:,} of {n_known:,})"
    ax.set(xlabel="perturbation" + some, ylabel="perturbation" + some)
    label = "cosine of effects" if kind == "cosine" else "cosine of effects\nwithout what all share"
    box = (1.0 + 0.35 / size, 0.0, 0.14 / size, min(0.5, 1.6 / size))
    color_bar_beside(ax, image, "similarity" if isinstance(effects, pd.DataFrame) else label, box)
    if faint.any():
        handles.append(Patch(facecolor=LIGHT, label="faint: no effect is sure"))
    if handles:
        legend_beside(ax, handles, gap=0.25 / size if modules else 0.0)  # beside the marks of modules
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _some(table: pd.DataFrame, perturbations: Perturbations | None) -> pd.DataFrame:
    """Similarities of some perturbations; ValueError where the table is none of similarities."""
    values = table.to_numpy()
    if table.shape[0] != table.shape[1] or list(table.index) != list(table.columns) or not table.index.is_unique:
        raise ValueError(
            f"The table of shape {table.shape} is none of similarities, with the same unique names as rows and as "
            "columns: give that of rg.tl.effect_similarity."
        )
    if len(table) < 2:
        raise ValueError(f"Similarity is of two perturbations or more, and the table has {list(table.index)}.")
    if not np.issubdtype(values.dtype, np.number) or not np.allclose(values, values.T, equal_nan=True):
        raise ValueError("The table of similarities is not symmetric: give that of rg.tl.effect_similarity.")
    if perturbations is None:
        return table
    asked = list(dict.fromkeys(listed(perturbations)))
    for name in asked:
        if name not in table.index:
            raise KeyError(f"{name!r} is not in the table, which has {list(table.index)[:20]}.")
    if len(asked) < 2:
        raise ValueError(f"Similarity is of two perturbations or more, and these are {asked}: name others.")
    return table.loc[asked, asked]


def _mark_modules(
    ax: Axes, genes: Sequence[Sequence[str]], modules: Mapping[str, Collection[str]], size: float
) -> list[Artist]:
    """Draw a square right of each row whose genes are all of one module; entries of the legend."""
    n = len(genes)
    handles: list[Artist] = []
    area = (72 * 0.7 * size / n) ** 2
    for k, (name, members) in enumerate(modules.items()):
        rows = [row for row, of_row in enumerate(genes) if of_row and set(of_row) <= set(members)]
        if not rows:
            continue
        color = PALETTE[k % len(PALETTE)]
        at = np.full(len(rows), n - 0.5 + 0.14 * n / size)
        ax.scatter(at, rows, s=min(area, 60.0), marker="s", color=color, linewidths=0, clip_on=False)
        lines = textwrap.wrap(f"module {name}: {', '.join(map(str, members))}", _LINE)
        if len(lines) > _MOST_LINES:
            lines = [*lines[: _MOST_LINES - 1], f"{lines[_MOST_LINES - 1]} ..."]
        handles.append(marker("\n".join(lines), color, shape="s"))
    return handles
