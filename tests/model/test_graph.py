"""The graph of a model, inferred from its screen."""

from copy import deepcopy

import anndata as ad
import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg

pytestmark = pytest.mark.usefixtures("few_steps")


def screen(**kwargs):
    arguments = {
        "n_genes": 200, "n_perturbed": 8, "n_control_cells": 400, "n_cells_per_perturbation": 150, "n_doubles": 2,
        "mechanism": "linear", "interaction_strength": 0.0, "n_truth_cells": 20, "targets_without_gene": 0.25,
        "seed": 2,
    }  # fmt: skip
    return rg.datasets.simulate(**{**arguments, **kwargs})


def fitted(adata, *, setup=None, max_epochs=1, **kwargs):
    scvi.settings.seed = 0
    rg.RaptorGraph.setup_anndata(adata, **(setup or {"library_size_key": "total_counts"}))
    model = rg.RaptorGraph(adata, **{"pairing": "random", "n_hidden": 8, **kwargs})
    model.train(max_epochs=max_epochs, enable_progress_bar=False, accelerator="cpu")
    return model


def test_perturbations_of_a_batch_with_few_controls_have_no_edge():
    """Perturbations that do nothing, five in each of four batches, share the error of its 50 controls."""
    rng, labels, batch = np.random.default_rng(0), [], []
    for b in range(4):
        labels += ["control"] * 50 + [f"G{5 * b + i}" for i in range(5) for _ in range(150)]
        batch += [f"batch {b}"] * 800
    adata = ad.AnnData(rng.poisson(np.exp(rng.normal(size=150)), (len(labels), 150)).astype(np.float32))
    adata.var_names = [f"G{i}" for i in range(150)]
    adata.obs["perturbation"], adata.obs["batch"] = labels, batch
    model = fitted(adata, setup={"perturbation_key": "perturbation", "batch_key": "batch"})
    assert model.get_edges().empty


@pytest.fixture(scope="module")
def adata():
    return screen()


@pytest.fixture(scope="module")
def model(adata):
    return fitted(adata)


def test_the_true_graph_is_found(model, adata):
    truth, genes = adata.uns["simulation"]["adjacency"], model.perturbed_genes
    everything = model.get_dag(min_probability=0.0).loc[genes, genes].to_numpy()
    assert rg.metrics.edge_auprc(everything, truth.loc[genes, genes].to_numpy()) > 0.8
    called = model.get_dag().loc[genes, genes].to_numpy()
    assert (called != 0).any()
    np.testing.assert_array_equal(called, np.where(model.module.edge_probability >= 0.5, everything, 0.0))
    names = model.latent_names[len(genes) :]
    assert not model.get_dag().loc[names].to_numpy().any()  # no perturbation tells about these


def test_the_network_uses_it_and_does_not_change_it(model):
    assert not model.module.graph.weight.requires_grad
    strength = model.module.modulator.strength  # one for all, so that weights keep their units
    assert not strength.requires_grad
    assert torch.equal(strength, strength[0].expand(8))
    dag = model.get_dag().to_numpy()
    z, u = (model.get_latent_representation(kind=kind) for kind in ("exogenous", "causal"))
    np.testing.assert_allclose(u, z @ np.linalg.inv(np.eye(len(dag)) - dag), rtol=1e-3, atol=1e-4)


def test_table_of_edges(model):
    edges = model.get_edges()
    assert list(edges) == ["source", "target", "weight", "probability", "share", "direction_support", "module"]
    dag = model.get_dag()
    assert len(edges) == np.count_nonzero(dag)
    assert all(dag.loc[e.source, e.target] == e.weight for e in edges.itertuples())
    assert edges["share"].is_monotonic_decreasing
    assert (edges["probability"] >= 0.5).all()
    strict = model.get_dag(min_probability=0.99)
    assert np.count_nonzero(strict) == (edges["probability"] >= 0.99).sum()
    assert np.count_nonzero(model.get_dag(threshold=0.4)) == (edges["weight"].abs() >= 0.4).sum()


def test_log_values_give_the_graph_of_counts(model, adata):
    other = screen()
    other.X.data = np.log1p(other.X.data * np.repeat(1e4 / other.obs["total_counts"], np.diff(other.X.indptr)))
    logs = fitted(other, setup={})
    np.testing.assert_allclose(logs.get_dag(), model.get_dag().loc[logs.latent_names, logs.latent_names], atol=1e-3)


