"""The rank-sum test of samples that may be constant, and the share of pairs that it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import mannwhitneyu, rankdata

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    r"""Area under the receiver operating characteristic of a score.

    .. math::
        \frac{1}{n m} \sum_{i, j} \left( [x_i > y_j] + \tfrac12 [x_i = y_j] \right),

    the probability that a positive case scores above a negative one, ties counted half.

    Parameters
    ----------
    positive, negative
        Scores x of the n positive and y of the m negative cases.

    Returns
    -------
    float
        From 0 to 1; one half by chance.

    Raises
    ------
    ValueError
        If one of them is empty or no sequence of numbers, or has a missing value.

    Examples
    --------
    >>> rg.metrics.auroc([0.9, 0.8, 0.4], [0.1, 0.4])
    0.9166666666666666
    """
    x, y = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    for name, values in (("positive", x), ("negative", y)):
        if values.ndim != 1 or not values.size or np.isnan(values).any():
            raise ValueError(f"`{name}` has the shape {values.shape}: give one score or more, none of them missing.")
    n, m = len(x), len(y)
    above = rankdata(np.concatenate([x, y]))[:n].sum() - n * (n + 1) / 2
    return float(above / (n * m))
