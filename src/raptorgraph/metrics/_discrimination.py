"""Whether a predicted effect is nearer to its own measured effect than to those of other perturbations."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_distances

from raptorgraph._arguments import check_choice
from raptorgraph._docs import docs
from raptorgraph.metrics._effects import average, check_pair
from raptorgraph.metrics._samples import check_rows

Floats = NDArray[np.float64]


@docs.dedent
def discrimination_score(
    predicted: ArrayLike,
    measured: ArrayLike,
    metric: Literal["l1", "l2", "cosine"] = "l1",
    *,
    exclude: ArrayLike | None = None,
    per_row: bool = False,
) -> float | np.ndarray:
    r"""Normalized rank of the own measured effect among those of all perturbations (cell-eval).

    .. math::
        1 - \frac{1}{P} \sum_{q \ne p} \left( [d(\hat e_p, e_q) < d(\hat e_p, e_p)]
            + \tfrac12 [d(\hat e_p, e_q) = d(\hat e_p, e_p)] \right)

    for each of the P perturbations p, then the mean. It is cell-eval's ``discrimination_score_l1`` (``_l2``,
    ``_cosine``) wherever no distances tie; cell-eval leaves ties to the order of its sorting, here they count half.
    1 is best and 1 / P worst, since cell-eval divides by P; :func:`centroid_accuracy` divides by the P - 1 others.

    Parameters
    ----------
    predicted
        Predicted effects, shape (n_perturbations, n_genes).
    measured
        Measured effects of the same perturbations, of the same shape.
    metric
        Distance: ``"l1"``, ``"l2"`` or ``"cosine"`` (1 - cosine; 1 where an effect is zero).
    exclude
        Booleans of shape (n_perturbations, n_genes), True for genes that the distances of a perturbation leave out.
        cell-eval leaves out the gene whose name is the perturbation's label. The measured levels of the other targets
        then still rule their perturbations out: to leave out all targets, mark them in every row.
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Mean score.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite, the metric is unknown, there are fewer than two perturbations, or
        all genes of a perturbation are left out.

    Examples
    --------
    >>> measured = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> rg.metrics.discrimination_score(measured, measured)
    1.0
    >>> round(rg.metrics.discrimination_score(measured[[1, 2, 0]], measured), 3)  # all mixed up
    0.5
    """
    rank, n = _ranks(predicted, measured, metric, exclude)
    return average(1.0 - rank / n, per_row)


@docs.dedent
def centroid_accuracy(
    predicted: ArrayLike,
    measured: ArrayLike,
    metric: Literal["l1", "l2", "cosine"] = "l2",
    *,
    exclude: ArrayLike | None = None,
    per_row: bool = False,
) -> float | np.ndarray:
    r"""Share of the other perturbations that are farther from the prediction than its own truth (Systema).

    .. math::
        \frac{1}{P - 1} \sum_{q \ne p} \left( [d(\hat e_p, e_q) > d(\hat e_p, e_p)]
            + \tfrac12 [d(\hat e_p, e_q) = d(\hat e_p, e_p)] \right)

    for each of the P perturbations p, then the mean. From 0 to 1. A prediction that is the same for all perturbations
    scores .5 on average, and "no change" scores .5 for each by the cosine. With s the :func:`discrimination_score` it
    is (P s - 1) / (P - 1). With ``"l2"`` it is Systema's centroid accuracy (Vinas Torne et al., Nature Biotechnology
    2025), except that ties count half here and nothing there.

    Parameters
    ----------
    predicted
        Predicted effects or mean profiles, shape (n_perturbations, n_genes).
    measured
        Measured ones of the same perturbations, of the same shape.
    metric, exclude
        As for :func:`discrimination_score`.
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Mean share.

    Raises
    ------
    ValueError
        As for :func:`discrimination_score`.

    Examples
    --------
    >>> measured = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> rg.metrics.centroid_accuracy(measured, measured)
    1.0
    >>> same = np.tile(measured.mean(axis=0), (3, 1))
    >>> rg.metrics.centroid_accuracy(same, measured)  # the same prediction for all
    0.5
    """
    rank, n = _ranks(predicted, measured, metric, exclude)
    return average(1.0 - rank / (n - 1), per_row)


def _ranks(predicted: ArrayLike, measured: ArrayLike, metric: str, exclude: ArrayLike | None) -> tuple[Floats, int]:
    """Number of other perturbations nearer to each prediction than its own truth, ties a half; and P."""
    predicted, measured = check_pair(predicted, measured)
    n = len(predicted)
    if n < 2:
        raise ValueError(f"A rank among perturbations needs two or more, got {n}.")
    check_choice("metric", metric, ("l1", "l2", "cosine"))
    check_rows(predicted=predicted, measured=measured)
    if exclude is None:
        distance = _distance(predicted, measured, metric)
    else:
        keep = ~_check_exclude(exclude, predicted.shape)
        distance = np.concatenate(
            [_distance(predicted[[p], keep[p]][None], measured[:, keep[p]], metric) for p in range(n)]
        )
    own = distance.diagonal()[:, None]
    ties = (distance == own).sum(axis=1) - 1  # less the own one
    return (distance < own).sum(axis=1) + 0.5 * ties, n


def _check_exclude(exclude: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    exclude = np.asarray(exclude)
    if exclude.dtype != bool or exclude.shape != shape:
        raise ValueError(
            f"`exclude` has type {exclude.dtype} and shape {exclude.shape}: give booleans of shape {shape}."
        )
    if exclude.all(axis=1).any():
        row = int(exclude.all(axis=1).argmax())
        raise ValueError(f"`exclude` leaves no gene for row {row}: mark its targets only.")
    return exclude


def _distance(x: Floats, y: Floats, metric: str) -> Floats:
    if metric == "cosine":
        return np.asarray(cosine_distances(x, y))  # scipy's has no value for zero vectors
    return np.asarray(cdist(x, y, "cityblock" if metric == "l1" else "euclidean"))
