import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from raptorgraph.datasets._screen import random_off_targets


def test_linear_screen_without_interaction_is_additive(make_screen, make_cells, log_rates):
    screen = make_screen()
    cells = make_cells(screen, 20)
    control, first, second, both = (log_rates(screen, cells, list(c)) for c in [(), (0,), (1,), (0, 1)])
    np.testing.assert_allclose(both - control, (first - control) + (second - control), atol=1e-12)
    assert np.abs(both - control).max() > 0.5


@pytest.mark.parametrize("mechanism", ["linear", "saturating"])
def test_interaction_is_bilinear_in_the_shifts(mechanism, make_screen, make_cells, log_rates):
    screen = make_screen(mechanism=mechanism, interaction_strength=0.5, n_perturbed=6, n_latent=9)
    cells = make_cells(screen, 20)
    without = replace(screen, pairs=screen.pairs[:0], pair_loadings=screen.pair_loadings[:0])
    for single in ([], [0], [3]):
        np.testing.assert_array_equal(log_rates(screen, cells, single), log_rates(without, cells, single))
    i, j = screen.pairs[1]
    bound = np.full(6, np.inf) if mechanism == "linear" else screen.saturation[:6]
    a, b = (
        cells.shifts[:, k] if mechanism == "linear" else bound[k] * np.tanh(cells.shifts[:, k] / bound[k])
        for k in (i, j)
    )
    expected = np.outer(a * b, screen.pair_loadings.toarray()[1])
    assert np.count_nonzero(expected) == 20 * 3  # a tenth of the genes
    difference = log_rates(screen, cells, [i, j]) - log_rates(without, cells, [i, j])
    np.testing.assert_allclose(difference, expected, atol=1e-12)


def test_pairs_that_meet_in_no_cell_cost_nothing(make_screen, make_cells, log_rates):
    screen = make_screen(n_genes=150, n_perturbed=120, n_latent=125, interaction_strength=0.5)
    cells = make_cells(screen, 50)
    tracemalloc.start()
    log_rates(screen, cells, [0, 7])
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(screen.pairs) > 3000
    assert used < 8 * 50 * len(screen.pairs) / 2  # one number for each cell and pair is twice as much


def test_saturating_response_is_odd_bounded_and_of_slope_one(make_screen):
    screen = make_screen(mechanism="saturating")
    small, large = np.full((1, 6), 1e-4), np.full((1, 6), 50.0)
    np.testing.assert_allclose(screen.respond(small), small, rtol=1e-6)
    np.testing.assert_allclose(screen.respond(large)[0], screen.saturation)
    np.testing.assert_array_equal(screen.respond(-large), -screen.respond(large))


def test_cells_are_drawn_from_normal_numbers(make_screen):
    screen = make_screen()
    normal = np.random.default_rng(0).standard_normal((5, 6 + 3 + 1))
    cells = screen.draw_cells(normal, np.arange(5), 1000.0, 0.4)
    np.testing.assert_allclose(cells.exogenous, normal[:, :6] * screen.graph.noise_sd)
    np.testing.assert_allclose(cells.shifts, screen.shift * (1 + 0.1 * normal[:, 6:9]))
    # a log-normal distribution with mean 1000
    expected = stats.lognorm(0.4, scale=1000 * np.exp(-0.08)).ppf(stats.norm.cdf(normal[:, 9]))
    np.testing.assert_allclose(cells.library_size, expected)
    np.testing.assert_array_equal(cells.batch, np.arange(5))


@pytest.mark.parametrize("mechanism", ["linear", "saturating"])
def test_log_rates_are_those_of_dense_algebra(make_screen, make_cells, mechanism):
    screen = make_screen(mechanism=mechanism, n_batches=2)
    cells = make_cells(screen, 4)
    z = cells.exogenous.copy()
    z[:, :3] += cells.shifts
    latents = np.linalg.solve((np.eye(6) - screen.graph.adjacency).T, z.T).T
    np.testing.assert_allclose(screen.latents(cells.exogenous, cells.shifts), latents, atol=1e-12)
    response = latents if mechanism == "linear" else screen.saturation * np.tanh(latents / screen.saturation)
    batch = np.array([0, 1, 1, 0])
    expected = screen.base + response @ screen.loadings.toarray() + screen.batch_offsets[batch]
    np.testing.assert_allclose(screen.log_rates(latents, cells.shifts, batch), expected, atol=1e-12)


