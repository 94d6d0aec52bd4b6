"""What a measurement would teach, compared with a posterior that has the measurement, found by brute force."""

from itertools import combinations

import numpy as np
import pytest
import torch

from raptorgraph.inference import EffectPosterior
from raptorgraph.inference._gain import Plan

K, G = 6, 60
LEVELS = 4.0 ** np.arange(-4, 7)
PAIRS = np.array([np.isin(np.arange(K), pair) for pair in combinations(range(K), 2)], dtype=float)
SEEN, UNSEEN = PAIRS[:3], PAIRS[3:]


@pytest.fixture(scope="module")
def fitted():
    """Five singles and three pairs; the sixth gene was never perturbed alone. Cells differ in number."""
    rng = np.random.default_rng(0)
    design = np.vstack([np.eye(K)[:-1], SEEN, [np.eye(K)[3:].sum(0)]])  # the last one of three genes
    latent = rng.normal(size=(K, 3)) @ rng.normal(size=(3, G)) * np.exp(rng.normal(size=G))
    n_cells = rng.integers(30, 90, len(design))
    effect = 0.8 * design @ latent + rng.normal(size=(len(design), G)) / np.sqrt(n_cells)[:, None]
    variance = np.exp(rng.normal(size=G)) * (1 / n_cells[:, None] + 1 / 400)
    posterior = EffectPosterior()
    arguments = (torch.as_tensor(x) for x in (design, effect, variance, n_cells))
    posterior.fit(*arguments, 400, control_mean=torch.as_tensor(effect.max(0) - 0.1), n_steps=30)
    return posterior.fitted


class BruteForce:
    """Summed posterior variance of what some sets inherit, with all latents and all measurements written out."""

    def __init__(self, fitted, deviation):
        self.fitted, self.deviation = fitted, deviation
        self.prior = {name: value.numpy() for name, value in vars(fitted.hyperparameters).items()}
        self.design = fitted.measured.design.numpy()
        self.noise = fitted.measured.condition_noise.numpy() * (1 + self.prior["excess_by_condition"])

    def loadings(self, row, klass):
        """On t, on m, on b and on the error of the controls."""
        if klass == 2:
            return np.r_[np.zeros(2 * K + 1), 1.0]
        pair = row.sum() > 1
        scale = self.prior["unseen_scale"] if row @ self.prior["unseen"] > 0 else self.prior["scale"]
        measured = np.flatnonzero((self.design == row).all(1))
        scale = self.prior["scale_by_condition"][measured[0]] if len(measured) else scale if pair else 1.0
        return np.r_[scale * row, scale * row * pair, pair, 1.0]

    def variance(self, asked, more=(), noise=0.0):
        """Summed over genes and `asked` sets, once the sets in `more` are measured, too."""
        measured = np.array([*self.design, *more])
        errors = np.r_[self.noise, np.full(len(more), noise)]
        total = 0.0
        responsibility, w = self.fitted.responsibility.numpy(), self.fitted.measured.gene_noise.numpy()
        for klass, (level, r) in [(m, pair) for m in range(3) for pair in zip(LEVELS, responsibility[m], strict=True)]:
            covariance = np.zeros((2 * K + 2, 2 * K + 2))
            if klass < 2:
                kind = ("shared_covariance", "independent_covariance")[klass]
                covariance[:K, :K] = level * self.prior[kind]
                covariance[K : 2 * K, K : 2 * K] = level * self.deviation * np.eye(K)
                covariance[-2, -2] = level * self.prior["combination_variance"]
            covariance[-1, -1] = self.fitted.measured.control_noise
            interaction = self.prior["interaction_variance"] + self.deviation
            own = self.prior["residual_variance"] + interaction * (measured.sum(1) > 1)
            own = level * (np.ones(len(measured)) if klass == 2 else own)
            loads = np.array([self.loadings(row, klass) for row in measured])
            wanted = np.array([self.loadings(row, klass) for row in asked])
            joint = loads @ covariance @ loads.T + np.diag(own + errors)
            cross = wanted @ covariance @ loads.T
            left = wanted @ covariance @ wanted.T - cross @ np.linalg.inv(joint) @ cross.T
            total += np.trace(left) * (r * w).sum()
        return total


@pytest.mark.parametrize("deviation", [0.0, 0.3])
def test_what_is_left_and_removed(fitted, deviation):
    brute, plan = BruteForce(fitted, deviation), Plan(fitted, torch.as_tensor(UNSEEN), deviation)
    assert plan.variance() == pytest.approx(brute.variance(UNSEEN), rel=1e-5)
    removed = plan.removed(torch.as_tensor(UNSEEN), 0.7).numpy()
    for k, row in enumerate(UNSEEN):
        rest = np.delete(UNSEEN, k, 0)
        assert removed[k] == pytest.approx(brute.variance(rest) - brute.variance(rest, [row], 0.7), rel=1e-4)
    assert (removed > 0).all()


def test_without_deviations_it_is_the_posteriors_own_variance(fitted):
    posterior = EffectPosterior()
    posterior._fitted = fitted
    plan = Plan(fitted, torch.as_tensor(UNSEEN), 0.0)
    responsibility, w = fitted.responsibility, fitted.measured.gene_noise
    gamma = fitted.hyperparameters.interaction_variance
    own = (responsibility[:2] * torch.as_tensor(LEVELS)[:, None] * w).sum() * gamma
    moments = posterior._moments(_sets(posterior))
    assert plan.variance() == pytest.approx(float(moments.set_variance.sum() - len(UNSEEN) * own), rel=1e-5)


