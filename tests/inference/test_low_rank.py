"""Covariances of low rank, and the likelihood and answers that follow from them, against dense ones."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig, _learning
from raptorgraph.inference._conditioning import Conditional
from raptorgraph.inference._covariances import Conditions, Covariances
from raptorgraph.inference._draws import JointDraws
from raptorgraph.inference._expansion import Expansion
from raptorgraph.inference._gene_covariance import GeneCovariance
from raptorgraph.inference._learning import _Task, free_parameters, hyperparameters, penalty
from raptorgraph.inference._low_rank_mixture import LowRankMixture
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import INDEPENDENT, N_CLASSES, along_graph
from raptorgraph.inference._state import Fitted, Measured

K, G = 14, 40
CASES = ["singles", "graph", "combinations", "both", "batches"]


def _screen(case):
    """Twelve singles, pairs and a triple (one gene in combinations alone, one in nothing), a graph, two targets."""
    rng = np.random.default_rng(0)
    design = np.eye(K)[:12]
    if case in {"combinations", "both", "batches"}:
        sets = [(0, 1), (1, 2), (3, 12), (0, 4, 5)]
        design = np.vstack([design, np.array([np.isin(np.arange(K), genes) for genes in sets], dtype=float)])
    graph = np.zeros((K, K))
    if case in {"graph", "both", "batches"}:
        graph[0, 1], graph[1, 6], graph[7, 6], graph[13, 8] = 0.8, -0.5, 0.4, 0.3
    effect = design @ rng.normal(size=(K, 2)) @ rng.normal(size=(2, G)) + rng.normal(size=(len(design), G))
    variance = np.tile(rng.uniform(0.05, 0.2, G), (len(design), 1))
    arrays = (design, effect, variance, rng.integers(20, 80, len(design)).astype(float))
    return tuple(map(torch.as_tensor, arrays)), torch.as_tensor(graph)


@pytest.fixture(params=CASES)
def both(request):
    """The same hyperparameters, dense and in parts, of a screen; and the free ones of each."""
    (design, effect, variance, n_cells), graph = _screen(request.param)
    targets = torch.full((K,), -1)
    targets[[0, 3]] = torch.tensor([5, 7])
    none = torch.zeros(G, 0)
    lowest = torch.full((G,), -0.1)
    measured = Measured.of(design, effect, variance, n_cells, 300, targets=targets, lowest=lowest, loadings=none)
    if request.param == "batches":
        of_batches = np.random.default_rng(5).normal(size=(len(design), 3))
        measured = replace(measured, control_loadings=torch.as_tensor(0.4 * of_batches))
    found = []
    for independent in (along_graph(graph, K), GeneCovariance.along_graph(graph, K)):
        task = _Task(measured, independent, EffectPosteriorConfig(), 3)
        free = free_parameters(design, task.scaled, 3)
        generator = torch.Generator().manual_seed(1)
        for value in free.values():
            value.data += 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        prior = hyperparameters(free, design, independent)
        found.append(SimpleNamespace(task=task, free=free, prior=prior, measured=measured))
    return found


def _detached(prior):
    return replace(prior, **{name: value.detach() for name, value in vars(prior).items()})


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_solutions_and_determinants_are_those_of_the_matrix(both, fraction):
    dense, parts = (Covariances(_detached(of.prior), of.measured, fraction) for of in both)
    right = torch.randn(len(both[0].measured.design), 3, dtype=torch.float64)
    for m, level in np.ndindex(N_CLASSES, len(LEVELS)):
        expected, found = dense.at(m, level), parts.at(m, level)
        torch.testing.assert_close(found.solve(right), expected.solve(right), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(found.log_det, expected.log_det)
        torch.testing.assert_close(found.inverse_diagonal(), expected.inverse_diagonal(), rtol=1e-7, atol=1e-9)


def test_likelihood_and_gradient_are_those_of_the_dense_mixture(both):
    values, gradients, densities = [], [], []
    for of in both:
        mixture = of.task.mixture(of.prior, slice(None))
        gain, value = mixture.objective(of.task.scaled)
        (penalty(of.free, of.prior, overshoot=True) - gain).backward()
        values.append(value)
        gradients.append({name: x.grad for name, x in of.free.items()})
        densities.append(mixture.log_density(of.task.scaled))
    assert isinstance(mixture, LowRankMixture)
    assert values[1] == pytest.approx(values[0], rel=1e-12)
    is_open = torch.isfinite(densities[1])
    torch.testing.assert_close(densities[1][is_open], densities[0][is_open])
    assert float(densities[0][~is_open].max()) < -1e3
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-6, atol=1e-6, msg=name)


def test_expanded_about_its_own_prior_the_independent_class_is_exact(both):
    of = both[1]
    y, conditions = of.task.scaled, Conditions(of.measured.design, of.prior.independent_covariance)
    gradients = []
    for expansion in (None, Expansion(conditions, of.measured, y)):
        gain, value = of.task.mixture(of.prior, slice(None), expansion).objective(y)
        free = list(of.free.values())
        gradients.append((value, torch.autograd.grad(gain, free, retain_graph=True, allow_unused=True)))
    assert gradients[1][0] == pytest.approx(gradients[0][0], rel=1e-12)
    for found, expected in zip(gradients[1][1], gradients[0][1], strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert expansion.n_found == 1


def test_an_expansion_serves_to_first_order_and_only_nearby(both):
    of = both[1]
    prior, at = _detached(of.prior), torch.arange(7)
    conditions = Conditions(of.measured.design, prior.independent_covariance)
    expansion = Expansion(conditions, of.measured, of.task.scaled)
    start = expansion.density(prior, at, 1.0)

    def moved(by):
        own_scale = torch.where(prior.scale_by_condition == 1, 1.0, prior.scale_by_condition * by)
        change = {name: getattr(prior, name) * by for name in ("excess_by_condition", "combination_variance")}
        change["scale_by_condition"] = own_scale
        return replace(prior, **change)

    errors = []
    for by in (1.02, 1.01):
        exact = Expansion(conditions, of.measured, of.task.scaled).density(moved(by), at, 1.0)
        errors.append(float((expansion.density(moved(by), at, 1.0) - exact).abs().max()))
        assert errors[-1] < 0.1 * float((start - exact).abs().max())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)  # what is left out is of second order
    assert expansion.n_found == 1
    expansion.density(moved(1.5), at, 0.01)
    assert expansion.n_found == 2


def _fitted(of):
    density = of.task.mixture(_detached(of.prior), slice(None)).log_density(of.task.scaled)
    return Fitted(of.measured, _detached(of.prior), torch.softmax(density.flatten(0, 1), 0).view_as(density))


def test_answers_are_those_of_the_dense_posterior(both):
    design = torch.zeros(5, K, dtype=torch.float64)
    for row, genes in zip(design, [(0,), (12,), (0, 1), (2, 6), (1, 13)], strict=True):
        row[list(genes)] = 1
    found = []
    for of in both:
        posterior = EffectPosterior()
        posterior._fitted = _fitted(of)
        found.append((*posterior.mean_and_sd(design), posterior.posterior_mean(design)))
    for one, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-6, atol=1e-7)
    loaded = EffectPosterior()
    loaded.load_state_dict(posterior.state_dict())
    assert isinstance(loaded.fitted.hyperparameters.shared_covariance, GeneCovariance)
    torch.testing.assert_close(loaded.mean(design), posterior.mean(design), rtol=0, atol=0)


@pytest.mark.parametrize("both", ["both"], indirect=True)
def test_draws_have_the_moments_of_the_posterior(both):
    fitted = _fitted(both[1])
    posterior = EffectPosterior()
    posterior._fitted = fitted
    design = torch.zeros(2, K, dtype=torch.float64)
    design[0, 0] = design[1, 6] = 1
    draws = posterior.draw(design, 400, 0)
    mean, sd = posterior.mean_and_sd(design)
    exact = posterior.posterior_mean(design)
    expected = (sd**2 - (mean - exact) ** 2).sqrt()
    lowest = draws.amin(0) > -0.1  # draws are cut there
    assert lowest.any()
    off = (draws.mean(0) - exact) / expected * 400**0.5
    assert float(off[lowest].abs().max()) < 4.5
    np.testing.assert_allclose((draws.std(0) / expected)[lowest].mean(), 1.0, atol=0.05)


@pytest.mark.parametrize("both", ["both"], indirect=True)
def test_rows_that_are_not_kept_are_drawn_again_alike(both, monkeypatch):
    fitted = _fitted(both[1])
    posterior = EffectPosterior()
    posterior._fitted = fitted
    design = fitted.measured.design
    whole = JointDraws(Conditional(fitted), posterior.additivity, 3, 0).effects(design)
    monkeypatch.setattr("raptorgraph.inference._draws._MOST_KEPT", 0)
    some = JointDraws(Conditional(fitted), posterior.additivity, 3, 0)
    assert torch.equal(some.effects(design[:2]), whole[:, :2])
    assert some._inherited.single.shape[1] == 2
    assert torch.equal(some.effects(design[-2:]), whole[:, -2:])
    assert torch.equal(some.effects(design[-1:]), whole[:, -1:])


@pytest.mark.parametrize("case", CASES)
def test_learned_alike(case, monkeypatch):
    """Within 1e-3 of the standard deviation of effects, whole fits of both kinds."""
    arrays, graph = _screen(case)
    found = []
    for most in (99, 0):
        monkeypatch.setattr(_learning, "MOST_DENSE", most)
        posterior = EffectPosterior(EffectPosteriorConfig(few_directions=False))
        posterior.fit(*arrays, 300, graph=graph, n_steps=30, rank=3)
        found.append(posterior.mean_and_sd(arrays[0]))
    spread = float(found[0][0].std())
    for one, expected in zip(*found, strict=True):
        assert float((one - expected).abs().max()) < 1e-3 * spread


def test_nothing_of_the_size_conditions_x_conditions_is_factored(monkeypatch):
    """A fit of 150 singles factors the matrices of directions alone."""
    sizes, cholesky = [], torch.linalg.cholesky
    monkeypatch.setattr(torch.linalg, "cholesky", lambda matrix: sizes.append(matrix.shape[-1]) or cholesky(matrix))
    monkeypatch.delattr(torch.linalg, "eigh")
    effect = torch.randn(150, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    posterior = EffectPosterior()
    posterior.fit(torch.eye(150), effect, torch.full((150, 30), 0.1), torch.full((150,), 50.0), 500, n_steps=2)
    posterior.mean_and_sd(torch.eye(150)[:3])
    assert sizes
    assert max(sizes) <= 14  # directions, what combinations have in common, controls


def test_learned_alike_with_an_expansion_of_the_independent_class(monkeypatch):
    """An expansion takes its place in learning, and finds what the exact likelihood finds."""
    arrays, graph = _screen("both")
    monkeypatch.setattr(_learning, "MOST_DENSE", 0)
    made = []
    monkeypatch.setattr(_learning, "Expansion", lambda *parts: made.append(Expansion(*parts)) or made[-1])
    found = []
    for few in (500, 0):
        monkeypatch.setattr(_learning, "_FEW_LINKED", few)
        posterior = EffectPosterior(EffectPosteriorConfig(few_directions=False))
        posterior.fit(*arrays, 300, graph=graph, n_steps=60, rank=3)
        found.append(posterior.mean(arrays[0]))
    assert len(made) == 1  # of the second fit
    spread = float(found[0].std())
    assert float((found[1] - found[0]).square().mean().sqrt()) < 1e-3 * spread


def test_levels_that_are_closed_are_left_out(both):
    of = both[1]
    density = of.task.mixture(_detached(of.prior), slice(None)).log_density(of.task.scaled)
    assert torch.isinf(density[INDEPENDENT, 7:]).all()
    assert torch.isfinite(density[INDEPENDENT, :7]).all()
