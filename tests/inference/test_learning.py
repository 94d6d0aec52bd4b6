"""Learned hyperparameters: their prior, their marginal likelihood, and the classes of genes."""

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import genhyperbolic, norm

from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig
from raptorgraph.inference._learning import (
    MEDIANS,
    _closed_classes,
    _few_directions,
    _fit_genes,
    _Task,
    directions_penalty,
    expected_scale,
    free_parameters,
    hyperparameters,
    penalty,
    similarity,
)
from raptorgraph.inference._mixture import LEVELS, GeneMixture
from raptorgraph.inference._prior import CONDITION_SPECIFIC, INDEPENDENT, SHARED, noise, signals

K, MOST = 5, np.log(10)
OWN_SCALE = genhyperbolic(p=1, a=1, b=0, scale=0.05)
# The last gene is in combinations only.
DESIGN = torch.as_tensor(np.vstack([np.eye(K)[:-1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 1], [1, 1, 1, 0, 0]]))


@pytest.fixture
def free():
    rng = np.random.default_rng(0)
    found = free_parameters(DESIGN, torch.as_tensor(rng.normal(size=(len(DESIGN), 30))), rank=2)
    return {name: (value + 0.1 * torch.randn_like(value)).detach() for name, value in found.items()}


def test_loadings_start_at_the_principal_directions_of_the_single_effects():
    rng = np.random.default_rng(1)
    single = rng.normal(size=(K, 2)) @ rng.normal(size=(2, 40))
    design = np.vstack([np.eye(K)[: K - 1], [1, 0, 0, 0, 1]])  # the last gene is in a combination only
    found = free_parameters(torch.as_tensor(design), torch.as_tensor(design @ single), rank=12)["loadings"].detach()
    scale = np.linalg.norm(single) ** 2 / K
    np.testing.assert_allclose(found @ found.T, single @ single.T / scale, atol=1e-9)


def test_hyperparameters_keep_their_constraints(free):
    independent = torch.eye(K, dtype=torch.float64)
    found = hyperparameters(free, DESIGN, independent)
    expected = free["loadings"] @ free["loadings"].T + torch.diag(free["specific"].exp())
    torch.testing.assert_close(found.shared_covariance, expected * K / expected.trace())
    assert found.unseen.tolist() == [0, 0, 0, 0, 1]
    torch.testing.assert_close(found.excess_by_condition, (free["excess"] + free["excess_by_condition"]).exp())
    own = free["scale_by_condition"]
    own = free["scale"] + torch.where(own > 0, MOST * torch.tanh(own / MOST), own)
    expected = torch.stack([own[4], free["unseen_scale"], own[6]]).exp()
    torch.testing.assert_close(found.scale_by_condition, torch.cat([torch.ones(4, dtype=torch.float64), expected]))
    weights = found.log_weights.exp()
    assert float(weights[CONDITION_SPECIFIC].sum()) == pytest.approx(0.01)
    assert float(weights[[SHARED, INDEPENDENT]].sum()) == pytest.approx(0.99)
    assert not weights[INDEPENDENT, LEVELS > 16].any()
    assert not weights[CONDITION_SPECIFIC, LEVELS < 16].any()


def test_the_penalty_is_minus_the_log_density_of_the_prior(free):
    other = {name: value + 0.3 for name, value in free.items()}
    for name in ("excess", "loadings", "specific"):  # the median of the scale follows them without a gradient
        other[name] = free[name]

    def prior(values):
        return hyperparameters(values, DESIGN, torch.eye(K, dtype=torch.float64))

    def log_density(values):
        excess, k = np.exp(float(values["excess"])), prior(values).shared_covariance.numpy()
        size = np.sqrt(np.diag(k))
        off = ~np.eye(K, dtype=bool)
        alike = max(0.0, k[off].sum() / np.outer(size, size)[off].sum())
        median = 0.93 - 0.43 * alike * excess / (excess + 0.5)
        found = norm(np.log(median), 0.15).logpdf(float(values["scale"])) + norm.logpdf(float(values["unseen_scale"]))
        found += norm.logpdf(values["excess_by_condition"].numpy()).sum()
        found += OWN_SCALE.logpdf(values["scale_by_condition"].numpy()).sum()
        return found + sum(norm(np.log(median), 1).logpdf(float(values[name])) for name, median in MEDIANS.items())

    difference = float(penalty(other, prior(other), overshoot=True) - penalty(free, prior(free), overshoot=True))
    assert difference == pytest.approx(log_density(free) - log_density(other))


