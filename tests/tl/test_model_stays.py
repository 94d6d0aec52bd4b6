"""No tool and no plot changes the model that it is asked of: neither its state nor its cells."""

import hashlib
import pickle
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse

import raptorgraph as rg
from raptorgraph import pl, tl

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def asked(with_few_steps):
    """A model, and what tools and plots are given beside it."""
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        60, 4, n_doubles=3, n_control_cells=60, n_cells_per_perturbation=30, expected_degree=3.0, n_truth_cells=20,
        seed=0,
    )  # fmt: skip
    adata.layers["counts"], adata.raw = adata.X.copy(), adata.copy()
    adata.obs["half"] = np.resize(["first", "second"], adata.n_obs)
    adata.obs["guide"] = adata.obs["perturbation"].astype(str) + "_g" + np.resize(["1", "2"], adata.n_obs)
    adata.obsm["X_map"] = np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    with with_few_steps():
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        others = [gene for gene in model.var_names_ if gene not in model.perturbed_genes]
        sets = {f"set {i + 1}": others[12 * i : 12 * i + 12] for i in range(4)}
        tables = {
            "enrichment": tl.enrich(model, sets, n_permutations=20, n_null=0),
            "guides": tl.guides(model, "guide", n_resamples=20),
            "interactions": tl.interactions(model, n_draws=20, seed=0),
            "next_pairs": tl.next_pairs(model, n=2, n_draws=20, seed=0),
            "power": tl.power(model, ["P01+P02"], n_cells=(50, 200), n_draws=20, seed=0),
            "reverse": tl.reverse(model, model.measured_effects().iloc[:2], max_genes=1),
            "states": tl.state_effects(model, "half", ["P01", "P02"], n_permutations=20),
        }
    return {"model": model, "sets": sets, **tables}


def first_edge(model):
    adjacency = np.zeros((4, 4))
    adjacency[0, 1] = 0.5
    names = model.perturbed_genes
    return pd.DataFrame(adjacency, index=names, columns=names)


TOOLS = {
    "annotate_latents": lambda a, path: tl.annotate_latents(a["model"], a["enrichment"]),
    "dag_stability": lambda a, path: tl.dag_stability(a["model"], n=2, n_null=1, progress=False),
    "effect_similarity": lambda a, path: tl.effect_similarity(a["model"], kind="specific"),
    "effects": lambda a, path: tl.effects(a["model"], ["P01", "P01+P02"], max_lfsr=0.2),
    "enrich": lambda a, path: tl.enrich(a["model"], a["sets"], activation="learned", n_permutations=20, n_null=20),
    "enrich_effects": lambda a, path: tl.enrich_effects(
        a["model"].predict_effects(["P01", "P02"]), a["sets"], n_permutations=20
    ),
    "evaluate": lambda a, path: tl.evaluate(a["model"], with_unseen(a["model"]), baselines=["additive"], n_cells=10),
    "guides": lambda a, path: tl.guides(a["model"], "guide", n_resamples=20),
    "interactions": lambda a, path: tl.interactions(a["model"], n_draws=20, seed=1),
    "knock_out_edge": lambda a, path: knocked_out(a["model"]),
    "latent_programs": lambda a, path: tl.latent_programs(a["model"], n_cells=20),
    "next_pairs": lambda a, path: tl.next_pairs(a["model"], n=2, goal="interactions", n_draws=20, seed=0),
    "paths": lambda a, path: tl.paths(first_edge(a["model"]), "P01", "P02"),
    "power": lambda a, path: tl.power(a["model"], ["P01+P02"], n_cells=(50, 200), n_draws=20, seed=0),
    "program_similarity": lambda a, path: tl.program_similarity(a["model"], n_cells=20, n_null=20),
    "responders": lambda a, path: tl.responders(a["model"], "guide"),
    "reverse": lambda a, path: tl.reverse(a["model"], a["model"].adata[:40].copy(), max_genes=2, n_draws=20, seed=0),
    "spillover": lambda a, path: tl.spillover(a["model"], n_cells=20),
    "spillover_index": lambda a, path: tl.spillover_index(
        lambda cells: a["model"].module.encode(cells)[0],
        torch.zeros(3, len(a["model"].var_names_)),
        {"P01": torch.ones(3, len(a["model"].var_names_))},
        {"P01": 0},
        {"P01": 0},
    ),
    "state_effects": lambda a, path: tl.state_effects(a["model"], "half", n_permutations=20),
    "to_networkx": lambda a, path: tl.to_networkx(a["model"]),
    "total_effects": lambda a, path: tl.total_effects(a["model"]),
    "write_dag": lambda a, path: tl.write_dag(a["model"], path / "dag.csv"),
}
PLOTS = {
    "counterfactual": lambda a, path: pl.counterfactual(a["model"], "P01", basis="X_map"),
    "dag": lambda a, path: pl.dag(a["model"]),
    "effect": lambda a, path: pl.effect(a["model"], perturbation="P01"),
    "effects_map": lambda a, path: pl.effects_map(a["model"]),
    "enrichment": lambda a, path: pl.enrichment(a["enrichment"]),
    "guides": lambda a, path: pl.guides(a["guides"]),
    "interactions": lambda a, path: pl.interactions(a["interactions"]),
    "latents": lambda a, path: pl.latents(a["model"], basis="X_map"),
    "next_pairs": lambda a, path: pl.next_pairs(a["next_pairs"]),
    "pair": lambda a, path: pl.pair(a["model"], "P01+P02"),
    "power": lambda a, path: pl.power(a["power"]),
    "reverse": lambda a, path: pl.reverse(a["reverse"], query="P01"),
    "similarity": lambda a, path: pl.similarity(a["model"]),
    "state_effects": lambda a, path: pl.state_effects(a["states"]),
    "training": lambda a, path: pl.training(a["model"]),
    "uncertainty": lambda a, path: pl.uncertainty(a["model"], "P01"),
    "volcano": lambda a, path: pl.volcano(a["model"], "P01"),
}
# Frequencies of edges are kept with the model, for get_edges and get_dag, as dag_stability says.
KEPT = {"tl.dag_stability": {"module: edge_frequency", "module: edge_q_value"}}
CALLS = {f"tl.{name}": call for name, call in TOOLS.items()} | {f"pl.{name}": call for name, call in PLOTS.items()}


