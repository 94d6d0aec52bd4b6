import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from raptorgraph.nn import Decoder

N_LATENT, N_COVARIATES, N_GENES, N_HIDDEN = 4, 2, 6, 8


def _decoder(**kwargs):
    decoder = Decoder(N_LATENT, N_COVARIATES, N_GENES, N_HIDDEN, **kwargs).double()
    torch.nn.init.normal_(decoder.base)
    return decoder


def _inputs(n=5):
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(n, N_LATENT, dtype=torch.float64, generator=generator)
    return u, torch.randn(n, N_COVARIATES, dtype=torch.float64, generator=generator)


def _array(tensor):
    return tensor.detach().numpy()


def _fit(decoder, u, covariates):
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        ((decoder(u, covariates) - u.prod(1, keepdim=True)) ** 2).mean().backward()
        optimizer.step()


def test_starts_out_linear_and_learns_to_be_nonlinear():
    decoder = _decoder()
    u, covariates = _inputs()
    expected = np.hstack([_array(u), _array(covariates)]) @ _array(decoder.linear.weight).T + _array(decoder.base)
    np.testing.assert_allclose(_array(decoder(u, covariates)), expected, atol=1e-12)

    def interaction():
        a, b = torch.eye(N_LATENT, dtype=torch.float64)[:2]
        single = decoder(u + a, covariates) + decoder(u + b, covariates)
        return (decoder(u + a + b, covariates) + decoder(u, covariates) - single).abs().max().item()

    assert interaction() < 1e-12
    _fit(decoder, u, covariates)
    assert interaction() > 1e-3


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_forward_is_base_and_both_paths(n_layers, linear):
    decoder = _decoder(n_layers=n_layers, linear=linear)
    u, covariates = _inputs()
    _fit(decoder, u, covariates)
    inputs = np.hstack([_array(u), _array(covariates)])
    hidden = inputs
    dense = [layer for layer in decoder.dense if isinstance(layer, torch.nn.Linear)]
    assert len(dense) == n_layers + 1
    for layer in dense[:-1]:
        hidden = hidden @ _array(layer.weight).T + _array(layer.bias)
        hidden = hidden / (1 + np.exp(-hidden))
    expected = hidden @ _array(dense[-1].weight).T + _array(decoder.base)
    if linear:
        expected = expected + inputs @ _array(decoder.linear.weight).T
    else:
        assert decoder.linear is None
    np.testing.assert_allclose(_array(decoder(u, covariates)), expected, atol=1e-10)


@pytest.mark.parametrize("linear", [True, False])
def test_without_layers_the_linear_path_alone_is_left(linear):
    decoder = _decoder(n_layers=0, linear=linear)
    u, covariates = _inputs()
    assert decoder.dense is None
    slopes = jacobian(lambda v: decoder(v[None], covariates[:1])[0], u[0])
    torch.testing.assert_close(slopes, decoder.linear.weight.detach()[:, :N_LATENT])
    assert slopes.abs().min() > 0


def test_dense_path_alone_starts_with_an_effect():
    decoder = _decoder(linear=False)
    u, covariates = _inputs()
    slopes = jacobian(lambda v: decoder(v[None], covariates[:1])[0], u[0])
    assert slopes.abs().max() > 1e-3


def test_covariates_are_optional():
    decoder = Decoder(N_LATENT, 0, N_GENES, N_HIDDEN).double()
    u, covariates = _inputs()
    out = decoder(u)
    assert out.shape == (5, N_GENES)
    torch.testing.assert_close(out, decoder(u, covariates[:, :0]))


def test_covariates_move_the_output():
    decoder = _decoder()
    u, covariates = _inputs()
    moved = decoder(u, covariates + torch.tensor([1.0, 0.0])) - decoder(u, covariates)
    torch.testing.assert_close(moved, decoder.linear.weight[:, N_LATENT].expand(5, -1))


def test_base_is_the_output_at_the_origin():
    decoder = _decoder()
    zero = torch.zeros(3, N_LATENT, dtype=torch.float64), torch.zeros(3, N_COVARIATES, dtype=torch.float64)
    torch.testing.assert_close(decoder(*zero), decoder.base.expand(3, -1))
