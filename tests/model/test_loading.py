"""Models that are saved, opened elsewhere, and shown."""

import json
import re
import subprocess
import sys
import zipfile

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
import torch
from scvi.model.base import BaseModelClass

import raptorgraph as rg

pytestmark = pytest.mark.usefixtures("few_steps")

ELSEWHERE = """
import json, sys
import numpy as np, torch
import raptorgraph as rg
model = rg.RaptorGraphModel.load(sys.argv[1], adata=False)
adata = rg.datasets.simulate(**json.loads(sys.argv[2]))[:, ::-1].copy()
with_data = rg.RaptorGraphModel.load(sys.argv[1], adata)
np.savez(
    sys.argv[3], effects=model.predict_effects(["P01", "P01+P02"]), dag=model.get_dag(),
    latents=with_data.get_latent_representation(), cells=with_data.predict("P01", n_cells=9, seed=0).X.toarray(),
)
"""
SCREEN = {
    "n_genes": 60, "n_perturbed": 5, "n_control_cells": 120, "n_cells_per_perturbation": 40, "n_doubles": 3,
    "n_truth_cells": 50, "targets_without_gene": 0.2, "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(**SCREEN)
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata)
    model.train(max_epochs=3, enable_progress_bar=False, accelerator="cpu")
    return model


def test_another_process_in_another_folder(trained, tmp_path):
    trained.save(tmp_path / "m")
    (tmp_path / "elsewhere").mkdir()
    arguments = [str(tmp_path / "m"), json.dumps(SCREEN), str(tmp_path / "found.npz")]
    subprocess.run([sys.executable, "-c", ELSEWHERE, *arguments], check=True, cwd=tmp_path / "elsewhere", timeout=250)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["effects"], trained.predict_effects(["P01", "P01+P02"]))
    np.testing.assert_array_equal(found["dag"], trained.get_dag())
    np.testing.assert_allclose(found["latents"], trained.get_latent_representation(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["cells"], trained.predict("P01", n_cells=9, seed=0).X.toarray())


def test_old_names_of_settings_in_a_file_are_read_without_a_warning(tmp_path):
    adata = rg.datasets.simulate(**SCREEN)
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, effect_posterior={"noise_fraction": 0.7})
    model.init_params_["non_kwargs"]["effect_posterior"] = {"alone": False, "temper": 0.7}
    model.save(tmp_path / "m")
    for data in (False, adata):
        config = rg.RaptorGraph.load(tmp_path / "m", data, accelerator="cpu").module.effects.config
        assert (config.independent, config.noise_fraction) == (False, 0.7)


def test_an_older_model_from_a_gpu_is_read_to_the_cpu(trained, tmp_path, monkeypatch):
    BaseModelClass.save(trained, tmp_path / "m")
    seen, load = [], torch.load

    def watched(*args, **kwargs):
        seen.append(torch.device(kwargs["map_location"]).type)  # without one, a machine without that GPU fails
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", watched)
    with pytest.warns(UserWarning, match="is a pickle"):
        rg.RaptorGraph.load(tmp_path / "m", trained.adata.copy(), accelerator="cpu", allow_pickle=True)
    assert seen == ["cpu"]


