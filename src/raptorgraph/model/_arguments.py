"""Checks of data and of the arguments of the training, before anything is built."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from raptorgraph._arguments import check_choice, check_flag, check_integer, check_number
from raptorgraph.model._mudata import expression_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_TRAINER_INTEGERS = {
    "early_stopping_patience": 0,
    "early_stopping_warmup_epochs": 0,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
}
_TRAINER_NUMBERS = ("early_stopping_min_delta", "gradient_clip_val")
_TRAINER_FLAGS = ("enable_progress_bar", "enable_checkpointing", "enable_model_summary", "learning_rate_monitor")
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
    plain: dict[str, Any] = {
        name: check_integer(name, given[name], least) for name, least in _TRAINER_INTEGERS.items() if name in given
    }
    plain |= {name: check_number(name, given[name], 0) for name in _TRAINER_NUMBERS if name in given}
    plain |= {name: check_flag(name, given[name]) for name in _TRAINER_FLAGS if name in given}
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
