"""Mixture of the scores of cells that responded and cells that escaped."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from raptorgraph.model._escape import (
    Mixture,
    ResponseState,
    drawn_in,
    fit_mixture,
    fit_shares,
    log_split_normal,
    posterior,
    split_normal,
)


def scores(rng, n, escape, *, sd=0.3, null_sd=0.6, level=1.2):
    """Scores of genes with these probabilities of escape, whether each cell responded, and scores of controls."""
    gene = np.repeat(np.arange(len(escape)), n)
    responded = rng.random(len(gene)) >= np.asarray(escape)[gene]
    score = np.where(responded, rng.normal(level, sd, len(gene)), rng.normal(0, null_sd, len(gene)))
    return score, gene, responded, rng.normal(0, null_sd, (len(escape), 256))


def mixture(**changes):
    one = {"escape": 0.2, "level": 1.0, "variance": 0.04, "null": 0.0, "below": 0.25, "above": 0.16, "optimism": 0.1}
    one["noise"] = 0.04
    return Mixture(**{name: np.array([value]) for name, value in {**one, **changes}.items()})


@pytest.mark.parametrize("escape", [0.2, 0.5, 0.8])
def test_recovers_shares_level_and_variance(escape):
    score, gene, responded, controls = scores(np.random.default_rng(0), 300, [escape] * 6)
    found = fit_mixture(score, np.full(len(score), 0.09), gene, controls, np.full_like(controls, 0.09), n_genes=1)
    np.testing.assert_allclose(found.escape, escape, atol=0.1)
    np.testing.assert_allclose(found.level, 1.2, atol=0.15)
    np.testing.assert_allclose(np.sqrt(found.variance), 0.3, atol=0.06)
    p = posterior(found.log_ratio(score, gene, seen=True), found.escape[gene])
    assert abs(p.mean() - responded.mean()) < 0.03
    best = expit(norm.logpdf(score, 1.2, 0.3) - norm.logpdf(score, 0, 0.6) + np.log((1 - escape) / escape))
    inside = (score > 0) & (score < 1.2)  # beyond the level the ratio falls, which no response does
    assert np.abs(p - best)[inside].mean() < 0.05


def test_nothing_escapes_where_all_responded():
    score, gene, _, controls = scores(np.random.default_rng(1), 200, [0.0] * 8)
    found = fit_mixture(score, np.full(len(score), 0.09), gene, controls, np.full_like(controls, 0.09), n_genes=1)
    np.testing.assert_allclose(found.escape, 0.001)


def test_one_gene_among_others_that_do_not_escape():
    score, gene, _, controls = scores(np.random.default_rng(2), 100, [0.5, *[0.0] * 9])
    found = fit_mixture(score, np.full(len(score), 0.09), gene, controls, np.full_like(controls, 0.09), n_genes=1)
    assert found.escape[0] > 0.3
    assert found.escape[1:].max() < 0.02


def test_a_weak_gene_takes_its_share_from_the_others():
    rng = np.random.default_rng(3)
    score, gene, _, controls = scores(rng, 100, [0.5] * 5)
    weak = gene == 4
    score[weak] = rng.normal(0.3, 1.5, weak.sum())  # says next to nothing
    controls[4] = rng.normal(0, 1.5, 256)
    noise = np.where(np.arange(5) == 4, 2.25, 0.09)
    found = fit_mixture(score, noise[gene], gene, controls, np.tile(noise[:, None], 256), n_genes=1)
    assert 0.3 < found.escape[4] < 0.7


def test_genes_without_cells():
    score, gene, _, controls = scores(np.random.default_rng(4), 100, [0.5, 0.5])
    controls = np.vstack([controls, controls[:1]])
    found = fit_mixture(score, np.full(len(score), 0.09), gene, controls, np.full_like(controls, 0.09), n_genes=1)
    assert 0.3 < found.escape[2] < 0.7
    assert all(np.isfinite(getattr(found, name)).all() for name in vars(found))


def test_part_of_a_cell_in_its_own_effect():
    score, gene, _, controls = scores(np.random.default_rng(5), 100, [0.0])
    found = fit_mixture(score, np.full(len(score), 0.1), gene, controls, np.full_like(controls, 0.09), n_genes=500)
    assert found.optimism[0] == pytest.approx(0.7 * 0.5 / 1.5)  # 500 genes x 0.1 / 100 cells = 0.5
    n_cells = np.array([400])  # of which 100 were scored
    noises = np.full(len(score), 0.1), np.full_like(controls, 0.09)
    found = fit_mixture(score, noises[0], gene, controls, noises[1], n_genes=500, n_cells=n_cells)
    assert found.optimism[0] == pytest.approx(0.7 * 0.125 / 1.125)


def test_split_normal_is_the_maximum_of_its_likelihood():
    rng = np.random.default_rng(6)
    x = np.where(rng.random(4000) < 2 / 3, -np.abs(rng.normal(0, 1.0, 4000)), np.abs(rng.normal(0, 0.5, 4000)))
    mode, below, above = split_normal(x[None])

    def nll(parameters):
        return -log_split_normal(x, parameters[0], *np.exp(parameters[1:])).sum()

    best = minimize(nll, [0.0, 0.0, -1.4], method="Nelder-Mead", options={"maxiter": 2000})
    assert nll([mode[0], np.log(below[0]), np.log(above[0])]) < best.fun + 0.5
    assert mode[0] == pytest.approx(0.0, abs=0.1)
    np.testing.assert_allclose(np.sqrt([below[0], above[0]]), [1.0, 0.5], atol=0.06)


def test_split_normal_integrates_to_one():
    x = np.linspace(-8, 8, 20001)
    density = np.exp(log_split_normal(x, np.array(0.3), np.array(1.4), np.array(0.2))) / np.sqrt(2 * np.pi)
    assert np.trapezoid(density, x) == pytest.approx(1)


def test_log_ratio():
    found = mixture()
    inside = found.log_ratio(np.array([0.6]), np.array([0]), seen=False)[0]
    # unseen cells lack the part of both means that is their own
    away = norm.logpdf(0.6, 0.0, 0.4) + np.log(2 * 0.4 / (0.4 + 0.5))
    assert inside == pytest.approx(norm.logpdf(0.6, 0.9, 0.2) - away)
    at_level = found.log_ratio(np.array([1.0, 1.3, 9.0]), np.zeros(3, int), seen=True)
    assert at_level[0] == at_level[1] == at_level[2]


@pytest.mark.parametrize("variance", [0.04, 0.25, 0.6])
@pytest.mark.parametrize("seen", [True, False])
def test_log_ratio_never_falls(variance, seen):
    x = np.linspace(-20, 20, 2001)
    ratio = mixture(variance=variance).log_ratio(x, np.zeros(len(x), int), seen=seen)
    assert (np.diff(ratio) >= -1e-12).all()
    assert ratio[-1] > 0 > ratio[0]


def test_cells_in_which_a_perturbation_hardly_acts_say_little():
    score, noise = np.array([0.0, 1.0, -40.0, 60.0]), np.array([0.1, 0.3, 1e4, 1e4])
    found = drawn_in(score, noise, np.full(4, 0.1))
    np.testing.assert_array_equal(found[:2], score[:2])
    np.testing.assert_allclose(found[2:], 0.5 + (score[2:] - 0.5) * np.sqrt(0.4 / 1e4))


def test_posterior_by_bayes():
    assert posterior(np.log([3.0]), np.array([0.25]))[0] == pytest.approx(0.75 * 3 / (0.75 * 3 + 0.25))
    np.testing.assert_array_equal(posterior(np.array([1e4, -1e4]), np.full(2, 0.5)), [1.0, 0.0])


def test_shares_of_groups():
    rng = np.random.default_rng(7)
    group = np.repeat([0, 1, 2], [200, 200, 3])
    stayed = rng.random(403) >= np.array([0.1, 0.7, 0.7])[group]
    log_ratio = np.where(stayed, 6.0, -6.0)  # as good as known
    found = fit_shares(log_ratio, group, np.full(3, 0.3))
    escaped = np.bincount(group, ~stayed)
    np.testing.assert_allclose(found, (escaped + 20 * 0.3) / (np.bincount(group) + 20), atol=0.01)


def test_state_is_kept_and_older_models_have_none():
    state, other = ResponseState(1), ResponseState(1)
    assert not state.is_fitted
    state.store(mixture())
    other.load_state_dict(state.state_dict())
    assert other.is_fitted
    np.testing.assert_allclose(other.mixture.above, 0.16)
    other.load_state_dict({})
    assert not other.is_fitted
    assert torch.isnan(other.escape).all()


def test_a_gene_without_cells_responds_as_the_model_expects():
    """Its few cells that are met later are neither all escaped nor known to a hair."""
    score, gene, _, controls = scores(np.random.default_rng(4), 100, [0.0, 0.0])
    controls = np.concatenate([controls, controls[:1]])  # of a third gene, which has no cells
    found = fit_mixture(score, np.full(len(score), 0.09), gene, controls, np.full_like(controls, 0.09), n_genes=1)
    assert found.level[2] == 1.0
    assert found.variance[2] == pytest.approx(0.09)
    ratio = found.log_ratio(np.array([0.0, 0.9, 1.0]), np.full(3, 2), seen=False)
    assert ratio[0] < -1
    assert (ratio[1:] > 0.5).all()
