"""Covariances of single effects in parts against the matrices that they stand for."""

import numpy as np
import pytest
import torch

from raptorgraph.inference._gene_covariance import ExtendedCovariance, GeneCovariance
from raptorgraph.inference._prior import along_graph

K = 7


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def graph(rng):
    return torch.as_tensor(np.triu(rng.normal(size=(K, K)) * (rng.random((K, K)) < 0.4), 1)[:, ::-1][::-1].copy())


@pytest.fixture(params=["directions", "graph", "both"])
def parts(request, rng, graph):
    """A covariance in parts, and the matrix."""
    loadings, specific = torch.as_tensor(rng.normal(size=(K, 2))), torch.as_tensor(rng.uniform(0.1, 2, K))
    found = GeneCovariance.of_directions(loadings, specific)
    if request.param != "directions":
        edges = graph.nonzero()
        loadings = loadings[:, :0] if request.param == "graph" else loadings
        found = GeneCovariance(loadings, specific, edges, graph[edges[:, 0], edges[:, 1]])
        total = torch.linalg.inv(torch.eye(K, dtype=torch.float64) - graph)
        return found, loadings @ loadings.T + total @ torch.diag(specific) @ total.T
    return found, loadings @ loadings.T + torch.diag(specific)


def test_it_is_the_matrix(parts, rng):
    found, matrix = parts
    right, left = torch.as_tensor(rng.normal(size=(K, 3))), torch.as_tensor(rng.normal(size=(4, K)))
    torch.testing.assert_close(found.dense(), matrix)
    torch.testing.assert_close(found @ right, matrix @ right)
    torch.testing.assert_close(left @ found, left @ matrix)
    torch.testing.assert_close(found.diagonal(), matrix.diagonal())
    torch.testing.assert_close(found.sum(), matrix.sum())
    torch.testing.assert_close(found.trace(), matrix.trace())


def test_roots(parts):
    found, matrix = parts
    eye = torch.eye(K + found.loadings.shape[1], dtype=torch.float64)
    root = found.root_times(eye[:K], eye[K:])
    torch.testing.assert_close(root @ root.T, matrix)


def test_along_a_graph_it_is_the_dense_one(graph):
    torch.testing.assert_close(GeneCovariance.along_graph(graph, K).dense(), along_graph(graph, K))
    torch.testing.assert_close(GeneCovariance.along_graph(None, K).dense(), along_graph(None, K))


def test_others_follow_from_the_perturbed_genes(parts, rng):
    found, matrix = parts
    coefficients, root = (torch.as_tensor(rng.normal(size=shape)) for shape in ((3, K), (3, 3)))
    more = ExtendedCovariance(found, coefficients, root @ root.T)
    cross = coefficients @ matrix
    whole = torch.cat([torch.cat([matrix, cross.T], 1), torch.cat([cross, cross @ coefficients.T + root @ root.T], 1)])
    torch.testing.assert_close(more.dense(), whole)
    right = torch.as_tensor(rng.normal(size=(K + 3, 2)))
    torch.testing.assert_close(right.T @ more @ right, right.T @ whole @ right)
    eye = torch.eye(K + 3 + found.loadings.shape[1], dtype=torch.float64)
    drawn = more.root_times(eye[: K + 3], eye[K + 3 :])
    torch.testing.assert_close(drawn @ drawn.T, whole, rtol=1e-6, atol=1e-6)
