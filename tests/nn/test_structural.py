import networkx as nx
import numpy as np
import pytest
import torch
from dagma.linear import DagmaLinear

from raptorgraph.nn import StructuralLayer, acyclic_support, acyclicity, in_domain


def _dag(d, seed, density=0.5, scale=1.0):
    """Weights of a random acyclic graph in a random order of the nodes."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(scale=scale, size=(d, d)) * (rng.random((d, d)) < density), 1)
    order = rng.permutation(d)
    return upper[np.ix_(order, order)]


def _cyclic(d, seed, radius=0.5):
    """Dense weights whose square has the given spectral radius."""
    weight = np.random.default_rng(seed).normal(size=(d, d))
    np.fill_diagonal(weight, 0.0)
    return weight * np.sqrt(radius / _spectral_radius(weight))


def _spectral_radius(weight):
    return np.abs(np.linalg.eigvals(weight**2)).max()


def _cycle(weights):
    """One directed cycle with the given weights."""
    d = len(weights)
    adjacency = np.zeros((d, d))
    adjacency[np.arange(d), np.roll(np.arange(d), -1)] = weights
    return adjacency


def _graph(adjacency):
    return nx.from_numpy_array(np.asarray(adjacency) != 0, create_using=nx.DiGraph)


def _layer(adjacency):
    layer = StructuralLayer(len(adjacency)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(adjacency))
    return layer


# acyclicity and its domain


@pytest.mark.parametrize("s", [1.0, 0.8, 2.5])
@pytest.mark.parametrize("seed", range(3))
def test_acyclicity_and_gradient_against_dagma(seed, s):
    weight = _cyclic(7, seed)
    reference = DagmaLinear("l2")
    reference.d, reference.Id = 7, np.eye(7)
    h, gradient = reference._h(weight, s)
    a = torch.tensor(weight, requires_grad=True)
    value = acyclicity(a, s)
    value.backward()
    assert value.item() == pytest.approx(h, rel=1e-10)
    np.testing.assert_allclose(a.grad.numpy(), gradient, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(a.grad.numpy(), 2 * weight * np.linalg.inv(s * np.eye(7) - weight**2).T, atol=1e-10)


@pytest.mark.parametrize("weights", [[0.9, 0.8], [0.9, -0.5, 0.7], [0.3, 0.2, -0.4, 0.6, 0.5]])
def test_acyclicity_of_one_cycle_in_closed_form(weights):
    # the determinant of I - A o A of a lone cycle is 1 - the product of the squares
    expected = -np.log1p(-np.prod(np.square(weights)))
    value = acyclicity(torch.tensor(_cycle(weights))).item()
    assert value > 0
    assert value == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("s", [1.0, 0.6])
@pytest.mark.parametrize("seed", range(5))
def test_acyclicity_is_zero_exactly_for_acyclic_graphs(seed, s):
    dag = _dag(9, seed)
    assert nx.is_directed_acyclic_graph(_graph(dag))
    assert acyclicity(torch.tensor(dag), s).item() == pytest.approx(0.0, abs=1e-10)
    assert in_domain(torch.tensor(dag), s)
    # turn one edge into a cycle of two
    i, j = np.argwhere(dag)[0]
    dag[j, i] = 0.05
    scaled = dag * np.sqrt(0.5 * s / max(_spectral_radius(dag), 0.5 * s))
    assert not nx.is_directed_acyclic_graph(_graph(scaled))
    assert acyclicity(torch.tensor(scaled), s).item() > 1e-8


@pytest.mark.parametrize("d", [2, 3, 8])
def test_domain_is_where_the_spectral_radius_is_below_s(d):
    for seed in range(10):
        for radius in (0.2, 0.95, 1.05, 3.0):
            weight = torch.tensor(_cyclic(d, seed, radius))
            assert in_domain(weight) == (radius < 1)
            assert in_domain(weight, 2.0) == (radius < 2)


def test_out_of_the_domain_the_acyclicity_is_infinite():
    for weights in ([1.0, 1.0], [1.5, 1.2, 2.0]):
        adjacency = torch.tensor(_cycle(weights))
        assert acyclicity(adjacency).item() == np.inf
        assert not in_domain(adjacency)


def test_a_positive_determinant_alone_is_not_the_domain():
    # two cycles outside at once: the signs of their factors cancel
    adjacency = np.zeros((4, 4))
    adjacency[:2, :2] = adjacency[2:, 2:] = _cycle([1.5, 1.5])
    adjacency = torch.tensor(adjacency)
    assert torch.linalg.det(torch.eye(4, dtype=torch.float64) - adjacency**2) > 0
    assert not in_domain(adjacency)


def test_domain_of_weights_that_are_not_finite():
    assert not in_domain(torch.full((3, 3), torch.nan))


# acyclic support


@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_support_is_the_greedy_one_of_networkx(seed, threshold):
    weight = np.random.default_rng(seed).normal(size=(9, 9))
    graph = nx.DiGraph()
    graph.add_nodes_from(range(9))
    edges = sorted(((i, j) for i in range(9) for j in range(9) if i != j), key=lambda e: -abs(weight[e]))
    for i, j in edges:
        if abs(weight[i, j]) > threshold and not nx.has_path(graph, j, i):
            graph.add_edge(i, j)
    support = acyclic_support(weight, threshold)
    assert support.dtype == bool
    np.testing.assert_array_equal(support, nx.to_numpy_array(graph, dtype=bool))
    assert nx.is_directed_acyclic_graph(_graph(support))


@pytest.mark.parametrize("seed", range(3))
def test_an_acyclic_graph_keeps_its_edges(seed):
    dag = _dag(10, seed)
    np.testing.assert_array_equal(acyclic_support(dag), dag != 0)
    np.testing.assert_array_equal(acyclic_support(dag, 0.7), np.abs(dag) > 0.7)


@pytest.mark.parametrize("least", range(3))
def test_the_lightest_edge_of_a_cycle_of_three_goes(least):
    weights = np.array([-0.9, 0.8, -0.7])
    weights[least] = 0.1
    expected = _cycle(weights) != 0
    expected[least, (least + 1) % 3] = False
    np.testing.assert_array_equal(acyclic_support(_cycle(weights)), expected)


def test_of_two_opposing_edges_the_heavier_stays():
    np.testing.assert_array_equal(acyclic_support(np.array([[0, 0.2], [-0.3, 0]])), [[False, False], [True, False]])


def test_an_edge_at_the_threshold_goes_and_so_does_the_diagonal():
    assert not acyclic_support(np.array([[5.0, 0.25], [0.0, 5.0]]), 0.25).any()
    assert acyclic_support(np.array([[5.0, 0.26], [0.0, 5.0]]), 0.25).sum() == 1


# the layer


@pytest.mark.parametrize("adjacency", [_dag(6, 0), _cyclic(6, 1, 0.1)], ids=["acyclic", "cyclic"])
def test_a_shift_of_one_latent_spreads_along_its_row_of_the_total_effects(adjacency):
    layer = _layer(adjacency)
    z = torch.randn(4, 6, dtype=torch.float64)
    u = layer(z)
    torch.testing.assert_close(u, u @ layer.adjacency() + z)
    total = np.linalg.inv(np.eye(6) - adjacency)
    for i in range(6):
        shift = torch.eye(6, dtype=torch.float64)[i]
        moved = (layer(z + shift) - u).detach().numpy()
        np.testing.assert_allclose(moved, np.tile(total[i], (4, 1)), atol=1e-10)


def test_effects_run_from_row_to_column_along_a_chain():
    adjacency = np.zeros((3, 3))
    adjacency[0, 1], adjacency[1, 2] = 2.0, -3.0
    u = _layer(adjacency)(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64))
    assert u.tolist() == [[1.0, 2.0, -6.0], [0.0, 0.0, 1.0]]


def test_zero_init_is_the_identity():
    layer = StructuralLayer(5)
    z = torch.randn(3, 5)
    assert torch.equal(layer(z), z)
    assert layer.acyclicity().item() == 0.0


def test_uniform_init_is_as_published():
    weight = StructuralLayer(100, "uniform").adjacency().detach().numpy()
    off = weight[~np.eye(100, dtype=bool)]
    assert 0.099 < off.max() <= 0.1
    assert -0.1 <= off.min() < -0.099
    assert abs(off.mean()) < 4 * 0.1 / np.sqrt(3 * off.size)
    assert not np.diagonal(weight).any()


def test_uniform_init_of_many_latents_is_in_the_domain():
    layer = StructuralLayer(400, "uniform")
    adjacency = layer.adjacency().detach().double()
    assert _spectral_radius(adjacency.numpy()) < 1
    assert in_domain(adjacency)
    _, log_det = np.linalg.slogdet(np.eye(400) - adjacency.numpy() ** 2)
    assert layer.acyclicity().item() == pytest.approx(-log_det, rel=1e-3)
    assert adjacency.abs().max() > 0.01
    # as published it would be outside
    assert _spectral_radius(np.random.default_rng(0).uniform(-0.1, 0.1, (400, 400))) > 1


def test_unknown_init_raises():
    with pytest.raises(ValueError, match="init='ones' is unknown; use 'zero' or 'uniform'"):
        StructuralLayer(3, "ones")


def test_diagonal_stays_zero_under_optimization():
    layer = StructuralLayer(6, "uniform")
    z = torch.randn(64, 6)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05, weight_decay=0.1)
    before = layer.adjacency().detach().clone()
    for _ in range(10):
        optimizer.zero_grad()
        (((layer(z) - z.roll(1, dims=1)) ** 2).mean() + layer.acyclicity()).backward()
        optimizer.step()
    after = layer.adjacency().detach()
    assert torch.equal(torch.diagonal(after), torch.zeros(6))
    off = ~torch.eye(6, dtype=torch.bool)
    assert (after != before)[off].all()


def test_gradient_of_the_forward_pass():
    layer = _layer(_cyclic(4, 2, 0.3))
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def spread(weight, z):
        return torch.func.functional_call(layer, {"weight": weight}, (z,))

    assert torch.autograd.gradcheck(spread, (layer.weight, z))


# retreat


def test_retreat_leaves_a_good_step_alone():
    layer = _layer(_cyclic(5, 3, 0.5))
    step = layer.weight.detach().clone()
    assert layer.retreat(torch.zeros(5, 5, dtype=torch.float64)) == 0
    assert torch.equal(layer.weight, step)


def test_retreat_halves_the_step_until_the_domain():
    previous, target = _cyclic(5, 4, 0.5), _cyclic(5, 5, 40.0)
    layer = _layer(target)
    n_halvings = layer.retreat(torch.tensor(previous))
    steps = [previous + 0.5**k * (target - previous) for k in range(n_halvings + 1)]
    assert n_halvings > 0
    assert all(_spectral_radius(a) >= 1 for a in steps[:-1])
    assert _spectral_radius(steps[-1]) < 1
    np.testing.assert_allclose(layer.adjacency().detach().numpy(), steps[-1], atol=1e-12)
    assert layer.acyclicity().item() == pytest.approx(-np.log(np.linalg.det(np.eye(len(target)) - steps[-1] ** 2)))


def test_retreat_gives_up_a_step_that_is_not_finite():
    previous = torch.tensor(_cyclic(4, 6, 0.5))
    layer = _layer(np.full((4, 4), np.nan))
    assert layer.retreat(previous) == 30
    assert torch.equal(layer.weight, previous)


# projection


@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_projection_is_acyclic_and_the_forward_pass_uses_it(threshold):
    weight = _cyclic(8, 7, 0.6)
    layer = _layer(weight)
    assert layer.acyclicity() > 0.01
    assert not layer.projected
    layer.project(threshold)
    projected = layer.adjacency().detach().numpy()
    assert layer.projected
    assert nx.is_directed_acyclic_graph(_graph(projected))
    assert layer.acyclicity().item() == pytest.approx(0.0, abs=1e-10)
    np.testing.assert_array_equal(projected, np.where(acyclic_support(weight, threshold), weight, 0.0))
    z = torch.randn(3, 8, dtype=torch.float64)
    expected = z.numpy() @ np.linalg.inv(np.eye(8) - projected)
    np.testing.assert_allclose(layer(z).detach().numpy(), expected, atol=1e-10)


def test_training_after_the_projection_keeps_the_graph_and_a_state_dict_carries_it():
    layer = _layer(_cyclic(6, 8, 0.6))
    layer.project()
    edges = layer.adjacency().detach() != 0
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05, weight_decay=0.1)
    z = torch.randn(32, 6, dtype=torch.float64)
    for _ in range(5):
        optimizer.zero_grad()
        (layer(z) - z.roll(1, dims=1)).square().mean().backward()
        optimizer.step()
    assert torch.equal(layer.adjacency().detach() != 0, edges)
    copy = StructuralLayer(6).double()
    copy.load_state_dict(layer.state_dict())
    assert torch.equal(copy.adjacency(), layer.adjacency())
    assert copy.projected


# as printed


def test_without_a_guard_the_acyclicity_is_clamped_and_the_inverse_a_pseudo_inverse():
    outside = _cycle([3.0, 3.0])  # I - A o A has a determinant of 1 - 81
    layer = StructuralLayer(2, guarded=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(outside))
    assert torch.isinf(acyclicity(torch.as_tensor(outside)))
    assert layer.acyclicity() == 0  # -log(80) < 0
    inside = _cycle([0.5, 0.5])
    assert acyclicity(torch.as_tensor(inside), clamped=True).item() == pytest.approx(-np.log(1 - 0.5**4))
    assert layer.retreat(torch.zeros(2, 2).double()) == 0  # the step stays
    np.testing.assert_array_equal(layer.adjacency().detach().numpy(), outside)

    z = torch.randn(4, 2, dtype=torch.float64)
    np.testing.assert_allclose(layer(z).detach().numpy(), z.numpy() @ np.linalg.inv(np.eye(2) - outside), atol=1e-12)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))  # I - A has no inverse
    expected = z.numpy() @ np.linalg.pinv(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    np.testing.assert_allclose(layer(z).detach().numpy(), expected, atol=1e-10)


def test_without_a_guard_the_start_is_as_published_however_many_latents_there_are():
    torch.manual_seed(0)
    layer = StructuralLayer(400, "uniform", guarded=False)
    assert layer.weight.abs().max().item() == pytest.approx(0.1, abs=1e-4)
    assert not in_domain(layer.adjacency())


def test_self_effects_are_trained_and_dropped_by_the_projection():
    torch.manual_seed(0)
    layer = StructuralLayer(4, "uniform", self_effects=True)
    diagonal = layer.weight.detach().diagonal().clone()
    np.testing.assert_array_equal(layer.adjacency().detach().diagonal(), diagonal)
    layer.acyclicity().backward()
    assert (layer.weight.grad.diagonal().sign() == diagonal.sign()).all()  # a loop is a cycle
    layer.project(0.0)
    assert (layer.adjacency().diagonal() == 0).all()
    assert torch.equal(StructuralLayer(3, "uniform").adjacency().diagonal(), torch.zeros(3))
