"""A screen in which some perturbations do nothing and two do the same, and a model of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import scvi

import raptorgraph as rg


@pytest.fixture(scope="session")
def known_screen():
    """Of 12 perturbations four are of control cells in truth, two are halves of one; with adata, model, names of both.

    Two batches; the twins are ``P01`` and ``P02``; 6 latents have no gene.
    """
    seed, scvi.settings.seed = scvi.settings.seed, 0
    adata = rg.datasets.simulate(
        250, 12, 18, n_control_cells=1000, n_cells_per_perturbation=100, n_doubles=0, effect_size=2.5, n_batches=2,
        expected_degree=0.5, n_truth_cells=20, seed=3,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    null, twins = ["P09", "P10", "P11", "P12"], ["P01", "P02"]
    dropped = np.isin(labels, [*null, "P02"])
    moved = rng.permutation(np.flatnonzero(labels == "control"))[:400]
    labels[moved] = np.repeat(null, 100)
    labels[rng.permutation(np.flatnonzero(labels == "P01"))[:50]] = "P02"
    dropped[moved] = False
    adata.obs["perturbation"] = labels
    adata = adata[~dropped].copy()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", batch_key="batch")
    model = rg.RaptorGraphModel(adata, n_latent=18, n_hidden=8)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = seed
    return SimpleNamespace(adata=adata, model=model, null=null, twins=twins)


@pytest.fixture(scope="session")
def pairs_model():
    """A model of six perturbed genes, of which ``P06`` was never alone, and three pairs; tests leave it as it is."""
    seed, scvi.settings.seed = scvi.settings.seed, 0
    adata = rg.datasets.simulate(
        80, 6, n_doubles="all", n_control_cells=200, n_cells_per_perturbation=60, n_truth_cells=20, seed=2
    )
    kept = ["control", "P01", "P02", "P03", "P04", "P05", "P01+P02", "P03+P04", "P05+P06"]
    adata = adata[adata.obs["perturbation"].isin(kept)].copy()
    # conditions differ in their number of cells
    adata = adata[~((adata.obs["perturbation"] == "P03") & (np.arange(adata.n_obs) % 3 == 0))].copy()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = seed
    return model
