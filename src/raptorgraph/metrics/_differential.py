"""Differential expression of perturbations against control."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control, ttest_ind_from_stats

from raptorgraph._arguments import check_integer
from raptorgraph.metrics._rank_sum import rank_sum
from raptorgraph.metrics._samples import as_samples, dense

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_CHUNK = 2**22  # values ranked at a time


class Differential(NamedTuple):
    """Test `statistic`, two-sided `p_value` and Benjamini-Hochberg `fdr` over the genes, arrays of one shape.

    Examples
    --------
    >>> cells = np.arange(6.0)[:, None]
    >>> rg.metrics.wilcoxon(cells + 10, cells)._fields
    ('statistic', 'p_value', 'fdr')
    """

    statistic: np.ndarray
    p_value: np.ndarray
    fdr: np.ndarray


def welch_t(
    mean: ArrayLike, var: ArrayLike, n: ArrayLike, control_mean: ArrayLike, control_var: ArrayLike, control_n: int
) -> Differential:
    r"""Welch's t-test of every gene of every perturbation against control (scanpy's ``"t-test"``).

    .. math::
        t_{pg} = \frac{\bar x_{pg} - \bar x_{0g}}{\sqrt{s_{pg}^2 / n_p + s_{0g}^2 / n_0}}

    Parameters
    ----------
    mean, var
        Means and unbiased variances over the cells of each perturbation, shape (n_perturbations, n_genes), or
        (n_genes,) for one perturbation.
    n
        Number of cells of each perturbation, shape (n_perturbations,), or a number.
    control_mean, control_var
        Mean and variance over the control cells, shape (n_genes,).
    control_n
        Number of control cells.

    Returns
    -------
    Differential
        ``statistic`` is t, positive where the perturbation raises the gene. A gene without any variance has t = 0 and
        p = 1 where the means agree, and an infinite t with p = 0 where they do not.

    Raises
    ------
    ValueError
        If a perturbation or the control has fewer than two cells, a number is not finite, or the shapes do not fit.

    Examples
    --------
    >>> perturbed = np.array([[1.0, 3.0], [2.0, 3.0], [3.0, 3.5]])
    >>> control = np.array([[5.0, 3.0], [6.0, 3.5], [7.0, 3.0]])
    >>> test = rg.metrics.welch_t(
    ...     perturbed.mean(0), perturbed.var(0, ddof=1), 3, control.mean(0), control.var(0, ddof=1), 3
    ... )
    >>> test.statistic.round(2)
    array([-4.9,  0. ])
    >>> test.p_value.round(3)
    array([0.008, 1.   ])
    """
    mean, var, n = (np.asarray(values, dtype=np.float64) for values in (mean, var, n))
    control_mean, control_var = (np.asarray(values, dtype=np.float64) for values in (control_mean, control_var))
    if mean.ndim not in (1, 2) or {var.shape, n.shape + mean.shape[-1:]} != {mean.shape}:
        raise ValueError(
            f"Means, variances and numbers of cells have shapes {mean.shape}, {var.shape} and {n.shape}: "
            "give (perturbations, genes) twice and (perturbations,)."
        )
    if control_mean.shape != mean.shape[-1:] or control_var.shape != mean.shape[-1:]:
        raise ValueError(
            f"Mean and variance of the control have shapes {control_mean.shape} and {control_var.shape}: "
            f"give one of each for the {mean.shape[-1]} genes."
        )
    for name, values in {"mean": mean, "var": var, "control_mean": control_mean, "control_var": control_var}.items():
        if not np.isfinite(values).all():
            gene = np.argwhere(~np.isfinite(values))[0, -1]
            raise ValueError(f"{name} of gene {gene} is not a finite number: leave out genes that are not measured.")
    if n.min() < 2 or control_n < 2:
        raise ValueError(
            f"A variance needs two cells; the smallest perturbation has {n.min():g}, the control {control_n:g}."
        )
    with np.errstate(divide="ignore", invalid="ignore"):  # genes without variance
        t, p = ttest_ind_from_stats(
            mean, np.sqrt(var), n[..., None], control_mean, np.sqrt(control_var), control_n, equal_var=False
        )
    constant, change = (var == 0) & (control_var == 0), mean - control_mean
    t = np.where(constant, np.where(change == 0, 0.0, np.copysign(np.inf, change)), t)
    p = np.where(constant, change == 0, p)
    return Differential(t, p, false_discovery_control(p, axis=-1))


def wilcoxon(perturbed: ArrayLike, control: ArrayLike) -> Differential:
    """Wilcoxon rank-sum (Mann-Whitney) test of every gene between the cells of a perturbation and control cells.

    Normal approximation with corrections for ties and continuity, as :func:`scipy.stats.mannwhitneyu` and cell-eval.

    Parameters
    ----------
    perturbed
        Cells of one perturbation x genes, on the expression scale, array or scipy sparse matrix.
    control
        Control cells x genes.

    Returns
    -------
    Differential
        Arrays of shape (n_genes,). ``statistic`` is U of the perturbed cells, from 0 to the number of pairs of cells;
        half of that means no difference, and so does p = 1 of genes with one value in all cells.

    Raises
    ------
    ValueError
        If there are no cells, the genes differ in number, or values are not finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> control = rng.poisson(1.0, (50, 3))
    >>> perturbed = rng.poisson([1.0, 1.0, 5.0], (40, 3))  # the third gene rises
    >>> (rg.metrics.wilcoxon(perturbed, control).fdr < 0.05).tolist()
    [False, False, True]
    """
    samples = [x if isinstance(x, np.ndarray) else x.tocsc() for x in as_samples(perturbed, control)]
    n_genes = samples[0].shape[1]
    u, p = np.empty((2, n_genes))
    step = max(1, _CHUNK // sum(x.shape[0] for x in samples))
    for start in range(0, n_genes, step):
        part = slice(start, start + step)
        u[part], p[part] = rank_sum(*(dense(x[:, part]) for x in samples), method="asymptotic")
    return Differential(u, p, false_discovery_control(p))


def log2_fold_change(mean: ArrayLike, control_mean: ArrayLike) -> np.ndarray:
    r"""Logarithmic change of the geometric mean, as cell-eval computes it.

    .. math::
        \log_2 \frac{\exp(\bar x_{pg}) - 1}{\exp(\bar x_{0g}) - 1}

    Parameters
    ----------
    mean
        Mean of ``log1p`` expression of each perturbation, shape (n_perturbations, n_genes).
    control_mean
        Mean of ``log1p`` expression of the control, shape (n_genes,).

    Returns
    -------
    numpy.ndarray
        Shape (n_perturbations, n_genes): 0 where both means are 0, plus or minus infinity where one is.

    Raises
    ------
    ValueError
        If a mean is negative.

    Examples
    --------
    >>> mean, control_mean = np.log1p([[4.0, 1.0, 0.0]]), np.log1p([1.0, 2.0, 0.0])
    >>> rg.metrics.log2_fold_change(mean, control_mean).round(6)
    array([[ 2., -1.,  0.]])
    """
    mean, control_mean = np.asarray(mean, dtype=np.float64), np.asarray(control_mean, dtype=np.float64)
    lowest = min(mean.min(), control_mean.min())
    if lowest < 0:
        raise ValueError(f"Means of log1p expression are at least 0, found {lowest:g}: give means, not effects.")
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.log2(np.expm1(mean) / np.expm1(control_mean))
    return np.where(np.isnan(change), 0.0, change)


def top_genes(scores: ArrayLike, k: int) -> np.ndarray:
    """Genes with the largest absolute score of each perturbation, such as t or the effect.

    Parameters
    ----------
    scores
        Shape (n_perturbations, n_genes), or (n_genes,) for one perturbation.
    k
        Number of genes, the field's custom being 20, 50 and 100.

    Returns
    -------
    numpy.ndarray
        Indices, int64, shape (n_perturbations, k) or (k,), strongest first; of equal scores the first gene first.

    Raises
    ------
    ValueError
        If a score is NaN, or ``k`` is not from 1 to the number of genes.

    Examples
    --------
    >>> rg.metrics.top_genes([0.1, -3.0, 2.0, 0.0], k=2)
    array([1, 2])
    """
    scores = np.asarray(scores, dtype=np.float64)
    if check_integer("k", k, 1) > scores.shape[-1]:
        raise ValueError(f"k={k!r} must be a whole number from 1 to the {scores.shape[-1]} genes.")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} scores are NaN: give an undefined one the score 0.")
    return strongest_first(scores)[..., :k]


def strongest_first(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Positions along the last axis in falling order of the absolute score; of equal scores the first comes first."""
    return np.argsort(-np.abs(scores), axis=-1, kind="stable")
