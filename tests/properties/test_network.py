"""Masks of the encoder, shifts of latents, and graphs without a cycle."""

import networkx as nx
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raptorgraph import nn
from raptorgraph._acyclic import acyclic_order, acyclic_support

SEEDS = st.integers(0, 2**32 - 1)
ENTRIES = st.floats(-2, 2, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
WEIGHTS = st.integers(1, 9).flatmap(lambda d: hnp.arrays(np.float64, (d, d), elements=ENTRIES))


@given(st.integers(1, 6), st.integers(0, 4), st.integers(1, 6), st.integers(1, 3), SEEDS)
def test_a_perturbed_gene_reaches_its_own_latent_alone(n_targets, more, others, n_subgraphs, seed):
    torch.manual_seed(seed)
    encoder = nn.GraphPathwayEncoder(n_targets + others, n_targets + more, n_targets, n_subgraphs)
    x = torch.randn(1, n_targets + others, dtype=torch.float32)
    found = torch.autograd.functional.jacobian(lambda v: torch.cat(encoder(v)), x)[:, :, 0, :n_targets]
    own = torch.eye(n_targets + more, n_targets).bool()
    assert (found[:, ~own] == 0).all()


@given(st.integers(1, 6), st.integers(0, 4), SEEDS)
def test_a_perturbation_shifts_its_own_latents_alone(k, more, seed):
    torch.manual_seed(seed)
    modulator = nn.ConditionalModulator(k + more, k, 2.0)
    z, mask = torch.randn(4, k + more), (torch.rand(4, k) < 0.5).float()
    moved = modulator(z, mask) != z
    assert not moved[:, :k][mask == 0].any()
    assert not moved[:, k:].any()


@given(WEIGHTS)
def test_supports_have_no_cycle_and_leave_out_nothing_else(weights):
    support = acyclic_support(weights)
    graph = nx.from_numpy_array(support, create_using=nx.DiGraph)
    assert nx.is_directed_acyclic_graph(graph)
    given_ = (weights != 0) & ~np.eye(len(weights), dtype=bool)
    assert not (support & ~given_).any()
    for i, j in np.argwhere(given_ & ~support):  # each that is left out would close a cycle
        assert nx.has_path(graph, j, i)
    order = acyclic_order(weights.copy(), len(weights))
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(order, create_using=nx.DiGraph))


@given(WEIGHTS, st.randoms(use_true_random=False))
def test_supports_do_not_depend_on_the_order_of_the_nodes(weights, random):
    sizes = np.abs(weights[weights != 0])
    if len(np.unique(sizes)) < len(sizes):  # of two alike the first is taken
        return
    order = np.array(random.sample(range(len(weights)), len(weights)))
    at = np.ix_(order, order)
    np.testing.assert_array_equal(acyclic_support(weights[at]), acyclic_support(weights)[at])


@given(WEIGHTS)
def test_acyclicity_is_zero_of_graphs_without_a_cycle(weights):
    graph = torch.as_tensor(weights * acyclic_support(weights))
    assert abs(float(nn.acyclicity(graph))) < 1e-9
