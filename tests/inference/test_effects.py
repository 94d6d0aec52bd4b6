"""Predictions of the posterior: their equations by hand, and what they are worth on screens whose truth is known."""

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior, EffectPosteriorConfig
from raptorgraph.inference._learning import expected_scale
from raptorgraph.inference._prior import CONDITION_SPECIFIC

K, G, N_CELLS, N_CONTROLS = 8, 400, 50, 300
BOTH = 1 / N_CELLS + 1 / N_CONTROLS


def error(found, true):
    return float(((np.asarray(found) - true) ** 2).mean())


def test_predictions_are_the_constrained_estimate_of_the_whole_model(tiny, predict_by_hand):
    """Of singles, the pair that was measured and the two that were not; column 4 is a target."""
    asked = np.vstack([tiny.design, [[1, 0, 1], [0, 1, 1]]])
    expected = predict_by_hand(tiny.posterior, asked, range(12), tiny.graph)
    np.testing.assert_allclose(tiny.posterior.mean(torch.as_tensor(asked)), expected, rtol=1e-6, atol=1e-9)


def test_standard_deviations_are_about_the_prediction(tiny, whole_model):
    asked = np.vstack([tiny.design, [[1, 0, 1]]])
    prediction, sd = (x.numpy() for x in tiny.posterior.mean_and_sd(torch.as_tensor(asked)))
    for g in range(12):
        model = whole_model(tiny.posterior, g, graph=tiny.graph, additivity=tiny.posterior.additivity)
        mean, variance, _ = model.of_sets(asked, residual=True, between=True)
        # The size of an interaction that was not measured is not known.
        more = float(model.prior["interaction_variance"]) * (tiny.posterior.additivity.mean_size - 1) * model.w
        level = (4.0 ** np.arange(-4, 7) * model.responsibility[:2].sum(0)).sum()
        expected = variance + (prediction[:, g] - mean) ** 2 + [0, 0, 0, 0, more * level]
        of_scale = [model.given_own(row).scale_variance(row[None], tiny.posterior.additivity) for row in asked]
        expected += np.concatenate(of_scale)
        on_target = g in tiny.posterior.fitted.measured.target_columns  # there the scale's part is approximate
        np.testing.assert_allclose(sd[:, g], np.sqrt(expected), rtol=5e-3 if on_target else 1e-6)
        found = tiny.posterior.posterior_mean(torch.as_tensor(asked))[:, g]
        np.testing.assert_allclose(found, mean, rtol=1e-6, atol=1e-9)


def test_it_learns_the_scale_and_its_intervals_cover_unmeasured_pairs(example):
    design, measured, _, true, n, posterior = example
    others = np.delete(np.arange(G), [5])
    assert float(posterior.fitted.hyperparameters.scale) == pytest.approx(0.7, abs=0.05)
    mean, sd = (x.numpy()[:, others] for x in posterior.mean_and_sd(torch.as_tensor(design[n:])))
    additive, true = (design[n:] @ measured[:K])[:, others], true[n:, others]
    assert error(mean, true) < 0.5 * error(additive, true)
    assert error(mean, true) < 0.9 * error(0.7 * additive, true)  # not by its scale alone
    covered = (np.abs(mean - true) < 1.645 * sd).mean()
    assert 0.85 < covered < 0.95


def test_predictions_trade_a_little_error_for_the_spread_of_true_effects(example):
    design, _, _, true, n, posterior = example
    others = np.delete(np.arange(G), [5])
    asked = torch.as_tensor(design[n:])
    mean, predicted, true = (
        posterior.posterior_mean(asked)[:, others],
        posterior.mean(asked)[:, others],
        true[n:, others],
    )
    assert error(mean, true) <= error(predicted, true) < 1.1 * error(mean, true)
    spread = [float(((x - x.mean(0)) ** 2).sum()) for x in (mean, predicted)]
    assert spread[0] < spread[1] < 1.3 * spread[0]


