"""Perturbations whose effects are shifted by the number of counts of their cells."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from raptorgraph.screen import Screen
from raptorgraph.screen._checks import WARNING
from raptorgraph.screen._depth_check import _mean, _thinned
from raptorgraph.screen._value_checks import library_sizes

G = 100
RATES = np.linspace(0.3, 6.0, G)
SIZES = {"control": 600, "P1": 200, "P2": 200, "P3": 12}


def screen_of(depth, make=np.asarray, batch=None):
    """Cells that differ in the number of their counts alone."""
    rng, labels = np.random.default_rng(0), np.repeat(list(SIZES), list(SIZES.values()))
    own = np.array([depth.get(label, 1.0) for label in labels])
    counts = rng.poisson(RATES * own[:, None] * rng.gamma(10, 0.1, (len(labels), 1)))
    obs = pd.DataFrame({"perturbation": labels}, [f"c{i}" for i in range(len(labels))])
    return Screen(AnnData(make(counts.astype(np.float32)), obs), {})


def found_in(screen):
    return [finding for finding in library_sizes(screen) if "shifted" in finding.found]


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("depth", [0.5, 1.6])
def test_fewer_or_more_counts_shift_effects(make, depth):
    screen = screen_of({"P1": depth}, make)
    effect = screen.moments.effect[screen.labels.index("P1")] / np.sqrt(screen.moments.variance[1])
    assert (np.abs(effect) > 2).mean() > 0.3  # though these cells were not perturbed
    (found,) = found_in(screen)
    assert (found.level, found.concerns) == (WARNING, ("P1",))
    assert "P1 (" in found.text


def test_nothing_is_shifted_by_alike_or_few_cells():
    assert not found_in(screen_of({}))
    assert not found_in(screen_of({"P1": 0.95}))
    assert not found_in(screen_of({"P3": 0.85}))  # twelve cells tell nothing of it


def test_logarithms_have_no_counts():
    screen = screen_of({"P1": 0.5})
    adata = screen.adata.copy()
    adata.obs["total_counts"] = np.asarray(adata.X).sum(1)
    adata.X = np.log1p(1e4 * adata.X / adata.obs["total_counts"].to_numpy()[:, None])
    assert not found_in(Screen(adata, {}))


def test_thinned_counts_are_binomial_and_their_mean_is_of_expression():
    counts, rng = np.full((4000, 2), 3.0), np.random.default_rng(0)
    for X in (counts, sparse.csr_matrix(counts)):
        thinned = _thinned(X, 0.4, rng)
        expected = stats.binom.expect(lambda x: np.log1p(1e4 * x / 20), (3, 0.4))
        np.testing.assert_allclose(_mean(thinned, np.full(4000, 20.0)), expected, rtol=0.05)
