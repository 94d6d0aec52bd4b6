"""A model of cells in a file against the same model of the same cells in memory: bit for bit, where they fit."""

from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.screen._stored import StoredMatrix

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning"),
]
ASKED = ["P01", "P01+P02"]


@pytest.fixture(scope="module")
def cells():
    """A screen whose perturbed genes are not the first, with counts in `X` and in a layer."""
    adata = rg.datasets.simulate(
        30, 4, n_doubles=3, n_control_cells=120, n_cells_per_perturbation=30, n_truth_cells=20, seed=2
    )
    adata = adata[:, np.random.default_rng(0).permutation(adata.n_vars)].copy()
    adata.uns = {}
    adata.obs["batch"] = np.resize(["one", "two"], adata.n_obs)
    adata.layers["counts"] = adata.X.copy()
    return adata


def fit(adata, **options):
    scvi.settings.seed = 0
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", batch_key="batch")
    model = rg.RaptorGraph(adata, n_hidden=8, **options)
    model.train(max_epochs=2, batch_size=64, accelerator="cpu", enable_progress_bar=False)
    return model


def answers(model):
    predicted = model.predict(ASKED, n_cells=40, seed=1)
    yield "loss", model.history["train_loss"]
    yield "validation", model.history["validation_loss"]
    yield "effects", model.predict_effects(ASKED)
    yield "decoded", model.predict_effects(ASKED, kind="decoder")
    yield "measured", model.measured_effects()
    yield "latents", model.get_latent_representation()
    yield "counterfactual", model.get_counterfactual("P02")
    yield "normalized", model.get_normalized_expression(indices=[5, 3])
    yield "responded", model.get_response_probability()
    yield "predicted", predicted.to_df()
    yield "table", predicted.obs
    for name, compared in zip(("exported", "real"), model.export_to_cell_eval(perturbations=["P01"]), strict=True):
        yield name, compared.to_df()


@pytest.fixture(scope="module")
def expected(cells, with_few_steps):
    with with_few_steps():
        return dict(answers(fit(cells.copy())))


def opened(kind, cells, folder):
    if kind == "zarr":
        from raptorgraph.screen._files import open_cells

        cells.write_zarr(folder / "cells.zarr")
        return open_cells(folder / "cells.zarr")
    if not (folder / "cells.h5ad").exists():
        cells.write_h5ad(folder / "cells.h5ad")
    if kind == "lazy":
        pytest.importorskip("dask")
        return ad.experimental.read_lazy(folder / "cells.h5ad")
    return ad.read_h5ad(folder / "cells.h5ad", backed="r")


@pytest.fixture(scope="module")
def fitted(cells, with_few_steps, tmp_path_factory):
    """Model of the cells in a file, its folder, and the numbers of cells in each reading of its training."""
    folder, read = tmp_path_factory.mktemp("fitted"), []
    take = StoredMatrix.__getitem__

    def recorded(X, key):
        found = take(X, key)
        if not isinstance(key, tuple):
            read.append(found.shape[0])
        return found

    with with_few_steps(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredMatrix, "__getitem__", recorded)
        return fit(opened("h5ad", cells, folder)), folder, read


def test_answers_are_those_of_cells_in_memory(cells, expected, fitted):
    model, _, read = fitted
    assert model.adata.isbacked
    assert list(model.adata.var_names) == list(cells.var_names)
    assert model.perturbed_genes == model.var_names_[:4] == ["P01", "P02", "P03", "P04"]
    found = dict(answers(model))
    for name, value in expected.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(found[name], value, check_exact=True)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    # One pass for the setup, one for the sums, and one for all epochs and validations together, since all cells fit;
    # samples of cells for the start, its latents twice, and for those that responded, which are all cells here. Control
    # cells are read for their means, the noise, what is kept of them, latents that are active, and, once for each
    # perturbed gene, for those that responded.
    n, n_controls = cells.n_obs, 120
    assert sum(read) <= 7 * n + (9 + 4) * n_controls
    assert max(read) <= n


@pytest.mark.parametrize("kind", ["zarr", "lazy", "layer of h5ad"])
def test_other_files_are_read_alike(kind, cells, tmp_path):
    setup = {"library_size_key": "total_counts", "layer": "counts" if kind == "layer of h5ad" else None}
    models = []
    for adata in (opened(kind, cells, tmp_path), cells.copy()):
        rg.RaptorGraph.setup_anndata(adata, batch_key="batch", **setup)
        models.append(rg.RaptorGraph(adata, n_hidden=8))
    there, here = models
    assert there.adata_manager.stored is not None
    assert list(there.adata.var_names) == list(cells.var_names)
    assert there.var_names_ == here.var_names_ == list(here.adata.var_names)
    rows = np.array([7, 3, 100, 3])
    one, two = (model.adata_manager.create_torch_dataset()[rows] for model in models)
    assert one.keys() == two.keys()
    for key, values in two.items():
        np.testing.assert_array_equal(one[key], values, err_msg=key)
    for name in ("total", "squares", "rate_total"):
        found, wanted = (getattr(model.screen.sums(rates=True), name) for model in models)
        np.testing.assert_array_equal(found, wanted)
    pd.testing.assert_frame_equal(there.screen.effects, here.screen.effects)
    np.testing.assert_array_equal(there.module.center, here.module.center)


