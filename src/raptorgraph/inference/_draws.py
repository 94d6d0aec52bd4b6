r"""Joint draws of the effects of several sets of genes.

Given its class m and level :math:`\ell`, the effects of the sets on one gene are jointly normal. With the covariance C
of the sets with the conditions, S of the sets without the residuals of conditions, and :math:`\Sigma` of the measured
effects, a draw is

.. math::
    C \Sigma^{-1} y + \sqrt{w} L \xi, \qquad L L^\top = S - C \Sigma^{-1} C^\top, \quad \xi \sim N(0, I),

and on a target, where one more effect h is unknown, :math:`(x - C \Sigma^{-1} x_c) h` comes to it with h from its
posterior (:mod:`raptorgraph.inference._targets`). Class and level are drawn first, each by its responsibility.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import CONDITION_SPECIFIC, signals

if TYPE_CHECKING:
    from raptorgraph.inference._conditioning import Conditional, Sets


def draw_sets(
    conditional: Conditional, sets: Sets, n_draws: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draws of the gene-set effects about the posterior mean, n_draws x sets x G."""
    measured, targets = conditional.fitted.measured, conditional.targets
    cross = sets.measured_cross(conditional.fitted)
    maps = torch.cholesky_solve(cross.mT, conditional.factor)
    root = _root(conditional, sets, cross @ maps)
    n_sets, n_genes = len(sets.design), measured.effect.shape[1]
    responsibility = conditional.fitted.responsibility.flatten(0, 1).T
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


def _root(conditional: Conditional, sets: Sets, known: torch.Tensor) -> torch.Tensor:
    """Cholesky factors L of the covariance that is left among the sets, classes x levels x sets x sets."""
    prior = conditional.fitted.hyperparameters
    eye = torch.eye(len(sets.design), dtype=known.dtype)
    covariance = signals(prior, sets.design)
    covariance[:CONDITION_SPECIFIC] -= prior.residual_variance * eye
    left = LEVELS[:, None, None] * covariance[:, None] + conditional.fitted.measured.control_noise - known
    jitter = 1e-9 * left.diagonal(dim1=2, dim2=3).mean(2).clamp_min(1e-12)
    root: torch.Tensor = torch.linalg.cholesky(left + jitter[..., None, None] * eye)
    return root
