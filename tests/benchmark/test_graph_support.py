"""How sure a graph is, by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from raptorgraph import datasets
from raptorgraph.benchmark import _graph_support as support
from raptorgraph.inference import GraphPosterior
from raptorgraph.screen import Screen


def test_truth_goes_through_genes_that_nobody_perturbed():
    names = ["A", "B", "C", "x", "y"]
    table = pd.DataFrame(0.0, index=names, columns=names)
    for cause, effect in ("Ax", "xy", "yB", "BC", "CB"):  # A -> x -> y -> B <-> C
        table.loc[cause, effect] = 0.5
    adata = SimpleNamespace(uns={"simulation": {"adjacency": table}})
    edge, path = support.truth(adata, ["A", "B", "C"])
    np.testing.assert_array_equal(edge, [[False, True, False], [False, False, True], [False, True, False]])
    np.testing.assert_array_equal(path, [[False, True, True], [False, False, True], [False, True, False]])


def test_frequencies_are_those_of_resampled_screens():
    adata = datasets.simulate(
        200, 6, n_control_cells=400, n_cells_per_perturbation=150, n_doubles=0, mechanism="linear", n_truth_cells=20,
        seed=2,
    )  # fmt: skip
    screen = Screen(adata, {"library_size_key": "total_counts", "perturbation_key": "perturbation"})
    genes = [screen.genes_of[label][0] for label in screen.singles]
    design, targets = np.eye(7)[:, screen.n_perturbed == 1], adata.var_names.get_indexer(genes)
    found = support.frequencies(screen, design, targets, 4, 0)
    assert set(np.unique(found)) <= {0, 0.25, 0.5, 0.75, 1}
    edge, _ = support.truth(adata, genes)
    assert found[edge].mean() > found[~edge].mean() + 0.3
    np.testing.assert_array_equal(support.frequencies(screen, design, targets, 4, 0), found)


def test_what_is_said_of_edges_beside_the_truth():
    k = 5
    edge, path = np.zeros((2, k, k), dtype=bool)
    edge[0, 1] = edge[1, 2] = edge[3, 4] = True
    path |= edge
    path[0, 2] = True
    values = np.zeros((3, k, k))
    probability, share, frequency = values
    said = np.full((k, k), np.nan)
    # right and sure; right, its direction not known; reversed and sure of its edge; wrong and sure
    for i, j, p, s, f in (
        (0, 1, 0.99, 0.97, 1.0),
        (1, 2, 0.6, 0.55, 0.5),
        (4, 3, 0.95, 0.45, 0.95),
        (2, 4, 1, 0.99, 1),
    ):
        probability[i, j], said[i, j], said[j, i], frequency[i, j], share[i, j] = p, s, 1 - s, f, 0.6
    posterior = GraphPosterior(*map(torch.as_tensor, (values[0], probability, share, values[0])), torch.as_tensor(said))
    found = support.judged(posterior, frequency, edge, path)
    assert (found["called edges"], found["with a direction"], found["sure"], found["in a module"]) == (4, 2, 2, 2)
    assert found["wrong, called"] == 0.5
    assert found["wrong, probability of 0.9 or more"] == pytest.approx(2 / 3)
    assert found["wrong, sure"] == 0.5
    assert found["reversed, called"] == pytest.approx(1 / 3)
    assert found["reversed, sure"] == 0
    assert found["reversed, without a direction"] == 0.5
    # of the evidence and the frequency, which has each pair in one way alone: .97, .55 and, as they disagree, .5
    rows = pd.DataFrame({"metric": list(found), "value": list(found.values()), "setting": "here"})
    table = support.reliability(pd.concat([rows, rows])).set_index(["of", "bin"])
    assert table.loc[("direction", "0.5 to 0.6"), "pairs"] == 4
    assert table.loc[("direction", "0.5 to 0.6"), "mean probability"] == pytest.approx(0.525)
    assert table.loc[("direction", "0.95 to 1"), "true"] == 1
    assert table.loc[("frequency", "0.9 to 1"), "pairs"] == 6
    assert table.loc[("frequency", "0.9 to 1"), "true"] == pytest.approx(1 / 3)
    assert table.loc[("frequency", "0.4 to 0.6"), "mean probability"] == 0.5
