import numpy as np
import pytest
import torch
from scipy import integrate, stats

from raptorgraph.nn import ConditionalModulator, LatentModulator, relative_response
from raptorgraph.nn._modulator import own_response

N_LATENT, N_PERTURBED = 6, 4


@pytest.fixture
def modulator():
    module = LatentModulator(N_LATENT, N_PERTURBED).double()
    with torch.no_grad():
        module.strength.copy_(torch.tensor([0.5, -2.0, 3.0, 0.25]))
    return module


@pytest.fixture
def z():
    return torch.randn(5, N_LATENT, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _mask(*genes):
    mask = torch.zeros(1, N_PERTURBED, dtype=torch.float64)
    mask[0, list(genes)] = 1.0
    return mask


def test_strength_starts_at_one(z):
    modulator = LatentModulator(N_LATENT, N_PERTURBED)
    shift = modulator(z, _mask(2)) - z
    expected = np.zeros((5, N_LATENT))
    expected[:, 2] = 1.0
    np.testing.assert_allclose(shift.detach().numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("genes", [(0,), (3,), (1, 2), (0, 1, 3)])
def test_only_the_latents_of_the_perturbed_genes_move(modulator, z, genes):
    out = modulator(z, _mask(*genes))
    others = [d for d in range(N_LATENT) if d not in genes]
    assert torch.equal(out[:, others], z[:, others])
    for g in genes:
        torch.testing.assert_close(out[:, g], z[:, g] + modulator.strength[g])


def test_control_changes_nothing(modulator, z):
    assert torch.equal(modulator(z, _mask()), z)


def test_the_order_of_two_perturbations_does_not_matter(modulator, z):
    one_then_two = modulator(modulator(z, _mask(1)), _mask(2))
    two_then_one = modulator(modulator(z, _mask(2)), _mask(1))
    torch.testing.assert_close(one_then_two, two_then_one)
    torch.testing.assert_close(one_then_two, modulator(z, _mask(1, 2)))
    assert not torch.allclose(one_then_two, z)


def test_dose_scales_the_shift(modulator, z):
    full = modulator(z, _mask(1, 2)) - z
    torch.testing.assert_close(modulator(z, _mask(1, 2), 0.3) - z, 0.3 * full)
    assert torch.equal(modulator(z, _mask(1, 2), 0.0), z)
    dose = torch.tensor([[0.0], [0.5], [1.0], [2.0], [-1.0]], dtype=torch.float64)
    torch.testing.assert_close(modulator(z, _mask(1, 2), dose) - z, dose * full)


def test_each_cell_has_its_own_perturbation(modulator, z):
    masks = torch.cat([_mask(), _mask(0), _mask(1), _mask(0, 1), _mask(3)])
    together = modulator(z, masks)
    alone = torch.cat([modulator(z[[i]], masks[[i]]) for i in range(5)])
    assert torch.equal(together, alone)
    assert torch.equal((together != z)[:, :N_PERTURBED], masks.bool())


def test_gradient_reaches_the_strength_of_the_perturbed_genes_only(modulator, z):
    modulator(z, _mask(0, 2)).sum().backward()
    assert modulator.strength.grad.tolist() == [5.0, 0.0, 5.0, 0.0]  # one for each cell


# -- shifts that depend on the state ---------------------------------------------------------------------------------
@pytest.fixture
def conditional():
    """One with every parameter off its start."""
    module = ConditionalModulator(N_LATENT, N_PERTURBED, init=2.5).double()
    with torch.no_grad():
        module.state_weight.copy_(torch.tensor([[0.0, 0.0], [1.5, -0.5], [0.3, 0.2], [-3.0, 2.0]]))
        module.state_bias.copy_(torch.tensor([0.0, -1.0, 0.5, 2.0]))
        module.log_spread.copy_(torch.tensor([0.0, -0.4, 0.3, 0.1]))
        module.log_combination.fill_(np.log(0.8))
    return module


def _softplus(x):
    return np.logaddexp(0.0, x)


def test_the_response_is_1_in_the_mean_over_control_cells(conditional):
    """By Monte Carlo over many background latents, and by adaptive quadrature for each gene."""
    weight, bias = conditional.state_weight.detach(), conditional.state_bias.detach()
    state = torch.randn(400_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    size = relative_response(state, weight, bias)
    error = size.std(0) / 400_000**0.5
    assert ((size.mean(0) - 1).abs() <= 4.5 * error + 2e-3).all()  # nine nodes are exact to 2e-3 here
    for g in range(N_PERTURBED):
        level, scale = bias[g].item(), weight[g].norm().item()
        mean = integrate.quad(lambda x, b=level, s=scale: _softplus(b + s * x) * stats.norm.pdf(x), -9, 9)[0]
        expected = _softplus(state[:50].numpy() @ weight[g].numpy() + level) / mean
        np.testing.assert_allclose(size[:50, g], expected, rtol=2e-3)


def test_the_response_starts_as_a_constant_with_a_gradient(z):
    module = ConditionalModulator(N_LATENT, N_PERTURBED, init=2.5).double()
    constant = LatentModulator(N_LATENT, N_PERTURBED, init=2.5).double()
    for mask in (_mask(), _mask(2), _mask(0, 3)):
        torch.testing.assert_close(module(z, mask), constant(z, mask))
    module(z, _mask(1)).square().sum().backward()
    assert torch.isfinite(module.state_weight.grad).all()
    assert (module.state_weight.grad[1] != 0).all()


def test_a_cell_is_shifted_as_the_formula_says(conditional, z):
    shifted = conditional(z, _mask(1, 3), 0.7).detach().numpy()
    expected = z.numpy().copy()
    for g, spread in ((1, np.exp(-0.4)), (3, np.exp(0.1))):
        weight, bias = conditional.state_weight[g].detach(), conditional.state_bias[g].detach()
        size = relative_response(z[:, N_PERTURBED:], weight[None], bias[None]).numpy()[:, 0]
        expected[:, g] = spread * z[:, g].numpy() + 0.7 * 0.8 * 2.5 * size
    np.testing.assert_allclose(shifted, expected, rtol=1e-6)  # of parameters that were rounded to float32


def test_only_a_combination_is_scaled(conditional, z):
    alone, none = conditional.shift(z, _mask(1)), conditional.shift(z, _mask())
    together = conditional.shift(z, _mask(1, 3))
    torch.testing.assert_close(together[:, 1], 0.8 * alone[:, 1])
    assert not none.any()
    assert torch.equal(conditional(z, _mask()), z)


def test_the_state_is_in_the_background_alone(conditional, z):
    other = z.clone()
    other[:, :N_PERTURBED] = torch.flip(z[:, :N_PERTURBED], (0,))
    assert torch.equal(conditional.shift(z, _mask(0, 1, 2, 3)), conditional.shift(other, _mask(0, 1, 2, 3)))
    other[:, N_PERTURBED:] += 1.0
    assert (conditional.shift(z, _mask(3)) != conditional.shift(other, _mask(3)))[:, 3].all()


def test_without_background_latents_the_shift_is_a_constant():
    module, z = ConditionalModulator(2, 2, init=3.0), torch.randn(5, 2)
    module.state_bias.data.fill_(1.7)
    torch.testing.assert_close(module(z, torch.ones(1, 2)), z + 3.0)


def test_the_response_to_one_gene_is_an_entry_of_all():
    state, weight, bias = torch.randn(7, 3), torch.randn(4, 3), torch.randn(4)
    gene = torch.tensor([0, 3, 1, 1, 2, 0, 3])
    expected = relative_response(state, weight, bias)[torch.arange(7), gene]
    torch.testing.assert_close(own_response(state, weight, bias, gene), expected)
