"""Seconds and memory of a piece of work."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Self

_STATM = Path("/proc/self/statm")
_INTERVAL = 0.01  # seconds between looks at the memory


class Measured:
    """Context manager: ``seconds`` of wall time and ``megabytes`` of memory above the start, at the highest.

    The resident memory is looked at every 10 ms where the system shows it (Linux), and taken from the process's
    highest value elsewhere, which sees only what exceeds all that came before.
    """

    def __enter__(self) -> Self:
        self._start_bytes = self._peak_bytes = _resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self._done.set()
        self._thread.join()
        self._peak_bytes = max(self._peak_bytes, _resident())
        self.megabytes = (self._peak_bytes - self._start_bytes) / 2**20

    def _watch(self) -> None:
        while not self._done.wait(_INTERVAL):
            self._peak_bytes = max(self._peak_bytes, _resident())


def _resident() -> int:
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
