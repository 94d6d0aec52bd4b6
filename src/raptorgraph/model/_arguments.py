"""Checks of the arguments of the model, of its training and of the plan, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from raptorgraph._arguments import LARGEST, check_choice, check_flag, check_integer, check_number
from raptorgraph.inference import EffectPosterior
from raptorgraph.model._graph import GRAPHS
from raptorgraph.nn._likelihoods import LIKELIHOODS
from raptorgraph.pp._pairing import METHODS

_SIZES = {"n_subgraphs": 1, "n_hidden": 1, "n_layers": 0}  # the least value of each
_CHOICES = {
    "pairing": METHODS,
    "graph": GRAPHS,
    "graph_init": ("zero", "uniform"),
    "latent_norm": ("none", "layer"),
}
_POSITIVE = ("lr", "eps", "mu", "mu_final")
_SHARES = ("kl_warmup", "project_at")
_PLAN_CHOICES = {"optimizer": ("AdamW", "Adam"), "lr_schedule": ("cosine", "constant")}
_TRAINER_INTEGERS = {
    "early_stopping_patience": 0,
    "early_stopping_warmup_epochs": 0,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
}
_TRAINER_NUMBERS = ("early_stopping_min_delta", "gradient_clip_val")
_TRAINER_FLAGS = ("enable_progress_bar", "enable_checkpointing", "enable_model_summary", "learning_rate_monitor")
_METRICS = ("elbo", "reconstruction_loss", "kl_local", "reconstruction", "kl")  # besides the terms with a weight


def check_data(adata: Any) -> None:
    """Raise where cells come in another class."""
    if not isinstance(adata, AnnData | MuData):
        raise TypeError(f"adata must be an AnnData or a MuData, not {type(adata).__name__}.")


def check_model(arguments: Mapping[str, Any]) -> None:
    """Raise where an argument of the model's constructor is of a wrong type or out of its range."""
    if arguments["n_latent"] is not None:
        check_integer("n_latent", arguments["n_latent"], 1)
    for name, least in _SIZES.items():
        check_integer(name, arguments[name], least)
    if arguments["likelihood"] is not None:
        check_choice("likelihood", arguments["likelihood"], LIKELIHOODS)
    for name, choices in _CHOICES.items():
        check_choice(name, arguments[name], choices)
    for name in ("linear_decoder", "learn_scale"):
        check_flag(name, arguments[name])
    check_number("init_strength", arguments["init_strength"], 0, 100, above=True)
    _check_effect_posterior(arguments["effect_posterior"])


def _check_effect_posterior(value: Any) -> None:
    if isinstance(value, Mapping):
        known = inspect.signature(EffectPosterior).parameters
        unknown = [name for name in value if name not in known]
        if unknown:
            raise TypeError(f"effect_posterior has {unknown[0]!r}, which EffectPosterior lacks; it has {list(known)}.")
        for name, option in value.items():
            if name == "temper":
                check_number("effect_posterior: temper", option, 0, 1, above=True)
            else:
                check_flag(f"effect_posterior: {name}", option)
    elif not isinstance(value, bool | np.bool_):
        raise TypeError(f"effect_posterior={value!r} must be True, False or a dict of arguments of EffectPosterior.")


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
    plain = {
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


def check_plan(arguments: Mapping[str, Any], loss) -> None:
    """Raise where an argument of the training plan is unknown, of a wrong type or out of its range."""
    parameters = list(inspect.signature(loss).parameters.values())
    weights = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    known = {*weights, *_POSITIVE, *_SHARES, *_PLAN_CHOICES, "weight_decay", "dag_threshold"}
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise TypeError(f"plan_kwargs {unknown} are unknown; there are {sorted(known)}.")
    for name, value in arguments.items():
        if name in _PLAN_CHOICES:
            check_choice(name, value, _PLAN_CHOICES[name])
        elif isinstance(weights.get(name), bool):
            check_flag(name, value)
        else:
            check_number(name, value, 0, 1 if name in _SHARES else LARGEST, above=name in _POSITIVE)
