"""Responses of encoded cells: found where they depend on the state or where cells escaped, and nowhere else."""

import numpy as np
import pytest
import torch

from raptorgraph.model._responses import fit_responses
from raptorgraph.nn import relative_response

K, B = 4, 3
WEIGHT = torch.tensor([[2.0, 0.0, 0.0], [0.0, -1.5, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
BIAS = torch.tensor([-0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
N_CONTROLS = 2000


def cells(n=300, *, level=3.0, escape=(0.0, 0.0, 0.0, 0.0), weight=WEIGHT, bias=BIAS, noise=0.6, seed=0):
    """Posterior means of latents: those of the perturbed genes' cells respond by their state, or escaped."""
    rng = torch.Generator().manual_seed(seed)
    gene = torch.arange(K).repeat_interleave(n)
    mask = torch.cat([torch.zeros(N_CONTROLS, K), torch.eye(K)[gene]])
    mean = noise * torch.randn(len(mask), K + B, dtype=torch.float64, generator=rng)
    mean[:, K:] /= noise
    size = relative_response(mean[N_CONTROLS:, K:], weight, bias)[torch.arange(len(gene)), gene]
    escaped = torch.rand(len(gene), dtype=torch.float64, generator=rng) < torch.tensor(escape)[gene]
    rows = torch.arange(N_CONTROLS, len(mask))
    mean[rows, gene] += level * size * ~escaped
    return mean, mask


def sizes(responses, g):
    """Sizes of the response of gene g in new control cells, as found."""
    state = torch.randn(4000, B, generator=torch.Generator().manual_seed(9))
    return relative_response(state, responses.weight, responses.bias)[:, g].double(), state.double()


@pytest.mark.parametrize("steepness", [1.0, 3.0])  # 3: a switch, and half of the cells do not respond
def test_a_response_that_depends_on_the_state_is_found(steepness):
    found = fit_responses(*cells(weight=steepness * WEIGHT))
    for g in (0, 1):
        size, state = sizes(found, g)
        true = relative_response(state, steepness * WEIGHT, BIAS)[:, g]
        assert np.corrcoef(size, true)[0, 1] > 0.98
        assert (size - true).square().mean() < 0.05 * true.var()
    assert not found.weight[2:].any()
    assert not found.bias[2:].any()
    assert (found.escape < 0.06).all()


def test_none_is_found_where_there_is_none():
    """But by chance, since four parameters explain four nats in 9 % of the genes; then it is small."""
    n_found = 0
    for seed in range(10):
        found = fit_responses(*cells(weight=0 * WEIGHT, bias=0 * BIAS, seed=seed))
        assert (found.escape < 0.03).all()
        n_found += int(found.weight.any(1).sum())
        assert max(sizes(found, g)[0].std() for g in range(K)) < 0.08
    assert n_found <= 10  # of 40; more of them with a probability of 1e-3


def test_the_share_of_cells_that_escaped_is_found():
    asked = (0.0, 0.2, 0.5, 0.7)
    found = fit_responses(*cells(escape=asked, weight=0 * WEIGHT, bias=0 * BIAS))
    # five cells that responded are added, and 300 have a binomial error of .03
    np.testing.assert_allclose(found.escape, asked, atol=0.06)


def test_states_and_escape_are_told_apart():
    found = fit_responses(*cells(600, escape=(0.3, 0.0, 0.3, 0.0)))
    np.testing.assert_allclose(found.escape[[2, 3]], [0.3, 0.0], atol=0.06)
    for g in (0, 1):
        size, state = sizes(found, g)
        assert np.corrcoef(size, relative_response(state, WEIGHT, BIAS)[:, g])[0, 1] > 0.95
    assert not found.weight[2:].any()


def test_weak_genes_are_left_constant():
    """A latent that moves by a fifth of its noise says nothing of states and of cells that escaped."""
    found = fit_responses(*cells(60, level=0.12, escape=(0.0, 0.0, 0.5, 0.5)))
    assert not found.weight.any()
    assert not found.bias.any()
    assert (found.escape < 0.03).all()


def test_what_an_own_latent_says_of_the_state_is_no_response():
    """Among controls too the own latents follow the state, by an encoder that mixes them."""
    mean, mask = cells(weight=0 * WEIGHT, bias=0 * BIAS)
    mean[:, :K] += mean[:, K:] @ torch.tensor([[0.8, 0.0, -0.5, 0.0], [0.0, 0.9, 0.0, 0.0], [0.0] * 4]).double()
    found = fit_responses(mean, mask)
    assert not found.weight.any()


def test_cells_of_combinations_are_not_read():
    mean, mask = cells()
    expected = fit_responses(mean, mask)
    pair = torch.zeros(50, K)
    pair[:, :2] = 1
    found = fit_responses(torch.cat([mean, 5 * torch.randn(50, K + B).double()]), torch.cat([mask, pair]))
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in ("weight", "bias", "escape"))


@pytest.mark.parametrize(("n_controls", "n_perturbed", "n_background"), [(2, 1, 4), (0, 3, 4), (2, 3, 0), (3, 0, 4)])
def test_few_cells_say_nothing(n_controls, n_perturbed, n_background):
    mask = torch.zeros(n_controls + n_perturbed, 2)
    mask[n_controls:, 0] = 1
    found = fit_responses(torch.randn(len(mask), 2 + n_background), mask)
    assert not found.weight.any()
    assert not found.bias.any()
    assert (found.escape < 0.01).all()
