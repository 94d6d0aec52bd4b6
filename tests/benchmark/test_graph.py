import sys
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from raptorgraph import benchmark, datasets
from raptorgraph.baselines import _graphs_interventional
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _graph as graph
from raptorgraph.benchmark._graph_broken import BROKEN

QUICK = {"quick": True, "n_jobs": 0, "progress": False}
FAST = [method for method in graph.METHODS if method not in graph.SLOW]
METRICS = [
    "AUPRC",
    "AUPRC, undirected",
    "AUPRC, ancestors",
    "orientation (chance 0.5)",
    "structural Hamming distance",
    "called edges",
    "true edges",
    "seconds",
    "exact",
]


def units(**options):
    return graph.units(Settings(quick=True, seeds=(0, 1), options=options))


@pytest.mark.filterwarnings("ignore:library_size_key")  # those of the simulation do not know of its few genes
def test_run_on_simulated_screens(tmp_path):
    tables = benchmark.run("graph", out=tmp_path, seeds=2, missing=[0.0, 0.5], broken=False, **QUICK)
    assert (tmp_path / "graph.png").stat().st_size > 10_000
    assert {"graph.csv", "graph.md", "graph_long.csv", "graph_long.md"} <= {p.name for p in tmp_path.iterdir()}
    table, long = tables["graph"], tables["graph_long"]
    assert table.columns.tolist() == ["setting", "method", *METRICS]
    grid = [f"erdos-renyi, degree 1, 6 genes, linear, 30 cells, {missing} missing" for missing in ("0%", "50%")]
    toy = "toy chain"
    shown = [graph.OURS, graph.BY_SHARE, *FAST[1:]]
    assert list(zip(table["setting"], table["method"], strict=True)) == [
        *((setting, method) for setting in grid for method in shown),
        *((toy, method) for method in shown[:2]),
    ]
    assert set(long["metric"]) == {*METRICS, "AUPRC, chance"}
    side = tables["graph_auprc"]
    assert side.columns.tolist() == ["setting", *shown]
    assert side["setting"].tolist() == grid
    assert (
        side["random"].tolist()
        == table.loc[(table["method"] == "random") & (table["setting"] != toy), "AUPRC"].tolist()
    )
    assert (table.loc[table["setting"] != toy, "exact"] == "-").all()
    assert (long[long["metric"] != "orientation (chance 0.5)"]["n"] == 2).all()  # that of no found edge is undefined
    assert set(graph.FACTORS) < set(long.columns)

    mean = long.set_index(["setting", "method", "metric"])["value_mean"].sort_index()
    assert long[long["metric"].str.startswith(("AUPRC", "exact"))]["value_mean"].between(0, 1).all()
    for setting in grid:
        # as many edges as ours, if the weights are enough
        assert mean[setting, "random", "called edges"] == mean[setting, graph.OURS, "called edges"]
        assert mean[setting, graph.OURS, "AUPRC"] > mean[setting, "random", "AUPRC"]
        assert len(set(mean[setting, :, "true edges"])) == 1
    assert mean[grid[0], graph.OURS, "AUPRC"] > 0.6
    assert mean[toy, graph.OURS, "AUPRC"] == mean[toy, graph.OURS, "exact"] == 1
    assert mean[toy, graph.OURS, "structural Hamming distance"] == 0
    assert mean[toy, graph.OURS, "true edges"] == 4


def test_slow_methods_where_they_are_asked_for(tmp_path):
    pytest.importorskip("dagma")
    asked = [name for name in graph.SLOW if name != "sdcd" or find_spec("sdcd")]
    tables = benchmark.run("graph", out=tmp_path, seeds=1, methods=asked, toy=False, broken=False, **QUICK)
    assert tables["graph"]["method"].tolist() == asked
    assert not (tables["graph"]["AUPRC"] == "-").any()


