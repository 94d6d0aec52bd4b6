"""Means, variances and effects of every condition, with their sampling variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph._progress import progress_line
from raptorgraph.screen._expression import check_library, to_expression
from raptorgraph.screen._inputs import batch_codes, expression_source
from raptorgraph.screen._labels import format_perturbation, parse_obs
from raptorgraph.screen._matrix import as_matrix
from raptorgraph.screen._names import gene_names
from raptorgraph.screen._setup_hints import batch_hints, cut_names, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

_FLOOR = 1e-2  # smallest variance, as a part of the typical control variance


@dataclass
class ConditionMoments:
    """Number of cells `n` (C,), `mean` (C, G) and unbiased `var` (C, G) of every condition; 0 where undefined."""

    n: np.ndarray
    mean: np.ndarray
    var: np.ndarray


@dataclass
class EffectMoments:
    """`effect` (C, G) against control, its sampling `variance` (C, G), and the number of cells `n` (C,)."""

    effect: np.ndarray
    variance: np.ndarray
    n: np.ndarray


@dataclass
class LogRatioMoments:
    """`log_ratio` (C, G) to control, its sampling `variance` (C, G) without what all share, `shared_variance` (G,).

    The latter is that of the control cells; `n` (C,) is the number of cells.
    """

    log_ratio: np.ndarray
    variance: np.ndarray
    shared_variance: np.ndarray
    n: np.ndarray


@dataclass
class _Comparison:
    """Means (C, G), the control means that they are compared with (C, G), variances, and numbers of cells.

    `within` (C, G) are sums of squares about the means of condition and batch, `freedom` (C,) their degrees of freedom;
    `control_var` (G,) is the control's variance and `reference_share` (C,) what turns it into that of the reference.
    """

    n: np.ndarray
    mean: np.ndarray
    reference: np.ndarray
    within: np.ndarray
    freedom: np.ndarray
    control_var: np.ndarray
    reference_share: np.ndarray

    def shrunk_variance(self, prior: np.ndarray, shrinkage: float) -> np.ndarray:
        """Variances of the conditions (C, G), with a prior that counts for `shrinkage` cells."""
        dof = (self.freedom + shrinkage)[:, None]
        found = (self.within + shrinkage * prior) / np.where(dof > 0, dof, 1)
        return np.where(dof > 0, found, prior)


def condition_moments(
    X, codes, n_conditions: int, *, library=None, rows=None, chunk_size: int = 4096, rates: bool = False
) -> ConditionMoments:
    """Mean and variance of each gene in each condition, on the expression scale.

    Parameters
    ----------
    X
        Cells x genes, sparse or dense: counts if `library` is given, else values on the expression scale.
    codes
        Shape (n_cells,), int: condition of each cell, from 0 to ``n_conditions - 1``.
    n_conditions
        Number of conditions, C.
    library
        Shape (n_cells,): total counts of each cell.
    rows
        Indices of the cells to use; default all.
    chunk_size
        Number of cells brought to the expression scale at a time.
    rates
        Take ``1e4 * count / library size`` itself and not its logarithm.

    Returns
    -------
    Cells, means and unbiased variances, float64; the mean of a condition without cells and the variance of one with
    fewer than two are 0.

    Raises
    ------
    ValueError
        If the codes do not fit the cells or the number of conditions.
    """
    X = as_matrix(X)
    codes, rows = _check_codes(codes, rows, X.shape[0], n_conditions)
    library = _check_library(library, rows, X.shape[0])
    return _moments(X, codes, n_conditions, library, rows, rates=rates, chunk_size=chunk_size)


def _moments(X, codes, n_conditions: int, library, rows, *, rates: bool, chunk_size: int = 4096) -> ConditionMoments:
    """Moments of a matrix in canonical form, of codes and rows that were checked."""
    total, squares = np.zeros((2, n_conditions, X.shape[1]))
    for start in range(0, len(rows), chunk_size):
        part = rows[start : start + chunk_size]
        values = to_expression(X[part], None if library is None else library[part]).astype(np.float64)
        values = (values.expm1() if sparse.issparse(values) else np.expm1(values)) if rates else values
        members = sparse.csr_matrix(
            (np.ones(len(part)), (codes[part], np.arange(len(part)))), (n_conditions, len(part))
        )
        total += _dense(members @ values)
        squares += _dense(members @ (values.multiply(values) if sparse.issparse(values) else values**2))
    n = np.bincount(codes[rows], minlength=n_conditions)
    mean = total / np.maximum(n, 1)[:, None]
    var = np.maximum(squares - total * mean, 0.0) / np.maximum(n - 1, 1)[:, None]
    var[n < 2] = 0.0  # what is left of a difference of equals
    return ConditionMoments(n=n, mean=mean, var=var)


def effect_moments(
    X, codes, n_conditions: int, *, library=None, batch=None, rows=None, shrinkage: float = 10.0
) -> EffectMoments:
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
    X
        Cells x genes, sparse or dense: counts if `library` is given, else values on the expression scale.
    codes
        Shape (n_cells,), int: condition of each cell; 0 is the control.
    n_conditions
        Number of conditions, C.
    library
        Shape (n_cells,): total counts of each cell.
    batch
        Shape (n_cells,), int: batch of each cell, from 0; default one batch.
    rows
        Indices of the cells to use; default all.
    shrinkage
        Number of cells that the control variance counts for.

    Returns
    -------
    Effects and variances, float64. A condition without cells has effect 0 and variance infinity; the control's effect
    is that against itself, with the variance of a second sample of the same size. No variance is below 1e-2 of the
    typical (median positive) control variance divided by the number of cells.

    Raises
    ------
    ValueError
        If there are fewer than two control cells, or codes or batches do not fit the cells.
    """
    if not shrinkage >= 0:
        raise ValueError(f"shrinkage must be a non-negative number of cells, got {shrinkage!r}.")
    found = _compare(X, codes, n_conditions, library, batch, rows)
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


