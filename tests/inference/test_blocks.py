"""Block-diagonal matrices against dense ones."""

import numpy as np
import pytest
import torch
from scipy import sparse

from raptorgraph.inference._blocks import BlockMatrix, Blocks

EDGES = {
    "none": [],
    "of several sizes": [(0, 3), (3, 5), (1, 4), (2, 6), (8, 9)],
    "one": [(i, i + 1) for i in range(9)],
    "the first and the last": [(0, 9)],
}


def _dense(blocks, entries):
    n = blocks.n
    found = np.zeros((len(entries), n, n))
    linked = _linked(blocks)
    row, column = linked.nonzero()
    found[:, row, column] = entries[:, blocks.places(torch.as_tensor(row), torch.as_tensor(column))]
    return found


def _linked(blocks):
    """Which genes are in one block."""
    found = np.zeros((blocks.n, blocks.n), dtype=bool)
    for genes in blocks.groups:
        for one in genes.numpy():
            found[np.ix_(one, one)] = True
    return found


@pytest.fixture(params=EDGES)
def blocks(request):
    adjacency = np.zeros((10, 10))
    for edge in EDGES[request.param]:
        adjacency[edge] = 1.0
    found = Blocks(sparse.csr_array(adjacency))
    reached = np.linalg.matrix_power(np.eye(10) + adjacency + adjacency.T, 10) > 0
    np.testing.assert_array_equal(_linked(found), reached)
    assert found.n_entries == reached.sum()
    assert found.largest == reached.sum(1).max()
    return found


@pytest.fixture
def matrix(blocks):
    """Positive definite at two levels."""
    root = np.random.default_rng(0).normal(size=(2, 10, 10))
    dense = torch.as_tensor((root @ root.transpose(0, 2, 1) + np.eye(10)) * _linked(blocks))
    row, column = _linked(blocks).nonzero()
    entries = torch.full((2, blocks.n_entries), torch.nan, dtype=torch.float64)
    entries[:, blocks.places(torch.as_tensor(row), torch.as_tensor(column))] = dense[:, row, column]
    return BlockMatrix(blocks, entries), dense.numpy()


def test_entries_have_places_of_their_own(matrix):
    found, dense = matrix
    np.testing.assert_array_equal(_dense(found.blocks, found.entries), dense)
    np.testing.assert_array_equal(found.diagonal, dense.diagonal(axis1=1, axis2=2))


def test_inverses_determinants_and_products(matrix):
    found, dense = matrix
    inverse, log_det = found.inverse_and_log_det()
    np.testing.assert_allclose(_dense(found.blocks, inverse.entries), np.linalg.inv(dense), atol=1e-10)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(dense)[1])
    right = np.random.default_rng(1).normal(size=(2, 10, 3))
    np.testing.assert_allclose(found.times(torch.as_tensor(right)), dense @ right, atol=1e-12)


def test_without_genes():
    empty = BlockMatrix(Blocks(sparse.csr_array((0, 0))), torch.zeros(2, 0))
    assert empty.blocks.largest == 0
    assert empty.diagonal.shape == (2, 0)
