"""What is wrong with a screen, and nothing else."""

import numpy as np
import pytest

from raptorgraph.benchmark._graph_broken import BATCH, BROKEN, ESCAPE, KEPT, LIBRARY, OF_BATCHES, broken_screen
from raptorgraph.datasets import simulate

SIZE = {
    "n_genes": 80, "n_perturbed": 10, "n_control_cells": 200, "n_cells_per_perturbation": 40, "n_doubles": 0,
    "interaction_strength": 0.0, "n_truth_cells": 20, "mechanism": "linear",
}  # fmt: skip


@pytest.fixture(scope="module")
def screens():
    return {name: broken_screen(name, SIZE, 3) for name in BROKEN}


def test_screens_are_of_the_size_that_is_asked_for(screens):
    for name, adata in screens.items():
        counts = adata.obs["perturbation"].value_counts()
        assert counts["control"] == (40 if name == OF_BATCHES else 200), name
        expected = counts.drop("control")
        assert expected.between(39, 41).all(), name  # of two batches about a half each


def test_a_screen_that_keeps_the_assumptions_is_a_plain_one(screens):
    assert (screens[KEPT].X != simulate(**SIZE, seed=3).X).nnz == 0


@pytest.mark.parametrize(("name", "n"), [(BATCH, 2), (OF_BATCHES, 4)])
def test_batches_are_those_of_the_perturbations(screens, name, n):
    obs = screens[name].obs
    batches = obs.groupby("perturbation", observed=True)["batch"].nunique()
    assert batches["control"] == n
    assert (batches.drop("control") == 1).all()
    assert obs.loc[obs["perturbation"] != "control", "batch"].nunique() == n


def test_library_sizes_are_wrong_by_condition(screens):
    wrong, right = screens[LIBRARY], screens[KEPT]
    assert (wrong.X != right.X).nnz == 0
    factor = wrong.obs["total_counts"] / right.obs["total_counts"]
    by_label = factor.groupby(right.obs["perturbation"], observed=True)
    assert by_label.std().max() < 1e-6
    assert np.log(by_label.mean()).std() == pytest.approx(0.3, abs=0.15)


def test_cells_escape_and_edges_are_answered(screens):
    responded = screens[ESCAPE].obs.groupby("perturbation", observed=True)["responded"].mean().drop("control")
    assert responded.std() > 0.1
    edges = screens["feedback"].uns["simulation"]["adjacency"].to_numpy() != 0
    assert (edges & edges.T).any()
    assert (screens["off-target guides"].uns["simulation"]["off_target"].to_numpy() != 0).sum() == 3