def log_ratio_moments(
    X, codes, n_conditions: int, *, library=None, batch=None, rows=None, shrinkage: float = 50.0
) -> LogRatioMoments:
    r"""Log ratio of each condition's mean rate to that of control, and its sampling variance.

    Rates are ``1e4 * count / library size``, of which effects multiply: where latents act on log rates, log ratios add
    up along a graph, as differences of mean logarithms do not. With means :math:`\bar r` over cells, in a condition
    and in the control cells of its batches,

    .. math::
        y_c = \log \frac{\bar r_c + k_c}{\bar r_0 + k_c}, \qquad
        \operatorname{Var} y_c = \frac{s_c^2}{n_c (\bar r_c + k_c)^2} + \frac{s_0^2}{n_0 (\bar r_0 + k_c)^2},

    the second term being common to all conditions. :math:`k_c = s_0^2 / (2 \bar r_0 n_c)` is half a count among all
    cells of the condition (variance over mean is the rate of one count, where counts are few), so that a gene that is
    not seen has a finite ratio. Variances are shrunk to that of the control times the ratio of the means.

    Parameters
    ----------
    X, codes, n_conditions, library, batch, rows
        As for :func:`effect_moments`.
    shrinkage
        Number of cells that the control's variance counts for.

    Returns
    -------
    Log ratios and variances, float64. A condition without cells has log ratio 0 and variance infinity, and so has a
    gene that no control cell shows. The variance of the control that conditions do not share (as they lie in other
    batches) is in their own.

    Raises
    ------
    ValueError
        As for :func:`effect_moments`.
    """
    found = _compare(X, codes, n_conditions, library, batch, rows, rates=True)
    n = np.maximum(found.n, 1)[:, None]
    control_mean = found.reference[0]
    seen = (control_mean > 0) & (found.control_var > 0)
    one_count = np.divide(found.control_var, control_mean, out=np.ones_like(control_mean), where=seen)
    offset = 0.5 * one_count / n
    mean, reference = found.mean + offset, found.reference + offset
    variance = found.shrunk_variance(found.control_var * (mean / reference), shrinkage) / (n * mean**2)
    by_control = found.reference_share[:, None] * found.control_var / reference**2
    present = found.n[1:] > 0
    shared = by_control[1:][present].min(axis=0) if present.any() else by_control[0]
    variance += np.maximum(by_control - shared, 0.0)
    log_ratio = np.log(mean / reference)
    log_ratio[0] = 0.0
    nothing = (found.n == 0)[:, None] | ~seen
    return LogRatioMoments(
        log_ratio=np.where(nothing, 0.0, log_ratio),
        variance=np.where(nothing, np.inf, variance),
        shared_variance=np.where(seen, shared, 0.0),
        n=found.n,
    )


def _compare(X, codes, n_conditions: int, library, batch, rows, *, rates: bool = False) -> _Comparison:
    """Means of conditions, and of the controls of the same batches."""
    X = as_matrix(X)
    codes, rows = _check_codes(codes, rows, X.shape[0], n_conditions)
    library = _check_library(library, rows, X.shape[0])
    n = np.bincount(codes[rows], minlength=n_conditions)
    if n[0] < 2:
        raise ValueError(f"Effects are differences to control cells, of which there must be at least 2; found {n[0]}.")
    batch = np.zeros(X.shape[0], dtype=np.int64) if batch is None else np.asarray(batch)
    if batch.shape != (X.shape[0],):
        raise ValueError(f"There must be one batch for each of the {X.shape[0]} cells, got shape {batch.shape}.")

    shape, batches = (n_conditions, X.shape[1]), np.unique(batch[rows])
    total, within, freedom = np.zeros(shape), np.zeros(shape), np.zeros(n_conditions)
    counts, control_mean = np.zeros((n_conditions, len(batches))), np.zeros((len(batches), X.shape[1]))
    for b, value in enumerate(batches):
        members = rows[batch[rows] == value]
        present = np.unique(codes[members])
        local = np.searchsorted(present, codes)  # compact codes, so that the work is that of the conditions present
        moments = _moments(X, local, len(present), library, members, rates=rates)
        counts[present, b] = moments.n
        total[present] += moments.n[:, None] * moments.mean
        within[present] += (moments.n - 1)[:, None] * moments.var
        freedom[present] += moments.n - 1
        if present[0] == 0:
            control_mean[b] = moments.mean[0]

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
    )


