"""How sure predicted effects are, and whether they are right to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from scipy.stats import norm

from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph.model._status import check_trained
from raptorgraph.pl._cells import canonical
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE, SCALE, axes_or_new, check_save, finish
from raptorgraph.pl._marks import Style, legend_beside, vertical_grid
from raptorgraph.pl._measured import measured_with_error, one_measured
from raptorgraph.screen._asked import listed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel

    Asked = str | Collection[str] | Sequence[str | Collection[str]] | None  # one perturbation or a list of them

_HALF, _NINE_TENTHS = norm.ppf(0.75), norm.ppf(0.95)
_MOST_BINS, _IN_BIN = 12, 100
_ONE = (str, tuple, set, frozenset)  # types of one perturbation


@docs.dedent
def uncertainty(
    model: RaptorGraphModel,
    perturbation: str | Collection[str] | Sequence[str | Collection[str]] | None = None,
    *,
    kind: str | None = None,
    measured: AnnData | pd.Series | None = None,
    n_genes: int = 25,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    r"""Draw predicted effects with their intervals, or the errors of predictions against those expected.

    ``kind="effect"`` shows the genes with the largest predicted effects of one perturbation: mean, 50 % and 90 %
    interval, and the measured effect where it is known.

    ``kind="calibration"`` compares measured effects m with predicted means p over genes and perturbations. If the
    standard deviations s are right, the squared error is, on average,

    .. math:: E (m - p)^2 = s^2 + \mathrm{SE}^2

    with the standard error SE of the measurement, from the sampling of cells. Pairs of gene and perturbation are sorted
    into up to twelve bins of the expected error, the square root of the right side. Bins lie on the diagonal if
    predictions are calibrated, and above it where the model is too sure.

    Parameters
    ----------
    model
        A trained model with a posterior of the effects.
    perturbation
        Label (or tuple or set of genes) of the perturbation to draw; for the calibration a list of these, by default
        all that were measured.
    kind
        ``"effect"`` or ``"calibration"``; by default the effect where one perturbation is named.
    measured
        Cells with the perturbations and control cells, best cells that were kept from training; for one perturbation
        also its effect by gene. By default the model's own data, for which errors are too small, since the model was
        trained on them.
    n_genes
        Number of genes in ``kind="effect"``.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes, in units of the expression scale.

    Raises
    ------
    TypeError
        If no perturbation is named for its effect, or a series is given for the calibration.
    ValueError
        If the model has no posterior, a perturbation is unknown or not measured, or `kind` is unknown.

    Examples
    --------
    >>> ax = rg.pl.uncertainty(model, model.perturbed_genes[0], n_genes=10)
    >>> ax = rg.pl.uncertainty(model, kind="calibration")
    >>> ax.get_xlabel()
    'expected error (log-normalized)'
    """
    check_save(save)
    if kind is None:
        kind = "effect" if isinstance(perturbation, _ONE) else "calibration"
    check_choice("kind", kind, ("effect", "calibration"))
    check_trained(model)
    if not getattr(model, "has_posterior", False):
        raise ValueError("Intervals need a trained model with effect_posterior=True.")
    if kind == "effect":
        ax = _draw_effect(model, perturbation, measured, n_genes, ax)
    else:
        ax = _draw_calibration(model, perturbation, measured, ax)
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _draw_effect(
    model: RaptorGraphModel, perturbation: Asked, measured: AnnData | pd.Series | None, n_genes: int, ax: Axes | None
) -> Axes:
    """Draw the largest effects of one perturbation with their intervals."""
    if not isinstance(perturbation, _ONE):
        raise TypeError(f"kind='effect' draws one perturbation, such as 'A+B', not {perturbation!r}.")
    check_integer("n_genes", n_genes, 1)
    label = canonical(model, perturbation)
    means, sds = model.predict_effects([label], return_sd=True)
    known, error = one_measured(model, label, measured)
    mean, sd = means.iloc[0], sds.iloc[0]
    genes = mean[mean.abs().nlargest(n_genes).index].sort_values(ascending=False).index
    mean, sd, y = mean[genes].to_numpy(), sd[genes].to_numpy(), np.arange(len(genes))

    ax = axes_or_new(ax, (5.2, 0.19 * len(genes) + 1.3))
    ax.axvline(0.0, color=GRAY, linewidth=0.8)
    ax.hlines(y, mean - _NINE_TENTHS * sd, mean + _NINE_TENTHS * sd, color=BLUE, linewidth=1.0, label="90 % interval")
    ax.hlines(y, mean - _HALF * sd, mean + _HALF * sd, color=BLUE, linewidth=3.2, label="50 % interval")
    ax.scatter(mean, y, s=22, color="white", edgecolor=BLUE, linewidth=1.0, zorder=3, label="predicted")
    if known is not None:
        shown = known.reindex(genes).to_numpy(dtype=float)
        bar = None if error is None else error[genes].to_numpy()
        style: Style = {"fmt": "D", "color": ORANGE, "markersize": 3.5, "elinewidth": 0.8, "zorder": 4}
        name = "measured" if error is None else "measured ± SE"
        ax.errorbar(shown, y + 0.28, xerr=bar, label=name, **style)
    ax.set_yticks(y, genes, fontsize=8)
    ax.set(xlabel=f"effect ({SCALE})", ylabel="gene", ylim=(len(genes) - 0.3, -0.7))
    ax.set_title(label, fontsize=10)
    vertical_grid(ax)
    legend_beside(ax)
    return ax


def _draw_calibration(
    model: RaptorGraphModel, perturbations: Asked, measured: AnnData | pd.Series | None, ax: Axes | None
) -> Axes:
    """Draw the errors that were made against those expected."""
    if isinstance(measured, pd.Series):
        raise TypeError("The calibration needs measured cells, from which standard errors can be had, not a series.")
    labels = None
    if perturbations is not None:
        labels = [canonical(model, one) for one in listed(perturbations)]
    effects, errors = measured_with_error(model, labels, measured)
    missing = [label for label in labels or () if label not in effects.index]
    if missing:
        raise ValueError(f"The measured cells have no {missing[0]!r}: name perturbations that they have.")
    if effects.empty:
        raise ValueError("The measured cells have no perturbation.")
    means, sds = model.predict_effects(list(effects.index), return_sd=True)
    expected = np.sqrt(sds.to_numpy() ** 2 + errors.to_numpy() ** 2).ravel()
    made = (effects.to_numpy() - means.to_numpy()).ravel()

    n_bins = int(np.clip(len(expected) // _IN_BIN, 3, _MOST_BINS))
    edges = np.quantile(expected, np.linspace(0, 1, n_bins + 1))
    bins = np.clip(np.searchsorted(edges, expected, side="right") - 1, 0, n_bins - 1)
    filled = [k for k in range(n_bins) if (bins == k).any()]
    x, y = (np.array([np.sqrt(np.mean(values[bins == k] ** 2)) for k in filled]) for values in (expected, made))
    inside = {name: np.mean(np.abs(made) <= z * expected) for name, z in (("50 %", _HALF), ("90 %", _NINE_TENTHS))}

    ax = axes_or_new(ax, (4.6, 4.6))
    low, high = 0.8 * min(x.min(), y.min()), 1.25 * max(x.max(), y.max())
    ax.plot([low, high], [low, high], color=GRAY, linewidth=1, label="calibrated")
    ax.plot(x, y, color=BLUE, marker="o", markersize=5, linewidth=1, label="bins of genes by expected error")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_locator(NullLocator())
    ax.set(xlabel=f"expected error ({SCALE})", ylabel=f"root mean squared error ({SCALE})")
    covered = ", ".join(f"{share:.0%} within {name}" for name, share in inside.items())
    n = len(effects)
    ax.set_title(f"{n} perturbation{'s' * (n > 1)}, {effects.shape[1]:,} genes\n{covered}", fontsize=9, loc="left")
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    return ax
