"""How much memory there is, and whether something takes a good part of it."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 3
"""Data that take more than one part in so many of the memory are read from where they are."""

_USUAL = 2**34  # where the system does not say how much there is


def memory_bytes() -> int:
    """Memory of the machine, or of the container where that has less, in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else _USUAL
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total


def is_large(n_bytes: float) -> bool:
    """Whether so many bytes are more than a third of the memory."""
    return n_bytes > memory_bytes() / SHARE
