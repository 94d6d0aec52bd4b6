"""Effects by guide against sums over pairs of cells, and the test that guides do the same against permutations."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import raptorgraph as rg
from raptorgraph.screen import Screen
from raptorgraph.screen._guide_effects import Changes, compared, different, guide_effects

OFF = {"most": 1000, "n_resamples": 0}


def changes(guide, x, batch=None):
    guide = np.asarray(guide)
    share = np.bincount(guide) / len(guide)
    batch = np.zeros(len(guide), int) if batch is None else batch
    return Changes(x @ x.T, guide, batch, x.sum(1), share)


# -- inner products ----------------------------------------------------------------------------------------------------
def test_measures_of_known_effects():
    effects = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    share = np.array([0.5, 0.25, 0.25])
    found = compared(effects @ effects.T, share, ~np.eye(3, dtype=bool))
    mean = share @ effects
    np.testing.assert_allclose(found["size"], effects @ mean / (mean @ mean))
    assert found["size"] @ share == pytest.approx(1)
    rest = (0.25 * effects[1] + 0.25 * effects[2]) / 0.5
    assert found["agreement"][0] == pytest.approx(effects[0] @ rest / (2 * np.linalg.norm(rest)))
    assert found["difference"][0] == pytest.approx(np.linalg.norm(effects[0] - rest) / 2)
    assert np.isnan(found["agreement"][2])  # it has no direction
    assert found["difference"][2] == pytest.approx(1)
    some = compared(
        effects @ effects.T, share, np.array([[False, True, False], [True, False, False], [True, True, False]])
    )
    assert some["agreement"][0] == pytest.approx(1 / np.sqrt(2))  # compared with the second alone
    assert some["difference"][2] == found["difference"][2]
    assert np.isnan(compared(-np.eye(2), np.array([0.5, 0.5]), ~np.eye(2, dtype=bool))["size"]).all()
    alone = compared(np.array([[4.0]]), np.array([1.0]), np.zeros((1, 1), dtype=bool))
    assert alone["size"] == 1
    assert np.isnan(alone["difference"]).all()


def test_inner_products_are_means_over_pairs_of_cells():
    rng = np.random.default_rng(0)
    x, guide = rng.normal(size=(9, 4)), np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    weights = rng.integers(1, 3, size=(9, 2)).astype(float)
    found = changes(guide, x).inner(np.column_stack([np.ones(9), weights]))
    for w, inner in zip([np.ones(9), *weights.T], found, strict=True):
        for k in range(3):
            for m in range(3):
                pairs = [(i, j) for i in np.flatnonzero(guide == k) for j in np.flatnonzero(guide == m) if i != j]
                weight = [w[i] * w[j] for i, j in pairs]
                assert inner[k, m] == pytest.approx(np.average([x[i] @ x[j] for i, j in pairs], weights=weight))


def test_resamples_of_one_cell_alone_tell_nothing():
    x = np.random.default_rng(0).normal(size=(10, 4)) + 3.0
    guide, weights = np.repeat([0, 1], 5), np.ones((10, 1))
    weights[:5, 0] = [5, 0, 0, 0, 0]
    (inner,) = changes(guide, x).inner(weights)
    assert np.isnan(inner).tolist() == [[True, False], [False, False]]
    assert np.isnan(compared(inner, np.array([0.5, 0.5]), ~np.eye(2, dtype=bool))["size"]).all()
    found = changes(guide, x).measure(4000, 0.9, np.random.default_rng(0))  # of which some are like that
    assert (found["size_low"] < 1).all()
    assert (found["size_high"] > 1).all()


def logged(n_genes=6, seed=0):
    """Log values of a screen with two batches, A of three guides, and its changes by hand."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(["control", "A", "B"], [30, 32, 8])
    batch = np.resize(["x", "y"], len(labels))
    values = np.abs(rng.normal(2.0, 0.4, size=(len(labels), n_genes)))
    values += 0.5 * (batch == "y")[:, None]
    guide = np.where(labels == "A", np.resize(["a1", "a2", "a2", "a3"], len(labels)), labels)
    values[guide == "a1", :3] += 1.0
    values[guide == "a2", 2:] += 1.0
    values[labels == "B", 1:3] += 1.0
    obs = pd.DataFrame({"perturbation": labels, "batch": batch}, index=[f"c{i:02d}" for i in range(len(labels))])
    return ad.AnnData(values, obs=obs), guide