BROKEN = {
    "covariate": (lambda cells: cells.obs.drop(columns="age", inplace=True), KeyError, "keys='age' is not"),
    "text": (lambda cells: setattr(cells, "obs", cells.obs.assign(age="old")), ValueError, "'age' holds text"),
    "library": (lambda cells: cells.obs.drop(columns="total_counts", inplace=True), KeyError, "library_size_key="),
    "gene": (lambda cells: setattr(cells, "obs", cells.obs.assign(
        perturbation=["new"] + ["control"] * (cells.n_obs - 1))), ValueError, "not trained on: new"),
    "batch": (lambda cells: setattr(cells, "obs", cells.obs.assign(lane="third")), ValueError, "third"),
    "logarithms": (lambda cells: setattr(cells, "X", cells.X.log1p()), ValueError, "trained on counts"),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a model with a batch and a covariate, and its cells, genes in another order, that were not set up."""
    scvi.settings.seed = 0
    cells = rg.datasets.simulate(**SCREEN)[::3, ::-1].copy()
    cells.obs = cells.obs.assign(age=np.arange(cells.n_obs) % 7.0, lane=np.resize(["first", "second"], cells.n_obs))
    adata, folder = cells.copy(), tmp_path_factory.mktemp("saved") / "m"
    keys = {"batch_key": "lane", "continuous_covariate_keys": ["age"]}
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", **keys)
    model = rg.RaptorGraph(adata, n_hidden=4)
    model.is_trained = True
    model.save(folder)
    return folder, cells


@pytest.mark.parametrize("name", BROKEN)
def test_cells_that_do_not_fit_stay_as_they_are(saved, name):
    folder, cells = saved
    cells, (change, error, message) = cells.copy(), BROKEN[name]
    change(cells)
    before = cells.copy()
    with pytest.raises(error, match=message):
        rg.RaptorGraph.load(folder, cells)
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert list(cells.var_names) == list(before.var_names)
    assert list(cells.uns) == list(before.uns)
    assert list(cells.obsm) == list(before.obsm)
    np.testing.assert_array_equal(cells.X.toarray(), before.X.toarray())


def test_cells_in_a_file_stay_there(saved, tmp_path):
    folder, cells = saved
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    model = rg.RaptorGraph.load(folder, backed)
    assert model.adata is backed
    assert backed.isbacked
    other = rg.RaptorGraph.load(folder, adata=False)
    expected = other.get_latent_representation(cells)
    np.testing.assert_array_equal(model.get_latent_representation(), expected)
    np.testing.assert_array_equal(other.get_latent_representation(backed), expected)
    with pytest.raises(ValueError, match=r"in a file of their own.*load\(folder, adata\)"):
        model.save(tmp_path / "again", save_anndata=True)


def test_a_setup_for_another_model_leaves_the_first_as_it_was(trained):
    """Library sizes are those of each model's own setup; genes that were moved are an error."""
    adata = trained.adata.copy()
    scvi.settings.seed = 0
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    first = rg.RaptorGraph(adata, n_hidden=4)
    first.is_trained = True
    latents = first.get_latent_representation()
    own = adata.obs["total_counts"].to_numpy(dtype=float)
    adata.obs["thrice"] = 3 * own
    rg.RaptorGraph.setup_anndata(adata, library_size_key="thrice")
    second = rg.RaptorGraph(adata, n_hidden=4)
    for model, library in [(first, own), (second, 3 * own), (first, own)]:
        np.testing.assert_array_equal(model.adata_manager.get_from_registry("library_size").ravel(), library)
    adata.uns.clear()
    np.testing.assert_array_equal(first.adata_manager.get_from_registry("library_size").ravel(), own)
    np.testing.assert_array_equal(first.get_latent_representation(), latents)

    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).str.replace("P01", "P04")
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    assert list(adata.var_names) != first.var_names_
    for use in (first.get_latent_representation, lambda: first.train(max_epochs=1, accelerator="cpu")):
        with pytest.raises(ValueError, match=r"no longer those of its setup.*adata.copy\(\)"):
            use()


def test_counts_that_became_logarithms_are_not_read_as_counts(trained):
    for layer in (None, "counts"):
        adata = trained.adata.copy()
        adata.layers["counts"] = adata.X.copy()
        rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts", layer=layer)
        model = rg.RaptorGraph(adata, n_hidden=4)
        model.is_trained = True
        before = model.get_latent_representation()
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        if layer is None:
            for use in (model.get_latent_representation, lambda m=model: m.train(max_epochs=1, accelerator="cpu")):
                with pytest.raises(ValueError, match=r"adata.X held counts when .* adata.layers\['counts'\] = "):
                    use()
        else:
            np.testing.assert_array_equal(model.get_latent_representation(), before)


def test_a_setup_of_a_copy_leaves_the_original_registered(trained):
    adata = trained.adata.copy()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    rg.RaptorGraph.setup_anndata(adata.copy())
    model = rg.RaptorGraph(adata, n_hidden=4)
    assert model.setup_args["library_size_key"] == "total_counts"


