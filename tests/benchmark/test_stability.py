import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark
from raptorgraph.baselines import DiscrepancyVAE
from raptorgraph.benchmark import _stability as stability
from raptorgraph.benchmark._settings import Part, Settings, Unit
from raptorgraph.metrics import chance_jaccard

pytestmark = pytest.mark.usefixtures("few_steps")


def part(graph: np.ndarray, method: str, seed: int) -> tuple[Unit, Part]:
    genes = [f"P{k}" for k in range(len(graph))]
    graph = pd.DataFrame(graph, index=genes, columns=genes)
    rows = pd.DataFrame(stability._alone(graph).items(), columns=["metric", "value"])
    unit = Unit(f"{method}{seed}", seed, {"method": method, "cells": stability.SAME})
    return unit, Part(rows, ad.AnnData(graph.to_numpy()))


def test_run(tmp_path):
    tables = benchmark.run(
        "stability",
        screen="simulated",
        out=tmp_path,
        seeds=2,
        quick=True,
        n_jobs=0,
        progress=False,
        bootstrap=True,
        methods=["raptorgraph", "raptorgraph (all edges)", "dVAE"],
    )
    assert (tmp_path / "stability.png").stat().st_size > 10_000
    for stem in ("stability", "stability_long", "stability_pairs"):
        assert (tmp_path / f"{stem}.csv").exists()
        assert (tmp_path / f"{stem}.md").exists()
    table = tables["stability"].set_index(["method", "cells"])
    assert table.index.tolist() == [
        (method, cells)
        for method in ("raptorgraph", "raptorgraph (all edges)", "dVAE")
        for cells in (stability.SAME, stability.AGAIN)
    ]
    assert (table.loc["raptorgraph (all edges)", "empty"] == "0 of 2").all()
    long = tables["stability_long"].set_index(["metric", "method", "cells"])["value_mean"]
    assert long["correlation"].dropna().between(-1, 1).all()
    assert long["Jaccard of the top 5"].dropna().between(0, 1).all()
    # an acyclic graph among 5 genes without a threshold has an edge between all of them
    assert [long["edges", "raptorgraph (all edges)", cells] for cells in (stability.SAME, stability.AGAIN)] == [10, 10]
    assert (tables["stability_pairs"]["seeds"] == "0 and 1").all()


def test_same_graphs_agree_and_empty_ones_say_nothing():
    rng = np.random.default_rng(0)
    graph = np.triu(rng.normal(size=(6, 6)), k=1)
    graph[graph < 0.5] = 0.0
    n_edges, nothing = np.count_nonzero(graph), np.zeros((6, 6))
    parts = [part(graph, "planted", seed) for seed in range(3)] + [part(nothing, "nothing", seed) for seed in range(3)]
    parts += [part(graph if seed else nothing, "sometimes", seed) for seed in range(3)]
    tables = stability.tables(parts, Settings(seeds=(0, 1, 2)))
    long = tables["stability_long"].set_index(["metric", "method"])["value_mean"]
    assert long["correlation", "planted"] == pytest.approx(1)
    assert long["Jaccard of the top 6", "planted"] == 1
    k = min(6, n_edges)
    assert long["Jaccard of the top 6, chance", "planted"] == pytest.approx(chance_jaccard(30, k))
    assert np.isnan(long["correlation", "nothing"])
    assert np.isnan(long["Jaccard of the top 6", "nothing"])
    # one pair of graphs agrees, in two pairs one is empty
    assert long["Jaccard of the top 6", "sometimes"] == pytest.approx(1 / 3)
    table = tables["stability"].set_index("method")
    assert table["empty"].to_dict() == {"planted": "0 of 3", "nothing": "3 of 3", "sometimes": "1 of 3"}
    assert table.loc["nothing", "correlation"] == "-"
    assert stability.draw(tables).axes


def test_random_graphs_agree_by_chance():
    rng = np.random.default_rng(1)
    pairs = [stability.compare(*rng.normal(size=(2, 12, 12)), [12]) for _ in range(300)]
    found = pd.DataFrame(pairs).mean()
    assert abs(found["correlation"]) < 0.02
    assert found["Jaccard of the top 12"] == pytest.approx(found["Jaccard of the top 12, chance"], abs=0.01)


def test_graph_of_a_dense_model_goes_through_its_targets():
    class Dense(DiscrepancyVAE):
        def __init__(self):
            """Not fitted: what a fit finds is given."""

        perturbed_genes = ["A", "B", "C"]
        latents = ["x", "y"]
        targets_ = pd.DataFrame([[1.0, 0.0], [0.25, 0.75], [1.0, 0.0]], index=perturbed_genes, columns=latents)
        adjacency_ = pd.DataFrame([[0.0, 2.0], [0.0, 0.0]], index=latents, columns=latents)

    graph = stability.gene_graph(Dense())
    assert graph.loc["A", "B"] == pytest.approx(1 * 2 * 0.75)
    assert graph.loc["B", "A"] == 0
    assert graph.loc["A", "C"] == 0  # they share a target
    assert (np.diag(graph) == 0).all()


def test_scores_against_a_known_graph():
    screen = benchmark.load_screen(Settings(screen="simulated-additive", quick=True), 1)
    truth = screen.adata.uns["simulation"]["adjacency"]
    genes = sorted({gene for genes in screen.genes_of.values() for gene in genes})
    truth = truth.loc[genes, genes]
    assert truth.to_numpy().any()
    found = stability._against_truth(truth, screen)
    assert found["AUPRC"] == pytest.approx(1)
    assert found["orientation (chance 0.5)"] == 1
    assert found["AUPRC, chance"] < 0.5
    empty = stability._against_truth(0 * truth, screen)
    assert empty["AUPRC"] == pytest.approx(np.count_nonzero(truth) / 20)


def test_cells_drawn_again_keep_the_sizes():
    screen = benchmark.load_screen(Settings(screen="simulated", quick=True), 0)
    again = stability.draw_again(screen, 3)
    counts = screen.adata.obs["perturbation"].value_counts()
    pd.testing.assert_series_equal(again.obs["perturbation"].value_counts()[counts.index], counts)
    assert again.obs_names.is_unique
    same = stability.draw_again(screen, 3)
    assert (again.X != same.X).nnz == 0
    assert (again.X != stability.draw_again(screen, 4).X).nnz > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "two or more"),
        ({"methods": ["additive"]}, "'additive' has no graph"),
        ({"methods": ["SENA"]}, "needs gene sets"),
        ({"top_edges": [21]}, "from 1 to 20"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark.run(
            "stability",
            screen="simulated",
            out=tmp_path,
            quick=True,
            n_jobs=0,
            progress=False,
            **{"seeds": 2, **options},
        )
    assert not list(tmp_path.rglob("*.csv"))
