import networkx as nx
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from raptorgraph.baselines._blocks import (
    DiscrepancyModule,
    GeneSetLayer,
    SoftmaxTarget,
    TriangularLayer,
    VariationalEncoder,
    small_linear,
)
from raptorgraph.nn import mk_mmd


def _jacobian(layer, n_genes):
    return torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], torch.randn(n_genes))


def test_gene_set_layer_reads_each_set_alone():
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    layer = GeneSetLayer(mask)
    jacobian = _jacobian(layer, 5)
    assert torch.equal(jacobian != 0, mask.bool())
    layer(torch.randn(7, 5)).square().sum().backward()
    assert torch.equal(layer.weight.grad != 0, mask.bool())  # so no update can open what is masked


def test_gene_set_layer_leak_scales_the_genes_outside():
    mask = torch.tensor([[1.0, 0.1, 0.1], [0.1, 1.0, 1.0]])
    layer = GeneSetLayer(mask)
    torch.testing.assert_close(_jacobian(layer, 3), layer.weight.detach() * mask)


def test_gene_set_layer_of_ones_is_dense():
    layer = GeneSetLayer(torch.ones(4, 6))
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)
    assert layer.weight.abs().max() <= 6**-0.5


def test_encoder_blocks_genes_outside_all_sets():
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]])
    encoder = VariationalEncoder(GeneSetLayer(mask), 2, 3)
    for head in (0, 1):
        jacobian = _jacobian(lambda x, head=head: encoder(x)[head], 4)
        assert jacobian.shape == (3, 4)
        assert (jacobian[:, 2] == 0).all()
        assert (jacobian[:, [0, 1, 3]] != 0).all()


def test_encoder_against_its_formula():
    encoder = VariationalEncoder(small_linear(6, 5), 5, 4)
    x = torch.randn(9, 6)
    mean, log_var = encoder(x)
    h = x @ encoder.hidden.weight.T
    h = torch.where(h > 0, h, 0.2 * h)
    torch.testing.assert_close(mean, h @ encoder.mean.weight.T)
    torch.testing.assert_close(log_var.exp(), F.softplus(h @ encoder.variance.weight.T))


def test_variance_of_an_extreme_cell_has_a_lower_bound():
    encoder = VariationalEncoder(small_linear(3, 3), 3, 2)
    with torch.no_grad():
        encoder.variance.bias.fill_(-500.0)
    _, log_var = encoder(torch.randn(4, 3))
    log_var.sum().backward()
    torch.testing.assert_close(log_var, torch.full((4, 2), 1e-8).log())
    assert (encoder.variance.bias.grad == 0).all()


def test_targets_are_a_softmax_that_sharpens():
    target = SoftmaxTarget(7, 5, 16)
    for temperature in (1.0, 5.0, 100.0):
        weights = target.targets(temperature)
        assert weights.shape == (7, 5)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(1), torch.ones(7))
    assert (target.targets(100.0).amax(1) > target.targets(1.0).amax(1)).all()


def test_targets_against_the_network_on_one_hot_rows():
    target = SoftmaxTarget(4, 3, 8)
    logits = target.out(F.leaky_relu(target.hidden(torch.eye(4)), 0.2))
    torch.testing.assert_close(target.targets(2.0), torch.softmax(2.0 * logits, 1))


def test_shift_of_a_set_is_the_sum_of_its_genes():
    target = SoftmaxTarget(4, 3)
    with torch.no_grad():
        target.strength.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    shifts = target(torch.cat([torch.eye(4), torch.tensor([[1.0, 0, 1, 1], [0, 0, 0, 0]])]))
    torch.testing.assert_close(shifts[:4].sum(1), target.strength.detach())
    torch.testing.assert_close(shifts[4], shifts[0] + shifts[2] + shifts[3])
    assert (shifts[5] == 0).all()


def test_graph_is_triangular_and_stays_so():
    layer = TriangularLayer(6)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
    adjacency = layer.adjacency().detach().numpy()
    assert (np.tril(adjacency) == 0).all()
    assert (adjacency[np.triu_indices(6, 1)] != 0).all()
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(adjacency, create_using=nx.DiGraph))
    assert layer.acyclicity().item() == pytest.approx(0.0, abs=1e-5)


def test_graph_solves_the_structural_equations():
    layer = TriangularLayer(5).double()
    with torch.no_grad():
        layer.weight.mul_(10)
    z = torch.randn(4, 5, dtype=torch.float64)
    u, a = layer(z), layer.adjacency()
    torch.testing.assert_close(u @ a + z, u)
    torch.testing.assert_close(u, z @ torch.linalg.inv(torch.eye(5, dtype=torch.float64) - a))
    assert torch.autograd.gradcheck(layer, (z.requires_grad_(),))


def test_graph_starts_at_normal_weights():
    above = TriangularLayer(105).adjacency().detach()[np.triu_indices(105, 1)]
    assert above.std().item() == pytest.approx(0.1, rel=0.05)
    assert above.mean().item() == pytest.approx(0.0, abs=0.01)


def test_module_against_its_formula():
    module = DiscrepancyModule(VariationalEncoder(small_linear(8, 6), 6, 3), 8, 5, 3, n_hidden=7)
    z = torch.randn(4, 3)
    u = z @ torch.linalg.inv(torch.eye(3) - module.graph.adjacency())
    first, second = module.decoder[0], module.decoder[2]
    expected = F.leaky_relu(second(F.leaky_relu(first(u), 0.2)), 0.2)
    torch.testing.assert_close(module(z), expected)
    assert module(z).shape == (4, 8)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1)])
def test_biased_mmd_against_loops(shape):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(shape[0], 4)), rng.normal(1.0, 2.0, size=(shape[1], 4))
    bandwidths = [1000.0 / 2**5 * 2**k for k in range(10)]

    def kernel(a, b):
        return np.mean([sum(np.exp(-((p - q) ** 2).sum() / w) for w in bandwidths) for p in a for q in b])

    expected = kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)
    value = mk_mmd(torch.tensor(x), torch.tensor(y), fix_sigma=1000.0, biased=True)
    assert value.item() == pytest.approx(expected)


def test_biased_mmd_is_never_negative_and_zero_for_equal_samples():
    x = torch.randn(6, 3, dtype=torch.float64)
    assert mk_mmd(x, x.clone(), biased=True).item() == pytest.approx(0.0, abs=1e-12)
    assert mk_mmd(x, x.clone()).item() < 0
    assert mk_mmd(x, torch.randn(6, 3, dtype=torch.float64), biased=True).item() > 0


def test_biased_mmd_exceeds_the_unbiased_by_the_diagonal():
    n, n_kernels = 8, 10
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 3, dtype=torch.float64)
    # of single cells the biased MMD is 2 L - 2 k(p, q)
    cross = n_kernels - 0.5 * np.mean([mk_mmd(p[None], q[None], biased=True).item() for p in x for q in y])
    within_unbiased = mk_mmd(x, y).item() + 2 * cross
    # each side's mean over all pairs: its mean off the diagonal, and L on the diagonal
    within_biased = (n - 1) / n * within_unbiased + 2 * n_kernels / n
    assert mk_mmd(x, y, biased=True).item() == pytest.approx(within_biased - 2 * cross)
