"""Joint draws against the whole model of a gene, and what they hold."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior
from raptorgraph.inference._conditioning import Conditional
from raptorgraph.inference._draws import JointDraws

N_DRAWS = 1500


def _off(values, expected):
    """Difference of the mean of draws (along the first axis) to its expectation, in standard errors."""
    error = values.std(0) / np.sqrt(len(values))
    return np.abs(values.mean(0) - expected) / error


def _settled(additivity, n_genes):
    """Independent genes, and combinations of which all but their interactions is known."""
    return replace(
        additivity,
        programs=torch.zeros(n_genes, 0, dtype=torch.float64),
        weights=torch.ones(1, dtype=torch.float64),
        spread=torch.zeros(1, dtype=torch.float64),
        coefficients=torch.zeros(1, 2, dtype=torch.float64),
        covariances=1e-30 * torch.eye(2, dtype=torch.float64)[None],
        sizes=torch.ones(1_000_000, dtype=torch.float64),
    )


def test_draws_have_the_mean_and_the_covariance_of_the_whole_model(example, whole_model):
    """Two measured singles, their pair and one that was not measured; genes 5 and 9 are targets."""
    asked = np.vstack([example.design[:2], example.design[:1] + example.design[1:2], example.design[-1:]])
    fitted, additivity = example.posterior.fitted, _settled(example.posterior.additivity, 400)
    prior, own = fitted.hyperparameters, additivity.own
    usual = prior.interaction_variance.expand_as(own.interaction), prior.excess_by_condition[own.rows]
    additivity = replace(additivity, own=replace(own, interaction=usual[0], excess=usual[1]))
    draws = (
        JointDraws(Conditional(fitted), additivity, N_DRAWS, 0).effects(torch.as_tensor(asked), controls=True).numpy()
    )
    assert draws.shape == (N_DRAWS, 4, 400)
    for g in (0, 5, 9, 399):
        model = whole_model(example.posterior, g)
        mean, covariance, _ = model.moments(
            lambda klass, model=model: model.asked(asked, klass, residual=True, between=True)
        )
        found = draws[:, :, g]
        assert _off(found, mean).max() < 4.5
        products = (found - mean)[:, :, None] * (found - mean)[:, None, :]
        assert _off(products, covariance).max() < 4.5
        assert (_off(products, 1.2 * covariance).diagonal() > 2).all()  # so the test can fail


def test_measured_pairs_are_drawn_with_variances_of_their_own(example, whole_model):
    """Three measured pairs, with large and with small variances; genes 5 and 9 are targets."""
    asked = example.design[8:11]
    fitted, additivity = example.posterior.fitted, _settled(example.posterior.additivity, 400)
    own = additivity.own
    changed = replace(own, interaction=own.interaction.clone(), excess=own.excess.clone())
    changed.interaction[:3] *= torch.tensor([20.0, 0.1, 5.0])
    changed.excess[:3] *= torch.tensor([0.2, 6.0, 1.0])
    additivity = replace(additivity, own=changed)
    draws = (
        JointDraws(Conditional(fitted), additivity, N_DRAWS, 0).effects(torch.as_tensor(asked), controls=True).numpy()
    )
    for g in (0, 5, 9, 399):
        model = whole_model(example.posterior, g)
        model.posterior = SimpleNamespace(fitted=fitted, additivity=additivity)
        mean, variance, _ = model.of_sets(asked, residual=True, between=True)
        found = draws[:, :, g]
        assert _off(found, mean).max() < 4.5
        assert _off((found - mean) ** 2, variance).max() < 4.5
        assert (_off((found - mean) ** 2, 1.2 * variance) > 2).all()  # so the test can fail


def test_genes_are_drawn_together_as_their_loadings_say(tiny):
    conditional, asked = Conditional(tiny.posterior.fitted), torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    additivity = _settled(tiny.posterior.additivity, 12)
    apart = JointDraws(conditional, additivity, N_DRAWS, 1).effects(asked)[:, 0].numpy()
    assert np.abs(np.corrcoef(apart.T)[np.triu_indices(12, 1)]).max() < 4.5 / np.sqrt(N_DRAWS)
    programs = torch.zeros(12, 1, dtype=torch.float64)
    programs[6:] = 0.9
    together = JointDraws(conditional, replace(additivity, programs=programs), N_DRAWS, 1)
    correlation = np.corrcoef(together.effects(asked)[:, 0].numpy().T)
    assert correlation[6:, 6:][np.triu_indices(6, 1)].min() > 0.2
    assert np.abs(correlation[:6, 6:]).max() < 4.5 / np.sqrt(N_DRAWS)


def test_the_same_seed_gives_the_same_draws_beside_whatever_is_asked(example):
    posterior, design = example.posterior, torch.as_tensor(example.design)
    some, all_ = posterior.draw(design[[3, 20, 30]], 4, 7), posterior.draw(design, 4, 7)
    assert torch.equal(some, all_[:, [3, 20, 30]])
    assert not torch.equal(some, posterior.draw(design[[3, 20, 30]], 4, 8))
    assert torch.equal(some, posterior.draw(design[[3, 20, 30]], 4, 7))  # not the cached ones: seed 8 came between


def test_draws_are_the_same_where_little_is_kept_between_them(example, monkeypatch):
    asked = torch.as_tensor(example.design)
    fitted, additivity = Conditional(example.posterior.fitted), example.posterior.additivity
    whole = JointDraws(fitted, additivity, 6, 0)
    expected = whole.effects(asked)
    assert len(whole._diagonals) > 1
    monkeypatch.setattr("raptorgraph.inference._draws._MOST_DIAGONALS", 0)
    some = JointDraws(fitted, additivity, 6, 0)
    assert torch.equal(some.effects(asked), expected)
    assert len(some._diagonals) == 1


def test_the_spread_of_draws_is_the_standard_deviation_about_the_posterior_mean(example):
    posterior, design = example.posterior, torch.as_tensor(example.design)
    design = torch.cat([design[:3], design[10:12], design[-4:]])
    draws = JointDraws(Conditional(posterior.fitted), posterior.additivity, 1500, 0).effects(design, controls=True)
    mean, sd = posterior.mean_and_sd(design)
    exact = posterior.posterior_mean(design)
    expected = (sd**2 - (mean - exact) ** 2).sqrt()
    assert float(((draws.mean(0) - exact) / draws.std(0)).abs().mean()) < 0.05
    ratio = (draws.std(0) / expected).mean(1)
    np.testing.assert_allclose(ratio, 1.0, atol=0.06)


def test_the_error_of_the_control_mean_is_no_effect():
    """Forty conditions that do nothing, well measured against few controls: they tell the error of these together."""
    rng, n_genes = np.random.default_rng(0), 300
    error, noise = rng.normal(size=n_genes) / 10, rng.normal(size=(40, n_genes)) / 20  # of 100 and of 400 cells
    posterior = EffectPosterior()
    posterior.fit(
        torch.eye(40), torch.as_tensor(noise - error), torch.full((40, n_genes), 1 / 100 + 1 / 400),
        torch.full((40,), 400.0), n_controls=100,
    )  # fmt: skip
    design = torch.eye(40, dtype=torch.float64)[:5]
    with_error = JointDraws(Conditional(posterior.fitted), posterior.additivity, 300, 0).effects(design, controls=True)
    draws = posterior.draw(design, 300, 0)
    shared = (with_error - draws).numpy()
    np.testing.assert_allclose(shared, shared[:, :1].repeat(5, axis=1), atol=1e-9)
    zero = np.zeros((5, n_genes))
    assert _held(zero, with_error.numpy()) < 0.6
    assert _held(zero, draws.numpy()) > 0.85
    assert _held(zero - error, with_error.numpy()) > 0.85


def _held(true, drawn):
    """Share of true values within the intervals of 90 % of their draws."""
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    return ((true > low) & (true < high)).mean()


def test_sums_over_genes_and_lengths_are_held(draw_screen, fit):
    """In screens whose scale is not known beforehand; with genes drawn independently, hardly a length is held."""
    lengths, means = [], []
    for seed, scale in enumerate([0.65, 0.75, 0.9, 1.05]):
        design, measured, variance, true, *_ = draw_screen(np.random.default_rng(seed), scale=scale)
        posterior = fit(design[:8], measured[:8], variance[:8])
        unseen = torch.as_tensor(design[8:])
        draws, true = posterior.draw(unseen, 200, seed).numpy(), true[8:]
        along = posterior.posterior_mean(unseen).numpy()
        sets = np.argsort(along, axis=1)[:, -40:]  # the genes that rise most
        lengths.append(_held(np.linalg.norm(true, axis=1), np.linalg.norm(draws, axis=2)))
        drawn = np.stack([draws[:, i, genes].mean(1) for i, genes in enumerate(sets)], 1)
        means.append(_held(np.array([true[i, genes].mean() for i, genes in enumerate(sets)]), drawn))
    assert np.mean(lengths) > 0.8
    assert np.mean(means) > 0.8


def test_larger_sets_are_less_certain(example):
    design = torch.zeros(2, 8, dtype=torch.float64)
    design[0, [0, 5]] = design[1, [0, 5, 6]] = 1
    posterior = example.posterior
    draws = posterior.draw(design, 400, 0)
    length = draws.norm(dim=2)
    relative = length.std(0) / length.mean(0)
    assert relative[1] > relative[0]


def test_the_control_has_no_effect(example):
    assert not example.posterior.draw(torch.zeros(1, 8), 3, 0).any()


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_any_seed_is_taken(tiny, seed):
    assert bool(torch.isfinite(tiny.posterior.draw(torch.eye(3), 2, seed)).all())
