"""Batches of whole conditions: control partners, perturbed cells, and the shift each condition was measured at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from raptorgraph.model._field import KEYS
from raptorgraph.pp._pairing import sample_partners

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scipy import sparse

    from raptorgraph.model._manager import ScreenManager
    from raptorgraph.model._targets import EffectTargets
    from raptorgraph.screen._moments import EffectMoments

_LEAST_CONTROLS = 64  # in a batch: effects are decoded on some of them

Batch: TypeAlias = dict[str, Any]
"""Tensors by name, those of the partners under ``"partner"``."""


@dataclass(frozen=True)
class Split:
    """Cells of one part of the data and what was measured on them.

    ``perturbed``: row numbers of perturbed cells; ``codes``: condition of every cell of the data, 0 = control;
    ``plan``: n x n pairing over all cells, or None for uniform random partners among ``controls``.
    """

    controls: np.ndarray
    perturbed: np.ndarray
    codes: np.ndarray
    effects: EffectMoments
    plan: sparse.csr_matrix | None


@dataclass(frozen=True)
class PairedBatch:
    """Row numbers of controls (partners, one for each cell, or some) and perturbed cells, and of targets if any."""

    controls: np.ndarray
    perturbed: np.ndarray
    targets: np.ndarray | None = None


class PairedSampler(Sampler[PairedBatch]):
    """Yield :class:`PairedBatch`; an epoch passes over each perturbed cell once, its partner drawn anew.

    The cells of a condition come in chunks of at most ``chunk_size``, so that a large condition does not fill whole
    batches; with `one_condition` a batch is of one, of at most ``batch_size`` cells. Of the `targets` each batch draws
    some. Instead of partners each batch may hold `n_controls`, which pass over all controls before one of them comes
    again.

    Of several processes that train together (`share`: this one, and their number) all go through the same batches, and
    each reads a part of every batch: what they learn in a step is what one process would. Where a last batch has too
    few cells for all, it is added to the one before.
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
        one_condition: bool = False,
    ) -> None:
        self.split = split
        self.one_condition = one_condition
        self.n_controls = n_controls
        self.share = share
        self.targets = targets
        self.batch_size = batch_size
        self.chunk_size = min(chunk_size, batch_size)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        sizes = np.unique(split.codes[split.perturbed], return_counts=True)[1]
        self.n_cells = int(sizes.sum())
        self.n_of_conditions = int((-(-sizes // batch_size)).sum())  # batches, where each is of one

    def set_epoch(self, epoch: int) -> None:
        """Go on from an epoch, as the trainer asks before each: a training that is resumed reads other cells."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.one_condition:
            return self.n_of_conditions
        whole, rest = divmod(self.n_cells, self.batch_size)
        return max(1, whole + (rest >= self.share[1]))

    def __iter__(self) -> Iterator[PairedBatch]:
        split = self.split
        # Validation batches are the same in every epoch.
        rng = np.random.default_rng((self.seed, self.epoch if self.shuffle else 0))
        self.epoch += 1
        order = rng.permutation(split.perturbed)
        order = order[np.argsort(split.codes[order], kind="stable")]
        edges = np.flatnonzero(np.diff(split.codes[order])) + 1
        groups = np.split(order, edges)
        if self.one_condition:  # even parts, since an MMD needs two cells
            chunks = [part for group in groups for part in np.array_split(group, -(-len(group) // self.batch_size))]
        else:
            chunks = [group[i : i + self.chunk_size] for group in groups for i in range(0, len(group), self.chunk_size)]
        chunks = [chunks[i] for i in rng.permutation(len(chunks))]
        cells = np.concatenate(chunks)
        if self.one_condition:
            ends = np.cumsum([0, *map(len, chunks)])
        else:
            ends = np.append(np.arange(len(self)) * self.batch_size, len(cells))
        n_controls = self.n_controls or 0
        if self.n_controls is not None:
            n_rounds = -(-len(self) * n_controls // len(split.controls))
            partners = np.concatenate([rng.permutation(split.controls) for _ in range(n_rounds)])
        elif split.plan is None:
            partners = rng.choice(split.controls, len(cells))
        else:
            partners = sample_partners(split.plan, cells, rng)
        for i in range(len(self)):
            part = self._part(int(ends[i]), int(ends[i + 1]))
            controls = part if self.n_controls is None else self._part(i * n_controls, (i + 1) * n_controls)
            drawn = None if self.targets is None else self.targets.draw(rng)
            yield PairedBatch(partners[controls], cells[part], drawn)

    def _part(self, start: int, end: int) -> slice:
        """What this process reads of a range."""
        rank, n = self.share
        return slice(start + (end - start) * rank // n, start + (end - start) * (rank + 1) // n)


class PairedDataset(Dataset[Batch]):
    """Read a :class:`PairedBatch` from the registered AnnData, densifying the cells of the batch alone."""

    def __init__(self, manager: ScreenManager, split: Split, *, with_partners: bool) -> None:
        self.base = manager.create_torch_dataset()
        self.split = split
        self.with_partners = with_partners

    def __len__(self) -> int:
        return len(self.split.perturbed)

    def _read(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        return as_tensors(self.base[rows])

    def __getitem__(self, batch: PairedBatch) -> Batch:
        tensors: Batch = dict(self._read(batch.controls))
        del tensors[KEYS.PERTURBATION]
        conditions, position = np.unique(self.split.codes[batch.perturbed], return_inverse=True)
        mask = self.base.data[KEYS.PERTURBATION][batch.perturbed].toarray()
        tensors["mask"] = torch.as_tensor(mask, dtype=torch.float32)
        tensors["condition"] = torch.as_tensor(position)
        effects = self.split.effects
        tensors["shift"] = torch.as_tensor(effects.effect[conditions], dtype=torch.float32)
        tensors["shift_variance"] = torch.as_tensor(effects.variance[conditions], dtype=torch.float32)
        if self.with_partners:
            tensors["partner"] = self._read(batch.perturbed)
        return tensors


class CellDataset(PairedDataset):
    """Read the cells of a :class:`PairedBatch` with their masks, controls first, and the effects it drew."""

    def __init__(self, manager: ScreenManager, split: Split, targets: EffectTargets) -> None:
        super().__init__(manager, split, with_partners=True)
        self.targets = targets

    def __getitem__(self, batch: PairedBatch) -> Batch:
        rows = np.concatenate([batch.controls, batch.perturbed])
        tensors: Batch = dict(self._read(rows))
        tensors["mask"] = tensors.pop(KEYS.PERTURBATION).float()
        for name, values in (("condition_mask", "mask"), ("shift", "effect"), ("shift_variance", "variance")):
            tensors[name] = getattr(self.targets, values)[batch.targets]
        return tensors


def as_tensors(cells: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors of some cells; contiguous, since rounding depends on the order in memory."""
    return {key: torch.as_tensor(np.ascontiguousarray(values)) for key, values in cells.items()}


def controls_of_a_batch(split: Split, batch_size: int) -> int:
    """Number of controls in each batch, with which an epoch holds each about once."""
    n_batches = max(1, -(-len(split.perturbed) // batch_size))
    return min(max(-(-len(split.controls) // n_batches), _LEAST_CONTROLS), batch_size)


def make_loader(
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
    one_condition: bool = False,
) -> DataLoader[Batch]:
    """Batches of one split as a torch loader: of all cells with the effects to meet, or else of pairs of cells.

    Of all cells, an epoch holds each control about once, or more often where a batch would have less than 64 of them.
    """
    sampler = PairedSampler(
        split,
        batch_size=batch_size,
        chunk_size=chunk_size,
        shuffle=shuffle,
        seed=seed,
        targets=targets,
        n_controls=None if targets is None else controls_of_a_batch(split, batch_size),
        share=share,
        one_condition=one_condition,
    )
    if targets is None:
        dataset = PairedDataset(manager, split, with_partners=with_partners)
    else:
        dataset = CellDataset(manager, split, targets)
    return DataLoader(dataset, sampler=sampler, batch_size=None)
