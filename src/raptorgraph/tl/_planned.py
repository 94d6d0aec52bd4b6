"""What planned measurements would cost and show: noise by number of cells, and draws of pairs beside their genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._progress import progress_bar
from raptorgraph.screen._matrix import to_dense

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from raptorgraph.inference._state import Fitted
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen._setup import Setup

_MOST_DRAWN = 10_000_000  # drawn values at a time
_PAIRS_AT_A_TIME = 16
_CELLS = 2000  # control cells whose noise is looked at


@dataclass(frozen=True)
class PlannedNoise:
    r"""Noise of a condition by its number of cells, in units of the posterior (:math:`\nu`, of which w is one).

    Attributes
    ----------
    per_cell
        Variance with one cell, excess included: with n cells it is an n-th of that.
    typical
        Cells of the median condition of the screen.
    """

    per_cell: float
    typical: float

    @classmethod
    def of(cls, model: RaptorGraphModel) -> PlannedNoise:
        """Read it from the screen of the model; ValueError where the model was loaded without data."""
        if model.adata is None:
            raise ValueError(
                "The number of cells of each condition is not known: the model was loaded without data; "
                "load it with RaptorGraphModel.load(folder, adata)."
            )
        fitted, screen = model.calibration.posterior.fitted, model.screen
        codes = np.delete(screen.codes, [] if model.test_indices_ is None else model.test_indices_)
        n = np.bincount(codes, minlength=len(screen.labels))[1:]
        noise = fitted.measured.condition_noise.numpy()
        # conditions of the posterior come in an order of their own
        n_of = {tuple(np.flatnonzero(row)): n_here for row, n_here in zip(screen.design[1:], n, strict=True)}
        fitted_n = np.array([n_of.get(tuple(np.flatnonzero(row)), 0) for row in fitted.measured.design.numpy()])
        per_cell = np.median((noise * fitted_n)[fitted_n > 0])  # the same for all
        return cls(float((1 + fitted.hyperparameters.excess) * per_cell), float(np.median(n[n > 0])))

    def at(self, n_cells: float | np.ndarray) -> np.ndarray:
        """Variance with these many cells."""
        return np.asarray(self.per_cell / np.asarray(n_cells, dtype=float))

    def cells_at(self, variance: np.ndarray) -> np.ndarray:
        """Number of cells that gives a variance, rounded up; infinite where it would have to be 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.ceil(self.per_cell / np.asarray(variance, dtype=float) - 1e-9))


def triples(
    model: RaptorGraphModel, setup: Setup, pairs: Sequence[tuple[str, ...]], n_draws: int, seed: int | None
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Draws of the pairs, some at a time: which, those of the sum of both genes, and of the pair.

    Both are draws x pairs x genes. The same seed gives the same draw of a gene beside whatever pairs it is asked for.
    """
    n_genes = len(model.var_names_)
    at_a_time = max(1, min(_PAIRS_AT_A_TIME, _MOST_DRAWN // (3 * n_draws * n_genes)))
    with progress_bar("Draws", -(-len(pairs) // at_a_time)) as advance:
        for start in range(0, len(pairs), at_a_time):
            part = slice(start, start + at_a_time)
            genes = sorted({gene for pair in pairs[part] for gene in pair})
            labels = [setup.label([gene]) for gene in genes] + [setup.label(pair) for pair in pairs[part]]
            drawn = model.sample_effects(labels, n_draws, seed)
            first, second = (np.array([genes.index(pair[side]) for pair in pairs[part]]) for side in (0, 1))
            yield part, drawn[:, first] + drawn[:, second], drawn[:, len(genes) :]
            advance()


def correlated_noise(model: RaptorGraphModel, directions: np.ndarray) -> np.ndarray:
    """Variance of control cells along directions (n x genes) over that of independent genes, shape (n,); at least 1.

    Noise that genes share, as that of a cell's size or state, adds up along a direction. What batches differ by is no
    noise, since cells are compared within batches. 1 where the model has no data.
    """
    if model.adata is None:
        return np.ones(len(directions))
    screen = model.screen
    rows = screen.rows(screen.control)
    rows = rows[np.linspace(0, len(rows) - 1, min(_CELLS, len(rows))).round().astype(int)]
    cells = to_dense(screen.expression_at(rows)).astype(np.float64)
    if screen.batch is not None:
        cells -= pd.DataFrame(cells).groupby(screen.batch[rows]).transform("mean").to_numpy()
    independent = directions**2 @ cells.var(axis=0)
    along = (cells @ directions.T).var(axis=0)
    return np.asarray(np.maximum(along / np.maximum(independent, 1e-300), 1.0))


def expected_size(fitted: Fitted) -> np.ndarray:
    """Variance of the effect of a typical single on each gene, shape (genes,): the unit of residuals."""
    from raptorgraph.inference._mixture import LEVELS

    inherit = fitted.responsibility[:2]  # of the classes in which combinations inherit effects
    return np.asarray(((inherit * LEVELS[:, None]).sum((0, 1)) * fitted.measured.gene_noise).numpy())
