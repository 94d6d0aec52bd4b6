"""How effects add up: the regression against the marginal density in full."""

import numpy as np
import pytest
import torch
from scipy import stats

from raptorgraph.inference import EffectPosterior, _adding_up, _combinations
from raptorgraph.inference._adding_up import _precision, _regression
from raptorgraph.inference._combinations import Additivity


def test_the_regression_is_that_of_the_joint_normal_distribution(monkeypatch):
    """Where departures are normal."""
    monkeypatch.setattr(_adding_up, "_KINDS", _adding_up._KINDS[:1])
    rng = np.random.default_rng(0)
    x, variance = rng.normal(size=9), rng.uniform(0.001, 0.02, 9)
    off = -0.4 * x + 0.1 * rng.normal(size=9)
    weights, spread, coefficients, covariances = _regression(*map(torch.as_tensor, (off, variance, x)))
    design = np.stack([np.ones(9), x], 1)
    prior = np.diag([_adding_up.LEVEL_SD**2, _adding_up._SLOPE_SD**2])
    start = np.array([0.0, _adding_up._SLOPE])
    log_density = []
    for sigma, coefficient, covariance in zip(spread.numpy(), coefficients, covariances, strict=True):
        total = np.diag(variance + sigma**2) + design @ prior @ design.T
        log_density.append(stats.multivariate_normal(design @ start, total).logpdf(off))
        gain = prior @ design.T @ np.linalg.inv(total)
        np.testing.assert_allclose(covariance, prior - gain @ design @ prior, atol=1e-12)
        np.testing.assert_allclose(coefficient, start + gain @ (off - design @ start), atol=1e-10)
    log_density = np.array(log_density) - 0.5 * _adding_up._GRID.numpy() ** 2
    np.testing.assert_allclose(weights, np.exp(log_density) / np.exp(log_density).sum(), atol=1e-10)


@pytest.mark.parametrize("last", [0.1, 1.5])
def test_the_regression_is_that_of_students_departures(last):
    """Against sums over grids of alpha, beta and sigma; the last combination may be far from all others."""
    rng = np.random.default_rng(1)
    x, variance = rng.normal(size=12) * 0.3, rng.uniform(0.001, 0.01, 12)
    off = 0.1 - 0.3 * x + 0.1 * rng.normal(size=12)
    off[-1] = last
    weights, spread, coefficients, covariances = _regression(*map(torch.as_tensor, (off, variance, x)))
    alpha, beta = np.linspace(-0.4, 0.6, 25), np.linspace(-1.0, 0.6, 25)
    left = off - alpha[:, None, None] - beta[None, :, None] * x
    log_prior = stats.norm(0, _adding_up.LEVEL_SD).logpdf(alpha)[:, None]
    log_prior = log_prior + stats.norm(_adding_up._SLOPE, _adding_up._SLOPE_SD).logpdf(beta)
    error = np.linspace(-0.5, 0.5, 101)  # of measurement
    total, mean = [], []
    for sigma in spread.numpy():  # departures are normal in the first half
        student = stats.t(5, scale=sigma * 0.6**0.5).pdf if len(total) >= len(spread) // 2 else stats.norm(0, sigma).pdf
        density = np.exp(log_prior)
        for c in range(12):
            of_error = stats.norm(0, variance[c] ** 0.5).pdf(error)
            density = density * (student(left[..., c, None] - error) @ of_error) * (error[1] - error[0])
        total.append(density.sum())
        density /= max(density.sum(), 1e-300)  # of normal departures none is so far
        mean.append([density.sum(1) @ alpha, density.sum(0) @ beta])
    expected = np.array(total) * np.exp(-0.5 * np.tile(_adding_up._GRID.numpy(), 2) ** 2)
    expected /= expected.sum()
    assert abs(weights.numpy() @ spread.numpy() - expected @ spread.numpy()) < 0.1 * (expected @ spread.numpy())
    np.testing.assert_allclose(weights.numpy() @ coefficients.numpy(), expected @ np.array(mean), atol=0.02)


