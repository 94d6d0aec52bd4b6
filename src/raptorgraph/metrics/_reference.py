"""Reference values of distances between samples: of real cells (floor) and of controls (ceiling) to real cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_integer
from raptorgraph.metrics._distribution import distribution_scores
from raptorgraph.metrics._samples import Cells, as_samples, dense

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


Score = Callable[[np.ndarray, np.ndarray], float | Mapping[str, float]]


def floor_and_ceiling(
    measured: ArrayLike,
    control: ArrayLike,
    *,
    n_cells: int,
    n_repeats: int = 5,
    seed: int = 0,
    score: Score = distribution_scores,
) -> pd.DataFrame:
    """Scores of perturbed against perturbed cells (floor) and of controls against perturbed cells (ceiling).

    Each repeat draws two disjoint samples of the perturbed cells and one of the control cells, without replacement.
    The floor compares the two samples of perturbed cells, the ceiling the controls with the first of them.

    Parameters
    ----------
    measured
        Measured cells of a perturbation x genes, sparse or dense.
    control
        Control cells x genes.
    n_cells
        Cells in each sample. Scores depend on it, so compare predictions at the same number.
    n_repeats
        Number of draws.
    seed
        Seed of the draws.
    score
        Function of two samples (predicted, measured) that gives a number or a dict of numbers.

    Returns
    -------
    pandas.DataFrame
        Two rows for each repeat, with columns ``reference`` (``"floor"`` or ``"ceiling"``), ``repeat`` and one for each
        score (``"value"`` where `score` gives a number).

    Raises
    ------
    ValueError
        If there are fewer than ``2 * n_cells`` measured or ``n_cells`` control cells, or the genes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> control, measured = rng.normal(0, 1, (200, 5)), rng.normal(1, 1, (200, 5))
    >>> table = rg.metrics.floor_and_ceiling(measured, control, n_cells=80, score=rg.metrics.mk_mmd)
    >>> mean = table.groupby("reference")["value"].mean()
    >>> bool(mean["floor"] < mean["ceiling"])
    True
    """
    measured, control = as_samples(measured, control)
    check_integer("n_cells", n_cells, 1)
    check_integer("n_repeats", n_repeats, 1)
    if measured.shape[0] < 2 * n_cells:
        raise ValueError(
            f"The floor compares two disjoint samples of n_cells={n_cells} cells, but only {measured.shape[0]} are "
            f"measured: n_cells can be {measured.shape[0] // 2} at most."
        )
    if control.shape[0] < n_cells:
        raise ValueError(f"There are only {control.shape[0]} control cells for samples of n_cells={n_cells}.")
    rows = []
    for repeat in range(n_repeats):
        order, rng = _shuffled(measured, seed, repeat)
        first, second = (dense(measured[order[i : i + n_cells]]) for i in (0, n_cells))
        controls = dense(control[rng.choice(control.shape[0], n_cells, replace=False)])
        rows.append({"reference": "floor", "repeat": repeat, **_named(score(second, first))})
        rows.append({"reference": "ceiling", "repeat": repeat, **_named(score(controls, first))})
    return pd.DataFrame(rows)


def sampled_scores(
    predicted: ArrayLike,
    measured: ArrayLike,
    *,
    n_cells: int,
    n_repeats: int = 5,
    seed: int = 0,
    score: Score = distribution_scores,
) -> pd.DataFrame:
    """Scores of predicted against measured cells, on samples as large as those of :func:`floor_and_ceiling`.

    With the same seed, repeat r compares with the same measured cells as repeat r of :func:`floor_and_ceiling`.

    Parameters
    ----------
    predicted
        Predicted cells of a perturbation x genes, sparse or dense.
    measured
        Measured cells x genes.
    n_cells, n_repeats, seed, score
        As in :func:`floor_and_ceiling`.

    Returns
    -------
    pandas.DataFrame
        One row for each repeat, with columns ``repeat`` and one for each score (``"value"`` where `score` gives a
        number).

    Raises
    ------
    ValueError
        If there are fewer than `n_cells` predicted or measured cells, or the genes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> predicted, measured = rng.normal(1, 1, (100, 5)), rng.normal(1, 1, (200, 5))
    >>> rg.metrics.sampled_scores(predicted, measured, n_cells=80, n_repeats=3).columns.tolist()
    ['repeat', 'mk_mmd_200', 'mk_mmd_1000', 'mk_mmd_mean_distance', 'energy_distance']
    """
    predicted, measured = as_samples(predicted, measured)
    check_integer("n_cells", n_cells, 1)
    check_integer("n_repeats", n_repeats, 1)
    fewest = min(predicted.shape[0], measured.shape[0])
    if fewest < n_cells:
        raise ValueError(
            f"Samples of n_cells={n_cells} were asked of {predicted.shape[0]} predicted and {measured.shape[0]} "
            f"measured cells: n_cells can be {fewest} at most."
        )
    rows = []
    for repeat in range(n_repeats):
        order, rng = _shuffled(measured, seed, repeat)
        cells = dense(predicted[rng.choice(predicted.shape[0], n_cells, replace=False)])
        rows.append({"repeat": repeat, **_named(score(cells, dense(measured[order[:n_cells]])))})
    return pd.DataFrame(rows)


def _shuffled(measured: Cells, seed: int, repeat: int) -> tuple[np.ndarray, np.random.Generator]:
    """Order of the measured cells of a repeat, and the generator of its further draws."""
    rng = np.random.default_rng([seed, repeat])
    return rng.permutation(measured.shape[0]), rng


def _named(scores: float | Mapping[str, float]) -> Mapping[str, float]:
    return scores if isinstance(scores, Mapping) else {"value": scores}
