"""Cells and their latents by themselves, on a network that was not trained."""

import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model import Cells, Latents
from raptorgraph.model._cells import draw_seed
from raptorgraph.model._field import MASK_KEY


@pytest.fixture(scope="module")
def model():
    adata = rg.datasets.simulate(
        30, 3, n_doubles=2, n_control_cells=40, n_cells_per_perturbation=12, n_truth_cells=10, seed=0
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, n_hidden=4)
    model.is_trained_ = True
    return model


@pytest.fixture
def cells(model):
    """Cells of a model without data of its own."""
    return Cells(model.module, None, model.registry_, model.var_names_)


@pytest.fixture
def latents(model, cells):
    return Latents(cells, model.perturbed_genes, model.latent_names)


def expression_of(adata):
    return np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])


def test_other_cells_are_read_on_the_expression_scale(model, cells):
    shuffled = model.adata[5:25, ::-1].copy()
    manager = cells.query(shuffled, "cells")
    assert list(manager.adata.var_names) == model.var_names_
    assert MASK_KEY not in manager.adata.obsm
    found = torch.cat(list(cells.expression(manager, rows=np.array([3, 0, 11])))).numpy()
    np.testing.assert_allclose(found, expression_of(model.adata[[8, 5, 16]]), rtol=1e-5)
    sizes = [len(batch["X"]) for batch in cells.batches(manager, batch_size=8)]
    assert sizes == [8, 8, 4]
    with pytest.raises(ValueError, match="without data: pass adata"):
        cells.query()


def test_controls_of_a_query(model, cells):
    labels = model.adata.obs["perturbation"].to_numpy()
    manager = cells.query(model.adata[20:70].copy(), "controls")
    assert list(manager.adata.obs_names) == list(model.adata.obs_names[20:70][labels[20:70] == "control"])
    np.testing.assert_array_equal(model.cells.control_rows(model.adata), np.flatnonzero(labels == "control"))


def test_rows_that_a_prediction_starts_from(model, cells):
    controls, rng = cells.control_rows(model.adata), np.random.default_rng(0)
    controls = controls[np.argsort(model.adata.obs_names[controls].to_numpy().astype(str))]
    np.testing.assert_array_equal(cells.start_rows(model.adata, None, rng, replace=True), controls)
    np.testing.assert_array_equal(cells.start_rows(model.adata, 100, rng, replace=False), controls)
    some = cells.start_rows(model.adata, 10, rng, replace=False)
    assert len(set(some) & set(controls)) == 10
    many = cells.start_rows(model.adata, 100, rng, replace=True)
    assert len(many) == 100
    assert set(many) <= set(controls)
    with pytest.raises(ValueError, match="n_cells=0"):
        cells.start_rows(model.adata, 0, rng, replace=True)


def test_a_model_that_is_not_trained_says_so(model):
    cells = Cells(model.module, model.adata_manager, model.registry_, model.var_names_, is_trained=False)
    with pytest.raises(RuntimeError, match=r"not trained.*call model.train\(\)"):
        next(iter(cells.batches(cells.query())))


def test_seeds(monkeypatch):
    monkeypatch.setattr(scvi.settings, "_seed", 7)
    assert [draw_seed(seed) for seed in (None, 3)] == [7, 3]
    monkeypatch.setattr(scvi.settings, "_seed", None)
    assert draw_seed(None) == 0
    with pytest.raises(ValueError, match="seed=-1"):
        draw_seed(-1)


@torch.no_grad()
def encoded(model, adata):
    x = torch.as_tensor(expression_of(adata), dtype=torch.float32)
    return (values.double().numpy() for values in model.module.encoder((x - model.module.center) / model.module.spread))


@torch.no_grad()
def test_latents_are_drawn_from_their_posterior(model, latents):
    manager = latents.cells.query(model.adata[:20].copy(), "cells")
    drawn = latents.draw(manager, np.array([2, 4, 5]), np.random.default_rng(3))
    mean, log_var = encoded(model, model.adata[[2, 4, 5]])
    noise = np.random.default_rng(3).standard_normal(mean.shape)
    np.testing.assert_allclose(drawn.z, mean + np.exp(log_var / 2) * noise, atol=1e-5)
    np.testing.assert_allclose(drawn.library[:, 0], model.adata.obs["total_counts"].iloc[[2, 4, 5]], rtol=1e-6)


def test_activity_is_the_kl_of_control_cells(model):
    mean, log_var = encoded(model, model.adata[(model.adata.obs["perturbation"] == "control").to_numpy()])
    kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).mean(0)
    found = model.latent_activity()
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-4)
    assert found["active"].tolist() == (kl > 0.01).tolist()
    assert found["gene"].tolist() == [*model.perturbed_genes, *[None] * 4]
