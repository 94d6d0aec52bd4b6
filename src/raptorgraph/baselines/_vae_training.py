"""Training of discrepancy VAEs: schedules, batches of one condition each, and the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._progress import track
from raptorgraph.nn import kl_standard_normal, mk_mmd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from raptorgraph.baselines._blocks import DiscrepancyModule

_MMD_START, _KL_START, _TEMPERATURE_START = 5, 10, 5  # epochs before each begins to rise


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the loop; weights and temperature are those that the schedules rise to."""

    max_epochs: int
    batch_size: int
    lr: float
    mmd_weight: float
    kl_weight: float
    l1_weight: float
    temperature: float
    fix_sigma: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size"):
            check_integer(name, getattr(self, name), 1)
        for name in ("lr", "temperature", "fix_sigma"):
            check_number(name, getattr(self, name), 0, above=True)
        for name in ("mmd_weight", "kl_weight", "l1_weight"):
            check_number(name, getattr(self, name), 0)


def schedules(max_epochs: int, *, mmd_weight: float, kl_weight: float, temperature: float) -> pd.DataFrame:
    """Weights and temperature of each epoch, as published: one row for each, with the arguments' names as columns.

    Of E epochs the weight of the MMD is 0 for 5, then linear, and has its value from epoch E // 2 on. That of the KL is
    0 for 10, the temperature 1 for 5; both are then linear and reach their value in the last epoch.
    """
    half = max_epochs // 2
    table = pd.DataFrame(
        {"mmd_weight": float(mmd_weight), "kl_weight": 0.0, "temperature": 1.0},
        index=pd.RangeIndex(max_epochs, name="epoch"),
    )
    table.iloc[:half, 0] = np.r_[np.zeros(_MMD_START), np.linspace(0, mmd_weight, max(half - _MMD_START, 0))][:half]
    table.iloc[_KL_START:, 1] = np.linspace(0, kl_weight, max(max_epochs - _KL_START, 0))
    table.iloc[_TEMPERATURE_START:, 2] = np.linspace(1, temperature, max(max_epochs - _TEMPERATURE_START, 0))
    return table


def condition_batches(codes: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Condition and cells of each batch: the perturbed cells, cut into batches of one condition each, in random order.

    `codes` has the condition of each cell; 0 is the control, which is left out. What is left of a condition waits for
    another epoch, as published; a condition with fewer cells than `batch_size` is one smaller batch.
    """
    batches = []
    for condition in np.unique(codes[codes > 0]):
        rows = rng.permutation(np.flatnonzero(codes == condition))
        n_full = len(rows) // batch_size
        parts = np.split(rows[: n_full * batch_size], n_full) if n_full else [rows]
        batches += [(int(condition), part) for part in parts]
    for k in rng.permutation(len(batches)):
        yield batches[k]


def train(
    module: DiscrepancyModule,
    expression: torch.Tensor,
    codes: np.ndarray,
    masks: torch.Tensor,
    settings: TrainingSettings,
    *,
    reduce_kl: Callable[[torch.Tensor], torch.Tensor],
    reduce_l1: Callable[[torch.Tensor], torch.Tensor],
) -> pd.DataFrame:
    """Train in place, with random control cells against the cells of one condition in each step.

    The loss is the mean squared error of the reconstructed controls, plus the weighted KL of their z, biased MK-MMD
    of their predicted perturbed cells to the measured ones, and L1 norm of the graph.

    Parameters
    ----------
    module
        Module to train.
    expression
        Cells x genes, float32, on the expression scale.
    codes
        Shape (n_cells,): condition of each cell; 0 is the control.
    masks
        Conditions x perturbed genes, 0 or 1.
    settings
        Settings of the loop. Its seed decides batches and noise, without touching the global generators.
    reduce_kl, reduce_l1
        Reduce the KL terms, cells x latents, and the adjacency, latents x latents, to a number.

    Returns
    -------
    One row for each epoch: means over its steps of ``reconstruction``, ``kl``, ``mmd``, ``l1``; the same as weighted
    in the loss, ``weighted_kl``, ``weighted_mmd``, ``weighted_l1``; their sum with the reconstruction, ``loss``; and
    the columns of :func:`schedules`. FloatingPointError if the loss of an epoch is not finite.
    """
    rng = np.random.default_rng(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    control = np.flatnonzero(codes == 0)
    plan = schedules(
        settings.max_epochs,
        mmd_weight=settings.mmd_weight,
        kl_weight=settings.kl_weight,
        temperature=settings.temperature,
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.lr, fused=True)
    module.train()
    history = []
    for epoch, row in track(plan.iterrows(), "Epochs", total=len(plan)):
        parts = []
        weights = torch.tensor([1.0, row.kl_weight, row.mmd_weight, settings.l1_weight], dtype=torch.float32)
        for condition, cells in condition_batches(codes, settings.batch_size, rng):
            x = expression[torch.from_numpy(rng.choice(control, len(cells)))]
            y = expression[torch.from_numpy(cells)]
            mean, log_var = module.encoder(x)
            z = sample(mean, log_var, generator)
            shift = module.target(masks[condition : condition + 1], row.temperature)
            rebuilt, predicted = module(torch.cat([z, z + shift])).chunk(2)
            terms = torch.stack(
                [
                    F.mse_loss(rebuilt, x),
                    reduce_kl(kl_standard_normal(mean, log_var)),
                    mk_mmd(predicted, y, fix_sigma=settings.fix_sigma, biased=True),
                    reduce_l1(module.graph.adjacency()),
                ]
            )
            optimizer.zero_grad()
            torch.autograd.backward(weights @ terms)
            optimizer.step()
            parts.append(terms.detach())
        means = torch.stack(parts).mean(0)
        if not torch.isfinite(means).all():
            raise FloatingPointError(
                f"The loss is not finite in epoch {epoch} (reconstruction, KL, MMD, L1: {means.tolist()}): "
                f"lower the learning rate, lr={settings.lr}."
            )
        history.append((*means.tolist(), *(weights * means).tolist()[1:], float(weights @ means)))
    module.eval()
    columns = ["reconstruction", "kl", "mmd", "l1", "weighted_kl", "weighted_mmd", "weighted_l1", "loss"]
    return pd.DataFrame(history, columns=columns, index=plan.index).join(plan)


def sample(mean: torch.Tensor, log_var: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw z from its posterior, cells x latents."""
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + torch.exp(0.5 * log_var) * noise
