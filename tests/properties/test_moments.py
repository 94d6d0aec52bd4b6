"""Sums of cells: the order of cells and genes, and how they are cut into chunks, change nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from raptorgraph.screen._matrix import as_matrix
from raptorgraph.screen._moments import effects_of, log_ratios_of, moments_of
from raptorgraph.screen._sums import add_up


@st.composite
def cells(draw):
    """Counts, conditions, batches and library sizes, with at least two controls."""
    n, genes, conditions = draw(st.integers(3, 30)), draw(st.integers(1, 6)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    counts = rng.poisson(rng.choice([0.0, 0.3, 3.0, 300.0], genes), (n, genes)).astype(float)
    codes = np.concatenate([[0, 0], rng.integers(conditions, size=n - 2)])
    library = np.maximum(counts.sum(1), 1) * rng.uniform(1, 3, n)
    return counts, codes, conditions, {"library": library, "batch": rng.integers(draw(st.integers(1, 3)), size=n)}


def found(counts, codes, n, of_cells, **options):
    sums = add_up(as_matrix(counts), codes, n, rates=True, **of_cells, **options)
    effects, ratios, moments = effects_of(sums), log_ratios_of(sums), moments_of(sums)
    return [effects.effect, effects.variance, ratios.log_ratio, ratios.variance, moments.mean, moments.var]


@given(cells(), st.randoms(use_true_random=False))
def test_order_of_cells_and_genes(screen, random):
    counts, codes, n, of_cells = screen
    rows = np.array(random.sample(range(len(codes)), len(codes)))
    columns = np.array(random.sample(range(counts.shape[1]), counts.shape[1]))
    expected = found(counts, codes, n, of_cells)
    shuffled = {name: values[rows] for name, values in of_cells.items()}
    for got, values in zip(found(counts[rows][:, columns], codes[rows], n, shuffled), expected, strict=True):
        np.testing.assert_allclose(got, values[:, columns], rtol=1e-6, atol=1e-9)


@given(cells(), st.integers(1, 7))
def test_chunks_and_storage(screen, chunk_size):
    counts, codes, n, of_cells = screen
    expected = found(counts, codes, n, of_cells)
    for given_ in (counts, sparse.csr_matrix(counts)):
        for got, values in zip(found(given_, codes, n, of_cells, chunk_size=chunk_size), expected, strict=True):
            np.testing.assert_allclose(got, values, rtol=1e-5, atol=1e-7)


@given(cells())
def test_means_by_hand(screen):
    counts, codes, n, of_cells = screen
    values = np.log1p(1e4 * counts / of_cells["library"][:, None])
    *_, mean, var = found(counts, codes, n, of_cells)
    for code in np.unique(codes):
        here = values[codes == code]
        np.testing.assert_allclose(mean[code], here.mean(0), rtol=1e-5, atol=1e-6)
        if len(here) > 1:
            assert var[code] == pytest.approx(here.var(0, ddof=1), rel=1e-3, abs=1e-5)
