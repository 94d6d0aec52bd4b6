"""How many cells a pair needs until its interaction would be called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument
from raptorgraph.screen._setup import Setup
from raptorgraph.tl._interactions import _checked
from raptorgraph.tl._planned import PlannedNoise, correlated_noise, expected_size, triples
from raptorgraph.tl._reverse import check_draws
from raptorgraph.tl._strongest_pairs import DEPARTURE, strongest_of, strongest_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.model import RaptorGraphModel

ENOUGH = 0.8  # power that cells are counted for
_CHUNK = 256  # pairs that are predicted at a time


@progress_argument()
@docs.dedent
def power(
    model: RaptorGraphModel,
    pairs: Sequence[tuple[str, str] | str] | None = None,
    n_cells: Sequence[int] = (25, 50, 100, 200, 400, 800),
    *,
    top: int | None = None,
    size: float = 0.3,
    level: float = 0.9,
    n_draws: int = 200,
    seed: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    r"""How likely is it that an interaction would be called, once a pair is measured with so many cells?

    The interaction is the departure :math:`\delta` of the pair's effect from the sum of both single effects, along
    that sum s and relative to it,

    .. math::
        \delta = \frac{(e_{ab} - e_a - e_b)^\top s}{s^\top s} ,

    -0.3 for a pair that is 30 %% weaker than the sum. It is called if the interval of the measured departure excludes
    0. Its standard error has the noise of the screen: sampling in that many cells, as control cells vary along s; the
    excess between conditions; the residual of a condition, which no number of cells removes; and what the screen leaves
    unknown of the sum (joint draws of both single effects). Formulae are in :doc:`/concepts/inference`.

    Parameters
    ----------
    %(model)s
    pairs
        Pairs of perturbed genes, ``("A", "B")`` or labels such as ``"A+B"``. Default: all pairs that were not measured.
    n_cells
        Numbers of cells of the pair in the planned measurement.
    top
        Ask only for so many pairs, those of the pairs whose predicted effects depart most from the sum of both single
        effects (:func:`raptorgraph.tl.interactions` with `top`). Draws are made of these alone.
    size
        Departure :math:`|\delta|` that one wants to find, above 0.
    level
        Level of the interval that is to exclude 0, above 0 and below 1.
    n_draws
        Draws of the effects, 20 or more.
    %(seed_draws)s
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each pair and number of cells, indexed by the canonical label of the pair, with

        - ``gene_a``, ``gene_b``: the two genes, sorted;
        - ``n_cells``: number of cells;
        - ``power``: probability of a call, if the departure is `size` (mean over both signs);
        - ``call_probability``: probability of a call, over all departures that the posterior expects;
        - ``departure``, ``departure_sd``: mean and standard deviation of :math:`\delta` in the posterior now;
        - ``standard_error``: that of the measured departure;
        - ``size``: as given;
        - ``cells_needed``: cells for a power of 0.8, whatever `n_cells`; infinite where no number suffices, since
          the sum of the two singles is not known well enough;
        - ``singles_measured``: whether both genes were perturbed alone; ``measured``: whether the pair is among the
          training data (cells are then new ones).

    Raises
    ------
    KeyError
        If a gene is not among the perturbed genes of the model.
    TypeError
        If a pair is neither a pair of gene names nor a label, or a number is of the wrong type.
    ValueError
        If there are no pairs, a number is out of its range, or the model has no posterior or no data.

    Notes
    -----
    Departures off the sum (neomorphism) are not looked for. What is known before of how pairs add up is not used for
    the call, so that no interaction is called on account of other pairs.

    Examples
    --------
    >>> table = rg.tl.power(model, ["P01+P02"], n_cells=(50, 200, 800), size=0.5, seed=0)
    >>> table["n_cells"].tolist()
    [50, 200, 800]
    >>> bool(table["power"].is_monotonic_increasing)
    True
    """
    check_number("size", size, 0, above=True)
    if not 0 < check_number("level", level, 0, 1, above=True) < 1:
        raise ValueError(f"level={level} is out of range: use a number above 0 and below 1.")
    check_integer("n_draws", n_draws, 20)
    numbers = list(n_cells) if isinstance(n_cells, Iterable) else [n_cells]
    for number in numbers:
        check_integer("n_cells", number, 1)
    if not numbers:
        raise ValueError("n_cells is empty: give one number of cells or more.")
    check_draws(model)
    planned = PlannedNoise.of(model)
    setup, genes = Setup.of(model.setup_args), list(model.perturbed_genes)
    known = {setup.genes(label) for label in model.conditions}
    asked: list[tuple[str, ...]]
    if top is not None:
        check_integer("top", top, 1, hint=", the number of pairs to ask for")
    if pairs is not None:
        asked = _checked(pairs, genes, setup)
        asked = asked if top is None else strongest_of(model, setup, iter(asked), top, DEPARTURE, _CHUNK)
    elif top is not None:
        n_known = sum(len(pair) == 2 for pair in known)
        first = strongest_pairs(model, setup, genes, top + n_known, DEPARTURE, _CHUNK)
        asked = [pair for pair in first if pair not in known][:top]
    else:
        asked = [pair for pair in combinations(sorted(genes), 2) if pair not in known]
    if not asked:
        raise ValueError(f"There is no pair to ask for among the {len(genes)} perturbed genes: name them, pairs=...")
    now = departures(model, setup, asked, n_draws, seed)
    z = float(ndtri(0.5 + level / 2))
    needed = cells_needed(now, planned, np.full(len(asked), size), z)
    columns = {
        "gene_a": [pair[0] for pair in asked],
        "gene_b": [pair[1] for pair in asked],
        "departure": now.mean,
        "departure_sd": np.sqrt(now.variance),
        "size": size,
        "cells_needed": needed,
        "singles_measured": [all((gene,) in known for gene in pair) for pair in asked],
        "measured": [pair in known for pair in asked],
    }
    parts = []
    for number in numbers:
        error = now.standard_error(planned.at(number))
        found = {
            "n_cells": number,
            "power": beyond(size, error, z * error),
            "call_probability": beyond(now.mean, np.sqrt(now.variance + error**2), z * error),
            "standard_error": error,
        }
        parts.append(pd.DataFrame({**columns, **found}, index=[setup.label(pair) for pair in asked]))
    order = ["gene_a", "gene_b", "n_cells", "power", "call_probability", "departure", "departure_sd"]
    order += ["standard_error", "size", "cells_needed", "singles_measured", "measured"]
    table = pd.concat(parts)[order].rename_axis("perturbation")
    at = np.arange(len(table)).reshape(len(numbers), -1).T.ravel()  # the rows of a pair side by side
    return table.iloc[at]


@dataclass(frozen=True)
class Departures:
    """What is known of the departures of some pairs, along the sum and relative to it; each of shape (pairs,)."""

    mean: np.ndarray
    variance: np.ndarray
    of_sum: np.ndarray  # variance of the sum
    per_noise: np.ndarray  # variance of a measured effect for each unit of the planned noise
    residual: np.ndarray  # variance of the residual that belongs to a condition

    def standard_error(self, noise: float | np.ndarray) -> np.ndarray:
        """Standard error of a departure that is measured with this noise."""
        return np.asarray(np.sqrt(noise * self.per_noise + self.residual + self.of_sum))


def departures(
    model: RaptorGraphModel, setup: Setup, pairs: Sequence[tuple[str, ...]], n_draws: int, seed: int | None
) -> Departures:
    """Moments of the departures of pairs from joint draws of their effects."""
    fitted = model.calibration.posterior.fitted
    noise = fitted.measured.gene_noise.numpy()
    residual = float(fitted.hyperparameters.residual_variance) * expected_size(fitted)
    found = []
    for _, sums, effects in triples(model, setup, pairs, n_draws, seed):
        direction = sums.mean(axis=0)
        direction = direction / np.maximum((direction**2).sum(axis=1), 1e-300)[:, None]
        departure = np.einsum("dpg,pg->dp", effects - sums, direction)
        found.append(
            (
                departure.mean(axis=0),
                departure.var(axis=0, ddof=1),
                np.einsum("dpg,pg->dp", sums, direction).var(axis=0, ddof=1),
                correlated_noise(model, direction) * (direction**2 @ noise),
                direction**2 @ residual,
            )
        )
    return Departures(*(np.concatenate(values) for values in zip(*found, strict=True)))


def cells_needed(known: Departures, planned: PlannedNoise, size: float | np.ndarray, z: float) -> np.ndarray:
    """Smallest number of cells with which departures of these sizes are called with a power of 0.8.

    That of the wrong sign is left out, whose probability is below 1e-4 for intervals of 50 % and more.
    """
    error = size / (z + float(ndtri(ENOUGH)))
    noise = (error**2 - known.of_sum - known.residual) / np.maximum(known.per_noise, 1e-300)
    return planned.cells_at(np.maximum(noise, 0.0))


def beyond(mean: float | np.ndarray, sd: np.ndarray, border: np.ndarray) -> np.ndarray:
    """Probability that a normal variable lies beyond the border on either side of 0."""
    sd = np.maximum(sd, 1e-300)
    return np.asarray(ndtr((mean - border) / sd) + ndtr((-mean - border) / sd))
