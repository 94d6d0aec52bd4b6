import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scvi
import torch

from raptorgraph import benchmark
from raptorgraph.benchmark import _graph_ablation as ablation
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._settings import Settings
from raptorgraph.model import RaptorGraphModel

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def screen():
    return benchmark.load_screen(Settings(screen="simulated", quick=True), 1)


def test_run(tmp_path):
    tables = benchmark.run(
        "graph-ablation", screen="simulated", out=tmp_path, seeds=1, quick=True, n_jobs=0, progress=False, n_repeats=1
    )
    assert (tmp_path / "graph-ablation.png").stat().st_size > 10_000
    assert (tmp_path / "graph-ablation.md").exists()
    assert (tmp_path / "graph-ablation_long.csv").exists()
    table = tables["graph-ablation"].set_index(["preset", "graph"])
    graphs = [*ablation.LEARNED, *ablation.GIVEN]
    assert table.loc["default"].index.tolist() == graphs
    assert table.loc["paper"].index.tolist() == [name for name in graphs if name != "DAGMA"]  # it is "learned" there
    assert table.loc["reference"].index.tolist() == [
        variants.ADDITIVE,
        variants.HALF,
        variants.CHANCE,
        variants.FLOOR,
        variants.CEILING,
    ]
    mean = tables["graph-ablation_long"].set_index(["metric", "preset", "graph"])["value_mean"]
    assert (mean["relative MSE"] >= 0).all()
    assert mean["Pearson"].between(-1, 1).all()
    assert mean[[metric for metric, _, _ in mean.index if metric.startswith("precision")]].between(0, 1).all()
    assert mean["MK-MMD"].max() < 20
    assert mean["MK-MMD", "reference", variants.FLOOR] < mean["MK-MMD", "reference", variants.CEILING]
    assert mean["edges", "default", "empty"] == 0
    assert mean["edges", "default", "DAGMA (all edges)"] == 36
    assert mean["edges", "default", "random"] > 0


def test_given_graph_stays_as_it_is(screen):
    genes = sorted(screen.genes_of[label][0] for label in screen.singles)
    given = pd.DataFrame(0.0, index=genes, columns=genes)
    given.loc["P02", "P01"], given.loc["P01", "P04"] = 0.7, -0.4
    method = variants.GivenGraph("default", given, max_epochs=2, **screen.setup)
    method.fit(screen.cells(screen.singles))
    dag = method.model.get_dag()
    assert dag.loc["P02", "P01"] == pytest.approx(0.7)
    assert dag.loc["P01", "P04"] == pytest.approx(-0.4)
    assert np.count_nonzero(dag) == 2
    assert not torch.allclose(method.model.module.modulator.strength, torch.tensor(2.5))  # the rest is trained


def test_given_graph_carries_a_shift_to_descendants_alone(screen):
    given = pd.DataFrame([[0.0, 0.5], [0.0, 0.0]], index=["P01", "P02"], columns=["P01", "P02"])
    method = variants.GivenGraph("default", given, max_epochs=1, **screen.setup)
    method.fit(screen.cells(screen.singles))
    names, graph = method.model.latent_names, method.model.module.graph
    z = torch.zeros(1, len(names))
    z[0, names.index("P01")] = 2.0
    u = pd.Series(graph(z)[0].detach().numpy(), index=names)
    assert u["P01"] == pytest.approx(2)
    assert u["P02"] == pytest.approx(1)
    assert np.count_nonzero(u) == 2


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_graph_keeps_weights_and_order(seed):
    rng = np.random.default_rng(seed)
    names = list("abcdefgh")
    learned = np.triu(rng.normal(size=(8, 8)) * (rng.random((8, 8)) < 0.4), k=1)
    learned = pd.DataFrame(learned, index=names, columns=names)
    shuffled, kept = ablation.shuffled_graph(learned, seed)
    assert kept
    np.testing.assert_allclose(np.sort(shuffled.to_numpy(), axis=None), np.sort(learned.to_numpy(), axis=None))
    assert nx.is_directed_acyclic_graph(nx.from_pandas_adjacency(shuffled, create_using=nx.DiGraph))
    assert not shuffled.equals(learned)
    pd.testing.assert_frame_equal(shuffled, ablation.shuffled_graph(learned, seed)[0])


@pytest.mark.parametrize(("d", "n_edges"), [(2, 1), (3, 3), (9, 9)])
def test_an_empty_graph_is_replaced(d, n_edges):
    names = [f"l{k}" for k in range(d)]
    shuffled, kept = ablation.shuffled_graph(pd.DataFrame(0.0, index=names, columns=names), 0)
    assert not kept
    sizes = np.abs(shuffled.to_numpy())
    assert np.count_nonzero(sizes) == n_edges
    np.testing.assert_allclose(sizes[sizes > 0], 0.3)
    assert nx.is_directed_acyclic_graph(nx.from_pandas_adjacency(shuffled, create_using=nx.DiGraph))


def test_true_graph_in_units_of_the_exogenous_variables(screen):
    truth = screen.adata.uns["simulation"]["adjacency"]
    scaled = ablation.true_graph(truth, truth.index)
    # u of unit variance, divided by the spread of its own exogenous variable
    total = np.linalg.inv(np.eye(len(truth)) - scaled.to_numpy())
    rng = np.random.default_rng(0)
    u = rng.normal(size=(200_000, len(truth))) @ total
    u /= u.std(axis=0)
    child = (truth != 0).sum().idxmax()
    parents = (truth[child] != 0).to_numpy()
    assert parents.any()
    back = np.linalg.lstsq(u[:, parents], u[:, truth.columns.get_loc(child)], rcond=None)[0]
    np.testing.assert_allclose(back, truth.loc[parents, child], atol=0.02)
    assert ((scaled != 0) == (truth != 0)).all(axis=None)


@pytest.mark.parametrize("perturbed_prior", [False, True])
@pytest.mark.parametrize("graph_gradient", [False, True])
def test_loss_of_the_graph_reaches_the_encoder_on_request_alone(screen, graph_gradient, perturbed_prior):
    scvi.settings.seed = 0
    adata = screen.cells(screen.singles)
    RaptorGraphModel.setup_anndata(adata, **screen.setup)
    module = RaptorGraphModel(adata, graph_init="uniform", perturbed_prior=perturbed_prior).module
    x = torch.rand(16, adata.n_vars)
    mean, log_var = module.encode(x)
    inference = {"mean": mean.detach(), "log_var": log_var.detach(), "z": mean, "expression": x}
    tensors = {
        "X": x,
        "library_size": torch.ones(16, 1),
        "condition": torch.zeros(16, dtype=torch.long),
        "mask": torch.zeros(16, len(module.modulator.strength)),
        "shift": torch.zeros(1, adata.n_vars),
    }
    weights = {"dag_weight": 1.0, "shift_weight": 0.0, "graph_gradient": graph_gradient}
    decoded = {"location": torch.ones(32, adata.n_vars), "decoded": torch.ones(16, adata.n_vars)}
    module.loss(tensors, inference, decoded, **weights).loss.backward()
    touched = any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.encoder.parameters())
    assert touched is graph_gradient
    assert module.graph.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graphs": ["dense"]}, "'dense' is unknown"),
        ({"graphs": ["random"]}, "made from 'learned'"),
        ({"presets": ["large"]}, "'large' is unknown"),
        ({"epochs": 3}, "'epochs' is not an option"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark.run(
            "graph-ablation", screen="simulated", out=tmp_path, quick=True, n_jobs=0, progress=False, **options
        )
    assert not list(tmp_path.rglob("*.csv"))
