"""Starting values from the control cells, so that training does not spend its time on finding the means."""

from __future__ import annotations

import numpy as np
import torch

from raptorgraph._progress import progress_line
from raptorgraph.screen._moments import condition_moments


@progress_line("Reading control cells")
def initialize(module, adata_manager) -> None:
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
    if module.likelihood == "nb":
        n = len(control)
        counts = condition_moments(X, codes, 1, rows=control)
        count_mean, count_var = counts.mean[0], counts.var[0] * (n - 1) / n
        theta = count_mean**2 / np.maximum(count_var - count_mean, 0.01 * count_mean**2 + 1e-8)
        _fill(module.decoder.base, np.log((n * count_mean + 0.1) / library[control].sum()))
        _fill(module.log_scale, np.log(np.clip(theta, 0.2, 50.0)))
    else:
        _fill(module.decoder.base, mean)
        if module.learn_scale:
            _fill(module.log_scale, np.log(np.maximum(sd, floor)))


def _fill(target: torch.Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        target.copy_(torch.as_tensor(values, dtype=target.dtype))
