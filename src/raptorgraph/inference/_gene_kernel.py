r"""What is known of genes before the screen: a covariance of single effects from an embedding of the genes.

Single effects on a gene of the transcriptome have the prior covariance, relative to their variance,

.. math::
    K^\ast_{ij} = \mu + \sum_q c_q \exp(-d_q(i, j) / \lambda_q) + [i = j]\, \Big(1 - \mu - \sum_q c_q\Big),

with distances d between the rows of the embedding, Euclidean and of the rows at length 1, each over its median among
the perturbed genes, and five widths :math:`\lambda` of both. :math:`\mu` is what all perturbations have in common, c
what genes have in common that are alike in the embedding, and the rest belongs to a gene alone. The weights are
posterior means over a grid, in which half of the prior probability is that the embedding says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
_N_METRICS = 2
_SHARES = torch.tensor([0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95], dtype=torch.float64)
_COMMON = torch.tensor([0.01, 0.1, 0.5, 2.0], dtype=torch.float64)  # over the variance of what differs
_USELESS = 0.5  # probability, a priori, that the embedding says nothing
_EM_STEPS = 8  # for the weights of levels at each point of the grid
FEWEST = 3  # single effects of genes with a row, fewer of which say nothing of the weights


@dataclass(frozen=True)
class GeneKernel:
    """Covariance of the single effects of genes by their embedding, the variance of one being 1.

    Attributes
    ----------
    embedding
        k x features: rows of the perturbed genes, NaN for those that the embedding does not have.
    scale
        Median distance between perturbed genes in each metric, shape (2,).
    weights
        c, shape (10,): five widths of the Euclidean distance, then of that of directions.
    common
        mu, scalar.
    """

    embedding: torch.Tensor
    scale: torch.Tensor
    weights: torch.Tensor
    common: torch.Tensor

    @property
    def own(self) -> torch.Tensor:
        """Part of the variance that belongs to a gene alone, scalar."""
        return 1 - self.common - self.weights.sum()

    def between(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Covariance of distinct genes by their rows, NaN where a gene has none."""
        both_known = torch.outer(known(first), known(second)).to(first.dtype)
        alike = torch.zeros_like(both_known)
        kernels = _kernels(torch.nan_to_num(first), torch.nan_to_num(second), self.scale)
        for weight, kernel in zip(self.weights, kernels, strict=True):
            alike += weight * kernel
        return self.common + both_known * alike

    def among(self, rows: torch.Tensor) -> torch.Tensor:
        """Covariance matrix of genes by their rows."""
        return self.between(rows, rows).fill_diagonal_(1.0)

    def regression(self, rows: torch.Tensor, given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How other genes follow from the perturbed ones: coefficients A (others x k), and the covariance that is left.

        Given the effects t of the perturbed genes, those of the others have the mean A t. A is 0 but for the genes in
        `given`, a mask of shape (k,).
        """
        explaining = self.embedding[given]
        cross = self.between(rows, explaining)
        found = torch.cholesky_solve(cross.mT, torch.linalg.cholesky(self.among(explaining))).mT
        left = self.among(rows) - found @ cross.mT
        coefficients = found.new_zeros(len(rows), len(self.embedding))
        coefficients[:, given] = found
        return coefficients, 0.5 * (left + left.mT)


def known(rows: torch.Tensor) -> torch.Tensor:
    """Which genes have a row: finite, and not all zero."""
    return torch.isfinite(rows).all(1) & (rows != 0).any(1)


def learn_kernel(
    effect: torch.Tensor, rows: torch.Tensor, noise: torch.Tensor, control_noise: torch.Tensor, embedding: torch.Tensor
) -> GeneKernel:
    """Learn the weights from measured single effects.

    The marginal likelihood is that of independent genes of the transcriptome, each of a level; its logarithm is scaled
    to the number of independent ones (`_effective`), since genes that move together say the same.

    Parameters
    ----------
    effect
        Single effects in units of noise, genes with a row x G.
    rows
        Their rows of the embedding.
    noise, control_noise
        Variance of an effect's own noise, and of the noise that all share, in these units; scalars.
    embedding
        Rows of all perturbed genes, NaN for those without one.
    """
    scale = torch.stack([distance[torch.triu(torch.ones_like(distance), 1) > 0].median().clamp_min(1e-12)
                         for distance in _distances(rows, rows)])  # fmt: skip
    share = _effective(effect) / effect.shape[1]
    shape = (_N_METRICS * len(_WIDTHS), len(_SHARES), len(_COMMON))
    log_posterior = torch.empty(shape, dtype=effect.dtype)
    prior = torch.full_like(_SHARES, (1 - _USELESS) / (len(_SHARES) - 1))
    prior[0] = _USELESS
    for q, kernel in enumerate(_kernels(rows, rows, scale)):
        values, vectors = torch.linalg.eigh(kernel)
        log_posterior[q] = share * _evidence(values.clamp_min(0.0), vectors.mT @ effect, vectors.sum(0), noise,
                                             control_noise)  # fmt: skip
    log_posterior += prior.log()[:, None]
    posterior = torch.softmax(log_posterior.flatten(), 0).view(shape)
    weights = (posterior * _SHARES[:, None] / (1 + _COMMON)).sum((1, 2))
    common = (posterior * _COMMON / (1 + _COMMON)).sum()
    return GeneKernel(embedding, scale, weights, common)


def _evidence(
    values: torch.Tensor, y: torch.Tensor, ones: torch.Tensor, noise: torch.Tensor, control_noise: torch.Tensor
) -> torch.Tensor:
    """Log marginal likelihood over shares and common parts, from effects (and a 1 for each) in the kernel's eigenbasis.

    At a level the covariance is diagonal there, plus a multiple of the matrix of ones: the determinant lemma and the
    Sherman-Morrison formula do the rest.
    """
    found = torch.empty(len(_SHARES), len(_COMMON), dtype=y.dtype)
    log_weights = torch.full((len(LEVELS), 1), 1 / len(LEVELS), dtype=y.dtype).log()
    square = y**2
    for i, share in enumerate(_SHARES):
        for j, common in enumerate(_COMMON):
            level = LEVELS[:, None] / (1 + common)
            diagonal = level * (share * values + 1 - share) + noise  # levels x genes that were perturbed
            shared = level * common + control_noise
            precision = 1 / diagonal
            weight = shared / (1 + shared * (precision @ ones**2)[:, None])
            quadratic = precision @ square - weight * ((precision * ones) @ y) ** 2
            log_det = diagonal.log().sum(1, keepdim=True) + (1 + shared * (precision @ ones**2)[:, None]).log()
            density = -0.5 * (quadratic + log_det)
            for _ in range(_EM_STEPS):
                log_weights = torch.softmax(density + log_weights, 0).mean(1, keepdim=True).clamp_min(1e-12).log()
            found[i, j] = torch.logsumexp(density + log_weights, 0).sum()
    return found


def _effective(effect: torch.Tensor) -> float:
    """Number of independent columns, from the eigenvalues of what differs between rows: (sum)^2 / sum of squares."""
    values = torch.linalg.svdvals(effect - effect.mean(0)) ** 2
    return float(values.sum() ** 2 / (values**2).sum().clamp_min(1e-300))


def _kernels(first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor) -> Iterator[torch.Tensor]:
    """Exponential kernels of both metrics and all widths."""
    for distance, median in zip(_distances(first, second), scale, strict=True):
        for width in _WIDTHS:
            yield torch.exp(-distance / (median * width))


def _distances(first: torch.Tensor, second: torch.Tensor) -> Iterator[torch.Tensor]:
    """Euclidean distances, and those between directions."""
    exact = "donot_use_mm_for_euclid_dist"  # differences of large numbers would make a gene differ from itself
    yield torch.cdist(first, second, compute_mode=exact)
    first, second = (torch.nn.functional.normalize(rows, dim=1, eps=1e-12) for rows in (first, second))
    yield torch.cdist(first, second, compute_mode=exact)