def test_nothing_of_the_machine_is_saved(trained, tmp_path):
    trained.save(tmp_path / "m")
    text = (tmp_path / "m" / "model.json").read_text()
    assert str(tmp_path) not in text
    assert "AnnData" not in text
    assert json.loads(text)["content"]["attributes"]["mudata_args_"] is None


def test_a_model_without_data_shows_what_it_learned(trained, tmp_path):
    trained.save(tmp_path / "m")
    bare = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    assert bare.perturbed_genes == trained.perturbed_genes
    assert bare.conditions == trained.conditions
    assert bare.setup_args == trained.setup_args
    assert bare.get_edges().equals(trained.get_edges())
    np.testing.assert_array_equal(bare.sample_effects(["P01"], 3, seed=0), trained.sample_effects(["P01"], 3, seed=0))
    query = trained.adata.copy()
    np.testing.assert_array_equal(bare.get_latent_representation(query), trained.get_latent_representation())
    for call in (
        bare.annotate, bare.view_anndata_setup, bare.export_to_cell_eval, bare.get_latent_representation,
        bare.latent_activity, bare.measured_effects,
    ):  # fmt: skip
        with pytest.raises(ValueError, match="without data: pass adata"):
            call()


def test_the_setup_is_shown(trained, tmp_path, capsys):
    trained.view_anndata_setup()
    shown = capsys.readouterr().out
    for text in ("RaptorGraphModel.setup_anndata", "'library_size_key': 'total_counts'", "Perturbed gene", "P05"):
        assert text in shown
    trained.view_anndata_setup(hide_state_registries=True)
    assert "Perturbed gene" not in capsys.readouterr().out
    trained.save(tmp_path / "m")
    bare = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    bare.view_setup_method_args()
    assert "total_counts" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.json", "model.pt"])
@pytest.mark.parametrize("content", [None, b"", b"text\n", "cut", "archive"])
def test_a_model_file_that_is_missing_or_damaged_is_named(name, content, tmp_path):
    file = tmp_path / name
    if content == "cut":
        torch.save({"weights": torch.zeros(1000)}, file)
        file.write_bytes(file.read_bytes()[:1500])
    elif content == "archive":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("something", "else")
    elif content is not None:
        file.write_bytes(content)
    for adata in (False, None, ad.AnnData(np.ones((2, 2)))):
        with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
            rg.RaptorGraphModel.load(tmp_path, adata, allow_pickle=True)


def test_saved_cells_that_are_damaged_are_named(trained, tmp_path):
    trained.save(tmp_path / "m", save_anndata=True)
    cells = tmp_path / "m" / "adata.h5ad"
    cells.write_bytes(cells.read_bytes()[:5000])
    with pytest.raises(ValueError, match="adata.h5ad"):
        rg.RaptorGraphModel.load(tmp_path / "m")
    assert rg.RaptorGraphModel.load(tmp_path / "m", adata=False).perturbed_genes == trained.perturbed_genes


def test_a_model_without_data_is_neither_trained_nor_saved_with_them(trained, tmp_path):
    trained.save(tmp_path / "m")
    model = rg.RaptorGraph.load(tmp_path / "m", adata=False)
    with pytest.raises(ValueError, match=r"without data: it is not trained further; load\(folder, adata\)"):
        model.train(max_epochs=1)
    with pytest.raises(ValueError, match="without data: there are none to save"):
        model.save(tmp_path / "again", save_anndata=True)
    assert not (tmp_path / "again").exists()
    model.save(tmp_path / "again")
    again = rg.RaptorGraph.load(tmp_path / "again", adata=False)
    assert again.predict_effects("P01").equals(trained.predict_effects("P01"))


def test_a_loaded_model_is_saved_again(trained, tmp_path):
    trained.save(tmp_path / "one", save_anndata=True)
    for adata in (None, False):
        rg.RaptorGraph.load(tmp_path / "one", adata).save(tmp_path / f"two {adata}", save_anndata=adata is None)
        again = rg.RaptorGraph.load(tmp_path / f"two {adata}", adata)
        pd.testing.assert_frame_equal(again.predict_effects(["P01+P02"]), trained.predict_effects(["P01+P02"]))
