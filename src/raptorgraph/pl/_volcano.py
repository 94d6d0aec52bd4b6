"""Effects of one perturbation against how sure it is that they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.model._status import check_trained
from raptorgraph.pl._cells import canonical
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE, SCALE, axes_or_new, check_columns, check_save, finish
from raptorgraph.pl._labels import label_points
from raptorgraph.pl._limits import far_off, limits_with_zero
from raptorgraph.pl._marks import legend_beside, marker
from raptorgraph.tl._effect_blocks import SURE
from raptorgraph.tl._effects import effects as effects_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.pl._marks import Style

_COLUMNS = ("perturbation", "gene", "effect", "FDR")
_HIGHEST = 12.0  # -log10 of the smallest rate that has a height of its own whatever the others are
_LOW_ENOUGH = 0.97  # share of the genes that have one in any case
_ENOUGH = 20  # genes from which one can be far off


@docs.dedent
def volcano(
    effects: RaptorGraphModel | pd.DataFrame,
    perturbation: str | Collection[str] | None = None,
    *,
    fdr: float = SURE,
    n_labels: int = 12,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    r"""Draw the effect of a perturbation on each gene against how sure it is that there is one.

    Heights are :math:`-\log_{10}` of the false discovery rate (:func:`raptorgraph.tl.effects`): of the genes above 2 no
    more than 1 % are expected not to respond.

    Parameters
    ----------
    effects
        A trained model with a posterior of the effects, or a table of :func:`raptorgraph.tl.effects`, of which all rows
        of the perturbation are drawn.
    perturbation
        Label of the perturbation, of a model also its genes as a tuple or set; may be left out for a table that has
        one.
    fdr
        False discovery rate up to which an effect counts as sure: such genes are colored.
    n_labels
        Number of genes to name: the largest sure effects. A name that finds no free place is left out.
        The perturbed genes themselves are named besides.
    title
        Title; by default the name of the perturbation.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes. A ring marks the perturbed gene itself. Of rates below 1e-12 the 3 % smallest stand at one height, as
        triangles. Up to three genes that lie more than twice as far out as all others, mostly the perturbed ones, stand
        at the side as diamonds, with their effect beside the name.

    Raises
    ------
    KeyError
        If a column or the perturbation is not in the table.
    TypeError
        If a model is given without a perturbation, or what is given is neither a model nor a table.
    ValueError
        If several perturbations are in the table and none is named, an effect or all rates are missing, a gene is there
        twice, a number is out of its range, or the model has no posterior.

    Examples
    --------
    >>> ax = rg.pl.volcano(model, "P01")
    >>> ax.get_xlabel()
    'effect (log-normalized)'
    """
    check_save(save)
    check_number("fdr", fdr, 0, 1, above=True)
    check_integer("n_labels", n_labels, 0)
    table, label = _of_one(effects, perturbation)
    genes, x = table["gene"].astype(str).to_numpy(), table["effect"].to_numpy(dtype=float)
    rate = table["FDR"].to_numpy(dtype=float)
    own = table["own_target"].to_numpy(dtype=bool) if "own_target" in table else np.zeros(len(table), dtype=bool)
    sure = rate <= fdr
    heights = -np.log10(np.maximum(rate, np.finfo(float).tiny))
    border = float(max(_HIGHEST, np.ceil(np.quantile(heights, _LOW_ENOUGH))))
    high = heights > border
    y = np.minimum(heights, border)
    beyond = far_off(np.abs(x), at_least=_ENOUGH)
    ends = limits_with_zero(x[~beyond])
    at = np.clip(x, *ends)

    ax = axes_or_new(ax, (6.2, 4.4))
    kinds = {
        f"lower ({int((sure & (x < 0)).sum())})": (BLUE, sure & (x < 0), 0.8),
        f"higher ({int((sure & (x > 0)).sum())})": (ORANGE, sure & (x > 0), 0.8),
        f"not sure ({int((~sure).sum())})": (GRAY, ~sure, 0.4),
    }
    shapes: list[tuple[str, float, np.ndarray]] = [
        ("o", 12, ~beyond & ~high), ("^", 20, ~beyond & high), ("D", 30, beyond)
    ]  # fmt: skip
    for color, chosen, alpha in kinds.values():
        for shape, area, of_shape in shapes:
            style: Style = {"marker": shape, "color": color, "alpha": alpha, "linewidths": 0, "zorder": 3}
            here = chosen & of_shape
            if here.any():
                ax.scatter(at[here], y[here], s=area, clip_on=False, rasterized=len(x) > 5000, **style)
    ring: Style = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.0, "zorder": 4}
    if own.any():
        ax.scatter(at[own], y[own], s=64, clip_on=False, **ring)
    ax.axhline(-np.log10(fdr), color=GRAY, linestyle="--", linewidth=0.8, zorder=1)
    ax.axvline(0.0, color=GRAY, linewidth=0.8, zorder=1)
    ax.set(xlim=ends, ylim=(0.0, 1.06 * max(float(y.max()), -1.5 * np.log10(fdr))))
    ax.set(xlabel=f"effect ({SCALE})", ylabel=r"$-\log_{10}$ false discovery rate")
    ax.set_title(label if title is None else title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    handles = [marker(name, color) for name, (color, chosen, _) in kinds.items() if chosen.any()]
    if own.any():
        handles.append(marker("perturbed gene", "none", size=8, markeredgecolor="black"))
    if (high & ~beyond).any():
        handles.append(marker(f"rate below 1e-{border:g}", GRAY, shape="^"))
    legend_beside(ax, handles)

    by_size = np.argsort(-np.abs(x), kind="stable")
    first = [k for k in by_size if own[k]] + [k for k in by_size if sure[k] and not own[k]][:n_labels]
    names = [f"{genes[k]} ({x[k]:.1f})" if beyond[k] else genes[k] for k in first]
    texts = label_points(ax, at[first], y[first], names, among=np.column_stack([at, y]))
    for text, k in zip(texts, first, strict=True):
        text.set_fontweight("bold" if own[k] else "normal")
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _of_one(
    effects: RaptorGraphModel | pd.DataFrame, perturbation: str | Collection[str] | None
) -> tuple[pd.DataFrame, str]:
    """Effects of one perturbation, and its label."""
    if not isinstance(effects, pd.DataFrame):
        if not hasattr(effects, "predict_effects"):
            raise TypeError(f"effects must be a trained model or a table, not {type(effects).__name__}.")
        if perturbation is None:
            raise TypeError("Say whose effects are drawn: perturbation='A' or 'A+B'.")
        check_trained(effects)
        if not getattr(effects, "has_posterior", False):
            raise ValueError("How sure an effect is, is known of a trained model with effect_posterior=True.")
        label = canonical(effects, perturbation)
        return effects_of(effects, [label]), label
    check_columns(effects, _COLUMNS)
    known = list(dict.fromkeys(effects["perturbation"].astype(str)))
    if perturbation is None:
        if len(known) != 1:
            raise ValueError(f"The table has {len(known)} perturbations, {known[:10]}: name one, perturbation=...")
        perturbation = known[0]
    if not isinstance(perturbation, str) or perturbation not in known:
        raise KeyError(f"{perturbation!r} is not a perturbation of the table; these are {known[:20]}.")
    table = effects[effects["perturbation"].astype(str) == perturbation]
    twice = table["gene"][table["gene"].duplicated()]
    if len(twice):
        raise ValueError(f"The table has gene {twice.iloc[0]!r} of {perturbation!r} twice.")
    if not np.isfinite(table["effect"].to_numpy(dtype=float)).all():
        raise ValueError(f"An effect of {perturbation!r} is missing or infinite: drop its row.")
    if not table["FDR"].between(0, 1).all():
        raise ValueError(
            f"The column 'FDR' of {perturbation!r} has no rate somewhere: the table must be that of a model with a "
            "posterior of the effects (effect_posterior=True)."
        )
    return table, perturbation