def test_a_gene_that_was_never_perturbed_alone_has_no_edge():
    other = screen(n_doubles="all")
    other = other[other.obs["perturbation"] != "P03"].copy()
    model = fitted(other)
    assert "P03" in model.perturbed_genes
    dag = model.get_dag(min_probability=0.0)
    assert not dag.loc["P03"].any()
    assert not dag["P03"].any()
    assert dag.to_numpy().any()


def test_pairs_alone_have_no_graph():
    other = screen(n_genes=80, n_perturbed=4, n_doubles="all", n_control_cells=60, n_cells_per_perturbation=20)
    label = other.obs["perturbation"].astype(str)
    model = fitted(other[(label == "control") | label.str.contains("+", regex=False)].copy())
    assert not model.get_dag(min_probability=0.0).to_numpy().any()
    assert len(model.get_edges()) == 0
    predicted, measured = model.predict_effects(model.conditions), model.measured_effects().loc[model.conditions]
    assert rg.metrics.pearson_delta(predicted.to_numpy(), measured.to_numpy()) > 0.95  # 0.97 with 20 cells a pair


def test_batches_are_compared_with_their_own_controls(adata):
    plain = screen(n_batches=3, batch_effect=1.0)
    model = fitted(plain, setup={"library_size_key": "total_counts", "batch_key": "batch"})
    genes = model.perturbed_genes
    truth = plain.uns["simulation"]["adjacency"].loc[genes, genes].to_numpy()
    assert rg.metrics.edge_auprc(model.get_dag(min_probability=0.0).loc[genes, genes].to_numpy(), truth) > 0.8


def test_other_graphs(adata):
    fixed = fitted(adata.copy(), graph="fixed")
    assert not fixed.get_dag().to_numpy().any()
    assert list(fixed.get_edges()) == ["source", "target", "weight"]
    with pytest.raises(ValueError, match="min_probability"):
        fixed.get_dag(min_probability=0.0)
    with pytest.raises(ValueError, match="graph='pc'"):
        rg.RaptorGraph(fixed.adata, graph="pc")


def test_frequencies_must_be_asked_for_first(model):
    with pytest.raises(ValueError, match="dag_stability"):
        model.get_dag(min_frequency=0.5)


def test_stability_that_is_kept(model):
    edges = model.edges
    kept = {name: edges.values(name).copy() for name in ("frequency", "q_value")}
    frequency = np.where(edges.called, 0.9, 0.0)
    frequency[edges.called & (np.cumsum(edges.called).reshape(frequency.shape) == 1)] = 0.4
    edges.keep_stability(frequency, np.full(frequency.shape, 0.05))
    assert np.count_nonzero(model.get_dag(min_frequency=0.9)) == edges.called.sum() - 1
    assert np.count_nonzero(model.get_dag(min_frequency=0.4)) == edges.called.sum()
    assert sorted(model.get_edges()["frequency"])[:2] == pytest.approx([0.4, 0.9])
    with pytest.raises(ValueError, match="name='shares' is unknown; use one of 'weight', 'probability'"):
        edges.values("shares")
    edges.keep_stability(**kept)


def test_directions_and_modules(model):
    edges = model.edges
    known = edges.module.edge_direction_support.clone()
    try:
        assert (model.get_edges()["direction_support"] >= 0.8).mean() > 0.6  # of a screen that keeps the assumptions
        table = model.get_edges()
        first = table.iloc[0]
        i, j = (model.perturbed_genes.index(name) for name in (first["source"], first["target"]))
        edges.module.edge_direction_support.fill_(0.99)
        assert model.get_modules() == {}
        assert model.get_edges()["module"].isna().all()
        edges.module.edge_direction_support[i, j] = 0.79
        edges.module.edge_share[i, j] = max(0.5, float(first["share"]))
        assert model.get_modules() == {"M1": [model.perturbed_genes[k] for k in sorted((i, j))]}
        assert model.get_edges()["module"].tolist() == ["M1", *[np.nan] * (len(table) - 1)]
        assert edges.unordered.sum() == 1
    finally:
        edges.module.edge_direction_support.copy_(known)
        edges.module.edge_share[i, j] = float(first["share"])


def test_a_state_of_before_there_was_support_is_read(model):
    state = deepcopy(model.module.state_dict())
    kept = state.pop("edge_direction_support")
    try:
        model.module.load_state_dict(state)
        assert list(model.get_edges()) == ["source", "target", "weight", "probability", "share"]
        assert model.get_modules() == {}
        assert not model.edges.unordered.any()
    finally:
        model.module.edge_direction_support.copy_(kept)
