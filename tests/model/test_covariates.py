"""Continuous covariates enter the network in units of their spread, whatever the units of the user."""

import numpy as np
import pandas as pd
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.model._field import KEYS

TABLE = "_scvi_extra_continuous_covs"


@pytest.fixture(autouse=True)
def seeded():
    scvi.settings.seed = 0


@pytest.fixture(scope="module")
def cells():
    return rg.datasets.simulate(
        60, 4, n_doubles=2, n_control_cells=60, n_cells_per_perturbation=20, n_truth_cells=20, seed=1
    )


def registered(cells, values, **kwargs):
    adata = cells.copy()
    adata.obs["x"] = values
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", continuous_covariate_keys=["x"], **kwargs)
    return adata


def steps(cells):
    return np.random.default_rng(0).integers(0, 9, cells.n_obs)


@pytest.mark.parametrize(
    ("offset", "unit"),
    [
        (0.0, 1.0),
        (1e8, 1.0),
        (-1e6, 0.5),
        (1e12, 1e4),
        (0.0, 1e-12),
        (0.0, 1e-300),
        (0.0, 1e300),
        (5.0, -2.0),
    ],
)
def test_units_and_offset_do_not_matter(cells, offset, unit):
    k = steps(cells)
    adata = registered(cells, offset + unit * k)
    expected = np.sign(unit) * (k - k.mean()) / k.std()
    np.testing.assert_allclose(adata.obsm[TABLE]["x"], expected, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(adata.obs["x"], offset + unit * k)
    tensor = rg.RaptorGraph(adata).adata_manager.create_torch_dataset()[np.arange(5)][KEYS.CONTINUOUS]
    np.testing.assert_allclose(tensor[:, 0], expected[:5], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, "Int32", "Float64", "boolean"])
def test_every_type_of_numbers(cells, dtype):
    values = pd.Series(steps(cells) > 4, index=cells.obs_names)
    k = values.to_numpy(dtype=float)
    adata = registered(cells, values.astype(dtype))
    np.testing.assert_allclose(adata.obsm[TABLE]["x"], (k - k.mean()) / k.std(), rtol=1e-12)
    assert adata.obs["x"].dtype == dtype


def test_predictions_do_not_depend_on_the_unit_and_survive_saving(cells, tmp_path):
    depth, found = cells.obs["total_counts"].to_numpy(), []
    for values in (depth, depth * 2.0**40):
        scvi.settings.seed = 0
        model = rg.RaptorGraph(registered(cells, values), n_hidden=8, graph="fixed", effect_posterior=False)
        model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
        drawn = model.predict(["P01", "control"], n_cells=20, seed=0, noise="new")
        found.append([drawn.X.toarray(), model.predict_effects("P01", kind="decoder").to_numpy()])
    assert np.isfinite(found[0][0]).all()
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)

    query = model.adata[::3].copy()
    expected = model.get_counterfactual("P02")[::3]
    np.testing.assert_allclose(model.get_counterfactual("P02", query), expected, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "m")
    for loaded in (rg.RaptorGraph.load(tmp_path / "m", adata=False), rg.RaptorGraph.load(tmp_path / "m", query.copy())):
        np.testing.assert_allclose(loaded.get_counterfactual("P02", query), expected, rtol=1e-5, atol=1e-6)


def test_queries_are_measured_in_the_units_of_the_training_data(cells):
    k = steps(cells)
    model = rg.RaptorGraph(registered(cells, 100.0 * k))
    query = cells[k > 5].copy()
    query.obs["x"] = 100.0 * k[k > 5]
    found = model._validate_anndata(query).obsm[TABLE]["x"]
    np.testing.assert_allclose(found, (k[k > 5] - k.mean()) / k.std(), rtol=1e-12)
    assert TABLE not in query.obsm

    query.obs["x"] = np.where(np.arange(query.n_obs) == 1, 1e6, query.obs["x"])
    with pytest.warns(UserWarning, match=r"'x' was between 0 and 800 .* and 1 of .*1e\+06\): .* border"):
        found = model._validate_anndata(query).obsm[TABLE]["x"]
    assert found.iloc[1] == pytest.approx((8 - k.mean()) / k.std())
    query.obs["x"] = "deep"
    with pytest.raises(ValueError, match="continuous_covariate_keys: 'x' holds text"):
        model._validate_anndata(query)
    del query.obs["x"]
    with pytest.raises(KeyError, match="continuous_covariate_keys='x' is not a column"):
        model._validate_anndata(query)


def test_a_constant_covariate_has_no_effect(cells):
    with pytest.warns(UserWarning, match="'x' is the same in all cells"):
        adata = registered(cells, np.where(steps(cells) > 4, 0.3, 0.1 + 0.2))
    assert (adata.obsm[TABLE]["x"] == 0).all()
    query = cells.copy()
    query.obs["x"] = 7.0
    with pytest.warns(UserWarning, match="far outside"):
        assert (rg.RaptorGraph(adata)._validate_anndata(query).obsm[TABLE]["x"] == 0).all()


def test_a_few_cells_cannot_blow_up_the_network(cells):
    values = steps(cells).astype(float)
    values[7] = 1e12
    with pytest.warns(UserWarning, match=rf"'x' lies beyond 10 .* 1 cells \(first: {cells.obs_names[7]}, 1e\+12"):
        adata = registered(cells, values)
    assert adata.obsm[TABLE]["x"].iloc[7] == 10


def test_a_model_without_scales_reads_its_covariates_as_it_was_trained(cells):
    model = rg.RaptorGraph(registered(cells, steps(cells)))
    del model.registry_["field_registries"][KEYS.CONTINUOUS]["state_registry"]["scales"]
    query = cells.copy()
    query.obs["x"] = 1000.0 + steps(cells)
    np.testing.assert_array_equal(model._validate_anndata(query).obsm[TABLE]["x"], 1000.0 + steps(cells))
