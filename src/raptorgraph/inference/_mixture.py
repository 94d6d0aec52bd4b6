"""Marginal likelihood of measured effects under a mixture over genes of Gaussian covariances between conditions."""

from __future__ import annotations

import torch

# Variance of a gene's effects over that of their noise: the levels that each gene is a mixture of.
LEVELS = 4.0 ** torch.arange(-4.0, 7.0, dtype=torch.float64)


class GeneMixture:
    r"""Each gene's effects over the conditions are drawn from one of several Gaussians.

    With signal covariances :math:`S_m`, levels :math:`\ell` and noise N, conditions x conditions and in units of the
    gene's noise variance w, the effects y of a gene are

    .. math::
        y / \sqrt{w} \sim \sum_{m, \ell} \pi_{m\ell} N(0, \ell S_m + N).

    One eigendecomposition for each class m serves all of its levels. `signals` are classes x C x C, the (positive
    definite) `noise` C x C, and `log_weights`, the logarithms of :math:`\pi`, classes x levels x genes (or 1).
    """

    def __init__(self, signals: torch.Tensor, noise: torch.Tensor, log_weights: torch.Tensor) -> None:
        self.signals, self.noise, self.log_weights = signals, noise, log_weights
        with torch.no_grad():
            self._factor = torch.linalg.cholesky(noise)
            half = torch.linalg.solve_triangular(self._factor, signals, upper=False)
            white = torch.linalg.solve_triangular(self._factor, half.mT, upper=False)
            values, self._vectors = torch.linalg.eigh(0.5 * (white + white.mT))
            # Variance of each direction at each level, in units of noise: classes x levels x C.
            self._variance = LEVELS[:, None] * values.clamp_min(0.0)[:, None, :] + 1.0

    def _rotated(self, y: torch.Tensor) -> torch.Tensor:
        """Classes x C x genes: y in the eigenbasis of each class, in units of noise."""
        rotated: torch.Tensor = self._vectors.mT @ torch.linalg.solve_triangular(self._factor, y, upper=False)
        return rotated

    @torch.no_grad()
    def log_density(self, y: torch.Tensor, rotated: torch.Tensor | None = None) -> torch.Tensor:
        """Classes x levels x genes, weights included, up to a constant; ``y`` is C x genes, each over its root of w."""
        rotated = self._rotated(y) if rotated is None else rotated
        quadratic = (1 / self._variance) @ rotated**2
        log_det = self._variance.log().sum(2) + 2 * self._factor.diagonal().log().sum()
        density: torch.Tensor = self.log_weights - 0.5 * (quadratic + log_det[:, :, None])
        return density

    def objective(self, y: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return a scalar whose gradient is that of the log marginal likelihood of all genes, and the latter's value.

        The gradient with respect to signals, noise and weights is found in closed form from the probabilities of the
        classes: differentiating through an eigendecomposition would fail where eigenvalues meet.
        """
        with torch.no_grad():
            rotated = self._rotated(y)
            density = self.log_density(y, rotated)
            value = torch.logsumexp(density.flatten(0, 1), 0)
            responsibility = (density - value).exp()
            back = torch.linalg.solve_triangular(self._factor.mT, self._vectors, upper=True)
            by_signal, by_noise = torch.zeros_like(self.signals), torch.zeros_like(self.noise)
            for m, (at, r, inverse) in enumerate(zip(back, responsibility, 1 / self._variance, strict=True)):
                # levels x C x C: what the genes of a level have in excess of their variance, in the eigenbasis
                square = (rotated[m] * r[:, None, :]) @ rotated[m].T * inverse[:, :, None] * inverse[:, None, :]
                part = 0.5 * (square - torch.diag_embed(r.sum(1)[:, None] * inverse))
                by_signal[m] = at @ torch.einsum("l,lij->ij", LEVELS, part) @ at.T
                by_noise += at @ part.sum(0) @ at.T
        surrogate = (by_signal * self.signals).sum() + (by_noise * self.noise).sum()
        return surrogate + (responsibility * self.log_weights).sum(), float(value.sum())