@pytest.mark.filterwarnings("ignore:library_size_key")
def test_sdcd_in_an_environment_of_its_own(monkeypatch, fake_peer, tmp_path):
    """Its graph has the edges of 0.1 or more that close no cycle, and a table names its version."""
    code = """
        import numpy as np
        import pandas as pd

        def run(cells, task):
            found = np.where(np.tri(cells.n_vars, k=-1), 0.2, 0.05) * (1 - np.eye(cells.n_vars))
            found[0, 1] = 0.15
            return {"strengths.csv": pd.DataFrame(found, index=cells.var_names, columns=cells.var_names)}
    """
    tool = fake_peer(code, experiment="graph")
    monkeypatch.setitem(sys.modules, "sdcd", None)
    for module in (graph, _graphs_interventional):
        monkeypatch.setattr(module, "SDCD_TOOL", tool)
    tables = benchmark.run(
        "graph", out=tmp_path, seeds=1, methods=["random", "SDCD"], toy=False, broken=False, missing=[0.0], **QUICK
    )
    assert tables["graph"]["method"].tolist() == ["random", "sdcd"]
    found = tables["graph_long"].set_index(["method", "metric"]).loc["sdcd"]["value_mean"]
    assert found["called edges"] == 6 * 5 / 2
    [told] = tables["graph_peers"].to_dict("records")
    assert {name: told[name] for name in ("method", "package", "python")} == {
        "method": "sdcd",
        "package": "fake-tool 1.2",
        "python": "3.11.0",
    }


@pytest.mark.filterwarnings("ignore:library_size_key")
def test_screens_that_break_an_assumption(tmp_path):
    methods = [graph.OURS, "random"]
    tables = benchmark.run("graph", out=tmp_path, seeds=2, methods=methods, toy=False, **QUICK)
    settings = [f"{name}, 6 genes, 30 cells" for name in BROKEN]
    assert tables["graph_support"]["setting"].tolist() == settings
    assert list(dict.fromkeys(tables["graph"]["setting"]))[1:] == settings
    feedback = tables["graph"].set_index(["setting", "method"]).loc[settings[2]]
    assert set(feedback["AUPRC, ancestors"]) == {"-"}  # everything in a cycle is an ancestor of everything
    found = tables["graph_calibration"]
    assert set(found["of"]) == {"frequency", "direction"}
    assert found["true"].between(0, 1).all()
    low, high = (found["bin"].str.split(" to ").str[i].astype(float) for i in (0, 1))
    assert ((found["mean probability"] >= low) & (found["mean probability"] <= high)).all()
    assert "support" not in set(tables["graph_long"]["method"])
    some = benchmark.run("graph", out=tmp_path / "one", seeds=1, methods="raptorgraph", broken="feedback", **QUICK)
    assert some["graph_support"]["setting"].tolist() == [settings[2]]


def test_run_on_a_screen(tmp_path):
    adata = datasets.simulate(
        60, 6, n_doubles=3, n_control_cells=200, n_cells_per_perturbation=60, targets_without_gene=0.34, seed=1
    )
    del adata.uns["simulation"]
    adata.write_h5ad(tmp_path / "screen.h5ad")
    tables = benchmark.run(
        "graph", screen=tmp_path / "screen.h5ad", out=tmp_path, seeds=2, library_size_key="total_counts", **QUICK
    )
    assert (tmp_path / "graph.png").stat().st_size > 10_000
    table, long = tables["graph"], tables["graph_long"]
    metrics = ["edges", "mean Wasserstein", "false omission rate", "seconds"]
    assert table.columns.tolist() == ["setting", "method", *metrics]
    assert table["setting"].tolist() == ["called edges"] * len(FAST) + ["top 50 edges"] * (len(FAST) + 1)
    mean = long.set_index(["setting", "method", "metric"])["value_mean"].sort_index()
    for method in ("difference of means", "random"):
        assert mean["called edges", method, "edges"] == mean["called edges", graph.OURS, "edges"]
    # 4 measured genes, each with 5 possible causes, of which a random order leaves a half on average
    assert mean["top 50 edges", "difference of means", "edges"] == 20
    assert mean["top 50 edges", "random", "edges"] < 20
    assert long[long["metric"] == "false omission rate"]["value_mean"].dropna().between(0, 1).all()
    assert (long[long["metric"] == "mean Wasserstein"]["value_mean"].dropna() > 0).all()


