"""Curves of the loss terms over training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from raptorgraph._docs import docs
from raptorgraph.pl._figure import BLUE, ORANGE, AxesArray, check_save, finish, panels

if TYPE_CHECKING:
    from os import PathLike

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from raptorgraph.model import RaptorGraphModel

_COLORS = {"train": BLUE, "validation": ORANGE}
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
    """Draw the loss and its terms over the epochs, one panel for each, of training and of validation cells.

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
            # a point where there is one epoch, since a line through it would be invisible
            marker = "o" if len(values) == 1 else None
            panel.plot(values.index + 1, values, color=_COLORS[part], label=part, marker=marker, linewidth=1.3)
        panel.set_title(_TITLES.get(term, term.replace("_", " ")), fontsize=10)
        panel.set(xlabel="epoch", ylabel=_UNITS.get(term, "value"))
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    return finish(axes, show=show, save=save, return_fig=return_fig)


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
