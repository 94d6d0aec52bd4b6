import numpy as np
import pandas as pd
import pytest

from raptorgraph.pl._measured import measured_with_error, one_measured, predicted_with_sd


def means_of(adata):
    return adata.to_df().groupby(adata.obs["perturbation"]).mean()


def test_effects_are_differences_of_means_with_their_standard_errors(fixed):
    effects, errors = measured_with_error(fixed)
    assert list(effects.index) == list(errors.index) == ["A", "A+B", "B", "C"]
    assert list(effects.columns) == fixed.var_names_
    means = means_of(fixed.adata)
    np.testing.assert_allclose(effects, means.loc[effects.index] - means.loc["control"], atol=1e-6)
    values, labels = fixed.adata.to_df(), fixed.adata.obs["perturbation"]
    control = values[labels == "control"].var(ddof=1)
    for name in effects.index:
        # of a variance that the control's counts for ten cells in: 59 + 10 degrees of freedom
        own = (59 * values[labels == name].var(ddof=1) + 10 * control) / 69
        np.testing.assert_allclose(errors.loc[name], np.sqrt(own / 60 + control / 60), rtol=1e-6)


def test_named_perturbations_in_other_cells_and_genes_in_another_order(fixed):
    cells = fixed.adata[fixed.adata.obs["perturbation"].isin(["control", "B", "C"]), ::-1].copy()
    effects, errors = measured_with_error(fixed, ["C", "A"], cells)
    assert list(effects.index) == ["C"]
    assert list(effects.columns) == list(errors.columns) == fixed.var_names_
    np.testing.assert_allclose(effects, measured_with_error(fixed)[0].loc[["C"]], atol=1e-12)
    with pytest.raises(KeyError, match="2 genes of the model are not in the measured cells, first 'gene35'"):
        measured_with_error(fixed, None, cells[:, 2:].copy())
    fixed.adata = None
    with pytest.raises(ValueError, match="or give the measured cells"):
        measured_with_error(fixed)


def test_one_effect_is_given_measured_or_not_known(fixed):
    given = pd.Series([1.0], ["A"])
    effect, error = one_measured(fixed, "A", given)
    assert effect is given
    assert error is None
    effect, error = one_measured(fixed, "A", None)
    assert effect.name == error.name == "A"
    assert effect["gene05"] == pytest.approx(measured_with_error(fixed)[0].loc["A", "gene05"])
    assert one_measured(fixed, "B+C", None) == (None, None)
    with pytest.raises(ValueError, match=r"have no 'B\+C'"):
        one_measured(fixed, "B+C", fixed.adata)
    fixed.adata = None
    assert one_measured(fixed, "A", None) == (None, None)


def test_predictions_have_deviations_where_there_is_a_posterior(fixed):
    mean, sd = predicted_with_sd(fixed, ["A", "B"])
    pd.testing.assert_frame_equal(mean, 0.9 * fixed.effects.loc[["A", "B"]])
    pd.testing.assert_frame_equal(sd, 0.05 + 0.1 * mean.abs())
    fixed.has_posterior = False
    again, nothing = predicted_with_sd(fixed, ["A", "B"])
    pd.testing.assert_frame_equal(again, mean)
    assert nothing is None
