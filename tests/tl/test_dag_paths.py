"""Total effects, paths and single edges, against closed forms, networkx and decoding by hand."""

import itertools
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg
from raptorgraph.model import EdgeTable
from raptorgraph.tl import _dag_paths

pytestmark = pytest.mark.usefixtures("few_steps")

EDGES = {("P01", "P02"): 0.8, ("P02", "P03"): -0.6, ("P01", "P03"): 0.5, ("P04", "P03"): 0.7, ("P03", "P05"): 0.4}


def adjacency(edges, names=None):
    names = names or sorted({name for edge in edges for name in edge})
    table = pd.DataFrame(0.0, index=list(names), columns=list(names))
    for (cause, effect), weight in edges.items():
        table.loc[cause, effect] = weight
    return table


def random_dag(d, seed, density=0.4, largest=2.0):
    """Weights on either side of 1, the causal order hidden by a permutation."""
    rng = np.random.default_rng(seed)
    weights = np.triu(rng.uniform(0.1, largest, (d, d)) * rng.choice([-1, 1], (d, d)), 1)
    weights[rng.random((d, d)) > density] = 0.0
    place = rng.permutation(d)
    names = [f"g{i}" for i in range(d)]
    return pd.DataFrame(weights[np.ix_(place, place)], index=names, columns=names)


def by_enumeration(table, source, target):
    """Every path with the product of its weights, the strongest first."""
    network = nx.from_pandas_adjacency(table, create_using=nx.DiGraph)
    products = {
        " -> ".join(path): np.prod([table.loc[edge] for edge in itertools.pairwise(path)])
        for path in nx.all_simple_paths(network, source, target)
    }
    return dict(sorted(products.items(), key=lambda item: -abs(item[1])))


# -- total effects -----------------------------------------------------------------------------------------------
def test_chain_multiplies():
    totals = rg.tl.total_effects(adjacency({("a", "b"): 2.0, ("b", "c"): -0.5, ("c", "d"): 3.0}))
    expected = [[0, 2, -1, -3], [0, 0, -0.5, -1.5], [0, 0, 0, 3], [0, 0, 0, 0]]
    np.testing.assert_array_equal(totals, expected)
    assert list(totals.index) == list(totals.columns) == list("abcd")


def test_totals_are_the_sum_of_powers_and_0_without_a_path():
    table = random_dag(12, 0)
    a = table.to_numpy()
    powers = sum(np.linalg.matrix_power(a, k) for k in range(1, 12))
    totals = rg.tl.total_effects(table)
    np.testing.assert_allclose(totals, powers, rtol=1e-12, atol=1e-12)
    network = nx.from_pandas_adjacency(table, create_using=nx.DiGraph)
    for cause in table.index:
        unreached = list(set(table.index) - nx.descendants(network, cause))
        assert (totals.loc[cause, unreached] == 0).all()
        assert not np.signbit(totals.loc[cause, unreached]).any()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (adjacency({("a", "b"): 1.0, ("b", "c"): 1.0, ("c", "a"): 1.0}), "cycle, a -> b -> c"),
        (adjacency({("a", "a"): 1.0}, "ab"), "cycle, a,"),
        (adjacency({("a", "b"): np.nan}), "missing or infinite"),
        (adjacency({("a", "b"): 1.0}).loc[["b", "a"]], "same unique names"),
        (adjacency({("a", "b"): 1.0}).iloc[:1], r"shape \(1, 2\)"),
    ],
)
def test_tables_that_are_no_acyclic_adjacency(table, message):
    with pytest.raises(ValueError, match=message):
        rg.tl.total_effects(table)
    with pytest.raises(ValueError, match=message):
        rg.tl.paths(table, "a", "b")


# -- paths -------------------------------------------------------------------------------------------------------
def test_shares_of_a_diamond_add_up_to_1():
    table = adjacency({("a", "b"): 0.5, ("a", "c"): 2.0, ("b", "d"): 0.4, ("c", "d"): 0.3, ("a", "d"): -0.1})
    found = rg.tl.paths(table, "a", "d")
    assert list(found.columns) == ["path", "length", "effect", "share"]
    assert list(found["path"]) == ["a -> c -> d", "a -> b -> d", "a -> d"]
    assert list(found["length"]) == [2, 2, 1]
    np.testing.assert_allclose(found["effect"], [0.6, 0.2, -0.1])
    np.testing.assert_allclose(found["share"], [6 / 7, 2 / 7, -1 / 7])
    assert found.attrs["total_effect"] == pytest.approx(0.7)
    assert (found.attrs["n_paths"], found.attrs["n_left_out"]) == (3, 0)


