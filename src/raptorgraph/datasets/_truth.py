"""True effects of the perturbations of a simulated screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.interpolate import CubicSpline
from scipy.special import ndtri

from raptorgraph.datasets._screen import PANEL_SHARE, Cells, Screen
from raptorgraph.nn._expectation import expected_log1p_nb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.datasets._guides import Guides


MAX_COUNT = 2.0**24  # beyond it float32 skips integers
MIN_MEAN = 1e-7  # counts; the expression of a rarer gene is negligible
BLOCK_ENTRIES = 50_000  # cells x genes of which the expectation is computed at a time
GRID_STEP = 0.1  # of the log mean; the spline is then good to about 1e-7


def latin_normal(n_rows: int, n_columns: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal numbers, shape (n_rows, n_columns), one in each of n_rows equally likely slices per column.

    The Latin hypercube takes most of the sampling error out of means over the rows.
    """
    slices = rng.permuted(np.tile(np.arange(n_rows), (n_columns, 1)), axis=1).T
    return np.asarray(ndtri((slices + rng.random((n_rows, n_columns))) / n_rows))


def normalized(screen: Screen, groups: Sequence[Cells]) -> Screen:
    """Shift the base rates so that the panel takes its share of the library in the mean over groups of controls."""
    controls = [screen.log_rates(*_under(screen, cells, ()), cells.batch, cells.state) for cells in groups]
    total = np.mean([np.exp(rates).sum(axis=1).mean() for rates in controls])
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
    plan = _Plan(screen, conditions)
    effects = np.empty((len(groups), len(conditions), len(screen.base)), dtype=np.float32)
    every = np.arange(len(screen.base))
    for cells, table in zip(groups, effects, strict=True):
        control = _mean_expression(screen, cells, (), every, expectation)
        for row, condition in zip(table, conditions, strict=True):
            genes = plan.start(row, condition, table)
            row[genes] = _mean_expression(screen, cells, condition, genes, expectation) - control[genes]
    return effects


def known_tables(
    screen: Screen,
    effects: np.ndarray,
    labels: list[str],
    names: list[str],
    genes: list[str],
    settings: dict[str, Any],
    guides: Guides | None,
) -> dict[str, Any]:
    """What is known of the screen, as `simulate` gives it in ``uns``; `effects` are groups x labels x genes."""
    targets, states = names[: len(screen.shift)], screen.states
    known = {
        "adjacency": pd.DataFrame(screen.graph.adjacency, index=names, columns=names),
        "effects": pd.DataFrame(effects.mean(axis=0), index=labels, columns=genes),
        "settings": settings,
    }
    if guides is not None:
        known["guides"] = guides.table(names)
    if screen.off_target is not None:
        known["off_target"] = pd.DataFrame(screen.off_target, index=targets, columns=targets)
    if states is not None:
        tables = (pd.DataFrame(values, index=labels, columns=genes) for values in effects)
        known["state_effects"] = dict(zip(states.names, tables, strict=True))
        known["state_activity"] = pd.DataFrame(states.mean_activity(), index=targets, columns=list(states.names))
    return known


class _Plan:
    """What of a condition's effects is known from smaller conditions.

    Under A+B a gene that no latent which B shifts drives, and that no interaction of the two reaches, has the rates
    that it has under A, bit for bit: its effect is that of A. It is zero where neither reaches it.
    """

    def __init__(self, screen: Screen, conditions: Sequence[Sequence[int]]) -> None:
        self.screen = screen
        self.place = {tuple(sorted(condition)): k for k, condition in enumerate(conditions)}
        hit = np.eye(len(screen.shift), len(screen.graph.total), dtype=bool)
        if screen.off_target is not None:
            hit[:, : len(screen.shift)] |= screen.off_target != 0
        moved = hit.astype(np.float32) @ (screen.graph.total != 0)
        # of counts of paths: what is zero is so exactly
        self.reached: np.ndarray = ((moved > 0).astype(np.float32) @ (screen.loadings != 0)) > 0  # perturbed x genes

    def start(self, row: np.ndarray, condition: Sequence[int], table: np.ndarray) -> np.ndarray:
        """Fill in what is known, from rows of the same table, and return the genes that are left."""
        rest = np.ones(len(row), dtype=bool)
        for gene in condition:
            smaller = tuple(sorted(set(condition) - {gene}))
            known = rest & ~self.reached[gene]
            for pair, *_ in self.screen.interacting(condition):
                known[self.screen.hit_genes(pair)] = False
            if not smaller:
                row[known] = 0.0
            elif self.place.get(smaller, len(table)) < self.place[tuple(sorted(condition))]:
                row[known] = table[self.place[smaller], known]
            else:
                continue
            rest &= ~known
        return np.flatnonzero(rest)


def _mean_expression(
    screen: Screen, cells: Cells, condition: Sequence[int], genes: np.ndarray, expectation: _Expectation
) -> np.ndarray:
    """Mean over the cells of the expected expression of these genes under a condition."""
    latents, shifts = _under(screen, cells, condition)
    # in blocks that fit into the processor's cache
    width = max(2, BLOCK_ENTRIES // len(latents))
    mean = np.empty(len(genes))
    for start in range(0, len(genes), width):
        block = genes[start : start + width]
        # a column alone would be summed in another order
        asked = block if len(block) > 1 or len(screen.base) == 1 else np.append(block, (block + 1) % len(screen.base))
        rates = screen.log_rates(latents, shifts, cells.batch, cells.state, asked)
        mean[start : start + width] = expectation(rates).mean(axis=0)[: len(block)]
    return mean


def _under(screen: Screen, cells: Cells, condition: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Latents and shifts of the cells under a condition."""
    shifts = np.zeros_like(cells.shifts)
    shifts[:, condition] = cells.shifts[:, condition]
    return screen.latents(cells.exogenous, shifts), shifts


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
        position = log_means
        position -= self.first
        np.maximum(position, 0.0, out=position)
        step = (position / GRID_STEP).astype(np.intp)
        np.minimum(step, self.n_steps - 1, out=step)
        position -= GRID_STEP * step
        step *= len(position)
        step += np.arange(len(position))[:, None]
        cubic, *others = self.coefficients
        value = cubic.take(step)
        for power in others:
            value *= position
            value += power.take(step)
        return np.asarray(value)