@pytest.mark.parametrize(("beyond", "turned"), [(3.0, False), (6.0, False), (6.0, True)])
def test_one_pair_that_does_far_more_does_not_lengthen_all_others(beyond, turned):
    """Whether along the sum of its genes or elsewhere; all other pairs add up."""
    rng, k, n_genes, n_cells = np.random.default_rng(2), 8, 300, 100
    single = 0.3 * rng.normal(size=(k, n_genes))
    pairs = np.array([[i, j] for i in range(k) for j in range(i)])[::3]
    design = np.vstack([np.eye(k), *[np.isin(np.arange(k), pair)[None] for pair in pairs]]).astype(float)
    true = np.vstack([single, single[pairs].sum(1)])
    size = true[k].std()
    true[k] = true[k] + beyond * size * rng.normal(size=n_genes) if turned else beyond * true[k]
    effect = true + rng.normal(size=true.shape) / n_cells**0.5
    variance = np.full(effect.shape, 1 / n_cells)
    posterior = EffectPosterior()
    posterior.fit(*map(torch.as_tensor, (design, effect, variance, np.full(len(design), n_cells))), 10_000)
    assert posterior.combination_scale == pytest.approx(1.0, abs=0.08)


def test_genes_of_one_pathway_are_not_expected_to_add_up(draw_screen, fit):
    design, measured, variance, *_ = draw_screen(np.random.default_rng(2))
    measured = measured.copy()
    measured[1] = 0.8 * measured[0]  # one pathway
    measured[2] = -measured[3]
    additivity = fit(design[:8], measured[:8], variance[:8]).additivity
    pairs = torch.zeros(3, 8, dtype=torch.float64)
    for row, (i, j) in zip(pairs, [(0, 1), (2, 3), (4, 6)], strict=True):
        row[[i, j]] = 1
    alike, opposite, other = additivity.factor(pairs).tolist()
    assert alike < min(opposite, other) - 0.1
    assert additivity.factor(torch.eye(8, dtype=torch.float64)).tolist() == [1.0] * 8
    assert len(additivity.sizes) == 0
    assert additivity.mean_size == pytest.approx(np.exp(_combinations._LOG_SIZE_SD**2 / 2))


def test_measured_pairs_say_how_alike_combinations_are(draw_screen, fit):
    """Pairs that add up alike leave little spread, and pairs that do not leave more."""
    rng = np.random.default_rng(4)
    design, measured, variance, _, n, _ = draw_screen(rng, n_pairs=20, interaction=0.0)
    factor = np.where(design.sum(1) > 1, rng.choice([0.5, 1.5], len(design)), 1.0)[:, None]
    spreads = []
    for effects in (measured, measured * factor):
        additivity = fit(design[:n], effects[:n], variance[:n]).additivity
        spreads.append(float(additivity.moments()[1] ** 0.5))
        assert len(additivity.sizes) == 20
    assert spreads[0] < 0.1
    assert spreads[1] > 0.15


