"""What is learned from all genes: the hyperparameters of the prior, and the class and level of every gene."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS, GeneMixture
from raptorgraph.inference._prior import (
    CONDITION_SPECIFIC,
    INDEPENDENT,
    N_CLASSES,
    factors,
    noise,
    signals,
)
from raptorgraph.inference._state import Fitted, Hyperparameters, Measured
from raptorgraph.inference._targets import TargetEffects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptorgraph.inference._config import EffectPosteriorConfig

# Prior medians, with a log SD of 1.
MEDIANS = {"combination_variance": 0.02, "interaction_variance": 0.15, "residual_variance": 0.03, "excess": 1.0}
_SCALE_SD = 0.15  # of the log scale of combinations, a priori
_OVERSHOOT, _HALF = 0.35, 0.7  # most by which sums are expected to overshoot; excess where it is half of that
# Without combinations, condition-specific and independent effects are not identified. The weight of the former is
# therefore fixed, and it takes levels from 16 on, where those of the latter end.
_CONDITION_SPECIFIC_WEIGHT, _BORDER = 0.01, 6
_CLOSED = -1e4  # log weight of what cannot be
_LEARNING_RATE = 0.08


def learn(
    measured: Measured,
    independent_covariance: torch.Tensor,
    config: EffectPosteriorConfig,
    *,
    n_steps: int,
    n_fit_genes: int,
    rank: int,
) -> Fitted:
    """Maximize the marginal likelihood times the prior of the hyperparameters; then classify every gene.

    Arguments are those of :meth:`EffectPosterior.fit`, ``independent_covariance`` that of :func:`along_graph`.
    """
    design = measured.design
    scaled = measured.effect / measured.gene_noise.sqrt()
    closed = _closed_classes(measured, config)
    seen = design[design.sum(1) == 1].sum(0) > 0
    sample = _fit_genes(measured, n_fit_genes)
    y = scaled[:, sample]
    free = free_parameters(design, y, rank)
    if not config.excess_by_condition:
        free["deviation"].requires_grad_(False)

    def mixture(prior: Hyperparameters, genes: torch.Tensor | slice) -> GeneMixture:
        weights = prior.log_weights[:, :, None] + closed[:, :, genes]
        return GeneMixture(signals(prior, design), noise(prior, measured), weights)

    optimizer = torch.optim.Adam([value for value in free.values() if value.requires_grad], lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_steps):
        optimizer.zero_grad()
        gain, _ = mixture(hyperparameters(free, seen, independent_covariance), sample).objective(y)
        loss = (penalty(free, config.overshoot) - gain) / len(sample)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        prior = hyperparameters(free, seen, independent_covariance)
        if not (design.sum(1) > 1).any():
            prior = replace(prior, scale=expected_scale(prior.excess, config.overshoot))
        density = mixture(prior, slice(None)).log_density(scaled)
        targets = TargetEffects.given(scaled, measured, factors(prior, measured))
        density[:, :, targets.columns] += targets.log_evidence()
        return Fitted(measured, prior, torch.softmax(density.flatten(0, 1), 0).view_as(density))


def _closed_classes(measured: Measured, config: EffectPosteriorConfig) -> torch.Tensor:
    """What is added to the log weights of classes for each gene, classes x 1 x G."""
    closed = torch.zeros(N_CLASSES, 1, measured.effect.shape[1], dtype=measured.effect.dtype)
    # Only what controls hardly express can be specific to a condition.
    closed[CONDITION_SPECIFIC] = _CLOSED * (measured.effect.amax(0) <= -measured.lowest)
    for open_, index in ((config.independent, INDEPENDENT), (config.condition_specific, CONDITION_SPECIFIC)):
        if not open_:
            closed[index] = _CLOSED
    return closed


def _fit_genes(measured: Measured, n_genes: int) -> torch.Tensor:
    """Columns that the prior is learned from: evenly spaced, targets left out where there are others."""
    usual = torch.ones(measured.effect.shape[1], dtype=torch.bool)
    usual[measured.target_columns[measured.target_columns >= 0]] = False
    columns = usual.nonzero().squeeze(1)
    columns = torch.arange(len(usual)) if len(columns) == 0 else columns
    return columns[torch.linspace(0, len(columns) - 1, min(n_genes, len(columns))).round().long()]


def free_parameters(design: torch.Tensor, y: torch.Tensor, rank: int) -> dict[str, torch.Tensor]:
    """Unconstrained parameters at their start, from effects ``y`` in units of noise (conditions x genes)."""
    k = design.shape[1]
    # Directions of the single effects; those of genes without a single follow from their combinations.
    start = torch.linalg.lstsq(design, y, driver="gelsd").solution
    left, size, _ = torch.linalg.svd(start, full_matrices=False)
    rank = min(rank, len(size))
    free = {
        "loadings": left[:, :rank] * size[:rank] / ((size**2).sum() / k).clamp_min(1e-12).sqrt(),
        "specific": torch.full((k,), math.log(0.3), dtype=y.dtype),
        "scale": torch.tensor(math.log(0.8), dtype=y.dtype),
        "unseen_scale": torch.tensor(0.0, dtype=y.dtype),
        "deviation": torch.zeros(len(design), dtype=y.dtype),
        "weights": torch.zeros(N_CLASSES, len(LEVELS), dtype=y.dtype),
        **{name: torch.tensor(math.log(median), dtype=y.dtype) for name, median in MEDIANS.items()},
    }
    return {name: value.requires_grad_() for name, value in free.items()}


def hyperparameters(
    free: Mapping[str, torch.Tensor], seen: torch.Tensor, independent_covariance: torch.Tensor
) -> Hyperparameters:
    """Hyperparameters from the unconstrained ones; ``seen`` says which genes were perturbed alone."""
    covariance = free["loadings"] @ free["loadings"].T + torch.diag(free["specific"].exp())
    covariance = covariance / covariance.diagonal().mean()
    positive = {name: free[name].exp() for name in ("scale", "unseen_scale", *MEDIANS)}
    closed = torch.zeros_like(free["weights"])
    closed[INDEPENDENT, _BORDER + 1 :] = closed[CONDITION_SPECIFIC, :_BORDER] = _CLOSED
    weights = free["weights"] + closed
    inherited = torch.log_softmax(weights[:CONDITION_SPECIFIC].flatten(), 0).view(CONDITION_SPECIFIC, -1)
    inherited = inherited + math.log1p(-_CONDITION_SPECIFIC_WEIGHT)
    specific = torch.log_softmax(weights[CONDITION_SPECIFIC], 0) + math.log(_CONDITION_SPECIFIC_WEIGHT)
    return Hyperparameters(
        **positive,
        shared_covariance=covariance,
        independent_covariance=independent_covariance,
        unseen=(~seen).to(covariance.dtype),
        excess_by_condition=positive["excess"] * free["deviation"].exp(),
        log_weights=torch.cat([inherited, specific[None]]),
    )


def penalty(free: Mapping[str, torch.Tensor], overshoot: bool) -> torch.Tensor:
    """Minus the log density of the prior of the hyperparameters, up to a constant."""
    off = free["scale"] - expected_scale(free["excess"].detach().exp(), overshoot).log()
    square = (off / _SCALE_SD) ** 2 + (free["deviation"] ** 2).sum() + free["unseen_scale"] ** 2
    return 0.5 * (square + sum((free[name] - math.log(median)) ** 2 for name, median in MEDIANS.items()))


def expected_scale(excess: torch.Tensor, overshoot: bool = True) -> torch.Tensor:
    """Prior median of the scale of combinations, from the noise between conditions; 1 without overshoot."""
    return 1 - overshoot * _OVERSHOOT * excess / (excess + _HALF)
