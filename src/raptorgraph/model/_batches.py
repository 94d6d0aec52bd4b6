"""The batch that cells are decoded in: their own, or others that the model knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from raptorgraph.model._field import KEYS
from raptorgraph.model._query import known_categories

ALL = "all"
TransformBatch = str | int | Iterable[str | int] | None


def transform_codes(registry: dict[str, Any], transform_batch: TransformBatch) -> list[int] | None:
    """Codes of the batches that are asked for, each once; None for the cells' own; ValueError for unknown ones."""
    if transform_batch is None:
        return None
    batches = known_categories(registry)[KEYS.BATCH].values()
    if not batches:
        raise ValueError(
            f"transform_batch={transform_batch!r}: the model knows no batches; leave it out, or set up the screen with "
            "batch_key."
        )
    (known,) = batches
    if isinstance(transform_batch, str) and transform_batch == ALL and ALL not in known:
        return list(range(len(known)))
    asked: list[Any] = [transform_batch]
    if isinstance(transform_batch, Iterable) and not isinstance(transform_batch, str):
        asked = list(transform_batch)
    unknown = [batch for batch in asked if batch not in known]
    if unknown or not asked:
        raise ValueError(
            f"transform_batch={transform_batch!r}: the model knows {', '.join(map(repr, known))}; name one, a list of "
            f"them, or {ALL!r}."
        )
    return sorted({known.index(batch) for batch in asked})


def in_batch(tensors: dict[str, torch.Tensor], code: int | torch.Tensor) -> dict[str, torch.Tensor]:
    """The same cells, in the batch of that code (or codes, one for each cell)."""
    x = tensors[KEYS.X]
    codes = torch.as_tensor(code, dtype=torch.int64, device=x.device).expand(len(x))
    return {**tensors, KEYS.BATCH: codes[:, None]}


def in_each(tensors: dict[str, torch.Tensor], codes: list[int] | None) -> list[dict[str, torch.Tensor]]:
    """The same cells in each of the batches, or in their own for None."""
    return [tensors] if codes is None else [in_batch(tensors, code) for code in codes]
