"""Distances of predicted from measured cells of unseen combinations: of all cells, and within each state of the cells.

The predicted cells of a state start from control cells of that state, and the measured ones are those in that state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph import metrics
from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._methods import n_repeats_of
from raptorgraph.evaluation._scores import CEILING, FLOOR, draw_seed, sample_size, size_of_half

if TYPE_CHECKING:
    from collections.abc import Iterator

    from raptorgraph.benchmark._settings import Settings
    from raptorgraph.evaluation._methods import RaptorGraphMethod
    from raptorgraph.screen import Screen

MMD, ENERGY, VARIANCE = "MK-MMD", "energy distance", "variance ratio"
WHOLE, BY_STATE = "{}", "{} by state"
CELL_SCORES = (MMD, ENERGY, BY_STATE.format(MMD), BY_STATE.format(ENERGY), VARIANCE)
_N_TERTILES = 3
_COLUMN = "state"
_distances = partial(metrics.distribution_scores, bandwidths=(200.0,))
_NAMES = {"mk_mmd_200": MMD, "energy_distance": ENERGY}


def states_of(screen: Screen, settings: Settings) -> np.ndarray | None:
    """Code of each cell's state, -1 where it has none; None for a screen without states.

    The option ``state`` names the column of ``obs``; by default it is "state", where there is one. Numbers that are not
    whole are cut into tertiles.

    Raises
    ------
    ValueError
        If the column that was named is not there, or has one value only.
    """
    asked, obs = settings.options.get("state"), screen.adata.obs
    key = _COLUMN if asked is None else asked
    if not isinstance(key, str) or key not in obs:
        if asked is None:
            return None
        raise ValueError(f"state: {key!r} is no column of obs, which has {', '.join(map(str, obs.columns))}.")
    values = obs[key]
    if pd.api.types.is_float_dtype(values):
        values = pd.qcut(values, _N_TERTILES, duplicates="drop")
    codes, names = pd.factorize(values, sort=True)
    if len(names) > 1:
        return np.asarray(codes)
    if asked is None:
        return None
    raise ValueError(f"state: the cells have one value in {key!r}: name a column with two or more, or none.")


@dataclass(frozen=True)
class Group:
    """Cells that are compared with one another: the name of their distances, their mask, and how many at a time."""

    name: str
    mask: np.ndarray
    n_cells: int

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that belong to this group."""
        return np.asarray(rows[self.mask[rows]])

    def named(self, table: pd.DataFrame) -> dict[str, float]:
        """Means of the distances over repeats."""
        return {self.name.format(text): float(table[column].mean()) for column, text in _NAMES.items()}


@dataclass(frozen=True)
class Comparison:
    """Which cells of unseen combinations are compared.

    Attributes
    ----------
    screen, settings
        Data, and the options ``state`` and ``n_repeats``.
    seed
        Seed of the draws, which are the same for all methods.
    """

    screen: Screen
    settings: Settings
    seed: int

    @cached_property
    def groups(self) -> list[Group]:
        """All cells; where there are states, the cells of each."""
        screen, states = self.screen, states_of(self.screen, self.settings)
        whole = Group(WHOLE, np.ones(screen.adata.n_obs, bool), sample_size(screen))
        if states is None:
            return [whole]
        masks = [states == k for k in range(states.max() + 1)]
        sizes = [int(mask[screen.rows(label)].sum()) for mask in masks for label in screen.combinations]
        return [whole, *(Group(BY_STATE, mask, size_of_half(sizes)) for mask in masks)]

    def combinations(self, group: Group) -> Iterator[tuple[str, np.ndarray, dict[str, int]]]:
        """Unseen combinations with enough cells: the label, their rows, and how to draw from them."""
        if np.count_nonzero(group.mask[self.screen.rows(self.screen.control)]) < group.n_cells:
            return
        for label in variants.unseen_split(self.screen).test:
            rows = group.of(self.screen.rows(label))
            if len(rows) >= 2 * group.n_cells:
                draws = {"n_cells": group.n_cells, "n_repeats": n_repeats_of(self.settings)}
                yield label, rows, {**draws, "seed": draw_seed(self.seed, self.screen, label)}

    def scores(self, method: RaptorGraphMethod, controls: np.ndarray) -> dict[str, float]:
        """Distances and ratio of variances, means over the combinations and states, of cells that a model predicts.

        `controls` are the rows of the control cells that it was fitted on; the cells start from these.
        """
        found = []
        for group in self.groups:
            asked = list(self.combinations(group))
            if not asked:
                continue
            start = None if group.name == WHOLE else self.screen.adata[group.of(controls)].copy()
            n, labels = group.n_cells * n_repeats_of(self.settings), [label for label, *_ in asked]
            cells = method.model.predict(labels, start, n, self.seed, noise=method.noise)
            cells = cells[:, self.screen.adata.var_names]
            for i, (_, rows, draws) in enumerate(asked):
                drawn, real = cells[n * i : n * (i + 1)].to_df().to_numpy(), self.screen.expression_at(rows)
                scores = group.named(metrics.sampled_scores(drawn, real, **draws, score=_distances))
                if group.name == WHOLE:
                    scores[VARIANCE] = float(metrics.variance_ratio(drawn, real))
                found.append(scores)
        return _mean(found)

    def references(self) -> dict[str, dict[str, float]]:
        """Floor and ceiling of the distances: other cells of the combination, and control cells of the same state."""
        found: dict[str, list[dict[str, float]]] = {FLOOR: [], CEILING: []}
        for group in self.groups:
            control = self.screen.expression_at(group.of(self.screen.rows(self.screen.control)))
            for _, rows, draws in self.combinations(group):
                measured = self.screen.expression_at(rows)
                table = metrics.floor_and_ceiling(measured, control, **draws, score=_distances)
                for reference, kind in ((FLOOR, "floor"), (CEILING, "ceiling")):
                    found[reference].append(group.named(table[table["reference"] == kind]))
        return {reference: _mean(scores) for reference, scores in found.items()}


def _mean(scores: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each score over those that have it, in the order of the table."""
    means = pd.DataFrame(scores, columns=CELL_SCORES, dtype=float).mean().dropna()
    return {str(name): float(value) for name, value in means.items()}
