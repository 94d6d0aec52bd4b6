r"""What further measurements would teach about combinations that stay unmeasured, in closed form.

Given class m and level :math:`\ell`, what a combination P inherits is :math:`f_P^\top \theta` with one feature for each
perturbed gene (its scale where P holds it) and one for what all combinations have in common. The screen leaves
:math:`\theta` with the covariance :math:`w M`. To measure P with an error of variance :math:`w \nu` changes it to

.. math::
    M - \frac{M f_P f_P^\top M}{q_P}, \qquad q_P = f_P^\top M f_P + \ell (\gamma + \delta + \omega) + \nu ,

whatever the measurement finds, so that batches can be planned. ``docs/concepts/inference.md`` derives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import CONDITION_SPECIFIC, N_CLASSES, is_combination, scale_of

if TYPE_CHECKING:
    from raptorgraph.inference._state import Fitted

# Prior variance of what a gene does in combinations and not alone, over that of a typical single effect, and of what
# an interaction has beyond the learned variance. The posterior itself has no such terms, so that it holds genes to be
# known that no combination has shown. Chosen on simulated screens, others than those that are reported.
DEVIATION = 1.0
_SETS = 100_000  # at a time
_NEGLIGIBLE = 1e-6  # share of a class and level in the variance of all genes


class Plan:
    r"""Combinations to measure, one after the other, and what they leave unknown of the others.

    Sets are given by their design, sets x k, 0/1; or, where all are pairs and there are many, by the positions of both
    genes, an int64 tensor of pairs x 2.

    Parameters
    ----------
    fitted
        The posterior of the effects.
    others
        Sets of two genes or more that were not measured: those that one wants to know. A set that is taken as measured
        leaves them.
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
        self._unknown = _unknown(fitted, self._at, deviation)
        wanted = _sets(fitted, others)
        self._others = wanted.members()
        self._wanted = wanted.gram()

    def noise_of(self, relative: float) -> float:
        r"""Variance :math:`\nu` of the error of a condition whose sampling variance is so many times the typical."""
        prior, measured = self.fitted.hyperparameters, self.fitted.measured
        return float((1 + prior.excess) * relative * measured.condition_noise.median())

    def variance(self) -> float:
        """Posterior variance that is left of what the other sets inherit, summed over genes and sets."""
        return float(self._weights @ (self._unknown * self._wanted).sum((1, 2)))

    def removed(self, design: torch.Tensor, noise: float) -> torch.Tensor:
        """By how much a measurement of each of the sets would lower :meth:`variance`, shape (sets,).

        Of the other sets a candidate itself is left out: it would be measured, and no longer be one.
        """
        carrying, found = self._unknown @ self._wanted @ self._unknown, []
        for part in torch.split(design, _SETS):
            sets, own, total = self._totals(part, noise)
            among = self._others.has(sets).to(own.dtype)
            found.append(self._weights @ ((sets.quadratic(carrying) - among * own**2) / total))
        return torch.cat(found)

    def measure(self, design: torch.Tensor, noise: float) -> None:
        """Take one more set as measured: one row of a design, or both positions of a pair."""
        sets, _, total = self._totals(design[None], noise)
        feature = sets.features()[0]
        carried = self._unknown @ feature
        self._unknown = self._unknown - carried[:, :, None] * carried[:, None, :] / total[..., None]
        if bool(self._others.has(sets)[0]):
            self._others = self._others.without(sets)
            self._wanted = self._wanted - torch.outer(feature, feature)

    def noise_for(self, design: torch.Tensor, share: float) -> torch.Tensor:
        r"""Variance :math:`\nu` at which a measurement lowers :meth:`variance` by this share of what it could at most.

        Most is learned without noise. Shape (sets,), for the sets in `design`.
        """
        sets, own, total = self._totals(design, 0.0)
        carried = self._weights[:, None] * (sets.quadratic(self._unknown @ self._wanted @ self._unknown) - own**2)
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

    def _totals(self, design: torch.Tensor, noise: float) -> tuple[_Dense | _Pairs, torch.Tensor, torch.Tensor]:
        """Sets, the variance of what they inherit, and that of their measurement, each of these x sets."""
        sets = _sets(self.fitted, design)
        own = sets.quadratic(self._unknown)
        private = _private(self.fitted, sets.combination, self.deviation)[self._at]
        return sets, own, own + private + noise


class _Dense:
    """Sets of any size by the rows of their design."""

    def __init__(self, fitted: Fitted, design: torch.Tensor) -> None:
        self.design, self.combination = design, is_combination(design)
        self._features = _features(design, scale_of(fitted.hyperparameters, design))

    def features(self) -> torch.Tensor:
        """One for each gene, and one for what combinations have in common; sets x (k + 1)."""
        return self._features

    def gram(self) -> torch.Tensor:
        """Sum of f f' over the sets."""
        return self._features.T @ self._features

    def quadratic(self, matrix: torch.Tensor) -> torch.Tensor:
        """Value of f' M f for each of the matrices and each set, matrices x sets."""
        return ((self._features @ matrix) * self._features).sum(-1)

    def members(self) -> _DenseMembers:
        return _DenseMembers({tuple(row) for row in self.design.tolist()})


class _DenseMembers:
    """Which sets are among some others."""

    def __init__(self, rows: set[tuple[float, ...]]) -> None:
        self.rows = rows

    def has(self, sets: Any) -> torch.Tensor:
        return torch.tensor([tuple(row) in self.rows for row in sets.design.tolist()], dtype=torch.bool)

    def without(self, sets: Any) -> _DenseMembers:
        return _DenseMembers(self.rows - {tuple(row) for row in sets.design.tolist()})


