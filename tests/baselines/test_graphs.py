import sys
from importlib.util import find_spec

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, norm

from raptorgraph.baselines import (
    dagma_on_targets,
    difference_of_means,
    graph_methods,
    modular_response,
    random_graph_weights,
    sort_by_variance,
)
from raptorgraph.baselines._graphs import RIDGE
from raptorgraph.datasets import simulate
from raptorgraph.metrics import edge_auprc

GENES = ["A", "B", "C", "D", "E"]
# A -> B -> C, A -> C, D -> E
ADJACENCY = np.zeros((5, 5))
ADJACENCY[[0, 1, 0, 3], [1, 2, 2, 4]] = [0.8, -0.5, 0.4, 0.6]
SHIFT = np.array([-1.0, -2.0, -1.5, -0.8, -1.2])
EFFECTS = SHIFT[:, None] * np.linalg.inv(np.eye(5) - ADJACENCY)  # of perturbing the row's latent


def screen(effects=EFFECTS, measured=GENES, loading=(1.0, 0.5, 1.0, 2.0, 1.0), further=()) -> ad.AnnData:
    """Log-normalized cells with these log ratios, almost without noise: two cells a condition, and a gene of none."""
    labels = [*GENES[: len(effects)]]
    ratios = np.pad(effects * np.array(loading)[: len(effects)], ((1, 0), (0, 1)))
    ratios = np.vstack([ratios, *[np.full(ratios.shape[1], ratio) for _, ratio in further]])
    rates = 100 * np.exp(ratios)
    X = np.log1p(np.vstack([rates * 0.999, rates * 1.001]))
    obs = pd.DataFrame({"perturbation": ["control", *labels, *(label for label, _ in further)] * 2})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[*labels, "other"]))
    return adata[:, [*measured, "other"]].copy()


def cells(X: np.ndarray, labels) -> ad.AnnData:
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(X))])
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=GENES[: X.shape[1]]))


def test_difference_of_means_is_the_log_ratio_of_the_target():
    loading = np.array([1.0, 0.5, 1.0, 2.0, 1.0])
    found = difference_of_means(screen(measured=["E", "B", "A", "C"]))
    expected = pd.DataFrame(EFFECTS * loading, index=GENES, columns=GENES)
    expected["D"] = 0.0
    np.testing.assert_allclose(found, expected * (1 - np.eye(5)), atol=1e-5)
    assert found.index.tolist() == found.columns.tolist() == GENES


def test_modular_response_recovers_the_weights_of_a_linear_model():
    weights = ADJACENCY * SHIFT[:, None] / SHIFT
    np.testing.assert_allclose(modular_response(screen()), weights, atol=1e-4)
    # the own gene is the unit, however it reads its latent
    np.testing.assert_allclose(modular_response(screen(loading=(0.3, 1.0, 2.0, -1.0, 0.7))), weights, atol=1e-4)


def test_modular_response_leaves_out_what_is_not_measured():
    found = modular_response(screen(measured=["A", "C", "D", "E"]))
    assert not found.loc["B"].any()
    assert not found["B"].any()
    # the way through B is an edge now
    assert found.loc["A", "C"] == pytest.approx((0.4 - 0.8 * 0.5) * SHIFT[0] / SHIFT[2], abs=1e-4)
    assert found.loc["D", "E"] == pytest.approx(0.6 * SHIFT[3] / SHIFT[4], abs=1e-4)
    assert not modular_response(screen(measured=[])).to_numpy().any()


def test_modular_response_does_not_read_noise():
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", "A", "B"], 400)
    X = rng.normal(5, 0.3, size=(1200, 2))
    X[400:800, 0] -= 1  # A changes A alone
    X[800:, 1] -= 1
    adata = cells(X, labels)
    assert (difference_of_means(adata).to_numpy()[[0, 1], [1, 0]] != 0).all()
    assert not modular_response(adata).to_numpy().any()
    X[800:, 1] += 1  # and B has no effect that could be a unit
    assert not modular_response(cells(X, labels)).to_numpy().any()


def test_modular_response_of_the_same_effects_is_a_ridge_regression():
    found = modular_response(screen(effects=np.full((2, 2), -1.0), measured=["A", "B"], loading=(1.0, 1.0)))
    assert found.loc["A", "B"] == pytest.approx(-1 / (4 + RIDGE), abs=1e-4)


def test_only_single_perturbations_are_used():
    alone = screen()
    more = screen(further=[("A+B", -3.0), ("A+F", 2.0)])
    methods = graph_methods()
    for name in ("difference of means", "modular response", "sort by variance", "random"):
        pd.testing.assert_frame_equal(methods[name](more), methods[name](alone))


