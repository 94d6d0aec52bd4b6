"""Agreement of predicted with measured effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raptorgraph._docs import docs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray


@docs.dedent
def pearson_delta(predicted: ArrayLike, measured: ArrayLike, *, per_row: bool = False) -> float | np.ndarray:
    r"""Pearson correlation of predicted and measured effects over genes.

    .. math::
        r_p = \frac{\sum_g (\hat e_{pg} - \bar{\hat e}_p)(e_{pg} - \bar e_p)}
                   {\sqrt{\sum_g (\hat e_{pg} - \bar{\hat e}_p)^2 \sum_g (e_{pg} - \bar e_p)^2}}

    for each perturbation p, then the mean over the perturbations for which it is defined.

    Parameters
    ----------
    %(predicted_effects)s
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Mean correlation; NaN where it is defined for no perturbation, as for an effect that is constant
        over genes. With ``per_row`` NaN where undefined.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than two genes.

    Examples
    --------
    >>> measured = np.array([[1.0, -1.0, 0.0, 2.0], [0.0, 1.0, 3.0, 0.0]])
    >>> round(rg.metrics.pearson_delta(0.5 * measured, measured), 6)  # blind to the size of effects
    1.0
    >>> rg.metrics.pearson_delta(-measured, measured, per_row=True).round(3)
    array([-1., -1.])
    """
    predicted, measured = check_pair(predicted, measured)
    if predicted.shape[1] < 2:
        raise ValueError(f"A correlation over genes needs two genes or more, got {predicted.shape[1]}.")
    centered = [values - values.mean(axis=1, keepdims=True) for values in (predicted, measured)]
    norms = [np.linalg.norm(values, axis=1) for values in centered]
    # a row is constant if it varies by no more than the rounding of its values
    varies = [
        norm > 1e-12 * np.linalg.norm(values, axis=1) for norm, values in zip(norms, (predicted, measured), strict=True)
    ]
    rows = np.full(len(predicted), np.nan)
    np.divide((centered[0] * centered[1]).sum(axis=1), norms[0] * norms[1], out=rows, where=varies[0] & varies[1])
    return average(rows, per_row)


@docs.dedent
def relative_mse(predicted: ArrayLike, measured: ArrayLike) -> float:
    r"""Squared error of the predicted effects, as a part of the measured effects' squared size.

    .. math::
        \frac{\sum_{p,g} (\hat e_{pg} - e_{pg})^2}{\sum_{p,g} e_{pg}^2}

    pooled over perturbations p and genes g; 0 is perfect, and predicting no change scores 1.

    Parameters
    ----------
    %(predicted_effects)s

    Returns
    -------
    float
        Relative error, at least 0.

    Raises
    ------
    ValueError
        If the shapes differ, or all measured effects are zero.

    Examples
    --------
    >>> measured = np.array([[1.0, -1.0, 0.0, 2.0], [0.0, 1.0, 3.0, 0.0]])
    >>> rg.metrics.relative_mse(np.zeros_like(measured), measured)  # no change
    1.0
    >>> rg.metrics.relative_mse(0.5 * measured, measured)
    0.25
    >>> rg.metrics.relative_mse(2 * measured, measured)  # twice too large is as bad as no change
    1.0
    """
    predicted, measured = check_pair(predicted, measured)
    size = (measured**2).sum()
    if size == 0:
        raise ValueError("All measured effects are 0: an error relative to them is undefined.")
    return float(((predicted - measured) ** 2).sum() / size)


@docs.dedent
def mse(predicted: ArrayLike, measured: ArrayLike, *, per_row: bool = False) -> float | np.ndarray:
    r"""Mean squared error over genes.

    .. math::
        \frac{1}{G} \sum_g (\hat e_{pg} - e_{pg})^2

    for each perturbation p, then the mean over perturbations. Of mean profiles it is cell-eval's ``mse``, of effects
    its ``mse_delta``; the two differ by the error of the predicted control.

    Parameters
    ----------
    %(predicted_effects)s
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Error, at least 0, in squared units of the values.

    %(shapes_differ)s

    Examples
    --------
    >>> measured = np.array([[1.0, -1.0, 0.0, 2.0], [0.0, 1.0, 3.0, 0.0]])
    >>> rg.metrics.mse(measured + 0.5, measured)
    0.25
    >>> rg.metrics.mse(np.zeros_like(measured), measured, per_row=True)
    array([1.5, 2.5])
    """
    predicted, measured = check_pair(predicted, measured)
    return average(((predicted - measured) ** 2).mean(axis=1), per_row)


@docs.dedent
def mae(predicted: ArrayLike, measured: ArrayLike, *, per_row: bool = False) -> float | np.ndarray:
    r"""Mean absolute error over genes.

    .. math::
        \frac{1}{G} \sum_g |\hat e_{pg} - e_{pg}|

    for each perturbation p, then the mean over perturbations. Of mean profiles it is cell-eval's ``mae``, of effects
    its ``mae_delta``.

    Parameters
    ----------
    %(predicted_effects)s
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Error, at least 0, in units of the values.

    %(shapes_differ)s

    Examples
    --------
    >>> measured = np.array([[1.0, -1.0, 0.0, 2.0], [0.0, 1.0, 3.0, 0.0]])
    >>> rg.metrics.mae(measured + 0.5, measured)
    0.5
    """
    predicted, measured = check_pair(predicted, measured)
    return average(np.abs(predicted - measured).mean(axis=1), per_row)


@docs.dedent
def cosine_delta(predicted: ArrayLike, measured: ArrayLike, *, per_row: bool = False) -> float | np.ndarray:
    r"""Cosine of predicted and measured effects.

    .. math::
        \frac{\sum_g \hat e_{pg} e_{pg}}{\lVert \hat e_p \rVert_2 \lVert e_p \rVert_2}

    for each perturbation p, then the mean over the perturbations for which it is defined. Unlike
    :func:`pearson_delta` it sees a shift that all genes share.

    Parameters
    ----------
    %(predicted_effects)s
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Mean cosine, from -1 to 1; NaN where it is defined for no perturbation, as for an effect of zero. With
        ``per_row`` NaN where undefined.

    %(shapes_differ)s

    Examples
    --------
    >>> measured = np.array([[1.0, -1.0, 0.0, 2.0], [0.0, 1.0, 3.0, 0.0]])
    >>> round(rg.metrics.cosine_delta(0.5 * measured, measured), 3)
    1.0
    >>> round(rg.metrics.cosine_delta(measured + 1, measured), 3)
    0.908
    """
    predicted, measured = check_pair(predicted, measured)
    norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(measured, axis=1)
    rows = np.full(len(predicted), np.nan)
    np.divide((predicted * measured).sum(axis=1), norms, out=rows, where=norms > 0)
    return average(rows, per_row)


def against_centroid(effects: ArrayLike, reference: ArrayLike) -> np.ndarray:
    r"""Effects against the centroid of perturbations in place of the control.

    .. math::
        e_{pg} - \frac{1}{R} \sum_{r=1}^{R} e_{rg}

    where r runs over the reference conditions. A prediction then gains nothing from what all perturbations share, such
    as stress, cell cycle and batch (Systema: Vinas Torne et al., Nature Biotechnology 2025). Every condition counts
    once, however many cells it has; the control cancels, so effects and mean profiles give the same result. Use one
    reference for predicted and measured effects: the *measured* effects of the *training* conditions.

    Parameters
    ----------
    effects
        Effects, shape (n_perturbations, n_genes), or (n_genes,) for one perturbation.
    reference
        Effects of the reference conditions, shape (n_conditions, n_genes).

    Returns
    -------
    numpy.ndarray
        Centered effects, of the shape of ``effects``, for any score of effects.

    Raises
    ------
    ValueError
        If there is no reference condition, or the genes differ in number.

    Examples
    --------
    >>> singles = np.array([[1.0, 2.0], [3.0, 2.0]])
    >>> rg.metrics.against_centroid(np.array([[2.0, 5.0]]), singles)  # against their mean (2, 2)
    array([[0., 3.]])
    """
    effects, reference = np.asarray(effects, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if reference.ndim != 2 or not len(reference) or effects.shape[-1:] != reference.shape[1:]:
        raise ValueError(
            f"The reference has shape {reference.shape} and the effects {effects.shape}: "
            "give one row or more of reference conditions, with the same genes."
        )
    return np.asarray(effects - reference.mean(axis=0))


@docs.dedent
def on_top_genes(
    score: Callable[..., float | np.ndarray], predicted: ArrayLike, measured: ArrayLike, top: ArrayLike, **kwargs: Any
) -> float | np.ndarray:
    """Score each perturbation on its own genes alone, such as its top 20 differential ones.

    Choose the genes from the measured data (:func:`~raptorgraph.metrics.top_genes`), the same for all methods.

    Parameters
    ----------
    score
        Function of predicted and measured effects, such as :func:`pearson_delta` or :func:`mse`.
    %(predicted_effects)s
    top
        Indices of the genes of each perturbation, shape (n_perturbations, k), or (k,) for one perturbation.
    **kwargs
        Passed to ``score``.

    Returns
    -------
    float or numpy.ndarray
        What ``score`` returns.

    Raises
    ------
    ValueError
        If the shapes differ, there is not one row of genes for each perturbation, or an index is not one of a gene.

    Examples
    --------
    >>> measured = np.array([[1.0, -1.0, 0.0, 2.0], [0.0, 1.0, 3.0, 0.0]])
    >>> top = rg.metrics.top_genes(measured, k=2)
    >>> rg.metrics.on_top_genes(rg.metrics.mse, np.zeros_like(measured), measured, top)
    3.75
    """
    predicted, measured = check_pair(predicted, measured)
    top = np.atleast_2d(np.asarray(top))
    if top.ndim != 2 or len(top) != len(predicted) or top.dtype.kind not in "iu":
        raise ValueError(
            f"`top` has shape {top.shape} and type {top.dtype}: "
            f"give integer gene indices, one row for each of the {len(predicted)} perturbations."
        )
    if top.size and not (top.min() >= 0 and top.max() < predicted.shape[1]):
        raise ValueError(
            f"Gene indices must be from 0 to {predicted.shape[1] - 1}, found {top.min()} to {top.max()} in `top`."
        )
    return score(np.take_along_axis(predicted, top, axis=1), np.take_along_axis(measured, top, axis=1), **kwargs)


def average(rows: NDArray[np.float64], per_row: bool) -> float | np.ndarray:
    """Score of every row, or the mean over the rows in which it is defined (NaN if there is none)."""
    if per_row:
        return rows
    defined = ~np.isnan(rows)
    return float(rows[defined].mean()) if defined.any() else float("nan")


def check_pair(predicted: ArrayLike, measured: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predicted and measured effects as float64, shape (n_perturbations, n_genes)."""
    predicted, measured = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if predicted.shape != measured.shape:
        raise ValueError(
            f"Predicted effects have shape {predicted.shape} and measured ones {measured.shape}: "
            "give the same perturbations and genes in the same order."
        )
    if predicted.ndim not in (1, 2):
        raise ValueError(f"Effects must have shape (perturbations, genes) or (genes,), got {predicted.shape}.")
    return np.atleast_2d(predicted), np.atleast_2d(measured)
