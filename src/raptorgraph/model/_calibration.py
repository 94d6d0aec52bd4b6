"""Bring decoded cells to the mean effects of the hierarchical posterior."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph._progress import progress_bar
from raptorgraph.model._field import KEYS

if TYPE_CHECKING:
    from raptorgraph.model._splitter import ScreenSplitter

logger = logging.getLogger(__name__)

_N_REFERENCE = 256  # draws of control cells on which decoded means are compared


class CalibrationMixin:
    """The posterior of the effects beside the network: fitted, and carried over to cells.

    The network says how cells differ, the posterior what their mean is: each gene gets one offset for a perturbation,
    added to the output of the decoder, such that the mean over reference controls of the
    training data is the measured control mean plus the posterior's effect.
    """

    @property
    def _has_posterior(self) -> bool:
        effects = self.module.effects
        return effects is not None and effects.is_fitted

    def _fit_effects(self, splitter: ScreenSplitter) -> None:
        """Fit the posterior to the effects measured on all cells but those that are kept for a test.

        It has no settings that validation cells would choose, so it need not spare them.
        """
        with progress_bar("Fitting the effects"):
            moments, control_mean = splitter.known_effects()
            arrays = (self._members()[1:], moments.effect[1:], moments.variance[1:], moments.n[1:])
            self.module.effects.fit(
                *(torch.as_tensor(array) for array in arrays),
                int(moments.n[0]),
                control_mean=torch.as_tensor(control_mean),
                targets=torch.as_tensor(self._target_columns()),
                graph=self._known_graph(),
            )
        scale = float(self.module.effects.state["scale"])
        logger.info("Effects of pairs are about %.2f times the sum of their single effects.", scale)

    @torch.inference_mode()
    def _store_reference(self, controls: np.ndarray) -> None:
        """Keep the latents of some controls, so that a loaded model needs no data to predict."""
        rng = np.random.default_rng(self._seed(None))
        # Each control as often as any other, give or take one.
        repeated = np.tile(rng.permutation(controls), -(-_N_REFERENCE // len(controls)))
        rows = np.sort(repeated[:_N_REFERENCE])
        found: dict[str, list] = {"reference_z": [], "reference_library": [], "reference_covariates": []}
        for tensors in self._cells(self.adata_manager, rows=rows):
            library = tensors.get(KEYS.LIBRARY)
            mean, log_var = self.module.encode(self.module.expression(tensors[KEYS.X], library))
            noise = torch.as_tensor(rng.standard_normal(mean.shape), dtype=mean.dtype, device=mean.device)
            found["reference_z"].append(mean + torch.exp(0.5 * log_var) * noise)
            found["reference_library"].append(library)
            found["reference_covariates"].append(self.module.covariates(tensors))
        kept = {name: torch.cat(parts).cpu() for name, parts in found.items() if parts[0] is not None}
        self.module.effects.state.update(kept)

    def _offset(self, mask: torch.Tensor) -> torch.Tensor | float:
        """Offset of each gene, shape (n_genes,), under the perturbation of a 0/1 ``mask`` over perturbed genes."""
        if not self._has_posterior or "reference_z" not in self.module.effects.state:
            return 0.0
        module, values = self.module, self.module.effects.state
        z, library, covariates = (
            None if values.get(name) is None else values[name].to(self.device)
            for name in ("reference_z", "reference_library", "reference_covariates")
        )
        control = -values["lowest"]
        target = control + module.effects.mean(mask[None])[0]
        location = module.decode(module.modulator(z, mask[None]), covariates, library)
        return module.distribution.offset(target, control, location, library)