class _Pairs:
    """Pairs by the positions of both genes, of which there may be millions."""

    def __init__(self, fitted: Fitted, pairs: torch.Tensor) -> None:
        prior = fitted.hyperparameters
        self.first, self.second = pairs.unbind(1)
        self.k = fitted.measured.design.shape[1]
        unseen = (prior.unseen[self.first] > 0) | (prior.unseen[self.second] > 0)
        self.scale = torch.where(unseen, prior.unseen_scale, prior.scale).to(prior.scale.dtype)
        self.combination = torch.ones(1, dtype=prior.scale.dtype)  # the same for all

    def features(self) -> torch.Tensor:
        found = torch.zeros(len(self.first), self.k + 1, dtype=self.scale.dtype)
        rows = torch.arange(len(self.first))
        found[rows, self.first] = found[rows, self.second] = self.scale
        found[:, self.k] = 1.0
        return found

    def gram(self) -> torch.Tensor:
        k, s = self.k, self.scale
        found = torch.zeros(k + 1, k + 1, dtype=s.dtype)
        last = torch.full_like(self.first, k)
        for i, j, value in (
            (self.first, self.first, s**2),
            (self.second, self.second, s**2),
            (self.first, self.second, s**2),
            (self.second, self.first, s**2),
            (self.first, last, s),
            (last, self.first, s),
            (self.second, last, s),
            (last, self.second, s),
        ):
            found.index_put_((i, j), value, accumulate=True)
        found[k, k] = float(len(self.first))
        return found

    def quadratic(self, matrix: torch.Tensor) -> torch.Tensor:
        s, i, j, k = self.scale, self.first, self.second, self.k
        diagonal, common = matrix.diagonal(dim1=-2, dim2=-1), matrix[:, k]
        own = diagonal[:, i] + diagonal[:, j] + 2 * matrix[:, i, j]
        found: torch.Tensor = s**2 * own + 2 * s * (common[:, i] + common[:, j]) + matrix[:, k, k, None]
        return found

    def members(self) -> _PairMembers:
        table = torch.zeros(self.k, self.k, dtype=torch.bool)
        table[self.first, self.second] = table[self.second, self.first] = True
        return _PairMembers(table)


class _PairMembers:
    """Which pairs are among some others, by a table of both genes."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table

    def has(self, sets: Any) -> torch.Tensor:
        found: torch.Tensor = self.table[sets.first, sets.second]
        return found

    def without(self, sets: Any) -> _PairMembers:
        table = self.table.clone()
        table[sets.first, sets.second] = table[sets.second, sets.first] = False
        return _PairMembers(table)


def _sets(fitted: Fitted, design: torch.Tensor) -> _Dense | _Pairs:
    return _Dense(fitted, design) if design.is_floating_point() else _Pairs(fitted, design)


def _features(design: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Features f of sets with these scales, sets x (k + 1)."""
    return torch.cat([design * scale[:, None], is_combination(design)[:, None]], 1)


def _unknown(fitted: Fitted, at: torch.Tensor, deviation: float) -> torch.Tensor:
    """Posterior covariance M of the coefficients in units of noise, (classes and levels) x (k + 1) x (k + 1).

    These are the effects of each gene in combinations, and what these have in common; to the latter belongs the error
    of the controls, to which all effects are differences. `at` says which classes and levels, classes x levels, bool;
    each is a matrix of the size of the screen, so that they are made one after the other.
    """
    prior, measured = fitted.hyperparameters, fitted.measured
    k = measured.design.shape[1]
    features = _features(measured.design, prior.scale_by_condition)
    of_all = torch.cat([features[:, :k], torch.ones_like(features[:, :1])], 1)
    combination = is_combination(measured.design)
    of_combinations = combination[:, None] * features
    private = _private(fitted, combination, deviation)
    errors = (1 + prior.excess_by_condition) * measured.condition_noise
    inherited = prior.shared_covariance, prior.independent_covariance
    eye = torch.eye(k, dtype=features.dtype)
    found = []
    for m, level in torch.nonzero(at).tolist():
        apart = torch.zeros(k + 1, k + 1, dtype=features.dtype)  # what combinations alone have
        alike = torch.zeros_like(apart)  # what single genes have, too
        if m != CONDITION_SPECIFIC:
            alike[:k, :k] = LEVELS[level] * (inherited[m] @ eye)
            apart.diagonal()[:k] = LEVELS[level] * deviation
            apart[k, k] = LEVELS[level] * prior.combination_variance
        alike[k, k] = measured.control_noise
        cross = alike @ of_all.T + apart @ of_combinations.T
        covariance = of_all @ alike @ of_all.T + of_combinations @ apart @ of_combinations.T
        covariance += measured.control_loadings @ measured.control_loadings.T
        covariance.diagonal().add_(private[m, level] + errors)
        found.append(alike + apart - cross @ torch.cholesky_solve(cross.T, torch.linalg.cholesky(covariance)))
    return torch.stack(found)


def _private(fitted: Fitted, combination: torch.Tensor, deviation: float) -> torch.Tensor:
    """Prior variance of what belongs to each set alone, classes x levels x sets; 1 for those that are combinations."""
    prior = fitted.hyperparameters
    residual = (prior.interaction_variance + deviation) * combination + prior.residual_variance
    by_class = residual.expand(N_CLASSES, -1).clone()
    by_class[CONDITION_SPECIFIC] = 1.0
    return LEVELS[:, None] * by_class[:, None]
