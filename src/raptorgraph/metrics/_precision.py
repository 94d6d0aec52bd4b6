"""Precision of the strongest predicted interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptorgraph._arguments import check_integer, check_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def precision_at_k(
    predicted: ArrayLike,
    measured: ArrayLike,
    *,
    k: int = 10,
    fraction: float = 0.25,
    largest: bool = True,
    decimals: int = 6,
) -> float:
    r"""Part of the k pairs with the strongest predicted score that truly interact (RAPTORGraph paper, section D.4).

    A pair is positive if its measured score is among the :math:`m = \lceil f n \rceil` strongest of the n pairs, f the
    fraction (the number at or above numpy's quantile 1 - f for f = 1/4). Where scores tie, the expected value under a
    random order of the ties:

    .. math::
        \frac{1}{k} \sum_i s_i t_i

    where :math:`s_i` is the probability that pair i is among the k strongest predicted: 1 above the boundary, 0 below,
    and at the boundary the places left divided by the number of pairs that tie for them; :math:`t_i` likewise among
    the m strongest measured. Constant predictions, such as the synergy of an additive model, thus score
    :func:`chance_precision` exactly.

    Parameters
    ----------
    predicted
        Predicted score of each pair, shape (n_pairs,). NaN, a score that is undefined, ranks last.
    measured
        Measured score of each pair, shape (n_pairs,); or booleans, True for the positive pairs.
    k
        Number of pairs taken; all pairs if there are fewer.
    fraction
        Part of the pairs that are positive, above 0 and at most 1; not used with booleans.
    largest
        Whether the strongest scores are the largest ones, or the smallest.
    decimals
        Scores are rounded to so many decimals first, so that rounding errors break no tie.

    Returns
    -------
    float
        Expected precision, from 0 to 1.

    Raises
    ------
    ValueError
        If the scores are not one for each of the same pairs, there is no pair, a measured score is NaN, or ``k`` or
        ``fraction`` is out of range.

    Examples
    --------
    >>> measured = np.array([0.9, 0.8, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])  # two of eight are positive
    >>> rg.metrics.precision_at_k(measured, measured, k=2)
    1.0
    >>> rg.metrics.precision_at_k(-measured, measured, k=2)
    0.0
    >>> rg.metrics.precision_at_k(np.ones(8), measured, k=2)  # ties count as chance
    0.25
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    measured = _check_measured(measured, fraction)
    if predicted.shape != measured.shape:
        raise ValueError(
            f"There are predicted scores of shape {predicted.shape} and measured ones of {measured.shape}: "
            "give one of each for the same pairs in the same order."
        )
    k = min(check_integer("k", k, 1, hint=", the number of pairs to take"), len(predicted))
    sign = 1.0 if largest else -1.0
    strength = np.where(np.isnan(predicted), -np.inf, sign * predicted)
    taken = _among_top(strength.round(decimals), k)
    if measured.dtype == bool:
        positive = measured
    else:
        positive = _among_top((sign * measured).round(decimals), _n_positive(len(measured), fraction))
    return float((taken * positive).sum() / k)


def chance_precision(measured: ArrayLike, *, fraction: float = 0.25) -> float:
    """Expected precision of a random order: the number of positive pairs divided by that of all pairs.

    Parameters
    ----------
    measured, fraction
        As for :func:`precision_at_k`.

    Returns
    -------
    float
        From 0 to 1; a little above ``fraction`` where it does not divide the number of pairs, which is rounded up.

    Raises
    ------
    ValueError
        If there is no pair, a measured score is NaN, or ``fraction`` is out of range.

    Examples
    --------
    >>> rg.metrics.chance_precision(np.arange(8.0))
    0.25
    >>> rg.metrics.chance_precision(np.array([True, False, False, False, False]))
    0.2
    """
    measured = _check_measured(measured, fraction)
    if measured.dtype == bool:
        return float(measured.mean())
    return _n_positive(len(measured), fraction) / len(measured)


def _n_positive(n: int, fraction: float) -> int:
    return int(np.ceil(round(fraction * n, 9)))  # rounded, so that 0.1 * 30 is 3


def _among_top(strength: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Probability of each to be among the k largest, when ties are in random order."""
    boundary = np.partition(strength, -k)[-k]
    above, ties = strength > boundary, strength == boundary
    return np.asarray(above + ties * (k - above.sum()) / ties.sum())


def _check_measured(measured: ArrayLike, fraction: float) -> np.ndarray:
    measured = np.asarray(measured)
    if measured.ndim != 1 or not measured.size:
        raise ValueError(f"Measured scores have shape {measured.shape}: give one for each pair, of one pair or more.")
    if measured.dtype == bool:
        return measured
    measured = measured.astype(np.float64)
    if np.isnan(measured).any():
        raise ValueError(
            f"The measured score of pair {int(np.isnan(measured).argmax())} is NaN: leave out undefined pairs."
        )
    check_number("fraction", fraction, 0, 1, above=True)
    return measured
