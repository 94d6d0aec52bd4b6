"""Checkpoints of a training: what was inferred, and the state after each epoch, to go on from as if unbroken."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from scvi import settings
from scvi.train._logger import SimpleLogger

from raptorgraph.model._encoding import Encoder
from raptorgraph.model._records import Kind, Record, read, remove, write
from raptorgraph.model._saved import freeze, frozen_of
from raptorgraph.screen._files import check_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import lightning.pytorch as pl

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._plan import RaptorGraphTrainingPlan
    from raptorgraph.model._runner import ScreenRunner
    from raptorgraph.model._splitter import ScreenSplitter

_STATISTICS, _EPOCH = Kind("raptorgraph statistics", 1), Kind("raptorgraph epoch", 1)
_INFERRED, _REACHED = "statistics", "epoch"  # names of the records
_EXTRA = "_extra_state"  # end of the names of what is inferred before the first epoch and stays as it is
# Arguments of the trainer that are about what is shown, or about the machine.
_SHOWN = (
    "callbacks", "plugins", "logger", "profiler", "strategy", "enable_progress_bar", "simple_progress_bar",
    "progress_bar_refresh_rate", "enable_model_summary", "default_root_dir", "log_save_dir",
)  # fmt: skip
_SHORT = 60  # characters of a setting that an error shows
_ROUNDING = 1e-9  # of sums over cells


def settings_of(
    model: RaptorGraphModel,
    plan: RaptorGraphTrainingPlan,
    splitter_arguments: Mapping[str, Any],
    trainer_arguments: Mapping[str, Any],
) -> dict[str, str]:
    """What two trainings must have in common to give the same numbers, but for the cells: settings by name, as text."""
    found = {
        "seed (scvi.settings.seed)": settings.seed,
        "preset": model.preset_,
        "genes": list(model.var_names_),
        "perturbed genes": model.perturbed_genes,
        # but for the guides, of which training knows nothing
        **{f"{name} (setup)": value for name, value in model.setup_args.items() if name != "guide_key"},
        "gene_embedding (setup)": model.gene_embedding_,
        **{f"{name} (model)": value for name, value in model.init_params_["non_kwargs"].items()},
        **{f"{name} (plan_kwargs)": value for name, value in asdict(plan.config).items()},
        **splitter_arguments,
        **{name: value for name, value in trainer_arguments.items() if name not in _SHOWN},
    }
    return {name: _text(name, value) for name, value in found.items()}


class Checkpoints(Callback):
    """Records of a training in a folder: ``statistics``, written once, and ``epoch``, written after each epoch.

    Each is whole at any time, and reading one runs no code. That of an epoch is written at the first batch of the next
    one, or after the training: only then are all metrics logged, and random numbers are where the next step takes them.

    Parameters
    ----------
    folder
        Where they are.
    resume
        Go on from what is there.
    settings
        Of this training (:func:`settings_of`).

    Raises
    ------
    ValueError
        For records of a training with other settings, damaged ones, and where there are some of an unfinished training
        and `resume` is not set.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, str], *, resume: bool) -> None:
        self.folder, self.settings = Path(folder), dict(settings)
        self._io = _CheckpointIO(self)
        self.trainer: pl.Trainer | None = None
        self._inferred: Record | None = None
        self._reached: Record | None = None
        self._loops: dict[str, Any] | None = None  # progress of the trainer at the end of an epoch
        self._starts_at: dict[str, Any] | None = None  # random numbers, to be set at the first step
        self._identity = ""
        check_folder(self.folder)
        self._read()
        if not resume:
            if self._inferred is not None and not self.is_finished:
                raise ValueError(
                    f"{str(self.folder)!r} has checkpoints of a training that has not ended: resume=True goes on from "
                    "them; remove the folder, or give another checkpoint_dir, to start anew."
                )
            self._inferred = self._reached = None
        if self._inferred is not None:
            self._compare(self._inferred.values["settings"], self.settings)

    def _read(self) -> None:
        """Read what is there; a state that was reached from other statistics counts for nothing."""
        if (self.folder / f"{_INFERRED}.json").is_file():
            self._inferred = read(self.folder, _INFERRED, _STATISTICS)
            self._identity = self._inferred.digest
            if self._file.is_file():
                found = read(self.folder, _REACHED, _EPOCH)
                self._reached = found if found.values["statistics"] == self._identity else None

    def _compare(self, there: Mapping[str, str], here: Mapping[str, str]) -> None:
        names = [name for name in dict.fromkeys((*there, *here)) if there.get(name) != here.get(name)]
        if names:
            words = [f"{name} is {_short(there.get(name))} there and {_short(here.get(name))} here" for name in names]
            raise ValueError(
                f"The checkpoints in {str(self.folder)!r} are of another training: {'; '.join(words)}. Resume with the "
                "same data, settings and seed, or give another checkpoint_dir."
            )

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is over."""
        return self._reached is not None and bool(self._reached.values["finished"])

    def for_trainer(self, plugins: Any) -> dict[str, Any]:
        """Arguments of the trainer, with the plugins that the user gives."""
        given = plugins if isinstance(plugins, list) else [] if plugins is None else [plugins]
        return {"plugins": [*given, self._io], "ckpt_path": str(self._file) if self._goes_on else None}

    @property
    def _file(self) -> Path:
        return self.folder / f"{_REACHED}.json"

    @property
    def _goes_on(self) -> bool:
        """Whether there is a state after an epoch to go on from."""
        return self._reached is not None and not self.is_finished

    # -- statistics ------------------------------------------------------------------------------------------------
    def restore_statistics(self, model: RaptorGraphModel, splitter: ScreenSplitter) -> bool:
        """Give the model what was inferred, where it was; ValueError where that was from other cells."""
        if self._inferred is None:
            return False
        values = self._inferred.values
        if not _same_cells(values["cells"], cells_of(splitter)):
            raise ValueError(
                f"The checkpoints in {str(self.folder)!r} are of other cells, or of these in another order: resume "
                "with the same data, or give another checkpoint_dir."
            )
        model.module.load_state_dict(values["module"])
        freeze(model.module, values["frozen"])
        model.is_trained_, model.history_ = values["is_trained"], values["history"]
        return True

    def keep_statistics(self, model: RaptorGraphModel, splitter: ScreenSplitter) -> None:
        """Write down what was inferred, and how the training starts."""
        if self._inferred is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove(self.folder, _REACHED)
            values = {
                "settings": self.settings,
                "cells": cells_of(splitter),
                "module": dict(model.module.state_dict()),
                "frozen": frozen_of(model.module),
                "is_trained": model.is_trained_,
                "history": model.history_,
                "random": _random_state(),
            }
            self._identity = write(self.folder, _INFERRED, _STATISTICS, values)
        elif self._reached is None:
            _set_random_state(self._inferred.values["random"])

    # -- epochs ----------------------------------------------------------------------------------------------------
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep the trainer, whose state is written."""
        self.trainer = trainer

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the progress: the next epoch has not begun."""
        loops = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
        self._loops = {name: copy.deepcopy(getattr(trainer, name).state_dict()) for name in loops}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write down the epoch that is over, or take the random numbers of the one that is resumed."""
        if batch_idx > 0:
            return
        if self._starts_at is not None:
            _set_random_state(self._starts_at)
            self._starts_at = None
        elif self._loops is not None and _is_finite(pl_module.parameters()):
            trainer.save_checkpoint(self._file, weights_only=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the history of the epochs that are over, and what early stopping counts beside its own state."""
        if not self._goes_on:
            return
        assert self._reached is not None
        values = self._reached.values
        self._starts_at = values["random"]
        _set_history(trainer, values["history"])
        early: Any = trainer.early_stopping_callback  # of scvi-tools, which counts without saying so in its state
        if early is not None and values["n_checks"] is not None:
            early._current_step = values["n_checks"]

    def write_epoch(self, checkpoint: dict[str, Any]) -> None:
        """Write what lightning keeps of a training, with its progress at the end of the epoch."""
        assert self.trainer is not None
        state = {**checkpoint, "loops": self._loops, "state_dict": _changing(checkpoint["state_dict"])}
        early = self.trainer.early_stopping_callback
        values = {
            "statistics": self._identity,
            "finished": False,
            "trainer": state,
            "random": _random_state(),
            "history": _history(self.trainer),
            "n_checks": getattr(early, "_current_step", None),
        }
        write(self.folder, _REACHED, _EPOCH, values)

    def read_epoch(self) -> dict[str, Any]:
        """What :meth:`write_epoch` was given, with what was inferred, which the module has by now."""
        assert self._reached is not None
        assert self.trainer is not None
        state = self._reached.values["trainer"]
        return {**state, "state_dict": {**self.trainer.lightning_module.state_dict(), **state["state_dict"]}}

    def keep_end(self, runner: ScreenRunner) -> None:
        """Write down the network after the last epoch."""
        values = {
            "statistics": self._identity,
            "finished": True,
            "module": _changing(runner.model.module.state_dict()),
            "history": _history(runner.trainer),
        }
        write(self.folder, _REACHED, _EPOCH, values)

    def restore_end(self, runner: ScreenRunner) -> None:
        """Give the model that network, as if it had just been trained."""
        assert self._reached is not None
        module, values = runner.model.module, self._reached.values
        module.load_state_dict({**module.state_dict(), **values["module"]})
        _set_history(runner.trainer, values["history"])
        runner._update_history()
        runner.conclude()


class _CheckpointIO(TorchCheckpointIO):
    """Reads and writes the state after an epoch for the trainer; others' checkpoints are as ever."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.checkpoints = checkpoints

    def _is_own(self, path: Any) -> bool:
        return Path(path) == self.checkpoints._file

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint."""
        if self._is_own(path):
            self.checkpoints.write_epoch(checkpoint)
        else:
            super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        if self._is_own(path):
            return self.checkpoints.read_epoch()
        found: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        return found


def cells_of(splitter: ScreenSplitter) -> dict[str, Any]:
    """What tells the cells of a training from others: labels and parts in their order, and sums of their values."""
    screen, sums = splitter.screen, splitter.sums
    arrays = (screen.codes, splitter.train_idx, splitter.val_idx, splitter.test_idx, screen.batch, screen.source[1])
    found = hashlib.sha256()
    for array in arrays:
        found.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return {"digest": found.hexdigest(), "n": sums.n, "total": sums.total}


def _same_cells(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether both are of the same cells; sums differ by rounding between machines."""
    if there["digest"] != here["digest"] or there["total"].shape != here["total"].shape:
        return False
    close = np.allclose(there["total"], here["total"], rtol=_ROUNDING, atol=_ROUNDING * np.abs(here["total"]).max())
    return bool(np.array_equal(there["n"], here["n"]) and close)


def _text(name: str, value: Any) -> str:
    """A setting as text, in which arrays are digests, and objects of other kinds their types."""
    encoder = Encoder()
    try:
        text = json.dumps(encoder.encode(value, name))
    except TypeError:
        return f"of type {type(value).__name__}"
    if encoder.tensors:
        text += hashlib.sha256(b"".join(each.numpy().tobytes() for each in encoder.tensors.values())).hexdigest()
    return text


def _short(text: str | None) -> str:
    if text is None:
        return "unset"
    return text if len(text) <= _SHORT else f"another one ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


def _changing(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if not name.endswith(_EXTRA)}


def _is_finite(parameters: Iterable[torch.Tensor]) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in parameters)


def _random_state() -> dict[str, Any]:
    """State of the generators that belong to no object."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002  callbacks of the user's may draw from it
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy}


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])  # noqa: NPY002


def _history(trainer: pl.Trainer) -> dict[str, Any]:
    return dict(trainer.logger.history) if isinstance(trainer.logger, SimpleLogger) else {}


def _set_history(trainer: pl.Trainer, history: Mapping[str, Any]) -> None:
    if isinstance(trainer.logger, SimpleLogger):
        trainer.logger.experiment.data = {name: table.copy() for name, table in history.items()}
