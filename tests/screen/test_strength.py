import numpy as np
import pandas as pd
import pytest

from raptorgraph import datasets
from raptorgraph.screen import Screen
from raptorgraph.screen._strength import singles_that_stand_out, strengths


@pytest.fixture(scope="module")
def setup():
    return {"library_size_key": "total_counts"}


@pytest.fixture(scope="module")
def simulated():
    """Function that makes a screen of 60 genes, 5 of them perturbed, and 9 doubles."""

    def make(**options):
        size = {"n_doubles": 9, "n_control_cells": 160, "n_cells_per_perturbation": 40, "n_truth_cells": 40, "seed": 0}
        return datasets.simulate(60, 5, **{**size, **options})

    return make


def test_what_does_something_stands_out(simulated, setup):
    screen = Screen(simulated(), setup)
    found = strengths(screen)
    assert list(found.index) == screen.conditions
    assert found["stands_out"].sum() >= 12
    np.testing.assert_allclose(found["size"], np.linalg.norm(screen.effects, axis=1))
    single = screen.singles[0]
    assert found.at[single, "own_gene"] == pytest.approx(screen.effects.at[single, single])
    assert 0 < found.at[single, "own_gene_se"] < 0.5
    assert np.isnan(found.at[screen.combinations[0], "own_gene"])
    pd.testing.assert_frame_equal(strengths(screen), found)
    assert singles_that_stand_out(screen) == set(found.index[found["stands_out"]]) & set(screen.singles)


def split_controls(simulated, n_groups, seed):
    """Control cells of a screen, a part of them labeled as if they were perturbed: what does nothing."""
    adata = simulated(n_control_cells=800 + 30 * n_groups, n_doubles=0, seed=seed)
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    labels = np.repeat(["control", *(f"null{k:02d}" for k in range(n_groups))], [800, *[30] * n_groups])
    controls.obs["perturbation"] = np.random.default_rng(seed).permutation(labels)
    return controls


def test_groups_of_control_cells_stand_out_as_often_as_they_should(simulated, setup):
    found = pd.concat(strengths(Screen(split_controls(simulated, 40, seed), setup)) for seed in range(3))
    assert found["signal_to_noise"].mean() == pytest.approx(1, abs=0.05)
    assert (found["p"] <= 0.05).sum() <= 12  # of 120: 6 are expected, and more than 12 with a probability of 1 %
    assert found["stands_out"].sum() <= 2
    assert 0.3 < found["p"].mean() < 0.8


def test_the_perturbed_gene_itself_does_not_count(simulated, setup):
    adata = split_controls(simulated, 6, seed=0)
    labels = adata.obs["perturbation"].astype(str).replace({f"null{k:02d}": f"P0{k + 1}" for k in range(5)})
    adata.obs["perturbation"] = labels
    counts = adata.X.toarray()
    counts[labels == "P01", list(adata.var_names).index("P01")] = 0
    counts[labels == "P02", list(adata.var_names).index("P03")] = 0
    adata.X = counts
    found = strengths(Screen(adata, setup))
    assert found.at["P01", "own_gene"] < -5 * found.at["P01", "own_gene_se"]
    assert not found.at["P01", "stands_out"]
    assert found.at["P02", "stands_out"]


def test_batches_are_no_effects(simulated, setup):
    adata = split_controls(simulated, 20, seed=0)
    rows = np.flatnonzero(adata.obs["perturbation"] != "control")
    adata.obs["lane"] = np.random.default_rng(0).choice(["a", "b"], adata.n_obs)
    adata.obs.iloc[rows, adata.obs.columns.get_loc("lane")] = "b"
    counts = adata.X.toarray()
    counts[adata.obs["lane"] == "b", :30] *= 3
    adata.X = counts
    adata.obs["total_counts"] *= 3  # at least the sum of these genes
    assert strengths(Screen(adata, setup))["stands_out"].sum() == 20
    assert strengths(Screen(adata, {**setup, "batch_key": "lane"}))["stands_out"].sum() <= 1


def test_too_few_control_cells(simulated, setup):
    adata = simulated(n_control_cells=12, n_doubles=0)
    found = strengths(Screen(adata, setup))
    assert found["p"].isna().all()
    assert not found["stands_out"].any()


def test_controls_that_are_alone_in_their_batches_tell_no_noise(simulated, setup):
    adata = simulated()
    control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["batch"] = np.where(control, [f"b{k}" for k in range(adata.n_obs)], f"b{np.flatnonzero(control)[0]}")
    found = strengths(Screen(adata, {**setup, "batch_key": "batch"}))
    assert found["p"].isna().all()
    assert not found["stands_out"].any()