def test_parameters_follow_their_distributions(make_screen):
    screen = make_screen(n_genes=4000, n_perturbed=12, n_latent=20, interaction_strength=0.8, n_batches=3,
                         mechanism="saturating")  # fmt: skip
    own, other = [4, *range(10)], np.arange(10, 4000)
    # a normal distribution cut off above 1.5 standard deviations; perturbed genes lie above its median
    base = stats.truncnorm(-np.inf, 1.5, scale=3.0)
    assert stats.kstest(screen.base[other], base.cdf).pvalue > 1e-3
    assert (screen.base[own] > base.median()).all()
    loadings = screen.loadings.toarray()[:, other]
    assert stats.binomtest(np.count_nonzero(loadings), loadings.size, 3 / 20).pvalue > 1e-3
    assert stats.kstest(loadings[loadings != 0], stats.norm(scale=0.3).cdf).pvalue > 1e-3
    assert stats.kstest(screen.batch_offsets.ravel(), stats.norm(scale=0.2).cdf).pvalue > 1e-3
    pairs = screen.pair_loadings.toarray()
    np.testing.assert_array_equal(np.count_nonzero(pairs, axis=1), 400)  # a tenth of the genes
    assert stats.kstest(pairs[pairs != 0], stats.norm(scale=0.5 * 0.8).cdf).pvalue > 1e-3
    assert stats.binomtest(len(pairs), 66, 0.5).pvalue > 1e-3
    assert stats.kstest(-screen.shift, stats.uniform(1.2, 1.2).cdf).pvalue > 1e-3
    assert stats.kstest(screen.saturation, stats.uniform(1.0, 1.5).cdf).pvalue > 1e-3


def test_loadings_of_own_genes(make_screen):
    screen = make_screen(n_genes=200, n_perturbed=5, n_latent=9)  # own genes 4, none, 0, 1, 2
    own = screen.loadings.toarray()[[0, 2, 3, 4], [4, 0, 1, 2]]
    assert ((own >= 0.8) & (own <= 1.2)).all()
    assert len(screen.pairs) == screen.pair_loadings.shape[0] == 0
    assert not screen.batch_offsets.any()  # one batch has none


def test_dense_programs_reach_every_gene_and_vary_no_more(make_screen):
    sparse_one, dense = make_screen(n_genes=4000), make_screen(n_genes=4000, programs_per_gene=np.inf)
    loadings = dense.loadings.toarray()
    assert (loadings != 0).all()
    # of six latents all are read instead of three
    assert np.sqrt((loadings**2).sum(0)).mean() == pytest.approx(0.3 * np.sqrt(3), rel=0.1)
    assert (sparse_one.loadings.toarray() != 0).mean() == pytest.approx(0.5, abs=0.02)


def test_off_targets_are_hit_as_by_their_own_guides():
    shift = -np.array([1.0, 2.0, 1.5, 1.2, 0.8])
    weights = random_off_targets(shift, 0.6, np.random.default_rng(0))
    rows, columns = np.nonzero(weights)
    assert len(set(rows)) == len(rows) == 3
    assert (rows != columns).all()
    hit = np.diag(shift) @ weights  # shift of the second target where one is perturbed
    part = hit[rows, columns] / shift[columns]
    assert ((part >= 0.5) & (part <= 1)).all()
    assert random_off_targets(shift, 0.0, np.random.default_rng(0)) is None
    assert random_off_targets(shift[:1], 1.0, np.random.default_rng(0)) is None


def test_off_targets_shift_the_latents_and_not_the_labels(make_screen, make_cells):
    screen = make_screen()
    cells = make_cells(screen, 5)
    weights = np.zeros((3, 3))
    weights[0, 2] = 0.7
    shifts = np.zeros_like(cells.shifts)
    shifts[:, 0] = -2.0
    both = shifts.copy()
    both[:, 2] = 0.7 * -2.0
    found = replace(screen, off_target=weights).latents(cells.exogenous, shifts)
    np.testing.assert_allclose(found, screen.latents(cells.exogenous, both))