def test_departures_have_their_moments(example):
    additivity = example.posterior.additivity
    bare = Additivity(**{**vars(additivity), "sizes": torch.zeros(0, dtype=torch.float64)})
    off, size = bare.draw_departures(100_000, 2, torch.Generator().manual_seed(0))
    assert float(off.var()) == pytest.approx(1.0, rel=0.1)  # tails of five degrees of freedom
    assert float(size.mean()) == pytest.approx(1.0, rel=0.05)
    assert float((size == 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(bare.draw_departures(100_000, 3, torch.Generator().manual_seed(0))[0].std() / off.std()) == (
        pytest.approx(2**0.5)
    )
    drawn = additivity.draw_departures(100_000, 2, torch.Generator().manual_seed(1))[1]
    n = len(additivity.sizes)
    assert float(drawn.mean()) == pytest.approx((float(additivity.sizes.sum()) + 4) / (n + 4), rel=0.05)


def test_the_precision_leaves_out_what_is_specific_to_a_condition(example):
    fitted = example.posterior.fitted
    precision = _precision(fitted)
    assert bool((precision > 0).all())
    specific = torch.zeros_like(fitted.responsibility)
    specific[2] = 1 / specific.shape[1]
    assert not _precision(type(fitted)(fitted.measured, fitted.hyperparameters, specific)).any()


def test_effects_on_targets_are_not_scaled_and_so_not_uncertain_by_the_scale(example, whole_model):
    """Gene 5 is the target of the first perturbation, which lowers it by 3."""
    scaled = example.posterior.additivity.single_effects
    first = np.eye(8)[:1]
    for g in (0, 5):
        model = whole_model(example.posterior, g)
        found = model.moments(lambda klass, model=model: [_scaled(model.asked(first, klass, residual=False)[0])])[0]
        np.testing.assert_allclose(scaled[0, g], found[0], rtol=1e-6)
    on_target = whole_model(example.posterior, 5).moments(lambda klass: [{("target", 0): 1.0}])[0]
    assert on_target < -0.5
    rest = example.posterior.posterior_mean(torch.eye(8, dtype=torch.float64)) - scaled
    np.testing.assert_allclose(rest[0, 5] - rest[1, 5], on_target[0], rtol=1e-6)
    other = [g for g in range(400) if g not in (5, 9)]  # where it is the error of the controls, the same for all
    torch.testing.assert_close(rest[:, other], rest[:1, other].expand(8, -1))


def _scaled(loadings):
    """What combinations scale of a single effect: neither that on its target nor the error of the controls."""
    return {latent: load for latent, load in loadings.items() if latent[0] not in ("target", "controls")}


def test_the_mean_scale_is_that_of_combinations_that_do_much():
    """Sums of strong effects fall short, those of weak ones do not."""
    rng, k, n_genes = np.random.default_rng(0), 8, 300
    size = np.where(np.arange(k) < 4, 0.5, 1.5)
    single = size[:, None] * rng.normal(size=(k, n_genes))
    pairs = np.array([[i, j] for i in range(k) for j in range(i)])
    sums = single[pairs].sum(1)
    scale = np.where(size[pairs].sum(1) > 2.5, 0.6, 1.0)
    design = np.vstack([np.eye(k), *[np.isin(np.arange(k), pair)[None] for pair in pairs]]).astype(float)
    effect = np.vstack([single, scale[:, None] * sums]) + 0.15 * rng.normal(size=(len(design), n_genes))
    posterior = EffectPosterior()
    arguments = design, effect, np.full(effect.shape, 0.15**2), np.full(len(design), 100.0)
    posterior.fit(*map(torch.as_tensor, arguments), 10_000)
    weighted = np.average(scale, weights=(sums**2).sum(1))
    assert posterior.combination_scale == pytest.approx(weighted, abs=0.03)
    assert weighted < scale.mean() - 0.06


@pytest.mark.parametrize("n_controls", [30, 3000])
def test_few_controls_do_not_make_pairs_fall_short(n_controls):
    """Each effect holds the error of the same controls once, and a sum of two effects holds it twice."""
    rng, k, n_genes, n_cells = np.random.default_rng(1), 10, 400, 100
    single = 0.1 * rng.normal(size=(k, n_genes))
    pairs = np.array([[i, j] for i in range(k) for j in range(i)])[::2]
    design = np.vstack([np.eye(k), *[np.isin(np.arange(k), pair)[None] for pair in pairs]]).astype(float)
    true = np.vstack([single, single[pairs].sum(1)])
    of_controls = rng.normal(size=n_genes) / n_controls**0.5
    effect = true + rng.normal(size=true.shape) / n_cells**0.5 - of_controls
    variance = np.full(effect.shape, 1 / n_cells + 1 / n_controls)
    posterior = EffectPosterior()
    posterior.fit(*map(torch.as_tensor, (design, effect, variance, np.full(len(design), n_cells))), n_controls)
    assert posterior.combination_scale == pytest.approx(1.0, abs=0.06)
