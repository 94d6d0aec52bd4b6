import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, mean_squared_error

from raptorgraph.metrics._effects import (
    against_centroid,
    cosine_delta,
    mae,
    mse,
    on_top_genes,
    pearson_delta,
    relative_mse,
)


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
    assert np.isnan(rows[0])
    expected = [pearsonr(p, m).statistic for p, m in zip(predicted[1:], measured[1:], strict=True)]
    np.testing.assert_allclose(rows[1:], expected)
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


def test_errors_are_those_of_scikit_learn(effects):
    predicted, measured = effects
    assert mse(predicted, measured) == pytest.approx(mean_squared_error(measured, predicted))
    assert mae(predicted, measured) == pytest.approx(mean_absolute_error(measured, predicted))
    rows = [mean_squared_error(m, p) for p, m in zip(predicted, measured, strict=True)]
    np.testing.assert_allclose(mse(predicted, measured, per_row=True), rows)
    rows = [mean_absolute_error(m, p) for p, m in zip(predicted, measured, strict=True)]
    np.testing.assert_allclose(mae(predicted, measured, per_row=True), rows)


def test_cosine_is_that_of_scipy_and_undefined_for_zero(effects):
    predicted, measured = effects
    expected = [1 - cosine(p, m) for p, m in zip(predicted, measured, strict=True)]
    np.testing.assert_allclose(cosine_delta(predicted, measured, per_row=True), expected)
    predicted[2] = 0
    assert np.isnan(cosine_delta(predicted, measured, per_row=True)[2])
    assert cosine_delta(predicted, measured) == pytest.approx(np.mean(expected[:2] + expected[3:]))
    assert np.isnan(cosine_delta(0 * measured, measured))
    assert cosine_delta(2 * measured, measured) == pytest.approx(1)
    # a shift of all genes, which the correlation does not see
    shifted = [1 - cosine(m + 5, m) for m in measured]
    assert cosine_delta(measured + 5, measured) == pytest.approx(np.mean(shifted))
    assert np.mean(shifted) < 0.5


def test_centroid_as_reference_takes_the_shared_part(effects):
    predicted, measured = effects
    shared = 10 * np.random.default_rng(1).normal(size=measured.shape[1])
    measured, mean_only = measured + shared, np.tile(measured.mean(axis=0) + shared, (len(measured), 1))
    assert pearson_delta(mean_only, measured) > 0.95
    np.testing.assert_allclose(against_centroid(mean_only, measured), 0, atol=1e-12)
    # each condition counts once, and the control cancels
    expected = measured - measured[:4].mean(axis=0)
    np.testing.assert_allclose(against_centroid(measured, measured[:4]), expected)
    np.testing.assert_allclose(against_centroid(measured + 3, measured[:4] + 3), expected)
    np.testing.assert_allclose(against_centroid(measured[0], measured[:4]), expected[0])


def test_on_top_genes(effects):
    predicted, measured = effects
    top = np.argsort(-np.abs(measured), axis=1)[:, :7]
    rows = [pearsonr(p[t], m[t]).statistic for p, m, t in zip(predicted, measured, top, strict=True)]
    np.testing.assert_allclose(on_top_genes(pearson_delta, predicted, measured, top, per_row=True), rows)
    assert on_top_genes(mae, predicted[0], measured[0], top[0]) == pytest.approx(
        np.abs(predicted[0, top[0]] - measured[0, top[0]]).mean()
    )
    assert on_top_genes(relative_mse, 0 * measured, measured, top) == 1


def test_bad_references_and_genes(effects):
    predicted, measured = effects
    with pytest.raises(ValueError, match=r"\(0, 40\)"):
        against_centroid(predicted, measured[:0])
    with pytest.raises(ValueError, match=r"\(6, 39\).*\(6, 40\)"):
        against_centroid(predicted, measured[:, 1:])
    with pytest.raises(ValueError, match="6 perturbations"):
        on_top_genes(mse, predicted, measured, np.zeros((5, 3), dtype=int))
    with pytest.raises(ValueError, match="float64"):
        on_top_genes(mse, predicted, measured, np.zeros((6, 3)))
    with pytest.raises(ValueError, match="0 to 40"):
        on_top_genes(mse, predicted, measured, np.full((6, 2), [0, 40]))