def with_unseen(model):
    """The model's cells, of which some have a label that it has not seen."""
    adata = model.adata.copy()
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    pair = next(f"P01+{gene}" for gene in model.perturbed_genes[1:] if f"P01+{gene}" not in model.conditions)
    labels[np.flatnonzero(labels == "P01")[:25]] = pair
    adata.obs["perturbation"] = labels
    return adata


def knocked_out(model):
    edges = model.get_edges()
    if not len(edges):
        pytest.skip("this graph has no edge")
    return tl.knock_out_edge(model, edges["source"].iloc[0], edges["target"].iloc[0], "P01")


def digest(value):
    """Digest of all that a value holds, whatever it is."""
    return hashlib.blake2b(_bytes(value)).hexdigest()


def _bytes(value):
    if isinstance(value, torch.Tensor):
        return _bytes(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    if isinstance(value, np.ndarray | list | tuple):
        return b"[" + b",".join(_bytes(item) for item in value) + b"]"
    if sparse.issparse(value):
        return _bytes([value.format, value.shape, value.data, value.indices, value.indptr])
    if isinstance(value, pd.DataFrame):
        return _bytes({"index": value.index.to_numpy(), **{name: value[name] for name in value}})
    if isinstance(value, pd.Series | pd.Index):
        return str(value.dtype).encode() + _bytes(value.to_numpy())
    if isinstance(value, Mapping):
        return _bytes([[str(key), value[key]] for key in value])
    return pickle.dumps(value)


def state_of(model):
    """Digest of each part of a model."""
    adata, module = model.adata, model.module
    parts = {f"module: {name}": value for name, value in module.state_dict().items()}
    parts |= {f"mode: {name}": part.training for name, part in module.named_modules()}
    parts |= {f"learned: {name}": value.requires_grad for name, value in module.named_parameters()}
    parts |= {f"gradient: {name}": value.grad for name, value in module.named_parameters()}
    for slot in ("X", "obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns"):
        value = getattr(adata, slot)
        parts[f"adata.{slot}"] = dict(value) if isinstance(value, Mapping) else value
    parts |= {"adata.raw": adata.raw.X, "raw names": adata.raw.var_names}
    parts |= {"registry": model.registry_, "history": dict(model.history), "settings": model.setup_args}
    parts |= {"seed": scvi.settings.seed, "threads": torch.get_num_threads(), "gradients": torch.is_grad_enabled()}
    return {name: digest(value) for name, value in parts.items()}


def test_every_tool_and_every_plot_is_asked():
    assert set(TOOLS) == set(tl.__all__)
    assert set(PLOTS) == set(pl.__all__)


def test_a_change_would_be_seen(asked):
    model = asked["model"]
    kept, before = model.module.center.clone(), state_of(model)
    with torch.no_grad():
        model.module.center += 1.0
    model.adata.obs["new"] = 1
    changed = {name for name, value in state_of(model).items() if before.get(name) != value}
    assert changed == {"module: center", "adata.obs"}
    with torch.no_grad():
        model.module.center.copy_(kept)
    del model.adata.obs["new"]


@pytest.mark.parametrize("name", CALLS)
def test_the_model_stays_as_it_is(asked, name, tmp_path):
    tables = {key: value for key, value in asked.items() if isinstance(value, pd.DataFrame)}
    before = state_of(asked["model"]), digest(tables)
    CALLS[name](asked, tmp_path)
    after = state_of(asked["model"]), digest(tables)
    changed = {part for part, value in after[0].items() if before[0].get(part) != value}
    assert changed == KEPT.get(name, set())
    assert after[1] == before[1]
