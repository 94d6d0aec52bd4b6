r"""Correlation between genes of the transcriptome, as a few common factors.

What is not known of one gene is not known of those that move with it. Standard normal variables x of the genes with
loadings L (genes x factors, the squares of a row adding up to less than 1) are

.. math::
    x_g = \sum_f L_{gf} \xi_f + \big(1 - \textstyle\sum_f L_{gf}^2\big)^{1/2} \epsilon_g,

with independent standard normal :math:`\xi` and :math:`\epsilon`: each has variance 1, and two of them the correlation
:math:`\sum_f L_{gf} L_{hf}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse.linalg import svds
from sklearn.utils.extmath import randomized_svd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MOST_FACTORS = 20  # of the noise
_MOST_PROGRAMS = 20  # of the effects
_MANY = 200  # rows and columns from which on a part of the singular vectors is found alone
_LARGEST_SHARE = 0.95  # of a gene's variance that is common


def correlated(loadings: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw standard normal vectors of the genes, n x G, with the correlation that the loadings (G x factors) say."""
    own = (1 - (loadings**2).sum(1)).clamp_min(0.0).sqrt()
    each = standard_normal((n, len(loadings)), generator)
    common = torch.randn(n, loadings.shape[1], generator=generator, dtype=loadings.dtype)
    return each * own + common @ loadings.T


def standard_normal(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Independent standard normal variables, drawn in single precision (several times faster), as float64."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32).double()


def loadings_of_effects(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Loadings of genes that respond alike, G x factors, from effects of single genes and their variances (k x G).

    The effects of each gene are scaled to a mean square of 1 over the perturbations, and count by the share of it that
    is known; their largest principal components are the factors.
    """
    square, unknown = (mean**2).mean(0), variance.mean(0)
    size = (square + unknown).clamp_min(1e-300).sqrt()
    values, vectors = _largest(mean / size)
    return _bounded(vectors[:_MOST_PROGRAMS].T * values[:_MOST_PROGRAMS] / len(mean) ** 0.5)


def _largest(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest singular values, and the right singular vectors as rows."""
    if min(matrix.shape) <= _MANY:
        _, values, vectors = torch.linalg.svd(matrix, full_matrices=False)
        return values, vectors
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    _, size, right = svds(matrix.numpy(), _MOST_PROGRAMS, v0=start)
    order = np.argsort(-size)
    return torch.from_numpy(size[order]), torch.from_numpy(right[order])


def loadings_of_cells(values: NDArray[np.floating], seed: int = 0) -> NDArray[np.float64]:
    """Correlation between genes of the sampling noise of a mean over cells, from the cells.

    Genes that vary together among cells have errors that do so, too. The factors are principal components of the
    standardized genes whose variance exceeds what independent genes would give (the upper edge of Marchenko and
    Pastur), less the variance that these give on average; at most 20.

    Parameters
    ----------
    values
        Cells x G on the expression scale, of one condition: control cells. Subtract the means of batches.
    seed
        Seed of the randomized singular value decomposition.

    Returns
    -------
    Loadings, G x factors, of standard normal variables of the genes: their correlation is ``L @ L.T`` off the diagonal.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> cells = rng.standard_normal((500, 20)) + rng.standard_normal((500, 1)) * (np.arange(20) < 10)
    >>> loadings = rg.inference.loadings_of_cells(cells)
    >>> loadings.shape
    (20, 1)
    >>> bool(abs(loadings[:10]).min() > abs(loadings[10:]).max())
    True
    """
    n, n_genes = values.shape
    most = min(_MOST_FACTORS, n - 1, n_genes)
    if most < 1:
        return np.zeros((n_genes, 0))
    centered = values - values.mean(0)
    scale = centered.std(0)
    standard = np.divide(centered, scale, out=np.zeros_like(centered), where=scale > 0)
    _, size, vectors = randomized_svd(standard, most, random_state=seed)
    found = size**2 > (np.sqrt(n) + np.sqrt(n_genes)) ** 2
    variance = np.maximum(size[found] ** 2 / n - n_genes / n, 0.0)
    loadings = torch.as_tensor(vectors[found].T * np.sqrt(variance), dtype=torch.float64)
    return np.asarray(_bounded(loadings).numpy(), dtype=np.float64)


def _bounded(loadings: torch.Tensor) -> torch.Tensor:
    """Loadings of which none has more than the largest share of a gene's variance."""
    share = (loadings**2).sum(1, keepdim=True)
    return loadings * (share.clamp_max(_LARGEST_SHARE) / share.clamp_min(1e-300)).sqrt()
