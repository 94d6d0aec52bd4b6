import anndata as ad
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from raptorgraph.baselines import Additive, ladder
from raptorgraph.screen import _screen

LADDER = ladder()
TIGHT = {"rtol": 0, "atol": 1e-5}  # cells are float32


def test_cells_are_drawn_with_a_seed(effects):
    baseline = Additive().fit(effects.trained())
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


def test_a_failed_fit_leaves_the_baseline_unfitted(effects):
    baseline = LADDER["scaled additive"]()
    with pytest.raises(ValueError, match="none"):
        baseline.fit(effects.screen())
    with pytest.raises(NotFittedError):
        baseline.predict_effects("P1")


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


def test_labels_are_parsed_once_and_values_added_up_once(effects, monkeypatch):
    calls = []

    def counted(name):
        plain = getattr(_screen, name)
        monkeypatch.setattr(_screen, name, lambda *args, **kwargs: calls.append(name) or plain(*args, **kwargs))

    for name in ("parse_obs", "expression_source", "add_up"):
        counted(name)
    LADDER["main-effects ridge"]().fit(effects.trained())
    assert calls == ["parse_obs", "expression_source", "add_up"]


def test_blanks_around_genes_are_taken_away(effects):
    adata = effects.screen()
    adata.var_names = [f" {name} " for name in adata.var_names]
    baseline = Additive().fit(adata)
    assert list(baseline.predict_effects("P1").columns) == [f"G{i}" for i in range(40)]
    assert list(baseline.predict("P1").var_names) == [f"G{i}" for i in range(40)]
    assert adata.var_names[0] == " G0 "
