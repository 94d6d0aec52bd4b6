"""Effects of any sets of genes given the measured effects: Gaussian conditioning, averaged over classes and levels.

Derivations are in ``docs/concepts/inference.md``.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._combinations import larger_sd
from raptorgraph.inference._covariances import Covariances
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._own_variances import LeftOut
from raptorgraph.inference._prior import (
    CONDITION_SPECIFIC,
    inherited,
    inherited_variance,
    is_combination,
    scale_of,
)
from raptorgraph.inference._targets import TargetEffects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptorgraph.inference._combinations import Additivity, OwnVariances
    from raptorgraph.inference._state import Fitted

_NEGLIGIBLE = 1e-10  # probability of a class and level
_AT_A_TIME = 1024  # sets


@dataclass(frozen=True)
class Sets:
    """Sets of genes that are asked for, and their prior at level 1."""

    design: torch.Tensor  # sets x k, 0/1, or its mean over all sets of a size
    scale: torch.Tensor  # sets: of the single effects in each
    cross: torch.Tensor  # classes x sets x C: covariance with the conditions
    variance: torch.Tensor  # classes x sets: with residuals, and interactions of unknown size
    set_variance: torch.Tensor  # classes x sets: without residuals, and with interactions of the estimated size
    control_noise: torch.Tensor  # scalar: of the control cells that effects are against; 0 against their expectation

    @classmethod
    def of(
        cls, design: torch.Tensor, fitted: Fitted, additivity: Additivity | None = None, *, controls: bool = True
    ) -> Sets:
        """Sets by the rows of their design, sets x k; without `additivity` all combinations have the same scale.

        Effects are differences to the very control cells of the screen, with their sampling error; without `controls`
        to what these are a sample of.
        """
        prior, conditions = fitted.hyperparameters, fitted.measured.design
        same = same_sets(design, conditions)
        measured, combination = same.amax(1), is_combination(design)
        scale, size = scale_of_sets(fitted, design, same), torch.ones_like(measured)
        if additivity is not None:  # for sets that were not measured
            scale = torch.where(measured > 0, scale, scale * additivity.factor(design))
            size = torch.where(measured > 0, size, additivity.mean_size)
        cross = inherited(prior, design, scale, conditions)
        interaction = prior.interaction_variance * combination
        cross[:CONDITION_SPECIFIC] += interaction[:, None] * same
        cross[CONDITION_SPECIFIC] = same
        set_variance = inherited_variance(prior, design, scale) + interaction
        set_variance[CONDITION_SPECIFIC] = 0.0
        variance = set_variance + interaction * (size - 1) + prior.residual_variance * scale**2 * design.sum(1)
        variance[CONDITION_SPECIFIC] = 1.0
        return cls(design, scale, cross, variance, set_variance, fitted.measured.control_noise * controls)

    def means_of_sizes(self, fitted: Fitted) -> tuple[Sets, torch.Tensor]:
        """The mean over all sets of a size, for each size that there is, and which of these each set has."""
        sizes, at = torch.unique(self.design.sum(1), return_inverse=True)
        first = torch.stack([(at == i).nonzero()[0, 0] for i in range(len(sizes))])
        design = self.design[first]
        prior, conditions = fitted.hyperparameters, fitted.measured.design
        scale = scale_of(prior, design, by_size=True)
        cross = inherited(prior, design, scale, conditions, by_size=True)
        even = design.mean(1, keepdim=True).expand_as(design)
        variances = self.variance[:, first], self.set_variance[:, first]
        return Sets(even, scale, cross, *variances, self.control_noise), at

    def measured_cross(self, m: int, level: int) -> torch.Tensor:
        """Covariance with the measured effects at a class and level, sets x C.

        These are differences to the same control cells, whose sampling error is part of each.
        """
        return LEVELS[level] * self.cross[m] + self.control_noise


@dataclass(frozen=True)
class Moments:
    """Posterior moments of the effects of sets, each sets x G."""

    mean: torch.Tensor
    variance: torch.Tensor
    set_variance: torch.Tensor  # within classes and levels, of what `Sets.set_variance` holds


class Conditional:
    """Distribution of effects given the measured effects, with a fraction of the conditions' noise."""

    def __init__(self, fitted: Fitted, noise_fraction: float = 1.0) -> None:
        self.noise_fraction = noise_fraction
        self.covariances = Covariances(fitted.hyperparameters, fitted.measured, noise_fraction)
        self._condition_on(fitted)
        self.target_of = torch.full(fitted.measured.gene_noise.shape, -1)  # G: position among the targets
        self.target_of[self.targets.columns] = torch.arange(len(self.targets.columns))

    def _condition_on(self, fitted: Fitted) -> None:
        self.fitted, self.effect = fitted, fitted.inheritable
        found = fitted.responsibility > _NEGLIGIBLE
        self.targets = TargetEffects.given(self.effect, fitted.measured, self.covariances, found)

    def with_sparse_interactions(self) -> Conditional:
        """Distribution given all that was measured, of which no sparse interactions are taken out."""
        if self.fitted.sparse is None:
            return self
        found = copy(self)
        found._condition_on(replace(self.fitted, sparse=None))
        return found

    def used(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Classes and levels with the genes that may be of them."""
        return used(self.fitted.responsibility)

    def among_targets(self, genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of these genes are targets, and of which effect on targets."""
        at = (self.target_of[genes] >= 0).nonzero().squeeze(1)
        return at, self.target_of[genes[at]]

    def moments(self, sets: Sets, own: OwnVariances | None = None) -> Moments:
        """Mean and variance of the effects of sets; of measured combinations by variances of their `own`."""
        measured, responsibility, targets = self.fitted.measured, self.fitted.responsibility, self.targets
        control, w, n_genes = sets.control_noise, measured.gene_noise, self.effect.shape[1]
        combinations, left_out = self._left_out(sets.design, own)
        mean, square, variance, set_variance = torch.zeros(4, len(sets.design), n_genes, dtype=w.dtype)
        for m, level, genes in self.used():
            cross = sets.measured_cross(m, level)
            maps = self.covariances.at(m, level).solve(cross.mT)  # C x sets
            known = (cross.mT * maps).sum(0)
            left = (LEVELS[level] * sets.variance[m] + control - known).clamp_min(0.0)
            left_of_set = (LEVELS[level] * sets.set_variance[m] + control - known).clamp_min(0.0)
            weight = responsibility[m, level, genes]
            value = maps.mT @ self.effect[:, genes]
            # On its own target a perturbation has one more effect, known as well as its conditions show it.
            at, t = self.among_targets(genes)
            load = targets.load(sets.design, maps, t)
            value[:, at] += load * targets.mean[m, level, t]
            more = load**2 * (weight[at] * w[genes[at]] / targets.precision[m, level, t])
            if left_out is not None:
                value[combinations], of_own = left_out.moments(m, level, genes)
                left[combinations] = LEVELS[level] * (sets.variance[m] - sets.set_variance[m])[combinations]
                left_of_set[combinations] = more[combinations] = 0.0
                variance[combinations[:, None], genes] += of_own * (weight * w[genes])
                if m == CONDITION_SPECIFIC:  # which is in no variance of a set
                    left[combinations] = 0.0
                else:
                    set_variance[combinations[:, None], genes] += of_own * (weight * w[genes])
            mean[:, genes] += weight * value
            square[:, genes] += weight * value**2
            for total, part in ((variance, left), (set_variance, left_of_set)):
                total[:, genes] += torch.outer(part, weight * w[genes])
                total[:, genes[at]] += more
        return Moments(mean, variance + (square - mean**2).clamp_min(0.0), set_variance)

    def true_moments(self, design: torch.Tensor) -> Moments:
        """Moments of sets (sets x k; none an unmeasured combination) against what the controls are a sample of."""
        sets = [Sets.of(part, self.fitted, controls=False) for part in torch.split(design, _AT_A_TIME)]
        parts = [self.moments(part) for part in sets]
        return Moments(
            *(torch.cat(each) for each in zip(*((x.mean, x.variance, x.set_variance) for x in parts), strict=True))
        )

    def _left_out(self, design: torch.Tensor, own: OwnVariances | None) -> tuple[torch.Tensor, LeftOut | None]:
        """Which sets are measured combinations, and what all others say of these."""
        if own is None or not len(own.rows):
            return torch.empty(0, dtype=torch.long), None
        combinations, at = same_sets(design, self.fitted.measured.design[own.rows]).nonzero().T
        return combinations, LeftOut(self, own, at) if len(at) else None

    def scale_variance(self, design: torch.Tensor, additivity: Additivity) -> torch.Tensor:
        """Variance of the effects of sets, sets x G, from what is not known of the scale of combinations.

        That of the sets themselves, and, where an effect was learned from measured combinations, theirs (which on
        targets is taken as on other genes).
        """
        fitted, conditions = self.fitted, self.fitted.measured.design
        columns = (is_combination(conditions) > 0).nonzero().squeeze(1)
        both = torch.cat([design, conditions[columns]])
        n, prior = len(design), fitted.hyperparameters
        found = torch.zeros(n, fitted.measured.effect.shape[1], dtype=both.dtype)
        if not is_combination(both).any():
            return found
        same = same_sets(design, conditions)
        scale = torch.cat([scale_of_sets(fitted, design, same), prior.scale_by_condition[columns]])
        effect = (is_combination(both) * scale)[:, None] * (both @ additivity.single_effects)
        covariance, spread = additivity.moments()
        root = torch.linalg.cholesky(covariance)
        loads = torch.stack([torch.ones(len(both), dtype=both.dtype), additivity.deviation(both)], 1) @ root
        own = (spread * (both.sum(1) - 1).clamp_min(1.0) + larger_sd(both) ** 2)[:, None] * effect**2
        same = same[:, columns]
        own_of_set = own[:n] * (1 - same.sum(1, keepdim=True).clamp_max(1.0))
        sets = Sets.of(design, fitted, additivity)
        combinations, left_out = self._left_out(design, additivity.own)
        for m, level, genes in used(fitted.responsibility[:CONDITION_SPECIFIC]):
            cross = sets.measured_cross(m, level)
            through = self.covariances.at(m, level).solve(cross.mT)[columns].mT
            part = own_of_set[:, genes] + (same - through) ** 2 @ own[n:, genes]
            for load in loads.T:
                of_sets, of_measured = load[:n, None] * effect[:n, genes], load[n:, None] * effect[n:, genes]
                part = part + (of_sets - through @ of_measured) ** 2
            if left_out is not None:
                part[combinations] *= left_out.passed_on(m, level)[:, None] ** 2
            found[:, genes] += fitted.responsibility[m, level, genes] * part
        return found


def used(responsibility: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Classes and levels with the genes that may be of them."""
    found = responsibility > _NEGLIGIBLE
    for m, level in torch.nonzero(found.any(2)).tolist():
        yield m, level, found[m, level].nonzero().squeeze(1)


def scale_of_sets(fitted: Fitted, design: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Scale of sets (sets x k): of measured ones their own, else the usual one; `same` is that of :func:`same_sets`."""
    prior = fitted.hyperparameters
    return torch.where(same.amax(1) > 0, prior.scale_by_condition[same.argmax(1)], scale_of(prior, design))


def same_sets(design: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """1 where two sets hold the same genes, and 0 elsewhere, sets x others."""
    positions: dict[tuple[int, ...], list[int]] = {}
    for i, genes in enumerate(_members(others)):
        positions.setdefault(genes, []).append(i)
    found = design.new_zeros(len(design), len(others))
    for row, genes in zip(found, _members(design), strict=True):
        row[positions.get(genes, [])] = 1.0
    return found


def _members(design: torch.Tensor) -> Iterator[tuple[int, ...]]:
    """Genes of each set."""
    rows, genes = design.nonzero().T
    ends = torch.bincount(rows, minlength=len(design)).cumsum(0)
    flat = genes.tolist()
    for start, end in zip([0, *ends.tolist()[:-1]], ends.tolist(), strict=True):
        yield tuple(flat[start:end])