def test_paths_that_cancel_have_no_share():
    # 0.1 * 0.3 + 0.2 * -0.15 is not 0 in floating point
    table = adjacency({("a", "b"): 0.1, ("b", "d"): 0.3, ("a", "c"): 0.2, ("c", "d"): -0.15})
    found = rg.tl.paths(table, "a", "d")
    np.testing.assert_allclose(found["effect"].sort_values(), [-0.03, 0.03])
    assert found["share"].isna().all()
    assert found.attrs["total_effect"] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_paths_are_those_of_networkx_strongest_first(seed):
    table = random_dag(12, seed, density=0.7)
    counts = rg.tl.total_effects((table != 0).astype(float))  # of paths between any two
    source, target = counts.stack().idxmax()
    expected = by_enumeration(table, source, target)
    assert len(expected) == counts.loc[source, target] > 20
    found = rg.tl.paths(table, source, target, max_paths=10_000)
    assert list(found["path"]) == list(expected)
    np.testing.assert_allclose(found["effect"], list(expected.values()), rtol=1e-12)
    assert list(found["length"]) == [path.count("->") for path in expected]
    total = rg.tl.total_effects(table).loc[source, target]
    assert found["effect"].sum() == pytest.approx(total, rel=1e-9)
    assert found["share"].sum() == pytest.approx(1, rel=1e-9)

    some = rg.tl.paths(table, source, target, max_paths=7)
    pd.testing.assert_frame_equal(some, found.head(7), check_exact=True)
    assert some.attrs["n_paths"] == len(expected)
    assert some.attrs["n_left_out"] == len(expected) - 7


@pytest.mark.parametrize("alike", [True, False])
def test_a_graph_with_more_paths_than_can_be_listed(alike):
    # 40 layers of 5 latents, each caused by all of the layer before: 5^38 paths
    rng = np.random.default_rng(0)
    weights = np.zeros((200, 200))
    for k in range(39):
        weights[5 * k : 5 * k + 5, 5 * k + 5 : 5 * k + 10] = 0.3 if alike else rng.uniform(0.2, 0.4, (5, 5))
    names = [f"g{i}" for i in range(200)]
    found = rg.tl.paths(pd.DataFrame(weights, names, names), "g0", "g199", max_paths=5)
    assert len(found) == found["path"].nunique() == 5
    assert (found["length"] == 39).all()
    assert found.attrs["n_paths"] == 5**38
    assert found.attrs["n_left_out"] == 5**38 - 5
    best = np.eye(200)[0]  # strongest product to each latent, layer by layer
    for _ in range(39):
        best = (best[:, None] * weights).max(axis=0)
    assert found["effect"].iloc[0] == pytest.approx(best[199], rel=1e-9)


def test_no_path_is_an_empty_table():
    table = adjacency({("a", "b"): 1.0, ("c", "b"): 1.0})
    for source, target in (("a", "c"), ("b", "a")):
        found = rg.tl.paths(table, source, target)
        assert len(found) == 0
        assert list(found.columns) == ["path", "length", "effect", "share"]
        assert found.attrs == {"n_paths": 0, "n_left_out": 0, "total_effect": 0.0}
        full = rg.tl.paths(table, "a", "b")
        assert list(found.dtypes) == list(full.dtypes)


def test_errors_of_paths():
    table = adjacency({("a", "b"): 1.0})
    with pytest.raises(ValueError, match="both 'a'"):
        rg.tl.paths(table, "a", "a")
    with pytest.raises(ValueError, match="max_paths=0"):
        rg.tl.paths(table, "a", "b", max_paths=0)
    with pytest.raises(KeyError, match="'x' is not a latent of the graph; these are: a, b"):
        rg.tl.paths(table, "x", "b")
    with pytest.raises(KeyError, match="'y' is not a latent"):
        rg.tl.paths(table, "a", "y")


# -- edges -------------------------------------------------------------------------------------------------------
def train(**kwargs):
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        n_genes=40,
        n_perturbed=6,
        n_control_cells=80,
        n_cells_per_perturbation=30,
        n_doubles=3,
        n_truth_cells=20,
        seed=1,
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, n_hidden=16, **kwargs)
    model.train(max_epochs=5, enable_progress_bar=False, accelerator="cpu")
    weights = torch.tensor(adjacency(EDGES, model.latent_names).to_numpy())
    with torch.no_grad():
        model.module.graph.weight.copy_(weights)
        model.module.graph.support.copy_(weights != 0)
    return model


@pytest.fixture(scope="module")
def trained():
    return train()


def decoded_without(model, source, target, labels, adata=None):
    """Effects of the decoder once the edge is set to zero by hand."""
    place = model.latent_names.index(source), model.latent_names.index(target)
    weight = model.module.graph.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[place] = 0.0
        found = model.predict_effects(labels, adata, kind="decoder")
        weight.copy_(kept)
    return found


