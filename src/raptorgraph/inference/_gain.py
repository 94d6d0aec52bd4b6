r"""What further measurements would teach about combinations that stay unmeasured, in closed form.

Given class m and level :math:`\ell`, what a combination P inherits is :math:`f_P^\top \theta` with one feature for each
perturbed gene (its scale where P holds it) and one for what all combinations have in common. The screen leaves
:math:`\theta` with the covariance :math:`w M`. To measure P with an error of variance :math:`w \nu` changes it to

.. math::
    M - \frac{M f_P f_P^\top M}{q_P}, \qquad q_P = f_P^\top M f_P + \ell (\gamma + \delta + \omega) + \nu ,

whatever the measurement finds, so that batches can be planned. ``docs/concepts/inference.md`` derives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import CONDITION_SPECIFIC, N_CLASSES, SHARED, is_combination, scale_of

if TYPE_CHECKING:
    from raptorgraph.inference._state import Fitted

# Prior variance of what a gene does in combinations and not alone, over that of a typical single effect, and of what
# an interaction has beyond the learned variance. The posterior itself has no such terms, so that it holds genes to be
# known that no combination has shown. Chosen on simulated screens, others than those that are reported.
DEVIATION = 1.0
_NEGLIGIBLE = 1e-6  # share of a class and level in the variance of all genes


class Plan:
    r"""Combinations to measure, one after the other, and what they leave unknown of the others.

    Parameters
    ----------
    fitted
        The posterior of the effects.
    others
        Sets x k, 0/1, each of two genes or more and not measured: those that one wants to know. A set that is taken as
        measured leaves them.
    deviation
        Prior variance :math:`\delta` of what each gene does in combinations beside its effect alone, over that of a
        typical single effect; and what is added to that of interactions. With 0 variances are those of the posterior.
    """

    def __init__(self, fitted: Fitted, others: torch.Tensor, deviation: float = DEVIATION) -> None:
        self.fitted, self.deviation = fitted, deviation
        weights = (fitted.responsibility * fitted.measured.gene_noise).sum(2)
        self._at = weights > _NEGLIGIBLE * weights.sum()
        self._weights = weights[self._at]  # the classes and levels that count, as one axis
        inherits = torch.tensor([float(m != CONDITION_SPECIFIC) for m in range(N_CLASSES)], dtype=LEVELS.dtype)
        self._level = torch.outer(inherits, LEVELS)[self._at]  # 0 where no combination inherits anything
        self._unknown = _unknown(fitted, deviation, self._at)
        self._others = {tuple(row) for row in others.tolist()}
        wanted = _features(fitted, others)
        self._wanted = wanted.T @ wanted

    def noise_of(self, relative: float) -> float:
        r"""Variance :math:`\nu` of the error of a condition whose sampling variance is so many times the typical."""
        prior, measured = self.fitted.hyperparameters, self.fitted.measured
        return float((1 + prior.excess) * relative * measured.condition_noise.median())

    def variance(self) -> float:
        """Posterior variance that is left of what the other sets inherit, summed over genes and sets."""
        return float(self._weights @ (self._unknown * self._wanted).sum((1, 2)))

    def removed(self, design: torch.Tensor, noise: float) -> torch.Tensor:
        """By how much a measurement of each of the sets (sets x k) would lower :meth:`variance`, shape (sets,).

        Of the other sets a candidate itself is left out: it would be measured, and no longer be one.
        """
        features, own, total = self._totals(design, noise)
        among = torch.tensor([tuple(row) in self._others for row in design.tolist()], dtype=own.dtype)
        carried = _quadratic(self._unknown @ self._wanted @ self._unknown, features)
        return self._weights @ ((carried - among * own**2) / total)

    def measure(self, design: torch.Tensor, noise: float) -> None:
        """Take one more set, shape (k,), as measured."""
        features, _, total = self._totals(design[None], noise)
        carried = self._unknown @ features[0]
        self._unknown = self._unknown - carried[:, :, None] * carried[:, None, :] / total[..., None]
        if tuple(design.tolist()) in self._others:
            self._others.remove(tuple(design.tolist()))
            self._wanted = self._wanted - features.T @ features

    def noise_for(self, design: torch.Tensor, share: float) -> torch.Tensor:
        r"""Variance :math:`\nu` at which a measurement lowers :meth:`variance` by this share of what it could at most.

        Most is learned without noise. Shape (sets,), for the sets in `design`.
        """
        features, own, total = self._totals(design, 0.0)
        carried = self._weights[:, None] * (_quadratic(self._unknown @ self._wanted @ self._unknown, features) - own**2)
        return self._noise_where(carried, total, share)

    @staticmethod
    def _noise_where(carried: torch.Tensor, total: torch.Tensor, share: float) -> torch.Tensor:
        """Noise at which ``carried / (total + noise)``, summed over the first axis, is this share of that without."""
        wanted = share * (carried / total).sum(0)
        low, high = torch.zeros_like(wanted), torch.full_like(wanted, 1e9)
        for _ in range(100):  # what is learned falls with the noise
            middle = (low * high).sqrt().clamp_min(1e-9)
            enough = (carried / (total + middle)).sum(0) >= wanted
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
        return high

    def noise_for_itself(self, design: torch.Tensor, share: float) -> torch.Tensor:
        r"""Variance :math:`\nu` at which a measurement teaches this share of what many cells would of its own set."""
        _, own, total = self._totals(design, 0.0)
        interaction = self._level[:, None] * (self.fitted.hyperparameters.interaction_variance + self.deviation)
        return self._noise_where(self._weights[:, None] * (own + interaction) ** 2, total, share)

    def _totals(self, design: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features of sets (sets x (k + 1)), variance of what they inherit, and of their measurement (x sets)."""
        features = _features(self.fitted, design)
        own = _quadratic(self._unknown, features)
        return features, own, own + _private(self.fitted, design, self.deviation)[self._at] + noise


