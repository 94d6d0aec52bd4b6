"""Effects of any sets of genes given the measured effects: Gaussian conditioning, averaged over classes and levels.

Derivations are in ``docs/concepts/inference.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._combinations import larger_sd
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import (
    CONDITION_SPECIFIC,
    factors,
    inherited,
    inherited_variance,
    is_combination,
    scale_of,
)
from raptorgraph.inference._targets import TargetEffects

if TYPE_CHECKING:
    from raptorgraph.inference._combinations import Additivity
    from raptorgraph.inference._state import Fitted

_NEGLIGIBLE = 1e-8  # probability of a class and level


@dataclass(frozen=True)
class Sets:
    """Sets of genes that are asked for, and their prior at level 1."""

    design: torch.Tensor  # sets x k, 0/1, or its mean over all sets of a size
    cross: torch.Tensor  # classes x sets x C: covariance with the conditions
    variance: torch.Tensor  # classes x sets: with residuals, and interactions of unknown size
    set_variance: torch.Tensor  # classes x sets: without residuals, and with interactions of the estimated size

    @classmethod
    def of(cls, design: torch.Tensor, fitted: Fitted, additivity: Additivity | None = None) -> Sets:
        """Sets by the rows of their design, sets x k; without `additivity` all combinations have the same scale."""
        prior, conditions = fitted.hyperparameters, fitted.measured.design
        same = (design[:, None] == conditions[None]).all(2).to(design.dtype)
        measured, combination = same.amax(1), is_combination(design)
        factor, size = torch.ones_like(measured), torch.ones_like(measured)
        if additivity is not None:  # for sets that were not measured
            factor = torch.where(measured > 0, factor, additivity.factor(design))
            size = torch.where(measured > 0, size, additivity.mean_size)
        cross = inherited(prior, design, conditions, factor=factor)
        interaction = prior.interaction_variance * combination
        cross[:CONDITION_SPECIFIC] += interaction[:, None] * same
        cross[CONDITION_SPECIFIC] = same
        set_variance = inherited_variance(prior, design, factor) + interaction
        set_variance[CONDITION_SPECIFIC] = 0.0
        scale = scale_of(prior, design) * factor
        variance = set_variance + interaction * (size - 1) + prior.residual_variance * scale**2 * design.sum(1)
        variance[CONDITION_SPECIFIC] = 1.0
        return cls(design, cross, variance, set_variance)

    def mean_of_size(self, fitted: Fitted) -> Sets:
        """The mean over all sets as large as each, in place of that set."""
        even = self.design.mean(1, keepdim=True).expand_as(self.design)
        cross = inherited(fitted.hyperparameters, self.design, fitted.measured.design, by_size=True)
        return replace(self, design=even, cross=cross)

    def measured_cross(self, fitted: Fitted) -> torch.Tensor:
        """Covariance with the measured effects, classes x levels x sets x C.

        All effects are differences to the same control cells, whose sampling error is part of each.
        """
        return LEVELS[:, None, None] * self.cross[:, None] + fitted.measured.control_noise


@dataclass(frozen=True)
class Moments:
    """Posterior moments of the effects of sets, each sets x G."""

    mean: torch.Tensor
    variance: torch.Tensor
    set_variance: torch.Tensor  # within classes and levels, of what `Sets.set_variance` holds


class Conditional:
    """Distribution of effects given the measured effects, with a fraction of the conditions' noise."""

    def __init__(self, fitted: Fitted, noise_fraction: float = 1.0) -> None:
        self.fitted = fitted
        self.factor = factors(fitted.hyperparameters, fitted.measured, noise_fraction)
        self.targets = TargetEffects.given(fitted.measured.effect, fitted.measured, self.factor)

    def moments(self, sets: Sets) -> Moments:
        """Mean and variance of the effects of sets."""
        measured, responsibility, targets = self.fitted.measured, self.fitted.responsibility, self.targets
        levels, control = LEVELS[:, None], measured.control_noise
        cross = sets.measured_cross(self.fitted)
        maps = torch.cholesky_solve(cross.mT, self.factor)  # classes x levels x C x sets
        known = (cross.mT * maps).sum(2)
        left = (levels * sets.variance[:, None] + control - known).clamp_min(0.0)
        left_of_set = (levels * sets.set_variance[:, None] + control - known).clamp_min(0.0)
        shape = (len(sets.design), measured.effect.shape[1])
        mean, square, variance, set_variance = torch.zeros(4, *shape, dtype=maps.dtype)
        for m, level in torch.nonzero(responsibility.amax(2) > _NEGLIGIBLE).tolist():
            weight = responsibility[m, level]
            value = maps[m, level].T @ measured.effect
            mean += weight * value
            square += weight * value**2
            variance += torch.outer(left[m, level], weight * measured.gene_noise)
            set_variance += torch.outer(left_of_set[m, level], weight * measured.gene_noise)
        # On its own target a perturbation has one more effect, known as well as its conditions show it.
        at, w = targets.columns, measured.gene_noise[targets.columns]
        value, load = targets.carried_over(sets.design, cross)
        weight, more = responsibility[:, :, None, at], load**2 / targets.precision[:, :, None]
        mean[:, at] = (weight * value).sum((0, 1))
        square[:, at] = (weight * value**2).sum((0, 1))
        for total, part in ((variance, left), (set_variance, left_of_set)):
            total[:, at] = w * (weight * (part[..., None] + more)).sum((0, 1))
        return Moments(mean, variance + (square - mean**2).clamp_min(0.0), set_variance)

    def moments_of(self, design: torch.Tensor) -> Moments:
        """Moments of sets (sets x k) of which none is a combination that was not measured."""
        return self.moments(Sets.of(design, self.fitted))

    def scale_variance(self, design: torch.Tensor, additivity: Additivity) -> torch.Tensor:
        """Variance of the effects of sets, sets x G, from what is not known of the scale of combinations.

        That of the sets themselves, and, where an effect was learned from measured combinations, theirs (which on
        targets is taken as on other genes).
        """
        fitted, conditions = self.fitted, self.fitted.measured.design
        both = torch.cat([design, conditions[is_combination(conditions) > 0]])
        columns = (is_combination(conditions) > 0).nonzero().squeeze(1)
        n, prior = len(design), fitted.hyperparameters
        effect = (is_combination(both) * scale_of(prior, both))[:, None] * (both @ additivity.single_effects)
        covariance, spread = additivity.moments()
        root = torch.linalg.cholesky(covariance)
        loads = torch.stack([torch.ones(len(both), dtype=both.dtype), additivity.deviation(both)], 1) @ root
        own = (spread * (both.sum(1) - 1).clamp_min(1.0) + larger_sd(both) ** 2)[:, None] * effect**2
        same = (design[:, None] == both[None, n:]).all(2).to(design.dtype)
        own_of_set = own[:n] * (1 - same.sum(1, keepdim=True).clamp_max(1.0))
        cross = Sets.of(design, fitted, additivity).measured_cross(fitted)
        maps = torch.cholesky_solve(cross.mT, self.factor)[:, :, columns]
        found = torch.zeros_like(effect[:n])
        responsibility = fitted.responsibility
        for m, level in torch.nonzero(responsibility[:CONDITION_SPECIFIC].amax(2) > _NEGLIGIBLE).tolist():
            through = maps[m, level].T
            part = own_of_set + (same - through) ** 2 @ own[n:]
            for load in loads.T:
                part = part + (load[:n, None] * effect[:n] - through @ (load[n:, None] * effect[n:])) ** 2
            found += responsibility[m, level] * part
        return found
