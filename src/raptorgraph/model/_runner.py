"""Running a training so that one that stops leaves a whole network: that of the end of its last epoch."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import TrainRunner

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lightning.pytorch as pl
    from torch import Tensor

    from raptorgraph.model._module import RaptorGraphModule

_TERMINATED = 128 + signal.SIGTERM  # exit code of a process that was asked to end


class ScreenRunner(TrainRunner):  # type: ignore[misc]  # scvi-tools has no types
    """scvi-tools' runner, without its line on stdout about errors; a training that stopped can be concluded too."""

    def _run_training_core(self) -> None:
        try:
            self.trainer.fit(self.training_plan, self.data_splitter, ckpt_path=self.ckpt_path)
        finally:
            self._update_history()
        self.conclude()

    def conclude(self) -> None:
        """Make a trained model of what there is."""
        model, splitter = self.model, self.data_splitter
        model.train_indices, model.validation_indices = splitter.train_idx, splitter.val_idx
        model.test_indices, model.trainer = splitter.test_idx, self.trainer
        model.is_trained_ = True
        model.to_device(self.device)
        model.module.eval()


class LastEpoch(Callback):
    """The network as it was at the end of the last whole epoch, and what stopped the training after it."""

    def __init__(self, module: RaptorGraphModule) -> None:
        self.module, self.epoch = module, 0
        self.error: BaseException | None = None
        self.start = self.weights = copied(module)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the network that the first process has sent, where another one has inferred it."""
        if trainer.global_rank > 0:
            self.start = self.weights = copied(self.module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Copy the network before the first update of an epoch."""
        if batch_idx == 0:
            self.epoch, self.weights = trainer.current_epoch, copied(self.module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep what happened, which lightning may turn into something else."""
        self.error = exception


def copied(module: RaptorGraphModule) -> dict[str, Tensor]:
    """Copy of all weights and buffers, by their names."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(module)}


@torch.no_grad()
def put_back(module: RaptorGraphModule, weights: dict[str, Tensor]) -> None:
    """Set weights and buffers to such a copy, wherever either is."""
    for name, tensor in _tensors(module):
        tensor.copy_(weights[name])


def _tensors(module: RaptorGraphModule) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def interruption(error: BaseException, seen: BaseException | None) -> BaseException | None:
    """What a training is interrupted by, as it is to be raised: None for any other error.

    Lightning ends the process where the user interrupts it, and with the exit code of a success where it was asked to
    end; what it has `seen` says which.
    """
    if isinstance(error, KeyboardInterrupt):
        return error
    if not isinstance(error, SystemExit):
        return None
    if isinstance(seen, KeyboardInterrupt):
        return seen
    return SystemExit(_TERMINATED) if type(error).__name__ == "SIGTERMException" else error


@contextlib.contextmanager
def same_signals() -> Iterator[None]:
    """Leave the handlers of signals as they were: after an interruption lightning ignores all that follow."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None is a handler that was not set in Python, and signals are set in the main thread alone
            if handler is not None and signal.getsignal(number) is not handler:
                with contextlib.suppress(ValueError):
                    signal.signal(number, handler)
