"""Prior of the effects of sets of genes: covariances between sets, and the noise of their measurements.

Symbols are those of ``docs/concepts/inference.md``, which has a table of them with their names in the code; those of
what is measured and learned stand at the fields in ``_state.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.sparse import csr_array

from raptorgraph.inference._scales import usual_scale

if TYPE_CHECKING:
    from raptorgraph.inference._state import Covariance, Hyperparameters, Measured

# Classes of genes.
SHARED, INDEPENDENT, CONDITION_SPECIFIC = range(3)
N_CLASSES = 3


def is_combination(design: torch.Tensor) -> torch.Tensor:
    """1 for sets of two genes or more, and 0 for others."""
    return (design.sum(1) > 1).to(design.dtype)


def inherited(
    prior: Hyperparameters,
    design: torch.Tensor,
    scale: torch.Tensor,
    conditions: torch.Tensor,
    *,
    by_size: bool = False,
) -> torch.Tensor:
    """Covariance of the sets in `design` (sets x k) with the conditions (C x k) by what they inherit.

    That is the effects of their genes, and what all combinations have in common; classes x sets x C. `scale` is that of
    each set. With `by_size` it is the covariance of the mean over all sets as large as each in `design`, in place of
    that set.
    """
    combination = is_combination(design)
    design = design.mean(1, keepdim=True).expand_as(design) if by_size else design
    left, right = design * scale[:, None], conditions * prior.scale_by_condition[:, None]
    common = prior.combination_variance * torch.outer(combination, is_combination(conditions))
    shared, independent = (
        _between(left, covariance, right) + common
        for covariance in (prior.shared_covariance, prior.independent_covariance)
    )
    return torch.stack([shared, independent, torch.zeros_like(common)])


def inherited_variance(prior: Hyperparameters, design: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Prior variance of sets by what they inherit (see :func:`inherited`), classes x sets."""
    scaled = design * scale[:, None]
    common = prior.combination_variance * is_combination(design)
    shared = ((scaled @ prior.shared_covariance) * scaled).sum(1) + common
    independent = ((scaled @ prior.independent_covariance) * scaled).sum(1) + common
    return torch.stack([shared, independent, torch.zeros_like(common)])


def scale_of(prior: Hyperparameters, design: torch.Tensor, *, by_size: bool = False) -> torch.Tensor:
    """Usual scale of the single effects in each set; measured ones have their own, `scale_by_condition`.

    Combinations with a gene that was not perturbed alone have a separate scale: the size of an effect that only
    they show is no evidence of how effects add up.
    """
    unseen = torch.zeros_like(prior.unseen) if by_size else prior.unseen
    return usual_scale(design, unseen, prior.scale, prior.unseen_scale)


def signals(prior: Hyperparameters, design: torch.Tensor) -> torch.Tensor:
    """Prior covariance S of the effects of the conditions (C x k), classes x C x C."""
    residual = torch.diag(prior.interaction_variance * is_combination(design) + prior.residual_variance)
    eye = torch.eye(len(design), dtype=design.dtype)
    return inherited(prior, design, prior.scale_by_condition, design) + torch.stack([residual, residual, eye])


def noise(prior: Hyperparameters, measured: Measured, noise_fraction: float = 1.0) -> torch.Tensor:
    """Covariance N of the errors of measurement, in units in which a typical sampling variance is 1."""
    conditions = noise_fraction * (1 + prior.excess_by_condition) * measured.condition_noise
    return torch.diag(conditions) + measured.control_noise + measured.control_loadings @ measured.control_loadings.T


def _between(left: torch.Tensor, covariance: Covariance, right: torch.Tensor) -> torch.Tensor:
    """Covariance between scaled sets, of which those on the right hold few of many genes."""
    if isinstance(covariance, torch.Tensor):
        return left @ covariance @ right.T
    product: torch.Tensor = torch.from_numpy(csr_array(right.numpy()) @ (left @ covariance).T.numpy()).T
    return product


def along_graph(graph: torch.Tensor | None, k: int) -> torch.Tensor:
    """Covariance of the effects on a gene that few perturbations move directly, k x k with mean diagonal 1.

    Direct effects b are independent, and the graph W carries them on: e = (I - W)^-1 b.
    """
    eye = torch.eye(k, dtype=torch.float64)
    if graph is None:
        return eye
    total = torch.linalg.inv(eye - graph)
    covariance: torch.Tensor = total @ total.T
    return covariance / covariance.diagonal().mean()
