"""Curves of the loss terms over training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._docs import docs
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE, AxesArray, Floats, check_save, finish, panels

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.pl._marks import Style

_COLORS = {"train": BLUE, "validation": ORANGE}
_FEWEST = 6  # epochs of which the noise of the validation can be told
_REACH = 3  # epochs to either side that a moving mean takes
_BAND = 2.0  # standard deviations
_NOISE_ALONE = 0.5  # mean of (p - m)^2 / 2v of a true p and its measurement m of variance v
# scvi-tools logs these beside the terms of the loss, of which they are sums or copies
_COPIES = ("elbo", "reconstruction_loss", "kl_local", "kl_global")
_TITLES = {"loss": "loss", "kl": "KL of the latents to their prior", "dag": "graph"}
_UNITS = {
    "loss": "weighted sum of the terms",
    "reconstruction": "nats per cell and gene",
    "kl": "nats",
    "shift": "nats per condition and gene",
    "pair": "nats per cell and gene",
    "mmd": "MK-MMD",
    "dag": "DAGMA's score",
}


@docs.dedent
def training(
    model: RaptorGraphModel,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
    return_fig: bool = False,
) -> AxesArray | Figure:
    r"""Draw the loss and its terms over the epochs, one panel for each, of training and of validation cells.

    The validation of an epoch draws latents anew, so that its values jump where the model hardly changes. From six
    epochs on they are drawn as points, with a moving mean (of seven epochs) as the line and a band of two
    standard deviations of this noise: what changes within the band is no progress. Fewer epochs do not tell the noise,
    and their points are joined by a line. It is estimated from second differences, which a trend does not enter,

    .. math:: \sigma = \operatorname{median}_t |v_{t-1} - 2 v_t + v_{t+1}| / (0.6745 \sqrt{6}).

    Parameters
    ----------
    %(model)s
    ax
        Axes whose place the panels take; default a new figure.
    %(figure)s

    Returns
    -------
    numpy.ndarray or matplotlib.figure.Figure
        The axes, one for each term.

    Raises
    ------
    ValueError
        If the model has no history: it was not trained.

    Notes
    -----
    The training loss can rise at first, while the weight of the KL divergence grows to its final value; the validation
    loss has the final weights throughout.

    In training the shifts are held to the posterior of the effects, in validation they are compared with the means of
    few cells, whose sampling noise alone costs 0.5 nats (dashed): a gap between both curves of the shift, and with it
    of the loss, is no overfitting. A validation loss that rises is.

    Examples
    --------
    >>> axes = rg.pl.training(model)
    >>> axes[0].get_title()
    'loss'
    """
    check_save(save)
    curves = _curves(model.history)
    if not curves:
        raise ValueError("The model has no training history: call model.train() first.")
    n = len(curves)
    n_columns = n if n <= 4 else 3
    axes = panels(ax, (3.2 * n_columns, 2.7 * -(-n // n_columns)), n, n_columns=n_columns)
    for panel, (term, parts) in zip(axes, curves.items(), strict=True):
        for part, values in parts.items():
            if part == "validation" and len(values) >= _FEWEST:
                _draw_noisy(panel, values)
                continue
            # a point where there is one epoch, since a line through it would be invisible
            marker = "o" if part == "validation" or len(values) == 1 else None
            style: Style = {"color": _COLORS[part], "marker": marker, "markersize": 3 if len(values) > 1 else 6}
            panel.plot(values.index + 1, values, label=part, linewidth=1.3, **style)
        if term == "shift" and "validation" in parts:
            line = panel.axhline(_NOISE_ALONE, color=GRAY, linestyle="--", linewidth=1, label="noise of the validation")
            panel.legend(handles=[line], frameon=False, fontsize=8)
        panel.set_title(_TITLES.get(term, term.replace("_", " ")), fontsize=10)
        panel.set(xlabel="epoch", ylabel=_UNITS.get(term, "value"))
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    return finish(axes, show=show, save=save, return_fig=return_fig)


def _draw_noisy(ax: Axes, values: pd.Series) -> None:
    """Draw the values of single epochs as points, their moving mean, and the noise about it."""
    x, v = values.index.to_numpy() + 1, values.to_numpy(dtype=float)
    mean, width = moving_mean(v), _BAND * noise(v)
    color = _COLORS["validation"]
    ax.fill_between(
        x, mean - width, mean + width, color=color, alpha=0.2, linewidth=0, label=f"±{_BAND:g} SD of its noise"
    )
    ax.scatter(x, v, s=6, color=color, alpha=0.5, linewidths=0)
    ax.plot(x, mean, color=color, label="validation, moving mean", linewidth=1.3)


def noise(values: Floats) -> float:
    """Standard deviation of the noise of a series with a smooth trend."""
    return float(np.median(np.abs(np.diff(values, 2))) / (0.6745 * np.sqrt(6)))


def moving_mean(values: Floats) -> Floats:
    """Mean over up to seven values about each, fewer at the ends, where as many are taken of both sides."""
    n = len(values)
    reach = np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]), _REACH)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(n)
    return np.asarray((sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1))


def _curves(history: dict[str, pd.DataFrame] | None) -> dict[str, dict[str, pd.Series]]:
    """Values by epoch of each term, the loss first, for ``"train"`` and ``"validation"``."""
    curves: dict[str, dict[str, pd.Series]] = {}
    for key, table in (history or {}).items():
        if key.endswith("_step") or key.startswith(_COPIES):
            continue
        for part in _COLORS:
            name = key.removesuffix("_epoch")
            if name == f"{part}_loss":
                term = "loss"
            elif name.endswith(f"_{part}"):
                term = name.removesuffix(f"_{part}")
            else:
                continue
            values = pd.to_numeric(table.iloc[:, 0], errors="coerce").dropna()
            if len(values):
                curves.setdefault(term, {})[part] = values
    return {term: curves[term] for term in sorted(curves, key=lambda term: term != "loss")}
