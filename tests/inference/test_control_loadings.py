"""Errors of the controls of batches, which conditions of the same batches share: moments and draws by brute force."""

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig
from raptorgraph.inference._conditioning import Sets

G = 12
LOADINGS = np.array([[-0.02], [-0.02], [0.2], [0.2], [0.2]])  # of two batches, of which the second has few controls
NO_GRAPH = np.zeros((3, 3))


def _fit(loadings=None, n=5):
    """Three singles and two pairs on 12 genes."""
    rng = np.random.default_rng(3)
    design = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], dtype=float)[:n]
    measured = (design @ rng.normal(size=(3, G))) + 0.3 * rng.normal(size=(n, G))
    variance, n_cells = np.full(measured.shape, 0.05), np.full(n, 50)
    posterior = EffectPosterior(EffectPosteriorConfig(sparse_interactions=False))  # the normal model
    given = map(torch.as_tensor, (design, measured, variance, n_cells))
    posterior.fit(*given, 300, n_steps=20, control_loadings=None if loadings is None else torch.as_tensor(loadings))
    return torch.as_tensor(design), posterior


@pytest.fixture(scope="module")
def in_batches():
    return _fit(LOADINGS)


def test_moments_are_those_of_the_whole_model(in_batches, whole_model):
    """The errors are part of what is measured, and of no effect, also of measured pairs with variances of their own."""
    design, posterior = in_batches
    asked = torch.cat([design, torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)])
    found = posterior._moments(Sets.of(asked, posterior.fitted, posterior.additivity))
    for g in (0, 5, 11):
        model = whole_model(posterior, g, graph=NO_GRAPH, additivity=posterior.additivity)
        mean, _, within = model.of_sets(asked.numpy(), residual=False)
        np.testing.assert_allclose(found.mean[:, g], mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.set_variance[:, g], within, rtol=1e-6)


def test_draws_have_the_mean_and_the_variance_of_the_whole_model(in_batches, whole_model):
    design, posterior = in_batches
    draws = posterior.draw(design[:3], 3000, seed=0).numpy()
    for g in (0, 5, 11):
        model = whole_model(posterior, g, graph=NO_GRAPH, additivity=posterior.additivity)

        def rows(klass, model=model):
            asked = model.asked(design[:3].numpy(), klass, residual=True, between=True)
            return [{name: load for name, load in row.items() if name != ("controls",)} for row in asked]

        mean, covariance, _ = model.moments(rows)
        sd = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(draws[:, :, g].mean(0), mean, atol=5 * sd.max() / np.sqrt(3000))
        np.testing.assert_allclose(draws[:, :, g].std(0), sd, rtol=0.1)


def test_gene_noise_is_per_cell_whatever_the_controls(in_batches):
    """Sampling variances hold the error of the controls that each condition is compared with."""
    measured = in_batches[1].fitted.measured
    sampling = 1 / 50 + 1 / 300 + LOADINGS[:, 0] ** 2
    np.testing.assert_allclose(measured.gene_noise, np.mean(0.05 / sampling) * sampling.mean())
    np.testing.assert_allclose(measured.control_loadings**2, LOADINGS**2 / sampling.mean())


def test_without_batches_nothing_changes():
    design, none = _fit()
    for one, other in zip(_fit(np.zeros((5, 0)))[1].mean_and_sd(design), none.mean_and_sd(design), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    for one, other in zip(_fit(np.zeros((5, 1)))[1].mean_and_sd(design), none.mean_and_sd(design), strict=True):
        torch.testing.assert_close(one, other)


def test_they_are_saved(in_batches):
    design, posterior = in_batches
    other = EffectPosterior()
    other.load_state_dict(posterior.state_dict())
    torch.testing.assert_close(other.mean_and_sd(design), posterior.mean_and_sd(design), rtol=0, atol=0)
