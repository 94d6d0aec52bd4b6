"""Starting values from the control cells, so that training does not spend its time on finding the means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.decomposition import PCA

from raptorgraph._progress import progress_line
from raptorgraph.nn._expectation import COARSE
from raptorgraph.nn._likelihood_base import ControlStatistics
from raptorgraph.nn._likelihoods import Normal
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._moments import condition_moments, moments_of

if TYPE_CHECKING:
    from raptorgraph.model._manager import ScreenManager
    from raptorgraph.model._module import RaptorGraphModule
    from raptorgraph.screen import Sums


@progress_line("Reading control cells")
def initialize(module: RaptorGraphModule, adata_manager: ScreenManager) -> None:
    """Set the encoder's center and spread, the decoder's base and the genes' scale from control cells."""
    screen = adata_manager.screen
    (X, library), control = screen.source, np.flatnonzero(screen.codes == 0)
    codes = np.zeros(X.shape[0], dtype=np.int64)
    moments = condition_moments(X, codes, 1, library=library, rows=control)
    mean, sd = moments.mean[0], np.sqrt(moments.var[0])
    # A gene that hardly varies among controls would be blown up by its own spread.
    floor = 0.05 * max(float(np.median(sd[sd > 0])) if (sd > 0).any() else 1.0, 1e-3)
    _fill(module.center, mean)
    _fill(module.spread, np.maximum(sd, floor))
    distribution = module.distribution
    observed = condition_moments(X, codes, 1, rows=control) if distribution.needs_counts else moments
    total = len(control) if library is None else library[control].sum()
    base, log_scale = distribution.starting_values(
        ControlStatistics(mean, np.maximum(sd, floor), observed.mean[0], observed.var[0], len(control), total)
    )
    _fill(module.decoder.base, base)
    if log_scale is not None:
        _fill(distribution.log_scale, log_scale)


