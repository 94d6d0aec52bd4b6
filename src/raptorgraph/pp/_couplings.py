"""Ways to couple perturbed cells with control cells, from their coordinates."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from collections.abc import Callable

_N_RANDOM = 32  # controls kept for each cell under random pairing, whose full plan would be dense
_REGULARIZATION = 0.02  # entropic regularization, as a part of the median cost
_TOLERANCE = 1e-3  # relative error of the column sums at which Sinkhorn iterations end
_MAX_ITERATIONS = 2000
_NEGLIGIBLE = 1e-6  # entries of a row below this part of its mass are dropped

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, columns and weights; every perturbed cell, a row, is in at least one pair."""


def _emd(cells: np.ndarray, controls: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Exact optimal transport between uniform weights."""
    import ot  # slow to import

    cost = cdist(cells, controls, "sqeuclidean")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the solver's verdict is read from its log
        plan, log = ot.emd(ot.unif(len(cells)), ot.unif(len(controls)), cost, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(
            f"Optimal transport of {len(controls)} control cells to {len(cells)} perturbed cells failed: "
            f"{log['warning']} Lower max_controls, or use method='sinkhorn'."
        )
    return _entries(plan)


def _sinkhorn(cells: np.ndarray, controls: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Optimal transport with an entropic term; RuntimeWarning where iterations end early."""
    import ot  # slow to import

    cost = cdist(cells, controls, "sqeuclidean")
    scale = np.median(cost)
    plan, log = ot.sinkhorn(
        ot.unif(len(cells)),
        ot.unif(len(controls)),
        cost / (scale if scale > 0 else 1.0),
        _REGULARIZATION,
        method="sinkhorn_log",
        numItermax=_MAX_ITERATIONS,
        stopThr=_TOLERANCE / np.sqrt(len(controls)),  # the error is the norm of the deviation from weights 1/m
        log=True,
        warn=False,
    )
    error = log["err"][-1] * np.sqrt(len(controls))
    if error > _TOLERANCE:
        warnings.warn(
            f"Sinkhorn iterations for {len(cells)} perturbed cells stopped at {_MAX_ITERATIONS} with the use of the "
            f"control cells uneven by {error:.1%}; method='emd' solves the problem exactly.",
            RuntimeWarning,
            stacklevel=2,
        )
    return _entries(plan)


def _hungarian(cells: np.ndarray, controls: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Assignment of the least total cost, which uses the controls as evenly as their number allows."""
    cost = cdist(cells, controls, "sqeuclidean")
    # Copies of the controls, where they are fewer than the cells.
    rows, columns = linear_sum_assignment(np.tile(cost, (1, -(-len(cells) // len(controls)))))
    return rows, columns % len(controls), np.ones(len(rows))


def _nearest(cells: np.ndarray, controls: np.ndarray, rng: np.random.Generator) -> Pairs:
    """The closest control of each cell."""
    neighbors = NearestNeighbors(n_neighbors=1).fit(controls).kneighbors(cells, return_distance=False)
    return np.arange(len(cells)), neighbors[:, 0], np.ones(len(cells))


def _random(cells: np.ndarray, controls: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Controls drawn uniformly, without replacement for each cell."""
    n_drawn = min(_N_RANDOM, len(controls))
    drawn = rng.random((len(cells), len(controls))).argpartition(n_drawn - 1, axis=1)[:, :n_drawn]
    return np.repeat(np.arange(len(cells)), n_drawn), drawn.ravel(), np.ones(drawn.size)


def _entries(plan: np.ndarray) -> Pairs:
    """Entries of a dense plan that are not negligible in their row."""
    rows, columns = np.nonzero(plan >= _NEGLIGIBLE * plan.sum(axis=1, keepdims=True))
    return rows, columns, plan[rows, columns]


COUPLINGS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], Pairs]] = {
    "emd": _emd,
    "sinkhorn": _sinkhorn,
    "hungarian": _hungarian,
    "nearest": _nearest,
    "random": _random,
}
"""By method: function of the coordinates of perturbed and of control cells, and of a generator."""
