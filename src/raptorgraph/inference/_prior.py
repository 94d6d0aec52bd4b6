"""Prior of the effects of sets of genes: covariances between sets, noise, and what is learned of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

# Prior medians, with a log SD of 1: variances relative to that of a single effect of what all combinations share, of
# the interaction of a combination and of what is a condition's own; noise between conditions over sampling noise.
MEDIANS = {"shared": 0.02, "interaction": 0.15, "own": 0.03, "excess": 1.0}
_SCALE_SD = 0.15  # of the log scale of combinations, a priori
_OVERSHOOT, _HALF = 0.35, 0.7  # largest share by which sums are expected to overshoot; excess where it is half of that
# Classes of genes. What is private cannot be told from what is alone where no combination is measured: its share is
# given, and it must stand far out of the noise (levels from 16 on), where alone ends.
TOGETHER, ALONE, PRIVATE = range(3)
N_CLASSES = 3
_PRIVATE_SHARE, _BORDER = 0.01, 6
CLOSED = -1e4  # log weight of what cannot be


def free_parameters(members: torch.Tensor, y: torch.Tensor, rank: int) -> dict[str, torch.Tensor]:
    """Starting values of what is learned, from effects ``y`` in units of noise (conditions x genes)."""
    k = members.shape[1]
    # Directions of the single effects; those of genes without a single follow from their combinations.
    start = torch.linalg.lstsq(members, y, driver="gelsd").solution
    left, size, _ = torch.linalg.svd(start, full_matrices=False)
    rank = min(rank, len(size))
    free = {
        "loadings": left[:, :rank] * size[:rank] / ((size**2).sum() / k).clamp_min(1e-12).sqrt(),
        "specific": torch.full((k,), math.log(0.3), dtype=y.dtype),
        "scale": torch.tensor(math.log(0.8), dtype=y.dtype),
        "scale_unseen": torch.tensor(0.0, dtype=y.dtype),
        "deviation": torch.zeros(len(members), dtype=y.dtype),
        "weights": torch.zeros(N_CLASSES, len(LEVELS), dtype=y.dtype),
        **{name: torch.tensor(math.log(median), dtype=y.dtype) for name, median in MEDIANS.items()},
    }
    return {name: value.requires_grad_() for name, value in free.items()}


def hyperparameters(free: Mapping[str, torch.Tensor], seen_alone: torch.Tensor) -> dict[str, torch.Tensor]:
    """Constrained values: K (mean diagonal 1), scale, relative variances, excess of each condition, log weights."""
    covariance = free["loadings"] @ free["loadings"].T + torch.diag(free["specific"].exp())
    covariance = covariance / covariance.diagonal().mean()
    values = {name: free[name].exp() for name in ("scale", "scale_unseen", *MEDIANS)}
    closed = torch.zeros_like(free["weights"])
    closed[ALONE, _BORDER + 1 :] = closed[PRIVATE, :_BORDER] = CLOSED
    weights = free["weights"] + closed
    carried = torch.log_softmax(weights[:PRIVATE].flatten(), 0).view(PRIVATE, -1) + math.log1p(-_PRIVATE_SHARE)
    private = torch.log_softmax(weights[PRIVATE], 0) + math.log(_PRIVATE_SHARE)
    return {
        **values,
        "covariance": covariance,
        "unseen": (~seen_alone).to(covariance.dtype),
        "excess_of": values["excess"] * free["deviation"].exp(),
        "log_weights": torch.cat([carried, private[None]]),
    }


def penalty(free: Mapping[str, torch.Tensor], overshoot: bool) -> torch.Tensor:
    """Minus the log density of the prior of the parameters, up to a constant."""
    off = free["scale"] - expected_scale(free["excess"].detach().exp(), overshoot).log()
    square = (off / _SCALE_SD) ** 2 + (free["deviation"] ** 2).sum() + free["scale_unseen"] ** 2
    return 0.5 * (square + sum((free[name] - math.log(median)) ** 2 for name, median in MEDIANS.items()))


def expected_scale(excess: torch.Tensor, overshoot: bool = True) -> torch.Tensor:
    """Prior median of the scale of combinations, from the noise between conditions; 1 without overshoot."""
    return 1 - overshoot * _OVERSHOOT * excess / (excess + _HALF)


def carried(values: Mapping[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor, pairs: torch.Tensor | None = None):
    """Covariance of sets a and sets b (both x k) that comes from their genes, classes x a x b.

    ``pairs`` says which of a count as combinations, by default those of two genes or more.
    """
    combined_a = _combined(a) if pairs is None else pairs
    combined_b = _combined(b)
    weight_a = a * _scale(values, a, combined_a, mixed=pairs is None)[:, None]
    weight_b = b * _scale(values, b, combined_b)[:, None]
    shared = values["shared"] * torch.outer(combined_a, combined_b)
    covariance = values["covariance"]
    together = weight_a @ covariance @ weight_b.T + shared
    alone = weight_a @ values["along"] @ weight_b.T + shared
    return torch.stack([together, alone, torch.zeros_like(shared)])


def along_graph(graph: torch.Tensor | None, k: int) -> torch.Tensor:
    """Covariance of the effects on a gene that few perturbations move directly, k x k with mean diagonal 1.

    Direct effects b are independent, and the graph W carries them on: e = (I - W)^-1 b.
    """
    eye = torch.eye(k, dtype=torch.float64)
    if graph is None:
        return eye
    total = torch.linalg.inv(eye - graph)
    covariance = total @ total.T
    return covariance / covariance.diagonal().mean()


def _scale(values: Mapping[str, torch.Tensor], members: torch.Tensor, combined: torch.Tensor, mixed: bool = True):
    """Scale of the single effects in each set.

    Combinations with a gene that was not perturbed alone have a scale of their own: the size of an effect that only
    they show is no evidence of how effects add up.
    """
    scale = values["scale"].expand(len(members))
    if mixed:
        scale = torch.where(members @ values["unseen"] > 0, values["scale_unseen"], scale)
    return 1 + combined * (scale - 1)


def signals(values: Mapping[str, torch.Tensor], members: torch.Tensor) -> torch.Tensor:
    """Prior covariance of the effects of distinct sets, classes x sets x sets."""
    own = torch.diag(values["interaction"] * _combined(members) + values["own"])
    eye = torch.eye(len(members), dtype=members.dtype)
    return carried(values, members, members) + torch.stack([own, own, eye])


def noise(values: Mapping[str, torch.Tensor], temper: float = 1.0) -> torch.Tensor:
    """Covariance of the measurement errors, in units in which a typical sampling variance is 1."""
    return torch.diag(temper * (1 + values["excess_of"]) * values["own_noise"]) + values["common_noise"]


def _combined(members: torch.Tensor) -> torch.Tensor:
    return (members.sum(1) > 1).to(members.dtype)
