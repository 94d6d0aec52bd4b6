"""Errors of the controls of batches, which conditions of the same batches share: moments and draws by brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig
from raptorgraph.inference._conditioning import Conditional, Sets
from raptorgraph.inference._draws import JointDraws

G = 12
LOADINGS = np.array([[-0.02], [-0.02], [0.2], [0.2], [0.2]])  # of two batches, of which the second has few controls
NO_GRAPH = np.zeros((3, 3))


def _fit(loadings=None, n=5, *, targets=None, sparse=False):
    """Three singles and two pairs on 12 genes."""
    rng = np.random.default_rng(3)
    design = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], dtype=float)[:n]
    measured = (design @ rng.normal(size=(3, G))) + 0.3 * rng.normal(size=(n, G))
    variance, n_cells = np.full(measured.shape, 0.05), np.full(n, 50)
    posterior = EffectPosterior(EffectPosteriorConfig(sparse_interactions=sparse))
    given = map(torch.as_tensor, (design, measured, variance, n_cells))
    found = None if loadings is None else torch.as_tensor(loadings)
    posterior.fit(*given, 300, n_steps=20, control_loadings=found, targets=targets)
    return torch.as_tensor(design), posterior


@pytest.fixture(scope="module")
def in_batches():
    return _fit(LOADINGS)


@pytest.fixture(scope="module")
def with_targets():
    """The first two genes are measured, too."""
    return _fit(LOADINGS, targets=torch.tensor([0, 1, -1]))


def _compare_moments(asked, posterior, whole_model, genes):
    """Moments of sets against those of the whole model, on some genes."""
    found = posterior._moments(Sets.of(asked, posterior.fitted, posterior.additivity))
    for g in genes:
        model = whole_model(posterior, g, graph=NO_GRAPH, additivity=posterior.additivity)
        mean, _, within = model.of_sets(asked.numpy(), residual=False)
        np.testing.assert_allclose(found.mean[:, g], mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.set_variance[:, g], within, rtol=1e-6)


def test_moments_on_targets_are_those_of_the_whole_model(with_targets, whole_model):
    _compare_moments(*with_targets, whole_model, (0, 1, 11))


def test_draws_of_measured_pairs_have_the_mean_that_their_own_variances_give(with_targets):
    """With variances far from those of the prior, draws that forget the error of the batch are far off."""
    design, posterior = with_targets
    own = posterior.additivity.own
    own = replace(own, interaction=4 * own.interaction, excess=4 + 8 * own.excess)
    additivity = replace(posterior.additivity, own=own)
    conditional = Conditional(posterior.fitted)
    expected = conditional.moments(Sets.of(design[3:], posterior.fitted, additivity), own).mean
    drawn = JointDraws(conditional, additivity, 3000, 0).effects(design[3:], controls=True)
    off = (drawn.mean(0) - expected) / (drawn.std(0) / 3000**0.5)
    assert float(off.abs().max()) < 5


def test_with_sparse_interactions_draws_and_moments_agree():
    design, posterior = _fit(LOADINGS, sparse=True)
    assert posterior.fitted.sparse is not None
    conditional = Conditional(posterior.fitted)
    expected = conditional.moments(
        Sets.of(design, posterior.fitted, posterior.additivity), posterior.additivity.own
    ).mean
    drawn = JointDraws(conditional, posterior.additivity, 3000, 0).effects(design, controls=True)
    off = (drawn.mean(0) - expected) / (drawn.std(0) / 3000**0.5)
    assert float(off.abs().max()) < 5


def test_moments_are_those_of_the_whole_model(in_batches, whole_model):
    """The errors are part of what is measured, and of no effect, also of measured pairs with variances of their own."""
    design, posterior = in_batches
    asked = torch.cat([design, torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)])
    _compare_moments(asked, posterior, whole_model, (0, 5, 11))


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


@pytest.mark.parametrize(
    ("loadings", "said"), [(np.zeros((6, 1)), "6 rows for 5"), (np.full((5, 1), np.nan), "finite")]
)
def test_loadings_that_cannot_be(loadings, said):
    with pytest.raises(ValueError, match=said):
        _fit(loadings)


def test_a_model_of_before_has_none(in_batches):
    _, posterior = in_batches
    state = posterior.get_extra_state()
    del state["control_loadings"]
    older = EffectPosterior()
    older.set_extra_state(state)
    assert older.fitted.measured.control_loadings.shape == (5, 0)


def test_they_are_saved(in_batches):
    design, posterior = in_batches
    other = EffectPosterior()
    other.load_state_dict(posterior.state_dict())
    torch.testing.assert_close(other.mean_and_sd(design), posterior.mean_and_sd(design), rtol=0, atol=0)
