"""Digests of control cells, by which a model knows those that its effects were measured against."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from raptorgraph.model._field import KEYS

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

_CHUNK = 1024  # cells at a time
_READ = (KEYS.X, KEYS.LIBRARY, KEYS.BATCH, KEYS.CATEGORICAL, KEYS.CONTINUOUS)


def cells_digest(manager: AnnDataManager, rows: np.ndarray) -> str:
    """Digest of registered cells by what the model reads of them, whatever their order, names, type and storage."""
    dataset = manager.create_torch_dataset()
    cells = []
    for i in range(0, len(rows), _CHUNK):
        batch = dataset[rows[i : i + _CHUNK]]
        values = np.hstack([np.asarray(batch[key], dtype="<f4") for key in _READ if key in batch])
        values += 0.0  # a negative zero is a zero
        cells += [hashlib.blake2b(cell.tobytes(), digest_size=16).digest() for cell in values]
    return hashlib.blake2b(b"".join(sorted(cells)), digest_size=16).hexdigest()
