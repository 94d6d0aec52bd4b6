import numpy as np
import pytest
import torch

from raptorgraph.nn import LatentModulator

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
