"""Sparse interactions against numerical integration, and single genes that a pair moves by itself."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from raptorgraph.inference import EffectPosterior
from raptorgraph.inference._conditioning import Conditional, Sets
from raptorgraph.inference._draws import JointDraws
from raptorgraph.inference._sparse_interactions import SparseInteractions
from raptorgraph.inference._sparse_learning import _VARIANCES, _posterior


@pytest.fixture(scope="module")
def moved(draw_screen, fit):
    """A screen of sums in which three measured pairs move 10 genes each, by 6 standard errors; with and without."""
    screen = draw_screen(np.random.default_rng(3), interaction=0.0)
    design, measured, true, variance = (
        x[: screen.n].copy() for x in screen[:1] + screen[1:2] + screen[3:4] + screen[2:3]
    )
    at = np.array([(row, g) for row in (8, 9, 10) for g in range(20 * row, 20 * row + 10)]).T
    jump = 6 * np.sqrt(variance[at[0], at[1]]) * np.where(np.arange(30) % 2, 1, -1)
    for values in (measured, true):
        values[at[0], at[1]] += jump
    found = {sparse: fit(design, measured, variance, sparse=sparse) for sparse in (True, False)}
    return screen, torch.as_tensor(design), true, variance, at, found


def test_the_posterior_of_one_is_that_of_numerical_integration():
    """Weights come from many genes that do not depart, so they are known; a normal density of two widths is left."""
    n, w, variance = 5000, 2.0, 1.5
    off = np.zeros(n)
    off[:200] = 12.0
    arguments = torch.as_tensor(off)[None], torch.full((1, n), variance), torch.full((n,), w)
    probability, center, spread = _posterior(*arguments, torch.zeros(1, n, dtype=torch.bool))
    # The weights by their own equations, in which each share of all genes is the weight and the prior counts.
    v = _VARIANCES.numpy()
    density = {o: norm.pdf(o, scale=np.sqrt(w * (variance + v))) for o in (0.0, 12.0)}
    weights = np.ones(len(v)) / len(v)
    for _ in range(300):
        share = {o: weights * d / (weights @ d) for o, d in density.items()}
        counts = 200 * share[12.0] + (n - 200) * share[0.0] + np.array([30.0, 1, 1, 1, 1])
        weights = counts / counts.sum()

    def of_s(s):
        slab = sum(p * norm.pdf(s, scale=np.sqrt(w * x)) for p, x in zip(weights[1:], v[1:], strict=True))
        return slab * norm.pdf(12.0 - s, scale=np.sqrt(w * variance))

    there = quad(of_s, -20, 40, limit=200)[0]
    not_there = weights[0] * norm.pdf(12.0, scale=np.sqrt(w * variance))
    mean = quad(lambda s: s * of_s(s), -20, 40, limit=200)[0] / there
    square = quad(lambda s: s**2 * of_s(s), -20, 40, limit=200)[0] / there
    np.testing.assert_allclose(probability[0, 0], there / (there + not_there), rtol=1e-3)
    np.testing.assert_allclose(center[0, 0], mean, rtol=1e-3)
    np.testing.assert_allclose(spread[0, 0], square - mean**2, rtol=1e-2)
    assert float(probability[0, 200:].max()) < 0.02


def test_a_pair_without_cells_has_none(draw_screen, fit):
    """Nothing was measured, so the prior of the weights alone would move an eighth of all genes."""
    screen = draw_screen(np.random.default_rng(2))
    n_cells = np.full(screen.n, 50.0)
    n_cells[-1] = 0
    data = screen.design[: screen.n], screen.measured[: screen.n], screen.variance[: screen.n]
    posterior = fit(*data, n_cells, sparse=True)
    assert float(posterior.fitted.sparse.probability[-1].max()) == 0
    assert float(posterior.fitted.sparse.probability[0].max()) > 0


def test_a_closed_gene_has_none():
    closed = torch.tensor([[True, False]])
    off, variance = torch.full((1, 2), 30.0, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    probability, center, spread = _posterior(off, variance, torch.ones(2, dtype=torch.float64), closed)
    assert probability[0, 0] == 0
    assert probability[0, 1] > 0.9
    assert bool(torch.isfinite(center).all())
    assert bool((spread >= 0).all())


def test_a_gene_that_a_pair_moves_by_itself_keeps_its_effect(moved):
    """Without sparse interactions, most of the departures of six standard errors are taken for noise."""
    _, design, true, variance, at, found = moved
    error = {
        sparse: ((posterior.posterior_mean(design).numpy() - true)[at[0], at[1]] ** 2 / variance[at[0], at[1]]).mean()
        for sparse, posterior in found.items()
    }
    assert error[True] < 3
    assert error[False] > 10


def test_intervals_and_draws_hold_it(moved):
    _, design, true, _, at, found = moved
    rows = torch.as_tensor([8, 9, 10])
    for sparse, least in ((True, 0.75), (False, 0.0)):
        mean, sd = (x.numpy() for x in found[sparse].mean_and_sd(design))
        drawn = found[sparse].draw(design[rows], 400, seed=1).numpy()
        low, high = np.quantile(drawn, (0.05, 0.95), axis=0)
        of_draws = ((low <= true[rows]) & (true[rows] <= high))[at[0] - 8, at[1]].mean()
        of_sd = (np.abs(mean - true) < 1.645 * sd)[at[0], at[1]].mean()
        assert of_draws >= least
        assert of_sd >= least
        if not sparse:
            assert max(of_draws, of_sd) < 0.5


def test_draws_have_the_moments_of_the_posterior(moved):
    _, design, _, _, _, found = moved
    posterior, rows = found[True], design[torch.as_tensor([8, 9, 12])]
    drawn = JointDraws(posterior._conditional(), posterior.additivity, 1000, 2).effects(rows, controls=True)
    off = (drawn.mean(0) - posterior.posterior_mean(rows)).abs() / (drawn.std(0) / 1000**0.5)
    assert float((off > 4).double().mean()) < 0.01
    # on the genes that they move, the spread is that of the moments, too
    variance = posterior._moments(Sets.of(rows, posterior.fitted, posterior.additivity)).variance
    moved_here = torch.stack([torch.arange(20 * row, 20 * row + 10) for row in (8, 9)])
    ratio = (drawn.var(0) / variance)[torch.arange(2)[:, None], moved_here]
    assert 0.7 < float(ratio.median()) < 1.4


def test_what_other_sets_inherit_is_free_of_it(moved):
    """The single effects of a pair's genes on the genes that it moves are nearer to the truth."""
    _, _, true, _, at, found = moved
    singles = torch.eye(8, dtype=torch.float64)
    error = {s: ((p.posterior_mean(singles).numpy() - true[:8])[:, at[1]] ** 2).mean() for s, p in found.items()}
    assert error[True] < error[False]


