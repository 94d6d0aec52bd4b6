"""States of the cells of a simulated screen: their expression programs, and which perturbations act in which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_STATES, CONTINUOUS = "none", "continuous"
PROGRAM_DENSITY = 0.2  # of the genes that differ between states
TERTILES = ("T1", "T2", "T3")


@dataclass(frozen=True)
class States:
    """States between which cells differ; a cell's state is a mixture of m, shape (m,), that sums to 1.

    Attributes
    ----------
    names
        Names of the states, or of the tertiles of a continuous one.
    programs
        Log-rate offsets of each state, or of the two ends of a continuous one, shape (m, n_genes).
    activity
        Factor of the shift by each perturbation, shape (m, n_perturbed).
    continuous
        Whether cells lie between two ends.
    """

    names: Sequence[str]
    programs: np.ndarray
    activity: np.ndarray
    continuous: bool

    def mixtures(self, place: np.ndarray) -> np.ndarray:
        """Mixture of each cell, shape (n, m), by its place in [0, 1); discrete states have equal parts of it."""
        if self.continuous:
            return np.column_stack([1 - place, place])
        return np.asarray(np.eye(len(self.names))[self.codes(place)])

    def codes(self, place: np.ndarray) -> np.ndarray:
        """State, or tertile, of each place."""
        return np.asarray(np.minimum((len(self.names) * place).astype(int), len(self.names) - 1))

    def within(self, place: np.ndarray) -> list[np.ndarray]:
        """Mixtures of the same cells, moved into one state, or tertile, after the other."""
        return [self.mixtures((k + place) / len(self.names)) for k in range(len(self.names))]

    def mean_activity(self) -> np.ndarray:
        """Mean factor of the shift by each perturbation in each state, or tertile, shape (n_perturbed, n_names)."""
        middle = (np.arange(len(self.names)) + 0.5) / len(self.names)
        return np.asarray((self.mixtures(middle) @ self.activity).T)

    def column(self, place: np.ndarray) -> pd.Categorical | np.ndarray:
        """What ``obs`` says of the state."""
        return place if self.continuous else pd.Categorical.from_codes(self.codes(place), list(self.names))


def random_states(
    states: str | int, n_genes: int, n_perturbed: int, *, effect: float, dependence: float, rng: np.random.Generator
) -> States | None:
    """Draw the programs of the states and where perturbations act; None without states.

    The arguments are those of :func:`raptorgraph.datasets.simulate`.
    """
    if states == NO_STATES:
        return None
    continuous = states == CONTINUOUS
    n_ends = 2 if continuous else int(states)
    programs = rng.standard_normal((n_ends, n_genes)) * (rng.random(n_genes) < PROGRAM_DENSITY)
    programs -= programs.mean(axis=0)
    # the variance between cells is effect ** 2, whatever the number of states; 1/3 of it is left between two ends
    programs *= effect * np.sqrt(n_ends / (n_ends - 1) * (3 if continuous else 1))

    activity = np.ones((n_ends, n_perturbed))
    for gene in rng.permutation(n_perturbed)[: round(dependence * n_perturbed)]:
        activity[rng.permutation(n_ends)[: rng.integers(1, n_ends)], gene] = 0.0  # at least one is left
    width = len(str(n_ends))
    names = TERTILES if continuous else [f"S{k + 1:0{width}d}" for k in range(n_ends)]
    return States(names, programs, activity, continuous)
