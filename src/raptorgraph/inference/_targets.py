r"""Effects of perturbations on their own targets, as rank-one updates of the other effects.

On the column of its own target a perturbation i has one more effect :math:`h \sim N(0, \lambda w)`, which every
condition c that perturbs i (:math:`x_c = 1`, else 0) holds whole. That adds :math:`\lambda w x x^\top` to the
covariance :math:`w \Sigma` of the conditions on this one gene, so that the :math:`\Sigma^{-1}` of all other genes
serves here, too: with :math:`q = 1 / \lambda + x^\top \Sigma^{-1} x` the posterior of h has the mean
:math:`x^\top \Sigma^{-1} y / q` and the variance :math:`w / q`. ``docs/concepts/inference.md`` derives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import N_CLASSES

if TYPE_CHECKING:
    from raptorgraph.inference._covariances import Covariances
    from raptorgraph.inference._state import Measured

TARGET_VARIANCE = 64.0  # lambda
_AT_A_TIME = 512  # targets that are solved for


@dataclass(frozen=True)
class TargetEffects:
    """Posterior of the T effects on targets; of precision and mean by class and level (leading axes)."""

    genes: torch.Tensor  # T: positions among the perturbed genes
    columns: torch.Tensor  # T: columns of their targets
    perturbed: torch.Tensor  # x, C x T, 0/1: the conditions that hold each gene
    precision: torch.Tensor  # q
    mean: torch.Tensor

    @classmethod
    def given(
        cls, effect: torch.Tensor, measured: Measured, covariances: Covariances, where: torch.Tensor | None = None
    ) -> TargetEffects:
        """Condition on the effects of the conditions, C x G.

        Of the classes and levels all are conditioned on, or those of `where` (classes x levels x G).
        """
        genes = (measured.target_columns >= 0).nonzero().squeeze(1)
        columns, perturbed = measured.target_columns[genes], measured.design[:, genes]
        precision = torch.ones(N_CLASSES, len(LEVELS), len(genes), dtype=effect.dtype)
        mean = torch.zeros_like(precision)
        used = torch.ones_like(precision, dtype=torch.bool) if where is None else where[:, :, columns]
        for m, level in torch.nonzero(used.any(2)).tolist():
            for t in torch.split(used[m, level].nonzero().squeeze(1), _AT_A_TIME):
                x = perturbed[:, t]
                solved = covariances.at(m, level).solve(x)
                precision[m, level, t] = 1 / TARGET_VARIANCE + (solved * x).sum(0)
                mean[m, level, t] = (solved * effect[:, columns[t]]).sum(0) / precision[m, level, t]
        return cls(genes, columns, perturbed, precision, mean)

    def log_evidence(self) -> torch.Tensor:
        """How much likelier the update makes the measured effects (in units of noise), classes x levels x T."""
        return 0.5 * self.precision * self.mean**2 - 0.5 * torch.log(TARGET_VARIANCE * self.precision)

    def load(self, design: torch.Tensor, maps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Derivative of the effects of sets on some of the targets by the effects on these, sets x t.

        ``maps`` is the inverse covariance of the conditions at a class and level times their covariance with these sets
        without the update, C x sets.
        """
        return design[:, self.genes[t]] - maps.mT @ self.perturbed[:, t]