def test_the_size_of_interactions_that_were_not_measured_holds_it(moved):
    """Pairs that move single genes by themselves are as good a reason to expect that of others."""
    _, _, _, _, _, found = moved
    additivity, prior = found[True].additivity, found[True].fitted.hyperparameters
    without = (additivity.own.interaction / prior.interaction_variance)[:3]
    assert bool((additivity.sizes[:3] > 1.5 * without).all())
    torch.testing.assert_close(additivity.sizes, found[False].additivity.sizes)


def test_where_there_is_none_little_changes(draw_screen, fit):
    screen = draw_screen(np.random.default_rng(4), interaction=0.0)
    data = screen.design[: screen.n], screen.measured[: screen.n], screen.variance[: screen.n]
    design, true = torch.as_tensor(data[0]), screen.true[: screen.n]
    found = [((fit(*data, sparse=s).posterior_mean(design).numpy() - true) ** 2).sum() for s in (True, False)]
    assert abs(found[0] / found[1] - 1) < 0.01


def test_it_travels_with_the_state(moved):
    _, design, _, _, _, found = moved
    posterior, other = found[True], EffectPosterior()
    other.set_extra_state(posterior.get_extra_state())
    assert torch.equal(other.mean(design), posterior.mean(design))
    state = posterior.get_extra_state()
    older = EffectPosterior()  # of a version that knew nothing of it
    older.set_extra_state({name: x for name, x in state.items() if not name.startswith("sparse_")})
    assert older.fitted.sparse is None
    assert not torch.equal(older.mean(design), posterior.mean(design))


def test_columns_are_put_in_order_with_all_else(moved):
    _, _, _, _, _, found = moved
    fitted = found[True].fitted
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    there = Conditional(fitted.of_columns(order))
    torch.testing.assert_close(there.effect, fitted.inheritable[:, order])


def test_moments_of_draws_of_one():
    shape = torch.tensor([[0.3, 1.0, 0.0]], dtype=torch.float64)
    center, spread = torch.tensor([[2.0, -1.0, 5.0]]).double(), torch.tensor([[0.5, 0.2, 1.0]]).double()
    sparse = SparseInteractions(torch.tensor([0]), shape, center, spread)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([sparse.draw(generator) for _ in range(20_000)])
    torch.testing.assert_close(drawn.mean(0), sparse.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(0), sparse.variance, atol=0.08, rtol=0)
    assert sparse.mean.tolist() == [[0.6, -1.0, 0.0]]


def test_screens_without_pairs_have_none(draw_screen, fit):
    screen = draw_screen(np.random.default_rng(1))
    posterior = fit(screen.design[:8], screen.measured[:8], screen.variance[:8], sparse=True)
    assert posterior.fitted.sparse is None