def test_similarity_is_the_mean_correlation():
    size = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    assert float(similarity(torch.outer(size, size))) == pytest.approx(1.0)
    assert float(similarity(torch.diag(size))) == 0.0
    one = torch.ones(3, 3, dtype=torch.float64)
    one[0, 1:] = one[1:, 0] = -1.0  # two alike, one against both: (1 - 1 - 1) / 3 is below 0
    assert float(similarity(one)) == 0.0
    assert float(similarity(torch.tensor([[2.0]]))) == 0.0


@pytest.mark.parametrize(("excess", "alike", "scale"), [(0.0, 1.0, 0.93), (9.0, 0.0, 0.93), (0.5, 1.0, 0.715)])
def test_sums_are_expected_to_overshoot_where_conditions_differ_and_are_alike(excess, alike, scale):
    covariance = torch.full((3, 3), alike).fill_diagonal_(1.0).double()
    excess = torch.tensor(excess, dtype=torch.float64)
    assert float(expected_scale(excess, covariance)) == pytest.approx(scale)
    assert float(expected_scale(excess, covariance, overshoot=False)) == 1.0


def test_where_all_is_one_effect_a_pair_is_as_large_as_a_single():
    covariance = torch.ones(4, 4, dtype=torch.float64)
    assert float(expected_scale(torch.tensor(1e9, dtype=torch.float64), covariance)) == pytest.approx(0.5)


def test_a_direction_costs_half_a_logarithm_for_each_parameter_that_it_frees():
    loadings = torch.zeros(K, 3, dtype=torch.float64)
    loadings[:, 0], loadings[:2, 1] = 1.0, 0.5  # squared lengths 5, 0.5 and 0
    specific = torch.full((K,), np.log(0.1), dtype=torch.float64)
    share = np.array([5.0, 0.5, 0.0]) / 6.0
    expected = K * (K + 1) / 2 / K / 2 * np.log(1 + share / 1e-4).sum()
    assert float(directions_penalty(loadings, specific)) == pytest.approx(expected)


def small_screen(n_directions, **options):
    """True and measured effects of 23 singles on 87 genes, their posterior, and its task."""
    rng = np.random.default_rng(0)
    effect = rng.normal(size=(23, n_directions)) @ rng.normal(size=(n_directions, 87)) / n_directions**0.5
    variance = np.full(effect.shape, 0.06)
    measured = effect + rng.normal(size=effect.shape) * (2 * variance) ** 0.5  # as much between conditions
    posterior = EffectPosterior(EffectPosteriorConfig(few_directions=options.pop("few_directions", False)))
    n_cells = torch.full((23,), 50.0)
    posterior.fit(torch.eye(23), *map(torch.as_tensor, (measured, variance)), n_cells, 400, **options)
    return effect, measured, posterior, _Task(posterior.fitted.measured, torch.eye(23).double(), posterior.config, 12)


@pytest.mark.parametrize(("n_directions", "n_genes", "few"), [(3, 87, True), (23, 87, False), (3, 19, False)])
def test_few_directions_are_found_where_there_are_few_and_genes_enough_to_tell(n_directions, n_genes, few):
    task = small_screen(n_directions, n_steps=1)[-1]
    assert _few_directions(task, torch.arange(n_genes), 80) is few


def test_few_genes_are_no_reason_to_fit_noise():
    """Sums of singles, which keep all of the noise, and the same posterior without the prior of few directions."""
    pairs = torch.zeros(40, 23)
    for row, pair in zip(pairs, np.random.default_rng(1).integers(0, 23, (40, 2)), strict=True):
        row[pair] = 1
    pairs = pairs[pairs.sum(1) == 2]
    errors = []
    for few_directions in (True, False):
        effect, measured, posterior, _ = small_screen(3, few_directions=few_directions)
        true = pairs.numpy() @ effect
        errors.append(((posterior.mean(pairs).numpy() - true) ** 2).sum())
    assert errors[0] < 0.7 * errors[1]
    assert errors[0] < 0.3 * ((pairs.numpy() @ measured - true) ** 2).sum()


