"""Error of reconstructed control cells: as published, and against each cell itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from raptorgraph._arguments import check_integer
from raptorgraph.metrics._samples import Cells, as_samples, dense

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


_CHUNK = 1024  # cells made dense at a time


class SameCellError(NamedTuple):
    """Squared error `mse`, `variance` of the cells, and the fraction `explained` of it, all means over genes.

    Examples
    --------
    >>> error = rg.metrics.same_cell_mse([[1.0], [3.0]], [[0.0], [4.0]])
    >>> error.mse, error.variance, error.explained
    (1.0, 4.0, 0.75)
    """

    mse: float
    variance: float
    explained: float


def control_mse(reconstructed: ArrayLike, x: ArrayLike, *, batch_size: int = 256, seed: int = 0) -> float:
    r"""Error of reconstructed control cells against *other* control cells (RAPTORGraph paper, section D.1, Eq. S6).

    The cells are split at random in two halves. Batches of reconstructions of the first are compared, row by row, with
    batches of the second; the result is the mean over batches of

    .. math::
        \frac{1}{i n} \sum_{i,j} (x_{ij} - \hat x_{ij})^2

    The two cells of a row have nothing in common but their distribution, so this number rewards collapse: with the
    variance V of the cells (mean over genes), the mean in place of every cell has an expected error of V, and a
    perfect copy of every cell one of 2 V. Read it beside :func:`same_cell_mse`.

    Parameters
    ----------
    reconstructed
        Reconstruction of every control cell, cells x genes.
    x
        Control cells x genes, sparse or dense; with an odd number one cell, drawn at random, is left out.
    batch_size
        Cells in a batch. The last batch may be smaller and counts as much as the others.
    seed
        Seed of the split.

    Returns
    -------
    float
        Mean squared error, in squared units of the data.

    Raises
    ------
    ValueError
        If there are fewer than two cells, the shapes differ, values are not finite, or `batch_size` is not positive.

    Examples
    --------
    The mean of all cells scores better than a perfect copy of each cell.

    >>> cells = np.random.default_rng(0).normal(size=(400, 4))
    >>> mean = np.tile(cells.mean(axis=0), (400, 1))
    >>> rg.metrics.control_mse(mean, cells) < rg.metrics.control_mse(cells, cells)
    True
    """
    reconstructed, x = _pair(reconstructed, x, least=2)
    check_integer("batch_size", batch_size, 1)
    half = x.shape[0] // 2
    order = np.random.default_rng(seed).permutation(x.shape[0])
    inputs, truth = order[:half], order[half : 2 * half]
    errors = []
    for start in range(0, half, batch_size):
        batch = slice(start, start + batch_size)
        difference = dense(reconstructed[inputs[batch]]) - dense(x[truth[batch]])
        errors.append(np.mean(difference**2))
    return float(np.mean(errors))


def same_cell_mse(reconstructed: ArrayLike, x: ArrayLike) -> SameCellError:
    r"""Error of every reconstructed cell against that cell itself, and the fraction of variance it explains.

    .. math::
        \mathrm{MSE} = \frac{1}{N n} \sum_{i,j} (x_{ij} - \hat x_{ij})^2, \qquad
        V = \frac{1}{N n} \sum_{i,j} (x_{ij} - \bar x_j)^2, \qquad \mathrm{explained} = 1 - \mathrm{MSE} / V

    This number does not reward collapse: the mean in place of every cell has an error of V and explains 0, a perfect
    copy has an error of 0 and explains 1.

    Parameters
    ----------
    reconstructed
        Reconstruction of every cell, cells x genes.
    x
        Cells x genes, sparse or dense.

    Returns
    -------
    SameCellError
        ``mse`` and ``variance`` in squared units of the data, and ``explained``, 1 at most and negative where the mean
        would be nearer; NaN where the cells do not vary.

    Raises
    ------
    ValueError
        If there are no cells, the shapes differ, or values are not finite.

    Examples
    --------
    >>> cells = np.random.default_rng(0).normal(size=(200, 4))
    >>> rg.metrics.same_cell_mse(cells, cells).explained
    1.0
    >>> mean = np.tile(cells.mean(axis=0), (200, 1))
    >>> abs(round(rg.metrics.same_cell_mse(mean, cells).explained, 6))  # the mean explains nothing
    0.0
    """
    reconstructed, x = _pair(reconstructed, x, least=1)
    mean = np.asarray(x.mean(axis=0, dtype=np.float64)).ravel()
    error = spread = 0.0
    for start in range(0, x.shape[0], _CHUNK):
        cells = dense(x[start : start + _CHUNK])
        error += float(((dense(reconstructed[start : start + _CHUNK]) - cells) ** 2).sum())
        spread += float(((cells - mean) ** 2).sum())
    size = x.shape[0] * x.shape[1]
    return SameCellError(error / size, spread / size, 1 - error / spread if spread > 0 else float("nan"))


def _pair(reconstructed: ArrayLike, x: ArrayLike, *, least: int) -> list[Cells]:
    given, cells = as_samples(reconstructed, x, least=least)
    if given.shape != cells.shape:
        raise ValueError(f"Reconstructions have shape {given.shape}, the cells {cells.shape}: give one of each.")
    return [given, cells]