def test_measured_singles_are_freed_of_noise(example):
    design, measured, _, true, _, posterior = example
    mean = posterior.mean(torch.as_tensor(design[:K])).numpy()
    others = np.delete(np.arange(G), [5])
    assert error(mean[:, others], true[:K, others]) < 0.85 * error(measured[:K, others], true[:K, others])


def test_effects_are_expected_along_the_graph(fit):
    """Direct effects on few genes that a chain carries on: the right graph helps, and not one of other nodes."""
    found = {"right": [], "none": [], "wrong": []}
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        graph = np.diag(np.full(K - 1, 0.8), 1)
        direct = rng.normal(size=(K, G)) * (rng.random((K, G)) < 0.1)
        true = np.linalg.inv(np.eye(K) - graph) @ direct
        variance = np.full((K, G), 4 * BOTH)
        control = np.sqrt(4 / N_CONTROLS) * rng.normal(size=G)
        measured = true + np.sqrt(4 / N_CELLS) * rng.normal(size=true.shape) - control
        for name, weights in {"right": graph, "none": None, "wrong": graph[np.ix_(order, order)]}.items():
            kwargs = {} if weights is None else {"graph": weights}
            posterior = fit(np.eye(K), measured, variance, **kwargs)
            found[name].append(error(posterior.mean(torch.eye(K, dtype=torch.float64)), true))
    found = {name: np.mean(errors) for name, errors in found.items()}
    assert found["right"] < 0.97 * found["none"]
    assert found["right"] < 0.97 * found["wrong"]


def test_the_graph_can_be_left_out(example, graph):
    design, measured, variance, _, n, posterior = example
    data = [torch.as_tensor(x[:n]) for x in (design, measured, variance)]
    n_cells, asked = torch.full((n,), N_CELLS), torch.as_tensor(design)
    without, none = EffectPosterior(EffectPosteriorConfig(graph=False)), EffectPosterior()
    without.fit(*data, n_cells, N_CONTROLS, graph=torch.as_tensor(graph))
    none.fit(*data, n_cells, N_CONTROLS)
    torch.testing.assert_close(without.mean(asked), none.mean(asked), rtol=0, atol=0)
    assert not torch.allclose(posterior.mean(asked), none.mean(asked))


def test_the_effect_on_a_target_is_kept_whole_in_combinations(example):
    design, measured, _, true, n, posterior = example
    with_first, others = (design[n:, 0] == value for value in (1, 0))
    predicted = posterior.mean(torch.as_tensor(design[n:])).numpy()[:, 5]
    assert (predicted - true[n:, 5])[with_first].mean() == pytest.approx(-3.0, abs=0.4)
    assert (predicted - true[n:, 5])[others].mean() == pytest.approx(0.0, abs=0.4)


def test_a_transcript_of_one_condition_is_not_carried_over(draw_screen, fit):
    design, measured, variance, *_ = draw_screen(np.random.default_rng(5))
    control = np.full(G, 20.0)
    control[[3, 4]] = 0.01, 20.0
    measured[:, 3:5] = np.sqrt(variance[:, 3:5]) * np.random.default_rng(7).normal(size=(len(measured), 2))
    measured[2, 3:5] += 8.0  # appears from nothing; is raised where it is expressed
    posterior = fit(design[:K], measured[:K], variance[:K], control_mean=control)
    specific = posterior.fitted.responsibility[CONDITION_SPECIFIC].sum(0)
    assert specific[3] > 0.1  # ten times its prior weight
    assert specific[4] < 1e-6
    pair = torch.zeros(1, K)
    pair[0, [2, 6]] = 1
    predicted = posterior.mean(pair)[0]
    assert float(predicted[4]) > 2.0
    assert float(predicted[3]) < 0.8 * float(predicted[4])


