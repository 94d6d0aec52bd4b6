"""Training by several processes, each with a device: one infers the statistics, all fit the network."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    import lightning.pytorch as pl
    from scvi.train import TrainRunner

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._splitter import ScreenSplitter

_DDP = ("ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
_WAIT = timedelta(days=1)  # for the process that infers the statistics
_SPLITTER = ("train_split", "val_split", "targets")
_MODEL = ("history_", "control_digests_")


def with_strategy(trainer_kwargs: Mapping[str, Any], early_stopping: bool) -> dict[str, Any]:
    """Arguments of the trainer, with the strategy that several processes need; NotImplementedError for others."""
    strategy = trainer_kwargs.get("strategy") or "auto"
    wrong = f"strategy={strategy!r} is not supported: use strategy='ddp', in a script; in a notebook use devices=1."
    if isinstance(strategy, str):
        if strategy in ("auto", "single_device"):
            return dict(trainer_kwargs)
        if strategy not in _DDP:
            raise NotImplementedError(wrong)
        strategy = DDPStrategy(find_unused_parameters=strategy.endswith("true"), timeout=_WAIT)
    elif not isinstance(strategy, ParallelStrategy):  # of one device
        return dict(trainer_kwargs)
    elif not isinstance(strategy, DDPStrategy) or strategy._start_method != "popen":
        raise NotImplementedError(wrong)
    if early_stopping:
        raise ValueError("early_stopping=True needs one device: leave it out, or use devices=1.")
    # the sampler deals the cells out by itself
    return {**trainer_kwargs, "strategy": strategy, "use_distributed_sampler": False}


def n_processes(runner: TrainRunner) -> int:
    """Processes that train together."""
    return int(runner.trainer.num_devices * runner.trainer.num_nodes)


def check_processes(runner: TrainRunner, devices: Any, n_perturbed_cells: int) -> None:
    """Raise for several devices without a strategy that serves them, and for more of them than cells."""
    n = n_processes(runner)
    if n == 1:
        return
    strategy = runner.trainer.strategy
    if not (
        isinstance(strategy, DDPStrategy) and runner.trainer._accelerator_connector.use_distributed_sampler is False
    ):
        raise NotImplementedError(
            f"devices={devices!r} are several: use devices=1, or 'auto'; or strategy='ddp' in a script, which then "
            "runs once for each device."
        )
    if n > n_perturbed_cells:
        raise ValueError(f"There are {n} devices for {n_perturbed_cells} perturbed training cells: use fewer.")


def follows(runner: TrainRunner) -> bool:
    """Whether another process infers the statistics, which this one then receives."""
    return n_processes(runner) > 1 and runner.trainer.global_rank > 0


class Share(Callback):
    """Gives every process the network, the splits and the targets of the first one, before it fits."""

    def __init__(self, model: RaptorGraphModel, splitter: ScreenSplitter) -> None:
        self.model, self.splitter = model, splitter

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Send, or receive: the processes are connected now, and the network is not yet handed to them."""
        splitter, rank = self.splitter, trainer.global_rank
        sent = None
        if rank == 0:
            sent = _packed(self.model, {name: getattr(splitter, name) for name in _SPLITTER})
        received = trainer.strategy.broadcast(sent, src=0)
        if rank > 0:
            for name, value in _unpack(received, self.model).items():
                setattr(splitter, name, value)
        # different noise for different cells
        torch.manual_seed((torch.initial_seed() + rank) % 2**63)
        splitter.share = (rank, trainer.world_size)


def receive_results(runner: TrainRunner, model: RaptorGraphModel) -> None:
    """Give every process what the first one has after the training."""
    sent = None
    if runner.trainer.global_rank == 0:
        sent = _packed(model, {name: getattr(model, name) for name in _MODEL})
    received = runner.trainer.strategy.broadcast(sent, src=0)
    if runner.trainer.global_rank > 0:
        for name, value in _unpack(received, model).items():
            setattr(model, name, value)


def _packed(model: RaptorGraphModel, others: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save((model.module, others), buffer)
    return buffer.getvalue()


def _unpack(sent: Any, model: RaptorGraphModel) -> dict[str, Any]:
    """Take over the network as it was sent, on this process's device, and return the rest."""
    others: dict[str, Any]
    module, others = torch.load(io.BytesIO(sent), map_location=model.module.device, weights_only=False)
    model.module.__dict__.update(module.__dict__)
    return others