@progress_line("Measuring effects")
def measured_effects(
    adata: AnnData,
    perturbation_key: str = "perturbation",
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    layer: str | None = None,
    library_size_key: str | None = None,
    batch_key: str | None = None,
) -> pd.DataFrame:
    """Measured effect of every perturbation: mean over its cells minus mean over the control cells.

    Values are on the expression scale, ``log1p(1e4 * count / library size)`` where the data are counts (integers), and
    the data's own scale where they are log-normalized.

    Parameters
    ----------
    adata
        Cells x genes, with a perturbation label for each cell.
    perturbation_key
        Column of ``adata.obs`` with the labels.
    control
        Label, or several labels, of the control.
    delimiter
        What separates the genes of a combination.
    layer
        Layer with counts or log-normalized values; default ``adata.X``.
    library_size_key
        Column of ``adata.obs`` with each cell's total counts, where the matrix is a part of the genes; default row
        sums. Not used for log-normalized values.
    batch_key
        Column of ``adata.obs`` with batches: cells are then compared with the control cells of their batch (with all
        control cells where a batch has none), and the differences averaged over the cells.

    Returns
    -------
    Perturbations (canonical labels, control left out) x genes, float64.

    Raises
    ------
    KeyError
        If a column or the layer is not there.
    ValueError
        If labels are missing, there are fewer than two control cells, the values are neither counts nor logarithms,
        or library sizes are not positive or below the row sums in more than half of the cells.

    Warns
    -----
    UserWarning
        If batches have no control cells or are the perturbation, and if `delimiter` cuts the name of a gene.

    Examples
    --------
    >>> effects = rg.pp.measured_effects(adata, library_size_key="total_counts")
    >>> effects.shape
    (10, 100)
    >>> list(effects.index[:3])
    ['P01', 'P01+P03', 'P02']
    """
    parsed = parse_obs(adata, perturbation_key, control=control, delimiter=delimiter, require_control=True)
    batch_codes(adata, batch_key)
    warn(cut_names(adata, perturbation_key, control, delimiter) + batch_hints(adata, parsed, delimiter, batch_key))
    return effects_by_label(
        adata,
        perturbation_key,
        control=control,
        delimiter=delimiter,
        layer=layer,
        library_size_key=library_size_key,
        batch_key=batch_key,
    )


def effects_by_label(
    adata: AnnData, perturbation_key: str, *, control, delimiter, layer=None, library_size_key=None, batch_key=None
) -> pd.DataFrame:
    """:func:`measured_effects` without warnings."""
    parsed = parse_obs(adata, perturbation_key, control=control, delimiter=delimiter, require_control=True)
    batch, genes = batch_codes(adata, batch_key), gene_names(adata)
    X, library = expression_source(adata, layer, library_size_key)
    moments = effect_moments(X, parsed.codes, len(parsed.conditions), library=library, batch=batch)
    names = [format_perturbation(genes, control=control, delimiter=delimiter) for genes in parsed.conditions[1:]]
    return pd.DataFrame(moments.effect[1:], index=pd.Index(names, name="perturbation"), columns=genes)


def _check_codes(codes, rows, n_cells: int, n_codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of all cells and indices of the used cells as int64, checked against each other."""
    codes = np.asarray(codes, dtype=np.int64)
    if codes.shape != (n_cells,):
        raise ValueError(f"There must be one code for each of the {n_cells} cells, got shape {codes.shape}.")
    rows = np.arange(n_cells) if rows is None else np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    if rows.size == 0:
        raise ValueError("There are no cells to average: `rows` is empty.")
    used = codes[rows]
    if used.min() < 0 or used.max() >= n_codes:
        raise ValueError(f"Codes must be from 0 to {n_codes - 1}, found {used.min()} to {used.max()}.")
    return codes, rows


def _check_library(library, rows: np.ndarray, n_cells: int) -> np.ndarray | None:
    if library is None:
        return None
    library = np.asarray(library, dtype=np.float64)
    if library.shape != (n_cells,):
        raise ValueError(f"There must be one library size for each of the {n_cells} cells, got shape {library.shape}.")
    check_library(library[rows], names=rows)
    return library


def _dense(product) -> np.ndarray:
    return product.toarray() if sparse.issparse(product) else product
