r"""How strongly each measured combination interacts, and how noisy it is: variances of its own.

The prior gives all combinations interactions of one variance :math:`\gamma`, and what single genes and other sets
inherit follows from it. A measured combination c itself is known better: all other conditions predict what it would
show, and how far it is off says whether it interacts. With :math:`z = \Sigma^{-1} y` and
:math:`q_c = (\Sigma^{-1})_{cc}` it is off by :math:`z_c / q_c`, of the variance :math:`w / q_c` a priori. Of that

.. math::
    V_c = 1 / q_c - \ell (\gamma + \omega) - (1 + \kappa_c) / n_c

is what the others leave open. :math:`\gamma_c` and :math:`\kappa_c` of its own, log-normal about :math:`\gamma` and
:math:`\kappa`, follow from how far all genes are off. The effect of the set, which is inherited and interaction, has

.. math::
    \operatorname{E}[e_c] = y_c - (1 - b_c) \frac{z_c}{q_c}, \qquad
    \operatorname{Var}[e_c] = w\, b_c\, (\ell \omega + (1 + \kappa_c) / n_c), \qquad
    b_c = \frac{V_c + \ell \gamma_c}{V_c + \ell (\gamma_c + \omega) + (1 + \kappa_c) / n_c}.

With :math:`\gamma_c = \gamma` and the :math:`\kappa_c` of the prior these are the moments of the whole model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch

from raptorgraph.inference._combinations import OwnVariances
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import CONDITION_SPECIFIC, inherited, is_combination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from raptorgraph.inference._covariances import Covariances
    from raptorgraph.inference._state import Fitted
    from raptorgraph.inference._targets import TargetEffects

_GRID = torch.linspace(-5.0, 5.0, 41, dtype=torch.float64)  # of the logarithms of both, less that of the typical one


class Given(Protocol):
    """Distribution of effects given the measured effects, of which this is asked."""

    fitted: Fitted
    effect: torch.Tensor
    noise_fraction: float
    covariances: Covariances
    targets: TargetEffects
    target_of: torch.Tensor

    def used(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Classes and levels with the genes that may be of them."""

    def among_targets(self, genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of these genes are targets, and of which effect on targets."""


class LeftOut:
    """What all other conditions say of measured combinations, at each class and level.

    Parameters
    ----------
    conditional
        Posterior given class and level.
    own
        Variances of the combinations.
    chosen
        Positions in ``own.rows``; by default all.
    """

    def __init__(self, conditional: Given, own: OwnVariances, chosen: torch.Tensor | None = None) -> None:
        chosen = torch.arange(len(own.rows)) if chosen is None else chosen
        self._conditional, self.rows = conditional, own.rows[chosen]
        prior, measured = conditional.fitted.hyperparameters, conditional.fitted.measured
        sparse = conditional.fitted.sparse
        noise = conditional.noise_fraction * measured.condition_noise[self.rows]
        self.residual = prior.residual_variance
        self.usual = prior.interaction_variance, noise * (1 + prior.excess_by_condition[self.rows])
        self.own = own.interaction[chosen], noise * (1 + own.excess[chosen])
        self._sparse = None if sparse is None else sparse.of_rows(chosen)
        loadings = measured.control_loadings
        self._shared = loadings @ loadings[self.rows].T if loadings.shape[1] else None  # L L', C x P

    def inverse(self, m: int, level: int) -> torch.Tensor:
        """Columns of the inverse covariance of the conditions without effects on targets, C x P."""
        unit = torch.zeros(len(self._conditional.fitted.measured.design), len(self.rows), dtype=torch.float64)
        unit[self.rows, torch.arange(len(self.rows))] = 1.0
        return self._conditional.covariances.at(m, level).solve(unit)

    def precision(self, inverse: torch.Tensor, m: int, level: int, targets: torch.Tensor) -> torch.Tensor:
        """Diagonal q of the inverse covariance with the effects on some of the targets, P x targets."""
        of_targets = self._conditional.targets
        through = inverse.mT @ of_targets.perturbed[:, targets]
        return inverse[self.rows].diagonal()[:, None] - through**2 / of_targets.precision[m, level, targets]

    def of_controls(self, m: int, level: int, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Of the error that the controls of its batches make in a combination: L L' times the inverse covariance.

        The diagonals of :math:`\Sigma^{-1} L L^\top` and :math:`L L^\top \Sigma^{-1} L L^\top`, without effects on
        targets and then with those on some of the targets, each P x (1 + targets).
        """
        assert self._shared is not None
        inverse, covariance = self.inverse(m, level), self._conditional.covariances.at(m, level)
        x, q = (self._conditional.targets.perturbed[:, targets], self._conditional.targets.precision[m, level, targets])
        through = covariance.solve(self._shared)
        pulled = through.mT @ x
        own, both = (inverse * self._shared).sum(0)[:, None], (through * self._shared).sum(0)[:, None]
        with_targets = own - (inverse.mT @ x) * pulled / q, both - pulled**2 / q
        return torch.cat([own, with_targets[0]], 1), torch.cat([both, with_targets[1]], 1)

    def off(self, m: int, level: int, genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How far combinations are off, and the variance of that over w, each P x genes."""
        inverse = self.inverse(m, level)
        precision = inverse[self.rows].diagonal()[:, None].repeat(1, len(genes))
        z = self._times_effects(inverse, m, level, genes)
        at, t = self._conditional.among_targets(genes)
        precision[:, at] = self.precision(inverse, m, level, t)
        return z / precision, 1 / precision

    def averaged(self, parts: Callable[[int, int, torch.Tensor], Sequence[torch.Tensor]], n: int) -> list[torch.Tensor]:
        """Average each of n parts (of a class, a level and genes, P x genes) over those that are inherited, P x G."""
        responsibility = self._conditional.fitted.responsibility
        found = [torch.zeros(len(self.rows), responsibility.shape[2], dtype=torch.float64) for _ in range(n)]
        total = responsibility[:CONDITION_SPECIFIC].sum((0, 1)).clamp_min(1e-300)
        for m, level, genes in self._conditional.used():
            if m != CONDITION_SPECIFIC:
                weight = responsibility[m, level, genes] / total[genes]
                for mean, part in zip(found, parts(m, level, genes), strict=True):
                    mean[:, genes] += weight * part
        return found

    def off_of_its_own(self, m: int, level: int, genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How far combinations are off, and the variance of that over w by variances of their own, each P x genes."""
        off, usual = self.off(m, level, genes)
        return off, usual + self.unshared(m != CONDITION_SPECIFIC, LEVELS[level])[1]

    def compared(self, m: int, level: int, genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sum of the effects of the genes of each combination as all others have it, and :meth:`off_of_its_own`."""
        fitted, conditions = self._conditional.fitted, self._conditional.fitted.measured.design
        design = conditions[self.rows]
        single = replace(fitted.hyperparameters, combination_variance=torch.zeros((), dtype=torch.float64))
        cross = LEVELS[level] * inherited(single, design, torch.ones_like(design[:, 0]), conditions)[m]
        maps = self._conditional.covariances.at(m, level).solve(cross.mT)
        off, variance = self.off_of_its_own(m, level, genes)
        # What a combination shows is replaced by what the others say that it would.
        own = maps[self.rows].diagonal()[:, None]
        return self._times_effects(maps, m, level, genes) - own * off, off, variance

    def _times_effects(self, columns: torch.Tensor, m: int, level: int, genes: torch.Tensor) -> torch.Tensor:
        """Products of columns (C x P) with the measured effects less those that are expected on targets, P x genes."""
        of_targets, effect = self._conditional.targets, self._conditional.effect
        found = columns.mT @ effect[:, genes]
        at, t = self._conditional.among_targets(genes)
        found[:, at] -= columns.mT @ of_targets.perturbed[:, t] * of_targets.mean[m, level, t]
        return found

    def unshared(self, inherits: torch.Tensor | bool, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Variance of what is no effect of the set, l omega + (1 + kappa_c) / n_c, and what is more than usual.

        The latter is by how much the variance of a combination is larger than in the prior. `inherits` and `level` are
        those of genes, and so are the columns of both (P rows).
        """
        inherits = torch.as_tensor(inherits, dtype=torch.float64)
        noise = level * inherits * self.residual + self.own[1][:, None]
        more = level * inherits * (self.own[0] - self.usual[0])[:, None] + (self.own[1] - self.usual[1])[:, None]
        return noise, more

    def moments(self, m: int, level: int, genes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of the effects of the sets, and their variance over w, each P x genes."""
        off, usual = self.off(m, level, genes)
        noise, more = self.unshared(m != CONDITION_SPECIFIC, LEVELS[level])
        total = usual + more
        part = (noise / total).clamp_max(1.0)  # 1 - b
        mean, variance = self._conditional.effect[self.rows][:, genes] - part * off, (1 - part) * noise
        if self._shared is not None:
            # The error of the controls of its batches is no effect either, and other conditions tell of it, too.
            at, t = self._conditional.among_targets(genes)
            column = torch.zeros(len(genes), dtype=torch.long)
            column[at] = 1 + torch.arange(len(t))
            own, both = (x[:, column] for x in self.of_controls(m, level, t))
            through = self._conditional.covariances.at(m, level).solve(self._shared)
            mean -= self._times_effects(through, m, level, genes) - own * more * off / total
            left = self._shared[self.rows].diagonal()[:, None] - both + own**2 * more * usual / total
            variance = (variance + left - 2 * noise * own * usual / total).clamp_min(0.0)
            part = part + own * usual / total
        if self._sparse is not None:  # of the error in what was taken out, this part is an error of the effect
            mean += self._sparse.mean[:, genes]
            variance += part**2 * self._sparse.variance[:, genes] / self._conditional.fitted.measured.gene_noise[genes]
        return mean, variance

    def passed_on(self, m: int, level: int) -> torch.Tensor:
        """Part of what others predict that is left in the effect of a set, over that with the prior's variances, P."""
        total = 1 / self.inverse(m, level)[self.rows].diagonal()[:, None]
        noise, more = self.unshared(m != CONDITION_SPECIFIC, LEVELS[level])
        usual = noise - self.own[1][:, None] + self.usual[1][:, None]
        return ((noise / (total + more)) / (usual / total)).squeeze(1)


def learn_own_variances(conditional: Given) -> OwnVariances:
    """Learn the variances of each measured combination from how far it is off what all others predict.

    Genes are taken as independent, with the probabilities of their classes and levels as they are; means over a grid.
    """
    fitted = conditional.fitted
    prior, measured = fitted.hyperparameters, fitted.measured
    rows = (is_combination(measured.design) > 0).nonzero().squeeze(1)
    usual = OwnVariances(
        rows, prior.interaction_variance.expand(len(rows)).clone(), prior.excess_by_condition[rows].clone()
    )
    if not len(rows):
        return usual
    left_out = LeftOut(conditional, usual)
    n = len(_GRID)
    log_density = torch.zeros(len(rows), n, n, dtype=torch.float64) - 0.5 * (_GRID[:, None] ** 2 + _GRID**2)
    interaction, excess = prior.interaction_variance * _GRID.exp(), prior.excess * _GRID.exp()
    noise = measured.condition_noise[rows][:, None] * (1 + excess)
    for m, level, genes in conditional.used():
        genes = genes[conditional.target_of[genes] < 0]
        off, total = left_out.off(m, level, genes)
        if not len(genes):
            continue
        weight = fitted.responsibility[m, level, genes]
        square = (off**2 * (weight / measured.gene_noise[genes])).sum(1)[:, None, None]
        inherits = LEVELS[level] * (m != CONDITION_SPECIFIC)
        open_ = total[:, 0] - inherits * prior.interaction_variance - left_out.usual[1]
        variance = open_[:, None, None] + inherits * interaction[:, None] + noise[:, None, :]
        log_density -= 0.5 * (weight.sum() * variance.log() + square / variance)
    if bool((prior.excess_by_condition == prior.excess).all()):  # one noise for all conditions
        log_density[:, :, _GRID != 0] = -torch.inf
    probability = torch.softmax(log_density.flatten(1), 1).view_as(log_density)
    mean = [(probability.sum(other) @ _GRID).exp() for other in (2, 1)]
    return OwnVariances(rows, prior.interaction_variance * mean[0], prior.excess * mean[1])
