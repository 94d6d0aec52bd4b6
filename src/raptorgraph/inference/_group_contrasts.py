r"""Contrasts between the groups of one perturbation: what they say of its scales and of each gene's effects.

Given the scales a of the groups and the variance t of the remainder, the effects y of a gene in S groups are

.. math:: y_s = \kappa + a_s \mu + \epsilon_s + \text{error}, \qquad \operatorname{Var} = t + v_s = 1 / W_s,

with a free constant :math:`\kappa`, which leaves the contrasts. With means weighted by W, :math:`J = \sum W (a - \bar
a)^2` is what they say of :math:`\mu`, and it all has closed forms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# t over the variance among cells. The last is no remainder either, but has errors with tails, as few cells have them.
LEVELS = np.array([0.0, 4.0**-4, 4.0**-3, 4.0**-2, 4.0**-1, 1.0, 4.0, 0.0])
_TAIL = 10.0  # cells; the variance of errors with tails is larger by this number over that of the cells
SCALES = np.array([0.0, 4.0**-2, 1.0, 4.0**2])  # variances of the scales
_N_DRAWS = 400
_INTERVAL = (0.05, 0.95)


@dataclass(frozen=True)
class ScaleEvidence:
    """What contrasts say of the deviations b of the scales from 1: precision (S x S) and its product with them."""

    precision: Array
    data: Array


@dataclass(frozen=True)
class ScalePosterior:
    """Deviations of the scales from 1 with mean 0 over the cells; by prior variance, and together."""

    probability: Array  # of each prior variance
    means: Array  # prior variances x S
    covariances: Array  # prior variances x S x S

    @property
    def mean(self) -> Array:
        """Shape (S,)."""
        found: Array = self.probability @ self.means
        return found

    @property
    def covariance(self) -> Array:
        """S x S."""
        second = self.covariances + self.means[:, :, None] * self.means[:, None]
        found: Array = np.einsum("k,kst->st", self.probability, second) - np.outer(self.mean, self.mean)
        return found

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Draws x S."""
        chosen = rng.choice(len(self.probability), n, p=self.probability)
        out = self.means[chosen]
        for k in np.unique(chosen):
            at = chosen == k
            value, vector = np.linalg.eigh(self.covariances[k])
            normal = rng.standard_normal((int(at.sum()), out.shape[1]))
            out[at] += normal * np.sqrt(np.maximum(value, 0.0)) @ vector.T
        return out


def scale_posterior(evidence: ScaleEvidence, weights: Array, shares: Array) -> ScalePosterior:
    """Posterior of the scales under a prior of normals with the variances ``SCALES`` and these weights."""
    size = len(shares)
    center = np.eye(size) - np.outer(np.ones(size), shares)
    logs, means, covariances = [], [], []
    for variance in SCALES:
        # covariance (I + variance * precision)^-1 variance, which is defined for a variance of 0, too
        inner = np.eye(size) + variance * evidence.precision
        covariance = np.linalg.solve(inner, variance * np.eye(size))
        mean = covariance @ evidence.data
        logs.append(0.5 * (evidence.data @ mean - np.linalg.slogdet(inner)[1]))
        means.append(center @ mean)
        covariances.append(center @ covariance @ center.T)
    density = np.array(logs) + np.log(weights)
    probability = np.exp(density - density.max())
    return ScalePosterior(probability / probability.sum(), np.array(means), np.array(covariances))


@dataclass(frozen=True)
class GeneMoments:
    """Effects by group given the scales, S x G: mean, variance, and variance without that of the common effect.

    `common` and `common_variance`, shape (G,), are those of the common effect given the contrasts too; `remainder` and
    `remainder_variance`, S x G, those of what the scale does not explain.
    """

    mean: Array
    variance: Array
    deviation_variance: Array
    common: Array
    common_variance: Array
    remainder: Array
    remainder_variance: Array

    def dependence(
        self, scales: ScalePosterior, network: Array, shares: Array, rng: np.random.Generator
    ) -> tuple[float, float, float]:
        """Share of the squared length of the effects that differs between groups: median and 90 % interval.

        `network`, S x G, is what the network adds.
        """
        b = scales.draw(_N_DRAWS, rng)
        length = (self.common**2 + self.common_variance).sum()
        rest = self.remainder + network
        cross, own = rest @ self.common, (rest**2 + self.remainder_variance).sum(axis=1)
        square = b**2 @ (shares * length) + 2 * b @ (shares * cross) + shares @ own
        # spread of the remainder's part about its expectation
        spread = 2 * (self.remainder_variance**2).sum(axis=1) @ shares**2
        square = np.maximum(square + np.sqrt(spread) * rng.standard_normal(_N_DRAWS), 0.0)
        drawn = square / np.maximum(square + length, 1e-300)
        low, high = np.quantile(drawn, _INTERVAL)
        return float(np.median(drawn)), float(low), float(high)


