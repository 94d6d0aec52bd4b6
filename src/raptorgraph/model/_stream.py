"""Batches of cells that are not in memory: windows of cells are read from the file, and shuffled in memory.

Neighbors in a file are read together, and a window is read from many places, so that its batches hold cells of all of
the file: what annbatch, which needs Python 3.12, does for unlabeled cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from raptorgraph.model._loader import (
    Batch,
    CellDataset,
    PairedBatch,
    PairedDataset,
    PairedSampler,
    Split,
    controls_of_a_batch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptorgraph.model._manager import ScreenManager
    from raptorgraph.model._stored_cells import StoredDataset
    from raptorgraph.model._targets import EffectTargets

_N_CELLS = 16_384  # perturbed cells in a window, and half as many controls
_WINDOW_BYTES = 2**28  # of a window with its controls
_BLOCK = 128  # cells in a row that are read together
_RENEWED = 16  # windows after which all controls in memory are others, where there are more


@dataclass(frozen=True)
class WindowBatch:
    """A batch, and the rows to have in memory from there on; None for those that are there."""

    batch: PairedBatch
    rows: np.ndarray | None


class WindowSampler(Sampler[WindowBatch]):
    """The batches of :class:`PairedSampler` within windows of cells, which are drawn anew in every epoch.

    A window takes blocks of neighbors in the file, drawn at random. Its partners come from a part of the control cells,
    of which a sixteenth is replaced with each window. Cells that fit into one window come in the very order in which
    :class:`PairedSampler` gives them. An epoch passes over each perturbed cell once.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        chunk_size: int,
        shuffle: bool,
        seed: int,
        targets: EffectTargets | None = None,
        n_controls: int | None = None,
        share: tuple[int, int] = (0, 1),
        n_cells: int = _N_CELLS,
    ) -> None:
        self.n_cells = max(1, n_cells // batch_size) * batch_size
        self.n_controls = max(self.n_cells // 2, 1)
        self.fits = len(split.perturbed) + len(split.controls) <= self.n_cells + self.n_controls
        if not self.fits:  # neighbors in the file are read together, whatever the order of draws
            split = replace(split, perturbed=np.sort(split.perturbed), controls=np.sort(split.controls))
        if not self.fits and not shuffle:
            split = _sample(split, self.n_cells, self.n_controls, seed)
            self.fits = True
        self.split, self.seed, self.shuffle, self.epoch = split, seed, shuffle, 0
        self._paired = partial(
            PairedSampler,
            batch_size=batch_size,
            chunk_size=chunk_size,
            shuffle=shuffle,
            targets=targets,
            n_controls=n_controls,
            share=share,
        )
        self._whole = self._paired(split, seed=seed)

    def set_epoch(self, epoch: int) -> None:
        """Go on from an epoch, as the trainer asks before each."""
        self.epoch = epoch
        self._whole.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._whole)

    def __iter__(self) -> Iterator[WindowBatch]:
        if self.fits:
            rows = np.unique(np.concatenate([self.split.controls, self.split.perturbed]))
            yield from _with_rows(list(self._whole), rows)
            return
        rng = np.random.default_rng((self.seed, self.epoch, 1))
        self.epoch += 1
        cells = np.concatenate(_shuffled_blocks(self.split.perturbed, rng))
        pool = np.concatenate(_shuffled_blocks(self.split.controls, rng))
        step = max(1, self.n_controls // _RENEWED)
        # Cells that are too few for all processes go with the window before, as in a batch.
        starts = range(0, max(1, len(cells) - self._whole.share[1] + 1), self.n_cells)
        for i, (start, end) in enumerate(zip(starts, [*starts[1:], len(cells)], strict=True)):
            controls = np.unique(np.take(pool, np.arange(i * step, i * step + self.n_controls), mode="wrap"))
            part = replace(self.split, perturbed=cells[start:end], controls=controls)
            batches = list(self._paired(part, seed=int(rng.integers(2**32))))
            used = [rows for batch in batches for rows in (batch.controls, batch.perturbed)]
            yield from _with_rows(batches, np.unique(np.concatenate(used)))


def _with_rows(batches: list[PairedBatch], rows: np.ndarray) -> Iterator[WindowBatch]:
    for i, batch in enumerate(batches):
        yield WindowBatch(batch, None if i else rows)


def _shuffled_blocks(rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Neighboring rows in blocks, the blocks in random order."""
    blocks = [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]
    return [blocks[i] for i in rng.permutation(len(blocks))]


def _sample(split: Split, n_cells: int, n_controls: int, seed: int) -> Split:
    """As many cells as a window takes, those that validation looks at in every epoch."""
    rng = np.random.default_rng((seed, 12))
    cells, controls = (
        np.sort(np.concatenate(_shuffled_blocks(rows, rng))[:n])
        for rows, n in ((split.perturbed, n_cells), (split.controls, n_controls))
    )
    return replace(split, perturbed=cells, controls=controls)


class StreamedDataset(Dataset[Batch]):
    """Read a :class:`WindowBatch`, and before it the rows of its window."""

    def __init__(self, dataset: PairedDataset) -> None:
        self.dataset = dataset
        self.cells: StoredDataset = dataset.base

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, batch: WindowBatch) -> Batch:
        if batch.rows is not None:
            self.cells.hold(batch.rows)
        return self.dataset[batch.batch]


def make_stream(
    manager: ScreenManager,
    split: Split,
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
    with_partners: bool = True,
    targets: EffectTargets | None = None,
    chunk_size: int = 64,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Batch]:
    """Batches of one split, as :func:`~raptorgraph.model._loader.make_loader` gives them, of cells in a file."""
    stored = manager.stored
    assert stored is not None
    n_cells = min(_N_CELLS, max(batch_size, int(_WINDOW_BYTES / 1.5 / max(1.0, stored.row_bytes))))
    sampler = WindowSampler(
        split,
        batch_size=batch_size,
        chunk_size=chunk_size,
        shuffle=shuffle,
        seed=seed,
        targets=targets,
        n_controls=None if targets is None else controls_of_a_batch(split, batch_size),
        share=share,
        n_cells=n_cells,
    )
    if targets is None:
        dataset = PairedDataset(manager, sampler.split, with_partners=with_partners)
    else:
        dataset = CellDataset(manager, sampler.split, targets)
    return DataLoader(StreamedDataset(dataset), sampler=sampler, batch_size=None)
