"""Edges found again in resampled cells, and with permuted labels."""

import numpy as np
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.screen._moments import log_ratio_moments
from raptorgraph.tl._dag_stability import _Null, _permuted, _resampled, q_values


def fitted(adata, **kwargs):
    scvi.settings.seed = 0
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, effect_posterior=False, n_hidden=8, **kwargs)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    return model


@pytest.fixture(scope="module")
def screen():
    return rg.datasets.simulate(
        150, 12, n_control_cells=600, n_cells_per_perturbation=200, n_doubles=0, mechanism="linear",
        interaction_strength=0.0, n_batches=2, n_truth_cells=20, seed=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(screen):
    return fitted(screen)


@pytest.fixture(scope="module")
def table(model):
    return rg.tl.dag_stability(model, n=8, n_null=3, progress=False)


def test_true_edges_come_back(screen, model, table):
    assert list(table) == [
        "source",
        "target",
        "weight",
        "probability",
        "share",
        "direction_support",
        "frequency",
        "q_value",
    ]
    assert table["frequency"].is_monotonic_decreasing
    truth = screen.uns["simulation"]["adjacency"]
    always = table[table["frequency"] == 1.0]
    assert len(always) >= 3
    true = [truth.loc[edge.source, edge.target] != 0 for edge in always.itertuples()]
    assert np.mean(true) > 0.7
    assert (always["q_value"] < 0.2).all()
    called = {(edge.source, edge.target) for edge in model.get_edges().itertuples()}
    assert called <= {(edge.source, edge.target) for edge in table.itertuples()}
    assert table.attrs["n_edges"] == len(called)
    assert 1 >= table.attrs["jaccard"] > 2 * table.attrs["chance_jaccard"]
    assert table.attrs["null_edges"] == 0


def test_frequencies_by_hand(screen, model, table):
    labels, rng, counted = screen.obs["perturbation"].astype(str), np.random.default_rng(0), 0
    # cells and conditions are drawn in the order of their names
    conditions = ["control", *sorted(labels[labels != "control"].unique())]
    codes = labels.map(conditions.index).to_numpy()
    order = np.argsort(screen.obs_names.to_numpy().astype(str))
    genes = np.array(conditions[1:])
    targets = [screen.var_names.get_loc(gene) for gene in genes]
    library = screen.obs["total_counts"].to_numpy()
    for _ in range(8):
        cells = [order[codes[order] == code] for code in range(len(conditions))]
        rows = np.concatenate([rng.choice(found, len(found)) for found in cells])
        moments = log_ratio_moments(screen.X, codes, len(conditions), library=library, rows=rows)
        graph = rg.inference.infer_graph(
            torch.tensor(moments.log_ratio[1:]),
            torch.tensor(moments.variance[1:]),
            torch.tensor(targets),
            control_variance=torch.tensor(moments.shared_variance),
            control_loadings=torch.tensor(moments.control_loadings[1:]),
        )
        counted = counted + (graph.probability >= 0.5).numpy()
    expected = {(genes[i], genes[j]): counted[i, j] / 8 for i, j in zip(*np.nonzero(counted), strict=True)}
    found = {(row.source, row.target): row.frequency for row in table.itertuples() if row.frequency}
    assert found == expected


def test_resampled_and_permuted_cells():
    codes, batch = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 0, 0, 1, 1])
    rows = _resampled(codes, np.random.default_rng(0))
    np.testing.assert_array_equal(codes[rows], codes)  # as many of each condition
    assert len(set(_resampled(np.zeros(100, dtype=int), np.random.default_rng(0)))) < 80  # with replacement
    permuted = _permuted(codes, batch, np.random.default_rng(1))
    assert sorted(permuted[batch == 0]) == [0, 0, 1]
    assert sorted(permuted[batch == 1]) == [0, 1, 2]


def test_frequencies_travel_with_the_model(model, table, tmp_path):
    edges = model.get_edges()
    assert {"frequency", "q_value"} <= set(edges)
    kept = model.get_dag(min_frequency=0.9)
    expected = edges[edges["frequency"] >= 0.9]
    assert np.count_nonzero(kept) == len(expected) < np.count_nonzero(model.get_dag(min_probability=0.0))
    model.save(tmp_path / "m")
    again = rg.RaptorGraph.load(tmp_path / "m", model.adata)
    assert again.get_edges().equals(edges)
    assert again.get_dag(min_frequency=0.9).equals(kept)


def test_same_seed_same_table(model, table):
    assert rg.tl.dag_stability(model, n=8, n_null=3, progress=False).equals(table)


def test_shuffled_labels_leave_an_empty_graph(screen):
    shuffled = screen.copy()
    rng = np.random.default_rng(0)
    shuffled.obs["perturbation"] = rng.permutation(shuffled.obs["perturbation"].to_numpy())
    model = fitted(shuffled)
    assert not model.get_dag().to_numpy().any()
    found = rg.tl.dag_stability(model, n=3, n_null=3, progress=False)
    assert len(found) == 0 or found["q_value"].min() > 0.1
    assert np.isnan(found.attrs["jaccard"])


def test_q_values_by_hand():
    observed = np.array([3.0, 1.0, 2.0, 0.1])
    null = np.array([1.5, 0.2, 0.05, 0.3])
    # of 2 null sets: none at 3, none at 2, one at 1, three at 0.1; plus one each
    expected = [0.5 / 2, 1.0 / 3, 0.5 / 2, 2.0 / 4]
    np.testing.assert_allclose(q_values(observed, null, 2), expected)
    assert (q_values(np.zeros(3), np.zeros(3), 1) == 1).all()


def test_bad_questions_are_named(model, screen):
    for arguments in ({"n": 1}, {"n_null": 0}):
        with pytest.raises(ValueError, match="is too small: use"):
            rg.tl.dag_stability(model, **arguments)
    with pytest.raises(ValueError, match="interventional"):
        rg.tl.dag_stability(fitted(screen.copy(), graph="fixed"))


def test_null_screens_are_pooled_one_after_the_other():
    rng = np.random.default_rng(0)
    observed, null = np.round(rng.random(200), 2), np.round(0.8 * rng.random((5, 150)), 2)
    counted = _Null(observed)
    for values in null:
        counted.add(values)
    np.testing.assert_array_equal(counted.q_values(), q_values(observed, null.ravel(), 5))
