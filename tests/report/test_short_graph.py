"""What is said of the graph in short."""

import pandas as pd

from raptorgraph.report._short_graph import between, graph, modules, surest, unordered

EDGES = pd.DataFrame(
    {
        "source": ["A", "B", "C", "D"], "target": ["B", "C", "D", "E"], "weight": [1.0, 0.9, 0.5, 0.4],
        "probability": [0.9, 1.0, 0.8, 1.0], "share": [0.9, 0.8, 0.3, 0.2],
        "direction_support": [0.95, 0.6, 0.9, 0.99],
    }
)  # fmt: skip
STRONG = set("ABCD")
MEANING = "A → B says that perturbing A does a part of what it does by moving B."


def test_edges_that_may_be_named():
    assert unordered(EDGES).tolist() == [False, True, False, False]
    assert between(EDGES, STRONG).tolist() == [True, True, True, False]
    assert list(surest(EDGES, STRONG)["source"]) == ["A", "C"]
    resampled = EDGES.assign(frequency=[0.9, 1.0, 0.95, 1.0])
    assert list(surest(resampled, STRONG)["source"]) == ["C", "A"]
    assert list(surest(resampled.assign(frequency=0.89), STRONG)["source"]) == []


def test_a_graph_that_was_resampled():
    text = graph(EDGES.assign(frequency=[0.9, 1.0, 0.95, 1.0]), STRONG, n_alone=5)
    assert text == (
        "The graph has 4 edges. 2 of them have a direction that the data support and were found in 90 % or more of the "
        "resampled screens; the surest are C → D (30 % of the effect of C, in 95 % of the resampled screens) and A → B "
        f"(90 % of the effect of A, in 90 % of the resampled screens). {MEANING}"
    )
    one = graph(EDGES.assign(frequency=[0.9, 1.0, 0.5, 1.0]), STRONG, n_alone=5)
    assert "1 of them has a direction that the data support and was found in 90 % or more" in one


def test_a_graph_that_was_not_resampled():
    text = graph(EDGES, STRONG, n_alone=5)
    assert text == (
        "The graph has 4 edges. By the model's own probabilities, which are too high on real screens, the surest are "
        "A → B (90 % of the effect of A, probability 0.90) and C → D (30 % of the effect of C, probability 0.80). "
        f"{MEANING}"
    )
    bare = graph(EDGES[["source", "target", "weight"]], STRONG, n_alone=5)
    assert "The heaviest are A → B, B → C and C → D; how sure they are is not known." in bare


def test_graphs_without_an_edge_to_name():
    assert graph(EDGES, {"A"}, n_alone=5) == (
        "The graph has 4 edges. None of them joins perturbations that stand out and has a direction that the data "
        "support."
    )
    assert graph(EDGES.assign(frequency=0.5), STRONG, n_alone=5) == (
        "The graph has 4 edges. None of them joins perturbations that stand out, has a direction that the data "
        "support, and was found in 90 % or more of the resampled screens."
    )
    assert graph(EDGES[:0], set(), n_alone=5) == (
        "The graph has no edge, which is no proof that no gene acts through another."
    )
    assert graph(EDGES[:0], set(), n_alone=1) == ("There is no graph, which takes two genes that were perturbed alone.")


def test_genes_that_cannot_be_ordered():
    assert list(modules({}, STRONG)) == []
    groups = {"M1": ["A", "B", "C"]}
    assert list(modules(groups, STRONG)) == [
        "A, B and C act as one (M1): their effects are so alike that the data cannot order them."
    ]
    # of what is not told from noise it is not known what it is like
    assert next(modules(groups, {"A", "C"})).startswith("A and C act as one (M1)")
    assert list(modules(groups, {"B"})) == []
