"""Means, variances and effects of every condition, with their sampling variance, from sums over cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raptorgraph.screen._matrix import as_matrix
from raptorgraph.screen._sums import Sums, add_up

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLOOR = 1e-2  # smallest variance, as a part of the typical control variance
_NO_LOADING = 0.05  # part of the sampling variance of each condition's own cells that left out columns may have


@dataclass(frozen=True)
class ConditionMoments:
    """Number of cells `n` (C,), `mean` (C, G) and unbiased `var` (C, G) of every condition; 0 where undefined."""

    n: np.ndarray
    mean: np.ndarray
    var: np.ndarray


@dataclass(frozen=True)
class EffectMoments:
    """`effect` (C, G) against control, its sampling `variance` (C, G), and the number of cells `n` (C,)."""

    effect: np.ndarray
    variance: np.ndarray
    n: np.ndarray


@dataclass(frozen=True)
class LogRatioMoments:
    """`log_ratio` (C, G) to control, its sampling `variance` (C, G), and the number of cells `n` (C,).

    `variance` is without what comes from control cells that conditions share: an error of `shared_variance` (G,) that
    all have in common, and errors of the same variance by which the controls of batches depart from all controls, times
    `control_loadings` (C, errors).
    """

    log_ratio: np.ndarray
    variance: np.ndarray
    shared_variance: np.ndarray
    control_loadings: np.ndarray
    n: np.ndarray

    @property
    def whole_variance(self) -> np.ndarray:
        """Sampling variance with that of the control cells, (C, G)."""
        in_common = 1 + (self.control_loadings**2).sum(axis=1, keepdims=True)
        return np.asarray(self.variance + in_common * self.shared_variance)


# -- from sums ---------------------------------------------------------------------------------------------------------
def moments_of(sums: Sums) -> ConditionMoments:
    """Mean and unbiased variance of each gene in each condition, whatever the batch."""
    shape = (sums.n_conditions, sums.n_genes)
    n, total, squares = np.zeros(sums.n_conditions, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    for to, added in ((n, sums.n), (total, sums.total), (squares, sums.squares)):
        np.add.at(to, sums.condition, added)
    return ConditionMoments(n, *_mean_and_variance(n, total, squares))


def effects_of(sums: Sums, shrinkage: float = 10.0) -> EffectMoments:
    r"""Mean difference of each condition to control, and the sampling variance of that difference.

    With :math:`w_{cb} = n_{cb} / n_c` the part of the cells of condition c that lie in batch b,

    .. math::
        e_c = \sum_b w_{cb} (\bar x_{cb} - \bar x_{0b}), \qquad
        \operatorname{Var} e_c = \frac{s_c^2}{n_c} + s_0^2 \sum_b \frac{w_{cb}^2}{n_{0b}},

    and one batch gives the plain difference of means. The cells of a batch without control cells are compared with
    all control cells, each counted once. Variances :math:`s^2` are pooled within batches; that of a condition is
    shrunk to that of the control, :math:`s_c^2 = (f_c v_c + k s_0^2) / (f_c + k)` with :math:`f_c` degrees of freedom
    (:math:`n_c - 1` in one batch) and :math:`k` the shrinkage, since few cells tell little about a variance.

    Parameters
    ----------
    sums
        Sums over the cells, condition 0 being the control.
    shrinkage
        Number of cells that the control variance counts for.

    Returns
    -------
    Effects and variances, float64. A condition without cells has effect 0 and variance infinity; the control has
    effect 0 and the variance that a second sample of its size has. No variance is below 1e-2 of the typical (median
    positive) control variance divided by the number of cells.

    Raises
    ------
    ValueError
        If there are fewer than two control cells.
    """
    if not shrinkage >= 0:
        raise ValueError(f"shrinkage must be a non-negative number of cells, got {shrinkage!r}.")
    found = _compare(sums)
    n = np.maximum(found.n, 1)[:, None]
    variance = found.shrunk_variance(found.control_var, shrinkage) / n
    variance += found.reference_share[:, None] * found.control_var
    positive = found.control_var[found.control_var > 0]
    floor = _FLOOR * (np.median(positive) if positive.size else 1.0)
    variance = np.maximum(variance, floor / n)
    effect = found.mean - found.reference
    effect[0] = 0.0  # exactly, whatever the rounding
    effect[found.n == 0], variance[found.n == 0] = 0.0, np.inf
    return EffectMoments(effect=effect, variance=variance, n=found.n)


def control_loadings_of(sums: Sums) -> np.ndarray:
    r"""Errors of the controls that conditions are compared with, beyond the error of all controls together.

    With :math:`n_{0b}` of the :math:`n_0` control cells in batch b, whose weight in the reference of condition c is
    :math:`w_{cb}`, two effects share the sampling variance of a control cell times

    .. math::
        \sum_b \frac{w_{cb} w_{db}}{n_{0b}} = \frac{1}{n_0} + (L L^\top)_{cd}, \qquad
        L_{cb} = \frac{w_{cb}}{\sqrt{n_{0b}}} - \frac{\sqrt{n_{0b}}}{n_0},

    the variance of the mean of all controls, which all effects share, and that of what the controls of batches depart
    from it by, which those share that lie in the same batches.

    Parameters
    ----------
    sums
        As in :func:`effects_of`.

    Returns
    -------
    L up to a rotation of its columns, of which there are fewer than batches with control cells, and none for one batch;
    C x columns, 0 for a condition without cells. Columns are left out that hold at most a twentieth of the variance
    :math:`1 / n_c` of any condition together.
    """
    return _loadings(_compare(sums))


def log_ratios_of(sums: Sums, shrinkage: float = 50.0) -> LogRatioMoments:
    r"""Log ratio of each condition's mean rate to that of control, and its sampling variance.

    Rates are ``1e4 * count / library size``, of which effects multiply: where latents act on log rates, log ratios add
    up along a graph, as differences of mean logarithms do not. With means :math:`\bar r` over cells, in a condition
    and in the control cells of its batches,

    .. math::
        y_c = \log \frac{\bar r_c + k_c}{\bar r_0 + k_c}, \qquad
        \operatorname{Var} y_c = \frac{s_c^2}{n_c (\bar r_c + k_c)^2} + \frac{s_0^2}{n_0 (\bar r_0 + k_c)^2},

    the second term being common to conditions of the same batches. :math:`k_c = s_0^2 / (2 \bar r_0 n_c)` is half a
    count among all cells of the condition (variance over mean is the rate of one count, where counts are few), so that
    a gene that is not seen has a finite ratio. Variances are shrunk to that of the control, times the ratio of the
    means.

    Parameters
    ----------
    sums
        Sums over the cells, those of rates among them; condition 0 is the control.
    shrinkage
        Number of cells that the control's variance counts for.

    Returns
    -------
    Log ratios and variances, float64. A condition without cells has log ratio 0 and variance infinity, and so has a
    gene that no control cell shows. The error of the controls of a batch, beyond that of all controls, has the loadings
    of :func:`control_loadings_of` times :math:`\sqrt{n_0}`; what the columns that are left out there hold is in the
    variance of each condition.

    Raises
    ------
    ValueError
        If there are fewer than two control cells.
    """
    found = _compare(sums, rates=True)
    n = np.maximum(found.n, 1)[:, None]
    control_mean = found.reference[0]
    seen = (control_mean > 0) & (found.control_var > 0)
    one_count = np.divide(found.control_var, control_mean, out=np.ones_like(control_mean), where=seen)
    offset = 0.5 * one_count / n
    mean, reference = found.mean + offset, found.reference + offset
    variance = found.shrunk_variance(found.control_var * (mean / reference), shrinkage) / (n * mean**2)
    loadings = _loadings(found) * np.sqrt(found.n[0])  # in units of the error of all controls
    by_control, by_all = (
        part * found.control_var / reference**2 for part in (found.reference_share[:, None], 1 / found.n[0])
    )
    present = found.n[1:] > 0
    shared = by_all[1:][present].min(axis=0) if present.any() else by_all[0]
    in_common = 1 + (loadings**2).sum(axis=1, keepdims=True)
    variance += np.maximum(by_control - in_common * shared, 0.0)
    log_ratio = np.log(mean / reference)
    log_ratio[0] = 0.0
    nothing = (found.n == 0)[:, None] | ~seen
    return LogRatioMoments(
        log_ratio=np.where(nothing, 0.0, log_ratio),
        variance=np.where(nothing, np.inf, variance),
        shared_variance=np.where(seen, shared, 0.0),
        control_loadings=loadings,
        n=found.n,
    )


def _mean_and_variance(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = total / np.maximum(n, 1)[:, None]
    variance = np.maximum(squares - total * mean, 0.0) / np.maximum(n - 1, 1)[:, None]
    variance[n < 2] = 0.0  # what is left of a difference of equals
    return mean, variance


@dataclass(frozen=True)
class _Comparison:
    """Means (C, G), the control means that they are compared with (C, G), variances, and numbers of cells.

    `within` (C, G) are sums of squares about the means of condition and batch, `freedom` (C,) their degrees of freedom;
    `control_var` (G,) is the control's variance; times `reference_share` (C,) it is the variance of the reference, in
    which batches with `n_controls` (B,) control cells have the `weight` (C, B).
    """

    n: np.ndarray
    mean: np.ndarray
    reference: np.ndarray
    within: np.ndarray
    freedom: np.ndarray
    control_var: np.ndarray
    reference_share: np.ndarray
    weight: np.ndarray
    n_controls: np.ndarray

    def shrunk_variance(self, prior: np.ndarray, shrinkage: float) -> np.ndarray:
        """Variances of the conditions (C, G), with a prior that counts for `shrinkage` cells."""
        dof = (self.freedom + shrinkage)[:, None]
        found = (self.within + shrinkage * prior) / np.where(dof > 0, dof, 1)
        return np.where(dof > 0, found, prior)


def _compare(sums: Sums, *, rates: bool = False) -> _Comparison:
    """Means of conditions, and of the controls of the same batches."""
    totals, squares = (sums.rate_total, sums.rate_squares) if rates else (sums.total, sums.squares)
    if totals is None or squares is None:
        raise ValueError("Log ratios need the sums of rates: add_up(..., rates=True).")
    batches = np.unique(sums.batch)
    shape = (sums.n_conditions, sums.n_genes)
    total, within, freedom = np.zeros(shape), np.zeros(shape), np.zeros(sums.n_conditions)
    counts = np.zeros((sums.n_conditions, len(batches)))
    control_mean = np.zeros((len(batches), sums.n_genes))
    for b, batch in enumerate(batches):
        groups = np.flatnonzero(sums.batch == batch)
        present, local = np.unique(sums.condition[groups], return_inverse=True)
        n = np.bincount(local, sums.n[groups]).astype(np.int64)
        here, here_squares = np.zeros((2, len(present), sums.n_genes))
        np.add.at(here, local, totals[groups])
        np.add.at(here_squares, local, squares[groups])
        mean, variance = _mean_and_variance(n, here, here_squares)
        counts[present, b] = n
        total[present] += n[:, None] * mean
        within[present] += (n - 1)[:, None] * variance
        freedom[present] += n - 1
        if present[0] == 0:
            control_mean[b] = mean[0]
    n = counts.sum(axis=1).astype(np.int64)
    if n[0] < 2:
        raise ValueError(f"Effects are differences to control cells, of which there must be at least 2; found {n[0]}.")
    share = counts / np.maximum(n, 1)[:, None]
    has_control = counts[0] > 0
    # Weight of each batch's controls in the reference of a condition: its own share, and for the cells of batches
    # without controls that of all controls.
    weight = share * has_control + share[:, ~has_control].sum(axis=1, keepdims=True) * counts[0] / n[0]
    return _Comparison(
        n=n,
        mean=total / np.maximum(n, 1)[:, None],
        reference=weight @ control_mean,
        within=within,
        freedom=freedom,
        control_var=within[0] / max(freedom[0], 1),
        reference_share=(weight[:, has_control] ** 2 / counts[0, has_control]).sum(axis=1),
        weight=weight[:, has_control],
        n_controls=counts[0, has_control],
    )


def _loadings(found: _Comparison) -> np.ndarray:
    """L of :func:`control_loadings_of`."""
    n_all = found.n_controls.sum()
    loadings = found.weight / np.sqrt(found.n_controls) - np.sqrt(found.n_controls) / n_all
    loadings[found.n == 0] = 0.0
    left, size, _ = np.linalg.svd(loadings, full_matrices=False)
    columns = left * size
    # Of hundreds of batches with a few cells of each perturbation next to nothing is shared.
    left_out = np.cumsum(columns[:, ::-1] ** 2, axis=1)[:, ::-1]
    kept = (found.n[:, None] * left_out > _NO_LOADING).any(axis=0)
    return np.asarray(columns[:, kept])


# -- from matrices -----------------------------------------------------------------------------------------------------
def condition_moments(X: Any, codes: Sequence[int] | np.ndarray, n_conditions: int, **cells: Any) -> ConditionMoments:
    """:func:`moments_of` the sums of a matrix; arguments as for :func:`~raptorgraph.screen._sums.add_up`."""
    return moments_of(add_up(as_matrix(X), codes, n_conditions, **cells))


def effect_moments(
    X: Any, codes: Sequence[int] | np.ndarray, n_conditions: int, *, shrinkage: float = 10.0, **cells: Any
) -> EffectMoments:
    """:func:`effects_of` the sums of a matrix; arguments as for :func:`~raptorgraph.screen._sums.add_up`."""
    return effects_of(add_up(as_matrix(X), codes, n_conditions, **cells), shrinkage)


def log_ratio_moments(
    X: Any, codes: Sequence[int] | np.ndarray, n_conditions: int, *, shrinkage: float = 50.0, **cells: Any
) -> LogRatioMoments:
    """:func:`log_ratios_of` the sums of a matrix; arguments as for :func:`~raptorgraph.screen._sums.add_up`."""
    return log_ratios_of(add_up(as_matrix(X), codes, n_conditions, rates=True, **cells), shrinkage)
