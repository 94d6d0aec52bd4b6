"""One pair of perturbations: where its effect departs from the sum of the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from raptorgraph import metrics
from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.pl._cells import canonical
from raptorgraph.pl._figure import BLUE, GRAY, LIGHT, ORANGE, SCALE, AxesArray, Floats, check_save, finish, panels
from raptorgraph.pl._limits import far_off, limits_with_zero
from raptorgraph.pl._marks import Style, legend_beside, marker, vertical_grid
from raptorgraph.pl._measured import measured_with_error, predicted_with_sd
from raptorgraph.screen._asked import did_you_mean
from raptorgraph.screen._setup import Setup
from raptorgraph.tl._interactions import interactions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel

_INTERVAL = 1.645  # standard deviations: 90 %
_BLOCK_GAP = 1.0  # rows between the two blocks of genes


@dataclass(frozen=True)
class _Panel:
    """One panel: its title and, by gene, bars, their standard deviations, the sum to compare with, and marks."""

    title: str
    value: pd.Series
    sd: pd.Series | None = None
    total: pd.Series | None = None
    mark: pd.Series | None = None


@docs.dedent
def pair(
    model: RaptorGraphModel,
    perturbation: str | Collection[str],
    *,
    measured: AnnData | pd.Series | None = None,
    genes: Sequence[str] | None = None,
    n_genes: int = 24,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> AxesArray | Figure:
    """Draw both single effects, their sum, the predicted effect of the pair, and the measured one if there is one.

    All panels share their genes and their scale. In the last two a black line marks the sum, and the color between the
    sum and the end of the bar is the interaction: orange where the pair lies above the sum, blue where it lies below.
    Half of the genes are those with the largest predicted departures from the sum, half those with the largest effects.

    Parameters
    ----------
    %(model)s
    perturbation
        Two perturbed genes, as ``"A+B"`` or ``("A", "B")``.
    measured
        Cells of the pair and control cells, best also of both singles, or the measured effect of the pair by gene; by
        default the model's data, where they have the pair.
    genes
        Genes to show, from top to bottom; by default those described above.
    n_genes
        Number of genes to show.
    ax
        Axes whose place the panels take; default a new figure.
    %(figure)s

    Returns
    -------
    numpy.ndarray or matplotlib.figure.Figure
        The axes of the five panels, or four without a measured effect. Bars are effects on the expression scale. Black
        whiskers are 90 % intervals: of predictions from their posterior (of the sum as if the two were independent), of
        measurements from the sampling of cells. Diamonds are measured effects of the single perturbations.

    Raises
    ------
    KeyError
        If one of `genes` is not among the genes of the model.
    ValueError
        If `perturbation` does not have two genes, or one that was not perturbed; if the measured cells lack the pair.

    Notes
    -----
    The scores of the predicted pair are those of :func:`raptorgraph.tl.interactions` with their 90 % intervals, and the
    line below them is its ``interaction``. Those of the measured pair are against the measured sum, where both singles
    were measured. Noise lengthens measured effects and changes their directions, and thereby the scores of measured
    pairs.

    Examples
    --------
    >>> axes = rg.pl.pair(model, tuple(model.perturbed_genes[:2]), n_genes=10)
    >>> len(axes) in (4, 5)
    True
    """
    check_save(save)
    label = canonical(model, perturbation)
    setup = Setup.of(model.setup_args)
    names = setup.genes(label)
    if len(names) != 2:
        hint = did_you_mean(label, model.perturbed_genes, **setup.spelling)
        raise ValueError(f"{perturbation!r} has {len(names)} genes: name a pair, such as 'A+B'{hint or '.'}")
    check_integer("n_genes", n_genes, 2)
    shown = _panels(model, label, names, measured)
    blocks = _blocks(shown, genes, n_genes)
    rows = [gene for block in blocks for gene in block]

    size = (2.15 * len(shown) + 1.0, 0.19 * (len(rows) + 2) + 1.5)
    axes = panels(ax, size, len(shown), share=True)
    limits, cut = _limits(shown, rows)
    y = np.concatenate([np.arange(len(block)) + k * (len(blocks[0]) + _BLOCK_GAP) for k, block in enumerate(blocks)])
    for panel, part in zip(axes, shown, strict=True):
        _draw_panel(panel, part, rows, y, limits, cut)
    _name_rows(axes[0], blocks, y, names)
    _draw_legend(axes[-1], shown)
    return finish(axes, show=show, save=save, return_fig=return_fig)


def _panels(
    model: RaptorGraphModel, label: str, names: Sequence[str], measured: AnnData | pd.Series | None
) -> list[_Panel]:
    """Both singles, their sum, the predicted pair and, if there is one, the measured pair."""
    singles = [canonical(model, (name,)) for name in names]
    means, sds = predicted_with_sd(model, [*singles, label])
    known, errors = _known(model, label, singles, measured)
    a, b, both = (means.loc[name] for name in (*singles, label))
    sd = {name: None if sds is None else sds.loc[name] for name in (*singles, label)}
    sd_of_sum = None if sds is None else np.sqrt(sds.loc[singles[0]] ** 2 + sds.loc[singles[1]] ** 2)
    known_sum = known.loc[singles].sum() if set(singles) <= set(known.index) else None
    shown = [
        *(_Panel(name, x, sd[name], mark=known.T.get(name)) for name, x in zip(singles, (a, b), strict=True)),
        _Panel("sum of the two", a + b, sd_of_sum, mark=known_sum),
        _Panel(f"predicted {label}\n{_predicted_scores(model, label)}", both, sd[label], total=a + b),
    ]
    if label in known.index:
        scores = "" if known_sum is None else "\n" + _scores(*(known.loc[name] for name in (*singles, label)))
        total = a + b if known_sum is None else known_sum
        shown.append(_Panel(f"measured {label}{scores}", known.loc[label], errors.T.get(label), total=total))
    return shown


def _known(
    model: RaptorGraphModel, label: str, singles: list[str], measured: AnnData | pd.Series | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measured effects of the singles and of the pair, and their standard errors, as far as they are known."""
    nothing = pd.DataFrame(columns=list(model.var_names_), dtype=float)
    own = (nothing, nothing) if model.adata is None else measured_with_error(model, [*singles, label])
    if measured is None:
        return own
    if isinstance(measured, pd.Series):
        missing = [gene for gene in model.var_names_ if gene not in measured.index]
        if missing:
            raise ValueError(f"The measured effect lacks {len(missing)} genes of the model, first {missing[0]!r}.")
        effects = pd.concat([own[0].drop(index=label, errors="ignore"), measured.rename(label).to_frame().T])
        return effects[list(model.var_names_)], own[1].drop(index=label, errors="ignore")
    given = measured_with_error(model, [*singles, label], measured)
    if label not in given[0].index:
        raise ValueError(f"The measured cells have no {label!r}: give cells with that pair, and control cells.")
    # what the given cells lack, the model's own may have
    effects, errors = (
        pd.concat([new, old.drop(index=new.index, errors="ignore")]) for new, old in zip(given, own, strict=True)
    )
    return effects, errors