def test_the_posterior_density_is_highest_at_what_was_learned(example):
    """Moved one at a time, with the marginal likelihood of GeneMixture, which is tested by itself, and the prior."""
    fitted = example.posterior.fitted
    measured, prior = fitted.measured, fitted.hyperparameters
    genes = _fit_genes(measured, 2000)
    y = (measured.effect / measured.gene_noise.sqrt())[:, genes]
    weights = prior.log_weights[:, :, None].clone()
    weights[CONDITION_SPECIFIC] = -np.inf  # closed, as the mean of controls is not known

    def prior_of_scales(values):
        median = float(expected_scale(prior.excess, prior.shared_covariance))
        found = norm(np.log(median), 0.15).logpdf(float(values.scale.log()))
        own = (values.scale_by_condition[8:] / values.scale).log().numpy()
        return found + OWN_SCALE.logpdf(np.where(own > 0, MOST * np.arctanh(np.maximum(own, 0) / MOST), own)).sum()

    def density(values):
        mixture = GeneMixture(signals(values, measured.design), noise(values, measured), weights)
        found = logsumexp(mixture.log_density(y).numpy(), axis=(0, 1)).sum()
        found += prior_of_scales(values)
        found += norm.logpdf((values.excess_by_condition / prior.excess).log().numpy()).sum()
        return found + sum(norm(np.log(m), 1).logpdf(float(getattr(values, name).log())) for name, m in MEDIANS.items())

    # In place of where most of the scales are, what was learned holds their mean.
    scales = torch.linspace(0.9, 1.1, 2001, dtype=torch.float64) * prior.scale
    prior = replace(prior, scale=max(scales, key=lambda scale: prior_of_scales(replace(prior, scale=scale))))
    best = density(prior)
    for name in ("scale", "interaction_variance", "residual_variance", "combination_variance", "excess_by_condition"):
        for factor in (0.7, 1.4):
            moved = replace(prior, **{name: factor * getattr(prior, name)})
            if name == "scale":  # that of each combination is relative to it
                own = torch.where(measured.design.sum(1) > 1, factor * prior.scale_by_condition, 1.0)
                moved = replace(moved, scale_by_condition=own)
            assert density(moved) < best, name
    for c in (8, 15, 21):  # combinations
        for factor in (0.8, 1.2):
            own = prior.scale_by_condition.clone()
            own[c] *= factor
            assert density(replace(prior, scale_by_condition=own)) < best, c


def test_responsibilities_are_those_of_the_densities(example, whole_model):
    """Of the whole model of a gene, its effect on the target included."""
    log_weights = example.posterior.fitted.hyperparameters.log_weights.numpy()
    for g in (0, 5, 9, 399):
        model = whole_model(example.posterior, g)
        density = np.full((3, len(LEVELS)), -np.inf)  # the last class is closed
        for m, level in np.ndindex(2, len(LEVELS)):
            nothing = model.asked(example.design[:1], m, residual=True)
            density[m, level] = model.component(m, float(LEVELS[level]), nothing)[2] + log_weights[m, level]
        expected = np.exp(density - logsumexp(density))
        np.testing.assert_allclose(example.posterior.fitted.responsibility[:, :, g], expected, atol=1e-8)


def test_only_what_controls_hardly_express_is_condition_specific(tiny):
    measured = tiny.posterior.fitted.measured
    control = measured.effect.amax(0)
    above = replace(measured, lowest=-(control + torch.where(torch.arange(12) < 3, -1e-6, 1e-6)))
    closed = _closed_classes(above, EffectPosteriorConfig())
    assert (closed[CONDITION_SPECIFIC, 0] == 0).tolist() == [True] * 3 + [False] * 9
    assert not closed[:CONDITION_SPECIFIC].any()
    without = _closed_classes(above, EffectPosteriorConfig(independent=False, condition_specific=False))
    assert (without[[INDEPENDENT, CONDITION_SPECIFIC]] < -1e3).all()


def test_the_prior_is_learned_from_evenly_spaced_genes_that_are_no_targets(tiny):
    measured = tiny.posterior.fitted.measured  # column 4 is a target
    assert _fit_genes(measured, 100).tolist() == [0, 1, 2, 3, *range(5, 12)]
    assert _fit_genes(measured, 3).tolist() == [0, 6, 11]
    targets = replace(measured, target_columns=torch.arange(12))
    assert _fit_genes(targets, 100).tolist() == list(range(12))


