"""What is learned from all genes: the hyperparameters of the prior, and the class and level of every gene."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._adding_up import mean_scale
from raptorgraph.inference._conditioning import Conditional
from raptorgraph.inference._covariances import Conditions, Covariances
from raptorgraph.inference._expansion import Expansion
from raptorgraph.inference._gene_covariance import ExtendedCovariance, GeneCovariance
from raptorgraph.inference._low_rank_mixture import LowRankMixture
from raptorgraph.inference._mixture import LEVELS, GeneMixture
from raptorgraph.inference._prior import (
    CONDITION_SPECIFIC,
    INDEPENDENT,
    N_CLASSES,
    SHARED,
    along_graph,
    is_combination,
    noise,
    signals,
)
from raptorgraph.inference._scales import usual_scale
from raptorgraph.inference._sparse_learning import learn_sparse_interactions
from raptorgraph.inference._state import Fitted, Hyperparameters, Measured
from raptorgraph.inference._targets import TargetEffects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raptorgraph.inference._config import EffectPosteriorConfig

# Prior medians, with a log SD of 1.
MEDIANS = {"combination_variance": 0.02, "interaction_variance": 0.15, "residual_variance": 0.03, "excess": 1.0}
_SCALE_SD = 0.15  # of the log scale of combinations, a priori
_OWN_SCALE = 0.05  # spread of the log scale of one combination about that of all, a priori
# Logarithm of the most that it is beyond that of all. What a pair does whose genes do nothing alone is an interaction,
# and no multiple of what they might do.
_MOST_BEYOND = math.log(10)
# Prior median of that scale where effects are unrelated, and where all are one effect, of which a pair has no more than
# a single; excess noise where half of the way is gone.
_UNRELATED, _ONE_EFFECT, _HALF = 0.93, 0.5, 0.5
_DOUBT = 4.0  # standard errors by which few directions must be the likelier
_TRIAL = 0.4  # part of the steps that is enough to compare the two
_FEWEST_GENES = 20  # that are worth two halves
_NO_DIRECTION = 1e-4  # share of the variance of single effects below which a column of B is as good as absent
# Without combinations, condition-specific and independent effects are not identified. The weight of the former is
# therefore fixed, and it takes levels from 16 on, where those of the latter end.
_CONDITION_SPECIFIC_WEIGHT, _BORDER = 0.01, 6
_CLOSED = -1e4  # log weight of what cannot be
_LEARNING_RATE = 0.08
_FEW_LINKED = 500  # genes, linked to each other, whose covariances are factored at every step
_NEAR = 0.03  # change of hyperparameters up to which they are expanded in, in the first step; less towards the end
# Conditions up to which covariances are dense. A step then costs about classes x levels x C^2 x genes operations, and
# three eigendecompositions; of low rank classes x levels x C x rank x genes. From about 100 on the latter are fewer.
MOST_DENSE = 99


def learn(
    measured: Measured,
    independent_covariance: torch.Tensor | GeneCovariance,
    config: EffectPosteriorConfig,
    *,
    n_steps: int,
    n_fit_genes: int,
    rank: int,
) -> Fitted:
    """Maximize the marginal likelihood times the prior of the hyperparameters; then classify every gene.

    Arguments are those of :meth:`EffectPosterior.fit`, ``independent_covariance`` that of :func:`along_graph`.
    """
    task = _Task(measured, independent_covariance, config, rank)
    sample = _fit_genes(measured, n_fit_genes)
    with_penalty = config.few_directions and _few_directions(task, sample, max(1, round(_TRIAL * n_steps)))
    prior = task.maximize(sample, n_steps, few_directions=with_penalty)
    with torch.no_grad():
        if not (measured.design.sum(1) > 1).any():
            shared = prior.shared_covariance
            assert not isinstance(shared, ExtendedCovariance)  # by genes that were not perturbed, later
            expected = expected_scale(prior.excess, shared, config.overshoot)
            prior = replace(prior, scale=expected)
        density = task.mixture(prior, slice(None)).log_density(task.scaled)
        targets = TargetEffects.given(task.scaled, measured, Covariances(prior, measured))
        density[:, :, targets.columns] += targets.log_evidence()
        fitted = Fitted(measured, prior, torch.softmax(density.flatten(0, 1), 0).view_as(density))
        if (measured.design.sum(1) > 1).any():
            if config.sparse_interactions:
                fitted = replace(fitted, sparse=learn_sparse_interactions(Conditional(fitted)))
            if config.scale_by_condition:
                fitted = replace(fitted, hyperparameters=replace(prior, scale=mean_scale(Conditional(fitted))))
        return fitted


def independent_prior(graph: torch.Tensor | None, k: int, n_conditions: int) -> torch.Tensor | GeneCovariance:
    """Covariance of single effects in the independent class; that of the shared class will be of the same kind."""
    if n_conditions <= MOST_DENSE:
        return along_graph(graph, k)
    return GeneCovariance.along_graph(graph, k)


class _Task:
    """The measured effects in units of noise, and the prior that fits some of their genes best."""

    def __init__(
        self,
        measured: Measured,
        independent_covariance: torch.Tensor | GeneCovariance,
        config: EffectPosteriorConfig,
        rank: int,
    ) -> None:
        self.measured, self.config, self.rank = measured, config, rank
        self.independent_covariance = independent_covariance
        self.conditions = None
        if isinstance(independent_covariance, GeneCovariance):
            self.conditions = Conditions(measured.design, independent_covariance)
        self.scaled = measured.effect / measured.gene_noise.sqrt()
        self.closed = _closed_classes(measured, config)

    def mixture(
        self,
        prior: Hyperparameters,
        genes: torch.Tensor | slice,
        expansion: Expansion | None = None,
        near: float = 0.0,
    ) -> GeneMixture | LowRankMixture:
        """Marginal distribution of the measured effects on these genes; `expansion` is that of the same genes."""
        weights = prior.log_weights[:, :, None] + self.closed[:, :, genes]
        if self.conditions is not None:
            return LowRankMixture(prior, self.measured, self.conditions, weights, expansion, near)
        return GeneMixture(signals(prior, self.measured.design), noise(prior, self.measured), weights)

    def maximize(self, genes: torch.Tensor, n_steps: int, *, few_directions: bool) -> Hyperparameters:
        """Prior that maximizes the marginal likelihood of these genes times its own density."""
        y = self.scaled[:, genes]
        free = free_parameters(self.measured.design, y, self.rank)
        for name in ("excess_by_condition", "scale_by_condition"):
            free[name].requires_grad_(getattr(self.config, name))
        used = self.measured.design.sum(0) > 0
        optimizer = torch.optim.Adam([value for value in free.values() if value.requires_grad], lr=_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        expansion = self._expansion(y)
        for _ in range(n_steps):
            optimizer.zero_grad()
            near = _NEAR * (float(schedule.get_last_lr()[0]) / _LEARNING_RATE) ** 2
            prior = hyperparameters(free, self.measured.design, self.independent_covariance)
            gain, _ = self.mixture(prior, genes, expansion, near).objective(y)
            loss = penalty(free, prior, self.config.overshoot) - gain
            if few_directions:
                loss = loss + directions_penalty(free["loadings"][used], free["specific"][used])
            torch.autograd.backward(loss / len(genes))
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            return hyperparameters(free, self.measured.design, self.independent_covariance)

    def _expansion(self, y: torch.Tensor) -> Expansion | None:
        """Expansion of the independent class, where a graph links many genes."""
        if self.conditions is None or self.conditions.links[INDEPENDENT].blocks.largest <= _FEW_LINKED:
            return None
        if self.conditions.links[INDEPENDENT] is self.conditions.links[SHARED]:
            return None
        return Expansion(self.conditions, self.measured, y)

    @torch.no_grad()
    def log_likelihood(self, prior: Hyperparameters, genes: torch.Tensor) -> torch.Tensor:
        """Log marginal likelihood of each of these genes, up to a constant."""
        density = self.mixture(prior, genes).log_density(self.scaled[:, genes])
        return torch.logsumexp(density.flatten(0, 1), 0)


def _few_directions(task: _Task, genes: torch.Tensor, n_steps: int) -> bool:
    """Whether a prior of few directions predicts genes that it was not learned from better, beyond doubt."""
    if len(genes) < _FEWEST_GENES:
        return False
    gains = []
    for learned, held_out in ((genes[::2], genes[1::2]), (genes[1::2], genes[::2])):
        few, many = (
            task.log_likelihood(task.maximize(learned, n_steps, few_directions=penalized), held_out)
            for penalized in (True, False)
        )
        gains.append(few - many)
        if _standard_errors(gains[-1]) < _DOUBT / 2:  # both together would hardly reach it
            return False
    return _standard_errors(torch.cat(gains)) > _DOUBT


def _standard_errors(gain: torch.Tensor) -> float:
    """Mean of the gains over its standard error."""
    return float(gain.mean() / gain.std() * len(gain) ** 0.5)


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
    start = _single_effects(design, y)
    left, size, _ = torch.linalg.svd(start, full_matrices=False)
    rank = min(rank, len(size))
    free = {
        "loadings": left[:, :rank] * size[:rank] / ((size**2).sum() / k).clamp_min(1e-12).sqrt(),
        "specific": torch.full((k,), math.log(0.3), dtype=y.dtype),
        "scale": torch.tensor(math.log(0.8), dtype=y.dtype),
        "unseen_scale": torch.tensor(0.0, dtype=y.dtype),
        "excess_by_condition": torch.zeros(len(design), dtype=y.dtype),  # logarithms, relative to the typical one
        "scale_by_condition": torch.zeros(len(design), dtype=y.dtype),
        "weights": torch.zeros(N_CLASSES, len(LEVELS), dtype=y.dtype),
        **{name: torch.tensor(math.log(median), dtype=y.dtype) for name, median in MEDIANS.items()},
    }
    return {name: value.requires_grad_() for name, value in free.items()}


def _single_effects(design: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Effects of single genes by least squares, the smallest of those that fit, k x genes."""
    if len(design) <= MOST_DENSE:
        found: torch.Tensor = torch.linalg.lstsq(design, y, driver="gelsd").solution
        return found
    # Genes that are in one condition alone, by themselves, take what that shows.
    alone = (design.sum(1) == 1) & (design @ design.sum(0) == 1)
    found = design.new_zeros(design.shape[1], y.shape[1])
    found[design[alone].argmax(1)] = y[alone]
    rest = design[~alone]
    genes = (rest.sum(0) > 0).nonzero().squeeze(1)
    if len(genes):
        found[genes] = torch.linalg.lstsq(rest[:, genes], y[~alone], driver="gelsd").solution
    return found


