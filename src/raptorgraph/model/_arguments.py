"""Checks of data and of the arguments of the training, before anything is built."""

from __future__ import annotations

import os
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from mudata import MuData
from scvi.train import SaveCheckpoint

from raptorgraph._arguments import check_choice, check_flag, check_integer, check_number
from raptorgraph.model._mudata import expression_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_TRAINER: dict[str, Callable[[str, Any], Any]] = {
    "early_stopping_patience": partial(check_integer, least=0),
    "early_stopping_warmup_epochs": partial(check_integer, least=0),
    "check_val_every_n_epoch": partial(check_integer, least=1),
    "log_every_n_steps": partial(check_integer, least=0),
    "early_stopping_min_delta": partial(check_number, low=0),
    "gradient_clip_val": partial(check_number, low=0),
    "enable_progress_bar": check_flag,
    "enable_checkpointing": check_flag,
    "enable_model_summary": check_flag,
    "learning_rate_monitor": check_flag,
}
_METRICS = ("elbo", "reconstruction_loss", "kl_local", "reconstruction", "kl")  # besides the terms with a weight


def expression_cells(adata: Any) -> AnnData:
    """Registered cells, of a MuData its modality with the expression; TypeError where they come in another class."""
    if not isinstance(adata, AnnData | MuData):
        raise TypeError(f"adata must be an AnnData or a MuData, not {type(adata).__name__}.")
    return expression_of(adata) if isinstance(adata, MuData) else adata


def check_training(
    max_epochs: int | None, early_stopping: bool, trainer_kwargs: Mapping[str, Any], weights: Mapping[str, float]
) -> dict[str, Any]:
    """Check arguments of ``train`` that are meant for the trainer; return them as Python's own numbers.

    The trainer refuses numpy's, some of them after the long work. ``weights`` are those of the terms of the loss, of
    which the ones above 0 can be monitored.
    """
    if max_epochs is not None:
        check_integer("max_epochs", max_epochs, 1)
    check_flag("early_stopping", early_stopping)
    given = {name: value for name, value in trainer_kwargs.items() if value is not None}
    plain: dict[str, Any] = {name: check(name, given[name]) for name, check in _TRAINER.items() if name in given}
    if "early_stopping_monitor" in given:
        terms = [name.removesuffix("_weight") for name, weight in weights.items() if weight > 0]
        metrics = [f"{name}_{part}" for name in dict.fromkeys((*_METRICS, *terms)) for part in ("validation", "train")]
        check_choice(
            "early_stopping_monitor", given["early_stopping_monitor"], ["validation_loss", "train_loss", *metrics]
        )
    return {**trainer_kwargs, **plain}


def plain_devices(devices: Any) -> Any:
    """``devices`` with Python's own integers for numpy's, which the trainer does not know."""
    if isinstance(devices, Integral):
        return int(devices)
    if isinstance(devices, list | tuple | np.ndarray):
        return [plain_devices(device) for device in devices]
    return devices


def check_not_taken(name: str, given: Mapping[str, Any], taken: Collection[str]) -> None:
    """Raise where a dict of arguments has some that the function takes, or knows, by itself."""
    both = sorted(set(given) & set(taken))
    if both:
        raise TypeError(f"{name} has {both[0]!r}, which train has already: pass it to train itself, or leave it out.")


def check_checkpointing(checkpoint_dir: Any, resume: Any, trainer_kwargs: Mapping[str, Any]) -> None:
    """Raise for arguments about checkpoints that do not fit together, and for such that would read a pickle."""
    check_flag("resume", resume)
    if checkpoint_dir is None:
        if resume:
            raise ValueError("resume=True needs checkpoint_dir, the folder in which the checkpoints are.")
    elif not isinstance(checkpoint_dir, str | os.PathLike):
        raise TypeError(f"checkpoint_dir={checkpoint_dir!r} must be a path, not {type(checkpoint_dir).__name__}.")
    if trainer_kwargs.get("ckpt_path") is not None:
        raise ValueError("ckpt_path is lightning's own, which reads a pickle: use checkpoint_dir=..., resume=True.")
    callbacks = trainer_kwargs.get("callbacks") or ()
    saves = bool(trainer_kwargs.get("enable_checkpointing")) or any(
        isinstance(each, SaveCheckpoint) for each in callbacks
    )
    if saves and checkpoint_dir is not None:
        raise ValueError(
            "checkpoint_dir and SaveCheckpoint (enable_checkpointing=True) are one too many: the latter would save a "
            "model with each checkpoint. Leave one of them out."
        )
    for callback in callbacks:
        for name in ("load_best_on_end", "check_nan_gradients"):
            if getattr(callback, name, False):
                raise ValueError(
                    f"{type(callback).__name__}({name}=True) reads scvi-tools' own format, a pickle: leave it out, and "
                    "load the best model afterwards, RaptorGraphModel.load(callback.best_model_path, adata)."
                )
