import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from raptorgraph import tl
from raptorgraph.baselines import Additive, Baseline, ladder

LADDER = ladder()
TIGHT = {"rtol": 0, "atol": 1e-5}  # cells are float32


def trained(effects):
    """The effects of twenty combinations, less than additive."""
    labels = effects.doubles[:20]
    return dict(zip(labels, 0.7 * effects.sums(labels), strict=True))


def fitted(kind, effects):
    return kind().fit(effects.screen(trained(effects)))


@pytest.mark.parametrize("name", LADDER)
def test_predictions_have_the_promised_shape(name, effects):
    adata = effects.screen(trained(effects))
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


def test_cells_are_drawn_with_a_seed(effects):
    baseline = fitted(Additive, effects)
    few, again, other = (baseline.predict("P1+P2", n_cells=4, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(few.X, again.X)
    assert list(few.obs["control_cell"]) == list(again.obs["control_cell"]) != list(other.obs["control_cell"])
    assert few.obs["control_cell"].is_unique
    many = baseline.predict("P1+P2", n_cells=50)
    assert many.n_obs == 50
    assert set(many.obs["control_cell"]) <= {f"cell{i}" for i in range(6)}


def test_predicted_cells_are_not_clipped(effects):
    effects.singles["P0"] = -effects.base - 1
    adata = effects.screen()
    adata.X = np.maximum(adata.X, 0)  # P0 leaves nothing
    baseline = Additive().fit(adata)
    cells, effect = baseline.predict("P0"), baseline.predict_effects("P0").iloc[0]
    assert cells.X.min() < 0
    np.testing.assert_allclose(cells.X.mean(axis=0), baseline.predict_control() + effect, **TIGHT)


def test_counts_use_the_library_size(effects):
    adata = effects.screen()
    log = np.asarray(adata.X) - 4.0  # a part of 1e4 counts
    adata.obs["total"] = 500_000.0
    adata.layers["counts"] = np.round(np.expm1(log) * 50)
    table = Additive(layer="counts", library_size_key="total").fit(adata).predict_effects("P1+P2")
    np.testing.assert_allclose(table, effects.sums(["P1+P2"]), atol=0.02)


def test_batches_are_compared_with_their_own_controls(effects):
    adata = effects.screen()
    adata.obs["batch"] = np.where(np.arange(adata.n_obs) % 3 == 0, "a", "b")
    adata.X = adata.X + np.where(adata.obs["batch"] == "a", 2.0, 0.0)[:, None]
    # controls of the first batch alone are doubled, so that the plain difference of means is off
    extra = adata[(adata.obs["perturbation"] == "control") & (adata.obs["batch"] == "a")].copy()
    adata = ad.concat([adata, extra], index_unique="-")
    exact, plain = (Additive(batch_key=key).fit(adata).predict_effects("P1") for key in ("batch", None))
    np.testing.assert_allclose(exact, effects.sums(["P1"]), atol=1e-5)
    assert np.abs(plain - effects.sums(["P1"])).to_numpy().mean() > 0.1


def test_a_table_of_interactions(effects):
    table = tl.interactions(fitted(Additive, effects))
    assert len(table) == 28
    assert (table["interaction"] == "additive").all()
    assert table["measured"].sum() == 20


@pytest.mark.parametrize("name", LADDER)
def test_unfitted(name):
    for use in (lambda b: b.predict_effects("A"), lambda b: b.predict("A"), lambda b: b.predict_control()):
        with pytest.raises(NotFittedError, match=r"call fit\(adata\) first"):
            use(LADDER[name]())


def test_a_failed_fit_leaves_the_baseline_unfitted(effects):
    baseline = LADDER["scaled additive"]()
    with pytest.raises(ValueError, match="none"):
        baseline.fit(effects.screen())
    with pytest.raises(NotFittedError):
        baseline.predict_effects("P1")


@pytest.mark.parametrize("name", LADDER)
def test_genes_never_perturbed(name, effects):
    baseline = fitted(LADDER[name], effects)
    with pytest.raises(ValueError, match="'G3\\+P1': G3 was not perturbed"):
        baseline.predict_effects(["P1", "G3+P1"])
    with pytest.raises(ValueError, match="is empty"):
        baseline.predict_effects([])
    with pytest.raises(ValueError, match="n_cells=0"):
        baseline.predict("P1", n_cells=0)


def test_training_data_that_hold_too_little(effects):
    adata = effects.screen()
    with pytest.raises(ValueError, match="All training cells are control cells"):
        Additive().fit(adata[adata.obs["perturbation"] == "control"].copy())
    with pytest.raises(ValueError, match="No cell is labeled as control"):
        Additive().fit(adata[adata.obs["perturbation"] != "control"].copy())
    with pytest.raises(KeyError, match="guide"):
        Additive("guide").fit(adata)
    for kind in LADDER.values():
        if kind.needs_doubles:
            with pytest.raises(ValueError, match=f"{kind.__name__} learns from combinations"):
                kind().fit(adata)
        else:
            assert kind().fit(adata).perturbed_genes == effects.genes


def test_members_without_a_single(effects):
    adata = effects.screen({"P0+X": effects.sums(["P0"])[0]})
    additive = Additive().fit(adata)
    assert additive.perturbed_genes == [*effects.genes, "X"]
    assert "P0+X" in additive.conditions
    with pytest.raises(
        ValueError, match="'P1\\+X': Additive needs the single effect of X, which the training data lack"
    ):
        additive.predict_effects("X+P1")
    np.testing.assert_array_equal(LADDER["no change"]().fit(adata).predict_effects("X"), 0)
    with pytest.raises(ValueError, match="no combination whose genes were all perturbed alone"):
        LADDER["scaled additive"]().fit(adata)
    pairs = adata[adata.obs["perturbation"].isin(["control", "P0+X"])].copy()
    for name in ("mean single", "additive"):
        with pytest.raises(ValueError, match="the training data have none"):
            LADDER[name]().fit(pairs)
    np.testing.assert_allclose(LADDER["mean double"]().fit(pairs).predict_effects("X"), effects.sums(["P0"]), atol=1e-5)


@pytest.mark.parametrize("kwargs", [{"control": ""}, {"control": []}, {"delimiter": ""}])
def test_empty_spelling(kwargs):
    with pytest.raises(ValueError, match="must be"):
        Additive(**kwargs)
