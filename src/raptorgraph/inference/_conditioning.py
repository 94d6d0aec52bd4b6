"""Effects of any sets of genes given the measured effects: Gaussian conditioning, averaged over classes and levels.

Derivations are in ``docs/concepts/inference.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import (
    CONDITION_SPECIFIC,
    factors,
    inherited,
    is_combination,
    signals,
)
from raptorgraph.inference._targets import TargetEffects

if TYPE_CHECKING:
    from raptorgraph.inference._state import Fitted

_NEGLIGIBLE = 1e-8  # probability of a class and level


@dataclass(frozen=True)
class Sets:
    """Sets of genes that are asked for, and their prior at level 1."""

    design: torch.Tensor  # sets x k, 0/1, or its mean over all sets of a size
    cross: torch.Tensor  # classes x sets x C: covariance with the conditions
    variance: torch.Tensor  # classes x sets
    set_variance: torch.Tensor  # classes x sets: without the residual of a condition

    @classmethod
    def of(cls, design: torch.Tensor, fitted: Fitted) -> Sets:
        """Sets by the rows of their design, sets x k."""
        prior, conditions = fitted.hyperparameters, fitted.measured.design
        same = (design[:, None] == conditions[None]).all(2).to(design.dtype)
        cross = inherited(prior, design, conditions)
        cross[:CONDITION_SPECIFIC] += prior.interaction_variance * is_combination(design)[:, None] * same
        cross[CONDITION_SPECIFIC] = same
        variance = signals(prior, design).diagonal(dim1=1, dim2=2)
        set_variance = variance - prior.residual_variance
        set_variance[CONDITION_SPECIFIC] = 0.0
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
    set_variance: torch.Tensor  # within classes and levels, without the residual of a condition


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

    def draw(self, sets: Sets, n_draws: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Joint draws of the gene-set effects about the posterior mean, n_draws x sets x G.

        Class and level are drawn first, each by its responsibility; then the sets are jointly normal.
        """
        measured, targets = self.fitted.measured, self.targets
        cross = sets.measured_cross(self.fitted)
        maps = torch.cholesky_solve(cross.mT, self.factor)
        root = self._root(sets, cross @ maps)
        n_sets, n_genes = len(sets.design), measured.effect.shape[1]
        responsibility = self.fitted.responsibility.flatten(0, 1).T
        chosen = torch.multinomial(responsibility, n_draws, replacement=True, generator=generator).T  # draws x genes
        normal = torch.randn(n_draws, n_sets, n_genes, generator=generator, dtype=root.dtype)
        normal_on_targets = torch.randn(n_draws, len(targets.genes), generator=generator, dtype=root.dtype)
        on_targets, load = targets.carried_over(sets.design, cross)
        # Classes and levels that some gene drew, as one axis.
        used, chosen = torch.unique(chosen, return_inverse=True)
        value = maps.flatten(0, 1)[used].mT @ measured.effect
        value[:, :, targets.columns] = on_targets.flatten(0, 1)[used]
        root, load = root.flatten(0, 1)[used], load.flatten(0, 1)[used]
        target_sd = (measured.gene_noise[targets.columns] / targets.precision.flatten(0, 1)[used]).sqrt()
        genes, positions = torch.arange(n_genes), torch.arange(len(targets.columns))
        out = torch.empty_like(normal)
        for i, at in enumerate(chosen):
            deviation = torch.einsum("gst,tg->sg", root[at], normal[i]) * measured.gene_noise.sqrt()
            out[i] = deviation + value[at, :, genes].T
            at = at[targets.columns]
            target_effect = normal_on_targets[i] * target_sd[at, positions]
            out[i][:, targets.columns] += load[at, :, positions].T * target_effect
        return out

    def _root(self, sets: Sets, known: torch.Tensor) -> torch.Tensor:
        """Cholesky factors L of the covariance that is left among the sets, classes x levels x sets x sets."""
        prior = self.fitted.hyperparameters
        eye = torch.eye(len(sets.design), dtype=known.dtype)
        covariance = signals(prior, sets.design)
        covariance[:CONDITION_SPECIFIC] -= prior.residual_variance * eye
        left = LEVELS[:, None, None] * covariance[:, None] + self.fitted.measured.control_noise - known
        jitter = 1e-9 * left.diagonal(dim1=2, dim2=3).mean(2).clamp_min(1e-12)
        root: torch.Tensor = torch.linalg.cholesky(left + jitter[..., None, None] * eye)
        return root
