import numpy as np
import pytest
from scipy import sparse

from raptorgraph.screen import add_up
from raptorgraph.screen._moments import effect_moments, effects_of, log_ratio_moments, log_ratios_of, moments_of


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    codes = np.r_[0, 0, rng.integers(0, 4, 118)]
    counts = rng.poisson(1.0 + codes[:, None] * rng.random(6), size=(120, 6))
    return counts, codes, rng.integers(20, 90, 120).astype(float), rng.integers(0, 3, 120), rng.integers(0, 2, 120)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_sums_of_every_group_against_numpy(cells, make):
    counts, codes, library, batch, part = cells
    sums = add_up(make(counts), codes, 5, library=library, batch=batch, part=part, rates=True, chunk_size=17)
    rates = 1e4 * counts / library[:, None]
    groups = list(zip(sums.part.tolist(), sums.batch.tolist(), sums.condition.tolist(), strict=True))
    assert groups == sorted(set(zip(part.tolist(), batch.tolist(), codes.tolist(), strict=True)))
    for k, (p, b, c) in enumerate(groups):
        own = (part == p) & (batch == b) & (codes == c)
        assert sums.n[k] == own.sum()
        np.testing.assert_allclose(sums.total[k], np.log1p(rates[own]).sum(0), rtol=1e-5)
        np.testing.assert_allclose(sums.squares[k], (np.log1p(rates[own]) ** 2).sum(0), rtol=1e-5)
        np.testing.assert_allclose(sums.rate_total[k], rates[own].sum(0), rtol=1e-5)
        np.testing.assert_allclose(sums.rate_squares[k], (rates[own] ** 2).sum(0), rtol=1e-5)


def test_parts_and_the_whole_give_what_their_cells_give(cells):
    counts, codes, library, batch, part = cells
    X = sparse.csr_matrix(counts)
    sums = add_up(X, codes, 4, library=library, batch=batch, part=part, rates=True)
    for chosen, rows in ((sums, None), (sums.of_parts(1), part == 1), (sums.of_parts(0, 1), None)):
        alone = {"library": library, "batch": batch, "rows": rows}
        effects, ratios = effect_moments(X, codes, 4, **alone), log_ratio_moments(X, codes, 4, **alone)
        np.testing.assert_allclose(effects_of(chosen).effect, effects.effect, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(effects_of(chosen).variance, effects.variance, rtol=1e-10)
        np.testing.assert_allclose(log_ratios_of(chosen).log_ratio, ratios.log_ratio, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(moments_of(chosen).n, effects.n)


def test_log_ratios_need_the_sums_of_rates(cells):
    with pytest.raises(ValueError, match="rates=True"):
        log_ratios_of(add_up(cells[0], cells[1], 4))


def test_groups_must_fit_the_cells(cells):
    with pytest.raises(ValueError, match="one part for each of the 120 cells, got shape"):
        add_up(cells[0], cells[1], 4, part=np.zeros(7, dtype=int))
