"""What figures of experiments have in common: dots with SD, a panel of methods with references, one legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raptorgraph.evaluation._methods import OURS
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = {"-": "solid", "--": "dashed", ":": "dotted"}


def dot_panel(
    ax: Axes,
    values: pd.DataFrame,
    methods: Sequence[str],
    lines: Mapping[str, float],
    *,
    title: str,
    labels: bool,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw mean and SD of every method, the first at the top; what lies far outside is written at the edge.

    `values` has the columns ``value_mean`` and ``value_sd``, indexed by method; methods may be missing. `lines` has
    name and value of each reference (floor, ceiling, chance). The axis ends at `limits`, by default those of the data,
    up to twice the references; `labels` says whether the names of the methods are written.
    """
    shown = values["value_mean"].reindex(methods).dropna()
    lines = {name: value for name, value in lines.items() if np.isfinite(value)}
    if limits is None and len(shown):
        spread = max([*lines.values(), shown.median()])
        limits = min([0.0, shown.min(), *lines.values()]), max([min(shown.max(), 2 * spread), *lines.values()])
    low, high = limits or (0.0, 1.0)
    margin = 0.06 * (high - low) or 1.0
    for value, style in zip(lines.values(), _STYLES, strict=False):
        ax.axvline(value, color=GRAY, linestyle=style, linewidth=1)
    for row, name in enumerate(methods):
        if name not in shown:
            continue
        y, color = len(methods) - 1 - row, ORANGE if name in OURS else BLUE
        mean, sd = shown[name], values.loc[name, "value_sd"]
        if mean > high + margin:
            ax.plot(high + margin, y, ">", color=color, markersize=5, clip_on=False)
            at = high + margin, y
            ax.annotate(f"{mean:.2g}", at, (-6, 0), textcoords="offset points", ha="right", va="center", fontsize=8)
        else:
            ax.errorbar(mean, y, xerr=None if np.isnan(sd) else sd, fmt="o", color=color, markersize=4)
    if shown.empty:
        ax.text(0.5, 0.5, "undefined", transform=ax.transAxes, ha="center", color=GRAY)
    ax.set(xlim=(low - margin, high + margin), ylim=(-0.7, len(methods) - 0.3))
    ax.set_title(title, fontsize=9)
    ax.set_yticks(range(len(methods)), methods[::-1] if labels else [""] * len(methods), fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    # in words below the axis, since a legend would hide dots
    words = [
        f"{style}: {name} {value:.3f}" for (name, value), style in zip(lines.items(), _STYLES.values(), strict=False)
    ]
    ax.set_xlabel(", ".join(words), fontsize=7, color="0.3")


def dots(ax: Axes, values: pd.DataFrame, names: Sequence[str], shift: float = 0.0, **style: Any) -> None:
    """Draw mean and SD of each name at its place on the y axis, which begins at `shift`.

    `values` has the columns ``value_mean`` and ``value_sd``, indexed by name; names may be missing. `style` are
    arguments of ``errorbar``.
    """
    shown = values.reindex(names)
    y = np.arange(len(names)) + shift
    style = {"fmt": "o", "markersize": 4, **style}
    ax.errorbar(shown["value_mean"], y, xerr=shown["value_sd"].fillna(0), **style)


def name_rows(axes: Iterable[Axes], names: Sequence[str]) -> None:
    """Write the names at the y axis, from y = 0 on, with a line for each."""
    for ax in axes:
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)


def shared_legend(figure: Figure, place: str = "outside lower center", n_columns: int = 4) -> None:
    """One legend for all axes, with every name once."""
    found: dict[str, Artist] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc=place, ncols=n_columns, frameon=False, fontsize=9)  # type: ignore[call-overload]  # places outside the axes are missing from its types
