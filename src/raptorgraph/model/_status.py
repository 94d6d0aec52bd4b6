"""What a model says of itself when its training stopped early, or its numbers are not finite."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypedDict

import torch

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._module import RaptorGraphModule


NOT_TRAINED = "The model is not trained, and has no answers yet: call model.train() first."


class UnfinishedModelWarning(UserWarning):
    """The training of the model stopped early, or numbers of its network are not finite."""


class Stop(TypedDict):
    """How a training stopped: why, and after how many epochs of those that were asked for the network is as it is."""

    cause: str
    epoch: int
    max_epochs: int


def words_of_stop(stop: Stop) -> str:
    """What there is to say of a training that stopped."""
    return (
        f"The training of this model stopped after epoch {stop['epoch']} of {stop['max_epochs']}: "
        f"{stop['cause'].rstrip('.')}. Its network is as it was then: train it again, or go on from a checkpoint, "
        "train(checkpoint_dir=..., resume=True)."
    )


def words_of_numbers(module: RaptorGraphModule) -> str | None:
    """What there is to say of weights that are not finite; None where all are."""
    tensors: dict[str, Any] = dict(module.named_parameters())
    tensors |= {"center": module.center, "spread": module.spread}
    finite = torch.stack([tensor.detach().isfinite().all() for tensor in tensors.values()]).tolist()  # at once
    wrong = [name for name, fine in zip(tensors, finite, strict=True) if not fine]
    if not wrong:
        return None
    others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return (
        f"The network has weights that are not finite ({wrong[0]}{others}), and gives no answers: build the model anew "
        "and train it, with a lower learning rate (plan_kwargs={'lr': ...}) or without extreme values in the data."
    )


def warn_of_state(model: RaptorGraphModel, stacklevel: int = 3) -> None:
    """Warn where the training stopped early or weights are not finite, as at saving and loading."""
    words = words_of_numbers(model.module) or (None if model.stopped_ is None else words_of_stop(model.stopped_))
    if words is not None:
        warnings.warn(words, UnfinishedModelWarning, stacklevel=stacklevel)


def check_trained(model: Any) -> None:
    """RuntimeError where a model was never trained: its answers would be those of random weights."""
    # a baseline is fitted or does not answer
    if not getattr(model, "is_trained", True) and getattr(model, "stopped_", None) is None:
        raise RuntimeError(NOT_TRAINED)


def check_answers(model: RaptorGraphModel, stacklevel: int = 3) -> None:
    """Warn where the training stopped early; RuntimeError where there was none, or weights are not finite."""
    check_trained(model)
    words = words_of_numbers(model.module)
    if words is not None:
        raise RuntimeError(words)
    if model.stopped_ is not None:
        warnings.warn(words_of_stop(model.stopped_), UnfinishedModelWarning, stacklevel=stacklevel)
