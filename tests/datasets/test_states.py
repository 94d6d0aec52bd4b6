"""States of simulated cells, and cells that escaped."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raptorgraph.datasets import simulate
from raptorgraph.datasets._states import random_states

SMALL = {"n_genes": 40, "n_perturbed": 4, "n_control_cells": 60, "n_cells_per_perturbation": 20, "n_doubles": 3}


def drawn(states, n_genes=4000, n_perturbed=40, effect=0.7, dependence=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return random_states(states, n_genes, n_perturbed, effect=effect, dependence=dependence, rng=rng)


@pytest.mark.parametrize("states", [2, 3, "continuous"])
def test_programs_have_the_asked_spread_between_cells(states):
    found = drawn(states)
    offsets = found.mixtures((np.arange(600) + 0.5) / 600) @ found.programs
    hit = offsets.any(axis=0)
    assert stats.binomtest(int(hit.sum()), 4000, 0.2).pvalue > 1e-3
    np.testing.assert_allclose(offsets.mean(axis=0), 0.0, atol=1e-12)
    assert offsets[:, hit].std() == pytest.approx(0.7, rel=0.05)


@pytest.mark.parametrize(("states", "n_ends"), [(2, 2), (5, 5), ("continuous", 2)])
def test_perturbations_that_depend_act_somewhere_but_not_everywhere(states, n_ends):
    activity = drawn(states).activity
    assert activity.shape == (n_ends, 40)
    assert set(np.unique(activity)) == {0.0, 1.0}
    n_active = activity.sum(axis=0)
    assert (n_active < n_ends).sum() == 12
    assert set(n_active) == set(range(1, n_ends + 1))
    assert (activity == 0).any(axis=1).all()  # no state, or end, has them all


def test_places_of_cells():
    place = np.array([0.0, 0.4, 0.6, 0.999])
    two = drawn(2)
    np.testing.assert_array_equal(two.mixtures(place), [[1, 0], [1, 0], [0, 1], [0, 1]])
    assert list(two.column(place)) == ["S1", "S1", "S2", "S2"]
    for k, mixtures in enumerate(two.within(place)):
        np.testing.assert_array_equal(mixtures, np.eye(2)[[k] * 4])
    line = drawn("continuous")
    np.testing.assert_allclose(line.mixtures(place)[:, 1], place)
    np.testing.assert_array_equal(line.column(place), place)
    np.testing.assert_array_equal(line.codes(place), [0, 1, 1, 2])
    for k, mixtures in enumerate(line.within(place)):
        np.testing.assert_allclose(mixtures, np.column_stack([1 - (k + place) / 3, (k + place) / 3]))
    assert drawn(12).names[0] == "S01"
    assert drawn("none") is None


@pytest.mark.parametrize("states", [2, "continuous"])
def test_log_rates_and_shifts_in_a_state(make_screen, make_cells, states):
    screen = make_screen()
    cells = make_cells(screen, 5)
    assert screen.in_state(cells, None) is cells
    screen = replace(screen, states=drawn(states, 30, 3, dependence=1.0))
    mixtures = screen.states.mixtures(np.array([0.1, 0.3, 0.5, 0.7, 0.9]))
    moved = screen.in_state(cells, mixtures)
    np.testing.assert_allclose(moved.shifts, cells.shifts * (mixtures @ screen.states.activity))
    latents = screen.latents(moved.exogenous, moved.shifts)
    rates = screen.log_rates(latents, moved.shifts, moved.batch, moved.state)
    expected = screen.base + latents @ screen.loadings.toarray() + mixtures @ screen.states.programs
    np.testing.assert_allclose(rates, expected, atol=1e-12)


def test_states_that_act_on_nothing_change_no_count():
    plain = simulate(**SMALL)
    labeled = simulate(**SMALL, states=2, state_effect=0.0, state_dependence=0.0)
    np.testing.assert_array_equal(plain.X.toarray(), labeled.X.toarray())
    pd.testing.assert_frame_equal(plain.obs, labeled.obs.drop(columns="state"))
    effects = labeled.uns["simulation"]["effects"]
    pd.testing.assert_frame_equal(effects, plain.uns["simulation"]["effects"])
    for table in labeled.uns["simulation"]["state_effects"].values():
        pd.testing.assert_frame_equal(table, effects)


@pytest.mark.parametrize(("states", "escape", "seed"), [(3, 0.0, 0), ("continuous", 0.3, 1), (2, [0.0, 0.5, 0.2], 2)])
def test_truth_in_each_state_agrees_with_the_data(states, escape, seed):
    adata = simulate(
        60, 3, n_control_cells=9000, n_cells_per_perturbation=5000, n_doubles="all", states=states, escape=escape,
        state_effect=0.5, interaction_strength=0.5, n_truth_cells=500, n_batches=2, seed=seed,
    )  # fmt: skip
    simulation = adata.uns["simulation"]
    truth = pd.concat(simulation["state_effects"])
    np.testing.assert_allclose(truth.groupby(level=1, sort=False).mean(), simulation["effects"], atol=1e-6)
    state = adata.obs["state"]
    if states == "continuous":
        state = pd.cut(state, [0, 1 / 3, 2 / 3, 1], labels=["T1", "T2", "T3"])
    expression = np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])
    kept = (adata.obs["perturbation"] == "control") | adata.obs.get("responded", True)
    frame = pd.DataFrame(expression, adata.obs_names, adata.var_names)[kept]
    groups = frame.groupby([state[kept], adata.obs["perturbation"][kept]], observed=True)
    mean, error = groups.mean(), groups.sem()
    z = []
    for (name, label), true in truth.iterrows():
        both = np.hypot(error.loc[name, label], error.loc[name, "control"])
        z.append(((mean.loc[name, label] - mean.loc[name, "control"] - true) / both).to_numpy())
    assert 0.7 < np.mean(np.square(z)) < 1.3
    assert np.abs(z).max() < 5


def test_effects_vanish_where_a_perturbation_does_not_act():
    few = {"n_doubles": 0, "n_control_cells": 20, "n_cells_per_perturbation": 5}
    simulation = simulate(60, 8, **few, states=3).uns["simulation"]
    activity = simulation["state_activity"]
    assert (activity.index == [f"P0{k}" for k in range(1, 9)]).all()
    assert ((activity == 0).any(axis=1)).sum() == 4
    for state, table in simulation["state_effects"].items():
        size = table.abs().max(axis=1)
        for gene, acts in activity[state].items():
            assert size[gene] == 0 if acts == 0 else size[gene] > 0.1
        a, b = activity.index[:2]  # a pair in which one gene does nothing is the other alone
        if activity.loc[a, state] == 0:
            np.testing.assert_array_equal(table.loc[f"{a}+{b}"], table.loc[b])
    line = simulate(60, 8, **few, states="continuous")
    rows = {tuple(row) for row in line.uns["simulation"]["state_activity"].round(3).to_numpy()}
    assert rows == {(1.0, 1.0, 1.0), (0.167, 0.5, 0.833), (0.833, 0.5, 0.167)}


def test_escaped_cells_are_as_control_cells():
    adata = simulate(
        20, 3, n_control_cells=4000, n_cells_per_perturbation=4000, n_doubles="all", escape=[0.0, 0.5, 0.2], seed=3
    )
    labels, responded = adata.obs["perturbation"], adata.obs["responded"]
    assert responded.dtype == bool
    share = responded.groupby(labels, observed=True).mean()
    expected = {"control": 0, "P01": 1, "P02": 0.5, "P03": 0.8, "P01+P02": 0.5, "P01+P03": 0.8, "P02+P03": 0.4}
    assert share.to_dict() == pytest.approx(expected, abs=0.03)
    own = pd.Series(adata.obsm["u_true"][:, 1], adata.obs_names)
    escaped = own[(labels == "P02") & ~responded]
    assert stats.kstest(escaped, own[labels == "control"]).pvalue > 1e-3
    assert own[(labels == "P02") & responded].mean() < -1.1


@pytest.mark.parametrize(
    "options", [{"states": 2, "escape": 0.2}, {"states": "continuous", "escape": [0.0, 0.1, 0.2, 0.3]}]
)
def test_h5ad_round_trip_and_repetition_from_settings(tmp_path, options):
    adata = simulate(**SMALL, **options)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    read = ad.read_h5ad(tmp_path / "screen.h5ad")
    again = simulate(**read.uns["simulation"]["settings"])
    for other in (read, again):
        np.testing.assert_array_equal(other.X.toarray(), adata.X.toarray())
        pd.testing.assert_frame_equal(other.obs, adata.obs)
        found, expected = (one.uns["simulation"] for one in (other, adata))
        assert list(found["state_effects"]) == list(expected["state_effects"])
        for name, table in expected["state_effects"].items():
            pd.testing.assert_frame_equal(found["state_effects"][name], table, check_names=False)
        pd.testing.assert_frame_equal(found["state_activity"], expected["state_activity"], check_names=False)
