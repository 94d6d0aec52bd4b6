"""A model that was never trained says so, whatever it is asked, in place of answers of random weights."""

import numpy as np
import pytest

import raptorgraph as rg
from raptorgraph import pl, tl

CALLS = {
    "predict": lambda model: model.predict(["P01"]),
    "predict_effects": lambda model: model.predict_effects(["P01"]),
    "predict_effects, sd": lambda model: model.predict_effects(["P01"], return_sd=True),
    "sample_effects": lambda model: model.sample_effects(["P01"]),
    "get_counterfactual": lambda model: model.get_counterfactual("P01"),
    "get_response_probability": lambda model: model.get_response_probability(),
    "get_latent_representation": lambda model: model.get_latent_representation(),
    "latent_activity": lambda model: model.latent_activity(),
    "get_dag": lambda model: model.get_dag(),
    "get_edges": lambda model: model.get_edges(),
    "get_modules": lambda model: model.get_modules(),
    "annotate": lambda model: model.annotate(),
    "tl.effects": lambda model: tl.effects(model, max_fdr=0.05),
    "tl.interactions": lambda model: tl.interactions(model, n_draws=20),
    "tl.responders": lambda model: tl.responders(model),
    "tl.guides": lambda model: tl.guides(model, "guide"),
    "tl.reverse": lambda model: tl.reverse(model, model.measured_effects().iloc[:1]),
    "tl.dag_stability": lambda model: tl.dag_stability(model),
    "tl.total_effects": lambda model: tl.total_effects(model),
    "tl.paths": lambda model: tl.paths(model, "P01", "P02"),
    "tl.enrich": lambda model: tl.enrich(model, {"set": model.var_names_[5:20]}),
    "tl.latent_programs": lambda model: tl.latent_programs(model),
    "tl.program_similarity": lambda model: tl.program_similarity(model),
    "tl.spillover": lambda model: tl.spillover(model),
    "tl.next_pairs": lambda model: tl.next_pairs(model, n=1),
    "tl.power": lambda model: tl.power(model),
    "tl.state_effects": lambda model: tl.state_effects(model, "half"),
    "tl.evaluate": lambda model: tl.evaluate(model, model.adata),
    "pl.volcano": lambda model: pl.volcano(model, "P01"),
    "pl.dag": lambda model: pl.dag(model),
    "pl.latents": lambda model: pl.latents(model),
    "pl.effect": lambda model: pl.effect(model, perturbation="P01"),
    "pl.effects_map": lambda model: pl.effects_map(model),
    "pl.similarity": lambda model: pl.similarity(model),
    "pl.uncertainty": lambda model: pl.uncertainty(model, "P01"),
    "pl.pair": lambda model: pl.pair(model, "P01+P02"),
    "pl.counterfactual": lambda model: pl.counterfactual(model, "P01"),
}


@pytest.fixture(scope="module")
def untrained():
    adata = rg.datasets.simulate(
        60, 3, n_doubles=2, n_control_cells=60, n_cells_per_perturbation=30, n_truth_cells=20, seed=0
    )
    adata.obs["half"] = np.resize(["first", "second"], adata.n_obs)
    adata.obs["guide"] = adata.obs["perturbation"].astype(str) + "_g" + np.resize(["1", "2"], adata.n_obs)
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    return rg.RaptorGraphModel(adata, n_hidden=8)


@pytest.mark.parametrize("name", CALLS)
def test_it_says_so(untrained, name):
    with pytest.raises((RuntimeError, ValueError), match="not (trained|fitted).*model.train"):
        CALLS[name](untrained)
