"""Start of the network: the linear model that the effects and the control cells imply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph._progress import progress_line
from raptorgraph.model._initial import fill
from raptorgraph.model._linear import fit_linear
from raptorgraph.model._responses import Responses, fit_responses
from raptorgraph.nn._expectation import COARSE
from raptorgraph.nn._likelihoods import Normal
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._moments import moments_of

if TYPE_CHECKING:
    from raptorgraph.model._module import RaptorGraphModule
    from raptorgraph.model._splitter import ScreenSplitter
    from raptorgraph.screen import Sums


_OFFSETS = np.linspace(-4.0, 4.0, 41)  # of the decoder's output
_N_LIBRARIES = 8
_N_CELLS = 5000
_N_ENCODED = 40_000
_LEAST_SLOPE = 0.05  # of mean expression in the log rate
_LIFT = 10.0  # where silu is a line to 5e-4


def starts_from_effects(module: RaptorGraphModule) -> bool:
    """Whether the network has the parts that can be set to a linear model."""
    return module.config.perturbed_prior and module.decoder.linear is not None


@progress_line("Starting the network from the effects")
def start_from_effects(module: RaptorGraphModule, splitter: ScreenSplitter, effects: torch.Tensor) -> None:
    """Set decoder, encoder and prior to the linear model that the effects and the cells imply.

    A shift of an own latent by its strength has the effect of its perturbation (`effects`, perturbed genes x genes, on
    the expression scale); background latents are found in the cells (:func:`fit_linear`). The encoder starts as the
    posterior mean of the latents in that model, as far as its structure allows, and the prior with the responses that
    the encoded cells show (:func:`fit_responses`). A decoder without a linear path starts as it is.
    """
    if not starts_from_effects(module):
        return
    screen, rows, seed = splitter.screen, splitter.known_rows, splitter.seed
    _widen(module, splitter.sums)
    spread = module.spread.double().cpu().numpy()
    used = splitter.in_order(np.random.default_rng((seed, 7)).permutation(rows)[:_N_CELLS])
    # What varies within conditions and batches: all cells say more of it than the controls alone.
    residual = (to_dense(screen.expression_at(used)) - moments_of(splitter.sums).mean[screen.codes[used]]) / spread
    residual = residual.astype(np.float32)
    if screen.batch is not None:
        batch = screen.batch[used]
        for each in np.unique(batch):
            residual[batch == each] -= residual[batch == each].mean(0)
    library = screen.source[1]
    curve, slope = _mean_curve(module, None if library is None else library[used])
    n_background = module.config.n_latent - module.config.n_perturbed
    strength, escape = module.config.init_strength, torch.zeros(len(effects))
    for _ in range(2):
        # What was measured is the mean over all cells, those included that escaped.
        of_responders = (effects.double().cpu() / (1 - escape.double())[:, None]).numpy()
        standardized = of_responders / spread
        linear = fit_linear(residual, standardized, n_background, strength, seed, splitter.gene_order)
        strength = linear.strength
        own = _shifts(curve, of_responders) if module.distribution.needs_counts else of_responders
        background = linear.loading[len(own) :] * spread / np.maximum(slope, _LEAST_SLOPE)
        _set_decoder(module, np.concatenate([own / strength, background]))
        weight, variance = linear.posterior
        weight[:, : module.config.n_targets] *= np.eye(len(weight), module.config.n_targets)  # the encoder's structure
        responses = _responses(module, weight, splitter)
        escape = responses.escape
    _set_encoder(module, weight, variance)
    modulator, prior = module.modulator, module.prior
    assert prior is not None
    with torch.no_grad():
        modulator.strength.fill_(strength)
        modulator.state_weight.copy_(responses.weight)
        modulator.state_bias.copy_(responses.bias)
        prior.escape_logit.copy_(escape.logit())
        if module.effects is not None:
            modulator.log_combination.fill_(np.log(module.effects.combination_scale))


def _set_decoder(module: RaptorGraphModule, loading: np.ndarray) -> None:
    """Let z have these loadings on the decoder's output, d x genes."""
    graph = np.eye(len(loading)) - module.graph.adjacency().detach().double().cpu().numpy()
    weight = module.decoder.linear.weight
    with torch.no_grad():
        weight[:, : len(loading)] = torch.as_tensor((graph @ loading).T, dtype=weight.dtype)