def test_totals_and_paths_of_a_model(trained):
    totals = rg.tl.total_effects(trained)
    pd.testing.assert_frame_equal(totals, rg.tl.total_effects(trained.get_dag()))
    assert list(totals.index) == trained.latent_names
    assert totals.loc["P01", "P05"] == pytest.approx(0.4 * (0.5 - 0.8 * 0.6), rel=1e-5)
    found = rg.tl.paths(trained, "P01", "P05")
    assert list(found["path"]) == ["P01 -> P03 -> P05", "P01 -> P02 -> P03 -> P05"]
    np.testing.assert_allclose(found["share"], [25, -24], rtol=1e-4)


def test_contribution_is_the_difference_of_decoded_effects(trained):
    carried, others = ["P01", "P02", "P02+P06"], ["P03", "P04", "P05", "P06", "P04+P05", "control"]
    labels = [*carried, *others]
    found = rg.tl.knock_out_edge(trained, "P02", "P03", labels)
    whole = trained.predict_effects(labels, kind="decoder")
    without = decoded_without(trained, "P02", "P03", labels)
    pd.testing.assert_frame_equal(found.loc[carried], (whole - without).loc[carried], check_exact=True)
    assert (found.loc[carried].abs().max(axis=1) > 1e-2).all()
    assert (found.loc[others] == 0).all(axis=None)
    assert list(found.index) == labels
    assert list(found.columns) == list(trained.adata.var_names)


def test_contribution_in_a_linear_model():
    model = train(likelihood="normal", n_layers=0)
    labels = ["P01", "P02", "P04", "P01+P02", "P01+P06"]
    found = rg.tl.knock_out_edge(model, "P02", "P03", labels)
    position = {name: i for i, name in enumerate(model.latent_names)}
    z, masks = model.latents.draw_controls(256).z, model.predictor.masks(labels)[1]
    program = model.module.decoder.linear.weight.detach().double().numpy().T  # d x genes
    spread = rg.tl.total_effects(model).to_numpy() + np.eye(len(position))
    for label, mask in zip(labels, masks, strict=True):
        with torch.no_grad():
            shift = (model.module.modulator(z, mask[None]) - z).double().mean(0).numpy()
        at_source = shift @ spread[:, position["P02"]]
        expected = at_source * EDGES["P02", "P03"] * spread[position["P03"]] @ program
        np.testing.assert_allclose(found.loc[label], expected, rtol=1e-4, atol=2e-6)
    assert found.loc["P02"].abs().max() > 1e-2
    assert (found.loc["P04"] == 0).all()


def test_all_conditions_by_default(trained):
    found = rg.tl.knock_out_edge(trained, "P04", "P03")
    assert list(found.index) == trained.conditions
    hit = np.array(["P04" in label for label in trained.conditions])
    assert 0 < hit.sum() < len(hit)
    assert (found[hit] != 0).any(axis=1).all()
    assert (found[~hit] == 0).all(axis=None)
    pd.testing.assert_frame_equal(rg.tl.knock_out_edge(trained, "P04", "P03", "P04"), found.loc[["P04"]])


def test_effects_without_the_edge_are_the_models_own_elsewhere(trained):
    labels = ["P01", "P05", "P06+P04"]
    own = trained.predict_effects(labels)
    assert not own.equals(trained.predict_effects(labels, kind="decoder"))
    without = rg.tl.knock_out_edge(trained, "P01", "P03", labels, return_effects=True)
    contribution = rg.tl.knock_out_edge(trained, "P01", "P03", labels)
    pd.testing.assert_frame_equal(without, own - contribution, check_exact=True)
    assert not without.loc["P01"].equals(own.loc["P01"])
    pd.testing.assert_frame_equal(without.iloc[1:], own.iloc[1:], check_exact=True)


def test_other_cells(trained):
    cells = trained.adata[::2].copy()
    found = rg.tl.knock_out_edge(trained, "P02", "P03", ["P02"], cells)
    expected = trained.predict_effects(["P02"], cells, kind="decoder") - decoded_without(
        trained, "P02", "P03", ["P02"], cells
    )
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert not found.equals(rg.tl.knock_out_edge(trained, "P02", "P03", ["P02"]))


def test_layer_norm_lets_every_perturbation_reach_the_edge():
    model = train(latent_norm="layer")
    labels = ["P02", "P06"]
    found = rg.tl.knock_out_edge(model, "P02", "P03", labels)
    whole = model.predict_effects(labels, kind="decoder")
    pd.testing.assert_frame_equal(found, whole - decoded_without(model, "P02", "P03", labels), check_exact=True)
    assert (found.loc["P06"] != 0).any()


