r"""What further measurements would teach about sets that stay unmeasured: a design of experiments in closed form.

Given class m and level :math:`\ell`, what a set P inherits is :math:`f_P^\top \theta` with one feature for each
perturbed gene (its scale where the set holds it), one for what all combinations have in common, and one for the error
of the controls. The screen leaves :math:`\theta` with the covariance :math:`w M`. To measure P with an error of variance
:math:`w \nu` changes it to

.. math::
    M - \frac{M f_P f_P^\top M}{q_P}, \qquad q_P = f_P^\top M f_P + \ell (\gamma + \omega) + \nu ,

whatever is measured, so that batches can be planned. ``docs/concepts/inference.md`` derives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import CONDITION_SPECIFIC, N_CLASSES, _scale, is_combination

if TYPE_CHECKING:
    from raptorgraph.inference._state import Fitted

# Variance of what a gene does otherwise in combinations than alone, over that of a typical single effect.
DEVIATION = 0.3


class Plan:
    """Sets to measure, chosen one after the other, and what they leave unknown of the others.

    Parameters
    ----------
    fitted
        The posterior of the effects.
    others
        Sets x k, 0/1: those that one wants to know. A set that is measured no longer belongs to them.
    """

    def __init__(self, fitted: Fitted, others: torch.Tensor, deviation: float = DEVIATION) -> None:
        self.fitted = fitted
        self.weights = (fitted.responsibility * fitted.measured.gene_noise).sum(2)  # classes x levels
        self._unknown = _unknown(fitted, deviation)
        self._others = {tuple(row): feature for row, feature in zip(others.tolist(), self.features(others), strict=True)}
        features = torch.stack(list(self._others.values())) if self._others else self.features(others)
        self._wanted = features.T @ features

    def features(self, design: torch.Tensor) -> torch.Tensor:
        """Features f of sets, sets x (k + 2)."""
        return _features(self.fitted, design)

    def noise_of(self, relative: float) -> torch.Tensor:
        r"""Variance :math:`\nu` of the error of a measurement, from the variance of its sampling over the typical one."""
        prior, measured = self.fitted.hyperparameters, self.fitted.measured
        return (1 + prior.excess) * relative * measured.condition_noise.median()

    def variance(self) -> float:
        """Posterior variance that is left of what the other sets inherit, summed over genes and sets."""
        left = torch.einsum("mlij,ij->ml", self._unknown, self._wanted)
        return float((self.weights * left).sum())

    def removed(self, design: torch.Tensor, noise: torch.Tensor | float) -> torch.Tensor:
        """By how much a measurement of each of the sets (sets x k) would lower :meth:`variance`, shape (sets,).

        A candidate that is itself one of the other sets is left out of them.
        """
        features = self.features(design)
        among = torch.tensor([tuple(row) in self._others for row in design.tolist()], dtype=features.dtype)
        carried = self._unknown @ self._wanted @ self._unknown
        own = _quadratic(self._unknown, features)
        gain = (_quadratic(carried, features) - among * own**2) / (own + _private(self.fitted, design) + noise)
        return torch.einsum("ml,mls->s", self.weights, gain)

    def measure(self, design: torch.Tensor, noise: torch.Tensor | float) -> None:
        """Take one more set, shape (k,), as measured."""
        feature = self.features(design[None])
        carried = self._unknown @ feature[0]  # classes x levels x features
        total = carried @ feature[0] + _private(self.fitted, design[None])[..., 0] + noise
        self._unknown = self._unknown - carried[..., :, None] * carried[..., None, :] / total[..., None, None]
        if self._others.pop(tuple(design.tolist()), None) is not None:
            self._wanted = self._wanted - feature.T @ feature


def _quadratic(matrix: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Value of f' M f for each class, level and set, classes x levels x sets."""
    return ((features @ matrix) * features).sum(-1)


def _features(fitted: Fitted, design: torch.Tensor) -> torch.Tensor:
    prior = fitted.hyperparameters
    combination = is_combination(design)[:, None]
    inherits = design * _scale(prior, design)[:, None]
    return torch.cat([inherits, inherits * combination, combination, torch.ones_like(combination)], 1)


def _unknown(fitted: Fitted, deviation: float) -> torch.Tensor:
    """Posterior covariance M of the coefficients in units of noise, classes x levels x (2 k + 2) x (2 k + 2)."""
    prior, measured = fitted.hyperparameters, fitted.measured
    k, n_levels = measured.design.shape[1], len(LEVELS)
    before = torch.zeros(N_CLASSES, n_levels, 2 * k + 2, 2 * k + 2, dtype=measured.effect.dtype)
    levels = LEVELS[:, None, None]
    for m, covariance in enumerate((prior.shared_covariance, prior.independent_covariance)):
        before[m, :, :k, :k] = levels * covariance
        before[m, :, k:-2, k:-2] = levels * deviation * torch.eye(k, dtype=before.dtype)
        before[m, :, -2, -2] = LEVELS * prior.combination_variance
    before[:, :, -1, -1] = measured.control_noise
    features = _features(fitted, measured.design)
    cross = before @ features.T
    private = torch.diag_embed(_private(fitted, measured.design))
    errors = torch.diag((1 + prior.excess_by_condition) * measured.condition_noise)
    factor = torch.linalg.cholesky(features @ cross + private + errors)
    return before - cross @ torch.cholesky_solve(cross.mT, factor)


def _private(fitted: Fitted, design: torch.Tensor) -> torch.Tensor:
    """Prior variance of what belongs to each set alone, classes x levels x sets."""
    prior = fitted.hyperparameters
    residual = prior.interaction_variance * is_combination(design) + prior.residual_variance
    by_class = residual.expand(N_CLASSES, -1).clone()
    by_class[CONDITION_SPECIFIC] = 1.0
    return LEVELS[:, None] * by_class[:, None]