def _responses(module: RaptorGraphModule, weight: np.ndarray, splitter: ScreenSplitter) -> Responses:
    """Responses of the cells, or of some tens of thousands of them, by the linear encoder of these weights."""
    screen, rng = splitter.screen, np.random.default_rng((splitter.seed, 9))
    rows = np.sort(rng.permutation(splitter.known_rows)[:_N_ENCODED])
    weights, parts = torch.as_tensor(weight, dtype=torch.float32, device=module.device), []
    with torch.no_grad():
        for part in np.array_split(rows, -(-len(rows) // 1024)):
            expression = to_dense(screen.expression_at(part))
            standardized = module.standardized(torch.as_tensor(expression, dtype=torch.float32, device=module.device))
            parts.append((standardized @ weights.T).cpu())
    return fit_responses(torch.cat(parts), torch.as_tensor(screen.design[screen.codes[rows]]))


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
        fill(module.distribution.log_scale, np.log(spread))
        spread = np.maximum(spread, least)
    fill(module.spread, spread)


def _set_encoder(module: RaptorGraphModule, weight: np.ndarray, variance: np.ndarray) -> None:
    """Let the encoder be linear.

    Two maps of opposite sign make a line, since silu(a) - silu(-a) = a; one alone does so far above 0.
    """
    encoder = module.encoder
    layer, d, t = encoder.preconditioned, len(weight), encoder.preconditioned.n_targets
    signs, lift = ((1.0, -1.0), 0.0) if layer.n_subgraphs > 1 else ((1.0,), _LIFT)
    with torch.no_grad():
        w = torch.as_tensor(weight, dtype=layer.weight.dtype)
        maps = layer.weight.view(layer.n_subgraphs, d, -1)
        encoder.aggregation.zero_()
        for i, sign in enumerate(signs):
            maps[i], layer.diagonal[i] = sign * w[:, t:], sign * w[:t, :t].diagonal()
            encoder.aggregation[0, i] = sign
        layer.bias.fill_(lift)
        encoder.offset[0] = -lift
        encoder.interaction.weight.zero_()
        encoder.interaction.bias.zero_()
        encoder.offset[1] = torch.as_tensor(np.log(variance), dtype=w.dtype)


def _mean_curve(module: RaptorGraphModule, library: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean expression of control cells at offsets of the decoder's output (offsets x genes), and its slope at none."""
    distribution, base = module.distribution, module.decoder.base.detach()
    sizes = None
    if library is not None:
        quantiles = np.quantile(library, (np.arange(_N_LIBRARIES) + 0.5) / _N_LIBRARIES)
        sizes = torch.as_tensor(quantiles[:, None], dtype=base.dtype, device=base.device)
    with torch.inference_mode():
        cells = base.expand(1 if sizes is None else len(sizes), -1)
        at = (distribution.location(cells + float(offset), sizes) for offset in _OFFSETS)
        curve = torch.stack([distribution.expected_expression(location, sizes, **COARSE).mean(0) for location in at])
    found = curve.double().cpu().numpy()
    middle = len(_OFFSETS) // 2
    return found, (found[middle + 1] - found[middle - 1]) / (_OFFSETS[middle + 1] - _OFFSETS[middle - 1])


def _shifts(curve: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """Shifts of the decoder's output that have the effects on mean expression, k x genes."""
    target = curve[len(_OFFSETS) // 2] + effects
    shifts = [np.interp(target[:, g], curve[:, g], _OFFSETS) for g in range(curve.shape[1])]
    return np.stack(shifts, axis=1)
