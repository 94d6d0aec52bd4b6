"""Support of directions on effects whose order is known, or cannot be known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from raptorgraph.inference import infer_graph
from raptorgraph.inference._graph_directions import Directions, _Pairs, _Program, _standardized
from raptorgraph.inference._graph_modules import module_labels

NOISE = 0.1


def screen(pairs, rng, n_genes=400):
    """Pairs of effects e_i = w e_j + p_i, with w and the number of genes of p_i, and their variance, 2E x G.

    The last genes are those of the perturbations themselves, each in its own effect alone and in those that hold it.
    """
    effect = np.zeros((2 * len(pairs), n_genes))
    k = len(effect)
    targets = n_genes - k + np.arange(k)
    for row, (weight, n_own) in enumerate(pairs):
        order = rng.permutation(n_genes - k)
        common, own = order[:40], order[40 : 40 + n_own]
        i, j = 2 * row, 2 * row + 1
        effect[j, common] = rng.normal(0, 0.8, 40)
        effect[j, targets[j]] = -1.5
        effect[i] = weight * effect[j]
        effect[i, own] += rng.normal(0, 0.8, n_own)
        effect[i, targets[i]] = -1.5
    noisy = effect + NOISE * rng.standard_normal(effect.shape)
    return torch.as_tensor(noisy), torch.full(effect.shape, NOISE**2, dtype=torch.float64), torch.as_tensor(targets)


def directions(effect, variance, targets=None):
    on_target = torch.zeros_like(effect, dtype=torch.bool)
    if targets is not None:
        on_target[torch.arange(len(targets)), targets] = True
    means = torch.where(effect.abs() > 3.5 * variance.sqrt(), effect, 0.0)
    return Directions(
        effect, variance, means, on_target, target_variance=4.0, program_fraction=0.05, program_variance=0.3
    )


def test_a_clear_direction_is_supported_whichever_comes_first():
    rng = np.random.default_rng(0)
    effect, variance, targets = screen([(0.5, 30), (-0.7, 25), (1.5, 40)], rng)
    found = directions(effect, variance, targets)
    first, second = torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5])
    support = found.support(first, second)
    assert support.min() > 0.95
    torch.testing.assert_close(found.support(second, first), 1 - support, rtol=0, atol=0.02)


@pytest.mark.parametrize("weight", [0.5, 1.0, -1.5])
def test_proportional_effects_have_no_direction(weight):
    """Whatever their sizes: a smaller effect is not the cause."""
    rng = np.random.default_rng(1)
    effect, variance, _ = screen([(weight, 0)] * 5, rng)
    effect[:, -10:] = NOISE * torch.as_tensor(rng.standard_normal((10, 10)))  # of genes that are not measured
    found = infer_graph(effect, variance, torch.full((10,), -1), directions=True)
    first = torch.arange(0, 10, 2)
    edge = (found.probability >= 0.5).numpy()
    assert (edge | edge.T)[first, first + 1].all()
    assert (found.direction_support[first, first + 1] - 0.5).abs().max() < 0.1
    labels = module_labels(edge, found.direction_support.numpy(), found.share.numpy())
    assert all(labels[i, i + 1] or labels[i + 1, i] for i in first.tolist())


def test_a_step_of_the_search_that_goes_too_far_can_come_back():
    effect, variance, targets = screen([(0.5, 30)], np.random.default_rng(3))
    pairs = _Pairs.of(directions(effect, variance, targets), torch.tensor([0]), torch.tensor([1]))
    far = torch.tensor([500.0], dtype=torch.float64, requires_grad=True)
    density = pairs.log_likelihood(torch.ones(1), _Program(far, torch.zeros(1)), _Program(-far, torch.zeros(1)))
    density.sum().backward()
    assert torch.isfinite(density).all()
    assert torch.isfinite(far.grad).all()


def test_effects_with_a_common_part_hold_neither_the_other():
    rng = np.random.default_rng(2)
    effect, variance, targets = screen([(1.0, 30), (1.0, 30)], rng)
    for j in (1, 3):  # others than those of i
        free = np.flatnonzero((effect[j].abs() < 4 * NOISE) & (effect[j - 1].abs() < 4 * NOISE))[:20]
        effect[j, free] += torch.as_tensor(rng.choice([-1.0, 1.0], 20))
    support = directions(effect, variance, targets).support(torch.tensor([0, 2]), torch.tensor([1, 3]))
    assert (support - 0.5).abs().max() < 0.05


def test_density_of_a_pair_is_the_mixture_of_normals():
    rng = np.random.default_rng(3)
    a, b = torch.as_tensor(rng.normal(size=(2, 1, 4)))
    v_a, v_b = torch.as_tensor(rng.uniform(0.1, 0.5, (2, 1, 4)))
    nowhere = torch.zeros(1, 4, dtype=torch.bool)
    pairs = _Pairs(a, b, v_a, v_b, nowhere, nowhere, 1.0, (0.0, 0.0))

    def program(sd, fraction):
        return _Program(torch.tensor([math.log(sd)]), torch.tensor([math.log(fraction / (1 - fraction))]))

    settings = [(0.8, 0.3), (0.5, 0.2), (1.1, 0.4)]  # of h, of a's own and of b's own
    w = 0.7
    found = pairs.log_likelihood(torch.tensor([w]), *(program(*each) for each in settings))
    for g in range(4):
        density = 0.0
        for state in np.ndindex(2, 2, 2):
            h, own_a, own_b = (on * sd**2 for on, (sd, _) in zip(state, settings, strict=True))
            chance = np.prod([p if on else 1 - p for on, (_, p) in zip(state, settings, strict=True)])
            covariance = [[w * w * h + own_a + v_a[0, g], w * h], [w * h, h + own_b + v_b[0, g]]]
            density += chance * multivariate_normal([0, 0], covariance).pdf([a[0, g], b[0, g]])
        assert float(found[0, g]) == pytest.approx(np.log(density), abs=1e-6)


def test_the_statistic_is_standard_normal_where_both_are_equally_wrong():
    rng = np.random.default_rng(4)
    z = _standardized(torch.as_tensor(rng.standard_t(5, (4000, 200))))
    assert float(z.mean()) == pytest.approx(0, abs=0.05)
    assert float(z.std()) == pytest.approx(1, abs=0.05)
    assert _standardized(torch.zeros(1, 200)).item() == 0


def test_resemblance_is_the_cosine_of_what_stands_out():
    rng = np.random.default_rng(5)
    effect, variance = torch.as_tensor(rng.normal(size=(2, 300))), torch.as_tensor(rng.uniform(0.1, 1, (2, 300)))
    found = directions(effect, variance, torch.tensor([7, 9]))
    weight = 1 / variance.sum(0).sqrt()
    weight[[7, 9]] = 0.0  # of their own genes
    expected = torch.nn.functional.cosine_similarity(weight * found.e[0], weight * found.e[1], dim=0)
    assert float(found.resemblance(torch.tensor([0]), torch.tensor([1]))) == pytest.approx(float(expected))
    nothing = torch.zeros(2, 300, dtype=torch.float64)
    assert not directions(nothing, variance).resemblance(torch.tensor([0]), torch.tensor([1])).any()


def test_support_of_the_edges_of_a_graph():
    """A chain of three, a pair of proportional effects, and an order of the rows that does not matter."""
    rng = np.random.default_rng(6)
    k, n_genes = 6, 400
    programs = 0.6 * rng.standard_normal((k, n_genes)) * (rng.random((k, n_genes)) < 0.06)
    programs[4] = 0.0
    programs[4, 0] = 0.0
    weights = np.zeros((k, k))
    weights[0, 1], weights[1, 2], weights[4, 5] = 0.6, -0.7, 0.9
    effect = np.linalg.inv(np.eye(k) - weights) @ programs
    noisy = torch.as_tensor(effect + 0.05 * rng.standard_normal(effect.shape))
    variance, targets = torch.full((k, n_genes), 0.05**2, dtype=torch.float64), torch.full((k,), -1)
    found = infer_graph(noisy, variance, targets, directions=True)
    support = found.direction_support
    assert support[0, 1] > 0.98
    assert support[1, 2] > 0.98
    assert float(support[4, 5]) == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(
        support + support.T, torch.where(support.isnan(), torch.nan, torch.ones_like(support)), equal_nan=True
    )
    edge = found.probability >= 0.5
    assert (support.isnan() == ~(edge | edge.T)).all()
    assert infer_graph(noisy, variance, targets).direction_support is None
    order = torch.as_tensor(rng.permutation(k))
    other = infer_graph(noisy[order], variance[order], targets, directions=True).direction_support
    torch.testing.assert_close(other, support[order][:, order], rtol=0, atol=0.02, equal_nan=True)


def test_no_edge_no_support():
    rng = np.random.default_rng(7)
    effect = torch.as_tensor(0.1 * rng.standard_normal((5, 200)))
    found = infer_graph(effect, torch.full((5, 200), 0.01), torch.arange(5), directions=True)
    assert found.direction_support.isnan().all()
