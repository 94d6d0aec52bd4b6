"""Small models of every kind, and what tests of saved models and of resumed trainings compare, bit for bit."""

import copy
from collections import OrderedDict

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg

SCREEN = {
    "n_genes": 30, "n_perturbed": 4, "n_doubles": 2, "n_control_cells": 60, "n_cells_per_perturbation": 20,
    "n_truth_cells": 5, "n_batches": 2, "seed": 0,
}  # fmt: skip


def screen():
    adata = rg.datasets.simulate(**SCREEN)
    adata.obs["age"] = np.arange(adata.n_obs) % 7.0
    adata.obs["donor"] = np.resize(["a", "b", "c"], adata.n_obs)
    return adata


def guides(adata):
    """The same screen with the labels as guides in a modality of their own."""
    labels = adata.obs.pop("perturbation")
    targets = [f"P0{i}" for i in range(1, 5)] + ["control"]
    counts = np.array([[20.0 * (target in label.split("+")) for target in targets] for label in labels])
    var = pd.DataFrame({"target": targets}, index=[f"{target}_guide" for target in targets])
    return md.MuData({"rna": adata, "guides": ad.AnnData(counts, obs=adata.obs[[]], var=var)})


def embedding():
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(6, 3)), index=[*(f"P0{i}" for i in range(1, 5)), "NEW", "G0010"])


def plain(**model):
    def make(tmp_path):
        adata = screen()
        rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
        return rg.RaptorGraph(adata, **{"n_hidden": 4, **model})

    return make


def paper(tmp_path):
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    return rg.RaptorGraph.from_preset(adata, "paper", n_hidden=4)


def covariates(tmp_path):
    adata = screen()
    rg.RaptorGraph.setup_anndata(
        adata, control=["control"], library_size_key="total_counts", batch_key="batch",
        categorical_covariate_keys=["donor"], continuous_covariate_keys=["age"],
    )  # fmt: skip
    return rg.RaptorGraph(adata, n_hidden=4)


def embedded(tmp_path):
    adata = screen()
    rg.RaptorGraph.setup_anndata(adata, gene_embedding=embedding())
    return rg.RaptorGraph(adata, n_hidden=4)


def multimodal(tmp_path):
    mdata = guides(screen())
    rg.RaptorGraph.setup_mudata(
        mdata, modalities={"expression": "rna", "guides": "guides"}, library_size_key="total_counts",
        guide_kwargs={"min_counts": 5},
    )  # fmt: skip
    return rg.RaptorGraph(mdata, n_hidden=4)


def backed(tmp_path):
    screen().write_h5ad(tmp_path / "cells.h5ad")
    adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    return rg.RaptorGraph(adata, n_hidden=4)


MODELS = {
    "default": plain(),
    "paper": paper,
    "no posterior": plain(effect_posterior=False),
    "settings of the posterior": plain(effect_posterior={"noise_fraction": 0.7}),
    "more latents": plain(n_latent=9, n_layers=2, n_subgraphs=1),
    "normal": plain(likelihood="normal"),
    "no prior": plain(perturbed_prior=False, graph="dagma"),
    "fixed graph": plain(graph="fixed"),
    "covariates": covariates,
    "embedding": embedded,
    "guides": multimodal,
    "file": backed,
}


@pytest.fixture(scope="session")
def trained(with_few_steps, tmp_path_factory):
    """Trained models by their names in MODELS, each made once; a test that changes one makes a copy."""
    known = {}

    def get(name):
        if name not in known:
            scvi.settings.seed = 0
            model = MODELS[name](tmp_path_factory.mktemp("cells"))
            with with_few_steps():
                model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
            known[name] = model
        return known[name]

    return get


def _same(one, two):
    if isinstance(one, OrderedDict):
        one = dict(one)
    if isinstance(two, OrderedDict):
        two = dict(two)
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return list(one) == list(two) and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one.isnan(), two.isnan()) and torch.equal(
            one.nan_to_num(7.0), two.nan_to_num(7.0)
        )  # fmt: skip
    if isinstance(one, np.ndarray):
        if one.dtype != two.dtype or one.shape != two.shape:
            return False
        if one.dtype == object:
            return _same(one.ravel().tolist(), two.ravel().tolist())
        return bool(np.array_equal(one, two, equal_nan=one.dtype.kind == "f"))
    if isinstance(one, pd.DataFrame):
        return one.equals(two) and _same([one.index, one.columns], [two.index, two.columns]) and (
            list(one.dtypes) == list(two.dtypes)
        )  # fmt: skip
    if isinstance(one, pd.Index):
        return one.dtype == two.dtype and one.equals(two) and one.name == two.name
    return one == two or (one != one and two != two)


@pytest.fixture(scope="session")
def same():
    """Whether two values are of the same types and equal to the last bit."""
    return _same


@pytest.fixture(scope="session")
def answers():
    """Answers of a model, for these cells or by itself alone."""

    def ask(model, cells=None):
        asked = ["P01", "P02", "P01+P02"]
        found = {
            "edges": model.get_edges(),
            "dag": model.get_dag(),
            "state": copy.deepcopy(dict(model.module.state_dict())),
            "history": model.history,
            "indices": [model.train_indices, model.validation_indices, model.test_indices],
        }
        if model.has_posterior:
            found["effects"] = model.predict_effects(asked, return_sd=True)
            found["draws"] = model.sample_effects(asked, 3, seed=0)
        if cells is not None:
            found["decoded"] = model.predict_effects(asked, cells, kind="decoder")
            found["latents"] = model.get_latent_representation(cells)
            found["cells"] = model.predict(asked, cells, n_cells=7, seed=0).to_df()
            if model.module.responses.is_fitted:
                found["responded"] = model.get_response_probability(cells).to_frame()
        return found

    return ask
