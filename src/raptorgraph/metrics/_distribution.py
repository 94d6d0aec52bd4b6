"""Distances between two samples of cells: MK-MMD, energy distance, and the ratio of variances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.metrics._samples import Cells, as_samples, dense

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]  # sum over a matrix of squared distances

Bandwidth = float | Literal["mean-distance"]

_EQUAL = 1e-13  # squared distances below this part of the squared norms are rounding errors of equal cells


@docs.dedent
def mk_mmd(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidth: Bandwidth = 200.0,
    n_kernels: int = 10,
    factor: float = 2.0,
    biased: bool = False,
    chunk_size: int = 512,
) -> float:
    r"""Multi-kernel squared maximum mean discrepancy of two samples (RAPTORGraph paper, Eq. S9 and Eq. S10).

    .. math::
        k(x, y) = \sum_{l=0}^{L-1} \exp(-\lVert x - y \rVert^2 / b_l), \qquad b_l = b f^{\,l - \lfloor L/2 \rfloor}

    .. math::
        \frac{\sum_{i \neq j} k(x_i, x_j)}{n(n-1)} + \frac{\sum_{i \neq j} k(y_i, y_j)}{m(m-1)}
        - \frac{2}{nm} \sum_{i,j} k(x_i, y_j)

    The kernels are summed, so that values lie below 2 L. This estimator is unbiased: its expectation is 0 for samples
    of one distribution, and it is then as often negative as positive.

    Parameters
    ----------
    %(cells_pair)s
    bandwidth
        The bandwidth b in squared units of the data: 200 in SENA and RAPTORGraph, 1000 in Discrepancy-VAE. With
        ``"mean-distance"`` the sum of the squared distances of all ordered pairs of the N pooled cells, divided by
        N^2 - N.
    n_kernels
        Number of kernels, L.
    factor
        Ratio f of successive bandwidths, above 1.
    biased
        Whether to include the pairs of a cell with itself and divide by n^2 and m^2: the V-statistic that
        Discrepancy-VAE and SENA report. It is never negative, and its value for samples of one distribution grows as
        1/n + 1/m.
    chunk_size
        Number of cells whose distances to all others are held at a time.

    Returns
    -------
    float
        Squared discrepancy.

    %(wrong_cells)s

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b, c = rng.normal(0, 1, (100, 5)), rng.normal(0, 1, (100, 5)), rng.normal(2, 1, (100, 5))
    >>> abs(rg.metrics.mk_mmd(a, b)) < 0.05 < rg.metrics.mk_mmd(a, c)
    True
    """
    return distribution_scores(
        x,
        y,
        bandwidths=(bandwidth,),
        n_kernels=n_kernels,
        factor=factor,
        energy=False,
        biased=biased,
        chunk_size=chunk_size,
    )[_name(bandwidth)]


@docs.dedent
def energy_distance(x: ArrayLike, y: ArrayLike, *, biased: bool = False, chunk_size: int = 512) -> float:
    r"""Energy distance of two samples (Székely and Rizzo, 2013).

    .. math::
        2\, \mathrm{E} \lVert x - y \rVert - \mathrm{E} \lVert x - x' \rVert - \mathrm{E} \lVert y - y' \rVert

    with the Euclidean norm. The E-distance of scPerturb and pertpy has the same form with *squared* Euclidean
    distances by default, which sees differences of the means alone; :func:`scipy.stats.energy_distance` is the root of
    the biased estimate for one gene.

    Parameters
    ----------
    %(cells_pair)s
    biased
        Whether to average over all pairs, those of a cell with itself included (the V-statistic, never negative),
        instead of over different cells (unbiased).
    chunk_size
        Number of cells whose distances to all others are held at a time.

    Returns
    -------
    float
        Distance in units of the data.

    %(wrong_cells)s

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b, c = rng.normal(0, 1, (100, 5)), rng.normal(0, 1, (100, 5)), rng.normal(2, 1, (100, 5))
    >>> abs(rg.metrics.energy_distance(a, b)) < 0.1 < rg.metrics.energy_distance(a, c)
    True
    >>> rg.metrics.energy_distance([[0.0]], [[3.0]], biased=True)  # 2 |x - y| for one cell each
    6.0
    """
    return distribution_scores(x, y, bandwidths=(), biased=biased, chunk_size=chunk_size)["energy_distance"]


@docs.dedent
def distribution_scores(
    x: ArrayLike,
    y: ArrayLike,
    *,
    bandwidths: Sequence[Bandwidth] = (200.0, 1000.0, "mean-distance"),
    n_kernels: int = 10,
    factor: float = 2.0,
    energy: bool = True,
    biased: bool = False,
    chunk_size: int = 512,
) -> dict[str, float]:
    """MK-MMD for several bandwidths and the energy distance, from one pass over the distances.

    Parameters
    ----------
    %(cells_pair)s
    bandwidths
        Bandwidths of :func:`mk_mmd`.
    n_kernels, factor, biased, chunk_size
        As in :func:`mk_mmd`.
    energy
        Whether to compute :func:`energy_distance` too.

    Returns
    -------
    dict
        ``mk_mmd_200``, ``mk_mmd_1000``, ``mk_mmd_mean_distance`` (one name for each bandwidth) and
        ``energy_distance``.

    %(wrong_cells)s

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b, c = rng.normal(0, 1, (100, 5)), rng.normal(0, 1, (100, 5)), rng.normal(2, 1, (100, 5))
    >>> scores = rg.metrics.distribution_scores(a, c)
    >>> list(scores)
    ['mk_mmd_200', 'mk_mmd_1000', 'mk_mmd_mean_distance', 'energy_distance']
    """
    check_integer("n_kernels", n_kernels, 1)
    check_integer("chunk_size", chunk_size, 1)
    check_number("factor", factor, 1, above=True)
    x, y = _centered(x, y, least=1 if biased else 2)
    statistics: dict[str, Statistic] = {}
    at_zero = []  # value of each statistic for a cell and itself
    for bandwidth in bandwidths:
        largest = _base(bandwidth, x, y) * float(factor) ** (n_kernels - 1 - n_kernels // 2)
        statistics[_name(bandwidth)] = _kernel_sum(largest, n_kernels, factor)
        at_zero.append(n_kernels)
    if energy:
        # minus the distance, so that it combines as a kernel does
        statistics["energy_distance"] = lambda distance: -float(np.sqrt(distance).sum())
        at_zero.append(0)
    parts = [_pair_means(a, np.array(at_zero), statistics.values(), biased, chunk_size) for a in (x, y)]
    cross = _cross_sum(x, y, statistics.values(), chunk_size) / (len(x) * len(y))
    return {name: float(value) for name, value in zip(statistics, parts[0] + parts[1] - 2 * cross, strict=True)}


def variance_ratio(predicted: ArrayLike, measured: ArrayLike, *, per_gene: bool = False) -> float | np.ndarray:
    r"""Variance of predicted cells as a part of that of measured cells.

    .. math::
        r_g = \hat s_g^2 / s_g^2

    with unbiased variances over cells for each gene g, then the median over genes. It is 1 for a prediction as diverse
    as the cells and 0 for one collapsed to its mean.

    Parameters
    ----------
    predicted, measured
        Cells x genes, sparse or dense, with the same genes; at least two cells each.
    per_gene
        Whether to return the ratio of every gene.

    Returns
    -------
    float or numpy.ndarray
        Median over genes with measured variance; with ``per_gene`` shape (n_genes,). NaN where no variance is
        measured.

    Raises
    ------
    ValueError
        If the genes differ, values are not finite, or there are fewer than two cells.

    Examples
    --------
    >>> cells = np.random.default_rng(0).normal(size=(100, 5))
    >>> rg.metrics.variance_ratio(np.tile(cells.mean(axis=0), (100, 1)), cells)  # collapsed to the mean
    0.0
    >>> round(rg.metrics.variance_ratio(2 * cells, cells), 6)
    4.0
    """
    predicted, measured = as_samples(predicted, measured, least=2)
    top, bottom = _variance(predicted), _variance(measured)
    ratio: Floats = np.divide(top, bottom, out=np.full(len(bottom), np.nan), where=bottom > 0)
    if per_gene:
        return ratio
    return float(np.median(ratio[bottom > 0])) if (bottom > 0).any() else float("nan")


def _centered(x: ArrayLike, y: ArrayLike, least: int) -> list[Floats]:
    """Both samples minus their common mean: far from the origin a distance is a small difference of large norms."""
    samples = [np.array(dense(sample)) for sample in as_samples(x, y, least=least)]
    center = sum(sample.sum(axis=0) for sample in samples) / sum(map(len, samples))
    for sample in samples:
        sample -= center
    return samples


def _base(bandwidth: Bandwidth, x: Floats, y: Floats) -> float:
    if isinstance(bandwidth, str):
        if bandwidth != "mean-distance":
            raise ValueError(f"bandwidth must be a number or 'mean-distance', got {bandwidth!r}.")
        # about the mean of N cells: sum over ordered pairs of |a - b|^2 = 2 N sum |a|^2
        bandwidth = 2 * float(np.einsum("ij,ij", x, x) + np.einsum("ij,ij", y, y)) / (len(x) + len(y) - 1)
        if bandwidth <= 0:
            raise ValueError("All cells are equal: the mean distance is no bandwidth, give a positive number.")
    return check_number("bandwidth", bandwidth, 0, above=True)


def _name(bandwidth: Bandwidth) -> str:
    return "mk_mmd_" + (bandwidth.replace("-", "_") if isinstance(bandwidth, str) else f"{bandwidth:g}")


def _kernel_sum(largest: float, n_kernels: int, factor: float) -> Statistic:
    def kernel_sum(distance: Floats) -> float:
        kernel = distance * (-1.0 / largest)
        np.exp(kernel, out=kernel)
        total = float(kernel.sum())
        for _ in range(n_kernels - 1):
            kernel **= factor  # the next smaller bandwidth
            total += float(kernel.sum())
        return total

    return kernel_sum


def _pair_means(
    a: Floats, at_zero: NDArray[np.int64], statistics: Collection[Statistic], biased: bool, chunk_size: int
) -> Floats:
    """Mean of each statistic over pairs of cells of one sample: pairs of different cells, or all if `biased`."""
    n, norms, total = len(a), _squared_norms(a), np.zeros(len(statistics))
    for start in range(0, n, chunk_size):
        rows = slice(start, start + chunk_size)
        distance = _squared_distances(a[rows], a[start:], norms[rows], norms[start:])
        np.fill_diagonal(distance, 0.0)
        square, rest = np.split(distance, [len(distance)], axis=1)  # the rest stands for its mirror image too
        total += [f(square) + 2 * f(rest) for f in statistics]
    return total / n**2 if biased else (total - n * at_zero) / (n * (n - 1))


def _cross_sum(a: Floats, b: Floats, statistics: Collection[Statistic], chunk_size: int) -> Floats:
    """Sum of each statistic over pairs of a cell of `a` and a cell of `b`."""
    norms_a, norms_b = _squared_norms(a), _squared_norms(b)
    total = np.zeros(len(statistics))
    for start in range(0, len(a), chunk_size):
        rows = slice(start, start + chunk_size)
        distance = _squared_distances(a[rows], b, norms_a[rows], norms_b)
        total += [f(distance) for f in statistics]
    return total


def _squared_norms(a: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, a))


def _squared_distances(a: Floats, b: Floats, norms_a: Floats, norms_b: Floats) -> Floats:
    """Squared Euclidean distances of the rows of `a` and `b` by their Gram matrix."""
    scale = norms_a[:, None] + norms_b
    distance = a @ b.T
    distance *= -2.0
    distance += scale
    scale *= _EQUAL
    distance[distance < scale] = 0.0
    return distance


def _variance(x: Cells) -> Floats:
    """Unbiased variance of each gene, exactly 0 where it is constant."""
    n = x.shape[0]
    mean = np.asarray(x.mean(axis=0, dtype=np.float64)).ravel()
    if isinstance(x, np.ndarray):
        squares = ((x - mean) ** 2).sum(axis=0)
    else:
        x = x.tocsc()
        x.sum_duplicates()  # a value that is stored in parts has one square
        stored = np.diff(x.indptr)
        genes = np.repeat(np.arange(x.shape[1]), stored)
        squares = np.bincount(genes, (x.data - mean[genes]) ** 2, minlength=x.shape[1]) + (n - stored) * mean**2
    variance: Floats = squares / (n - 1)
    variance[np.sqrt(variance) <= 1e-12 * np.abs(mean)] = 0.0  # rounding of the mean
    return variance