def test_sort_by_variance_regresses_on_what_varies_less():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 0.3, 600)
    b = 2 * a + rng.normal(0, 0.3, 600)
    c = -1.5 * b + rng.normal(0, 0.3, 600)
    d = rng.normal(0, 0.1, 600)
    adata = cells(np.column_stack([a, b, c, d, np.zeros(600)]) + 10.5, np.resize(["control", *GENES], 600))
    expected = np.zeros((5, 5))
    expected[[0, 1], [1, 2]] = [2, -1.5]
    np.testing.assert_allclose(sort_by_variance(adata), expected, atol=0.1)
    # the same relation on another scale is read the other way
    turned = cells(np.column_stack([10 * a, b, c, d, np.zeros(600)]) + 20.5, adata.obs["perturbation"].to_numpy())
    assert sort_by_variance(turned).loc["B", "A"] > 1
    assert sort_by_variance(turned).loc["A", "B"] == 0


def test_dagma_finds_who_is_next_to_whom():
    pytest.importorskip("dagma")
    rng = np.random.default_rng(0)
    z = rng.normal(0, 0.3, size=(900, 5))
    X = z @ np.linalg.inv(np.eye(5) - 1.2 * np.eye(5, k=1)) + 12.5
    X[:, 4] = 12.5  # does not vary
    adata = cells(X, np.resize(["control", *GENES], 900))
    found = dagma_on_targets(adata)
    joined = np.maximum(found.abs(), found.abs().T).to_numpy() >= 0.3
    np.testing.assert_array_equal(joined[:4, :4], np.eye(4, k=1) + np.eye(4, k=-1))
    assert not found.loc["E"].any()
    assert not found["E"].any()
    few = [dagma_on_targets(adata, seed=seed, n_cells=300) for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(few[0], few[1])
    assert not few[0].equals(few[2])
    assert not few[0].equals(found)


def test_dagma_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dagma.linear", None)
    with pytest.raises(ImportError, match="pip install dagma"):
        dagma_on_targets(screen())


def test_random_weights_are_acyclic_and_seeded():
    found = [random_graph_weights(screen(), seed=seed) for seed in (3, 3, 4)]
    pd.testing.assert_frame_equal(found[0], found[1])
    assert not found[0].equals(found[2])
    graph = found[0].to_numpy() != 0
    assert graph.sum() == 10
    assert not np.linalg.matrix_power(graph.astype(int), 5).any()
    many = np.array([random_graph_weights(screen(), seed=seed) for seed in range(100)])
    assert kstest(many[many != 0], norm.cdf).pvalue > 1e-3
    # the number of edges in the order of the index is that of the concordant pairs of a random order (Kendall)
    upper = np.count_nonzero(np.triu(many))
    assert upper == pytest.approx(100 * 5, abs=4 * np.sqrt(100 * 5 * 4 * 15 / 72))


def test_all_methods_answer_alike_for_a_real_shape():
    adata = simulate(
        60,
        8,
        n_doubles=3,
        n_control_cells=200,
        n_cells_per_perturbation=60,
        targets_without_gene=0.25,
        n_batches=2,
        seed=1,
    )
    setup = {"library_size_key": "total_counts", "batch_key": "batch"}
    genes = [f"P0{i}" for i in range(1, 9)]
    truth = adata.uns["simulation"]["adjacency"].loc[genes, genes]
    score = {}
    for name, method in graph_methods(seed=2).items():
        if name in ("dagma", "sdcd") and not find_spec(name):
            continue
        graph = method(adata, **setup)
        assert graph.index.tolist() == graph.columns.tolist() == genes, name
        assert np.isfinite(graph.to_numpy()).all(), name
        assert not np.diag(graph).any(), name
        assert graph.to_numpy().any(), name
        missing = [gene for gene in genes if gene not in adata.var_names]
        assert len(missing) == 2, name
        assert name == "random" or not graph[missing].to_numpy().any(), name
        score[name] = edge_auprc(graph, truth)
    assert score["difference of means"] > score["random"]


def test_bad_screens():
    adata = cells(np.full((4, 2), 1.5), ["control", "control", "A+B", "A+B"])
    for name in ("difference of means", "modular response", "sort by variance", "random"):
        with pytest.raises(ValueError, match="No gene was perturbed alone"):
            graph_methods()[name](adata)
    with pytest.raises(ValueError, match="control"):
        difference_of_means(cells(np.full((2, 2), 1.5), ["A", "B"]))
