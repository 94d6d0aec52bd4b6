"""Windows of cells that are read from a file: what an epoch passes over, and how much is in memory."""

from dataclasses import replace

import numpy as np
import pytest

from raptorgraph.model import _stream
from raptorgraph.model._loader import PairedSampler, Split
from raptorgraph.model._stream import WindowSampler
from raptorgraph.screen._moments import EffectMoments

N_CONTROLS, N, CONDITIONS = 400, 1600, 8
ROWS = np.random.default_rng(0).permutation(N_CONTROLS + N)
CONTROLS, PERTURBED = np.sort(ROWS[:N_CONTROLS]), np.sort(ROWS[N_CONTROLS:])
OPTIONS = {"batch_size": 32, "chunk_size": 8, "shuffle": True, "seed": 3}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_stream, "_BLOCK", 16)


def split():
    codes = np.zeros(N_CONTROLS + N, dtype=int)
    codes[PERTURBED] = np.random.default_rng(1).integers(1, CONDITIONS + 1, N)
    none = np.zeros((CONDITIONS + 1, 1))
    return Split(CONTROLS, PERTURBED, codes, EffectMoments(none, none, none[:, 0]), None)


def test_an_epoch_passes_over_each_cell_once_in_windows():
    sampler = WindowSampler(split(), n_cells=330, **OPTIONS)
    assert (sampler.n_cells, sampler.n_controls) == (320, 160)  # whole batches
    first, second = (list(sampler) for _ in range(2))
    assert len(first) == len(sampler) == N // 32
    held, windows = None, 0
    for each in first:
        if each.rows is not None:
            held, windows = each.rows, windows + 1
            assert len(held) <= 320 + 160
            assert (np.diff(held) > 0).all()
        assert len(each.batch.controls) == len(each.batch.perturbed) == 32
        assert np.isin(each.batch.controls, CONTROLS).all()
        assert np.isin(np.concatenate([each.batch.controls, each.batch.perturbed]), held).all()
    assert windows == N // 320
    orders = [np.concatenate([each.batch.perturbed for each in epoch]) for epoch in (first, second)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), PERTURBED)
    assert not np.array_equal(*orders)
    # in the long run all controls are partners
    seen = np.unique(np.concatenate([each.batch.controls for _ in range(8) for each in sampler]))
    np.testing.assert_array_equal(seen, CONTROLS)


def test_a_window_takes_cells_from_all_of_the_file():
    first = next(iter(WindowSampler(split(), n_cells=320, **OPTIONS))).rows
    quarters = np.bincount(first * 4 // (N_CONTROLS + N), minlength=4)
    assert (quarters > 0.1 * len(first)).all()
    # and neighbors together: with up to 16 others between them far fewer runs than cells
    assert (np.diff(first) > 16).sum() < len(first) / 8


def test_the_same_seed_gives_the_same_batches():
    one, same, other = (
        [each.batch.perturbed for each in WindowSampler(split(), n_cells=320, **{**OPTIONS, "seed": seed})]
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(same))
    assert not np.array_equal(np.concatenate(one), np.concatenate(other))


def test_processes_share_the_batches_of_windows():
    few = replace(split(), perturbed=PERTURBED[:641])  # one more than two windows
    samplers = [WindowSampler(few, n_cells=320, share=(rank, 2), **OPTIONS) for rank in range(2)]
    parts = [[each.batch.perturbed for each in sampler] for sampler in samplers]
    assert [len(part) for part in parts] == [len(sampler) for sampler in samplers] == [20, 20]
    assert all(len(cells) for part in parts for cells in part)
    np.testing.assert_array_equal(np.sort(np.concatenate([*parts[0], *parts[1]])), few.perturbed)


def test_cells_that_fit_come_as_in_memory():
    sampler, plain = WindowSampler(split(), n_cells=2048, **OPTIONS), PairedSampler(split(), **OPTIONS)
    for _ in range(2):
        found, expected = list(sampler), list(plain)
        assert [each.rows is None for each in found] == [False] + [True] * (len(found) - 1)
        for each, pairs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(each.batch.controls, pairs.controls)
            np.testing.assert_array_equal(each.batch.perturbed, pairs.perturbed)


def test_validation_looks_at_one_window_of_cells_all_the_time():
    sampler = WindowSampler(split(), n_cells=320, **{**OPTIONS, "shuffle": False})
    first, second = (list(sampler) for _ in range(2))
    assert len(first) == 10
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.batch.perturbed, two.batch.perturbed)
    assert len(first[0].rows) == 320 + 160
    np.testing.assert_array_equal(first[0].rows, second[0].rows)  # which is then there already
