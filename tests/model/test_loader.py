"""Order, partners and contents of batches against what they promise."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import raptorgraph as rg
from raptorgraph.model import _loader
from raptorgraph.model._field import KEYS
from raptorgraph.model._loader import (
    CellDataset,
    PairedBatch,
    PairedDataset,
    PairedSampler,
    Split,
    as_tensors,
    make_loader,
)  # fmt: skip
from raptorgraph.model._targets import EffectTargets
from raptorgraph.screen._moments import EffectMoments

SIZES = (4, 9, 9, 9)  # cells of the control and of three conditions
CODES = np.random.default_rng(0).permutation(np.repeat(np.arange(4), SIZES))
CONTROLS, PERTURBED = np.flatnonzero(CODES == 0), np.flatnonzero(CODES)


def split(plan=None):
    rng = np.random.default_rng(1)
    effects = EffectMoments(rng.normal(size=(4, 3)), rng.random((4, 3)), np.array(SIZES))
    return Split(CONTROLS, PERTURBED, CODES, effects, plan)


def sampler(*, batch_size=10, chunk_size=3, shuffle=True, seed=0, plan=None):
    return PairedSampler(split(plan), batch_size=batch_size, chunk_size=chunk_size, shuffle=shuffle, seed=seed)


def epoch(sampler):
    """Perturbed cells and their partners in the order of an epoch."""
    batches = list(sampler)
    return tuple(np.concatenate([getattr(batch, name) for batch in batches]) for name in ("perturbed", "controls"))


# -- order -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_passes_over_each_perturbed_cell_once(shuffle):
    batches = sampler(shuffle=shuffle)
    assert len(batches) == 3
    for _ in range(3):
        assert [len(batch.perturbed) for batch in batches] == [10, 10, 7]
        cells, partners = epoch(batches)
        np.testing.assert_array_equal(np.sort(cells), PERTURBED)
        assert set(CODES[partners]) == {0}


def test_batches_of_one_condition_hold_as_many_cells_as_there_are():
    """Conditions of nine cells in batches of at most five: five and four, drawn anew in every epoch."""
    sampler = PairedSampler(split(), batch_size=5, chunk_size=3, shuffle=True, seed=0, one_condition=True)
    assert len(sampler) == 6
    found = []
    for _ in range(2):
        batches = list(sampler)
        assert sorted(len(batch.perturbed) for batch in batches) == [4, 4, 4, 5, 5, 5]
        assert all(len(set(CODES[batch.perturbed])) == 1 for batch in batches)
        assert all(len(batch.controls) == len(batch.perturbed) for batch in batches)
        cells = np.concatenate([batch.perturbed for batch in batches])
        np.testing.assert_array_equal(np.sort(cells), PERTURBED)
        found.append(cells)
    assert (found[0] != found[1]).any()
    whole = PairedSampler(split(), batch_size=40, chunk_size=3, shuffle=True, seed=0, one_condition=True)
    assert [len(batch.perturbed) for batch in whole] == [9, 9, 9]


@pytest.mark.parametrize(("batch_size", "n_ranks", "sizes"), [(10, 2, [10, 10, 7]), (13, 2, [13, 14]), (40, 3, [27])])
def test_several_processes_share_every_batch(batch_size, n_ranks, sizes):
    def shared(rank, n):
        return PairedSampler(split(), batch_size=batch_size, chunk_size=3, shuffle=True, seed=0, share=(rank, n))

    ranks = [shared(rank, n_ranks) for rank in range(n_ranks)]
    assert {len(each) for each in ranks} == {len(sizes)}
    for _ in range(2):
        parts = [list(each) for each in ranks]
        batches = list(zip(*parts, strict=True))
        assert [sum(len(part.perturbed) for part in batch) for batch in batches] == sizes
        assert all(0 <= len(a.perturbed) - len(b.perturbed) <= 1 for *_, b, a in batches)
        assert all(len(part.perturbed) == len(part.controls) > 0 for batch in batches for part in batch)
        cells = np.concatenate([part.perturbed for batch in batches for part in batch])
        np.testing.assert_array_equal(np.sort(cells), PERTURBED)
        # chunks of a condition are cut where a process ends, and nowhere else
        assert (np.diff(CODES[cells]) != 0).sum() <= 8
    # together they have the batches of one process
    one, parts = list(shared(0, 1)), [list(shared(rank, n_ranks)) for rank in range(n_ranks)]
    for name in ("perturbed", "controls"):
        together = np.concatenate([getattr(part, name) for batch in zip(*parts, strict=True) for part in batch])
        np.testing.assert_array_equal(together, np.concatenate([getattr(batch, name) for batch in one]))


def test_chunks_of_one_condition_come_in_random_order():
    batches, n = sampler(batch_size=27), 3000
    orders = np.array([epoch(batches)[0] for _ in range(n)])
    chunks = CODES[orders].reshape(n, 9, 3)
    assert (chunks == chunks[:, :, :1]).all()  # whole chunks of one condition
    # two of the eight other chunks are of the same condition, two of the 26 other cells share a cell's chunk
    alike = (chunks[:, 0, 0] == chunks[:, 1, 0]).mean()
    assert alike == pytest.approx(2 / 8, abs=4 * np.sqrt(2 / 8 * 6 / 8 / n))
    one, other = np.flatnonzero(CODES == 1)[:2]
    place = np.argsort(orders, axis=1)[:, np.searchsorted(PERTURBED, [one, other])]
    together = (place[:, 0] // 3 == place[:, 1] // 3).mean()
    assert together == pytest.approx(2 / 8, abs=4 * np.sqrt(2 / 8 * 6 / 8 / n))
    first = np.bincount(orders[:, 0], minlength=len(CODES))[PERTURBED] / n
    np.testing.assert_allclose(first, 1 / 27, atol=4.5 * np.sqrt(1 / 27 / n))


@pytest.mark.parametrize(("chunk_size", "batch_size", "sizes"), [(4, 27, {4, 1}), (9, 27, {9}), (64, 5, {5, 4})])
def test_a_condition_is_cut_into_chunks_that_fit_a_batch(chunk_size, batch_size, sizes):
    """Runs of a condition are whole chunks: a multiple of the larger size, and the rest once at most."""
    largest, rest = max(sizes), 9 % max(sizes)
    runs = set()
    for seed in range(40):
        codes = CODES[epoch(sampler(chunk_size=chunk_size, batch_size=batch_size, seed=seed))[0]]
        edges = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
        found = np.diff(edges)
        assert all(run % largest in (0, rest) for run in found)
        runs |= set(found.tolist())
    assert min(runs) == min(sizes)
    assert sizes <= runs


def test_order_and_partners_depend_on_seed_and_epoch():
    def epochs(n=3, **kwargs):
        one = sampler(**kwargs)
        return [np.stack(epoch(one)) for _ in range(n)]

    first, again, other = epochs(seed=5), epochs(seed=5), epochs(seed=6)
    np.testing.assert_array_equal(first, again)
    assert all((one != two).any() for one, two in ((first[0], first[1]), (first[1], first[2]), (first[0], other[0])))
    validation = epochs(seed=5, shuffle=False)
    np.testing.assert_array_equal(validation, [first[0]] * 3)


def test_no_cell_is_one_empty_batch():
    nothing = Split(CONTROLS, PERTURBED[:0], CODES, split().effects, None)
    assert len(PairedSampler(nothing, batch_size=4, chunk_size=2, shuffle=True, seed=0)) == 1


# -- partners --------------------------------------------------------------------------------------------------------
def expect_frequencies(batches, probabilities, n=3000):
    """Hold the frequencies of the partners of each cell against their probabilities, cells x cells."""
    drawn = np.zeros(probabilities.shape)
    for _ in range(n):
        np.add.at(drawn, epoch(batches), 1)
    assert (drawn[probabilities == 0] == 0).all()
    error = np.sqrt(probabilities * (1 - probabilities) / n)
    possible = error > 0
    z = (drawn / n - probabilities)[possible] / error[possible]
    assert np.abs(z).max() < 4.5
    assert np.mean(z**2) == pytest.approx(1, abs=5 * np.sqrt(2 / z.size))
    np.testing.assert_allclose(drawn[probabilities == 1], n)


def test_partners_are_drawn_with_the_probabilities_of_the_plan():
    rng, probabilities = np.random.default_rng(2), np.zeros((len(CODES), len(CODES)))
    weights = rng.random((len(PERTURBED), len(CONTROLS))) * (rng.random((len(PERTURBED), len(CONTROLS))) < 0.7)
    weights[:, 0] += weights.sum(axis=1) == 0
    probabilities[np.ix_(PERTURBED, CONTROLS)] = weights / weights.sum(axis=1, keepdims=True)
    expect_frequencies(sampler(plan=sparse.csr_matrix(probabilities)), probabilities)


def test_without_a_plan_every_control_is_as_likely():
    probabilities = np.zeros((len(CODES), len(CODES)))
    probabilities[np.ix_(PERTURBED, CONTROLS)] = 1 / len(CONTROLS)
    expect_frequencies(sampler(), probabilities)


# -- contents --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def manager():
    labels = np.array(["control", "A", "B", "A+B"])[CODES]
    counts = np.random.default_rng(3).poisson(4.0, (len(CODES), 3)).astype(np.float32) + 1
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(CODES))])
    adata = ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=["A", "B", "C"]))
    rg.RaptorGraphModel.setup_anndata(adata)
    return rg.RaptorGraphModel(adata, n_hidden=4).adata_manager


def test_a_batch_holds_what_the_module_reads(manager):
    dataset, part = PairedDataset(manager, split(), with_partners=True), split()
    assert len(dataset) == 27
    rows = np.concatenate([np.flatnonzero(CODES == 3)[:2], np.flatnonzero(CODES == 1)[:1]])
    batch = dataset[PairedBatch(controls=CONTROLS[[2, 0, 2]], perturbed=rows)]
    X = manager.adata.X.toarray()
    np.testing.assert_array_equal(batch[KEYS.X], X[CONTROLS[[2, 0, 2]]])
    np.testing.assert_array_equal(batch[KEYS.LIBRARY].ravel(), X[CONTROLS[[2, 0, 2]]].sum(1))
    np.testing.assert_array_equal(batch["mask"], [[1, 1], [1, 1], [1, 0]])
    np.testing.assert_array_equal(batch["condition"], [1, 1, 0])  # rows of the shifts, in the order of codes
    np.testing.assert_array_equal(batch["shift"], part.effects.effect[[1, 3]].astype(np.float32))
    np.testing.assert_array_equal(batch["shift_variance"], part.effects.variance[[1, 3]].astype(np.float32))
    np.testing.assert_array_equal(batch["partner"][KEYS.X], X[rows])
    assert KEYS.PERTURBATION not in batch
    assert "partner" not in PairedDataset(manager, part, with_partners=False)[PairedBatch(CONTROLS[:1], rows[:1])]


def test_a_loader_reads_the_batches_of_its_sampler(manager):
    loader = make_loader(manager, split(), batch_size=10, shuffle=False, seed=0)
    X = manager.adata.X.toarray()
    for indices, batch in zip(list(loader.sampler), loader, strict=True):
        np.testing.assert_array_equal(batch[KEYS.X], X[indices.controls])
        np.testing.assert_array_equal(batch["partner"][KEYS.X], X[indices.perturbed])


def targets():
    """Three measured conditions, and nine pairs."""
    rng = np.random.default_rng(4)
    mask = (rng.random((12, 2)) < 0.5).astype(float)
    return EffectTargets(*(torch.as_tensor(x) for x in (mask, rng.normal(size=(12, 3)), rng.random((12, 3)))), 3)


def test_a_batch_of_all_cells_holds_controls_first_and_its_effects(manager):
    rows, controls = np.flatnonzero(CODES == 3)[:2], CONTROLS[[2, 0]]
    batch = CellDataset(manager, split(), targets())[PairedBatch(controls, rows, np.array([7, 2, 0]))]
    X = manager.adata.X.toarray()
    both = [*controls, *rows]
    np.testing.assert_array_equal(batch[KEYS.X], X[both])
    np.testing.assert_array_equal(batch[KEYS.LIBRARY].ravel(), X[both].sum(1))
    np.testing.assert_array_equal(batch["mask"], [[0, 0], [0, 0], [1, 1], [1, 1]])
    for name, values in (("condition_mask", "mask"), ("shift", "effect"), ("shift_variance", "variance")):
        assert torch.equal(batch[name], getattr(targets(), values)[[7, 2, 0]])
    assert KEYS.PERTURBATION not in batch


def test_effects_are_drawn_by_seed_and_epoch(manager):
    def epochs(n=2, **kwargs):
        loader = make_loader(manager, split(), batch_size=10, targets=targets(), **kwargs)
        return [torch.stack([batch["shift"] for batch in loader]) for _ in range(n)]

    first, again, other = epochs(shuffle=True, seed=5), epochs(shuffle=True, seed=5), epochs(shuffle=True, seed=6)
    assert first[0].shape == (3, 7, 3)  # all that were measured, and four pairs
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    validation = epochs(shuffle=False, seed=5)
    assert torch.equal(*validation)
    # cells and partners of a sampler are those that are drawn without effects
    plain = sampler(seed=5)
    drawn = PairedSampler(split(), batch_size=10, chunk_size=3, shuffle=True, seed=5, targets=targets())
    np.testing.assert_array_equal(epoch(plain), epoch(drawn))


@pytest.mark.parametrize(("n_controls", "least", "n_each"), [(4, 2, 2), (40, 2, 14), (40, 12, 12), (40, 20, 10)])
def test_an_epoch_of_all_cells_passes_over_the_controls_once_or_holds_some_in_each_batch(
    manager, monkeypatch, n_controls, least, n_each
):
    monkeypatch.setattr(_loader, "_LEAST_CONTROLS", least)
    part = replace(split(), controls=np.arange(100, 100 + n_controls))
    batches = make_loader(manager, part, batch_size=10, shuffle=True, seed=0, targets=targets(), chunk_size=3).sampler
    for _ in range(2):
        drawn = [batch.controls for batch in batches]
        assert [len(rows) for rows in drawn] == [min(n_each, 10)] * 3
        times = np.bincount(np.concatenate(drawn) - 100, minlength=n_controls)
        assert times.max() - times.min() <= 1
        assert times.min() >= (3 * min(n_each, 10)) // n_controls


def test_tensors_are_contiguous():
    values = np.arange(6.0).reshape(2, 3)
    found = as_tensors({"x": values.T})["x"]
    assert found.is_contiguous()
    assert torch.equal(found, torch.as_tensor(values).T)
