"""Starting values from the control cells, so that training does not spend its time on finding the means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph._order import name_order, places
from raptorgraph._progress import progress_line
from raptorgraph.nn._likelihood_base import ControlStatistics
from raptorgraph.screen._moments import condition_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.model._manager import ScreenManager
    from raptorgraph.model._module import RaptorGraphModule


@progress_line("Reading control cells")
def initialize(module: RaptorGraphModule, adata_manager: ScreenManager) -> None:
    """Set the encoder's center and spread, the decoder's base and the genes' scale from control cells.

    What is left as the paper prints it is not set.
    """
    if module.config.perturbed_prior:
        give_by_name(module, adata_manager.var_names)
    screen = adata_manager.screen
    (X, library), control = screen.source, np.flatnonzero(screen.codes == 0)
    codes = np.zeros(X.shape[0], dtype=np.int64)
    moments = condition_moments(X, codes, 1, library=library, rows=control)
    mean, sd = moments.mean[0], np.sqrt(moments.var[0])
    # A gene that hardly varies among controls would be blown up by its own spread.
    floor = 0.05 * max(float(np.median(sd[sd > 0])) if (sd > 0).any() else 1.0, 1e-3)
    if "inputs" not in module.config.as_printed:
        fill(module.center, mean)
        fill(module.spread, np.maximum(sd, floor))
    distribution = module.distribution
    observed = condition_moments(X, codes, 1, rows=control) if distribution.needs_counts else moments
    total = len(control) if library is None else library[control].sum()
    base, log_scale = distribution.starting_values(
        ControlStatistics(mean, np.maximum(sd, floor), observed.mean[0], observed.var[0], len(control), total)
    )
    if "start" in module.config.as_printed:
        start_at_random(module)
    else:
        fill(module.decoder.base, base)
    if log_scale is not None:
        fill(distribution.log_scale, log_scale)


def start_at_random(module: RaptorGraphModule) -> None:
    """Draw the biases of the decoder as torch draws those of a layer."""
    bound = max(module.config.n_hidden if module.decoder.dense is not None else module.config.n_latent, 1) ** -0.5
    torch.nn.init.uniform_(module.decoder.base, -bound, bound)


def fill(target: torch.Tensor, values: np.ndarray) -> None:
    """Set a parameter or buffer to values, in its own type."""
    with torch.no_grad():
        target.copy_(torch.as_tensor(values, dtype=target.dtype))


@torch.no_grad()
def give_by_name(module: RaptorGraphModule, genes: Sequence[str]) -> None:
    """Give the weights that were drawn for genes to these in the order of their names, whatever that in the data."""
    layer, decoder = module.encoder.preconditioned, module.decoder
    layer.weight.copy_(layer.weight[:, places(name_order(genes[layer.n_targets :]))].clone())
    last = [decoder.linear, None if decoder.dense is None else decoder.dense[-1]]
    for linear in last:
        if linear is not None:
            linear.weight.copy_(linear.weight[places(name_order(genes))].clone())