def test_a_screen_is_learned_from_one_half_and_judged_on_the_other(monkeypatch):
    screen = benchmark.load_screen(Settings(screen="simulated", quick=True), 0)
    genes = [screen.genes_of[label][0] for label in screen.singles]
    k, seen = len(genes), {}

    def learn(adata, setup, settings, seed, judged):
        seen.update(cells=list(adata.obs_names), judged=judged)
        edges = np.zeros((k - 1, k - 1), dtype=bool)
        edges[0, 1] = True
        return {graph.OURS: graph.Learned(edges * 0.1, edges, 0.0)}, genes[1:]  # as if the first had had no cells

    monkeypatch.setattr(graph, "learn", learn)
    rows = graph._judge(screen, Settings(), 3)
    first, second = screen.halves(3)
    alone = np.isin(screen.codes, [0, *(screen.labels.index(label) for label in screen.singles)])
    assert seen["cells"] == list(screen.adata.obs_names[first[alone[first]]])
    assert seen["judged"].all()
    column = screen.adata.var_names.get_loc(genes[2])
    x = screen.expression[second][:, column].toarray().ravel()
    expected = wasserstein_distance(
        *(x[screen.codes[second] == screen.labels.index(label)] for label in (screen.singles[1], screen.control))
    )
    values = rows.set_index(["setting", "metric"])["value"]
    for setting in ("called edges", "top 50 edges"):
        assert values[setting, "edges"] == 1
        assert values[setting, "mean Wasserstein"] == pytest.approx(expected)


def test_heaviest_edges():
    weights = np.array([[9.0, 1.0, -3.0], [0.0, 0.0, 2.0], [0.5, 0.0, 0.0]])
    assert np.argwhere(graph.heaviest(weights, 2)).tolist() == [[0, 2], [1, 2]]
    assert not graph.heaviest(weights, 0).any()
    assert graph.heaviest(weights, 9).sum() == 4  # there are no more


def test_scores_of_a_graph_that_is_right():
    truth = np.array([[0, 0.5, 0], [0, 0, -0.4], [0, 0, 0]])
    right = graph.Learned(2 * truth, truth != 0, 1.5)
    found = graph._against_truth("any", right, truth)
    assert found["AUPRC"] == found["AUPRC, ancestors"] == found["exact"] == found["orientation (chance 0.5)"] == 1
    assert found["structural Hamming distance"] == 0
    assert found["called edges"] == found["true edges"] == 2
    # the totals of a method that gives total effects are what it gives
    total = graph.Learned(np.linalg.inv(np.eye(3) - truth) - np.eye(3), truth != 0, 1.5)
    assert graph._against_truth("difference of means", total, truth)["AUPRC, ancestors"] == 1
    assert graph._against_truth("difference of means", total, truth)["AUPRC"] == 1
    wrong = graph.Learned(truth.T, truth.T != 0, 1.5)
    found = graph._against_truth("any", wrong, truth)
    assert found["AUPRC, undirected"] == 1
    assert found["orientation (chance 0.5)"] == found["exact"] == 0


def test_the_grid_and_its_units():
    assert len(graph.units(Settings(seeds=(0,)))) == 2 * 2 * 3 * 2 * 2 * 2 + len(BROKEN) + 1
    keys = [unit.key for unit in units(n_cells=[30, 40], graphs="scale-free", broken=["feedback"])]
    assert keys[:2] == [f"scale-free-1-6-linear-{n}-0.0-none-seed0" for n in (30, 40)]
    assert keys[2] == "scale-free-1-6-linear-30-0.0-feedback-seed0"
    assert keys[-1] == "toy-chain-1-5-rectified-2048-0.0-none-seed1"
    assert len(keys) == 8
    assert len(units(toy=False, broken=False)) == 2
    assert [unit.options["graph"] for unit in units(toy="only")] == ["toy chain"] * 2
    assert graph.asked_methods(Settings()) == FAST


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["additive"]}, "'additive' has no graph"),
        ({"graphs": ["ring"]}, "graph='ring' is unknown"),
        ({"degrees": [50]}, "expected_degree=50 is impossible"),
        ({"n_cells": ["many"]}, "'many' is not an integer"),
        ({"n_perturbed": [1], "degrees": [0.5]}, "two genes or more"),
        ({"missing": []}, "missing: give at least one"),
        ({"broken": ["luck"]}, "broken: 'luck' is unknown; there are assumptions kept, dense programs"),
        ({"resamples": 0}, "resamples=0"),
        ({"toy": "maybe"}, "must be true, false or 'only'"),
        ({"toy": "only", "methods": ["random"]}, "not among the methods"),
        ({"screen": "simulated", "methods": ["guess"]}, "'guess' has no graph"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark.run("graph", out=tmp_path, seeds=1, **QUICK, **options)
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize(("name", "install"), [("dagma", "pip install dagma"), ("sdcd", "pip install --no-deps sdcd")])
def test_packages_are_asked_for_before_any_work(monkeypatch, name, install):
    monkeypatch.setattr(graph, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=install):
        units(methods=[name])