def _predicted_scores(model: RaptorGraphModel, label: str) -> str:
    """Scores of a predicted pair with their 90 % intervals and its interaction, as lines of a title."""
    pair = interactions(model, [label], seed=0).iloc[0]
    lines = []
    for name in ("synergy", "neomorphism"):
        low, high = pair.get(f"{name}_low", np.nan), pair.get(f"{name}_high", np.nan)
        lines.append(f"{name} {pair[name]:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"))
    return "\n".join([*lines, str(pair["interaction"])])


def _scores(a: pd.Series, b: pd.Series, both: pd.Series) -> str:
    """Scores of a pair against its singles, as lines of a title."""
    return f"synergy {metrics.synergy(a, b, both):.2f}\nneomorphism {metrics.neomorphism(a, b, both):.2f}"


def _blocks(shown: list[_Panel], genes: Sequence[str] | None, n_genes: int) -> list[list[str]]:
    """Genes to show, in blocks, from top to bottom."""
    predicted = shown[3]
    if genes is not None:
        genes = [gene.strip() for gene in genes]
        missing = [gene for gene in genes if gene not in predicted.value.index]
        if missing:
            raise KeyError(f"{missing[0]!r} is not among the genes of the model.")
        return [genes]
    departure = predicted.value - predicted.total
    first = departure.abs().nlargest(n_genes // 2).index
    largest = pd.concat([part.value.abs() for part in shown[:4]], axis=1).max(axis=1).drop(first)
    second = largest.nlargest(n_genes - len(first)).index
    # the pair above the sum, then below it; high effects, then low ones
    return [
        departure[first].sort_values(ascending=False).index.tolist(),
        predicted.value[second].sort_values(ascending=False).index.tolist(),
    ]


def _limits(shown: list[_Panel], rows: list[str]) -> tuple[tuple[float, float], set[str]]:
    """Limits of all panels, and the genes whose bars are cut: those that would leave no room for the others."""
    ends = []
    for part in shown:
        spread = 0.0 if part.sd is None else _INTERVAL * part.sd[rows]
        ends += [part.value[rows] - spread, part.value[rows] + spread]
        ends += [x[rows] for x in (part.total, part.mark) if x is not None]
    table = pd.concat(ends, axis=1)
    beyond = far_off(table.abs().max(axis=1))
    return limits_with_zero(table[~beyond].to_numpy()), set(table.index[beyond])


def _draw_panel(ax: Axes, part: _Panel, rows: list[str], y: Floats, limits: tuple[float, float], cut: set[str]) -> None:
    """Draw the bars of one panel with their uncertainties, and write the values of bars that are cut."""
    value = part.value[rows].to_numpy()
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.barh(y, value, height=0.7, color=LIGHT, edgecolor=GRAY, linewidth=0.4)
    if part.total is not None:
        total = part.total[rows].to_numpy()
        colors = np.where(value > total, ORANGE, BLUE)
        ax.barh(y, value - total, left=total, height=0.7, color=colors, alpha=0.85, linewidth=0)
        ax.vlines(total, y - 0.42, y + 0.42, color="black", linewidth=1.4)
    if part.sd is not None:
        whisker: Style = {"fmt": "none", "ecolor": "black", "elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7}
        ax.errorbar(value, y, xerr=_INTERVAL * part.sd[rows].to_numpy(), **whisker)
    if part.mark is not None:
        ax.scatter(part.mark[rows], y, s=14, marker="D", facecolor="white", edgecolor="black", linewidth=0.7, zorder=3)
    for gene, at, x in zip(rows, y, value, strict=True):
        if gene in cut and not limits[0] < x < limits[1]:
            box: Style = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
            edge, side = (limits[1], "right") if x > 0 else (limits[0], "left")
            ax.text(edge, at, f"{x:.1f}", ha=side, va="center", fontsize=6, bbox=box, zorder=4)
    ax.set_xlim(limits)
    ax.set_title(part.title, fontsize=8)
    ax.set_xlabel(f"effect ({SCALE})", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    vertical_grid(ax)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _name_rows(ax: Axes, blocks: list[list[str]], y: Floats, perturbed: Sequence[str]) -> None:
    """Name the genes beside the first panel, the perturbed ones in bold, with a heading above each block."""
    rows = [gene for block in blocks for gene in block]
    headings = {-_BLOCK_GAP: "departs most from the sum", len(blocks[0]): "other large effects"} if blocks[1:] else {}
    ax.set_yticks([*y, *headings], [*rows, *headings.values()], fontsize=8)
    ax.set_ylim(y[-1] + 0.8, min(headings, default=0) - 0.8)
    ax.set_ylabel("gene")
    for tick, name in zip(ax.get_yticklabels(), [*rows, *headings.values()], strict=True):
        if name in perturbed:
            tick.set_fontweight("bold")
        if name in headings.values():
            tick.set(fontstyle="italic", fontsize=7, color=GRAY)


def _draw_legend(ax: Axes, shown: list[_Panel]) -> None:
    """Explain lines, colors and marks right of the last panel."""
    handles: list[Artist] = [
        marker("sum", "black", shape="|", size=9, markeredgewidth=1.4),
        Patch(color=ORANGE, alpha=0.85, label="pair above the sum"),
        Patch(color=BLUE, alpha=0.85, label="pair below the sum"),
    ]
    if any(part.sd is not None for part in shown):
        handles.append(Line2D([], [], color="black", linewidth=0.7, label="90 % interval"))
    if any(part.mark is not None for part in shown):
        handles.append(marker("measured", "black", shape="D", size=4, markerfacecolor="white"))
    legend_beside(ax, handles)
