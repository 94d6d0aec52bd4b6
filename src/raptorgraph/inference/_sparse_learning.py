r"""How sparse interactions are learned: from how far measured combinations are off what all others predict.

Interactions of normal size with one variance :math:`\ell \gamma_c w` take a gene that departs by many standard errors
for noise where most genes do not depart. So the interaction of a measured combination c on gene g has a second part s
with a heavy tail, as in adaptive shrinkage (ash),

.. math::
    s_{cg} \sim \sum_j \pi_{cj} N(0, v_j w_g), \qquad v \in \{0, 4, 16, 64, 256\},

with weights of each combination's own, which maximize the likelihood of how far it is off what all other conditions
predict (:class:`~raptorgraph.inference._own_variances.LeftOut`) times a Dirichlet prior that favors 0. What other sets
inherit is learned from the measured effects less the posterior mean of s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._own_variances import LeftOut, learn_own_variances
from raptorgraph.inference._prior import CONDITION_SPECIFIC
from raptorgraph.inference._sparse_interactions import SparseInteractions

if TYPE_CHECKING:
    from raptorgraph.inference._own_variances import Given

_VARIANCES = torch.tensor([0.0, 4.0, 16.0, 64.0, 256.0], dtype=torch.float64)  # over w
_NONE_COUNT = 30.0  # genes without one that each combination has a priori, besides one of each size
_N_STEPS = 30
_AT_A_TIME = 1e7  # numbers: combinations x genes x sizes
_INHERITS = 0.5  # probability from which a gene can have one


def learn_sparse_interactions(conditional: Given) -> SparseInteractions:
    """Learn those of all measured combinations, given what a posterior says of all else."""
    fitted = conditional.fitted  # without any
    own, w = learn_own_variances(conditional), fitted.measured.gene_noise
    found = [torch.zeros(len(own.rows), len(w), dtype=w.dtype) for _ in range(3)]
    size = max(1, int(_AT_A_TIME / (len(w) * len(_VARIANCES))))
    inherits = fitted.responsibility[:CONDITION_SPECIFIC].sum((0, 1))
    for chosen in torch.split(torch.arange(len(own.rows)), size):
        left_out = LeftOut(conditional, own, chosen)
        off, variance = left_out.averaged(left_out.off_of_its_own, 2)
        on_target = fitted.measured.design[own.rows[chosen]][:, conditional.targets.genes] > 0
        # Of what is known worse than the largest of them, as without cells, nothing is to be learned.
        closed = (inherits < _INHERITS) | (variance > _VARIANCES[-1])
        closed[:, conditional.targets.columns] |= on_target
        for values, part in zip(found, _posterior(off, variance, w, closed), strict=True):
            values[chosen] = part
    return SparseInteractions(own.rows, *found)


def _posterior(
    off: torch.Tensor, variance: torch.Tensor, w: torch.Tensor, closed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probability, center and spread of s, each P x G, by expectation and maximization over the weights."""
    variance = variance.clamp_min(1e-300)
    total = variance[:, :, None] + _VARIANCES
    log_density = -0.5 * (total.log() + (off**2 / w.clamp_min(1e-300))[:, :, None] / total)
    log_density[:, :, 1:].masked_fill_(closed[:, :, None], -torch.inf)
    prior = torch.ones_like(_VARIANCES)
    prior[0] = _NONE_COUNT
    weights = (prior / prior.sum()).expand(len(off), -1)
    for _ in range(_N_STEPS):
        share = torch.softmax(log_density + weights.log()[:, None], 2)
        counts = share.sum(1) + prior
        weights = counts / counts.sum(1, keepdim=True)
    share = torch.softmax(log_density + weights.log()[:, None], 2)[:, :, 1:]
    kept = _VARIANCES[1:] / total[:, :, 1:]
    probability = share.sum(2)
    share = share / probability.clamp_min(1e-300)[:, :, None]
    center = (share * kept).sum(2) * off
    spread = (share * kept).sum(2) * variance * w + (share * kept**2).sum(2) * off**2 - center**2
    return probability, center, spread.clamp_min(0.0)
