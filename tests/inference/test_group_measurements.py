"""What is derived from effects that were measured by group, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from raptorgraph.inference import GroupMeasurements

P, S, G = 20, 2, 300


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    unit, n_cells, n_controls = rng.gamma(5.0, size=G), rng.integers(5, 40, (P, S)), np.array([300, 100])
    return GroupMeasurements(
        rng.normal(size=(P, S, G)), unit / n_cells[:, :, None], unit / n_controls[:, None], n_cells, n_controls
    )


def test_shares_are_those_whose_mean_is_independent_of_the_contrasts(measured):
    noisy = replace(measured, variance=measured.variance * np.array([1.0, 4.0])[:, None])
    noise = noisy.variance + noisy.control_variance
    q = noisy.shares
    covariance = q[:, 0, None] * noise[:, 0] - q[:, 1, None] * noise[:, 1]  # of the mean with the difference
    np.testing.assert_allclose(covariance / noise.sum(1), 0, atol=1e-10)
    np.testing.assert_allclose(q.sum(1), 1)
    np.testing.assert_allclose(noisy.within, (q[:, :, None] * noisy.effect).sum(1))


def test_perturbations_and_groups_without_cells(measured):
    n_cells, variance = measured.n_cells.copy(), measured.variance.copy()
    n_cells[0], variance[0] = 0, np.inf
    n_cells[1, 1], variance[1, 1] = 0, np.inf
    shares = replace(measured, n_cells=n_cells, variance=variance).shares
    np.testing.assert_allclose(shares[0], [0.75, 0.25])  # of the controls
    np.testing.assert_allclose(shares[1], [1, 0])
    np.testing.assert_allclose(shares[2:], measured.shares[2:])


def test_variance_among_cells(measured):
    np.testing.assert_allclose(measured.gene_variance, measured.control_variance[0] * 300)
    constant = replace(measured, control_variance=0 * measured.control_variance)
    assert (constant.gene_variance > 0).all()


def test_bad_input(measured):
    with pytest.raises(ValueError, match=r"n_cells must have shape \(20, 2\)"):
        replace(measured, n_cells=np.zeros(20))
    with pytest.raises(ValueError, match="perturbations x groups x genes"):
        replace(measured, effect=np.zeros((20, 300)))
    effect = measured.effect.copy()
    effect[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        replace(measured, effect=effect)
