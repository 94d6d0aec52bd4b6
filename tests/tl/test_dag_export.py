"""The graph as a networkx graph and as files, read back by networkx and pandas."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import raptorgraph as rg

pytestmark = pytest.mark.usefixtures("few_steps")


class FakeModel:
    """Five latents, two of them without a gene, one without an edge."""

    def __init__(self):
        self.perturbed_genes = ["KLF1", "BAK1", 'a<b & "c", d']
        self.latent_names = [*self.perturbed_genes, "latent_3", "latent_4"]
        self.weights = np.zeros((5, 5))
        self.weights[0, 1], self.weights[1, 2], self.weights[0, 3] = 1 / 3, -0.7, 1e-9

    def get_dag(self):
        return pd.DataFrame(self.weights, index=self.latent_names, columns=self.latent_names)

    def get_edges(self):
        names = self.latent_names
        edges = [(names[i], names[j], self.weights[i, j]) for i, j in [(1, 2), (0, 1), (0, 3)] if self.weights[i, j]]
        return pd.DataFrame(edges, columns=["source", "target", "weight"])


@pytest.fixture
def with_more_columns(monkeypatch):
    """An edge table that knows more, and not everything of every edge."""
    plain = FakeModel.get_edges

    def more(model):
        return plain(model).assign(probability=[0.9, 0.75, np.nan], n_found=[3, 2, 1], stable=[True, False, True])

    monkeypatch.setattr(FakeModel, "get_edges", more)


def same(a, b):
    assert list(a.nodes(data=True)) == list(b.nodes(data=True))
    assert list(a.edges(data=True)) == list(b.edges(data=True))


def test_nodes_and_edges():
    model = FakeModel()
    network = rg.tl.to_networkx(model)
    assert type(network) is nx.DiGraph
    assert dict(network.nodes(data="perturbed")) == dict(
        zip(model.latent_names, [True, True, True, False, False], strict=True)
    )
    assert list(network) == model.latent_names
    assert list(network.edges(data=True)) == [
        ("KLF1", "BAK1", {"weight": 1 / 3, "sign": "+"}),
        ("KLF1", "latent_3", {"weight": 1e-9, "sign": "+"}),
        ("BAK1", model.latent_names[2], {"weight": -0.7, "sign": "-"}),
    ]
    pd.testing.assert_frame_equal(nx.to_pandas_adjacency(network), model.get_dag())
    for attributes in (*dict(network.nodes).values(), *(edge for *_, edge in network.edges(data=True))):
        assert {type(value) for value in attributes.values()} <= {bool, float, str}


def test_more_columns_become_attributes(with_more_columns):
    network = rg.tl.to_networkx(FakeModel())
    strongest = network.edges["BAK1", FakeModel().latent_names[2]]
    assert strongest == {"weight": -0.7, "sign": "-", "probability": 0.9, "n_found": 3, "stable": True}
    assert network.edges["KLF1", "latent_3"] == {"weight": 1e-9, "sign": "+", "n_found": 1, "stable": True}


@pytest.mark.parametrize("more", [False, True])
def test_graphml_round_trip(tmp_path, request, more):
    if more:
        request.getfixturevalue("with_more_columns")
    path = tmp_path / "dag.GraphML"
    assert rg.tl.write_dag(FakeModel(), path) is None
    written, expected = nx.read_graphml(path), rg.tl.to_networkx(FakeModel())
    assert len(expected.edges["KLF1", "BAK1"]) == (5 if more else 2)
    same(written, expected)


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_edge_list_round_trip(tmp_path, suffix, separator):
    model, path = FakeModel(), tmp_path / f"dag.{suffix}"
    assert rg.tl.write_dag(model, str(path)) is None
    table = pd.read_csv(path, sep=separator, dtype={"weight": str})
    assert list(table.columns) == ["source", "interaction", "target", "weight"]
    table["weight"] = [float(weight) for weight in table["weight"]]  # exactly, as pandas < 3 does not read it
    assert list(table["weight"]) == [-0.7, 1 / 3, 1e-9]
    assert list(table["interaction"]) == ["represses", "activates", "activates"]
    network = nx.from_pandas_edgelist(table, edge_attr="weight", create_using=nx.DiGraph)
    network.add_nodes_from(model.latent_names)
    pd.testing.assert_frame_equal(nx.to_pandas_adjacency(network, nodelist=model.latent_names), model.get_dag())


def test_more_columns_in_the_edge_list(tmp_path, with_more_columns):
    rg.tl.write_dag(FakeModel(), tmp_path / "dag.csv")
    table = pd.read_csv(tmp_path / "dag.csv")
    assert list(table.columns) == ["source", "interaction", "target", "weight", "probability", "n_found", "stable"]
    assert list(table["n_found"]) == [3, 2, 1]
    assert table["probability"].isna().tolist() == [False, False, True]


def test_no_edges(tmp_path):
    model = FakeModel()
    model.weights[:] = 0.0
    for name in ("dag.csv", "dag.graphml"):
        rg.tl.write_dag(model, tmp_path / name)
    assert (tmp_path / "dag.csv").read_text().strip() == "source,interaction,target,weight"
    same(nx.read_graphml(tmp_path / "dag.graphml"), rg.tl.to_networkx(model))
    assert len(rg.tl.to_networkx(model)) == 5


@pytest.mark.parametrize("name", ["dag.sif", "dag", "dag.csv.gz"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(ValueError, match=r"the suffix '(\.sif||\.gz)' is unknown; use one of \.graphml, \.csv, \.tsv"):
        rg.tl.write_dag(FakeModel(), tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dag.graphml", "dag.csv"])
def test_missing_directory(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="there is no directory '.*nowhere'; create it first"):
        rg.tl.write_dag(FakeModel(), tmp_path / "nowhere" / name)
    assert not any(tmp_path.iterdir())


def test_a_trained_model(tmp_path):
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        n_genes=30, n_perturbed=4, n_control_cells=60, n_cells_per_perturbation=20, n_doubles=2, n_truth_cells=20
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, n_hidden=8)
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    weights = torch.zeros_like(model.module.graph.weight)
    weights[0, 1], weights[1, 5] = 0.5, -0.25
    with torch.no_grad():
        model.module.graph.weight.copy_(weights)
        model.module.graph.support.copy_(weights != 0)
    network = rg.tl.to_networkx(model)
    assert list(network) == model.latent_names
    assert [name for name, perturbed in network.nodes(data="perturbed") if perturbed] == model.perturbed_genes
    assert dict(network.edges).keys() == {("P01", "P02"), ("P02", "latent_5")}
    assert network.edges["P02", "latent_5"]["weight"] == -0.25
    assert network.edges["P02", "latent_5"]["sign"] == "-"
    rg.tl.write_dag(model, tmp_path / "dag.graphml")
    same(nx.read_graphml(tmp_path / "dag.graphml"), network)
