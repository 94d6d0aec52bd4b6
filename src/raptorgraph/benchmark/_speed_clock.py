"""When what happens in a training by lightning, and how much of its steps are matrix products."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::addmv", "aten::mv")
_FIRST, _N_PROFILED = 2, 5  # steps, the first of which allocate
_SIZES = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product gives the rate of the chip
_N_PRODUCTS = 5


class Clock(pl.Callback):
    """Seconds of steps and epochs, validation values by time, and a profile of some steps of the first epoch.

    Parameters
    ----------
    metric
        What is read of the validation, by its name in ``trainer.callback_metrics``.

    Attributes
    ----------
    curve
        Time since the clock was made, without that of validations, and the metric: one pair for each validation.
    steps, epochs
        Seconds of each training step that was not profiled, and of each epoch without its validation.
    """

    def __init__(self, metric: str = "elbo_validation") -> None:
        self.metric = metric
        self.curve: list[tuple[float, float]] = []
        self.steps: list[float] = []
        self.epochs: list[float] = []
        self._start, self._validating = time.perf_counter(), 0.0
        self._profiler: Any = None
        self._profiled = False
        self._products = float("nan"), float("nan")

    # -- lightning's hooks --------------------------------------------------------------------------------------------
    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start an epoch."""
        self._epoch, self._step = self._now(), self._now()
        self._place = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Start the profile, once the first steps are over."""
        if not self._profiled and trainer.global_step == _FIRST:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities, with_flops=True)
            self._profiler.start()
            self._profiled = True

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Write down the step, from the end of the one before, and so with the loading of its batch."""
        now = self._now()
        if self._profiler is not None:
            if trainer.global_step >= _FIRST + _N_PROFILED:
                self._end_profile(trainer)
        elif trainer.global_step > self._place + 1:
            self.steps.append(now - self._step)
        self._step = self._now()

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop the clock, and a profile that the epoch was too short for."""
        self._end_profile(trainer)
        self._stopped = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Go on, and read the validation."""
        self._validating += time.perf_counter() - self._stopped
        if not trainer.sanity_checking:
            self.curve.append((self._now(), float(trainer.callback_metrics[self.metric])))

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Write down the epoch, unless a part of it was profiled."""
        self._end_profile(trainer)
        if not self._profiled or self._place > _FIRST:
            self.epochs.append(self._now() - self._epoch)

    # -- results ------------------------------------------------------------------------------------------------------
    def results(self) -> dict[str, float]:
        """Milliseconds of a step, what of it matrix products are, and seconds of an epoch; NaN where none is known."""
        step = 1e3 * float(np.median(self.steps)) if self.steps else float("nan")
        found = {"ms a step": step, "seconds an epoch": float(np.median(self.epochs)) if self.epochs else float("nan")}
        if self._profiled:
            products, flops = self._products
            found |= {
                "ms in matrix products": products,
                "share in matrix products": products / step,
                "step over matrix products": step / products,
                "share of the matrix rate": flops / (1e-3 * step) / matrix_rate(self._device),
            }
        return found

    def _now(self) -> float:
        """Seconds since the clock was made, without validations."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - self._start - self._validating

    @property
    def _device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _end_profile(self, trainer: pl.Trainer) -> None:
        if self._profiler is None:
            return
        self._profiler.stop()
        n_steps = max(1, trainer.global_step - _FIRST)
        events = [event for event in self._profiler.key_averages() if event.key in _PRODUCTS]
        time_of = "self_device_time_total" if self._device == "cuda" else "self_cpu_time_total"
        milliseconds = sum(getattr(event, time_of) for event in events) / 1e3 / n_steps
        self._products = milliseconds, sum(event.flops for event in events) / n_steps
        self._profiler = None


def matrix_rate(device: str) -> float:
    """Floating point operations a second in the product of two large matrices of single precision, the best of some."""
    n = _SIZES[device]
    a, b = torch.randn(2, n, n, device=device)
    seconds = []
    for _ in range(_N_PRODUCTS):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        _ = a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


def first_within(values: np.ndarray, share: float = 0.01) -> int:
    """Position from which on all values are within a share of the last one."""
    outside = np.flatnonzero(np.abs(values - values[-1]) > share * np.abs(values[-1]))
    return int(outside[-1]) + 1 if len(outside) else 0
