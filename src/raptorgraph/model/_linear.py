"""A linear Gaussian model of cells around known effects: factor analysis in which some of the loadings are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from raptorgraph._order import places

STRENGTHS = (2.0, 3.0, 4.0, 6.0)
_N_STEPS = 10
_LEAST_NOISE = 0.3  # of the variance that a gene was standardized to
_N_CHOOSING = 1500  # cells that the strength is chosen on, at least


@dataclass(frozen=True)
class LinearModel:
    """Loadings of the latents on standardized genes (d x genes), and variance of the noise of each gene.

    Latents are standard normal within a condition; a perturbation shifts its own latents by `strength`.
    """

    strength: float
    loading: np.ndarray
    noise: np.ndarray
    log_likelihood: float

    @property
    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the posterior mean of the latents given expression, d x genes, and their posterior variances."""
        scaled = self.loading / self.noise
        covariance = np.linalg.inv(np.eye(len(scaled)) + scaled @ self.loading.T)
        return covariance @ scaled, np.diag(covariance)


def fit_linear(
    residual: np.ndarray,
    effects: np.ndarray,
    n_background: int,
    strength: float | None,
    seed: int,
    gene_order: np.ndarray | None = None,
) -> LinearModel:
    """Fit background latents and noise to cells, given the effects, and choose the strength of the perturbations.

    The own latent of a perturbed gene has its effect over the strength as loadings, so that the mean effects stay what
    they are; those of the background latents and the noise are found by expectation and maximization (Rubin and Thayer
    1982), from the principal components on. The likelihood chooses the strength: the smaller it is, the more do cells
    vary along the effects without a perturbation.

    Parameters
    ----------
    residual
        Standardized expression of cells minus the mean of their condition, cells x genes; products over cells are taken
        in its precision.
    effects
        Effects of the perturbed genes on standardized expression, k x genes.
    n_background
        Number of background latents.
    strength
        Shift of an own latent; None to choose it among 2, 3, 4 and 6, on evenly spaced cells, 1,500 or up to twice as
        many.
    seed
        Seed of the principal components.
    gene_order
        Genes in the order in which they get their random numbers; by default their own.
    """
    start = _components(residual, n_background, seed, gene_order)
    if strength is None:
        some = residual[:: max(1, len(residual) // _N_CHOOSING)]
        tried = (_fit(some, effects / c, start, c) for c in STRENGTHS)
        strength = max(tried, key=lambda model: model.log_likelihood).strength
    return _fit(residual, effects / strength, start, strength)


def _components(residual: np.ndarray, n: int, seed: int, gene_order: np.ndarray | None) -> np.ndarray:
    if gene_order is not None:
        residual = np.take(residual, gene_order, axis=1)
    loading = np.random.default_rng((seed, 8)).normal(0, 0.01, (n, residual.shape[1]))
    found = min(n, min(residual.shape) - 1)
    if found > 0 and residual.any():  # cells that are all the same have no components
        pca = PCA(found, svd_solver="randomized", random_state=seed).fit(residual)
        loading[:found] = np.sqrt(0.5 * pca.explained_variance_)[:, None] * pca.components_
    return loading if gene_order is None else loading[:, places(gene_order)]


def _fit(residual: np.ndarray, own: np.ndarray, background: np.ndarray, strength: float) -> LinearModel:
    n, k, d = len(residual), len(own), len(own) + len(background)
    variance = residual.var(0, dtype=np.float64)
    loading = np.concatenate([own, background]).astype(np.float64)
    noise = np.maximum(variance - (loading**2).sum(0), _LEAST_NOISE)
    for _ in range(_N_STEPS):
        scaled = loading / noise
        covariance = np.linalg.inv(np.eye(d) + scaled @ loading.T)
        z = residual @ (covariance @ scaled).T.astype(residual.dtype)
        second = (z.T @ z / n).astype(np.float64) + covariance
        cross = (z.T @ residual / n).astype(np.float64)
        if d > k:
            loading[k:] = np.linalg.solve(second[k:, k:], cross[k:] - second[k:, :k] @ own)
        explained = 2 * (loading * cross).sum(0) - ((second @ loading) * loading).sum(0)
        noise = np.maximum(variance - explained, _LEAST_NOISE)
    scaled = loading / noise
    precision = np.eye(d) + scaled @ loading.T
    projected = (residual @ scaled.T.astype(residual.dtype)).astype(np.float64)
    squares = n * (np.einsum("cg,cg->g", residual, residual, dtype=np.float64) / n / noise).sum()
    squares -= (projected * np.linalg.solve(precision, projected.T).T).sum()
    log_likelihood = -0.5 * (squares / n + np.log(noise).sum() + np.linalg.slogdet(precision)[1])
    return LinearModel(strength, loading, noise, float(log_likelihood))
