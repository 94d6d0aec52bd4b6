"""Limits of an axis of effects, which a few far larger ones must not set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MOST_FAR_OFF = 3
_MARGIN = 0.08  # of the range, on each side


def far_off(sizes: npt.ArrayLike, *, at_least: int = 0) -> npt.NDArray[np.bool_]:
    """Find the values that would leave no room for the others, mostly those of perturbed genes.

    These are at most three, the largest absolute values down to one that is more than twice the next; of fewer values
    than `at_least` none is far off.
    """
    sizes = np.asarray(sizes, dtype=float)
    order = np.argsort(-sizes, kind="stable")
    beyond = np.zeros(len(sizes), dtype=bool)
    if len(sizes) >= at_least:
        ends = range(1, min(_MOST_FAR_OFF + 1, len(sizes) - 1))
        beyond[order[: max((k for k in ends if sizes[order[k - 1]] > 2 * sizes[order[k]] > 0), default=0)]] = True
    return beyond


def limits_with_zero(*values: npt.ArrayLike) -> tuple[float, float]:
    """Lower and upper limit around all values and zero; missing ones are passed over."""
    low = min(0.0, *(float(np.nanmin(x)) for x in values))
    high = max(0.0, *(float(np.nanmax(x)) for x in values))
    margin = _MARGIN * (high - low) or 1.0
    return low - margin, high + margin