def _fill(target: torch.Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        target.copy_(torch.as_tensor(values, dtype=target.dtype))


_OFFSETS = np.linspace(-6.0, 6.0, 61)  # of the decoder's output
_N_LIBRARIES = 8
_N_CELLS = 4000


@progress_line("Starting the network from the effects")
def start_from_effects(
    module: RaptorGraphModule,
    adata_manager: ScreenManager,
    controls: np.ndarray,
    sums: Sums,
    effects: torch.Tensor,
    seed: int,
) -> None:
    """Set the decoder's linear path and the encoder to the linear model that the effects and the controls imply.

    A shift of an own latent by its strength has the effect of its perturbation (perturbed genes x genes, on the
    expression scale); background latents are the principal components of the controls that stand out from noise. The
    encoder starts as the posterior mean of the latents in that model, as far as its structure allows.
    """
    if module.decoder.linear is None:
        return
    screen = adata_manager.screen
    library = screen.source[1]
    rng = np.random.default_rng((seed, 7))
    rows = np.sort(rng.permutation(controls)[:_N_CELLS])
    expression = to_dense(screen.expression_at(rows)).astype(np.float64)
    _widen(module, sums)
    center, spread = (values.double().cpu().numpy() for values in (module.center, module.spread))
    shifts, slope = _on_decoded_scale(module, None if library is None else library[rows], effects)
    k, d = module.config.n_perturbed, module.config.n_latent
    loading = np.zeros((d, len(center)))
    loading[:k] = shifts / module.modulator.strength.detach().double().cpu().numpy()[:, None]
    standardized = (expression - center) / spread
    components, noise = _components(standardized, d - k, seed)
    loading[k:] = components * spread / np.maximum(slope, 0.05)
    graph = np.eye(d) - module.graph.adjacency().detach().double().cpu().numpy()
    weight = module.decoder.linear.weight
    with torch.no_grad():
        weight[:, :d] = torch.as_tensor((graph @ loading).T, dtype=weight.dtype)
    # Posterior of z given expression in the linear model, whose noise is what the components leave over.
    signal = loading * slope / spread
    precision = np.eye(d) + (signal / noise) @ signal.T
    covariance = np.linalg.inv(precision)
    _set_encoder(module, covariance @ (signal / noise), np.log(np.diag(covariance)))


def _widen(module: RaptorGraphModule, sums: Sums) -> None:
    """Take the spread of a gene within all conditions where it is larger than that within controls.

    A gene that controls hardly express has next to none there, and would be all that is seen of the cells that do.
    """
    moments = moments_of(sums)
    n = moments.n[:, None]
    within = np.sqrt((n * moments.var).sum(0) / n.sum())
    spread = np.maximum(within, module.spread.double().cpu().numpy())
    if isinstance(module.distribution, Normal):
        least = 0.5 * float(np.sqrt(np.mean(within**2)))
        module.distribution.least_spread = least
        _fill(module.distribution.log_scale, np.log(spread))
        spread = np.maximum(spread, least)
    _fill(module.spread, spread)


def _set_encoder(module: RaptorGraphModule, weight: np.ndarray, log_var: np.ndarray) -> None:
    """Let the encoder be linear: two maps of opposite sign make a line, since silu(a) - silu(-a) = a."""
    encoder = module.encoder
    layer, d, t = encoder.preconditioned, len(weight), encoder.preconditioned.n_targets
    if layer.n_subgraphs < 2:
        return
    with torch.no_grad():
        w = torch.as_tensor(weight, dtype=layer.weight.dtype)
        maps = layer.weight.view(layer.n_subgraphs, d, -1)
        maps[0], maps[1] = w[:, t:], -w[:, t:]
        layer.diagonal[0] = w[:t, :t].diagonal()
        layer.diagonal[1] = -w[:t, :t].diagonal()
        layer.bias.zero_()
        encoder.interaction.weight.zero_()
        encoder.interaction.bias.zero_()
        encoder.aggregation.zero_()
        encoder.aggregation[0, 0], encoder.aggregation[0, 1] = 1.0, -1.0
        encoder.offset[0] = 0.0
        encoder.offset[1] = torch.as_tensor(log_var, dtype=w.dtype)


def _on_decoded_scale(
    module: RaptorGraphModule, library: np.ndarray | None, effects: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts of the decoder's output that have the effects, k x genes, and the slope of mean expression in it."""
    distribution, base = module.distribution, module.decoder.base.detach()
    sizes = None
    if library is not None:
        quantiles = np.quantile(library, (np.arange(_N_LIBRARIES) + 0.5) / _N_LIBRARIES)
        sizes = torch.as_tensor(quantiles[:, None], dtype=base.dtype, device=base.device)
    with torch.inference_mode():
        cells = base.expand(1 if sizes is None else len(sizes), -1)
        curve = torch.stack(
            [
                distribution.expected_expression(distribution.location(cells + float(t), sizes), sizes, **COARSE).mean(0)
                for t in _OFFSETS
            ]
        )
    curve = curve.double().cpu().numpy()  # offsets x genes, growing
    middle = len(_OFFSETS) // 2
    slope = (curve[middle + 1] - curve[middle - 1]) / (_OFFSETS[middle + 1] - _OFFSETS[middle - 1])
    target = curve[middle] + effects.double().cpu().numpy()
    shifts = np.stack([np.interp(target[:, g], curve[:, g], _OFFSETS) for g in range(curve.shape[1])], axis=1)
    return np.clip(shifts, -4.0, 4.0), slope


def _components(standardized: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Loadings of latents of variance 1, n x genes, and the variance of each gene that they leave over.

    Eigenvalues are freed of the bias that noise gives them (a spiked covariance; Baik and Silverstein 2006); components
    that do not stand out from noise start near 0.
    """
    n_cells, n_genes = standardized.shape
    loading = np.random.default_rng((seed, 8)).normal(0, 0.01, (n, n_genes))
    variance = standardized.var(0)
    found = min(n, n_cells - 1, n_genes)
    if found > 0:
        pca = PCA(found, svd_solver="randomized", random_state=seed).fit(standardized)
        noise = (variance.sum() - pca.explained_variance_.sum()) / max(n_genes - found, 1)
        ratio = n_genes / n_cells
        excess = pca.explained_variance_ / noise - 1 - ratio
        spike = np.where(excess > 2 * np.sqrt(ratio), 0.5 * (excess + np.sqrt(np.maximum(excess**2 - 4 * ratio, 0))), 0)
        loading[:found] += np.sqrt(spike * noise)[:, None] * pca.components_
    return loading, np.maximum(variance - (loading**2).sum(0), 0.3)
