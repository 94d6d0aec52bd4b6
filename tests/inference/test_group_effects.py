"""Effects by group against simulated truth, what they become where groups do not differ, and sets of genes."""

from dataclasses import replace

import numpy as np
import pytest

from raptorgraph.inference import GroupMeasurements, infer_group_effects

P, G, N_CONTROLS = 20, 300, 400


def simulated(n, *, off=0.5, n_groups=2, seed=0, shift=0.0, different=False):
    """Effects on a tenth of the genes, of which a share is off in all groups but one; truth, measured, common, sd.

    Groups have their own mean expression, in which perturbed and control cells differ in composition by `shift`.
    """
    rng = np.random.default_rng(seed)
    effect = rng.normal(0, 1.0, (P, G)) * (rng.random((P, G)) < 0.1)
    scale = np.ones((P, n_groups))
    for p in range(round(off * P)):
        scale[p] = np.arange(n_groups) == p % n_groups
    truth = scale[:, :, None] * effect[:, None]
    if different:  # the effects of the second group are others
        truth[: P // 2, 1] = rng.permuted(effect[: P // 2], axis=1)
    cells = rng.multinomial(n * n_groups, np.full(n_groups, 1 / n_groups), P)
    state, unit = rng.normal(0, 1, (n_groups, G)), np.exp(rng.normal(0, 0.5, G))
    control = np.full((n_groups, G), 1.0) * unit / N_CONTROLS
    errors = np.sqrt(control) * rng.normal(size=control.shape)
    variance = unit / np.maximum(cells, 1)[:, :, None]
    measured = truth + np.sqrt(variance) * rng.normal(size=truth.shape) - errors
    shares = cells / cells.sum(1, keepdims=True)
    composition = (shares - 1 / n_groups + shift * (np.arange(n_groups) - (n_groups - 1) / 2)) @ state
    overall = np.einsum("ps,psg->pg", shares, measured) + composition
    overall_variance = np.broadcast_to(unit / (n * n_groups), overall.shape)
    # the posterior under the prior that the effects were drawn from, of two classes
    density = [w * np.exp(-0.5 * overall**2 / (v + overall_variance)) / np.sqrt(v + overall_variance)
               for w, v in ((0.9, 1e-4), (0.1, 1.0))]  # fmt: skip
    big = density[1] / (density[0] + density[1])
    kept = np.stack([1e-4 / (1e-4 + overall_variance), 1 / (1 + overall_variance)])
    common = ((1 - big) * kept[0] + big * kept[1]) * overall
    spread = (1 - big) * kept[0] * overall_variance + big * kept[1] * overall_variance
    spread += (1 - big) * big * ((kept[1] - kept[0]) * overall) ** 2
    found = GroupMeasurements(measured, variance, control, cells, np.full(n_groups, N_CONTROLS))
    return truth, found, common, np.sqrt(spread), {"overall": overall, "overall_variance": overall_variance}


def errors(truth, *estimates):
    """Relative squared error of each estimate."""
    return [float(((estimate - truth) ** 2).sum() / (truth**2).sum()) for estimate in estimates]


def repeated(common, n_groups=2):
    return np.repeat(common[:, None], n_groups, 1)


@pytest.mark.parametrize("n", [10, 30, 100])
@pytest.mark.parametrize("n_groups", [2, 3])
def test_errors_lie_far_below_differences_of_means_and_the_common_effect(n, n_groups):
    truth, measured, common, sd, given = simulated(n, n_groups=n_groups)
    found = infer_group_effects(measured, common, sd, **given)
    ours, by_group, average = errors(truth, found.mean, measured.effect, repeated(common, n_groups))
    assert ours < 0.5 * by_group
    assert ours < 0.6 * average


@pytest.mark.parametrize("n", [10, 30, 100])
def test_where_nothing_depends_on_the_group_effects_are_the_common_ones(n):
    truth, measured, common, sd, given = simulated(n, off=0.0, seed=1)
    found = infer_group_effects(measured, common, sd, **given)
    ours, average = errors(truth, found.mean, repeated(common))
    assert ours < average + 0.005
    np.testing.assert_allclose(found.scale, 1.0, atol=0.1)
    assert found.dependence.max() < 0.05
    assert found.scale_variance < 0.01


def test_an_effect_that_is_off_is_a_scale_which_few_cells_tell():
    _, measured, common, sd, given = simulated(10)
    found = infer_group_effects(measured, common, sd, **given)
    on = np.arange(P // 2) % 2
    rows = np.arange(P // 2)
    np.testing.assert_allclose(found.scale[rows, on].mean(), 2.0, atol=0.2)
    np.testing.assert_allclose(found.scale[rows, 1 - on].mean(), 0.0, atol=0.2)
    inside = np.abs(found.scale[rows, 1 - on]) < 1.645 * found.scale_sd[rows, 1 - on] + 0.05
    assert inside.mean() >= 0.7
    assert found.dependence[: P // 2].min() > 0.2
    assert (found.dependence_low <= found.dependence).all()
    assert (found.dependence <= found.dependence_high).all()
    # half of the squared length of an effect in one of two groups is its difference between them
    np.testing.assert_allclose(found.dependence[: P // 2].mean(), 0.5, atol=0.08)


def test_standard_deviations_are_those_of_the_errors():
    inside, squares = [], []
    for seed in range(4):
        truth, measured, common, sd, given = simulated(30, seed=seed)
        found = infer_group_effects(measured, common, sd, **given)
        z = (found.mean - truth) / found.sd
        inside.append((np.abs(z) < 1.645).mean())
        squares.append((z**2).mean())
    assert 0.88 < np.mean(inside) < 0.99
    assert 0.6 < np.mean(squares) < 1.4


def test_effects_of_other_genes_in_a_group_are_found_from_many_cells():
    truth, measured, common, sd, given = simulated(200, off=0.0, different=True)
    found = infer_group_effects(measured, common, sd, **given)
    ours, by_group, average = errors(truth, found.mean, measured.effect, repeated(common))
    assert ours < 0.7 * by_group
    assert ours < 0.2 * average
    assert found.dependence[: P // 2].min() > 0.2 > 0.02 > found.dependence[P // 2 :].max()


def test_what_differs_in_composition_is_no_effect():
    truth, measured, common, sd, given = simulated(30, off=0.0, shift=0.3)
    found = infer_group_effects(measured, common, sd, **given)
    ours, without, average = errors(truth, found.mean, infer_group_effects(measured, common, sd).mean, repeated(common))
    assert ours < 0.6 * average
    assert ours < 0.7 * without
    np.testing.assert_allclose(found.common, common)
    assert errors(truth, repeated(found.center))[0] < 0.6 * average


def test_a_network_counts_by_what_it_predicts():
    truth, measured, common, sd, given = simulated(10)
    deviation = truth - truth.mean(1, keepdims=True)
    rng = np.random.default_rng(0)
    none, right, double, wrong = (
        infer_group_effects(measured, common, sd, network=network, **given)
        for network in (None, deviation, 2 * deviation, rng.permuted(deviation, axis=2))
    )
    assert right.network_weight > 0.9
    assert double.network_weight == pytest.approx(0.5, abs=0.05)
    assert wrong.network_weight < 0.1
    without, ours, twice, misled = errors(truth, none.mean, right.mean, double.mean, wrong.mean)
    assert ours < 0.9 * without
    assert twice == pytest.approx(ours, rel=0.05)
    assert misled < 1.02 * without
    # scales say how large effects are, whoever knew it
    np.testing.assert_allclose(right.scale, none.scale, atol=0.35)
    assert right.scale_variance < 0.1 * none.scale_variance


def test_perturbations_and_groups_without_cells():
    truth, measured, common, sd, given = simulated(30)
    n_cells, variance = measured.n_cells.copy(), measured.variance.copy()
    n_cells[0], variance[0] = 0, np.inf
    n_cells[1, 1], variance[1, 1] = 0, np.inf
    found = infer_group_effects(replace(measured, n_cells=n_cells, variance=variance), common, sd, **given)
    np.testing.assert_allclose(found.mean[0], repeated(common)[0])
    np.testing.assert_allclose(found.scale[:2], 1.0)
    assert (found.sd[0] >= sd[0]).all()
    # where there are cells, an unknown group is known less well
    assert (found.sd[1, 1] ** 2).mean() > 1.5 * (found.sd[1, 0] ** 2).mean()
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.sd).all()


def test_nothing_falls_below_zero_expression():
    _, measured, common, sd, given = simulated(10)
    found = infer_group_effects(replace(measured, lowest=np.full((2, G), -0.1)), common, sd, **given)
    assert found.mean.min() == -0.1


def test_sets_that_were_not_measured_take_over_the_deviations_of_their_members():
    truth, measured, common, sd, given = simulated(100)
    found = infer_group_effects(measured, common, sd, **given)
    members = [0, 1]  # on in the first group, and in the second
    together, spread = common[members].sum(0), np.sqrt((sd[members] ** 2).sum(0))
    mean, by = found.of_set(members, together, spread)
    error, average = errors(truth[members].sum(0), mean, np.stack([together] * 2))
    assert error < 0.2 * average
    assert (by > spread).all()
    expected = spread**2 + found.deviation_variance[members].sum(0)
    expected += 0.15 * (found.scale_variance * together**2 + found.remainder_variance)
    np.testing.assert_allclose(by**2, expected)
    # a set that does half of it takes half
    half, _ = found.of_set(members, 0.5 * together, spread)
    np.testing.assert_allclose(half, 0.5 * mean)
    nobody, _ = found.of_set([], together, spread, network=np.ones((2, G)))
    np.testing.assert_allclose(nobody, np.stack([together + found.network_weight] * 2))
    np.testing.assert_allclose(found.of_set([], together, spread)[0], np.stack([together] * 2))


def test_same_seed_same_bits_and_input_stays():
    _, measured, common, sd, given = simulated(10)
    before = measured.effect.copy(), common.copy(), sd.copy()
    one, two = (infer_group_effects(measured, common, sd, seed=3, **given) for _ in range(2))
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(two, name))
    for old, new in zip(before, (measured.effect, common, sd), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bad_input():
    _, measured, common, sd, given = simulated(10)
    with pytest.raises(ValueError, match=r"common must have shape \(20, 300\), got \(300, 20\)"):
        infer_group_effects(measured, common.T, sd)
    with pytest.raises(ValueError, match="overall and overall_variance belong together"):
        infer_group_effects(measured, common, sd, overall=given["overall"])


def test_predictions_differ_from_the_posterior_mean_by_the_scale_of_the_group():
    _, measured, common, sd, given = simulated(30)
    plain = infer_group_effects(measured, common, sd, **given)
    more = 0.2 * common
    found = infer_group_effects(measured, common, sd, predicted=common + more, **given)
    np.testing.assert_allclose(found.mean, plain.mean + plain.scale[:, :, None] * more[:, None])
    np.testing.assert_array_equal(found.scale, plain.scale)
