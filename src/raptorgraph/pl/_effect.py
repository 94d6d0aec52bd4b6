"""Predicted against measured effect of one perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.metrics import pearson_delta, relative_mse
from raptorgraph.pl._cells import canonical
from raptorgraph.pl._figure import BLUE, GRAY, LIGHT, SCALE, axes_or_new, check_save, finish
from raptorgraph.pl._labels import label_points
from raptorgraph.pl._limits import far_off, limits_with_zero
from raptorgraph.pl._measured import one_measured, predicted_with_sd

if TYPE_CHECKING:
    from collections.abc import Collection
    from os import PathLike

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.pl._marks import Style

_ENOUGH = 20  # genes from which one can be far off


@docs.dedent
def effect(
    predicted: RaptorGraphModel | pd.Series,
    measured: pd.Series | AnnData | None = None,
    *,
    perturbation: str | Collection[str] | None = None,
    predicted_sd: pd.Series | None = None,
    measured_se: pd.Series | None = None,
    error_bars: bool = False,
    n_labels: int = 10,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    r"""Scatter the predicted against the measured effect, one point a gene, between floor and ceiling.

    The diagonal is a perfect prediction, the dashed horizontal line the prediction of no change, whose error is the
    ceiling. The floor is the error that a perfect prediction has because the measurement is that of a sample of cells.
    With the measured effect m, the predicted one p and the standard error s of m, the relative squared error of the
    prediction and its floor are

    .. math::
        \frac{\sum_g (p_g - m_g)^2}{\sum_g m_g^2}, \qquad \frac{\sum_g s_g^2}{\sum_g m_g^2},

    and the ceiling is 1. The error of a model that was trained on these very cells can lie below the floor, since the
    model has seen their noise. The gray band is two standard errors (the median over genes) wide to either side.

    Parameters
    ----------
    predicted
        Predicted effect, indexed by gene, such as a row of ``model.predict_effects(...)``; or a trained model, which
        then predicts `perturbation`.
    measured
        Measured effect, indexed by gene, in any order; genes that both effects have are drawn. With a model it can be
        an AnnData with cells of the perturbation and control cells, and comes by default from the model's data.
    perturbation
        Label, or tuple, list or set of genes, that the model predicts.
    predicted_sd, measured_se
        Standard deviation of the prediction and standard error of the measurement, indexed by gene. With a model and
        cells they are known.
    error_bars
        Whether to draw both as bars of one standard deviation to either side.
    n_labels
        Number of genes to name, largest effects (measured or predicted) first. A name that finds no free place is left
        out. Up to three genes that lie more than twice as far out as all others, mostly the perturbed ones, stand at
        the border as diamonds, with their measured and predicted effect.
    title
        First words of the title; by default the name of the perturbation.
    %(ax)s
    %(figure)s

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The axes, both in units of the expression scale and with the same limits.

    Raises
    ------
    TypeError
        If `predicted` is neither a model nor a series, or `measured` does not suit it.
    ValueError
        If a gene occurs twice, a value is missing, fewer than two genes are in both, or the measured cells lack the
        perturbation.

    Examples
    --------
    >>> label = model.conditions[0]
    >>> ax = rg.pl.effect(model, perturbation=label)
    >>> ax.get_xlabel()
    'measured effect (log-normalized)'

    Any two effects can be compared:

    >>> predicted, measured = model.predict_effects(label).loc[label], model.measured_effects().loc[label]
    >>> figure = rg.pl.effect(predicted, measured, n_labels=3, return_fig=True)
    """
    check_save(save)
    check_integer("n_labels", n_labels, 0)
    if not isinstance(predicted, pd.Series):
        if not hasattr(predicted, "predict_effects"):
            raise TypeError(f"predicted must be a trained model or a series, not {type(predicted).__name__}.")
        predicted, predicted_sd, measured, measured_se = _of_model(predicted, perturbation, measured)
    elif not isinstance(measured, pd.Series):
        raise TypeError(f"measured must be a series, as predicted is, not {type(measured).__name__}.")
    name = measured.name if title is None else title
    table = _aligned(predicted, measured, predicted_sd, measured_se)

    ax = axes_or_new(ax, (4.6, 4.8))
    x, y = table["measured"].to_numpy(), table["predicted"].to_numpy()
    sizes = np.maximum(np.abs(x), np.abs(y))
    beyond = far_off(sizes, at_least=_ENOUGH)
    ends = limits_with_zero(x[~beyond], y[~beyond])
    _draw_bounds(ax, ends, table.get("measured_se"))
    if error_bars:
        x_bars, y_bars = table.get("measured_se"), table.get("predicted_sd")
        ax.errorbar(x, y, y_bars, x_bars, fmt="none", ecolor=BLUE, alpha=0.25, elinewidth=0.6, zorder=2)
    shown: Style = {"color": BLUE, "linewidths": 0, "zorder": 3}
    ax.scatter(x[~beyond], y[~beyond], s=10, alpha=0.6, rasterized=len(x) > 5000, **shown)
    at_x, at_y = (np.clip(values, *ends) for values in (x, y))
    ax.scatter(at_x[beyond], at_y[beyond], s=36, marker="D", clip_on=False, **shown)
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    ax.set(xlabel=f"measured effect ({SCALE})", ylabel=f"predicted effect ({SCALE})")
    ax.set_title(_scores(table) if name is None else f"{name}, {_scores(table)}", fontsize=8.5, loc="left")
    legend = ax.legend(loc="upper left", fontsize=7, frameon=False, handlelength=1.5, borderaxespad=0.2)
    largest = np.argsort(-sizes, kind="stable")[:n_labels]
    names = [f"{table.index[k]} ({x[k]:.1f}, {y[k]:.1f})" if beyond[k] else str(table.index[k]) for k in largest]
    among = np.column_stack([at_x, at_y])
    label_points(ax, at_x[largest], at_y[largest], names, among=among, obstacles=[legend])
    return finish(ax, show=show, save=save, return_fig=return_fig)


def _draw_bounds(ax: Axes, ends: tuple[float, float], measured_se: pd.Series | None) -> None:
    """Draw where a perfect prediction, sampling noise and no change lie."""
    if measured_se is not None:
        width = 2 * float(np.median(measured_se))
        band: Style = {"color": LIGHT, "alpha": 0.6, "linewidth": 0, "zorder": 0, "label": "sampling noise (±2 SE)"}
        ax.fill_between(ends, np.subtract(ends, width), np.add(ends, width), **band)
    ax.plot(ends, ends, color=GRAY, linewidth=1, zorder=1, label="perfect prediction")
    ax.plot(ends, [0, 0], color=GRAY, linewidth=1, linestyle="--", zorder=1, label="no change")


def _of_model(
    model: RaptorGraphModel, perturbation: str | Collection[str] | None, measured: pd.Series | AnnData | None
) -> tuple[pd.Series, pd.Series | None, pd.Series, pd.Series | None]:
    """Prediction and measurement of one perturbation, each with its uncertainty."""
    if perturbation is None:
        raise TypeError("Say which effect the model is to predict: perturbation='A' or 'A+B'.")
    label = canonical(model, perturbation)
    mean, sd = predicted_with_sd(model, [label])
    known, error = one_measured(model, label, measured)
    if known is None:
        raise ValueError(f"{label!r} is not in the model's data: give its measured effect or cells, measured=...")
    return mean.iloc[0], None if sd is None else sd.iloc[0], known.rename(label), error


def _aligned(
    predicted: pd.Series, measured: pd.Series, predicted_sd: pd.Series | None, measured_se: pd.Series | None
) -> pd.DataFrame:
    """One row for each gene in both effects."""
    columns = {"measured": measured, "predicted": predicted}
    columns |= {name: x for name, x in (("predicted_sd", predicted_sd), ("measured_se", measured_se)) if x is not None}
    for name, series in columns.items():
        if not series.index.is_unique:
            twice = series.index[series.index.duplicated()][0]
            raise ValueError(f"The {name} effect has gene {twice!r} twice: make the names unique.")
    genes = measured.index.intersection(predicted.index, sort=False)
    if len(genes) < 2:
        raise ValueError(f"Predicted and measured effect share {len(genes)} genes: index both by the same gene names.")
    table = pd.DataFrame({name: series.reindex(genes).astype(float) for name, series in columns.items()})
    for name in table:
        bad = table.index[~np.isfinite(table[name])]
        if len(bad):
            raise ValueError(f"The {name} effect of gene {bad[0]!r} is missing or infinite: drop the gene.")
    return table


def _scores(table: pd.DataFrame) -> str:
    """Correlation and relative squared error, with what bounds them."""
    measured, predicted = table["measured"].to_numpy(), table["predicted"].to_numpy()
    correlation = pearson_delta(predicted, measured)
    parts = ["Pearson undefined" if np.isnan(correlation) else f"Pearson {correlation:.2f}"]
    total = float((measured**2).sum())
    if total > 0:
        bounds = "no change 1"
        if "measured_se" in table:
            bounds = f"noise {float((table['measured_se'] ** 2).sum()) / total:.2f}, {bounds}"
        parts.append(f"relative squared error {relative_mse(predicted, measured):.2f} ({bounds})")
    return "\n".join(parts)
