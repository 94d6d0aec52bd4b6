"""Updates in blocks, against those that are exact and in double precision."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from raptorgraph.inference import _graph, _graph_blocks, infer_graph
from raptorgraph.inference._graph_blocks import BlockVariational
from raptorgraph.inference._graph_variational import Variational


def screen(k, n_genes, seed=0, *, shared_noise=True):
    """Effects of a sparse graph of programs, with their variance, targets, and the variance of the controls."""
    rng = np.random.default_rng(seed)
    size = 0.4 * np.where(rng.random(k) < 0.3, 0.1, rng.lognormal(0, 0.5, k))
    effect = size[:, None] * rng.standard_normal((k, n_genes)) * (rng.random((k, n_genes)) < 0.05)
    effect[:, :k] *= 0.2
    effect[np.arange(k), np.arange(k)] = -1.5
    graph = np.zeros((k, k))
    for i, j in rng.integers(0, k, (k, 2)):
        if i != j:
            graph[min(i, j), max(i, j)] = rng.choice([-1, 1]) * rng.uniform(0.3, 0.8)
    for i in range(k - 1, -1, -1):
        effect[i] += graph[i] @ effect
    sd = 0.05 * np.exp(0.5 * rng.standard_normal((1, n_genes)) + 0.2 * rng.standard_normal((k, 1)))
    control = 0.3 * sd.mean(0) * shared_noise
    measured = effect + sd * rng.standard_normal(effect.shape) + control * rng.standard_normal(n_genes)
    order = rng.permutation(k)
    tensors = measured[order], sd[order] ** 2, order
    return (*map(torch.as_tensor, tensors), torch.as_tensor(control**2)), graph[np.ix_(order, order)] != 0


def inferred(arguments, exact, **kwargs):
    effect, variance, targets, control = arguments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_graph, "_EXACT", 10**6 if exact else 0)
        return infer_graph(effect, variance, targets, control_variance=control, **kwargs)


@pytest.mark.parametrize(("k", "n_genes", "seed"), [(30, 300, 1), (60, 600, 0)])
def test_single_precision_changes_nothing(k, n_genes, seed, monkeypatch):
    """Within blocks all is exact while weights move, which here they always do."""
    monkeypatch.setattr(_graph_blocks, "_MOVING", -1.0)
    arguments, _ = screen(k, n_genes, seed)
    one, other = (inferred(arguments, exact) for exact in (True, False))
    for name in ("probability", "weight", "share", "programs"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_blocks_find_the_same_edges(seed):
    arguments, truth = screen(40, 400, seed)
    one, other = (inferred(arguments, exact) for exact in (True, False))
    np.testing.assert_array_equal(other.probability >= 0.5, one.probability >= 0.5)
    difference = (other.probability - one.probability).abs()
    # what is left is of weights that moved by about as much as is not carried on any more
    assert float(difference.max()) < 0.02
    assert float(difference.mean()) < 1e-4
    assert truth[(other.probability >= 0.5).numpy()].mean() > 0.7
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(other.weight.numpy() != 0, create_using=nx.DiGraph))


def test_both_have_the_same_fixed_point(monkeypatch):
    """From the state that the exact updates converge to, a round in blocks goes nowhere, however rough it is inside."""
    monkeypatch.setattr(_graph_blocks, "_MOVING", 1.0)
    monkeypatch.setattr(_graph_blocks, "_LARGE", np.inf)
    (effect, variance, targets, control), _ = screen(20, 200)
    exact = Variational(effect, variance, targets, control)
    exact.run(40)
    exact.run(120, learn=False)
    blocks = BlockVariational(effect, variance, targets, control)
    for name in ("weight", "weight_variance", "edge", "probability"):
        getattr(blocks, name).copy_(getattr(exact, name))
    for name in ("e", "e_variance", "c"):
        setattr(blocks, name, getattr(exact, name).float())
    for name in ("program_fraction", "program_variance", "edge_fraction"):
        setattr(blocks, name, getattr(exact, name))
    blocks.moving = 0.0
    blocks.run(3, learn=False)
    np.testing.assert_allclose(blocks.weight, exact.weight, atol=2e-3)
    np.testing.assert_allclose(blocks.probability, exact.probability, atol=2e-3)


class Sizes(TorchDispatchMode):
    """Size of the largest tensor that is made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(value, torch.Tensor) and not value._is_view():
                self.largest = max(self.largest, value.numel())
        return found


def test_no_array_is_larger_than_the_effects_or_the_weights():
    k, n_genes = 130, 150
    arguments, _ = screen(k, n_genes)
    with Sizes() as sizes:
        inferred(arguments, False, n_sweeps=1)
    assert k * n_genes <= sizes.largest <= max(k * n_genes, k * k)


def test_many_latents_take_blocks(monkeypatch):
    monkeypatch.setattr(_graph, "_EXACT", 10)
    used = []
    for name, updates in (("Variational", Variational), ("BlockVariational", BlockVariational)):
        monkeypatch.setattr(_graph, name, lambda *args, updates=updates: used.append(updates) or updates(*args))
    for k in (10, 11):
        (effect, variance, targets, _), _ = screen(k, 60)
        infer_graph(effect, variance, targets, n_sweeps=2)
    assert used == [Variational, BlockVariational]


def test_blocks_without_targets_or_control_variance():
    (effect, variance, targets, _), _ = screen(12, 90, shared_noise=False)
    one, other = (
        inferred((effect, variance, torch.full_like(targets, -1), None), exact, directions=True)
        for exact in (True, False)
    )
    np.testing.assert_allclose(other.probability, one.probability, atol=1e-3)
    np.testing.assert_allclose(other.direction_support, one.direction_support, atol=1e-2)
    assert other.programs.dtype == torch.float64


def test_blocks_give_the_same_result_again():
    arguments, _ = screen(30, 200)
    one, other = inferred(arguments, False), inferred(arguments, False)
    assert torch.equal(one.probability, other.probability)
    assert torch.equal(one.weight, other.weight)
