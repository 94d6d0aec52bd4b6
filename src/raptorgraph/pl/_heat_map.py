"""What heat maps of scores share: their order and the names beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

    from raptorgraph.pl._figure import Floats

_OPTIMAL_UP_TO = 300  # rows, since the optimal order takes cubic time
_LONGEST, _SMALLEST, _LARGEST = 15.0, 0.13, 0.22  # inches: of a side of the map, and of its squares


def similar_side_by_side(rows: Floats) -> npt.NDArray[np.int_]:
    """Order of the rows in which similar ones are neighbors: leaves of average linkage."""
    if len(rows) < 3:
        return np.arange(len(rows))
    return np.asarray(leaves_list(linkage(rows, "average", optimal_ordering=len(rows) <= _OPTIMAL_UP_TO)))


def name_squares(ax: Axes, rows: Sequence[str], columns: Sequence[str], fontsize: float = 8.0) -> None:
    """Name rows and columns of a heat map, the columns upright."""
    ax.set_yticks(range(len(rows)), rows, fontsize=fontsize)
    ax.set_xticks(range(len(columns)), columns, rotation=90, fontsize=fontsize)
    ax.tick_params(length=0)


def side_of_squares(n: int) -> tuple[float, float]:
    """Side of the squares of `n` rows or columns, in inches, and the size of their names; less where there are many."""
    side = float(np.clip(_LONGEST / max(n, 1), _SMALLEST, _LARGEST))
    return side, float(min(8.0, 0.66 * 72 * side))


def unit_rows(rows: Floats) -> Floats:
    """Rows of length 1, by which those of the same direction are side by side whatever their size; 0 stays 0."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))