def test_the_model_stays_as_it_is(trained, monkeypatch):
    def state():
        return {name: value.clone() for name, value in trained.module.state_dict().items() if torch.is_tensor(value)}

    before = state()
    trainable = trained.module.graph.weight.requires_grad
    rg.tl.knock_out_edge(trained, "P02", "P03", ["P02"], return_effects=True)
    removed = []

    def fail_without_edge(*args, **kwargs):
        weight = trained.module.graph.weight[1, 2].item()
        removed.append(weight == 0)
        if weight == 0:
            raise RuntimeError("interrupted")
        return predict(*args, **kwargs)

    predict = trained.predict_effects
    monkeypatch.setattr(trained, "predict_effects", fail_without_edge)
    with pytest.raises(RuntimeError, match="interrupted"):
        rg.tl.knock_out_edge(trained, "P02", "P03", ["P02"])
    assert removed == [False, True]
    after = state()
    assert before.keys() == after.keys()
    assert "graph.weight" in before
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, equal_nan=True)
    assert trained.module.graph.weight.requires_grad == trainable


def test_errors_of_edges(trained):
    with pytest.raises(ValueError, match=r"no edge P01 -> P05. Edges from P01 lead to: P02, P03\.$"):
        rg.tl.knock_out_edge(trained, "P01", "P05")
    with pytest.raises(ValueError, match=r"no edge P03 -> P02"):  # the other way round
        rg.tl.knock_out_edge(trained, "P03", "P02")
    with pytest.raises(ValueError, match="No edge leaves P06"):
        rg.tl.knock_out_edge(trained, "P06", "P01")
    with pytest.raises(KeyError, match="'P99' is not a latent of the graph; these are: P01, P02"):
        rg.tl.knock_out_edge(trained, "P99", "P01")
    with pytest.raises(ValueError, match="P98 was not perturbed"):
        rg.tl.knock_out_edge(trained, "P01", "P02", ["P98"])


# -- edges without a direction -----------------------------------------------------------------------------------
class Known:
    """A model of which the graph and the support of its directions are known."""

    def __init__(self, edges, support):
        self.table = adjacency(edges)
        self.perturbed_genes = list(self.table.index)
        values = np.full(self.table.shape, np.nan)
        for (cause, effect), value in support.items():
            values[self.perturbed_genes.index(cause), self.perturbed_genes.index(effect)] = value
        unordered = (self.table.to_numpy() != 0) & ~(values >= 0.8)
        self.edges = SimpleNamespace(values=lambda name: values, unordered=unordered)

    def get_dag(self):
        return self.table


def test_nothing_is_said_to_run_through_genes_that_cannot_be_ordered():
    edges = {("a", "b"): 0.9, ("b", "c"): 0.5, ("a", "c"): 0.2}
    found = rg.tl.paths(Known(edges, {("a", "b"): 0.5, ("b", "c"): 0.99, ("a", "c"): 0.95}), "a", "c")
    plain = rg.tl.paths(adjacency(edges), "a", "c")
    assert found["path"].tolist() == plain["path"].tolist() == ["a -> b -> c", "a -> c"]
    assert found["ordered"].tolist() == [False, True]
    assert np.isnan(found["share"][0])
    assert found["share"][1] == plain["share"][1]
    assert found["effect"].tolist() == plain["effect"].tolist()
    assert "ordered" not in plain
    assert "ordered" not in rg.tl.paths(Known(edges, {}), "a", "c")  # a model that does not know


def test_the_contribution_of_an_edge_without_a_direction_comes_with_a_warning(trained, monkeypatch, caplog):
    place = {name: i for i, name in enumerate(trained.perturbed_genes)}
    support, edges = np.full((len(place),) * 2, 0.99), np.zeros((len(place),) * 2, dtype=bool)
    edges[place["P02"], place["P03"]] = True
    monkeypatch.setattr(EdgeTable, "unordered", property(lambda self: edges))
    monkeypatch.setattr(EdgeTable, "values", lambda self, name: support)
    with caplog.at_level("WARNING", "raptorgraph"):
        rg.tl.knock_out_edge(trained, "P01", "P02", "P01")
        assert not caplog.messages
        rg.tl.knock_out_edge(trained, "P02", "P03", "P02")
    assert len(caplog.messages) == 1
    assert "whether P02 acts on P03 or the other way round" in caplog.messages[0]


def test_one_total_is_that_of_all():
    rng = np.random.default_rng(0)
    weights = np.triu(rng.normal(size=(9, 9)) * (rng.random((9, 9)) < 0.5), 1)
    at = rng.permutation(9)
    weights, order = weights[np.ix_(at, at)], np.argsort(at).tolist()
    totals = _dag_paths._totals(weights, order)
    found = [[_dag_paths._total(weights, order, i, j) for j in range(9)] for i in range(9)]
    np.testing.assert_allclose(found, totals, atol=1e-12)