def hyperparameters(
    free: Mapping[str, torch.Tensor], design: torch.Tensor, independent_covariance: torch.Tensor | GeneCovariance
) -> Hyperparameters:
    """Hyperparameters from the unconstrained ones and the design of the screen, C x k."""
    covariance = _shared_covariance(free, dense=isinstance(independent_covariance, torch.Tensor))
    positive = {name: free[name].exp() for name in ("scale", "unseen_scale", *MEDIANS)}
    closed = torch.zeros_like(free["weights"])
    closed[INDEPENDENT, _BORDER + 1 :] = closed[CONDITION_SPECIFIC, :_BORDER] = _CLOSED
    weights = free["weights"] + closed
    inherited = torch.log_softmax(weights[:CONDITION_SPECIFIC].flatten(), 0).view(CONDITION_SPECIFIC, -1)
    inherited = inherited + math.log1p(-_CONDITION_SPECIFIC_WEIGHT)
    specific = torch.log_softmax(weights[CONDITION_SPECIFIC], 0) + math.log(_CONDITION_SPECIFIC_WEIGHT)
    unseen = (design[design.sum(1) == 1].sum(0) == 0).to(design.dtype)
    # A gene that was never perturbed alone can have any effect, and its combinations any scale.
    own_scale = is_combination(design) * (design @ unseen == 0) * _bounded(free["scale_by_condition"])
    return Hyperparameters(
        **positive,
        shared_covariance=covariance,
        independent_covariance=independent_covariance,
        unseen=unseen,
        scale_by_condition=usual_scale(design, unseen, positive["scale"], positive["unseen_scale"]) * own_scale.exp(),
        excess_by_condition=positive["excess"] * free["excess_by_condition"].exp(),
        log_weights=torch.cat([inherited, specific[None]]),
    )


