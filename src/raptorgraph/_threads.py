"""Threads of torch, where many small operations follow each other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Compute on one thread `when` the work is small, and leave the number of threads as it was.

    Threads meet after every operation. Where operations are small there is little to share, and on a machine that is
    busy otherwise each meeting waits for the slowest thread.
    """
    before = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
