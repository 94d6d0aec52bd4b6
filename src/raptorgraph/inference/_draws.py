r"""Joint draws of the effects of any sets of genes, from which everything that is said with uncertainty follows.

A draw is of all that sets inherit: the effects t of the single genes, what combinations have in common, the
interactions of those that were measured, the effects on targets, how combinations add up. It is a draw from the prior,
corrected by what the measured effects y say of its difference to them (Matheron's rule):

.. math::
    \theta = \tilde\theta + \operatorname{Cov}(\theta, y)\, \Sigma^{-1} (y - \tilde y),

which has the mean and the covariance of the posterior, for each gene of the transcriptome, given its class and level.
The normal variables of :math:`\tilde\theta` and :math:`\tilde y` are correlated between genes that respond alike, and
those of the noise between genes that vary together among cells. What one set has of its own is drawn from the seed and
its genes: the same seed gives the same draw of a set, whichever other sets are asked for with it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph.inference._combinations import larger_sd
from raptorgraph.inference._loadings import correlated
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import CONDITION_SPECIFIC, SHARED, is_combination, scale_of
from raptorgraph.inference._targets import TARGET_VARIANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.inference._combinations import Additivity
    from raptorgraph.inference._conditioning import Conditional

_COMMON_EXCESS = 0.5  # part of the noise between conditions that is along what genes respond with alike
_JITTER = 1e-9


@dataclass(frozen=True)
class _Inherited:
    """What sets inherit, in one draw; or in n of them, as one more axis in front."""

    single: torch.Tensor  # k x G, with the residuals of the genes' conditions
    common: torch.Tensor  # G: what all combinations have in common
    condition: torch.Tensor  # C x G: interactions, and effects that are specific to a condition
    target: torch.Tensor  # T
    control: torch.Tensor  # G: error of the control cells, part of every measured effect
    level_sd: torch.Tensor  # G: prior SD of the effects of its level
    inherits: torch.Tensor  # G, 0/1: whether its class is not condition-specific

    @classmethod
    def stacked(cls, draws: Sequence[_Inherited]) -> _Inherited:
        """Draws along one axis."""
        return cls(**{field.name: torch.stack([getattr(draw, field.name) for draw in draws]) for field in fields(cls)})


class JointDraws:
    """Draws of the effects of sets of genes, the same for each set in every call.

    Parameters
    ----------
    conditional
        Posterior given class and level.
    additivity
        How effects add up.
    n_draws, seed
        Number of draws and their seed.
    """

    def __init__(self, conditional: Conditional, additivity: Additivity, n_draws: int, seed: int) -> None:
        self.conditional, self.additivity = conditional, additivity
        self.n_draws, self.seed = n_draws, seed
        fitted = conditional.fitted
        generator = torch.Generator().manual_seed(seed)
        responsibility = fitted.responsibility.flatten(0, 1).T
        chosen = torch.multinomial(responsibility, n_draws, replacement=True, generator=generator).T
        self._coefficients, self._spread, self._size = additivity.draw(n_draws, generator)
        prior = fitted.hyperparameters
        # Genes that were not perturbed come last, and have normal variables of their own: those of others stay.
        self._n_others = int((fitted.measured.design.sum(0) == 0).sum())
        self._others = torch.Generator().manual_seed(seed + 1)
        eye = torch.eye(fitted.measured.design.shape[1], dtype=torch.float64)
        covariances = torch.stack([prior.shared_covariance, prior.independent_covariance])
        self._roots = torch.linalg.cholesky(covariances + _JITTER * eye)
        self._departures = self._measured_departures()
        self._inherited = _Inherited.stacked([self._draw(d, at, generator) for d, at in enumerate(chosen)])

    def effects(self, design: torch.Tensor) -> torch.Tensor:
        """Draws of the effects of sets (sets x k, 0/1), draws x sets x G."""
        measured = self.conditional.fitted.measured
        out = torch.empty(self.n_draws, len(design), measured.effect.shape[1], dtype=torch.float64)
        for s, row in enumerate(design):
            out[:, s] = self._effect(row)
        return torch.maximum(out, measured.lowest)

    def _effect(self, row: torch.Tensor) -> torch.Tensor:
        """Draws of the effect of one set, draws x G."""
        fitted, drawn = self.conditional.fitted, self._inherited
        prior, targets = fitted.hyperparameters, self.conditional.targets
        is_pair = bool(is_combination(row[None])[0])
        same = (fitted.measured.design == row).all(1).nonzero().squeeze(1)[:1]
        off, size, generator = self._own(row)
        scale = scale_of(prior, row[None]).expand(self.n_draws)
        if is_pair and not len(same):
            known = torch.cat([torch.ones(1, dtype=torch.float64), self.additivity.deviation(row[None])])
            spread = (self._spread**2 + larger_sd(row[None]) ** 2).sqrt()
            scale = scale * (1 + self._coefficients @ known + spread * off)
        effect = scale[:, None] * drawn.single[:, row > 0].double().sum(1) + drawn.control
        effect[:, targets.columns] += row[targets.genes] * drawn.target
        if is_pair:
            effect = effect + drawn.common
        if len(same):
            return effect + drawn.condition[:, same[0]]
        variance = prior.interaction_variance * size * self._size * is_pair
        own = correlated(self.additivity.programs, self.n_draws, generator) * drawn.level_sd
        return effect + own * torch.where(drawn.inherits > 0, variance.sqrt()[:, None], 1.0)

    def _own(self, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        """What a set has of its own: departure of its scale, size of its interaction, and a generator for the rest."""
        genes = row.nonzero().squeeze(1).tolist()
        state = int(np.random.SeedSequence([self.seed, *genes]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator().manual_seed(state)
        return *self.additivity.draw_departures(self.n_draws, len(genes), generator), generator

    def _measured_departures(self) -> torch.Tensor:
        """Relative departures of the scale of the measured combinations, draws x C; 0 for single genes."""
        design = self.conditional.fitted.measured.design
        found = torch.zeros(self.n_draws, len(design), dtype=torch.float64)
        expected = self.additivity.factor(design)
        deviation = self.additivity.deviation(design)
        for c in is_combination(design).nonzero().squeeze(1).tolist():
            off = self._own(design[c])[0]
            known = self._coefficients[:, 0] + self._coefficients[:, 1] * deviation[c] - (expected[c] - 1)
            found[:, c] = known + (self._spread**2 + larger_sd(design[c : c + 1]) ** 2).sqrt() * off
        return found

    def _draw(self, d: int, chosen: torch.Tensor, generator: torch.Generator) -> _Inherited:
        """Draw from the prior and correct it; `chosen` is the class and level of each gene, as one index."""
        fitted, targets = self.conditional.fitted, self.conditional.targets
        measured, prior = fitted.measured, fitted.hyperparameters
        programs, noise = self.additivity.programs, measured.noise_loadings
        guides = programs * _COMMON_EXCESS**0.5
        design, w = measured.design, measured.gene_noise
        (n_conditions, k), combination = design.shape, is_combination(design)[:, None]
        klass, levels = chosen // len(LEVELS), LEVELS[chosen % len(LEVELS)]
        inherits = (klass != CONDITION_SPECIFIC).double()
        sd = (levels * w).sqrt()
        scaled = design * scale_of(prior, design)[:, None]

        def normal(n: int, loadings: torch.Tensor = programs) -> torch.Tensor:
            return correlated(loadings, n, generator)

        def of_genes(loadings: torch.Tensor = programs) -> torch.Tensor:
            others = correlated(loadings, self._n_others, self._others)
            return torch.cat([normal(k - self._n_others, loadings), others])

        white = of_genes()
        single = torch.where(klass == SHARED, self._roots[0] @ white, self._roots[1] @ white) * sd * inherits
        common = normal(1)[0] * prior.combination_variance.sqrt() * sd * inherits
        interaction = normal(n_conditions) * prior.interaction_variance.sqrt() * sd * inherits * combination
        interaction += self._departures[d][:, None] * combination * (scaled @ self.additivity.single_effects)
        residual = normal(n_conditions) * prior.residual_variance.sqrt() * sd * inherits
        specific = normal(n_conditions) * sd * (1 - inherits)
        target = torch.randn(len(targets.genes), generator=generator, dtype=torch.float64)
        target = target * (TARGET_VARIANCE * w[targets.columns]).sqrt()
        control = normal(1, noise)[0] * (measured.control_noise * w).sqrt()
        sampling = normal(n_conditions, noise) * measured.condition_noise.sqrt()[:, None]
        between = normal(n_conditions, guides) * (prior.excess_by_condition * measured.condition_noise).sqrt()[:, None]
        shown = scaled @ single + combination * common + interaction + residual + specific + control
        shown[:, targets.columns] += design[:, targets.genes] * target
        solved = self._solve(measured.effect - shown - (sampling + between) * w.sqrt(), chosen)

        pull = scaled.T @ solved
        carried = torch.where(klass == SHARED, prior.shared_covariance @ pull, prior.independent_covariance @ pull)
        single = single + levels * inherits * carried
        # What another condition of these genes would differ by: it goes with them into combinations.
        single = single + of_genes() * (prior.residual_variance * levels * inherits * w).sqrt()
        single = single + of_genes(guides) * (prior.excess * measured.condition_noise.median() * w).sqrt()
        known = levels * inherits * combination
        condition = prior.interaction_variance * known + levels * (1 - inherits)
        return _Inherited(
            single=single.float(),
            common=common + prior.combination_variance * (known * solved).sum(0),
            condition=(interaction + specific + condition * solved).float(),
            target=target + TARGET_VARIANCE * (design[:, targets.genes] * solved[:, targets.columns]).sum(0),
            control=control + measured.control_noise * solved.sum(0),
            level_sd=sd,
            inherits=inherits,
        )

    def _solve(self, difference: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Inverse covariance of the measured effects (over w) times a difference to them, C x G."""
        targets, solved = self.conditional.targets, torch.empty_like(difference)
        chosen_of_targets = chosen[targets.columns]
        for at in torch.unique(chosen).tolist():
            genes = (chosen == at).nonzero().squeeze(1)
            m, level = divmod(at, len(LEVELS))
            covariance = self.conditional.covariances.at(m, level)
            solved[:, genes] = covariance.solve(difference[:, genes])
            # The rank-one update for the effects on targets, by the formula of Sherman and Morrison.
            t = (chosen_of_targets == at).nonzero().squeeze(1)
            x, columns = targets.perturbed[:, t], targets.columns[t]
            through = covariance.solve(x)
            pull = (x * solved[:, columns]).sum(0) / (1 / TARGET_VARIANCE + (x * through).sum(0))
            solved[:, columns] -= through * pull
        return solved