def _bounded(own_scale: torch.Tensor) -> torch.Tensor:
    """Logarithms of scales that do not exceed the most."""
    return torch.where(own_scale > 0, _MOST_BEYOND * torch.tanh(own_scale / _MOST_BEYOND), own_scale)


def _shared_covariance(free: Mapping[str, torch.Tensor], *, dense: bool) -> torch.Tensor | GeneCovariance:
    """K of the shared class, with mean diagonal 1."""
    loadings, specific = free["loadings"], free["specific"].exp()
    if dense:
        covariance = loadings @ loadings.T + torch.diag(specific)
        return covariance / covariance.diagonal().mean()
    size = ((loadings**2).sum(1) + specific).mean()
    return GeneCovariance.of_directions(loadings / size.sqrt(), specific / size)


def penalty(free: Mapping[str, torch.Tensor], prior: Hyperparameters, overshoot: bool) -> torch.Tensor:
    """Minus the log density of the prior of the hyperparameters, up to a constant."""
    shared = prior.shared_covariance
    assert not isinstance(shared, ExtendedCovariance)
    expected = expected_scale(prior.excess.detach(), shared.detach(), overshoot)
    off = free["scale"] - expected.log()
    square = (off / _SCALE_SD) ** 2 + (free["excess_by_condition"] ** 2).sum() + free["unseen_scale"] ** 2
    square = square + sum((free[name] - math.log(median)) ** 2 for name, median in MEDIANS.items())
    # A hyperbolic distribution: most pairs add up alike, and some do not. It is log-concave, so that two kinds of pairs
    # have one scale between them, and not either that of the one or that of the other.
    own_scale = (1 + (free["scale_by_condition"] / _OWN_SCALE) ** 2).sqrt() - 1
    return 0.5 * square + own_scale.sum()


