"""A file in another order gives the same model, matched by name, and so does another number of workers."""

import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg

pytestmark = pytest.mark.usefixtures("few_steps")
ASKED = ["P01", "P02", "P01+P02", "P03+P04"]
TESTED = ["NES", "change", "p_null", "p_effect"]


def screen(**options):
    size = {"n_doubles": 4, "n_control_cells": 150, "n_cells_per_perturbation": 50, "expected_degree": 2.0}
    adata = rg.datasets.simulate(70, 5, targets_without_gene=0.2, **{**size, **options}, n_truth_cells=20, seed=3)
    adata.obs["lane"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 3 == 0, "a", "b"))
    del adata.uns["simulation"]
    return adata


def permuted(adata, cells, genes):
    rng = np.random.default_rng(1)
    rows = rng.permutation(adata.n_obs) if cells else np.arange(adata.n_obs)
    columns = rng.permutation(adata.n_vars) if genes else np.arange(adata.n_vars)
    return adata[rows][:, columns].copy()


def fit(adata, max_epochs=2, **setup):
    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", **setup)
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=max_epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def answers(model):
    """What is asked of a model, as tables that can be matched by name."""
    cells, genes = model.adata.obs_names, model.var_names_
    mean, sd = model.predict_effects(ASKED, return_sd=True)
    # A count that is another, since a rate differs in its last digit, changes which random numbers the next ones get.
    # That befalls few seeds, and seed=2 is one.
    predicted = model.predict(["P01", "P01+P02"], n_cells=60, seed=3)
    predicted.obs_names = predicted.obs["perturbation"].astype(str) + "/" + predicted.obs["control_cell"].astype(str)
    draws = model.sample_effects(ASKED, n_draws=4, seed=1)
    sets = {f"s{k}": sorted(genes)[k::4] for k in range(4)}
    drawn = {"n_null": 40, "seed": 4, "progress": False}
    enriched = rg.tl.enrich(model, sets, n_permutations=50, **drawn).set_index(["latent", "gene_set"])
    permuted = rg.tl.enrich(model, sets, n_permutations=50, permute=3, **drawn).set_index(["latent", "gene_set"])
    similar = rg.tl.program_similarity(model, **drawn).set_index(["latent_a", "latent_b"])
    stable = rg.tl.dag_stability(model, n=2, n_null=1, progress=False).set_index(["source", "target"]).sort_index()
    return {
        "latents": pd.DataFrame(model.get_latent_representation(), cells, model.latent_names).sort_index(),
        "mean": mean.sort_index(axis=1),
        "sd": sd.sort_index(axis=1),
        "draws": pd.concat([pd.DataFrame(x, ASKED, genes) for x in draws]).sort_index(axis=1),
        "decoded": model.predict_effects(ASKED, kind="decoder").sort_index(axis=1),
        "dag": model.get_dag(),
        "frequency": stable["frequency"].to_frame(),
        "enriched": enriched[TESTED].fillna(-1.0).sort_index(),
        "permuted": permuted[TESTED].fillna(-1.0).sort_index(),
        "similar": similar[["similarity", "specific", "p_null"]].fillna(-1.0).sort_index(),
        "spillover": rg.tl.spillover(model, n_cells=60, seed=1).fillna(-1.0),
        "responded": model.get_response_probability().dropna().sort_index().to_frame(),
        "cells": pd.DataFrame(predicted.layers["counts"].toarray(), predicted.obs_names, genes)
        .sort_index()
        .sort_index(axis=1),
    }


@pytest.fixture(scope="module")
def unpermuted():
    return answers(fit(screen(), batch_key="lane"))


@pytest.mark.parametrize(("cells", "genes"), [(True, False), (False, True), (True, True)])
def test_order_of_cells_and_genes_changes_nothing(unpermuted, cells, genes):
    found = answers(fit(permuted(screen(), cells, genes), batch_key="lane"))
    for name, expected in unpermuted.items():
        pd.testing.assert_index_equal(found[name].index, expected.index, check_names=False)
        pd.testing.assert_index_equal(found[name].columns, expected.columns, check_names=False)
        size = np.abs(expected.to_numpy(dtype=float)).max()
        off = np.abs(found[name].to_numpy(dtype=float) - expected.to_numpy(dtype=float))
        if name == "cells":  # a count may be another where a rate differs in its last digit
            assert (off > 0).mean() < 1e-3, name
        else:
            assert off.max() < 1e-4 * size, name


def test_another_seed_is_another_training(unpermuted):
    adata = screen()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", batch_key="lane")
    scvi.settings.seed = 7
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = 0
    off = model.get_latent_representation() - unpermuted["latents"].loc[adata.obs_names].to_numpy()
    assert np.abs(off).max() > 1e-2


def test_predicted_cells_come_in_the_order_of_the_file():
    adata = permuted(screen(), True, True)
    model = fit(adata, 1)
    controls = adata.obs_names[adata.obs["perturbation"] == "control"]
    cells = model.predict(["control", "P01"])
    assert cells.obs["control_cell"].tolist() == 2 * controls.tolist()
    same = cells[: len(controls)]  # of a control, its own counts
    np.testing.assert_array_equal(same.layers["counts"].toarray(), adata[controls, same.var_names].X.toarray())
    np.testing.assert_allclose(same.obs["library_size"], adata.obs.loc[controls, "total_counts"], rtol=1e-6)


def test_predicted_cells_are_the_same_in_a_file(tmp_path):
    model = fit(permuted(screen(), True, True), 1)
    in_memory = model.predict(ASKED, n_cells=20, seed=1)
    in_file = model.predict(ASKED, n_cells=20, seed=1, out=tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(in_file.layers["counts"][:].toarray(), in_memory.layers["counts"].toarray())
    pd.testing.assert_frame_equal(in_file.obs.astype(str), in_memory.obs.astype(str))


def test_workers_change_no_bit():
    found = []
    for workers in (0, 2):
        before, scvi.settings.dl_num_workers = scvi.settings.dl_num_workers, workers
        try:
            found.append(fit(screen(), 1).module.state_dict())
        finally:
            scvi.settings.dl_num_workers = before
    for name, value in found[0].items():
        if torch.is_tensor(value):
            assert torch.equal(value.nan_to_num(), found[1][name].nan_to_num()), name
