"""Whether an effect depends on the group: level of the test where groups differ in mean and spread, and its power."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import raptorgraph as rg
from raptorgraph.tl._group_test import Controls, dependence_test, fold_derivatives, same_fold_change

K, G = 2, 150


def cells(seed, n_perturbed=(20, 20), n_controls=(150, 100), spread=1.5, scale=None, n_batches=1):
    """K perturbations of cells in groups that differ in the mean and spread of correlated genes; screen, groups, truth.

    `scale` is how large each effect is in each group, by default as large in all.
    """
    rng = np.random.default_rng(seed)
    n_groups = len(n_perturbed)
    code = np.r_[np.zeros(sum(n_controls), int), np.repeat(np.arange(1, K + 1), sum(n_perturbed))]
    group = np.r_[np.repeat(np.arange(n_groups), n_controls), np.tile(np.repeat(np.arange(n_groups), n_perturbed), K)]
    batch = rng.integers(0, n_batches, len(code))
    effect = rng.normal(0, 0.2, (K, G))
    scale = np.ones((K, n_groups)) if scale is None else np.asarray(scale, dtype=float)
    noise = rng.normal(size=(len(code), G)) + 0.5 * rng.normal(size=(len(code), 4)) @ rng.normal(size=(4, G))
    noise *= 0.3 * np.exp(rng.normal(0, 0.3, G)) * np.where(group == 1, spread, 1.0)[:, None]
    values = 14 + rng.normal(0, 1, (n_groups, G))[group] + rng.normal(0, 0.5, (n_batches, G))[batch] + noise
    hit = code > 0
    values[hit] += scale[code[hit] - 1, group[hit]][:, None] * effect[code[hit] - 1]
    labels = np.array(["control", *(f"P{i}" for i in range(K))])[code]
    obs = pd.DataFrame({"perturbation": labels, "batch": batch.astype(str)}, index=[f"c{i}" for i in range(len(code))])
    adata = ad.AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(G)]))
    setup = {"batch_key": "batch"} if n_batches > 1 else {}
    return rg.screen.Screen(adata, setup), group, effect


def p_values(screen, group, effect, *, n_permutations=60, rows=None, **options):
    options = {"targets": [[]] * K, "min_cells": 3, "seed": 0} | options
    rows = np.arange(len(group)) if rows is None else rows
    codes = list(range(1, K + 1))
    n_groups = int(group.max()) + 1
    return dependence_test(
        screen, rows, group, codes, effect, n_groups=n_groups, n_permutations=n_permutations, **options
    )


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"n_perturbed": (40, 8)},
        {"n_perturbed": (8, 40), "n_controls": (60, 200)},
        {"n_perturbed": (10, 10, 10), "n_controls": (60, 60, 60)},
        {"n_perturbed": (60, 60), "n_controls": (60, 60)},  # the noise of the controls is as large as the cells'
        {"n_perturbed": (20, 20), "n_batches": 2},
    ],
    ids=str,
)
def test_p_values_are_uniform_where_effects_do_not_depend_on_the_group(sizes):
    first = np.array([p_values(*cells(seed, **sizes), seed=seed)[1][0] for seed in range(120)])
    assert stats.kstest(first, "uniform").pvalue > 0.01
    assert (first < 0.05).mean() < 0.11
    assert abs(first.mean() - 0.5) < 0.08


def counted(seed, n_perturbed=120, n_controls=400):
    """Counts of two groups that differ in half of the genes, with one fold change for all."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(K + 1), [2 * n_controls, *[2 * n_perturbed] * K])
    group = np.arange(len(code)) % 2
    program = rng.choice([-1.2, 1.2], G) * (np.arange(G) % 2)
    fold = np.vstack([np.zeros(G), rng.normal(0, 0.7, (K, G)) * (rng.random((K, G)) < 0.2)])
    rate = np.exp(rng.normal(0, 1, G) + np.outer(group, program) + fold[code]) * 2e-3
    library = rng.lognormal(np.log(2000), 0.2, len(code))
    X = rng.poisson(rate * library[:, None] * rng.gamma(3.0, 1 / 3, rate.shape)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": np.array(["control", "P0", "P1"])[code], "total": library * 20})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(G)]))
    screen = rg.screen.Screen(adata, {"library_size_key": "total"})
    return screen, group, screen.effects.to_numpy()


def test_one_fold_change_in_all_groups_is_no_dependence():
    found = np.array([p_values(*counted(seed), seed=seed)[1][0] for seed in range(40)])
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert (found < 0.05).mean() <= 0.125


def test_shape_of_one_fold_change():
    rng = np.random.default_rng(0)
    n, rates, fold = 200_000, np.array([[0.05, 1.0, 20.0], [0.2, 5.0, 20.0]]), 0.3
    library = rng.lognormal(np.log(3000), 0.3, n)
    scale = 1e4 / library[:, None]

    def drawn(rate):
        mixed = rate * library[:, None] / 3000 * rng.gamma(3.0, 1 / 3, (n, 3))
        return rng.poisson(mixed).astype(float)

    controls = [drawn(rate) for rate in rates]
    found = [fold_derivatives(X, library) for X in controls]
    slope, curvature = (np.array([np.asarray(pair[k].mean(0)).ravel() for pair in found]) for k in (0, 1))
    effect = np.array([
        np.log1p(scale * drawn(rate * np.exp(fold))).mean(0) - np.log1p(scale * X).mean(0)
        for rate, X in zip(rates, controls, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(slope * fold + curvature * fold**2 / 2, effect, rtol=0.05, atol=0.006)
    shape, factor = same_fold_change(slope, curvature, effect.mean(0))
    np.testing.assert_allclose((shape[0] / shape[1])[1:], (effect[0] / effect[1])[1:], rtol=0.08)
    # an error of the control mean is in the effect, and in what is expected of it: both change with the rate
    np.testing.assert_allclose(factor, 1 + effect.mean(0) / (slope.mean(0) + 0.05) * curvature / (slope + 0.05))


def test_logarithms_are_taken_to_be_without_noise():
    values = np.array([[0.0, 0.5, 3.0]])
    slope, curvature = fold_derivatives(values, None)
    step = 1e-4
    up, down = (np.log1p(np.expm1(values) * np.exp(sign * step)) for sign in (1, -1))
    np.testing.assert_allclose(slope, (up - down) / (2 * step), atol=1e-6)
    np.testing.assert_allclose(curvature, (up - 2 * values + down) / step**2, atol=1e-6)


def test_ten_cells_show_an_effect_that_is_off_in_a_group():
    scale = [[1, 0], [1, 1]]
    found = np.array([p_values(*cells(seed, (10, 10), scale=scale), seed=seed)[1] for seed in range(40)])
    assert (found[:, 0] < 0.05).mean() > 0.9
    assert (found[:, 1] < 0.05).mean() < 0.15
    strong = p_values(*cells(0, (100, 100), scale=scale))[1]
    assert strong[0] < 1e-6  # beyond what 60 permutations can count


def test_another_effect_of_the_same_size_is_seen_too():
    found = []
    for seed in range(20):
        screen, group, effect = cells(seed, (40, 40))
        X = screen.adata.X.copy()
        rows = (screen.codes == 1) & (group == 1)
        X[rows] += np.random.default_rng(seed).permutation(effect[0]) - effect[0]
        changed = screen.adata.copy()
        changed.X = X
        found.append(p_values(rg.screen.Screen(changed), group, effect, seed=seed)[1][0])
    assert (np.array(found) < 0.05).mean() > 0.9


def test_groups_with_too_few_cells_take_no_part():
    screen, group, effect = cells(0, (20, 20))
    rows = np.arange(len(group))
    few = rows[~((screen.codes == 1) & (group == 1) & (np.cumsum((screen.codes == 1) & (group == 1)) > 2))]
    statistic, p = p_values(screen, group, effect, rows=few)
    assert np.isnan(p[0])
    assert np.isnan(statistic[0])
    assert 0 < p[1] <= 1
    # a third group with two cells changes nothing but the draws
    assert np.isfinite(p_values(screen, group, effect, rows=few, min_cells=2)[1]).all()


def test_the_targets_do_not_count():
    screen, group, effect = cells(0, (40, 40))
    changed = screen.adata.copy()
    X = changed.X.copy()
    X[(screen.codes == 1) & (group == 1), 7] += 5.0
    changed.X = X
    screen = rg.screen.Screen(changed)
    assert p_values(screen, group, effect)[1][0] < 0.02
    assert p_values(screen, group, effect, targets=[[7], []])[1][0] > 0.05


def test_same_seed_same_bits():
    example = cells(0)
    one, two, other = (p_values(*example, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (np.array(one) != np.array(other)).any()


def test_controls_by_stratum():
    screen, group, _ = cells(0, n_batches=3)
    found = Controls.of(screen, np.arange(len(group)), group, 2, 0)
    values, is_control = screen.adata.X.astype(float), screen.codes == 0
    assert len(found.n) == 6
    for k in range(6):
        rows = is_control & (group == found.group[k]) & (screen.batch == found.batch[k])
        assert rows.sum() == found.n[k]
        np.testing.assert_allclose(found.mean[k], values[rows].mean(0), rtol=1e-6)
    within = [values[is_control & (group == s)] for s in range(2)]
    for s in range(2):
        for k in np.flatnonzero(found.group == s):
            rows = screen.batch[is_control & (group == s)] == found.batch[k]
            within[s][rows] -= found.mean[k]
        expected = np.sqrt((within[s] ** 2).sum(0) / (len(within[s]) - 3))
        np.testing.assert_allclose(found.sd[s], expected, rtol=0.03)
    # permuted means have the variance of means whose mean is known
    draws = found.permuted(400, np.random.default_rng(0))
    expected = found.sd[found.group] * np.sqrt(1 / found.n - 1 / found.n.sum())[:, None]
    np.testing.assert_allclose((draws.std(0) / expected).mean(1), 1, rtol=0.05)
    # a cell without controls of its group and batch is compared with all of its group
    weight, mean = found.reference(np.array([0, 0, 1]), np.array([0, 9, 2]), np.array([0, 1]))
    assert weight[0].max() == weight[2].max() == 1
    of_group = found.group == 0
    np.testing.assert_allclose(weight[1], of_group * found.n / found.n[of_group].sum())
    np.testing.assert_allclose(mean[0], weight[:2].mean(0))


def test_more_controls_than_are_permuted_keep_the_size_of_the_noise(monkeypatch):
    monkeypatch.setattr("raptorgraph.tl._group_test._MOST_CONTROLS", 60)
    screen, group, _ = cells(0)
    found = Controls.of(screen, np.arange(len(group)), group, 2, 0)
    assert len(found.residuals) == 60
    draws = found.permuted(300, np.random.default_rng(0))
    expected = found.sd[found.group] * np.sqrt(1 / found.n - 1 / found.n.sum())[:, None]
    np.testing.assert_allclose(np.sqrt((draws.std(0) ** 2).mean(1) / (expected**2).mean(1)), 1, rtol=0.12)
