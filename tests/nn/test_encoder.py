import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian
from torch.nn import functional as F

from raptorgraph.nn import GraphPathwayEncoder, InteractionBlock, PreconditionedLayer

N_GENES, N_LATENT, N_TARGETS, N_SUBGRAPHS = 12, 7, 5, 3


@pytest.fixture
def encoder():
    return GraphPathwayEncoder(N_GENES, N_LATENT, N_TARGETS, N_SUBGRAPHS).double()


def _train(module, x, n_steps=5):
    """Steps that pull every output to a random target, with weight decay."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05, weight_decay=0.1)
    goal = torch.randn(2, len(x), N_LATENT, dtype=x.dtype)
    for _ in range(n_steps):
        optimizer.zero_grad()
        mean, log_var = module(x)
        F.mse_loss(torch.stack([mean, log_var]), goal).backward()
        optimizer.step()


def _silu(x):
    return x / (1.0 + np.exp(-x))


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("output", [0, 1], ids=["mean", "log_var"])
def test_a_perturbed_gene_reaches_its_own_latent_only(encoder, trained, output):
    x = torch.randn(16, N_GENES, dtype=torch.float64)
    if trained:
        before = encoder.preconditioned.diagonal.detach().clone()
        _train(encoder, x)
        assert (encoder.preconditioned.diagonal != before).all()
    for cell in x[:4]:
        slopes = jacobian(lambda v: encoder(v[None])[output][0], cell)
        own = slopes[:, :N_TARGETS]
        diagonal = torch.diagonal(own)
        assert (diagonal != 0).all()
        # exactly zero off the diagonal, rows of the latents without a target included
        assert torch.equal(own - torch.cat([torch.diag(diagonal), own.new_zeros(2, N_TARGETS)]), torch.zeros_like(own))
        assert (slopes[:, N_TARGETS:] != 0).all()


@pytest.mark.parametrize("trained", [False, True])
def test_dense_weight_is_equation_4_and_reproduces_forward(trained):
    encoder = GraphPathwayEncoder(N_GENES, N_LATENT, N_TARGETS, N_SUBGRAPHS)
    x = torch.randn(9, N_GENES)
    if trained:
        _train(encoder, x)
    layer = encoder.preconditioned
    weight = layer.dense_weight()
    assert weight.shape == (N_SUBGRAPHS, N_LATENT, N_GENES)
    allowed = np.ones((N_LATENT, N_GENES), dtype=bool)
    allowed[:, :N_TARGETS] = np.eye(N_LATENT, N_TARGETS, dtype=bool)
    assert all(np.array_equal(w.numpy() != 0, allowed) for w in weight)
    expected = np.einsum("bn,mdn->bmd", x.numpy(), weight.numpy()) + layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-5)


def test_stored_weights_have_no_room_for_the_structural_zeros():
    layer = PreconditionedLayer(N_GENES, N_LATENT, N_TARGETS, N_SUBGRAPHS)
    n_free = N_SUBGRAPHS * (N_LATENT * (N_GENES - N_TARGETS) + N_TARGETS + N_LATENT)
    assert sum(p.numel() for p in layer.parameters()) == n_free


@pytest.mark.parametrize("n_targets", [0, 4])
def test_preconditioned_layer_at_its_limits(n_targets):
    layer = PreconditionedLayer(4, 4, n_targets, 2)
    x = torch.randn(3, 4)
    expected = torch.einsum("bn,mdn->bmd", x, layer.dense_weight())
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).abs().sum() > 0


@pytest.mark.parametrize("sizes", [(3, 9, 4), (9, 3, 4)])
def test_too_many_targets_raise(sizes):
    n_genes, n_latent, n_targets = sizes
    with pytest.raises(ValueError, match=f"4 targets do not fit into {n_genes} genes and {n_latent} latents"):
        PreconditionedLayer(n_genes, n_latent, n_targets, 2)


def test_interaction_block_mixes_no_latents():
    block = InteractionBlock(N_LATENT, N_SUBGRAPHS).double()
    s = torch.randn(1, N_SUBGRAPHS, N_LATENT, dtype=torch.float64)
    slopes = jacobian(block, s)[0, :, :, 0]  # out subgraph, out latent, in subgraph, in latent
    across = slopes.abs().sum((0, 2))
    assert torch.equal(across - torch.diag(torch.diagonal(across)), torch.zeros_like(across))
    # within a latent all subgraphs meet
    assert (torch.stack([slopes[:, d, :, d] for d in range(N_LATENT)]) != 0).all()


def test_interaction_block_is_a_residual_map_of_each_latent():
    block = InteractionBlock(N_LATENT, N_SUBGRAPHS).double()
    torch.nn.init.normal_(block.bias)
    s = torch.randn(5, N_SUBGRAPHS, N_LATENT, dtype=torch.float64)
    out = block(s).detach().numpy()
    weight, bias = block.weight.detach().numpy(), block.bias.detach().numpy()
    for d in range(N_LATENT):
        activation = s[:, :, d].numpy()
        np.testing.assert_allclose(out[:, :, d], activation + _silu(activation @ weight[d] + bias[:, d]), atol=1e-12)


def test_aggregation_is_a_grouped_convolution(encoder):
    torch.nn.init.normal_(encoder.offset)
    x = torch.randn(8, N_GENES, dtype=torch.float64)
    s = encoder.interaction(F.silu(encoder.preconditioned(x)))
    for output, kernel, offset in zip(encoder(x), encoder.aggregation, encoder.offset, strict=True):
        # latents are channels, subgraphs the length: kernel size m, d groups
        expected = F.conv1d(s.transpose(1, 2), kernel.T[:, None, :], offset, groups=N_LATENT).squeeze(2)
        assert expected.abs().max() < 4  # the bounds of the log variance play no part here
        torch.testing.assert_close(output, expected)


def test_log_variance_is_bounded_and_mean_is_not(encoder):
    torch.nn.init.constant_(encoder.offset, 50.0)
    mean, log_var = encoder(torch.randn(4, N_GENES, dtype=torch.float64))
    assert (mean > 30).all()
    assert (log_var == 4).all()
    torch.nn.init.constant_(encoder.offset, -50.0)
    assert (encoder(torch.randn(4, N_GENES, dtype=torch.float64))[1] == -10).all()


def test_as_printed_the_interaction_block_has_no_residual_path_and_the_variance_no_bounds():
    encoder = GraphPathwayEncoder(N_GENES, N_LATENT, N_TARGETS, N_SUBGRAPHS, residual=False, bounded=False).double()
    torch.nn.init.normal_(encoder.interaction.bias)
    torch.nn.init.constant_(encoder.offset, 50.0)
    x = torch.randn(6, N_GENES, dtype=torch.float64)
    parameters = {name: value.detach().numpy() for name, value in encoder.named_parameters()}
    mapped = np.einsum("bn,mdn->bmd", x.numpy(), encoder.preconditioned.dense_weight().numpy())
    s = _silu(mapped + parameters["preconditioned.bias"])
    weight, bias = parameters["interaction.weight"], parameters["interaction.bias"]
    s = np.stack([_silu(s[:, :, d] @ weight[d] + bias[:, d]) for d in range(N_LATENT)], axis=2)
    expected = np.einsum("bmd,omd->obd", s, parameters["aggregation"]) + 50.0
    found = np.stack([part.detach().numpy() for part in encoder(x)])
    assert expected[1].min() > 4  # beyond the bounds
    np.testing.assert_allclose(found, expected, rtol=1e-10)
