from itertools import combinations

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior
from raptorgraph.inference._effects import _TARGET
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import ALONE, PRIVATE, TOGETHER, expected_scale

K, G, N_CELLS, N_CONTROLS = 8, 400, 50, 300
BOTH = 1 / N_CELLS + 1 / N_CONTROLS
GRAPH = np.zeros((K, K))
GRAPH[0, 1], GRAPH[1, 2], GRAPH[4, 2] = 0.8, -0.6, 0.5


def screen(rng, *, scale=0.7, n_pairs=14, interaction=0.02):
    """Effects drawn from the model itself: sets, measured effects, their variance, true effects of all sets."""
    pairs = np.zeros((K * (K - 1) // 2, K))
    for row, pair in zip(pairs, combinations(range(K), 2), strict=True):
        row[list(pair)] = 1
    members = np.vstack([np.eye(K), rng.permutation(pairs)])
    loadings = rng.normal(size=(K, 2))
    gene = np.exp(rng.normal(size=G))  # how much a gene responds
    latent = (loadings @ rng.normal(size=(2, G)) + 0.7 * rng.normal(size=(K, G))) * np.sqrt(gene)
    noise = 4 * np.exp(0.5 * rng.normal(size=G))
    combined = (members.sum(1) > 1)[:, None]
    true = np.where(combined, scale, 1.0) * (members @ latent)
    true += combined * np.sqrt(interaction * gene) * rng.normal(size=true.shape)
    variance = np.tile(noise * BOTH, (len(true), 1))
    control = np.sqrt(noise / N_CONTROLS) * rng.normal(size=G)
    measured = true + np.sqrt(noise / N_CELLS) * rng.normal(size=true.shape) - control
    return members, measured, variance, true, K + n_pairs


def fitted(members, measured, variance, n_cells=None, **kwargs):
    n_cells = np.full(len(members), N_CELLS) if n_cells is None else n_cells
    posterior = EffectPosterior()
    kwargs = {name: torch.as_tensor(value) for name, value in kwargs.items()}
    posterior.fit(*(torch.as_tensor(x) for x in (members, measured, variance, n_cells)), N_CONTROLS, **kwargs)
    return posterior


def error(found, true):
    return float(((np.asarray(found) - true) ** 2).mean())


@pytest.fixture(scope="module")
def example():
    members, measured, variance, true, n = screen(np.random.default_rng(0))
    targets = np.array([5, -1, -1, 9, *[-1] * (K - 4)])
    measured[members[:, 0] == 1, 5] -= 3.0  # a knock-down, seen with all of its combinations
    posterior = fitted(members[:n], measured[:n], variance[:n], targets=targets, graph=GRAPH)
    return members, measured, variance, true, n, posterior


def _joint(posterior, members, n, g):
    """Prior covariance of measured and asked sets of gene g, by class and level, and the noise of the measured ones."""
    state = {name: value.numpy() for name, value in posterior.state.items()}
    pair = (members.sum(1) > 1).astype(float)
    weights = members * np.where(pair, state["scale"], 1.0)[:, None]
    same = (members[:, None] == members[None]).all(2).astype(float)
    own = state["own"] * np.eye(len(members))  # two measurements of a set share all but what is their own
    common = state["shared"] * np.outer(pair, pair) + state["interaction"] * pair[:, None] * same + own
    signal = np.empty((3, len(members), len(members)))
    signal[TOGETHER] = weights @ state["covariance"] @ weights.T + common
    paths = np.eye(K) + GRAPH + GRAPH @ GRAPH  # (I - W)^-1, as no path of the graph is longer
    along = paths @ paths.T
    signal[ALONE] = weights @ (along / np.trace(along) * K) @ weights.T + common
    signal[PRIVATE] = same
    noise = np.zeros_like(signal[0])
    noise[:n, :n] = np.diag(1 + state["excess_of"]) / N_CELLS / BOTH
    target = np.full_like(noise, 1 / N_CONTROLS / BOTH)  # the error of the controls, common to all
    for i in np.flatnonzero(state["targets"] == g):
        target += _TARGET * np.outer(members[:, i], members[:, i])
    levels = LEVELS.numpy()[:, None, None]
    return state["gene_noise"][g] * (levels * signal[:, None] + target), state["gene_noise"][g] * noise


def test_posterior_mean_is_that_of_the_conditional_gaussian(example):
    """Conditioned with numpy on the joint covariance of asked and measured effects, class by class, level by level."""
    members, measured, _, _, n, posterior = example
    asked = np.vstack([members[:2], members[n - 1 : n + 3]])
    mean = posterior.posterior_mean(torch.as_tensor(asked))
    for g in (0, 5, 9, 17, 399):
        signal, noise = _joint(posterior, np.vstack([members[:n], asked]), n, g)
        expected = 0.0
        for m, level in np.ndindex(signal.shape[:2]):
            joint = signal[m, level]
            value = joint[n:, :n] @ np.linalg.solve(joint[:n, :n] + noise[:n, :n], measured[:n, g])
            expected = expected + float(posterior.state["share"][m, level, g]) * value
        np.testing.assert_allclose(mean[:, g], expected, rtol=1e-6, atol=1e-9)


def test_variance_is_that_of_the_conditional_gaussian(example):
    members, measured, _, _, n, posterior = example
    asked = torch.as_tensor(members[n - 1 : n + 3])
    prediction, sd = (x.numpy() for x in posterior.mean_and_sd(asked))
    between = float(posterior.state["excess"]) / N_CELLS / BOTH
    for g in (0, 5, 9, 399):
        signal, noise = _joint(posterior, np.vstack([members[:n], asked]), n, g)
        mean = square = 0.0
        for m, level in np.ndindex(signal.shape[:2]):
            joint, share = signal[m, level], float(posterior.state["share"][m, level, g])
            gain = joint[n:, :n] @ np.linalg.inv(joint[:n, :n] + noise[:n, :n])
            value = gain @ measured[:n, g]
            mean = mean + share * value
            square = square + share * (value**2 + np.diag(joint[n:, n:] - gain @ joint[:n, n:]))
        expected = square - mean**2 + (prediction[:, g] - mean) ** 2 + between * float(posterior.state["gene_noise"][g])
        np.testing.assert_allclose(sd[:, g], np.sqrt(expected), rtol=1e-6)


def test_probabilities_of_classes_are_those_of_the_densities(example):
    from scipy.stats import multivariate_normal

    members, measured, _, _, n, posterior = example
    for g in (0, 5, 9, 399):
        signal, noise = _joint(posterior, members[:n], n, g)
        weights = posterior.state["log_weights"].numpy()
        density = np.array(
            [
                [multivariate_normal(cov=signal[m, level] + noise).logpdf(measured[:n, g]) for level in range(11)]
                for m in range(3)
            ]
        )
        density = density + weights
        density[PRIVATE] = -np.inf  # closed where the expression of controls is not known
        share = np.exp(density - density.max())
        np.testing.assert_allclose(posterior.state["share"][:, :, g], share / share.sum(), atol=1e-8)


def test_it_learns_the_scale_and_its_intervals_cover_unmeasured_pairs(example):
    members, measured, _, true, n, posterior = example
    others = np.delete(np.arange(G), [5])
    assert float(posterior.state["scale"]) == pytest.approx(0.7, abs=0.05)
    mean, sd = (x.numpy()[:, others] for x in posterior.mean_and_sd(torch.as_tensor(members[n:])))
    additive, true = (members[n:] @ measured[:K])[:, others], true[n:, others]
    assert error(mean, true) < 0.5 * error(additive, true)
    assert error(mean, true) < 0.9 * error(0.7 * additive, true)  # not by its scale alone
    covered = (np.abs(mean - true) < 1.645 * sd).mean()
    assert 0.85 < covered < 0.95


def test_predictions_trade_a_little_error_for_the_spread_of_true_effects(example):
    members, _, _, true, n, posterior = example
    others = np.delete(np.arange(G), [5])
    asked = torch.as_tensor(members[n:])
    mean, predicted, true = (
        posterior.posterior_mean(asked)[:, others],
        posterior.mean(asked)[:, others],
        true[n:, others],
    )
    assert error(mean, true) <= error(predicted, true) < 1.1 * error(mean, true)
    spread = [float(((x - x.mean(0)) ** 2).sum()) for x in (mean, predicted)]
    assert spread[0] < spread[1] < 1.3 * spread[0]


def test_measured_singles_are_freed_of_noise(example):
    members, measured, _, true, _, posterior = example
    mean = posterior.mean(torch.as_tensor(members[:K])).numpy()
    others = np.delete(np.arange(G), [5])
    assert error(mean[:, others], true[:K, others]) < 0.85 * error(measured[:K, others], true[:K, others])


def test_effects_are_expected_along_the_graph():
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
            posterior = fitted(np.eye(K), measured, variance, **kwargs)
            found[name].append(error(posterior.mean(torch.eye(K, dtype=torch.float64)), true))
    found = {name: np.mean(errors) for name, errors in found.items()}
    assert found["right"] < 0.97 * found["none"]
    assert found["right"] < 0.97 * found["wrong"]


def test_the_graph_can_be_left_out(example):
    members, measured, variance, _, n, posterior = example
    data = [torch.as_tensor(x[:n]) for x in (members, measured, variance)]
    n_cells, asked = torch.full((n,), N_CELLS), torch.as_tensor(members)
    without, none = EffectPosterior(graph=False), EffectPosterior()
    without.fit(*data, n_cells, N_CONTROLS, graph=torch.as_tensor(GRAPH))
    none.fit(*data, n_cells, N_CONTROLS)
    torch.testing.assert_close(without.mean(asked), none.mean(asked), rtol=0, atol=0)
    assert not torch.allclose(posterior.mean(asked), none.mean(asked))


def test_the_effect_on_a_target_is_kept_whole_in_combinations(example):
    members, measured, _, true, n, posterior = example
    with_first, others = (members[n:, 0] == value for value in (1, 0))
    predicted = posterior.mean(torch.as_tensor(members[n:])).numpy()[:, 5]
    assert (predicted - true[n:, 5])[with_first].mean() == pytest.approx(-3.0, abs=0.4)
    assert (predicted - true[n:, 5])[others].mean() == pytest.approx(0.0, abs=0.4)


def test_a_transcript_of_one_condition_is_not_carried_over():
    members, measured, variance, *_ = screen(np.random.default_rng(5))
    control = np.full(G, 20.0)
    control[[3, 4]] = 0.01, 20.0
    measured[:, 3:5] = np.sqrt(variance[:, 3:5]) * np.random.default_rng(7).normal(size=(len(measured), 2))
    measured[2, 3:5] += 8.0  # appears from nothing; is raised where it is expressed
    posterior = fitted(members[:K], measured[:K], variance[:K], control_mean=control)
    private = posterior.state["share"][PRIVATE].sum(0)
    assert private[3] > 0.1  # ten times the share given beforehand
    assert private[4] < 1e-6
    pair = torch.zeros(1, K)
    pair[0, [2, 6]] = 1
    predicted = posterior.mean(pair)[0]
    assert float(predicted[4]) > 2.0
    assert float(predicted[3]) < 0.8 * float(predicted[4])


def test_no_gene_falls_below_zero_expression():
    members, measured, variance, *_ = screen(np.random.default_rng(6))
    control = np.full(G, 0.5)
    posterior = fitted(members[:K], measured[:K], variance[:K], control_mean=control)
    assert float(posterior.mean(torch.as_tensor(members)).min()) == -0.5
    assert float(posterior.draw(torch.as_tensor(members[:3]), 5).min()) == -0.5


def test_the_size_of_effects_that_only_pairs_show_is_no_evidence_of_the_scale():
    rng = np.random.default_rng(8)
    members, measured, variance, _, n = screen(rng)
    # Two more genes, strong, in pairs with each other and with the others only.
    members = np.pad(members[:n], ((0, 0), (0, 2)))
    more = np.zeros((4, K + 2))
    more[0, [K, K + 1]] = more[1, [0, K]] = more[2, [1, K]] = more[3, [2, K + 1]] = 1
    strong = 5 * rng.normal(size=(2, G))
    extra = more[:, K:] @ strong + 0.7 * more[:, :K] @ measured[:K]
    both = fitted(np.vstack([members, more]), np.vstack([measured[:n], extra]), np.vstack([variance[:n], variance[:4]]))
    assert float(both.state["scale"]) == pytest.approx(0.7, abs=0.06)
    mean = both.mean(torch.as_tensor(more[:1]))[0].numpy()
    assert error(mean, extra[0]) < 0.1 * float((extra[0] ** 2).mean())


def test_without_pairs_the_scale_follows_the_noise_between_conditions():
    members, measured, variance, *_ = screen(np.random.default_rng(1))
    plain = fitted(members[:K], measured[:K], variance[:K])
    extra = np.random.default_rng(2).normal(size=measured.shape) * np.sqrt(4 * variance)
    noisy = fitted(members[:K], (measured + extra)[:K], variance[:K])
    assert float(noisy.state["excess"]) > 3 * float(plain.state["excess"])
    for posterior in (plain, noisy):
        assert float(posterior.state["scale"]) == float(expected_scale(posterior.state["excess"]))
    assert float(noisy.state["scale"]) < float(plain.state["scale"])


def test_noise_is_told_apart_between_conditions():
    members, measured, variance, _, n = screen(np.random.default_rng(1))
    measured = measured[:n].copy()
    measured[1] += np.random.default_rng(2).normal(size=G) * np.sqrt(8 * variance[1])
    excess = fitted(members[:n], measured, variance[:n]).state["excess_of"]
    assert int(excess.argmax()) == 1
    assert float(excess[1]) > 3


def test_rarely_seen_genes_are_less_certain():
    members, measured, variance, _, n = screen(np.random.default_rng(3))
    few = np.full(n, float(N_CELLS))
    few[0] = 5
    measured, variance = measured[:n].copy(), variance[:n].copy()
    measured[0] += np.sqrt((variance[0] / BOTH) * (1 / 5 - 1 / N_CELLS)) * np.random.default_rng(4).normal(size=G)
    variance[0] *= (1 / 5 + 1 / N_CONTROLS) / BOTH
    rare = fitted(members[:K], measured[:K], variance[:K], few[:K])
    # What is known of the gene itself, and with what a condition has of its own.
    known = rare.draw(torch.as_tensor(members[:K]), 500, torch.Generator().manual_seed(0)).std(0).numpy().mean(1)
    assert known[0] > 1.2 * known[1:].mean()
    sd = rare.mean_and_sd(torch.as_tensor(members))[1].numpy().mean(1)
    for kind in (members.sum(1) == 1, members.sum(1) == 2):
        with_first = kind & (members[:, 0] == 1)
        assert sd[with_first].mean() > sd[kind & ~with_first].mean()


def test_a_condition_without_cells_says_nothing():
    members, measured, variance, _, n = screen(np.random.default_rng(4))
    n_cells = np.full(n, N_CELLS)
    n_cells[-1] = 0
    measured, variance = measured[:n].copy(), variance[:n].copy()
    measured[-1], variance[-1] = 0.0, np.inf
    absent = fitted(members[:n], measured, variance, n_cells)
    without = fitted(members[: n - 1], measured[:-1], variance[:-1])
    asked = torch.as_tensor(members[n - 1 :])
    np.testing.assert_allclose(absent.mean(asked), without.mean(asked), atol=0.05)


def test_draws_lie_about_the_prediction(example):
    members, *_, posterior = example
    asked = torch.as_tensor(np.vstack([members[:2], members[-1:]]))
    draws = posterior.draw(asked, 4000, torch.Generator().manual_seed(0)).numpy()
    mean, sd = (x.numpy() for x in posterior.mean_and_sd(asked))
    assert (np.abs(draws.mean(0) - mean) < 5 * draws.std(0) / np.sqrt(4000) + 1e-6).all()
    assert (draws.std(0) < 1.05 * sd).all()  # without what is a condition's own
    assert (draws.std(0).mean(1) > 0.5 * sd.mean(1)).all()
    again = posterior.draw(asked, 4000, torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_array_equal(draws, again)


def test_control_has_no_effect_and_the_state_travels(example):
    members, *_, posterior = example
    mean, sd = posterior.mean_and_sd(torch.zeros(1, K))
    assert not mean.any()
    assert not sd.any()
    assert not posterior.draw(torch.zeros(1, K), 3).any()
    other = EffectPosterior()
    assert not other.is_fitted
    other.load_state_dict(posterior.state_dict())
    assert torch.equal(other.mean(torch.as_tensor(members)), posterior.mean(torch.as_tensor(members)))


def test_the_same_data_give_the_same_bits(example):
    members, measured, variance, _, n, posterior = example
    again = fitted(members[:n], measured[:n], variance[:n], targets=posterior.state["targets"], graph=GRAPH)
    assert all(torch.equal(value, again.state[name]) for name, value in posterior.state.items())


def test_a_panel_of_targets_alone():
    members, measured, variance, *_ = screen(np.random.default_rng(0))
    posterior = fitted(members[:K], measured[:K, :K], variance[:K, :K], targets=np.arange(K))
    assert torch.isfinite(posterior.mean(torch.as_tensor(members))).all()


def test_it_answers_only_once_fitted_and_refuses_what_is_not_finite():
    with pytest.raises(RuntimeError, match="has not been fitted"):
        EffectPosterior().mean(torch.eye(K))
    members, measured, variance, *_ = screen(np.random.default_rng(0))
    measured[0, 0] = np.inf
    with pytest.raises(ValueError, match="extreme values"):
        fitted(members[:K], measured[:K], variance[:K])
