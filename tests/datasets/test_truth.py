from dataclasses import replace
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from scipy import stats

from raptorgraph.datasets import _truth
from raptorgraph.datasets._truth import _Expectation, latin_normal, normalized, true_effects


def test_panel_takes_its_share_of_the_library(make_screen, make_cells, log_rates):
    screen = make_screen()
    cells = make_cells(screen, 500)
    rates = np.exp(log_rates(normalized(screen, [cells]), cells, []))
    assert rates.sum(axis=1).mean() == pytest.approx(0.6)
    assert rates.sum(axis=1).std() > 0.01  # no cell is normalized again


def test_true_effects_match_the_sum_over_counts(make_screen, make_cells, log_rates):
    screen = make_screen(n_genes=8, mechanism="saturating", interaction_strength=0.5)
    cells = make_cells(screen, 3, library_size=60.0)
    screen = normalized(screen, [cells])
    counts = np.arange(3000)

    def expectation(condition):
        mean = cells.library_size[:, None] * np.exp(log_rates(screen, cells, condition))
        weights = stats.nbinom.pmf(counts, 2.0, 2.0 / (2.0 + mean[..., None]))
        return (weights * np.log1p(1e4 * counts / cells.library_size[:, None, None])).sum(axis=-1).mean(axis=0)

    conditions = [[0], [2], [0, 2]]
    expected = [expectation(condition) - expectation([]) for condition in conditions]
    np.testing.assert_allclose(true_effects(screen, [cells], conditions, 2.0), [expected], atol=2e-5)


def test_genes_that_a_perturbation_does_not_reach_have_no_effect(make_screen, make_cells):
    screen = make_screen(n_genes=200)
    cells = make_cells(screen, 50)
    effect = true_effects(normalized(screen, [cells]), [cells], [[0]], 2.0)[0, 0]
    network = nx.from_numpy_array(screen.graph.adjacency, create_using=nx.DiGraph)
    reached = np.abs(screen.loadings.toarray()[[0, *nx.descendants(network, 0)]]).sum(axis=0) > 0
    assert 0 < reached.sum() < 200
    np.testing.assert_array_equal(effect != 0, reached)


def test_latin_hypercube_has_one_number_in_each_slice():
    normal = latin_normal(50, 4, np.random.default_rng(0))
    slices = np.floor(50 * stats.norm.cdf(normal)).astype(int)
    np.testing.assert_array_equal(np.sort(slices, axis=0), np.tile(np.arange(50)[:, None], (1, 4)))
    assert np.unique(slices, axis=0).shape[0] == 50
    assert (slices[:, 0] != slices[:, 1]).any()  # columns are shuffled apart


def test_rare_and_certain_counts():
    # of a rare gene log1p(1e4 count / L) is that of one count times its rate; without noise it is that of the mean
    library = np.array([1e4, 2e4])
    rare = _Expectation(library, 2.0)(np.log([[1e-9], [1e-9]]))
    np.testing.assert_allclose(rare[:, 0] / (1e-9 * library), np.log1p(1e4 / library), rtol=1e-4)
    certain = _Expectation(library, 1e6)(np.log([[0.5], [0.25]]))
    np.testing.assert_allclose(certain[:, 0], np.log1p(1e4 * np.array([0.5, 0.25])), rtol=1e-4)


def test_effects_are_bit_for_bit_those_of_every_gene_under_every_condition(make_screen, make_cells, log_rates):
    plain = make_screen(
        n_genes=60, n_perturbed=6, n_latent=9, mechanism="saturating", interaction_strength=0.5, n_batches=2
    )
    off_target = np.zeros((6, 6))
    off_target[1, 4] = 0.7
    for screen in (plain, replace(plain, off_target=off_target)):
        cells = make_cells(screen, 30)
        conditions = [hit for size in (1, 2, 3) for hit in combinations(range(6), size)]
        expectation = _Expectation(cells.library_size, 2.0)
        control, *means = (expectation(log_rates(screen, cells, list(hit))).mean(axis=0) for hit in [(), *conditions])
        expected = np.array([mean - control for mean in means], dtype=np.float32)
        np.testing.assert_array_equal(true_effects(screen, [cells], conditions, 2.0)[0], expected)
        # nothing is taken from conditions that are not there
        np.testing.assert_array_equal(true_effects(screen, [cells], conditions[-3:], 2.0)[0], expected[-3:])


def test_what_smaller_conditions_say_is_not_computed_again(make_screen, make_cells, monkeypatch):
    screen = make_screen(n_genes=200, n_perturbed=30, n_latent=40, mechanism="saturating", interaction_strength=0.5)
    cells = make_cells(screen, 10)
    conditions = [hit for size in (1, 2) for hit in combinations(range(30), size)]
    computed = []
    expect = _truth._Expectation.__call__
    monkeypatch.setattr(
        _truth._Expectation, "__call__", lambda self, rates: computed.append(rates.size) or expect(self, rates)
    )
    true_effects(screen, [cells], conditions, 2.0)
    assert sum(computed) < 0.15 * 10 * 200 * len(conditions)
