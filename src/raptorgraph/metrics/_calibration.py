"""Calibration of probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptorgraph._arguments import check_integer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def calibration_error(probability: ArrayLike, outcome: ArrayLike, *, n_bins: int = 10) -> float:
    r"""Expected calibration error: how far probabilities are from the share of what happens.

    .. math::
        \sum_b \frac{n_b}{n} \left| \bar p_b - \bar y_b \right|

    over bins b of equal width from 0 to 1, with :math:`\bar p_b` the mean probability and :math:`\bar y_b` the share of
    positive outcomes of the :math:`n_b` cells in bin b. With few cells in a bin, chance alone makes it larger than 0.

    Parameters
    ----------
    probability
        Probability of each case, from 0 to 1, shape (n,).
    outcome
        Whether it came true, booleans or 0 and 1, shape (n,).
    n_bins
        Number of bins.

    Returns
    -------
    float
        From 0 to 1; 0 is best.

    Raises
    ------
    TypeError
        If the number of bins is no integer.
    ValueError
        If the shapes differ, there is no case, a probability is outside of 0 to 1 or missing, or an outcome is neither
        0 nor 1.

    Examples
    --------
    >>> rg.metrics.calibration_error([0.25, 0.25, 0.25, 0.25], [True, False, False, False])
    0.0
    >>> rg.metrics.calibration_error([0.9, 0.9], [True, False])
    0.4
    """
    n_bins = check_integer("n_bins", n_bins, 1)
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if p.shape != y.shape or p.ndim != 1 or not p.size:
        raise ValueError(f"`probability` and `outcome` have shapes {p.shape} and {y.shape}: give one of each per case.")
    wrong = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if wrong.size:
        raise ValueError(f"`probability` is {p[wrong[0]]} in case {wrong[0]}: it must be from 0 to 1.")
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if wrong.size:
        raise ValueError(f"`outcome` is {y[wrong[0]]} in case {wrong[0]}: it must be 0 or 1.")
    bins = np.minimum((p * n_bins).astype(np.intp), n_bins - 1)
    return float(np.abs(np.bincount(bins, weights=p - y)).sum() / len(p))