def test_no_gene_falls_below_zero_expression(draw_screen, fit):
    design, measured, variance, *_ = draw_screen(np.random.default_rng(6))
    control = np.full(G, 0.5)
    posterior = fit(design[:K], measured[:K], variance[:K], control_mean=control)
    assert float(posterior.mean(torch.as_tensor(design)).min()) == -0.5
    assert float(posterior.draw(torch.as_tensor(design[:3]), 5).min()) == -0.5


def test_the_size_of_effects_that_only_pairs_show_is_no_evidence_of_the_scale(draw_screen, fit):
    rng = np.random.default_rng(8)
    design, measured, variance, _, n, _ = draw_screen(rng)
    # Two more genes, strong, in pairs with each other and with the others only.
    design = np.pad(design[:n], ((0, 0), (0, 2)))
    more = np.zeros((4, K + 2))
    more[0, [K, K + 1]] = more[1, [0, K]] = more[2, [1, K]] = more[3, [2, K + 1]] = 1
    strong = 5 * rng.normal(size=(2, G))
    extra = more[:, K:] @ strong + 0.7 * more[:, :K] @ measured[:K]
    both = fit(np.vstack([design, more]), np.vstack([measured[:n], extra]), np.vstack([variance[:n], variance[:4]]))
    assert float(both.fitted.hyperparameters.scale) == pytest.approx(0.7, abs=0.06)
    mean = both.mean(torch.as_tensor(more[:1]))[0].numpy()
    assert error(mean, extra[0]) < 0.1 * float((extra[0] ** 2).mean())


def test_without_pairs_the_scale_follows_the_noise_between_conditions_where_effects_are_alike(draw_screen, fit):
    design, measured, variance, *_ = draw_screen(np.random.default_rng(1))
    measured = measured + np.random.default_rng(3).normal(size=G) * measured[:K].std(0) * 2  # what all of them do
    plain = fit(design[:K], measured[:K], variance[:K])
    extra = np.random.default_rng(2).normal(size=measured.shape) * np.sqrt(4 * variance)
    noisy = fit(design[:K], (measured + extra)[:K], variance[:K])
    assert float(noisy.fitted.hyperparameters.excess) > 3 * float(plain.fitted.hyperparameters.excess)
    for posterior in (plain, noisy):
        found = posterior.fitted.hyperparameters
        assert float(found.scale) == float(expected_scale(found.excess, found.shared_covariance))
    assert float(noisy.fitted.hyperparameters.scale) < float(plain.fitted.hyperparameters.scale)


def test_noise_is_told_apart_between_conditions(draw_screen, fit):
    design, measured, variance, _, n, _ = draw_screen(np.random.default_rng(1))
    measured = measured[:n].copy()
    measured[1] += np.random.default_rng(2).normal(size=G) * np.sqrt(8 * variance[1])
    excess = fit(design[:n], measured, variance[:n]).fitted.hyperparameters.excess_by_condition
    assert int(excess.argmax()) == 1
    assert float(excess[1]) > 3


def test_rarely_seen_genes_are_less_certain(draw_screen, fit):
    design, measured, variance, _, n, _ = draw_screen(np.random.default_rng(3))
    few = np.full(n, float(N_CELLS))
    few[0] = 5
    measured, variance = measured[:n].copy(), variance[:n].copy()
    measured[0] += np.sqrt((variance[0] / BOTH) * (1 / 5 - 1 / N_CELLS)) * np.random.default_rng(4).normal(size=G)
    variance[0] *= (1 / 5 + 1 / N_CONTROLS) / BOTH
    rare = fit(design[:K], measured[:K], variance[:K], few[:K])
    # With what a condition has of its own, which hides a part of the difference.
    known = rare.draw(torch.as_tensor(design[:K]), 500).std(0).numpy().mean(1)
    assert known[0] > 1.1 * known[1:].mean()
    sd = rare.mean_and_sd(torch.as_tensor(design))[1].numpy().mean(1)
    for kind in (design.sum(1) == 1, design.sum(1) == 2):
        with_first = kind & (design[:, 0] == 1)
        assert sd[with_first].mean() > sd[kind & ~with_first].mean()


