"""The linear model of cells against its density, against factor analysis, and on cells that were drawn from one."""

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import FactorAnalysis

from raptorgraph.model import _linear
from raptorgraph.model._linear import LinearModel, fit_linear

K, BACKGROUND, G, N = 2, 2, 12, 3000
RNG = np.random.default_rng(0)
OWN = RNG.normal(0, 0.4, (K, G))  # loadings of the own latents
LOADING = np.concatenate([OWN, RNG.normal(0, 0.6, (BACKGROUND, G))])
NOISE = RNG.uniform(0.5, 1.2, G)


def drawn(n=N, loading=LOADING, seed=1):
    """Cells of one condition around its mean."""
    rng = np.random.default_rng(seed)
    cells = rng.standard_normal((n, len(loading))) @ loading + rng.standard_normal((n, G)) * np.sqrt(NOISE)
    return cells - cells.mean(0)


@pytest.fixture
def until_it_converges(monkeypatch):
    monkeypatch.setattr(_linear, "_N_STEPS", 3000)


def log_likelihood(cells, model):
    """Mean over cells, without the constant."""
    covariance = model.loading.T @ model.loading + np.diag(model.noise)
    density = stats.multivariate_normal(np.zeros(G), covariance)
    return density.logpdf(cells).mean() + 0.5 * G * np.log(2 * np.pi)


@pytest.mark.parametrize("n_background", [0, 1, 3])
def test_own_loadings_are_given_and_the_likelihood_is_the_density(n_background):
    cells = drawn()
    model = fit_linear(cells, 3.0 * OWN, n_background, 3.0, seed=0)
    np.testing.assert_allclose(model.loading[:K], OWN, rtol=1e-12)
    assert model.loading.shape == (K + n_background, G)
    assert model.log_likelihood == pytest.approx(log_likelihood(cells, model), abs=1e-9)


def test_without_effects_it_is_factor_analysis(until_it_converges):
    cells = drawn(loading=LOADING[K:])
    model = fit_linear(cells, np.zeros((0, G)), BACKGROUND, 3.0, seed=0)
    other = FactorAnalysis(BACKGROUND, tol=1e-10, max_iter=20_000, svd_method="lapack").fit(cells)
    np.testing.assert_allclose(model.noise, other.noise_variance_, rtol=1e-3)
    np.testing.assert_allclose(model.loading.T @ model.loading, other.components_.T @ other.components_, atol=2e-3)
    assert model.log_likelihood == pytest.approx(other.score(cells) + 0.5 * G * np.log(2 * np.pi), abs=1e-6)


def test_it_is_the_most_likely_model_with_these_own_loadings(until_it_converges):
    """The likelihood is level in whatever direction background loadings and noise go, and falls farther off."""
    cells = drawn()
    model = fit_linear(cells, 3.0 * OWN, BACKGROUND, 3.0, seed=0)
    rng = np.random.default_rng(2)
    for _ in range(20):
        loading = np.concatenate([np.zeros((K, G)), rng.standard_normal((BACKGROUND, G))])
        log_noise = rng.standard_normal(G)

        def at(step, loading=loading, log_noise=log_noise):
            noise = model.noise * np.exp(step * log_noise)
            return log_likelihood(cells, LinearModel(3.0, model.loading + step * loading, noise, 0.0))

        assert abs(at(1e-4) - at(-1e-4)) / 2e-4 < 1e-4
        assert max(at(0.03), at(-0.03)) < model.log_likelihood - 1e-3
    # and close to the truth: 3000 cells say a loading to about 0.03
    found, true = (x[K:].T @ x[K:] for x in (model.loading, LOADING))
    np.testing.assert_allclose(found, true, atol=0.15)
    np.testing.assert_allclose(model.noise, NOISE, rtol=0.15)


def test_each_step_is_more_likely(monkeypatch):
    cells, found = drawn(), []
    for n in range(1, 8):
        monkeypatch.setattr(_linear, "_N_STEPS", n)
        found.append(fit_linear(cells, 3.0 * OWN, BACKGROUND, 3.0, seed=0).log_likelihood)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("strength", _linear.STRENGTHS)
def test_the_likelihood_finds_the_strength(strength):
    """Effects are the own loadings of the cells times the strength."""
    cells = drawn(6000)
    assert fit_linear(cells, strength * OWN, BACKGROUND, None, seed=0).strength == strength
    assert fit_linear(cells, strength * OWN, BACKGROUND, 5.0, seed=0).strength == 5.0  # unless it is given


def test_posterior_of_the_latents():
    """Given a cell z is normal, with the mean and the covariance of conditioning a joint normal distribution."""
    model = LinearModel(3.0, LOADING, NOISE, 0.0)
    weight, variance = model.posterior
    marginal = LOADING.T @ LOADING + np.diag(NOISE)
    np.testing.assert_allclose(weight, LOADING @ np.linalg.inv(marginal), atol=1e-12)
    covariance = np.eye(len(LOADING)) - LOADING @ np.linalg.inv(marginal) @ LOADING.T
    np.testing.assert_allclose(variance, np.diag(covariance), atol=1e-12)


@pytest.mark.parametrize("n", [2, 3])
def test_few_cells_and_constant_genes(n):
    cells = drawn(n)
    cells[:, 3:6] = 0.0
    effects = 3.0 * OWN
    effects[:, 3:6] = 0.0
    model = fit_linear(cells, effects, 4, None, seed=0)
    assert np.isfinite(model.loading).all()
    assert np.isfinite(model.log_likelihood)
    assert (model.noise >= _linear._LEAST_NOISE).all()


def test_the_strength_is_chosen_on_some_of_the_cells(monkeypatch):
    n_cells, fit = [], _linear._fit
    monkeypatch.setattr(_linear, "_fit", lambda residual, *args: n_cells.append(len(residual)) or fit(residual, *args))
    fit_linear(drawn(6000), 3.0 * OWN, BACKGROUND, None, seed=0)
    assert n_cells == [1500] * len(_linear.STRENGTHS) + [6000]
    n_cells.clear()
    fit_linear(drawn(6000), 3.0 * OWN, BACKGROUND, 3.0, seed=0)
    assert n_cells == [6000]


def test_single_precision_gives_the_same_model():
    cells = drawn()
    double, single = (fit_linear(cells.astype(kind), 3.0 * OWN, BACKGROUND, None, seed=0) for kind in (float, "f4"))
    assert single.strength == double.strength
    np.testing.assert_allclose(single.noise, double.noise, rtol=1e-4)
    np.testing.assert_allclose(single.loading.T @ single.loading, double.loading.T @ double.loading, atol=1e-4)
    assert single.log_likelihood == pytest.approx(double.log_likelihood, rel=1e-5)
