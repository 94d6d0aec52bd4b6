"""Columns that have the guides, and the test of whether guides of one perturbation agree."""

import numpy as np
import pytest
from scipy.stats import binom, chi2

from raptorgraph.model import _responders


@pytest.mark.parametrize(
    "name", ["guide", "guides", "guide_id", "guide_identity", "sgRNA", "grna_id", "gRNA", "sgrna_name"]
)
def test_usual_names(name):
    assert _responders._GUIDES.fullmatch(name)


@pytest.mark.parametrize("name", ["guide_umis", "n_guides", "grna_top_umi", "misguided", "perturbation"])
def test_other_columns(name):
    assert not _responders._GUIDES.fullmatch(name)


def test_disagreement_of_cells_that_are_told_apart_is_that_of_two_binomials():
    cells = [np.repeat([1e9, 1e-9], [k, 40 - k]) for k in (30, 10)]
    gained = sum(binom.logpmf(k, 40, k / 40) - binom.logpmf(k, 40, 0.5) for k in (30, 10))
    assert _responders.disagreement(cells, 1.0) == pytest.approx(chi2.sf(2 * gained, 1), rel=0.02)
    assert np.isnan(_responders.disagreement(cells[:1], 1.0))


def test_likelihood_ratio_from_even_odds():
    even = np.array([0.5, 0.9, 1.0, 0.25, np.nan])
    ratio = _responders.ratio_of(even, np.array([1, 1, 1, 2, 0]))
    np.testing.assert_allclose(ratio, [1, 9, 1e12, 1, np.nan])  # of a pair a quarter is even
    assert _responders.told_of(ratio[:2]) == pytest.approx(0.4)
