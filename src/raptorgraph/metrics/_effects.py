"""Agreement of predicted with measured effects."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def pearson_delta(predicted: ArrayLike, measured: ArrayLike, *, per_row: bool = False) -> float | np.ndarray:
    r"""Pearson correlation of predicted and measured effects over genes.

    .. math::
        r_p = \frac{\sum_g (\hat e_{pg} - \bar{\hat e}_p)(e_{pg} - \bar e_p)}
                   {\sqrt{\sum_g (\hat e_{pg} - \bar{\hat e}_p)^2 \sum_g (e_{pg} - \bar e_p)^2}}

    for each perturbation p, then the mean over the perturbations for which it is defined.

    Parameters
    ----------
    predicted
        Predicted effects, shape (n_perturbations, n_genes), or (n_genes,) for one perturbation.
    measured
        Measured effects, of the same shape.
    per_row
        Whether to return the correlation of every perturbation.

    Returns
    -------
    float or numpy.ndarray
        Mean correlation; NaN where it is defined for no perturbation (an effect that is constant over genes has no
        correlation). With ``per_row`` shape (n_perturbations,), NaN where undefined.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than two genes.
    """
    predicted, measured = _pair(predicted, measured)
    if predicted.shape[1] < 2:
        raise ValueError(f"A correlation over genes needs two genes or more, got {predicted.shape[1]}.")
    centered = [values - values.mean(axis=1, keepdims=True) for values in (predicted, measured)]
    norms = [np.linalg.norm(values, axis=1) for values in centered]
    # below rounding of its own values a row is constant
    flat = [
        norm <= 1e-12 * np.linalg.norm(values, axis=1)
        for norm, values in zip(norms, (predicted, measured), strict=True)
    ]
    defined = ~(flat[0] | flat[1])
    rows = np.full(len(predicted), np.nan)
    np.divide((centered[0] * centered[1]).sum(axis=1), norms[0] * norms[1], out=rows, where=defined)
    if per_row:
        return rows
    return float(rows[defined].mean()) if defined.any() else float("nan")


def relative_mse(predicted: ArrayLike, measured: ArrayLike) -> float:
    r"""Squared error of the predicted effects, as a part of the measured effects' squared size.

    .. math::
        \frac{\sum_{p,g} (\hat e_{pg} - e_{pg})^2}{\sum_{p,g} e_{pg}^2}

    pooled over perturbations p and genes g; 0 is perfect, and predicting no change scores 1.

    Parameters
    ----------
    predicted
        Predicted effects, shape (n_perturbations, n_genes), or (n_genes,) for one perturbation.
    measured
        Measured effects, of the same shape.

    Returns
    -------
    float
        Relative error, at least 0.

    Raises
    ------
    ValueError
        If the shapes differ, or all measured effects are zero.
    """
    predicted, measured = _pair(predicted, measured)
    size = (measured**2).sum()
    if size == 0:
        raise ValueError("All measured effects are 0: an error relative to them is undefined.")
    return float(((predicted - measured) ** 2).sum() / size)


def _pair(predicted: ArrayLike, measured: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    predicted, measured = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if predicted.shape != measured.shape:
        raise ValueError(
            f"Predicted effects have shape {predicted.shape} and measured ones {measured.shape}: "
            "give the same perturbations and genes in the same order."
        )
    if predicted.ndim not in (1, 2):
        raise ValueError(f"Effects must have shape (perturbations, genes) or (genes,), got {predicted.shape}.")
    return np.atleast_2d(predicted), np.atleast_2d(measured)
