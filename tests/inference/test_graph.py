"""The inferred graph against structural models whose graph is known."""

import networkx as nx
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from raptorgraph.inference import _graph, infer_graph

NOISE = 0.05


def structural_effects(adjacency, programs, own, rng, noise=NOISE, own_size=-1.5):
    """Effects e = (I - W)^-1 b with noise, for programs in a fraction of the genes and own genes."""
    k = len(adjacency)
    direct = programs.copy()
    for i, column in enumerate(own):
        if column >= 0:
            direct[:, column] *= 0.2
            direct[i, column] = own_size
    effect = np.linalg.inv(np.eye(k) - adjacency) @ direct
    noisy = effect + noise * rng.standard_normal(effect.shape)
    return torch.as_tensor(noisy), torch.full(effect.shape, noise**2, dtype=torch.float64), direct


def sparse_programs(k, n_genes, rng, density=0.05, size=0.4):
    return size * rng.standard_normal((k, n_genes)) * (rng.random((k, n_genes)) < density)


def random_dag(k, rng, degree=1.0):
    order = rng.permutation(k)
    upper = np.triu(rng.random((k, k)) < 2 * degree / (k - 1), k=1)
    weights = rng.uniform(0.3, 0.8, (k, k)) * rng.choice([-1, 1], (k, k)) * upper
    back = np.argsort(order)
    return weights[np.ix_(back, back)]


def called(found):
    return (found.probability >= 0.5).numpy()


def test_a_chain_is_found_with_its_weights():
    ratios = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        k, n_genes = 6, 400
        truth = np.diag([0.7, -0.5, 0.6, 0.4, -0.8], 1)
        own, programs = torch.arange(k), sparse_programs(k, n_genes, rng)
        programs[:, :k] = 0.0
        effect, variance, direct = structural_effects(truth, programs, own, rng)
        found = infer_graph(effect, variance, own)
        np.testing.assert_array_equal(called(found), truth != 0)
        # a part of the effect of the head of the chain is its own
        assert np.abs(found.programs.numpy() - direct).max() < 6 * NOISE
        total = np.linalg.inv(np.eye(k) - truth) @ direct
        carried = 0.7 * np.linalg.norm(total[1]) / np.linalg.norm(total[0])
        assert float(found.share[0, 1]) == pytest.approx(carried, abs=0.1)
        ratios.append(found.weight.numpy()[truth != 0] / truth[truth != 0])
    # priors shrink weights by a few per cent; their errors are those of noise
    np.testing.assert_allclose(np.mean(ratios, axis=0), 0.98, atol=0.04)
    assert np.std(ratios, axis=0).max() < 0.1


@pytest.mark.parametrize("missing", [0.0, 0.4, 1.0])
def test_random_graphs_are_found_also_without_the_targets(missing):
    scores, orientation = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        k = 20
        truth = random_dag(k, rng)
        own = np.arange(k)
        own[rng.permutation(k)[: round(missing * k)]] = -1
        effect, variance, _ = structural_effects(truth, sparse_programs(k, 500, rng), own, rng)
        found = infer_graph(effect, variance, torch.as_tensor(own))
        off = ~np.eye(k, dtype=bool)
        scores.append(average_precision_score(truth[off] != 0, found.weight.abs().numpy()[off]))
        hit = truth != 0
        orientation.append(called(found)[hit].mean() - called(found).T[hit].mean())
        assert nx.is_directed_acyclic_graph(nx.from_numpy_array(found.weight.numpy() != 0, create_using=nx.DiGraph))
    assert np.mean(scores) > 0.95
    assert np.mean(orientation) > 0.9


@pytest.mark.parametrize("own_size", [-0.1, 0.0])
def test_targets_may_keep_their_transcript(own_size):
    """As after many knock-outs: the effect on the own gene says nothing of how large others are."""
    scores = []
    for seed in range(3):
        rng, own = np.random.default_rng(seed), np.arange(20)
        truth = random_dag(20, rng)
        effect, variance, _ = structural_effects(truth, sparse_programs(20, 400, rng), own, rng, own_size=own_size)
        found = infer_graph(effect, variance, torch.as_tensor(own))
        off = ~np.eye(20, dtype=bool)
        scores.append(average_precision_score(truth[off] != 0, found.weight.abs().numpy()[off]))
        assert called(found).sum() <= (truth != 0).sum() + 2
    assert np.mean(scores) > 0.8


@pytest.mark.parametrize("largest_exact", [200, 0])
def test_effects_that_have_nothing_in_common_make_no_edge(largest_exact, monkeypatch):
    """Half of the perturbations move a few genes, each its own and not its target, and the others nothing."""
    monkeypatch.setattr(_graph, "_EXACT", largest_exact)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        program = sparse_programs(16, 400, rng, density=0.1, size=0.8)
        program[8:] = 0
        effect = torch.as_tensor(program + 0.1 * rng.standard_normal((16, 400)))
        found = infer_graph(effect, torch.full((16, 400), 0.01, dtype=torch.float64), torch.arange(16))
        assert called(found).sum() <= 1


def test_noise_of_shared_controls_makes_no_edge():
    """All effects are differences to the same control cells, so that their errors agree."""
    rng = np.random.default_rng(1)
    k, n_genes = 15, 400
    common = 0.1 * rng.standard_normal(n_genes)
    effect = torch.as_tensor(common + 0.03 * rng.standard_normal((k, n_genes)))
    variance = torch.full((k, n_genes), 0.03**2, dtype=torch.float64)
    own = torch.arange(k)
    known = infer_graph(effect, variance, own, control_variance=torch.full((n_genes,), 0.1**2, dtype=torch.float64))
    assert not called(known).any()
    assert float(known.weight.abs().max()) < 0.05
    ignored = infer_graph(effect, variance, own)
    assert called(ignored).any()  # so the test can fail


