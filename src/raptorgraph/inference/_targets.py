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

if TYPE_CHECKING:
    from raptorgraph.inference._state import Measured

TARGET_VARIANCE = 64.0  # lambda


@dataclass(frozen=True)
class TargetEffects:
    """Posterior of the T effects on targets, by class and level (leading axes but of the first two fields)."""

    genes: torch.Tensor  # T: positions among the perturbed genes
    columns: torch.Tensor  # T: columns of their targets
    solved: torch.Tensor  # C x T: inverse covariance times x
    data: torch.Tensor  # C x T: inverse covariance times the measured effects on the target
    precision: torch.Tensor  # T: q
    mean: torch.Tensor  # T

    @classmethod
    def given(cls, effect: torch.Tensor, measured: Measured, factor: torch.Tensor) -> TargetEffects:
        """Condition on the effects of the conditions (C x G), whose covariances have these Cholesky factors."""
        genes = (measured.target_columns >= 0).nonzero().squeeze(1)
        columns = measured.target_columns[genes]
        perturbed = measured.design[:, genes]
        both = torch.cat([perturbed, effect[:, columns]], 1).expand(*factor.shape[:2], -1, -1)
        solved, data = torch.cholesky_solve(both, factor).chunk(2, -1)
        precision = 1 / TARGET_VARIANCE + (solved * perturbed).sum(2)
        return cls(genes, columns, solved, data, precision, (data * perturbed).sum(2) / precision)

    def log_evidence(self) -> torch.Tensor:
        """How much likelier the update makes the measured effects (in units of noise), classes x levels x T."""
        return 0.5 * self.precision * self.mean**2 - 0.5 * torch.log(TARGET_VARIANCE * self.precision)

    def carried_over(self, design: torch.Tensor, cross: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of other sets on the targets, and its derivative by the effect on the target.

        ``cross`` is the covariance of these sets with the conditions without the update, classes x levels x sets x C;
        both answers are classes x levels x sets x T.
        """
        load = design[:, self.genes] - cross @ self.solved
        return cross @ self.data + load * self.mean[:, :, None], load