def test_models_of_a_file_are_loaded_with_it_or_without(cells, fitted, tmp_path):
    model, folder, _ = fitted
    before = model.get_latent_representation()
    rg.RaptorGraph.setup_anndata(model.adata)
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    model.save(tmp_path / "model")
    for adata in (opened("h5ad", cells, folder), cells.copy()):
        again = rg.RaptorGraph.load(tmp_path / "model", adata)
        np.testing.assert_array_equal(again.get_latent_representation(), before)
    is_control = (cells.obs["perturbation"] == "control").to_numpy()
    controls, few = model.adata[is_control], cells[is_control].copy()
    for method in (model.get_latent_representation, lambda x: model.get_counterfactual("P01", x)):
        np.testing.assert_array_equal(method(controls), method(few))
    other = opened("h5ad", cells, folder)  # the controls of which are found, and read as they are needed
    pd.testing.assert_frame_equal(
        model.predict("P01", other, n_cells=9, seed=1).to_df(), model.predict("P01", few, n_cells=9, seed=1).to_df()
    )


def test_what_is_written_is_what_is_returned(cells, fitted, tmp_path):
    model, source, _ = fitted
    folder, expected = tmp_path / "out", model.predict(ASKED, n_cells=1100, seed=1)
    for end in ("h5ad", "zarr"):
        found = model.predict(ASKED, n_cells=1100, seed=1, out=folder / f"predicted.{end}")
        pd.testing.assert_frame_equal(found.obs, expected.obs)
        assert list(found.var_names) == list(expected.var_names) == model.var_names_
        np.testing.assert_array_equal(found.X[:].toarray(), expected.X.toarray())
        np.testing.assert_array_equal(found.layers["counts"][:].toarray(), expected.layers["counts"].toarray())
        latents = model.get_latent_representation(batch_size=50, out=folder / f"latents.{end}")
        np.testing.assert_allclose(latents.X[:], model.get_latent_representation(), rtol=1e-5, atol=1e-6)
        assert list(latents.var_names) == model.latent_names
        assert list(latents.obs_names) == list(cells.obs_names)
        control = model.get_counterfactual("control", out=folder / f"control.{end}")
        np.testing.assert_array_equal(control.X[:], model.get_counterfactual("control"))
        model.annotate(counterfactuals=["P02"], out=folder / f"annotated.{end}")
    assert "X_raptorgraph" not in model.adata.obsm
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        f"{name}.{end}" for name in ("predicted", "latents", "control", "annotated") for end in ("h5ad", "zarr")
    )
    model.annotate(counterfactuals=["P02"])
    for found in (ad.read_h5ad(folder / "annotated.h5ad"), ad.read_zarr(folder / "annotated.zarr")):
        for key in ("X_raptorgraph", "X_raptorgraph_exogenous", "counterfactual_P02"):
            np.testing.assert_array_equal(found.obsm[key], model.adata.obsm[key])
        pd.testing.assert_series_equal(found.obs["raptorgraph_responded"], model.adata.obs["raptorgraph_responded"])
        pd.testing.assert_frame_equal(found.uns["raptorgraph"]["effects"], model.adata.uns["raptorgraph"]["effects"])
    with pytest.raises(ValueError, match="is the file that the cells are read from"):
        model.annotate(out=source / "cells.h5ad")
    few = cells[:5].copy()
    of_gene = (partial(method, "P01") for method in (model.get_counterfactual, model.predict))
    for answer in (model.get_latent_representation, model.annotate, *of_gene):  # of other cells
        with pytest.raises(ValueError, match="is the file that the cells are read from"):
            answer(few, out=source / "cells.h5ad")


def test_cells_in_windows_train_alike(cells, tmp_path, monkeypatch):
    """What does not fit into one window is read window by window: the same seed gives the same bits."""
    from raptorgraph.model import _stream
    from raptorgraph.model._stored_cells import StoredDataset

    held, hold = [], StoredDataset.hold
    monkeypatch.setattr(StoredDataset, "hold", lambda self, rows: (held.append(len(rows)), hold(self, rows))[1])
    monkeypatch.setattr(_stream, "_N_CELLS", 64)
    monkeypatch.setattr(_stream, "_BLOCK", 8)
    one, two = (fit(opened("h5ad", cells, tmp_path), effect_posterior=False, graph="fixed") for _ in range(2))
    pd.testing.assert_frame_equal(one.history["train_loss"], two.history["train_loss"], check_exact=True)
    np.testing.assert_array_equal(one.get_latent_representation(), two.get_latent_representation())
    assert len(held) >= 2 * 2 * 3  # models, epochs, windows of the training
    assert max(held) <= 64 + 32  # cells and controls of one


def test_cells_of_a_mudata_must_be_in_memory(cells, tmp_path):
    import mudata

    mdata = mudata.MuData({"rna": opened("zarr", cells, tmp_path)})
    with pytest.raises(ValueError, match="values of the MuData are not in memory"):
        rg.RaptorGraph.setup_mudata(mdata, modalities={"expression": "rna"}, library_size_key="total_counts")