def test_table_is_what_pairs_of_cells_say():
    adata, guide = logged()
    screen = Screen(adata, {"batch_key": "batch"})
    table = guide_effects(screen, guide.astype(object), **OFF).set_index(["perturbation", "guide"])
    x, batch, control = adata.X, adata.obs["batch"].to_numpy(), (adata.obs["perturbation"] == "control").to_numpy()
    means = {b: x[control & (batch == b)].mean(0) for b in "xy"}
    centered = x - np.array([means[b] for b in batch])
    variance = (centered[control] ** 2).sum(0) / (control.sum() - 2)
    weight = 1 / (variance + np.median(variance))
    noise = {b: (weight * variance).sum() / (control & (batch == b)).sum() for b in "xy"}
    names = ["a1", "a2", "a3"]
    inner = np.empty((3, 3))
    for k, one in enumerate(names):
        for m, other in enumerate(names):
            pairs = [(i, j) for i in np.flatnonzero(guide == one) for j in np.flatnonzero(guide == other) if i != j]
            inner[k, m] = np.mean(
                [(centered[i] * weight) @ centered[j] - (batch[i] == batch[j]) * noise[batch[i]] for i, j in pairs]
            )
    n = np.array([(guide == name).sum() for name in names])
    assert table.loc["A"].index.tolist() == names
    assert table.loc["A", "n_cells"].tolist() == n.tolist()
    # a2 was set aside, and is compared with both of the others; they are compared with each other
    others = np.array([[False, False, True], [True, False, True], [True, False, False]])
    for name, values in compared(inner, n / n.sum(), others).items():
        np.testing.assert_allclose(table.loc["A", name].to_numpy(float), values, rtol=1e-6)
    assert table.loc[("B", "B"), "size"] == pytest.approx(1)
    assert np.isnan(table.loc[("B", "B"), "p"])


def test_batch_without_controls_is_compared_with_all():
    adata, guide = logged()
    adata.obs["batch"] = adata.obs["batch"].where(adata.obs["perturbation"] == "control", "z").where(guide != "a2", "x")
    table = guide_effects(Screen(adata, {"batch_key": "batch"}), guide.astype(object), **OFF)
    assert table.loc[table["perturbation"] == "A", "size"].notna().all()


# -- the test ----------------------------------------------------------------------------------------------------------
def test_scores_are_compared_by_a_t_test():
    rng = np.random.default_rng(1)
    score, chosen = rng.normal(size=40), np.arange(40) < 12
    score[chosen] += 0.8
    nothing = np.zeros((40, 40))
    p = different(nothing, score, chosen, np.zeros(40, int))
    assert p == pytest.approx(2 * stats.ttest_ind(score[chosen], score[~chosen]).pvalue)
    # with batches: the coefficient in a regression on both
    batch = np.resize([0, 0, 1], 40)
    design = np.column_stack([chosen, batch == 0, batch == 1]).astype(float)
    beta, rss, *_ = np.linalg.lstsq(design, score)
    t = beta[0] / np.sqrt(rss[0] / 37 * np.linalg.inv(design.T @ design)[0, 0])
    assert different(nothing, score, chosen, batch) == pytest.approx(min(1, 4 * stats.t.sf(abs(t), 37)))


@pytest.mark.parametrize("n_batches", [1, 3])
def test_distance_has_the_distribution_of_permutations(n_batches):
    rng = np.random.default_rng(2)
    n, batch = 42, np.arange(42) % n_batches
    x = rng.gamma(2.0, size=(n, 30)) * rng.gamma(3.0, size=(n, 1)) @ np.diag(np.linspace(1, 0.2, 30))
    for b in range(n_batches):
        x[batch == b] -= x[batch == b].mean(0)
    same = np.ones(n)  # scores say nothing

    def distance(chosen):
        r = chosen.astype(float)
        for b in range(n_batches):
            r[batch == b] -= r[batch == b].mean()
        return np.sum((r @ x) ** 2) - (r**2) @ (x**2).sum(1)

    chosen = np.isin(np.arange(n), rng.permutation(n)[:14])
    drawn, p = [], []
    for _ in range(700):
        again = chosen.copy()
        for b in range(n_batches):
            rows = np.flatnonzero(batch == b)
            again[rows] = chosen[rng.permutation(rows)]
        drawn.append(distance(again))
        p.append(different(x @ x.T, same, again, batch))
    order = np.argsort(drawn)
    p = np.array(p)
    for share in (0.5, 0.8, 0.9, 0.95, 0.99):  # of the permutations, so far is the distance exceeded as often as p says
        at = p[order[int(share * len(drawn))]]
        assert at == pytest.approx(1 - share, abs=0.05 if share < 0.95 else 0.02)


def test_equal_guides_are_called_as_often_as_chance_has_it():
    rng = np.random.default_rng(3)
    p = []
    for _ in range(300):
        x = rng.normal(size=(40, 25)) * rng.gamma(4.0, 0.25, size=(40, 1)) + 1.0
        p.append(different(x @ x.T, x @ np.ones(25), np.arange(40) < 10, np.zeros(40, int)))
    assert 0.02 < np.mean(np.array(p) < 0.1) < 0.14
    assert np.mean(np.array(p) < 0.01) < 0.025