class Contrasts:
    """Contrasts of one perturbation, S groups x G genes.

    Parameters
    ----------
    effect, variance
        S x G: measured effects, and their variance, infinite where there are no cells.
    center, spread
        Shape (G,): mean and variance of the common effect.
    scale
        Shape (S,): scales a.
    gene_variance
        Shape (G,): variance among cells, which the levels multiply.
    n_cells
        Shape (S,): perturbed cells.
    """

    def __init__(
        self,
        effect: Array,
        variance: Array,
        center: Array,
        spread: Array,
        scale: Array,
        gene_variance: Array,
        n_cells: Array,
    ) -> None:
        self.seen = n_cells > 0
        self.effect = np.where(self.seen[:, None], effect, 0.0)
        self.center, self.spread, self.scale = center, spread, scale
        self.remainder = LEVELS[:, None] * gene_variance
        tails = np.ones((len(LEVELS), len(n_cells), 1))
        tails[-1, :, 0] += _TAIL / np.maximum(n_cells, 1)
        self.variance = tails * variance  # L x S x G
        a = scale[:, None]
        self.weight = 1.0 / (self.remainder[:, None] + self.variance)
        self.total = np.maximum(self.weight.sum(axis=1), 1e-300)
        self.along = self.weight * (a - self._mean(a)[:, None])  # W (a - mean)
        self.information = (self.along * a).sum(axis=1)  # J
        rest = self.effect - a * center
        self.score = (self.along * rest).sum(axis=1)
        self.shrunk = 1.0 + spread * self.information
        self._squares = (self.weight * (rest - self._mean(rest)[:, None]) ** 2).sum(axis=1)

    def _mean(self, values: Array) -> Array:
        """Weighted mean over groups of S x G values, levels x G."""
        found: Array = (self.weight * values).sum(axis=1) / self.total
        return found

    def log_density(self) -> Array:
        """L x G, up to a constant."""
        determinant = np.log(self.total) - np.log(self.weight[:, self.seen]).sum(axis=1) + np.log(self.shrunk)
        square = self._squares - self.spread * self.score**2 / self.shrunk
        found: Array = -0.5 * (determinant + square)
        return found

    def responsibility(self, log_weights: Array) -> Array:
        """L x G: probability of each level."""
        density = self.log_density() + log_weights
        density = np.exp(density - density.max(axis=0))
        found: Array = density / density.sum(axis=0)
        return found

    def _projected(self, values: Array) -> Array:
        """Precision of the contrasts times S x G values, L x S x G."""
        along = (self.along * values).sum(axis=1)
        found: Array = self.weight * (values - self._mean(values)[:, None])
        found -= self.along * (self.spread * along / self.shrunk)[:, None]
        return found

    def slope(self, direction: Array, probability: Array) -> tuple[float, float]:
        """Score and information of a coefficient of S x G values beyond the scales, as for the scales."""
        rest = self.effect - self.scale[:, None] * self.center
        projected = np.einsum("lg,lsg->sg", probability, self._projected(direction))
        return float((projected * rest).sum()), float((projected * direction).sum())

    def scale_evidence(self, probability: Array, inflation: float) -> ScaleEvidence:
        """What all genes say of b = a - 1 together, from a regression of their contrasts on the common effect.

        Genes are weighted by their levels' `probability` (L x G) a priori: given the contrasts, a gene that is moved
        would seem to have a remainder, and not count. Errors of genes that vary together have an `inflation` times
        larger variance along the common effect than independent ones; remainders are independent.
        """
        data = np.einsum("lg,lsg,g->s", probability, self._projected(self.effect), self.center)
        square = self.center**2
        by = probability * square
        weight = np.einsum("lg,lsg->sg", probability, self.weight)
        precision = np.diag(weight @ square)
        independent = precision.trace()
        error = np.einsum("lg,lsg->sg", probability, np.where(self.seen[:, None], self.variance, 0.0))
        inflated = (weight**2 * (inflation * error + (probability * self.remainder).sum(axis=0)) @ square).sum()
        precision -= np.einsum("lg,lsg,ltg->st", by / self.total, self.weight, self.weight)
        precision -= np.einsum("lg,lsg,ltg->st", by * self.spread / self.shrunk, self.along, self.along)
        factor = independent / inflated if inflated > 0 else 1.0
        return ScaleEvidence(factor * precision, factor * data)

    def moments(self, responsibility: Array, shares: Array) -> GeneMoments:
        """Posterior of the effects, in which the mean over cells of the remainder is 0."""
        a, q, r = self.scale[:, None], shares[:, None], responsibility

        def centered(values: Array) -> Array:
            found: Array = values - (q * values).sum(axis=-2, keepdims=True)
            return found

        common = self.center + self.spread * self.score / self.shrunk  # L x G
        common_variance = self.spread / self.shrunk
        kept = self.remainder[:, None] * self.weight  # t / (t + v)
        rest = self.effect - a * common[:, None]
        remainder = centered(kept * (rest - self._rest_mean(rest)[:, None]))
        t = np.broadcast_to(self.remainder[:, None], kept.shape)
        left = np.where(self.seen[:, None], kept * np.where(self.seen[:, None], self.variance, 0.0), t)
        own = left * (1 - 2 * q) + (q**2 * left).sum(axis=1, keepdims=True)
        own = own + centered(kept) ** 2 / self.total[:, None]
        slope = a - centered(kept * (a - self._mean(a)[:, None]))
        mean = a * common[:, None] + remainder
        expected = np.einsum("lg,lsg->sg", r, mean)
        between = np.einsum("lg,lsg->sg", r, (mean - expected) ** 2)
        by_common = slope**2 * common_variance[:, None]
        own = np.einsum("lg,lsg->sg", r, own)
        expected_remainder = np.einsum("lg,lsg->sg", r, remainder)
        spread_remainder = np.einsum("lg,lsg->sg", r, (remainder - expected_remainder) ** 2)
        return GeneMoments(
            mean=expected,
            variance=between + own + np.einsum("lg,lsg->sg", r, by_common),
            deviation_variance=own + spread_remainder,
            common=(r * common).sum(axis=0),
            common_variance=(r * common_variance).sum(axis=0),
            remainder=expected_remainder,
            remainder_variance=own + spread_remainder,
        )

    def _rest_mean(self, values: Array) -> Array:
        """Weighted mean over groups of L x S x G values."""
        found: Array = (self.weight * values).sum(axis=1) / self.total
        return found
