"""Models that are saved, opened elsewhere, and shown."""

import json
import pickle
import re
import subprocess
import sys
import zipfile

import anndata as ad
import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg

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


def test_a_model_from_a_gpu_is_read_to_the_cpu(trained, tmp_path, monkeypatch):
    trained.save(tmp_path / "m")
    seen, load = [], torch.load

    def watched(*args, **kwargs):
        seen.append(torch.device(kwargs["map_location"]).type)  # without one, a machine without that GPU fails
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", watched)
    rg.RaptorGraph.load(tmp_path / "m", trained.adata.copy(), accelerator="cpu")
    assert seen == ["cpu", "cpu"]


def test_nothing_of_the_machine_is_saved(trained, tmp_path):
    trained.save(tmp_path / "m")
    saved = torch.load(tmp_path / "m" / "model.pt", weights_only=False)
    text = pickle.dumps(saved["attr_dict"], protocol=0)
    assert str(tmp_path).encode() not in text and b"AnnData" not in text
    assert saved["attr_dict"]["mudata_args_"] is None


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


@pytest.mark.parametrize("content", [None, b"", b"text\n", "cut", "archive"])
def test_a_model_file_that_is_missing_or_damaged_is_named(content, tmp_path):
    file = tmp_path / "model.pt"
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
            rg.RaptorGraphModel.load(tmp_path, adata)


def test_saved_cells_that_are_damaged_are_named(trained, tmp_path):
    trained.save(tmp_path / "m", save_anndata=True)
    cells = tmp_path / "m" / "adata.h5ad"
    cells.write_bytes(cells.read_bytes()[:5000])
    with pytest.raises(ValueError, match="adata.h5ad"):
        rg.RaptorGraphModel.load(tmp_path / "m")
    assert rg.RaptorGraphModel.load(tmp_path / "m", adata=False).perturbed_genes == trained.perturbed_genes