def test_batches_of_one_kind_say_nothing():
    x = np.random.default_rng(4).normal(size=(12, 3))
    chosen, batch = np.arange(12) < 6, np.repeat([0, 1], 6)
    assert np.isnan(different(x @ x.T, x[:, 0], chosen, batch))
    same = np.zeros((12, 3))
    assert np.isnan(different(same @ same.T, same[:, 0], chosen, np.zeros(12, int)))


# -- simulated screens -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def simulated():
    """A screen whose perturbations have four guides each, of which those of P02 and P03 may fail."""
    adata = rg.datasets.simulate(
        90, 6, n_doubles=2, n_control_cells=400, n_cells_per_perturbation=120, effect_size=3.0, n_truth_cells=5, seed=1
    )
    rng = np.random.default_rng(0)
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    guide = np.char.add(np.char.add(labels, "_g"), rng.integers(1, 5, len(labels)).astype(str)).astype(object)
    return adata, labels, guide


def screen_of(adata, labels):
    adata = adata.copy()
    adata.obs["perturbation"] = labels
    return Screen(adata, {"library_size_key": "total_counts"})


def test_no_guide_is_called_where_all_work(simulated):
    adata, labels, guide = simulated
    table = guide_effects(screen_of(adata, labels), guide, **OFF)
    assert len(table) == 32
    assert not table["disagrees"].any()
    assert (table["p"] < 0.05).mean() < 0.15
    strong = table[~table["perturbation"].str.contains("+", regex=False)]
    assert strong["size"].between(0.5, 1.5).mean() > 0.9
    assert strong["agreement"].median() > 0.9


def test_dead_guides_and_no_others_are_called(simulated):
    adata, labels, guide = simulated
    labels, guide = labels.copy(), guide.copy()
    controls = np.flatnonzero(labels == "control")
    for name, cells in (("P02", controls[:40]), ("P03", controls[40:80])):  # cells of a guide that does nothing
        guide[cells], labels[cells] = f"{name}_dead", name
    table = guide_effects(screen_of(adata, labels), guide, most=1000, n_resamples=60)
    assert set(table.loc[table["disagrees"], "guide"]) == {"P02_dead", "P03_dead"}
    dead = table.set_index("guide").loc[["P02_dead", "P03_dead"]]
    assert (dead["size_low"] < 0.15).all()
    assert (dead["size_high"] < 0.5).all()
    np.testing.assert_allclose(dead["difference"], 1, atol=0.25)
    live = table[table["perturbation"].isin(["P02", "P03"]) & ~table["guide"].isin(dead.index)]
    assert (live["size_low"] > 0.8).all()
    assert (live["size_low"] <= live["size"]).all()
    assert (live["size"] <= live["size_high"]).all()


def test_a_guide_that_hits_another_gene_is_called_though_its_effect_is_as_long(simulated):
    adata, labels, guide = simulated
    labels, guide = labels.copy(), guide.copy()
    effects = screen_of(adata, labels).effects
    one, other = np.square(effects).sum(axis=1)[[f"P0{k}" for k in range(1, 7)]].nlargest(2).index
    wrong = np.flatnonzero(labels == one)[:40]
    labels[wrong], guide[wrong] = other, "off"
    table = guide_effects(screen_of(adata, labels), guide, most=1000, n_resamples=60).set_index("guide")
    assert table.loc["off", "disagrees"]
    assert table.loc["off", "agreement_high"] < 0.8
    assert table["disagrees"].sum() == 1


def test_order_in_the_file_does_not_matter_and_few_cells_will_do(simulated):
    adata, labels, guide = simulated
    order = np.random.default_rng(5).permutation(len(labels))
    arguments = {"most": 12, "n_resamples": 30, "seed": 3}
    one = guide_effects(screen_of(adata, labels), guide, **arguments)
    other = guide_effects(screen_of(adata[order], labels[order]), guide[order], **arguments)
    both = ["perturbation", "guide"]
    pd.testing.assert_frame_equal(
        one.sort_values(both, ignore_index=True), other.sort_values(both, ignore_index=True), rtol=1e-6
    )
    assert one["n_cells"].sum() == (labels != "control").sum()


def test_guides_that_are_alone_or_rare_or_missing_are_not_compared(simulated):
    adata, labels, guide = simulated
    guide = guide.copy()
    guide[labels == "P01"] = "P01_only"
    guide[labels == "P02"] = None
    few = np.flatnonzero(labels == "P03")
    guide[few[:4]] = "P03_rare"
    table = guide_effects(screen_of(adata, labels), guide, **OFF)
    assert "P02" not in set(table["perturbation"])
    rare = table.set_index("guide").loc[["P01_only", "P03_rare"]]
    assert rare["p"].isna().all()
    assert not rare["disagrees"].any()
    assert rare["n_cells"].tolist() == [120, 4]
    nothing = guide_effects(screen_of(adata, labels), np.full(len(labels), None), **OFF)
    assert nothing.empty
    assert list(nothing) == list(table)