def _sets(posterior):
    from raptorgraph.inference._conditioning import Sets

    return Sets.of(torch.as_tensor(UNSEEN), posterior.fitted)


def test_a_batch_accounts_for_each_measurement(fitted):
    brute, plan = BruteForce(fitted, 1.0), Plan(fitted, torch.as_tensor(UNSEEN))
    for row in UNSEEN[[4, 1, 8]]:
        plan.measure(torch.as_tensor(row), 0.4)
    rest = np.delete(UNSEEN, [4, 1, 8], 0)
    assert plan.variance() == pytest.approx(brute.variance(rest, UNSEEN[[4, 1, 8]], 0.4), rel=1e-4)
    removed = plan.removed(torch.as_tensor(rest[:1]), 0.4)
    without = rest[1:]
    measured = UNSEEN[[4, 1, 8]]
    again = brute.variance(without, measured, 0.4) - brute.variance(without, [*measured, rest[0]], 0.4)
    assert float(removed) == pytest.approx(again, rel=1e-4)


def test_a_set_that_nobody_asked_for_teaches_too(fitted):
    brute = BruteForce(fitted, 1.0)
    plan = Plan(fitted, torch.as_tensor(UNSEEN[:5]))
    removed = float(plan.removed(torch.as_tensor(UNSEEN[5:6]), 0.4))
    assert removed == pytest.approx(brute.variance(UNSEEN[:5]) - brute.variance(UNSEEN[:5], UNSEEN[5:6], 0.4), rel=1e-4)
    plan.measure(torch.as_tensor(UNSEEN[5]), 0.4)
    assert plan.variance() == pytest.approx(brute.variance(UNSEEN[:5], UNSEEN[5:6], 0.4), rel=1e-5)


def test_noise_at_which_a_share_is_learned(fitted):
    plan, pairs = Plan(fitted, torch.as_tensor(UNSEEN)), torch.as_tensor(UNSEEN)
    most = plan.removed(pairs, 0.0)
    noise = plan.noise_for(pairs, 0.8)
    for k in (0, 5, 9):
        assert float(plan.removed(pairs, float(noise[k]))[k]) == pytest.approx(0.8 * float(most[k]), rel=1e-6)


def test_noise_of_a_condition(fitted):
    plan = Plan(fitted, torch.as_tensor(UNSEEN))
    typical = np.median(fitted.measured.condition_noise) * (1 + float(fitted.hyperparameters.excess))
    assert plan.noise_of(1.0) == pytest.approx(typical)
    assert plan.noise_of(0.25) == pytest.approx(typical / 4)


def test_noise_at_which_a_share_is_learned_of_the_set_itself(fitted):
    """Of the variance of a pair with its interaction, by level: what is explained is its square over the whole."""
    plan = Plan(fitted, torch.zeros(0, K, dtype=torch.float64), 0.0)
    noise = plan.noise_for_itself(torch.as_tensor(UNSEEN[:3]), 0.8).numpy()
    r, w = fitted.responsibility.numpy(), fitted.measured.gene_noise.numpy()
    gamma, omega = (float(BruteForce(fitted, 0.0).prior[f"{kind}_variance"]) for kind in ("interaction", "residual"))
    for row, found in zip(UNSEEN[:3], noise, strict=True):
        explained = {0.0: 0.0, float(found): 0.0}
        for klass, level in np.ndindex(3, 11):
            size = LEVELS[level]
            only = r * (np.arange(3)[:, None] == klass)[..., None] * (np.arange(11) == level)[None, :, None]
            one = BruteForce(type(fitted)(fitted.measured, fitted.hyperparameters, torch.as_tensor(only)), 0.0)
            weight = (only * w).sum()
            if weight < 1e-5 * (r * w).sum():
                continue
            inherited = one.variance([row]) / weight
            known = inherited + (size * gamma if klass < 2 else 0.0)
            for nu in explained:
                total = inherited + (size * (gamma + omega) if klass < 2 else size) + nu
                explained[nu] += weight * known**2 / total
        assert explained[float(found)] == pytest.approx(0.8 * explained[0.0], rel=1e-3)


def test_pairs_by_positions_are_those_of_the_design(fitted):
    dense, positions = torch.as_tensor(UNSEEN), torch.as_tensor(np.argwhere(UNSEEN)[:, 1].reshape(-1, 2))
    one, other = Plan(fitted, dense), Plan(fitted, positions)
    for k in (3, 0):
        assert other.variance() == pytest.approx(one.variance())
        torch.testing.assert_close(other.removed(positions, 0.5), one.removed(dense, 0.5))
        torch.testing.assert_close(other.noise_for(positions, 0.8), one.noise_for(dense, 0.8))
        torch.testing.assert_close(other.noise_for_itself(positions, 0.8), one.noise_for_itself(dense, 0.8))
        one.measure(dense[k], 0.4)
        other.measure(positions[k], 0.4)
    assert other.variance() == pytest.approx(one.variance())
