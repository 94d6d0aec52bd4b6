"""The order of names, in which random numbers are given out, so that they do not depend on the order in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence


def name_order(names: Sequence[str] | pd.Index) -> np.ndarray:
    """Positions of names in the order of their characters; in the order that they have where some are the same."""
    index = pd.Index(names)
    if not index.is_unique:
        return np.arange(len(index))
    return np.argsort(index.to_numpy(dtype=object).astype(str), kind="stable")


def places(order: np.ndarray) -> np.ndarray:
    """Place of each position in an order, which undoes it: ``x[order][places(order)]`` is x."""
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.arange(len(order))
    return found
