"""Variances of single combinations: moments against the whole model of a gene, and what is learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosteriorConfig
from raptorgraph.inference._combinations import OwnVariances
from raptorgraph.inference._conditioning import Conditional, Sets
from raptorgraph.inference._own_variances import LeftOut, learn_own_variances


def _usual(fitted):
    """The variances that the prior has for the measured combinations."""
    prior = fitted.hyperparameters
    rows = (fitted.measured.design.sum(1) > 1).nonzero().squeeze(1)
    return OwnVariances(rows, prior.interaction_variance.expand(len(rows)).clone(), prior.excess_by_condition[rows])


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_with_the_variances_of_the_prior_moments_are_those_of_all_conditions(example, fraction):
    fitted = example.posterior.fitted
    conditional = Conditional(fitted, fraction)
    sets = Sets.of(torch.as_tensor(example.design[6:12]), fitted)
    found = (vars(conditional.moments(sets, own)).values() for own in (None, _usual(fitted)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_moments_are_those_of_the_whole_model_in_which_one_combination_has_other_variances(example, whole_model):
    """Genes 5 and 9 are targets."""
    posterior, asked = example.posterior, example.design[8:10]
    for g in (0, 5, 9):
        mean, _, within = whole_model(posterior, g).of_sets(asked, residual=False)
        found = posterior._moments(Sets.of(torch.as_tensor(asked), posterior.fitted, posterior.additivity))
        np.testing.assert_allclose(found.mean[:, g], mean, rtol=1e-6)
        np.testing.assert_allclose(found.set_variance[:, g], within, rtol=1e-6)


def test_interacting_pairs_keep_their_effects_and_others_are_taken_for_sums(draw_screen, fit):
    """With one variance for all, strong interactions of half of the pairs are shrunk as if they were noise."""
    screen = draw_screen(np.random.default_rng(5), n_pairs=12, interaction=0.0)
    design, measured, true = (x[: screen.n].copy() for x in (screen.design, screen.measured, screen.true))
    strong = np.sqrt((true[:8] ** 2).mean(0)) * np.random.default_rng(6).normal(size=true[8:14].shape)
    measured[8:14] += strong
    true[8:14] += strong
    posterior = fit(design, measured, screen.variance[: screen.n])
    additivity, prior = posterior.additivity, posterior.fitted.hyperparameters
    assert additivity.own.interaction[:6].min() > 20 * additivity.own.interaction[6:].max()
    torch.testing.assert_close(additivity.sizes, additivity.own.interaction / prior.interaction_variance)
    noise = ((measured - true) ** 2).sum(1)

    def error(moments):
        return ((moments.mean.numpy() - true) ** 2).sum(1)

    sets = Sets.of(torch.as_tensor(design), posterior.fitted, additivity)
    found, alike = (posterior._conditional().moments(sets, own) for own in (additivity.own, _usual(posterior.fitted)))
    assert error(found)[8:14].sum() < 1.2 * noise[8:14].sum()
    assert error(found)[8:14].sum() < 0.2 * error(alike)[8:14].sum()
    assert error(found)[14:].sum() < 0.7 * noise[14:].sum()


@pytest.mark.parametrize(("gamma", "kappa"), [(8.0, 1.0), (0.05, 30.0), (8.0, 30.0)])
def test_variances_are_learned_from_how_far_a_combination_is_off(example, gamma, kappa):
    """One combination is drawn with variances of its own. Interactions show in genes of a high level."""
    fitted, rng = example.posterior.fitted, np.random.default_rng(0)
    prior, levels = fitted.hyperparameters, (3, 8)
    responsibility = torch.zeros_like(fitted.responsibility)
    responsibility[0, levels[0], ::2] = responsibility[0, levels[1], 1::2] = 1.0
    measured = replace(fitted.measured, target_columns=torch.full_like(fitted.measured.target_columns, -1))
    fitted = replace(fitted, measured=measured, responsibility=responsibility)
    truth = OwnVariances(torch.tensor([9]), gamma * prior.interaction_variance[None], kappa * prior.excess[None])
    left_out, effect = LeftOut(Conditional(fitted), truth), measured.effect.clone()
    for start, level in enumerate(levels):
        genes = torch.arange(start, 400, 2)
        off, total = left_out.off(0, level, genes)
        more = left_out.unshared(True, torch.tensor(4.0 ** (level - 4), dtype=torch.float64))[1]
        wanted = torch.as_tensor(rng.normal(size=(1, 200))) * ((total + more) * measured.gene_noise[genes]).sqrt()
        effect[9, genes] += (wanted - off)[0]
    found = learn_own_variances(Conditional(replace(fitted, measured=replace(measured, effect=effect))))
    at = int((found.rows == 9).nonzero())
    if gamma > 1:
        assert float(found.interaction[at]) == pytest.approx(float(truth.interaction), rel=0.35)
    else:
        assert float(found.interaction[at]) < float(prior.interaction_variance)
    if kappa > 1:
        assert float(found.excess[at]) == pytest.approx(float(truth.excess), rel=0.35)


def test_a_screen_without_combinations_has_none(tiny, fit):
    posterior = fit(tiny.design[:3], tiny.measured[:3], np.full((3, 12), 0.05), n_steps=5)
    assert len(posterior.additivity.own.rows) == 0
    assert bool(torch.isfinite(posterior.draw(torch.eye(3), 3)).all())


def test_noise_is_that_of_all_where_it_is_not_to_differ(tiny, fit):
    config = EffectPosteriorConfig(excess_by_condition=False)
    posterior = fit(tiny.design, tiny.measured, np.full((4, 12), 0.05), config=config, n_steps=5)
    prior = posterior.fitted.hyperparameters
    torch.testing.assert_close(posterior.additivity.own.excess, prior.excess[None])


def test_sums_by_all_others_are_those_without_the_combination(example):
    """As if the combination had been measured in no cell; genes 5 and 9 are targets."""
    conditional, own = Conditional(example.posterior.fitted), example.posterior.additivity.own
    left_out = LeftOut(conditional, own)
    sums = left_out.averaged(left_out.compared, 3)[0]
    fitted, genes = example.posterior.fitted, [g for g in range(400) if g not in (5, 9)]
    inherits = fitted.responsibility[:2] / fitted.responsibility[:2].sum((0, 1))
    responsibility = torch.cat([inherits, torch.zeros_like(inherits[:1])])
    for i in (0, 3):
        row = own.rows[i]
        noise = fitted.measured.condition_noise.clone()
        noise[row] = 1e9
        without = replace(
            fitted, measured=replace(fitted.measured, condition_noise=noise), responsibility=responsibility
        )
        single = Conditional(without).true_moments(torch.eye(8, dtype=torch.float64)).mean
        expected = fitted.measured.design[row] @ single
        torch.testing.assert_close(sums[i, genes], expected[genes], rtol=1e-5, atol=1e-6)
