"""Effects that training holds the network to: which there are, with what uncertainty, and which a batch draws."""

import numpy as np
import pytest
import torch

from raptorgraph.model import _targets
from raptorgraph.model._targets import _SD_FLOOR, N_CONDITIONS, N_PAIRS, EffectTargets, _some_pairs
from raptorgraph.screen._moments import EffectMoments

G = 4
RNG = np.random.default_rng(0)


class Posterior:
    """One whose effect of a set of genes is a known function of it."""

    weight = RNG.normal(size=(5, G))

    def mean_and_sd(self, mask):
        mean = mask.numpy().astype(float) @ self.weight
        return torch.as_tensor(mean), torch.as_tensor(0.1 + np.abs(mean))


def design(*sets, k=5):
    found = np.zeros((len(sets), k), dtype=np.float32)
    for row, genes in zip(found, sets, strict=True):
        row[list(genes)] = 1
    return found


KNOWN = design((), (0,), (2,), (0, 1), (0, 2, 3))


def genes_of(targets):
    return [tuple(torch.nonzero(row).squeeze(1).tolist()) for row in targets.mask]


def test_measured_and_all_other_singles_and_pairs_are_inferred():
    targets = EffectTargets.inferred(Posterior(), KNOWN, seed=0)
    found = genes_of(targets)
    assert found[:4] == [(0,), (2,), (0, 1), (0, 2, 3)]
    assert found[4 : targets.n_core] == [(1,), (3,), (4,)]
    pairs = {(i, j) for i in range(5) for j in range(i + 1, 5)} - {(0, 1)}
    assert len(found) == targets.n_core + len(pairs)
    assert set(found[targets.n_core :]) == pairs
    expected = targets.mask.double().numpy() @ Posterior.weight
    np.testing.assert_allclose(targets.effect, expected, atol=1e-6)
    np.testing.assert_allclose(targets.variance, (0.1 + np.abs(expected)) ** 2 + _SD_FLOOR**2, rtol=1e-5)
    assert {x.dtype for x in (targets.mask, targets.effect, targets.variance)} == {torch.float32}


def test_conditions_without_cells_are_not_measured():
    moments = EffectMoments(RNG.normal(size=(5, G)), RNG.random((5, G)), np.array([9, 4, 0, 1, 2]))
    targets = EffectTargets.measured(moments, KNOWN)
    assert genes_of(targets) == [(0,), (0, 1), (0, 2, 3)]
    assert targets.n_core == 3
    np.testing.assert_allclose(targets.effect, moments.effect[[1, 3, 4]], rtol=1e-6)
    np.testing.assert_allclose(targets.variance, moments.variance[[1, 3, 4]], rtol=1e-6)


def test_measured_singles_are_shrunken_by_their_noise():
    moments = EffectMoments(RNG.normal(size=(5, G)), RNG.random((5, G)) + 0.1, np.array([9, 4, 3, 1, 2]))
    found = EffectTargets.measured(moments, KNOWN).of_singles()
    expected = np.zeros((5, G))
    for row, gene in ((1, 0), (2, 2)):
        effect, variance = moments.effect[row], moments.variance[row]
        expected[gene] = effect * effect**2 / (effect**2 + variance)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    combinations = EffectTargets.measured(EffectMoments(*(x[[0, 3]] for x in vars(moments).values())), KNOWN[[0, 3]])
    assert not combinations.of_singles().any()


def test_a_batch_draws_from_both_kinds_alike():
    targets = EffectTargets.inferred(Posterior(), KNOWN, seed=0)
    rng, n = np.random.default_rng(1), 4000
    drawn = np.array([targets.draw(rng) for _ in range(n)])
    assert drawn.shape == (n, N_CONDITIONS)
    assert all(len(set(row)) == N_CONDITIONS for row in drawn.tolist())
    assert ((drawn < targets.n_core).sum(1) == N_CONDITIONS // 2).all()
    share = np.bincount(drawn.ravel(), minlength=len(targets.mask)) / n
    first, rest = share[: targets.n_core], share[targets.n_core :]
    for part in (first, rest):
        expected = N_CONDITIONS / 2 / len(part)
        np.testing.assert_allclose(part, expected, atol=4.5 * np.sqrt(expected * (1 - expected) / n))


@pytest.mark.parametrize(
    ("n_core", "n_pairs", "first", "rest"), [(3, 0, 3, 0), (20, 0, 8, 0), (20, 2, 6, 2), (1, 9, 1, 4)]
)
def test_a_batch_draws_what_there_is(n_core, n_pairs, first, rest):
    values = torch.zeros(n_core + n_pairs, 2)
    drawn = EffectTargets(values, values, values, n_core).draw(np.random.default_rng(0))
    assert ((drawn < n_core).sum(), (drawn >= n_core).sum()) == (first, rest)
    assert len(set(drawn)) == first + rest


def test_of_many_genes_some_pairs_are_drawn(monkeypatch):
    known = {(0, 1), (2,), (5, 9)}
    few = _some_pairs(60, known, np.random.default_rng(0))  # all are listed, and some taken
    assert len(set(few)) == N_PAIRS
    assert not known & set(few)
    monkeypatch.setattr(_targets, "combinations", None)  # of which there are 2e8
    found = _some_pairs(20_000, known, np.random.default_rng(0))
    assert len(set(found)) == len(found) == N_PAIRS
    assert all(i < j for i, j in found)
    assert found == _some_pairs(20_000, known, np.random.default_rng(0))
    assert found != _some_pairs(20_000, known, np.random.default_rng(1))


def test_one_gene_has_no_pairs():
    assert _some_pairs(1, set(), np.random.default_rng(0)) == []
