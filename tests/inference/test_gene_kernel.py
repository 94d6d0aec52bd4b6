"""The covariance that an embedding gives: its likelihood by brute force, and its weight where it says something."""

import numpy as np
import pytest
import torch

from raptorgraph.inference._gene_kernel import (
    _COMMON,
    _SHARES,
    LEVELS,
    GeneKernel,
    _effective,
    _evidence,
    _kernels,
    known,
    learn_kernel,
)


@pytest.fixture
def rows():
    return torch.as_tensor(np.random.default_rng(0).normal(size=(7, 3)))


def kernel_of(rows, weights=None, common=0.1):
    scale = torch.tensor([2.0, 1.0], dtype=torch.float64)
    weights = torch.full((10,), 0.05, dtype=torch.float64) if weights is None else weights
    return GeneKernel(rows, scale, weights, torch.tensor(common, dtype=torch.float64))


def test_the_covariance_by_hand(rows):
    found = kernel_of(rows).among(rows).numpy()
    x = rows.numpy()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(7):
        for j in range(7):
            euclid, angle = np.linalg.norm(x[i] - x[j]) / 2.0, np.linalg.norm(unit[i] - unit[j])
            alike = [np.exp(-d / w) for d in (euclid, angle) for w in (0.25, 0.5, 1, 2, 4)]
            assert found[i, j] == pytest.approx(1.0 if i == j else 0.1 + 0.05 * sum(alike))
    assert np.linalg.eigvalsh(found).min() > 0


def test_genes_without_a_row_share_what_all_have_in_common(rows):
    rows[2], rows[4] = torch.nan, 0.0
    assert known(rows).tolist() == [True, True, False, True, False, True, True]
    found = kernel_of(rows).among(rows)
    assert torch.equal(found[2, [0, 1, 3, 4]], torch.full((4,), 0.1, dtype=torch.float64))
    assert found[2, 2] == 1


def test_the_regression_is_that_of_the_joint_normal(rows):
    kernel = kernel_of(rows[:5])
    joint = kernel.among(rows).numpy()
    for given in (np.ones(5, dtype=bool), np.array([True, False, True, True, False])):
        coefficients, left = (x.numpy() for x in kernel.regression(rows[5:], torch.as_tensor(given)))
        on = np.flatnonzero(given)
        expected = joint[5:, on] @ np.linalg.inv(joint[np.ix_(on, on)])
        np.testing.assert_allclose(coefficients[:, given], expected, atol=1e-12)
        assert not coefficients[:, ~given].any()
        np.testing.assert_allclose(left, joint[5:, 5:] - expected @ joint[on, 5:], atol=1e-12)


def test_the_evidence_is_that_of_the_whole_covariance(rows):
    """Differences between points of the grid, for one level each, so that levels have no weights to learn."""
    y = torch.as_tensor(np.random.default_rng(1).normal(size=(7, 1)))
    noise, control = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    kernel = next(_kernels(rows, rows, torch.ones(2, dtype=torch.float64)))
    values, vectors = torch.linalg.eigh(kernel)
    found = _evidence(values, vectors.mT @ y, vectors.sum(0), noise, control)
    one, eye = np.ones((7, 7)), np.eye(7)
    log_weights = np.full(len(LEVELS), -np.log(len(LEVELS)))
    for i, share in enumerate(_SHARES.numpy()):
        for j, common in enumerate(_COMMON.numpy()):
            density = []
            for level in LEVELS.numpy() / (1 + common):
                total = level * (share * kernel.numpy() + (1 - share) * eye + common * one) + 0.8 * eye + 0.3 * one
                quadratic = float(y[:, 0].numpy() @ np.linalg.solve(total, y[:, 0].numpy()))
                density.append(-0.5 * (quadratic + np.linalg.slogdet(total)[1]))
            for _ in range(8):  # the weights go on from one point to the next
                unscaled = np.exp(np.array(density) + log_weights)
                log_weights = np.log(np.maximum(unscaled / unscaled.sum(), 1e-12))
            assert found[i, j] == pytest.approx(np.log(np.exp(np.array(density) + log_weights).sum()))


def test_columns_that_repeat_each_other_count_once():
    one = torch.as_tensor(np.random.default_rng(0).normal(size=(30, 1)))
    assert _effective(one.expand(-1, 50)) == pytest.approx(1.0)
    many = torch.as_tensor(np.random.default_rng(0).normal(size=(500, 20)))
    assert 18 < _effective(many) <= 20


def test_the_weight_is_large_where_the_embedding_says_something_and_small_where_it_does_not():
    share = {"true": [], "shuffled": []}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        embedding = torch.as_tensor(rng.normal(size=(40, 3)))
        distance = torch.cdist(embedding, embedding)
        covariance = torch.exp(-distance / distance.median()) + 0.1 * torch.eye(40)
        effect = torch.linalg.cholesky(covariance) @ torch.as_tensor(rng.normal(size=(40, 200)))
        effect = 4 * effect + torch.as_tensor(rng.normal(size=(40, 200)))
        noise, control = torch.tensor(1.0), torch.tensor(0.0)
        for name, rows in (("true", embedding), ("shuffled", embedding[rng.permutation(40)])):
            share[name].append(float(learn_kernel(effect, rows, noise, control, rows).weights.sum()))
    assert min(share["true"]) > 0.4
    assert max(share["shuffled"]) < 0.1