def directions_penalty(loadings: torch.Tensor, specific: torch.Tensor) -> torch.Tensor:
    r"""Minus the log density of the columns of B: each is about as likely to be absent as present, whatever its size.

    With the share :math:`c_r = \lVert b_r \rVert^2 / \operatorname{tr} K` of column r in the variance of the effects,
    :math:`\frac{k + 1}{4} \sum_r \log (1 + c_r / \epsilon)`: automatic relevance determination. Few genes would
    otherwise spend columns on noise.
    """
    square, k = (loadings**2).sum(0), len(loadings)
    share = square / (square.sum() + specific.exp().sum())
    return 0.25 * (k + 1) * torch.log1p(share / _NO_DIRECTION).sum()


def expected_scale(
    excess: torch.Tensor, covariance: torch.Tensor | GeneCovariance, overshoot: bool = True
) -> torch.Tensor:
    """Prior median of the scale of combinations; 1 without overshoot.

    Where conditions differ by more than sampling (`excess`), and effects are alike (`covariance`, the K of single
    effects), part of what they share is not due to their genes, and a sum counts it twice.
    """
    once = similarity(covariance) * excess / (excess + _HALF)
    return 1 - overshoot * (1 - _UNRELATED + (_UNRELATED - _ONE_EFFECT) * once)


def similarity(covariance: torch.Tensor | GeneCovariance) -> torch.Tensor:
    """Mean correlation between the effects of two single perturbations, weighted by their size; at least 0."""
    size = covariance.diagonal().sqrt()
    between = covariance.sum() - covariance.trace()
    return (between / (size.sum() ** 2 - covariance.trace()).clamp_min(1e-12)).clamp_min(0.0)
