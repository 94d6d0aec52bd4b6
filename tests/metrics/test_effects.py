import numpy as np
import pytest
from scipy.stats import pearsonr

from raptorgraph.metrics import pearson_delta, relative_mse


@pytest.fixture
def effects():
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(6, 40))
    return measured + rng.normal(size=measured.shape), measured


def test_pearson_is_that_of_scipy(effects):
    predicted, measured = effects
    expected = [pearsonr(p, m).statistic for p, m in zip(predicted, measured, strict=True)]
    np.testing.assert_allclose(pearson_delta(predicted, measured, per_row=True), expected)
    assert pearson_delta(predicted, measured) == pytest.approx(np.mean(expected))
    assert pearson_delta(predicted[0], measured[0]) == pytest.approx(expected[0])


def test_pearson_ignores_location_and_scale(effects):
    _, measured = effects
    np.testing.assert_allclose(pearson_delta(3 * measured + 1e3, measured, per_row=True), 1.0)
    np.testing.assert_allclose(pearson_delta(-measured, measured, per_row=True), -1.0)


def test_constant_rows_are_undefined_and_left_out(effects):
    predicted, measured = effects
    full = pearson_delta(predicted[1:], measured[1:])
    predicted[0] = 0.1  # its mean is not exact in binary
    rows = pearson_delta(predicted, measured, per_row=True)
    assert np.isnan(rows[0]) and np.isfinite(rows[1:]).all()
    assert pearson_delta(predicted, measured) == pytest.approx(full)
    assert np.isnan(pearson_delta(np.zeros_like(measured), measured))


def test_relative_mse(effects):
    _, measured = effects
    assert relative_mse(measured, measured) == 0
    assert relative_mse(np.zeros_like(measured), measured) == 1
    assert relative_mse(1.5 * measured, measured) == pytest.approx(0.25)
    # pooled over rows, not a mean of ratios
    assert relative_mse([[0.0, 0.0], [3.0, 0.0]], [[1.0, 0.0], [3.0, 0.0]]) == pytest.approx(0.1)


def test_bad_shapes_and_empty_effects(effects):
    predicted, measured = effects
    with pytest.raises(ValueError, match=r"\(6, 39\).*\(6, 40\)"):
        pearson_delta(predicted[:, 1:], measured)
    with pytest.raises(ValueError, match="undefined"):
        relative_mse(predicted, np.zeros_like(measured))
    with pytest.raises(ValueError, match="two genes"):
        pearson_delta(predicted[:, :1], measured[:, :1])
    with pytest.raises(ValueError, match="perturbations, genes"):
        relative_mse(np.ones((2, 2, 2)), np.ones((2, 2, 2)))
