"""Expectations over the posterior of the latents, on draws that all cells share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_DRAWS = 32


def standard_draws(n_draws: int, n_latent: int, seed: int, like: torch.Tensor) -> torch.Tensor:
    """Draw standard normal vectors, draws x d, in pairs of opposite sign, each latent scaled to variance 1.

    Linear functions of a latent and its square then have their exact expectation. An odd number of draws is rounded
    up; draws are the same on every device. `like` gives device and type.
    """
    half = np.random.default_rng(seed).standard_normal((-(-n_draws // 2), n_latent))
    half /= np.sqrt((half**2).mean(axis=0))
    return torch.as_tensor(np.concatenate([half, -half]), dtype=like.dtype, device=like.device)


def posterior_draws(
    mean: torch.Tensor, log_var: torch.Tensor, n_draws: int = N_DRAWS, seed: int = 0
) -> Iterator[torch.Tensor]:
    """Yield latents drawn from their posterior, one for each cell, cells x d.

    All cells share the standard normal draws, so that an expectation over them depends on the cell alone, and not on
    which others are asked with it; differences between perturbations are taken on the same draws.
    """
    sd = torch.exp(0.5 * log_var)
    for draw in standard_draws(n_draws, mean.shape[1], seed, mean):
        yield mean + sd * draw


def posterior_expectation(
    function: Callable[[torch.Tensor], torch.Tensor],
    mean: torch.Tensor,
    log_var: torch.Tensor,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> torch.Tensor:
    """Mean of a function of the latents over draws from their posterior; exact without draws for the identity."""
    if isinstance(function, torch.nn.Identity):
        return mean
    draws = posterior_draws(mean, log_var, n_draws, seed)
    total, n = function(next(draws)), 1
    for z in draws:
        total, n = total + function(z), n + 1
    return total / n