def _pairs_of_scales(draw, seed, single_size=1.0, own=0.0):
    """A screen of ten singles and 45 pairs of these scales (drawn by `draw`), of which 25 are to be measured.

    Every second pair does something of its own, whatever its genes do.
    """
    rng, k, n_genes, n_cells = np.random.default_rng(seed), 10, 400, 60
    pairs = rng.permutation([np.isin(np.arange(k), pair) for pair in combinations(range(k), 2)])
    design = np.vstack([np.eye(k), pairs])
    size = np.exp(0.5 * rng.normal(size=n_genes))
    single = single_size * rng.normal(size=(k, n_genes)) * size
    scale = np.r_[np.ones(k), draw(rng, len(pairs))]
    noise = 4 * np.exp(0.5 * rng.normal(size=n_genes))
    true = scale[:, None] * (design @ single)
    true[k::2] += own * rng.normal(size=true[k::2].shape) * size
    error = np.sqrt(noise / n_cells) * rng.normal(size=true.shape) - np.sqrt(noise / 300) * rng.normal(size=n_genes)
    variance = np.tile(noise * (1 / n_cells + 1 / 300), (len(true), 1))
    seen = k + 25
    return SimpleNamespace(
        measured=(design[:seen], (true + error)[:seen], variance[:seen], np.full(seen, n_cells)),
        single=single,
        scale=scale[k:],
        unseen=torch.as_tensor(design[seen:]),
        true=true[seen:],
    )


def _with_and_without_own_scales(screen, fit):
    """Both posteriors, the errors of their singles, and the spread of the scales that they learned."""
    found = [fit(*screen.measured, config=EffectPosteriorConfig(scale_by_condition=own)) for own in (True, False)]
    errors = [((posterior.mean(torch.eye(10)).numpy() - screen.single) ** 2).sum() for posterior in found]
    spread = [float(posterior.additivity.moments()[1] ** 0.5) * posterior.combination_scale for posterior in found]
    return found[0], errors, spread


SCALES = {
    "uniform": lambda rng, n: rng.uniform(0.7, 1.8, n),
    "of two kinds": lambda rng, n: rng.choice([0.5, 1.0], n),
    "suppressed": lambda rng, n: rng.choice([0.0, 1.0], n),
}


@pytest.mark.parametrize("kind", SCALES)
def test_combinations_may_differ_in_their_scale(kind, fit):
    """Scales are learned, singles stay as measured, and of other combinations as much is said as is known."""
    screen = _pairs_of_scales(SCALES[kind], 0)
    posterior, errors, spread = _with_and_without_own_scales(screen, fit)
    learned = posterior.fitted.hyperparameters.scale_by_condition[10:]
    np.testing.assert_allclose(learned, screen.scale[:25], rtol=0.04, atol=0.1)
    assert errors[0] < 0.7 * errors[1]
    assert posterior.combination_scale == pytest.approx(screen.scale[:25].mean(), rel=0.08)  # neither kind's
    assert spread[0] == pytest.approx(screen.scale[:25].std(), rel=0.1)
    assert spread[1] < spread[0] - 0.03  # noise of single conditions is then taken for the reason
    mean, sd = posterior.mean_and_sd(screen.unseen)
    assert 0.85 < np.mean(np.abs(mean.numpy() - screen.true) < 1.645 * sd.numpy()) < 0.995


def test_where_combinations_add_up_alike_they_have_one_scale(fit):
    _, errors, spread = _with_and_without_own_scales(_pairs_of_scales(lambda _, n: np.ones(n), 0), fit)
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    assert spread[0] < 0.05


@pytest.mark.parametrize("seed", range(2))
def test_what_weak_genes_do_together_is_no_multiple_of_what_they_do_alone(seed, fit):
    """Half of the pairs do much where their genes do little."""
    screen = _pairs_of_scales(lambda _, n: np.ones(n), seed, single_size=0.2, own=1.0)
    posterior, errors, _ = _with_and_without_own_scales(screen, fit)
    prior = posterior.fitted.hyperparameters
    assert float(prior.scale_by_condition.max()) < 2.0
    assert errors[0] < 1.05 * errors[1]
