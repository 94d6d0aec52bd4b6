r"""How the effects of single genes add up in a combination: its size, and what is not known of it.

A combination P has the effect

.. math::
    e_P = a (1 + \alpha + \beta x_P + \delta_P) \sum_{i \in P} t_i + \dots, \qquad
    \alpha \sim N(0, \sigma_\alpha^2), \quad \beta \sim N(\beta_0, \sigma_\beta^2), \quad
    \delta_P \sim \sigma\, T_5, \quad \log \sigma \sim N(\log \sigma_0, \sigma_\sigma^2),

with the scale a of :mod:`~raptorgraph.inference._prior` and the similarity :math:`x_P` of the effects of its genes:
genes of one pathway, whose effects are proportional, cannot be expected to add up. Measured combinations say what
:math:`\alpha, \beta` and :math:`\sigma` are (a regression of the scale that each of them shows, on a grid of
:math:`\sigma`), and how much their interactions differ in size; where none is measured, all of it is prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.sparse import csr_array

from raptorgraph.inference._prior import is_combination

DEGREES = 5
"""Degrees of freedom of delta."""
_LARGER = 0.1  # SD of the scale for each gene more than two
_NO_INTERACTION = 0.3  # share of combinations that do not interact, a priori
_PRIOR_COUNT = 4.0  # combinations that the prior of the size of interactions is worth
_LOG_SIZE_SD = 1.3  # of the variance of interactions, where no combination is measured


@dataclass(frozen=True)
class OwnVariances:
    """Variances of the P measured combinations."""

    rows: torch.Tensor  # P: positions among the conditions
    interaction: torch.Tensor  # P: gamma_c
    excess: torch.Tensor  # P: kappa_c


@dataclass(frozen=True)
class Additivity:
    """Posterior of the scale of combinations, relative to a, and of the size of their interactions.

    Attributes
    ----------
    single_effects
        k x G: posterior means of the effects of single genes that combinations scale (not of those on targets).
    programs
        G x factors: loadings of genes that respond alike.
    similarity
        k x k: square of the cosine between the effects of two genes, 0 where it is negative and on the diagonal.
    center
        Mean similarity of the combinations that a was learned from, of all pairs where there are none.
    weights, spread, coefficients, covariances
        Posterior of the spread, a grid of R values and their weights, and, given each, mean (R x 2) and covariance
        (R x 2 x 2) of alpha and beta. The mean of alpha is 0: it is in a.
    sizes
        Variance of the interaction of each measured combination of genes that were perturbed alone, sparse interactions
        included, relative to that of a typical one.
    own
        Variances of each measured combination.
    """

    single_effects: torch.Tensor
    programs: torch.Tensor
    similarity: torch.Tensor
    center: torch.Tensor
    weights: torch.Tensor
    spread: torch.Tensor
    coefficients: torch.Tensor
    covariances: torch.Tensor
    sizes: torch.Tensor
    own: OwnVariances

    def deviation(self, design: torch.Tensor) -> torch.Tensor:
        """Similarity x of each set, shape (sets,); 0 for single genes."""
        return is_combination(design) * (mean_similarity(self.similarity, design) - self.center)

    def factor(self, design: torch.Tensor) -> torch.Tensor:
        """Expected scale of each set relative to a, shape (sets,)."""
        return 1 + (self.weights @ self.coefficients[:, 1]) * self.deviation(design)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Covariance of alpha and beta, 2 x 2, and the variance of delta."""
        mean = self.weights @ self.coefficients
        off = self.coefficients - mean
        between = torch.einsum("r,ri,rj->ij", self.weights, off, off)
        covariance = torch.einsum("r,rij->ij", self.weights, self.covariances) + between
        return covariance, self.weights @ self.spread**2

    def draw(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draws of alpha and beta (n x 2), of sigma, and of the variance of interactions over its estimate (n each)."""
        at = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        normal = torch.randn(n, 2, 1, generator=generator, dtype=torch.float64)
        root = torch.linalg.cholesky(self.covariances)[at]
        log_size = torch.randn(n, generator=generator, dtype=torch.float64) * self._log_size_sd
        return self.coefficients[at] + (root @ normal)[..., 0], self.spread[at], log_size.exp()

    def draw_departures(self, n: int, n_genes: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws for one combination of `n_genes` that was not measured: delta / sigma, and the size of its interaction.

        The interaction is as large as that of one of the measured combinations, or as a priori: with a probability of
        0.3 there is none, else its variance is that of a chi-square variable with one degree of freedom.
        """
        normal = torch.randn(n, 2 + DEGREES, generator=generator, dtype=torch.float64)
        chance = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        off = normal[:, 0] * ((DEGREES - 2) / (normal[:, 2:] ** 2).sum(1)).sqrt()
        size = (chance[:, 0] >= _NO_INTERACTION) * normal[:, 1] ** 2 / (1 - _NO_INTERACTION)
        if len(self.sizes):
            measured = self.sizes[(chance[:, 1] * len(self.sizes)).long().clamp_max(len(self.sizes) - 1)]
            size = torch.where(chance[:, 2] < len(self.sizes) / (len(self.sizes) + _PRIOR_COUNT), measured, size)
        return off * max(1, n_genes - 1) ** 0.5, size

    @property
    def mean_size(self) -> float:
        """Expected variance of an interaction that was not measured, relative to its estimate."""
        n = len(self.sizes)
        measured = float(self.sizes.sum()) if n else 0.0
        return (measured + _PRIOR_COUNT) / (n + _PRIOR_COUNT) * math.exp(self._log_size_sd**2 / 2)

    @property
    def _log_size_sd(self) -> float:
        """Each measured combination tells as much of the variance as one normal variable of that variance would."""
        return float((_LOG_SIZE_SD**-2 + len(self.sizes) / 2) ** -0.5)


def larger_sd(design: torch.Tensor) -> torch.Tensor:
    """SD of the scale of sets that are larger than a pair, over that of a pair; shape (sets,)."""
    return _LARGER * (design.sum(1) - 2).clamp_min(0.0)


def mean_similarity(similarity: torch.Tensor, design: torch.Tensor) -> torch.Tensor:
    """Mean over the pairs within each set, shape (sets,); 0 for single genes."""
    found, size = design.new_zeros(len(design)), design.sum(1)
    several = (size > 1).nonzero().squeeze(1)
    sets = csr_array(design[several].numpy())
    sums = torch.from_numpy((sets * (sets @ similarity.numpy())).sum(1))
    found[several] = sums / (size * (size - 1))[several]
    return found
