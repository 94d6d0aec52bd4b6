"""Seconds and memory of pieces of work, and how they grow: what the experiments on cost share."""

from __future__ import annotations

import functools
import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from raptorgraph.benchmark._report import as_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from matplotlib.axes import Axes

CPU, WALL, PEAK, ADDED = "CPU seconds", "seconds", "peak GB", "added GB"
METRICS = (CPU, WALL, PEAK, ADDED)
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """Measures stages of work: seconds of all threads and on the clock, the largest memory, and what it adds.

    The peak of a stage holds those of the stages inside. Where the system cannot forget an earlier peak (it is Linux
    that can), the peak is that of the process so far.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, float]] = []
        self._peaks: list[float] = []  # of the stages that have not ended, before the last one began

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what is done inside."""
        self._peaks = [max(peak, _peak()) for peak in self._peaks]
        _forget_peak()
        before = _peak()
        self._peaks.append(before)
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        found = {CPU: time.process_time() - cpu, WALL: time.perf_counter() - wall}
        found[PEAK] = max(self._peaks.pop(), _peak()) / 1e9
        found[ADDED] = found[PEAK] - before / 1e9
        self.rows += [(name, metric, value) for metric, value in found.items()]

    @contextmanager
    def around(self, owner: Any, attribute: str, name: str) -> Iterator[None]:
        """Measure every call of a function that others call meanwhile."""
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, measured)
        try:
            yield
        finally:
            setattr(owner, attribute, function)

    def table(self) -> pd.DataFrame:
        """What was measured: columns ``stage``, ``metric``, ``value``."""
        return pd.DataFrame(self.rows, columns=["stage", "metric", "value"])


def _forget_peak() -> None:
    if os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text("5")


def _peak() -> float:
    """Largest resident memory, in bytes."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def exponent(sizes: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Slope of log value on log size, and its standard error: NaN where there is too little to say."""
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    x, y = np.log(x[y > 0]), np.log(y[y > 0])
    if len(np.unique(x)) < 2:
        return np.nan, np.nan
    centered = x - x.mean()
    slope = float(centered @ y / (centered @ centered))
    if len(x) < 3:
        return slope, np.nan
    residual = y - y.mean() - slope * centered
    return slope, float(np.sqrt(residual @ residual / (len(x) - 2) / (centered @ centered)))


def exponents(rows: pd.DataFrame, by: Sequence[str], size: str) -> pd.DataFrame:
    """Exponent with its standard error of every group of rows, whose columns are ``size`` and ``value``."""
    found = []
    for key, group in rows.groupby(list(by), sort=False):
        slope, error = exponent(group[size].to_numpy(), group["value"].to_numpy())
        found.append((*key, slope, error, as_text(slope, error, 2)))
    return pd.DataFrame(found, columns=[*by, "exponent", "exponent_se", "text"])


def log_axes(ax: Axes, sizes: Iterable[float]) -> None:
    """Logarithmic axes, that of the sizes with these alone."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    at = sorted(set(sizes))
    ax.set_xticks(at, [f"{n / 1000:g}k" if n >= 1000 else f"{n:g}" for n in at])
    ax.xaxis.set_minor_locator(NullLocator())
