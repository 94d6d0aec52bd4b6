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
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_array

from raptorgraph.inference._combinations import larger_sd
from raptorgraph.inference._conditioning import same_sets
from raptorgraph.inference._gene_covariance import ExtendedCovariance, GeneCovariance
from raptorgraph.inference._loadings import correlated, standard_normal
from raptorgraph.inference._low_rank import sparse_times
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._own_variances import LeftOut
from raptorgraph.inference._prior import CONDITION_SPECIFIC, is_combination, scale_of
from raptorgraph.inference._targets import TARGET_VARIANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from raptorgraph.inference._combinations import Additivity
    from raptorgraph.inference._conditioning import Conditional
    from raptorgraph.inference._state import Covariance

_COMMON_EXCESS = 0.5  # part of the noise between conditions that is along what genes respond with alike
_JITTER = 1e-9
_MOST_KEPT = 4e8  # numbers of all draws that are kept for the next question
_MOST_DIAGONALS = 5e7  # numbers of the diagonals that are kept while draws are made


@dataclass(frozen=True)
class _Inherited:
    """What sets inherit, in one draw; or in n of them, as one more axis in front."""

    single: torch.Tensor  # k x G, with the residuals of the genes' conditions; or those of the genes that are kept
    common: torch.Tensor  # G: what all combinations have in common
    condition: torch.Tensor  # C x G: interactions, and effects that are specific to a condition; or those that are kept
    target: torch.Tensor  # T
    control: torch.Tensor  # G: error of the control cells, part of every measured effect
    level_sd: torch.Tensor  # G: prior SD of the effects of its level
    inherits: torch.Tensor  # G, 0/1: whether its class is not condition-specific

    @classmethod
    def stacked(cls, draws: Iterable[_Inherited], n: int) -> _Inherited:
        """So many draws along one axis, each put into its place as it comes: in a list they would be there twice."""
        found: dict[str, torch.Tensor] = {}
        for d, draw in enumerate(draws):
            for field in fields(cls):
                value: torch.Tensor = getattr(draw, field.name)
                if d == 0:
                    found[field.name] = value.new_empty(n, *value.shape)
                found[field.name][d] = value
        return cls(**found)


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
    places
        Shape (G,): columns of the draws, in the order in which they are asked for; by default their own.
    """

    def __init__(
        self,
        conditional: Conditional,
        additivity: Additivity,
        n_draws: int,
        seed: int,
        *,
        places: torch.Tensor | None = None,
    ) -> None:
        self.conditional, self.additivity = conditional, additivity
        self.n_draws, self.seed, self.places = n_draws, seed, places
        fitted = conditional.fitted
        design, prior = fitted.measured.design, fitted.hyperparameters
        generator = torch.Generator().manual_seed(seed)
        responsibility = fitted.responsibility.flatten(0, 1).T
        self._chosen = torch.multinomial(responsibility, n_draws, replacement=True, generator=generator).T
        self._coefficients, self._spread, self._size = additivity.draw(n_draws, generator)
        self._state = generator.get_state()
        self._n_others = int((design.sum(0) == 0).sum())
        self._roots = _root(prior.shared_covariance), _root(prior.independent_covariance)
        shared = prior.shared_covariance
        shared = shared.perturbed if isinstance(shared, ExtendedCovariance) else shared
        self._n_directions = shared.loadings.shape[1] if isinstance(shared, GeneCovariance) else 0
        self._departures = self._measured_departures()
        self._left_out = LeftOut(conditional, additivity.own)
        self._diagonals: dict[int, torch.Tensor] = {}
        # Of many genes and conditions those alone are kept that are asked for, and drawn again when others are.
        n_rows = design.shape[0] + design.shape[1]
        self._keeps_all = n_draws * n_rows * fitted.measured.effect.shape[1] <= _MOST_KEPT
        self._genes, self._conditions = (torch.zeros(n, dtype=torch.bool) for n in design.T.shape)
        self._inherited: _Inherited | None = None

    def effects(self, design: torch.Tensor, *, controls: bool = False) -> torch.Tensor:
        """Draws of the effects of sets (sets x k, 0/1), draws x sets x G.

        They are differences to the mean that the control cells are a sample of; with `controls` to these very cells.
        """
        measured = self.conditional.fitted.measured
        drawn = self._drawn(design)
        out = torch.empty(self.n_draws, len(design), measured.effect.shape[1], dtype=torch.float64)
        for s, row in enumerate(design):
            effect = torch.maximum(self._effect(row, drawn, controls), measured.lowest)
            out[:, s] = effect if self.places is None else effect[:, self.places]
        return out

    def _drawn(self, design: torch.Tensor) -> _Inherited:
        """What these sets inherit."""
        genes, conditions = design.sum(0) > 0, same_sets(design, self.conditional.fitted.measured.design).any(0)
        asked = bool((genes <= self._genes).all() and (conditions <= self._conditions).all())
        if self._inherited is None or not asked:
            self._inherited = None  # frees memory
            self._genes, self._conditions = genes | self._keeps_all, conditions | self._keeps_all
            generator = torch.Generator()
            generator.set_state(self._state)
            # Genes that were not perturbed come last, and have normal variables of their own: those of others stay.
            others, sparse = (torch.Generator().manual_seed(self.seed + i) for i in (1, 2))
            draws = (self._draw(d, at, generator, others, sparse) for d, at in enumerate(self._chosen))
            self._inherited = _Inherited.stacked(draws, self.n_draws)
        return self._inherited

    def _effect(self, row: torch.Tensor, drawn: _Inherited, controls: bool) -> torch.Tensor:
        """Draws of the effect of one set, draws x G."""
        fitted = self.conditional.fitted
        prior, targets = fitted.hyperparameters, self.conditional.targets
        is_pair = bool(is_combination(row[None])[0])
        same = (fitted.measured.design == row).all(1).nonzero().squeeze(1)[:1]
        off, size, generator = self._own(row)
        usual = prior.scale_by_condition[same] if len(same) else scale_of(prior, row[None])
        scale = usual.expand(self.n_draws)
        if is_pair and not len(same):
            known = torch.cat([torch.ones(1, dtype=torch.float64), self.additivity.deviation(row[None])])
            spread = (self._spread**2 + larger_sd(row[None]) ** 2).sqrt()
            scale = scale * (1 + self._coefficients @ known + spread * off)
        effect = scale[:, None] * drawn.single[:, (row > 0)[self._genes]].double().sum(1)
        if controls:
            effect = effect + drawn.control
        effect[:, targets.columns] += row[targets.genes] * drawn.target
        if is_pair:
            effect = effect + drawn.common
        if len(same):
            return effect + drawn.condition[:, self._conditions[: same[0]].sum()]
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

    def _draw(
        self, d: int, chosen: torch.Tensor, generator: torch.Generator, others: torch.Generator, rare: torch.Generator
    ) -> _Inherited:
        """Draw from the prior and correct it; `chosen` is the class and level of each gene, as one index."""
        fitted, targets = self.conditional.fitted, self.conditional.targets
        measured, prior = fitted.measured, fitted.hyperparameters
        programs, noise = self.additivity.programs, measured.noise_loadings
        guides = programs * _COMMON_EXCESS**0.5
        design, w = measured.design, measured.gene_noise
        (n_conditions, k), combination = design.shape, is_combination(design)
        klass, levels = chosen // len(LEVELS), LEVELS[chosen % len(LEVELS)]
        inherits = (klass != CONDITION_SPECIFIC).double()
        sd, several = (levels * w).sqrt(), combination.nonzero().squeeze(1)
        scaled = csr_array((design * prior.scale_by_condition[:, None]).numpy())
        between = prior.excess_by_condition * measured.condition_noise
        several_between = between[several]
        between[several] = 0.0  # theirs is drawn by itself

        def normal(n: int, loadings: torch.Tensor = programs) -> torch.Tensor:
            return correlated(loadings, n, generator)

        def of_genes(draw: Callable[[int, torch.Generator], torch.Tensor]) -> torch.Tensor:
            return torch.cat([draw(k - self._n_others, generator), draw(self._n_others, others)])

        white = of_genes(partial(correlated, programs))
        directions = normal(self._n_directions)
        single = torch.empty_like(white)
        for m, root in enumerate(self._roots):
            at = (klass == m).nonzero().squeeze(1)
            single[:, at] = root(white[:, at], directions[:, at]) * sd[at]
        single[:, inherits == 0] = 0.0
        common = normal(1)[0] * prior.combination_variance.sqrt() * sd * inherits
        condition = torch.zeros(n_conditions, len(w), dtype=w.dtype)
        interaction = normal(len(several)) * prior.interaction_variance.sqrt() * sd * inherits
        inherited = sparse_times(scaled[several.numpy()], self.additivity.single_effects)
        condition[several] = interaction + self._departures[d, several, None] * inherited
        specific = (inherits == 0).nonzero().squeeze(1)
        condition[:, specific] += correlated(programs[specific], n_conditions, generator) * sd[specific]
        target = torch.randn(len(targets.genes), generator=generator, dtype=torch.float64)
        target = target * (TARGET_VARIANCE * w[targets.columns]).sqrt()
        control = normal(1, noise)[0] * (measured.control_noise * w).sqrt()
        of_batches = measured.control_loadings @ (normal(measured.control_loadings.shape[1], noise) * w.sqrt())
        residual = prior.residual_variance * levels * inherits
        one = torch.ones_like(between)
        parts = [(programs, one, residual * w), (noise, measured.condition_noise, w), (guides, between, w)]
        shown = sparse_times(scaled, single) + condition + control + of_batches + _sum_of_normals(parts, generator)
        shown += combination[:, None] * common
        noise_of_several = normal(len(several), guides) * torch.outer(several_between, w).sqrt()
        shown[several] += noise_of_several
        shown[:, targets.columns] += targets.perturbed * target
        sparse = 0.0 if fitted.sparse is None else fitted.sparse.draw(rare)
        shown[several] += sparse
        solved = self._solve(measured.effect - shown, chosen)
        del shown
        condition[several] += self._by_own_variances(solved[several], chosen, interaction, noise_of_several) + sparse

        pull = sparse_times(csr_array(scaled.T), solved)
        for m, covariance in enumerate((prior.shared_covariance, prior.independent_covariance)):
            at = (klass == m).nonzero().squeeze(1)
            single[:, at] += levels[at] * (covariance @ pull[:, at])
        # What another condition of these genes would differ by: it goes with them into combinations.
        one, excess = torch.ones(k, dtype=w.dtype), prior.excess * measured.condition_noise.median() * w
        parts = [(programs, one, residual * w), (guides, one, excess)]
        single += of_genes(lambda n, source: _sum_of_normals([(L, a[:n], b) for L, a, b in parts], source))
        known = levels * inherits
        own = torch.outer(prior.interaction_variance * combination, known) + levels * (1 - inherits)
        kept = self._conditions
        return _Inherited(
            single=single[self._genes].float(),
            common=common + prior.combination_variance * known * (combination @ solved),
            condition=(condition[kept] + own[kept] * solved[kept]).float(),
            target=target + TARGET_VARIANCE * (targets.perturbed * solved[:, targets.columns]).sum(0),
            control=control + measured.control_noise * solved.sum(0),
            level_sd=sd,
            inherits=inherits,
        )

    def _by_own_variances(
        self, solved: torch.Tensor, chosen: torch.Tensor, interaction: torch.Tensor, between: torch.Tensor
    ) -> torch.Tensor:
        """What the effects of measured combinations change by if they have variances of their own, P x G.

        `solved` is the inverse covariance times the difference of what was measured to what was drawn, and the others
        are what was drawn of their interaction and of the noise between conditions. Both grow with their variance;
        with the new difference d the effect is updated by d - (1 - b) (d - u), u being what all others say of it.
        """
        left_out = self._left_out
        klass, levels = chosen // len(LEVELS), LEVELS[chosen % len(LEVELS)]
        noise, more = left_out.unshared((klass != CONDITION_SPECIFIC).double(), levels)
        usual = noise + (left_out.usual[1] - left_out.own[1])[:, None]
        precision, of_controls = self._diagonals_of(chosen)
        total = 1 / precision
        grown = [(own / before.clamp_min(1e-300)).sqrt()[:, None] - 1 for own, before in self._ratios()]
        change = grown[0] * interaction + grown[1] * between
        off = total * solved - change
        found = grown[0] * interaction - change + usual * solved - noise / (total + more) * off
        return found if of_controls is None else found + of_controls * (change + more * off / (total + more))

    def _ratios(self) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """Variances of interactions and of noise between conditions: their own, and those of the prior."""
        own, prior = self.additivity.own, self.conditional.fitted.hyperparameters
        usual = prior.interaction_variance.expand(len(own.rows)), prior.excess_by_condition[own.rows]
        return (own.interaction, usual[0]), (own.excess, usual[1])

    def _diagonals_of(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Diagonal q for the measured combinations and each gene in its class and level, and that of Sigma^-1 L L'.

        Each is P x G, the latter None where controls are of one batch.
        """
        targets, with_batches = self.conditional.targets, self.conditional.fitted.measured.control_loadings.shape[1] > 0
        found = torch.empty(1 + with_batches, len(self._left_out.rows), len(chosen), dtype=torch.float64)
        for at in torch.unique(chosen).tolist():
            m, level = divmod(at, len(LEVELS))
            known = self._diagonals.get(at)
            if known is None:
                inverse = self._left_out.inverse(m, level)
                every = torch.arange(len(targets.columns))
                parts = (
                    inverse[self._left_out.rows].diagonal()[:, None],
                    self._left_out.precision(inverse, m, level, every),
                )
                of_controls = self._left_out.of_controls(m, level, every)[:1] if with_batches else ()
                known = torch.stack([torch.cat(parts, 1), *of_controls])
                n_kept = sum(each.numel() for each in self._diagonals.values())
                if n_kept + known.numel() > _MOST_DIAGONALS:  # of thousands of combinations they would take all memory
                    self._diagonals.clear()
                self._diagonals[at] = known
            genes = (chosen == at).nonzero().squeeze(1)
            found[:, :, genes] = known[:, :, 1 + self.conditional.target_of[genes]]
        return found[0], found[1] if with_batches else None

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
            if not len(t):
                continue
            x, columns = targets.perturbed[:, t], targets.columns[t]
            through = covariance.solve(x)
            pull = (x * solved[:, columns]).sum(0) / (1 / TARGET_VARIANCE + (x * through).sum(0))
            solved[:, columns] -= through * pull
        return solved


def _root(covariance: Covariance) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Function that gives normal vectors of the genes this covariance."""
    if not isinstance(covariance, torch.Tensor):
        return covariance.root_times
    factor = torch.linalg.cholesky(covariance + _JITTER * torch.eye(len(covariance), dtype=covariance.dtype))
    return lambda own, directions: factor @ own


def _sum_of_normals(
    parts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], generator: torch.Generator
) -> torch.Tensor:
    """Sum of normal vectors of the genes, n x G, each with loadings and the variance of rows times that of genes.

    What genes do not share is drawn once for all: the sum of independent normal variables is one.
    """
    shape = len(parts[0][1]), len(parts[0][2])
    variance, total = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for loadings, of_rows, of_genes in parts:
        own = of_genes * (1 - (loadings**2).sum(1)).clamp_min(0.0)
        variance += torch.outer(of_rows, own)
        common = torch.randn(len(of_rows), loadings.shape[1], generator=generator, dtype=torch.float64)
        total += (of_rows.sqrt()[:, None] * common) @ (of_genes.sqrt()[:, None] * loadings).T
    return total.add_(standard_normal(shape, generator) * variance.sqrt_())
