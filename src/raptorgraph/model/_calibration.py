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
_QUADRATURE = {"step": 1.0, "lower": -16.0}
_N_STEPS = 24  # one or two are usual
_TOLERANCE = 5e-4  # of a mean, on the expression scale: far below the error of any effect
_LARGEST = 8.0  # offset of a log rate


class CalibrationMixin:
    """The posterior of the effects beside the network: fitted, and carried over to cells.

    The network says how cells differ, the posterior what their mean is: each gene gets one offset for a perturbation,
    added to its log rate (its value for likelihood ``"normal"``), such that the mean over reference controls of the
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
        scale = self.module.effects.combination_scale
        logger.info("Effects of pairs are about %.2f times the sum of their single effects.", scale)

    @torch.inference_mode()
    def _store_reference(self, controls: np.ndarray) -> None:
        """Keep the latents of some controls, so that a loaded model needs no data to predict."""
        rng = np.random.default_rng(self._seed(None))
        # Each control as often as any other, give or take one.
        repeated = np.tile(rng.permutation(controls), -(-_N_REFERENCE // len(controls)))
        rows = np.sort(repeated[:_N_REFERENCE])
        z, libraries, covariates = [], [], []
        for tensors in self._cells(self.adata_manager, rows=rows):
            library = tensors.get(KEYS.LIBRARY)
            mean, log_var = self.module.encode(self.module.expression(tensors[KEYS.X], library))
            noise = torch.as_tensor(rng.standard_normal(mean.shape), dtype=mean.dtype, device=mean.device)
            z.append(mean + torch.exp(0.5 * log_var) * noise)
            libraries.append(library)
            covariates.append(self.module.covariates(tensors))
        self.module.reference.store(z=z, library=libraries, covariates=covariates)

    def _offset(self, mask: torch.Tensor) -> torch.Tensor | float:
        """Offset of each gene, shape (n_genes,), under the perturbation of a 0/1 ``mask`` over perturbed genes."""
        module = self.module
        if not self._has_posterior or module.reference.z is None:
            return 0.0
        z, library, covariates = module.reference.on(self.device)
        control = module.effects.control_mean
        target = control + module.effects.mean(mask[None])[0]
        shifted = module.modulator(z, mask[None])
        if module.likelihood == "normal":
            mean = module.decode(shifted, covariates, library).mean(0)
            return target.to(mean) - mean
        target = torch.maximum(target, 1e-3 * control + 1e-6).float().to(self.device)
        location = module.decode(shifted, covariates, library)

        def mean_at(offset: torch.Tensor) -> torch.Tensor:
            return module.mean_expression(location * offset.exp(), library, **_QUADRATURE).mean(0)

        # The mean grows with the offset, exponentially where it is small and linearly where it is large, as a softplus
        # does: Newton's method after its inverse, kept within a shrinking bracket.
        offset, low = torch.zeros_like(target), torch.full_like(target, -_LARGEST)
        high = -low
        wanted = _inverse_softplus(target)
        for _ in range(_N_STEPS):
            mean = mean_at(offset)
            off = (mean - target).abs() >= _TOLERANCE
            if not bool(off.any()):
                break
            low, high = torch.where(mean < target, offset, low), torch.where(mean < target, high, offset)
            found = _inverse_softplus(mean)
            slope = (_inverse_softplus(mean_at(offset + 0.02)) - found) / 0.02
            step = offset + (wanted - found) / slope.clamp_min(1e-3)
            step = torch.where((step > low) & (step < high), step, 0.5 * (low + high))
            offset = torch.where(off, step, offset)
        return offset


def _inverse_softplus(x: torch.Tensor) -> torch.Tensor:
    x = x.clamp_min(1e-12)
    return x + torch.log(-torch.expm1(-x))
