import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from raptorgraph import metrics, pp
from raptorgraph.baselines import Baseline, ladder

LADDER = ladder()
TIGHT = {"rtol": 0, "atol": 1e-5}  # cells are float32


def test_names_of_the_ladder():
    kinds = ladder()
    assert len(set(kinds.values())) == len(kinds)
    needs = [kind.needs_doubles for kind in kinds.values()]
    assert needs == sorted(needs)


@pytest.mark.parametrize("name", LADDER)
def test_predictions_have_the_promised_shape(name, effects):
    adata = effects.trained()
    before = adata.copy()
    baseline = LADDER[name]()
    assert isinstance(baseline, Baseline)
    assert baseline.fit(adata) is baseline
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(adata.X, before.X)

    asked = ["P7+P6", "P1", "control", "P0+P1+P2", "P1"]
    table = baseline.predict_effects(asked)
    assert list(table.index) == ["P6+P7", "P1", "control", "P0+P1+P2", "P1"]
    assert table.index.name == "perturbation"
    assert list(table.columns) == list(adata.var_names)
    assert (table.dtypes == np.float64).all()
    assert np.isfinite(table.to_numpy()).all()
    assert (table.loc["control"] == 0).all()

    cells = baseline.predict(asked[:4])
    assert cells.shape == (4 * 6, adata.n_vars)
    assert cells.X.dtype == np.float32
    assert list(cells.obs["perturbation"].cat.categories) == list(table.index[:4])
    controls = adata.obs_names[adata.obs["perturbation"] == "control"]
    assert list(cells.obs["control_cell"]) == list(controls) * 4
    # unclipped, the mean over cells is exactly the control mean and the effect
    means = pd.DataFrame(cells.X).groupby(cells.obs["perturbation"].to_numpy()).mean().loc[table.index[:4]]
    np.testing.assert_allclose(means - baseline.predict_control(), table.iloc[:4], **TIGHT)
    np.testing.assert_allclose(baseline.predict_control(), effects.base, **TIGHT)


@pytest.mark.parametrize("name", LADDER)
def test_order_and_repetition_do_not_matter(name, effects):
    combined = dict(zip(effects.doubles, 0.6 * effects.sums(effects.doubles) + 0.1, strict=True))
    swapped = {"+".join([*label.split("+")[::-1], label.split("+")[0]]): effect for label, effect in combined.items()}
    first = LADDER[name]().fit(effects.screen(combined)).predict_effects(["P1+P2", "P3+P1+P5"])
    other = LADDER[name]().fit(effects.screen(swapped)).predict_effects(["P2 + P1+P2", "P5+control+P1+P3"])
    pd.testing.assert_frame_equal(first, other, check_exact=False, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", LADDER)
def test_unfitted(name):
    for use in (lambda b: b.predict_effects("A"), lambda b: b.predict("A"), lambda b: b.predict_control()):
        with pytest.raises(NotFittedError, match=r"call fit\(adata\) first"):
            use(LADDER[name]())


@pytest.mark.parametrize("name", LADDER)
def test_genes_never_perturbed(name, effects):
    baseline = LADDER[name]().fit(effects.trained())
    with pytest.raises(ValueError, match="'G3\\+P1': G3 was not perturbed"):
        baseline.predict_effects(["P1", "G3+P1"])
    with pytest.raises(ValueError, match="is empty"):
        baseline.predict_effects([])
    with pytest.raises(ValueError, match="n_cells=0"):
        baseline.predict("P1", n_cells=0)


def test_real_effects(shared_data):
    """Reference scores of the 40 combinations of the CaRPool screen, from singles alone."""
    adata = ad.read_h5ad(shared_data / "carpool_semireal.h5ad")
    setup = {"library_size_key": "total_counts"}
    measured = pp.measured_effects(adata, **setup)
    combined = measured.index.str.contains("+", regex=False)
    train = adata[~adata.obs["perturbation"].astype(str).str.contains("+", regex=False)].copy()
    scores = {}
    for name, kind in ladder().items():
        if not kind.needs_doubles:
            predicted = kind(**setup).fit(train).predict_effects(measured.index[combined])
            scores[name] = (
                metrics.relative_mse(predicted, measured[combined]),
                metrics.pearson_delta(predicted, measured[combined]),
            )
    scores = pd.DataFrame(scores, index=["error", "correlation"]).T
    assert scores.loc["no change", "error"] == 1
    np.testing.assert_allclose(scores.loc["additive"], [0.813, 0.631], atol=5e-4)
    assert scores["error"].idxmin() == scores["correlation"].idxmax() == "damped low-rank"
    # the order that 118 other combinations of the screen have
    order = ["damped low-rank", "mean of two", "mean single", "additive", "no change"]
    assert list(scores.loc[order, "error"].sort_values().index) == order
