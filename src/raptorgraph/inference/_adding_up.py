"""What measured combinations say of how effects add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from scipy.stats import chi2

from raptorgraph.inference._combinations import DEGREES, Additivity, OwnVariances, mean_similarity
from raptorgraph.inference._loadings import loadings_of_effects
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._own_variances import LeftOut, learn_own_variances
from raptorgraph.inference._prior import CONDITION_SPECIFIC, is_combination

if TYPE_CHECKING:
    from raptorgraph.inference._conditioning import Conditional
    from raptorgraph.inference._state import Fitted

_NO_EFFECT = 1e-100  # information below which a sum of effects is none
_UNKNOWN = 1e12  # variance of what is not known
LEVEL_SD = 0.15  # of alpha, a priori
_SLOPE, _SLOPE_SD = -0.22, 0.2  # mean and SD of beta, a priori
_SPREAD, _SPREAD_LOG_SD = 0.1, 0.6  # median of sigma and SD of its logarithm, a priori
_GRID = torch.linspace(-3, 6, 46, dtype=torch.float64)  # of log sigma, in SDs of its prior
# Departures are normal, or of Student's distribution: normal with a variance that is 3 over a chi-square variable.
_SIZES = 10 ** (torch.arange(-4, 16, dtype=torch.float64) / 5)
_CHI = (DEGREES - 2) / _SIZES
_TAIL = torch.from_numpy(chi2(DEGREES).logpdf(_CHI.numpy())) + _CHI.log()
_KINDS = torch.stack([torch.where(_SIZES == 1, 0.0, -torch.inf), torch.log_softmax(_TAIL, 0)])  # log weights of sizes
_FAR = 2.0  # standard deviations, beyond which a combination counts the less for the mean the farther it is
_N_STEPS = 15  # of expectation and maximization


class _Shown(NamedTuple):
    """What measured combinations of genes that were perturbed alone show of their scales, relative to a."""

    single: torch.Tensor  # k x G: posterior means of the effects of single genes
    programs: torch.Tensor  # G x factors: loadings of genes that respond alike
    similarity: torch.Tensor  # k x k
    center: torch.Tensor  # mean similarity of the combinations, or of all pairs
    x: torch.Tensor  # similarity of each, less the center
    off: torch.Tensor  # how far the scale of each is off
    variance: torch.Tensor  # of that
    information: torch.Tensor  # squared size of the sum of its genes
    own: OwnVariances
    known: torch.Tensor  # C, bool: which conditions these are


def learn_additivity(conditional: Conditional) -> Additivity:
    """Learn it from the measured combinations of genes that were perturbed alone."""
    fitted, shown = conditional.fitted, _shown_by(conditional)
    weights, spread, coefficients, covariances = _regression(shown.off, shown.variance, shown.x)
    # Others interact by single genes as well as by all of them.
    whole = shown.own if fitted.sparse is None else learn_own_variances(conditional.with_sparse_interactions())
    sizes = whole.interaction[shown.known[whole.rows]] / fitted.hyperparameters.interaction_variance
    inherited, targets = shown.single.clone(), conditional.targets  # an effect on a target is not scaled
    on_target = (fitted.responsibility[:, :, targets.columns] * targets.mean).sum((0, 1))
    inherited[targets.genes, targets.columns] -= on_target
    level_is_in_scale = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return Additivity(
        single_effects=inherited,
        programs=shown.programs,
        similarity=shown.similarity,
        center=shown.center,
        weights=weights,
        spread=spread,
        coefficients=coefficients * level_is_in_scale,
        covariances=covariances,
        sizes=sizes,
        own=shown.own,
    )


def mean_scale(conditional: Conditional) -> torch.Tensor:
    """Mean scale of combinations, of which the a of a prior is where most of the measured ones are.

    Those that do much count most, as strong effects often add up to less; little counts what is far from all others, or
    as little known as where a combination interacts strongly.
    """
    shown, scale = _shown_by(conditional), conditional.fitted.hyperparameters.scale
    if not len(shown.off):
        return scale
    weights, spread, coefficients, _ = _regression(shown.off, shown.variance, shown.x)
    between, level = weights @ spread**2, weights @ coefficients
    usual = shown.variance.median() + between + LEVEL_SD**2
    left = shown.off - level[0] - level[1] * shown.x
    share = shown.information / torch.maximum(shown.variance, left**2 / _FAR**2).clamp_min(usual)
    share = share / share.sum()
    error = (share**2) @ (shown.variance + between)
    # The more they differ, the farther their mean may be from where most of them are.
    found: torch.Tensor = scale * (1 + share @ shown.off / (1 + error / (LEVEL_SD**2 + between)))
    return found


def _shown_by(conditional: Conditional) -> _Shown:
    fitted = conditional.fitted
    measured, prior = fitted.measured, fitted.hyperparameters
    k = measured.design.shape[1]
    # Without the error of the controls, which is the same in all effects, and would be in a sum of two twice.
    single = conditional.true_moments(torch.eye(k, dtype=measured.design.dtype))
    usual = torch.ones(single.mean.shape[1], dtype=single.mean.dtype)
    usual[measured.target_columns[measured.target_columns >= 0]] = 0.0
    perturbed = measured.design.sum(0) > 0  # others are asked for, and say nothing of the screen
    programs = loadings_of_effects(single.mean[perturbed] * usual, single.set_variance[perturbed])
    precision = usual * _precision(fitted)
    scaled = single.mean * precision.sqrt()
    cosine = torch.nn.functional.normalize(scaled, dim=1, eps=1e-12)
    similarity = ((cosine @ cosine.T).clamp_min(0.0) ** 2).fill_diagonal_(0.0)
    known = (is_combination(measured.design) > 0) & (measured.design @ prior.unseen == 0)
    design = measured.design[known]
    pairs = similarity[perturbed][:, perturbed]
    all_pairs = pairs.sum() / max(1, len(pairs) * (len(pairs) - 1))
    center = mean_similarity(similarity, design).mean() if len(design) else all_pairs
    x = mean_similarity(similarity, design) - center
    own = learn_own_variances(conditional)
    # A combination is compared with what all others say of its genes: its own noise is in what it says of them.
    left_out = LeftOut(conditional, own, known[own.rows].nonzero().squeeze(1))
    sums, rest, unknown = left_out.averaged(left_out.compared, 3)
    expected = prior.scale * sums
    information = (precision * expected**2).sum(1)
    known_size = information > _NO_EFFECT
    information = information.clamp_min(_NO_EFFECT)
    effect = prior.scale_by_condition[known][:, None] * sums + rest
    off = (precision * expected * effect).sum(1) / information - 1
    pull = precision * expected * (unknown.clamp_min(0.0) * measured.gene_noise).sqrt()
    of_genes = (pull**2 * (1 - (programs**2).sum(1))).sum(1)
    variance = (of_genes + ((pull @ programs) ** 2).sum(1)) / information**2
    # where nothing is expected, nothing is learned of how it adds up
    off, variance = torch.where(known_size, off, 0.0), torch.where(known_size, variance, _UNKNOWN)
    return _Shown(single.mean, programs, similarity, center, x, off, variance, information, own, known)


def _precision(fitted: Fitted) -> torch.Tensor:
    """Weight of each gene in a comparison of a combination with the sum of its genes, shape (G,)."""
    measured, prior = fitted.measured, fitted.hyperparameters
    noise = (1 + prior.excess) * measured.condition_noise.median()
    unexplained = noise + LEVELS[:, None] * (prior.interaction_variance + prior.residual_variance)
    inherits = fitted.responsibility[:CONDITION_SPECIFIC].sum(0)
    return (inherits / unexplained).sum(0) / measured.gene_noise.clamp_min(1e-300)


def _regression(
    off: torch.Tensor, variance: torch.Tensor, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Posterior of sigma (weights and values) and, given each, of alpha and beta (mean and covariance).

    Sigma is on a grid, with normal departures and again with those of Student's distribution. Mean and covariance of
    alpha and beta are those of their mode, by expectation and maximization over the sizes that departures may be of.
    """
    spread = (_SPREAD * (_SPREAD_LOG_SD * _GRID).exp()).repeat(len(_KINDS))
    log_sizes = _KINDS.repeat_interleave(len(_GRID), 0)[:, None]  # R x 1 x sizes
    start = torch.tensor([0.0, _SLOPE], dtype=torch.float64)
    prior = torch.diag(torch.tensor([LEVEL_SD**-2, _SLOPE_SD**-2], dtype=torch.float64))
    design = torch.stack([torch.ones_like(x), x], 1)
    total = variance[None, :, None] + spread[:, None, None] ** 2 * _SIZES  # R x C x sizes

    def log_density(mean: torch.Tensor) -> torch.Tensor:
        left = off - mean @ design.T
        return log_sizes - 0.5 * (total.log() + left[:, :, None] ** 2 / total)

    mean = start.expand(len(spread), 2)
    for _ in range(_N_STEPS):
        precision = (torch.softmax(log_density(mean), 2) / total).sum(2)
        posterior = prior + torch.einsum("ci,rc,cj->rij", design, precision, design)
        pull = prior @ start + torch.einsum("ci,rc->ri", design, precision * off)
        mean = torch.linalg.solve(posterior, pull[:, :, None])[:, :, 0]
    evidence = torch.logsumexp(log_density(mean), 2).sum(1) - 0.5 * torch.logdet(posterior)
    evidence -= 0.5 * (torch.einsum("ri,ij,rj->r", mean - start, prior, mean - start))
    evidence -= 0.5 * (_GRID**2).repeat(len(_KINDS))
    return torch.softmax(evidence, 0), spread, mean, torch.linalg.inv(posterior)