def _quadratic(matrix: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Value of f' M f for each of the matrices and each row f of the features."""
    return ((features @ matrix) * features).sum(-1)


def _features(fitted: Fitted, design: torch.Tensor) -> torch.Tensor:
    """Features f of combinations, sets x (k + 1)."""
    return torch.cat([design * scale_of(fitted.hyperparameters, design)[:, None], is_combination(design)[:, None]], 1)


def _unknown(fitted: Fitted, deviation: float, used: torch.Tensor) -> torch.Tensor:
    """Posterior covariance M of the coefficients in units of noise, used classes and levels x (k + 1) x (k + 1).

    These are the effects of each gene in combinations, and what these have in common; to the latter belongs the error
    of the controls, to which all effects are differences. `used` is classes x levels, true or false.
    """
    prior, measured = fitted.hyperparameters, fitted.measured
    k = measured.design.shape[1]
    features = _features(fitted, measured.design)
    of_all = torch.cat([features[:, :k], torch.ones_like(features[:, :1])], 1)
    of_combinations = is_combination(measured.design)[:, None] * features
    private = _private(fitted, measured.design, deviation)
    errors = (1 + prior.excess_by_condition) * measured.condition_noise
    eye = torch.eye(k, dtype=features.dtype)
    found = []
    for m, at in used.nonzero().tolist():
        level = LEVELS[at]
        alike = torch.zeros(k + 1, k + 1, dtype=features.dtype)  # what single genes have, too
        apart = torch.zeros_like(alike)  # what combinations alone have
        if m != CONDITION_SPECIFIC:
            covariance = prior.shared_covariance if m == SHARED else prior.independent_covariance
            alike[:k, :k] = level * (covariance @ eye)
            apart[:k, :k] = level * deviation * eye
            apart[k, k] = level * prior.combination_variance
        alike[k, k] = measured.control_noise
        cross = alike @ of_all.T + apart @ of_combinations.T
        covariance = of_all @ alike @ of_all.T + of_combinations @ apart @ of_combinations.T
        covariance = covariance + torch.diag(private[m, at] + errors)
        found.append(alike + apart - cross @ torch.cholesky_solve(cross.mT, torch.linalg.cholesky(covariance)))
    return torch.stack(found)


def _private(fitted: Fitted, design: torch.Tensor, deviation: float) -> torch.Tensor:
    """Prior variance of what belongs to each set alone, classes x levels x sets."""
    prior = fitted.hyperparameters
    residual = (prior.interaction_variance + deviation) * is_combination(design) + prior.residual_variance
    by_class = residual.expand(N_CLASSES, -1).clone()
    by_class[CONDITION_SPECIFIC] = 1.0
    return LEVELS[:, None] * by_class[:, None]
