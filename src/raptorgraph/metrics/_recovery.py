"""Recovery of measured differential genes by predictions: the scores of cell-eval, under the same names.

They take a change and a false discovery rate of every gene, both of shape (n_perturbations, n_genes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.metrics._differential import strongest_first
from raptorgraph.metrics._effects import average

Floats = NDArray[np.float64]
Genes = NDArray[np.intp]


@docs.dedent
def overlap_at_N(
    predicted_change: ArrayLike,
    measured_change: ArrayLike,
    predicted_fdr: ArrayLike,
    measured_fdr: ArrayLike,
    *,
    k: int | None = None,
    threshold: float = 0.05,
    per_row: bool = False,
) -> float | np.ndarray:
    r"""Overlap of the strongest differential genes (cell-eval's ``overlap_at_N``, ``overlap_at_50`` ...).

    .. math::
        \frac{|\operatorname{top}_N(\hat D) \cap \operatorname{top}_N(D)|}{N}, \qquad N = \min(k, |D|)

    where D are the genes with a measured FDR below the threshold, in falling order of absolute measured change, and
    :math:`\hat D` the predicted ones.

    Parameters
    ----------
    predicted_change, measured_change
        Change of every gene, shape (n_perturbations, n_genes); cell-eval's is :func:`log2_fold_change`.
    predicted_fdr, measured_fdr
        False discovery rates, of the same shape.
    k
        Largest N; default no limit.
    threshold
        False discovery rate below which a gene is differential.
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Mean overlap, from 0 to 1; 0 for a perturbation without measured differential genes.

    Raises
    ------
    ValueError
        If the shapes differ, a value is NaN, or ``k`` is not positive.

    Examples
    --------
    >>> predicted, measured = np.array([[3.0, -2.0, 1.0, 0.1]]), np.array([[2.0, 1.5, -1.0, 0.1]])
    >>> predicted_fdr, measured_fdr = np.array([[0.01, 0.01, 0.5, 0.9]]), np.array([[0.01, 0.5, 0.01, 0.9]])

    Two genes are truly differential, and one of them is among the two that are called.

    >>> rg.metrics.overlap_at_N(predicted, measured, predicted_fdr, measured_fdr)
    0.5
    """
    tables = _check_tables(predicted_change, measured_change, predicted_fdr, measured_fdr)
    found, true = _differential(tables[0], tables[2], threshold), _differential(tables[1], tables[3], threshold)
    return average(_shared(found, true, [len(genes) for genes in true], k), per_row)


@docs.dedent
def precision_at_N(
    predicted_change: ArrayLike,
    measured_change: ArrayLike,
    predicted_fdr: ArrayLike,
    measured_fdr: ArrayLike,
    *,
    k: int | None = None,
    threshold: float = 0.05,
    per_row: bool = False,
) -> float | np.ndarray:
    r"""Overlap of the strongest differential genes, N that of the predicted ones (cell-eval's ``precision_at_N``).

    .. math::
        \frac{|\operatorname{top}_N(\hat D) \cap \operatorname{top}_N(D)|}{N}, \qquad N = \min(k, |\hat D|)

    with the sets of :func:`overlap_at_N`.

    Parameters
    ----------
    predicted_change, measured_change, predicted_fdr, measured_fdr, k, threshold
        As for :func:`overlap_at_N`.
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Mean precision, from 0 to 1; 0 for a perturbation without predicted differential genes.

    Raises
    ------
    ValueError
        If the shapes differ, a value is NaN, or ``k`` is not positive.

    Examples
    --------
    >>> predicted, measured = np.array([[3.0, -2.0, 1.0, 0.1]]), np.array([[2.0, 1.5, -1.0, 0.1]])
    >>> predicted_fdr, measured_fdr = np.array([[0.01, 0.01, 0.5, 0.9]]), np.array([[0.01, 0.5, 0.01, 0.9]])
    >>> rg.metrics.precision_at_N(predicted, measured, predicted_fdr, measured_fdr)
    0.5
    """
    tables = _check_tables(predicted_change, measured_change, predicted_fdr, measured_fdr)
    found, true = _differential(tables[0], tables[2], threshold), _differential(tables[1], tables[3], threshold)
    return average(_shared(found, true, [len(genes) for genes in found], k), per_row)


@docs.dedent
def de_direction_match(
    predicted_change: ArrayLike,
    measured_change: ArrayLike,
    measured_fdr: ArrayLike,
    *,
    threshold: float = 0.05,
    per_row: bool = False,
) -> float | np.ndarray:
    """Part of the measured differential genes whose predicted change has the same sign (cell-eval).

    Parameters
    ----------
    predicted_change, measured_change
        Change of every gene, shape (n_perturbations, n_genes).
    measured_fdr
        False discovery rates of the measured changes, of the same shape.
    threshold
        False discovery rate below which a gene is differential.
    %(per_row)s

    Returns
    -------
    float or numpy.ndarray
        Mean over the perturbations with measured differential genes, from 0 to 1; NaN if there is none. With
        ``per_row`` NaN where there is none. A predicted change of 0 matches no other.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is NaN.

    Examples
    --------
    >>> predicted, measured = np.array([[3.0, 2.0, 1.0]]), np.array([[2.0, -1.5, -1.0]])
    >>> fdr = np.array([[0.01, 0.01, 0.9]])
    >>> rg.metrics.de_direction_match(predicted, measured, fdr)  # one of the two that are differential
    0.5
    """
    predicted, measured, fdr = _check_tables(predicted_change, measured_change, measured_fdr)
    differential = fdr < threshold
    matches = (differential & (np.sign(predicted) == np.sign(measured))).sum(axis=1)
    number = differential.sum(axis=1)
    return average(np.divide(matches, number, out=np.full(len(number), np.nan), where=number > 0), per_row)


def _differential(change: Floats, fdr: Floats, threshold: float) -> list[Genes]:
    """Indices of the differential genes of each perturbation, largest absolute change first."""
    order = strongest_first(change)
    return [genes[row[genes] < threshold] for genes, row in zip(order, fdr, strict=True)]


def _shared(found: list[Genes], true: list[Genes], sizes: list[int], k: int | None) -> Floats:
    """Part of the first N genes that two lists share, N being each size up to k."""
    if k is not None:
        check_integer("k", k, 1, hint=" genes, or None for all of them")
        sizes = [min(k, size) for size in sizes]
    return np.array(
        [
            np.intersect1d(a[:n], b[:n], assume_unique=True).size / n if n else 0.0
            for a, b, n in zip(found, true, sizes, strict=True)
        ]
    )


def _check_tables(*tables: ArrayLike) -> list[Floats]:
    arrays = [np.asarray(table, dtype=np.float64) for table in tables]
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 2:
        raise ValueError(
            f"Changes and false discovery rates have shapes {', '.join(str(array.shape) for array in arrays)}: "
            "give (perturbations, genes) for all."
        )
    if any(np.isnan(array).any() for array in arrays):
        raise ValueError("A change or a false discovery rate is NaN: give an undefined gene the change 0 and FDR 1.")
    return arrays
