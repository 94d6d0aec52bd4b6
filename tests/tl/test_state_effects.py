import numpy as np
import pandas as pd
import pytest
from scipy import stats

import raptorgraph as rg
from raptorgraph.model._group_effects import infer_groups


@pytest.fixture(scope="module")
def model(known_screen):
    """P03 has no effect in cells of the second state: they are controls in truth. States have nothing else to them."""
    model = known_screen.model
    obs = model.adata.obs
    rng = np.random.default_rng(0)
    state = rng.choice(["first", "second"], model.adata.n_obs).astype(object)
    moved = {"P09": "P03"}  # a perturbation of control cells
    adata = model.adata.copy()
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace(moved)
    state[(obs["perturbation"] == "P03").to_numpy()] = "first"
    state[obs["perturbation"].isin(list(moved)).to_numpy()] = "second"
    adata.obs["state"] = state
    keep = [column for column in adata.obs if not column.startswith("_scvi")]
    adata.obs = adata.obs[keep]
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", batch_key="batch")
    found = rg.RaptorGraphModel(adata, n_hidden=8)
    found.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return found


@pytest.fixture(scope="module")
def table(model):
    return rg.tl.state_effects(model, "state", n_permutations=100)


def test_the_effect_that_depends_on_the_state_stands_out(table, model):
    assert table["perturbation"].to_list() == model.conditions
    found = table.set_index("perturbation")
    assert found.loc["P03", "FDR"] < 0.01
    assert (found.drop("P03")["FDR"] > 0.05).all()
    assert found["dependence"].idxmax() == "P03"
    assert found.loc["P03", "scale_second"] < 0.4 < 1.3 < found.loc["P03", "scale_first"]
    assert found.loc["P03", "scale_second_high"] < found.loc["P03", "scale_first_low"]
    strong = [label for label in model.conditions if label not in ("P03", "P10", "P11", "P12")]
    np.testing.assert_allclose(found.loc[strong, ["scale_first", "scale_second"]], 1.0, atol=0.25)
    assert found.loc["P03", "dependence_low"] < found.loc["P03", "dependence"] < found.loc["P03", "dependence_high"]


def test_the_table_says_what_it_is(table, model):
    assert table.attrs == {"groupby": "state", "groups": ["first", "second"]}
    expected = ["perturbation", "statistic", "p_value", "FDR", "dependence", "dependence_low", "dependence_high"]
    for group in ("first", "second"):
        expected += [f"scale_{group}", f"scale_{group}_low", f"scale_{group}_high", f"n_cells_{group}"]
    assert list(table.columns) == expected
    counts = pd.crosstab(model.adata.obs["perturbation"], model.adata.obs["state"]).loc[table["perturbation"]]
    np.testing.assert_array_equal(table[["n_cells_first", "n_cells_second"]], counts)
    np.testing.assert_allclose(table["FDR"], stats.false_discovery_control(table["p_value"]))
    found = infer_groups(model.predictor, "state")
    rows = [found.screen.conditions.index(label) for label in table["perturbation"]]
    half = stats.norm.ppf(0.95) * found.effects.scale_sd[rows, 1]
    np.testing.assert_allclose(table["scale_second"], found.effects.scale[rows, 1])
    np.testing.assert_allclose(table["scale_second_high"] - table["scale_second"], half)


def test_scales_are_those_of_the_effects(table, model):
    effects = model.predict_effects("P03", groupby="state")
    common = model.predict_effects("P03").to_numpy()[0]
    for group in ("first", "second"):
        expected = effects.loc["P03", group].to_numpy() @ common / (common @ common)
        assert table.set_index("perturbation").loc["P03", f"scale_{group}"] == pytest.approx(expected, abs=0.2)


def test_some_perturbations_by_any_spelling(table, model):
    some = rg.tl.state_effects(model, "state", ["P03", ("P01",), "P03"], n_permutations=100)
    assert some["perturbation"].to_list() == ["P03", "P01"]
    columns = ["dependence", "scale_first", "n_cells_second"]
    expected = table.set_index("perturbation").loc[["P03", "P01"], columns]
    np.testing.assert_array_equal(some[columns], expected)
    again = rg.tl.state_effects(model, "state", ["P03", "P01"], n_permutations=100)
    pd.testing.assert_frame_equal(some, again)
    assert rg.tl.state_effects(model, "state", "P01", n_permutations=20).shape[0] == 1


def test_permuted_states_find_nothing(model):
    rng, found = np.random.default_rng(1), []
    for _ in range(4):
        model.adata.obs["chance"] = rng.permutation(model.adata.obs["state"])
        found.append(rg.tl.state_effects(model, "chance", n_permutations=100))
    every = pd.concat(found)
    p = every["p_value"]
    assert (p < 0.05).mean() < 0.15
    assert stats.kstest(p, "uniform").pvalue > 0.01
    # of an effect that is hardly there, the share is of nothing
    assert every.loc[~every["perturbation"].isin(["P10", "P11", "P12"]), "dependence"].max() < 0.05


def test_bad_input(model):
    with pytest.raises(ValueError, match="n_permutations=10 is too small"):
        rg.tl.state_effects(model, "state", n_permutations=10)
    with pytest.raises(KeyError, match="'stat' is not a column"):
        rg.tl.state_effects(model, "stat")
    with pytest.raises(ValueError, match=r"'P01\+P02' was not measured"):
        rg.tl.state_effects(model, "state", "P01+P02")
    with pytest.raises(ValueError, match="nothing"):
        rg.tl.state_effects(model, "state", "nothing")


def test_names_of_groups_that_would_share_a_column(model):
    groups = np.resize(["first", "first_low"], model.adata.n_obs)
    model.adata.obs["named"] = groups
    with pytest.raises(ValueError, match="scale_first_low would be of the groups 'first' and 'first_low'"):
        rg.tl.state_effects(model, "named", n_permutations=20)
    model.adata.obs["named"] = [1 if group == "first" else "1" for group in groups]
    with pytest.raises(ValueError, match="scale_1 would be of the groups 1 and '1' alike"):
        rg.tl.state_effects(model, "named", n_permutations=20)


def test_models_without_data_or_posterior_say_so(model, tmp_path):
    model.save(tmp_path / "m")
    without = rg.RaptorGraphModel.load(tmp_path / "m", adata=False)
    with pytest.raises(ValueError, match="loaded without data"):
        rg.tl.state_effects(without, "state")
    plain = rg.RaptorGraphModel(model.adata, n_hidden=8, effect_posterior=False)
    plain.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(ValueError, match="no posterior of the effects"):
        rg.tl.state_effects(plain, "state")
