"""What all plots share: axes to draw on, and what happens to the figure in the end."""

from __future__ import annotations

from os import PathLike

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#7F7F7F"  # told apart by color-blind readers (Okabe and Ito)


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The given axes, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt  # here, since it starts a backend

    return plt.subplots(figsize=size, layout="constrained")[1]


def finish(figure: Figure | SubFigure, show: bool | None, save: str | PathLike | None) -> None:
    """Save and show the figure, as asked."""
    if save is not None:
        figure.savefig(save, dpi=150)
    if show:
        import matplotlib.pyplot as plt

        plt.show()