@pytest.mark.parametrize("largest_exact", [200, 0])
def test_noise_of_the_controls_of_a_batch_makes_no_edge(largest_exact, monkeypatch):
    """Effects of one batch share the error of its controls."""
    monkeypatch.setattr(_graph, "_EXACT", largest_exact)
    rng = np.random.default_rng(1)
    n_genes, batch = 400, np.repeat(range(3), 5)
    loadings = torch.as_tensor(1.5 * np.eye(3)[batch])
    common, of_batches = 0.05 * rng.standard_normal((1, n_genes)), 0.05 * rng.standard_normal((3, n_genes))
    effect = common + loadings.numpy() @ of_batches + 0.03 * rng.standard_normal((15, n_genes))
    effect[np.arange(15), np.arange(15)] -= 1.0
    effect[0, 100:130] += rng.normal(size=30)
    effect[1] += 0.5 * effect[0]  # the only edge, within a batch
    given = torch.as_tensor(effect), torch.full((15, n_genes), 0.03**2, dtype=torch.float64), torch.arange(15)
    control = {"control_variance": torch.full((n_genes,), 0.05**2, dtype=torch.float64)}
    known = infer_graph(*given, **control, control_loadings=loadings)
    assert list(zip(*np.nonzero(called(known)), strict=True)) == [(1, 0)]
    assert called(infer_graph(*given, **control)).sum() > 5  # so the test can fail
    # how the errors are written down changes nothing
    turned = loadings @ torch.as_tensor(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    torch.testing.assert_close(
        infer_graph(*given, **control, control_loadings=turned).weight, known.weight, atol=0.01, rtol=0
    )
    with pytest.raises(ValueError, match="control_loadings are of errors with the control_variance"):
        infer_graph(*given, control_loadings=loadings)


def test_no_effect_no_edge():
    rng = np.random.default_rng(2)
    effect = torch.as_tensor(NOISE * rng.standard_normal((30, 300)))
    found = infer_graph(effect, torch.full((30, 300), NOISE**2, dtype=torch.float64), torch.arange(30))
    assert not called(found).any()


def test_zhangs_toy_chain():
    """Five latents in a chain of rectified sums that are read directly, and shifts of 5 (Zhang et al. 2023)."""
    rng = np.random.default_rng(0)
    cells = []
    for hit in (None, *range(5)):
        u = rng.standard_normal((2048, 5))
        for j in range(5):
            u[:, j] += np.maximum(u[:, j - 1], 0) if j else 0.0
            u[:, j] += 5.0 if j == hit else 0.0
        cells.append(u)
    mean, var = (np.array([getattr(u, name)(axis=0) for u in cells]) / d for name, d in (("mean", 1), ("var", 2048)))
    found = infer_graph(
        torch.as_tensor(mean[1:] - mean[0]),
        torch.as_tensor(var[1:]),
        torch.arange(5),
        control_variance=torch.as_tensor(var[0]),
    )
    np.testing.assert_array_equal(called(found), np.diag(np.ones(4), 1))


def test_a_cycle_loses_its_weakest_edge():
    rng = np.random.default_rng(3)
    truth = np.zeros((3, 3))
    truth[0, 1], truth[1, 2], truth[2, 0] = 0.8, 0.7, 0.2
    own = torch.arange(3)
    effect, variance, _ = structural_effects(truth, sparse_programs(3, 400, rng), own, rng)
    found = called(infer_graph(effect, variance, own))
    assert found[0, 1]
    assert found[1, 2]
    assert not found[2, 0]


def test_genes_of_unknown_variance_are_left_out():
    rng = np.random.default_rng(0)
    truth = random_dag(8, rng)
    own = torch.arange(8)
    effect, variance, _ = structural_effects(truth, sparse_programs(8, 300, rng), own, rng)
    plain = infer_graph(effect[:, :290], variance[:, :290], own)
    effect[:, 290:], variance[3, 290:] = 1e3, torch.inf
    found = infer_graph(effect, variance, own)
    torch.testing.assert_close(found.weight, plain.weight, rtol=0, atol=0)
    assert not found.programs[:, 290:].any()


def test_one_perturbation_has_no_graph():
    found = infer_graph(torch.ones(1, 5), torch.ones(1, 5), torch.tensor([-1]))
    assert found.weight.shape == (1, 1)
    assert not found.weight.any()


def test_the_order_of_perturbations_does_not_matter():
    rng = np.random.default_rng(4)
    truth = random_dag(12, rng)
    own = torch.arange(12)
    effect, variance, _ = structural_effects(truth, sparse_programs(12, 300, rng), own, rng)
    order = torch.as_tensor(rng.permutation(12))
    one = infer_graph(effect, variance, own).weight[order][:, order]
    other = infer_graph(effect[order], variance[order], own[order]).weight
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_old_names_of_arguments_still_work():
    rng = np.random.default_rng(4)
    effect, variance = torch.as_tensor(rng.normal(size=(4, 50))), torch.full((4, 50), 0.01, dtype=torch.float64)
    own, shared = torch.arange(4), torch.full((50,), 0.01, dtype=torch.float64)
    found = infer_graph(effect, variance, own, control_variance=shared)
    with pytest.warns(FutureWarning) as caught:
        other = infer_graph(effect, variance, own=own, shared_variance=shared)
    assert [str(warning.message) for warning in caught] == [
        "own of infer_graph is now targets.",
        "shared_variance of infer_graph is now control_variance.",
    ]
    torch.testing.assert_close(found.weight, other.weight, rtol=0, atol=0)
    with pytest.raises(TypeError, match="'own', the old name of 'targets', besides"):
        infer_graph(effect, variance, targets=own, own=own)
