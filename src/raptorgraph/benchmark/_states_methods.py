"""Effects in each state from cells and their labels of states alone, without a model of the screen.

Each function takes :class:`Labeled` cells and gives effects, perturbations x states x genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.linear_model import RidgeCV

N_COMPONENTS = 2  # three states differ in two; more components follow the perturbation itself, and do worse
ALPHAS = np.logspace(-1, 5, 13)  # ridge penalties; the largest leaves nothing of a dependence


@dataclass(frozen=True)
class Labeled:
    """Cells with their perturbation and state.

    Attributes
    ----------
    expression
        Cells x genes on the expression scale.
    perturbation
        Code of the perturbation of each cell, 0 for the control, 1 to P.
    state
        Code of its state, 0 to S - 1.
    """

    expression: np.ndarray
    perturbation: np.ndarray
    state: np.ndarray

    @cached_property
    def n_cells(self) -> np.ndarray:
        """Number of cells of the control and each perturbation in each state, shape (P + 1, S)."""
        counts = np.zeros((self.perturbation.max() + 1, self.state.max() + 1))
        np.add.at(counts, (self.perturbation, self.state), 1)
        return counts

    @cached_property
    def sums(self) -> np.ndarray:
        """Sum of the expression of the control and each perturbation in each state, (P + 1) x S x genes."""
        sums = np.zeros((*self.n_cells.shape, self.expression.shape[1]))
        np.add.at(sums, (self.perturbation, self.state), self.expression)
        return sums


def average_effect(cells: Labeled) -> np.ndarray:
    """Difference of means of all cells, the same in every state."""
    mean = cells.sums.sum(axis=1) / cells.n_cells.sum(axis=1)[:, None]
    return np.repeat((mean[1:] - mean[0])[:, None], cells.n_cells.shape[1], axis=1)


def differences_by_state(cells: Labeled) -> np.ndarray:
    """Difference of means of the cells of each state; the average effect where a perturbation has none there."""
    mean = cells.sums / np.maximum(cells.n_cells, 1)[:, :, None]
    return np.where(_measured(cells), mean[1:] - mean[0], average_effect(cells))


def shrunken_by_state(cells: Labeled) -> np.ndarray:
    r"""Differences of means by state :math:`d_{ps}`, shrunken to the average effect :math:`m_p` by empirical Bayes.

    :math:`m_p + \tau_p^2 / (\tau_p^2 + v_{ps}) \, (d_{ps} - m_p)` for each gene. The sampling variance :math:`v` comes
    from the variance of a gene within states and conditions, pooled over them, and :math:`\tau_p^2`, the variance of
    the effect between states, from the moments of :math:`d_{ps}` over all genes, where it is not negative.
    """
    n, found = cells.n_cells, differences_by_state(cells)
    mean = cells.sums / np.maximum(n, 1)[:, :, None]
    residual = cells.expression - mean[cells.perturbation, cells.state]
    pooled = np.square(residual).sum(axis=0) / max(len(residual) - np.count_nonzero(n), 1)
    with np.errstate(divide="ignore"):
        noise = (1 / n[1:] + 1 / n[0])[:, :, None] * pooled
    average, shrunken = average_effect(cells), found.copy()
    for p, measured in enumerate(_measured(cells)[:, :, 0]):
        d, v = found[p, measured], noise[p, measured]
        if len(d) > 1:
            tau = max((d.var(axis=0, ddof=1) - v.mean(axis=0)).mean(), 0.0)
            weight = np.divide(tau, tau + v, out=np.zeros_like(v), where=tau + v > 0)
            shrunken[p, measured] = average[p, measured] + weight * (d - average[p, measured])
    return shrunken


def regression_by_state(cells: Labeled) -> np.ndarray:
    """Effects of a regression of the expression on perturbation, state, and their products.

    The state of a cell is taken to be its scores in the two leading principal components of the control cells, less
    their mean in its condition, since a perturbation moves them too. The products of each perturbation with the scores
    have a ridge penalty, chosen for each by leaving out one cell at a time. The effect in a state is that at the mean
    scores of its control cells.
    """
    control = cells.perturbation == 0
    reference = cells.expression[control]
    center = reference.mean(axis=0)
    _, _, axes = np.linalg.svd(reference - center, full_matrices=False)
    axes = axes[:N_COMPONENTS]
    scores = (cells.expression - center) @ axes.T

    by_state = [scores[control & (cells.state == s)].mean(axis=0) for s in range(cells.n_cells.shape[1])]
    slope_of_control = np.linalg.lstsq(scores[control], reference - center, rcond=None)[0]
    found = average_effect(cells)
    for p in range(len(found)):
        hit = cells.perturbation == p + 1
        centered = scores[hit] - scores[hit].mean(axis=0)
        ridge = RidgeCV(alphas=ALPHAS).fit(centered, cells.expression[hit] - centered @ slope_of_control)
        found[p] += np.array(by_state) @ ridge.coef_.T
    return found


def _measured(cells: Labeled) -> np.ndarray:
    """Whether a perturbation and the control have cells in a state, P x S x 1."""
    has = cells.n_cells > 0
    return np.asarray((has[1:] & has[0])[:, :, None])