def test_a_condition_without_cells_says_nothing(draw_screen, fit):
    design, measured, variance, _, n, _ = draw_screen(np.random.default_rng(4))
    n_cells = np.full(n, N_CELLS)
    n_cells[-1] = 0
    measured, variance = measured[:n].copy(), variance[:n].copy()
    measured[-1], variance[-1] = 0.0, np.inf
    absent = fit(design[:n], measured, variance, n_cells)
    without = fit(design[: n - 1], measured[:-1], variance[:-1])
    asked = torch.as_tensor(design[n - 1 :])
    np.testing.assert_allclose(absent.mean(asked), without.mean(asked), atol=0.05)


def test_control_has_no_effect(example):
    mean, sd = example.posterior.mean_and_sd(torch.zeros(1, K))
    assert not mean.any()
    assert not sd.any()
    assert not example.posterior.draw(torch.zeros(1, K), 3).any()


def test_what_it_says_of_itself(tiny, example, draw_screen, fit):
    assert tiny.posterior.is_fitted
    assert example.posterior.combination_scale == float(example.posterior.fitted.hyperparameters.scale)
    assert tiny.posterior.control_mean is None
    design, measured, variance, *_ = draw_screen(np.random.default_rng(6))
    control = np.linspace(0, 3, 20)
    posterior = fit(design[:K], measured[:K, :20], variance[:K, :20], control_mean=control, n_steps=2)
    np.testing.assert_array_equal(posterior.control_mean, control)


def test_settings_by_name_still_work():
    with pytest.warns(FutureWarning, match=r"EffectPosterior\(temper=\.\.\.\) is now .*noise_fraction=1.0") as caught:
        posterior = EffectPosterior(temper=1.0)
    assert len(caught) == 1
    assert posterior.config == EffectPosteriorConfig(noise_fraction=1.0)
    with pytest.raises(TypeError, match=r"a config and \['spread'\]"):
        EffectPosterior(EffectPosteriorConfig(), spread=False)


def test_sets_by_their_old_name(tiny):
    with pytest.warns(FutureWarning, match=r"members of EffectPosterior.mean is now design"):
        found = tiny.posterior.mean(members=torch.eye(3))
    assert torch.equal(found, tiny.posterior.mean(torch.eye(3)))


def test_the_same_data_give_the_same_bits_however_they_are_stored(example, fit, graph):
    design, measured, variance, _, n, posterior = example
    parts = (np.asfortranarray(x[:n]) for x in (design, measured, variance))
    again = fit(*parts, targets=posterior.fitted.measured.target_columns, graph=graph)
    state, other = posterior.get_extra_state(), again.get_extra_state()
    assert all(torch.equal(value, other[name]) for name, value in state.items())
    draws = [x.draw(torch.as_tensor(design), 2) for x in (posterior, again)]
    assert torch.equal(*draws)


def test_a_panel_of_targets_alone(draw_screen, fit, predict_by_hand):
    design, measured, variance, *_ = draw_screen(np.random.default_rng(0))
    posterior = fit(design[:K], measured[:K, :K], variance[:K, :K], targets=np.arange(K))
    asked = design[[0, 1, K, K + 5]]
    expected = predict_by_hand(posterior, asked, range(K), np.zeros((K, K)))
    np.testing.assert_allclose(posterior.mean(torch.as_tensor(asked)), expected, rtol=1e-6, atol=1e-8)


def test_it_answers_only_once_fitted_and_refuses_what_is_not_finite(draw_screen, fit):
    with pytest.raises(RuntimeError, match="has not been fitted"):
        EffectPosterior().mean(torch.eye(K))
    design, measured, variance, *_ = draw_screen(np.random.default_rng(0))
    measured[0, 0] = np.inf
    with pytest.raises(ValueError, match="extreme values"):
        fit(design[:K], measured[:K], variance[:K])
