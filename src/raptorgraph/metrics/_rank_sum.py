"""The rank-sum test of samples that may be constant."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.stats import mannwhitneyu


def rank_sum(
    x: np.ndarray, y: np.ndarray, *, method: Literal["auto", "asymptotic"] = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """U of `x` and two-sided p value of the Mann-Whitney test of each column of two samples, both of shape (k,).

    p is 1 where all values of both samples are equal, and NaN where a value is missing. The `method` is that of
    :func:`scipy.stats.mannwhitneyu`.
    """
    found = mannwhitneyu(x, y, axis=0, method=method)
    constant = (x == x[:1]).all(axis=0) & (y == x[:1]).all(axis=0)
    # scipy's p of equal values is 1 before version 1.18, NaN since
    return found.statistic, np.where(constant, 1.0, found.pvalue)
