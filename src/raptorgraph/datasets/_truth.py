"""True effects of the perturbations of a simulated screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.special import ndtri

from raptorgraph.datasets._screen import PANEL_SHARE, Cells, Screen
from raptorgraph.nn._expectation import expected_log1p_nb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


MAX_COUNT = 2.0**24  # beyond it float32 skips integers
MIN_MEAN = 1e-7  # counts; the expression of a rarer gene is negligible
GRID_STEP = 0.1  # of the log mean; the spline is then good to about 1e-7


def latin_normal(n_rows: int, n_columns: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal numbers, shape (n_rows, n_columns), one in each of n_rows equally likely slices per column.

    The Latin hypercube takes most of the sampling error out of means over the rows.
    """
    slices = rng.permuted(np.tile(np.arange(n_rows), (n_columns, 1)), axis=1).T
    return np.asarray(ndtri((slices + rng.random((n_rows, n_columns))) / n_rows))


def normalized(screen: Screen, groups: Sequence[Cells]) -> Screen:
    """Shift the base rates so that the panel takes its share of the library in the mean over groups of controls."""
    total = np.mean([np.exp(rates).sum(axis=1).mean() for cells in groups for rates in _log_rates(screen, cells, [()])])
    return replace(screen, base=screen.base + np.log(PANEL_SHARE) - np.log(total))


def true_effects(
    screen: Screen, groups: Sequence[Cells], conditions: Sequence[Sequence[int]], dispersion: float
) -> np.ndarray:
    """Expected effect of each condition on ``log1p(1e4 * count / library size)``, groups x conditions x genes, float32.

    A condition has the indices of its perturbed genes. The same cells are put under every condition (common random
    numbers), and are the same in every group but for their state; the expectation over the counts of a cell is exact,
    that over cells is a mean over those of the group. ValueError when a condition drives the mean count of a gene
    beyond 2^24 in a cell.
    """
    expectation = _Expectation(groups[0].library_size, dispersion)
    effects = np.empty((len(groups), len(conditions), len(screen.base)), dtype=np.float32)
    for cells, table in zip(groups, effects, strict=True):
        means = (expectation(rates).mean(axis=0) for rates in _log_rates(screen, cells, [(), *conditions]))
        control = next(means)
        for row, mean in zip(table, means, strict=True):
            row[:] = mean - control
    return effects


def _log_rates(screen: Screen, cells: Cells, conditions: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    """Log rates of the same cells under one condition after the other."""
    for condition in conditions:
        shifts = np.zeros_like(cells.shifts)
        shifts[:, condition] = cells.shifts[:, condition]
        yield screen.log_rates(screen.latents(cells.exogenous, shifts), shifts, cells.batch, cells.state)


class _Expectation:
    """Expectation of ``log1p(1e4 * count / library size)`` as a function of the log rate, one spline for each cell."""

    def __init__(self, library_size: np.ndarray, dispersion: float) -> None:
        self.log_library = np.log(library_size)[:, None]
        self.first = np.log(MIN_MEAN)
        self.n_steps = int(np.ceil((np.log(MAX_COUNT) - self.first) / GRID_STEP))
        grid = self.first + GRID_STEP * np.arange(self.n_steps + 1)
        values = expected_log1p_nb(
            torch.from_numpy(np.exp(grid))[:, None],
            torch.tensor(dispersion, dtype=torch.float64),
            torch.from_numpy(1e4 / library_size),
        )
        # coefficients: power x (step, cell)
        self.coefficients: np.ndarray = CubicSpline(grid, values.numpy()).c.reshape(4, -1)

    def __call__(self, log_rates: np.ndarray) -> np.ndarray:
        log_means = log_rates + self.log_library
        if log_means.max() > np.log(MAX_COUNT):
            raise ValueError(
                f"The simulated mean count of a gene reaches exp({log_means.max():.0f}), beyond 2^24: "
                "lower effect_size, interaction_strength, batch_effect or library_size."
            )
        position = np.maximum(log_means - self.first, 0.0)
        step = np.minimum((position / GRID_STEP).astype(np.intp), self.n_steps - 1)
        position -= GRID_STEP * step
        cell = np.arange(len(log_means))[:, None]
        cubic, square, slope, level = (c.take(step * len(log_means) + cell) for c in self.coefficients)
        return np.asarray(((cubic * position + square) * position + slope) * position + level)
