"""Bring decoded cells to the mean effects of the hierarchical posterior."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph._progress import progress_bar

if TYPE_CHECKING:
    from raptorgraph.inference import EffectPosterior
    from raptorgraph.model._latents import DrawnLatents
    from raptorgraph.model._module import RaptorGraphModule
    from raptorgraph.screen._moments import EffectMoments

logger = logging.getLogger(__name__)

_N_REFERENCE = 256  # draws of control cells on which decoded means are compared


@dataclass(frozen=True)
class Calibration:
    """The posterior of the effects beside the network: fitted, and carried over to cells.

    The network says how cells differ, the posterior what their mean is: each gene gets one offset for a perturbation,
    added to the output of the decoder, such that the mean over reference controls of the training data is the measured
    control mean plus the posterior's effect.

    Parameters
    ----------
    module
        The network, with the posterior and the reference controls.

    Examples
    --------
    >>> import torch
    >>> model.calibration.is_fitted
    True
    >>> model.calibration.offset(torch.tensor([1.0, 0, 0, 0, 0, 0])).shape  # of the first perturbed gene
    torch.Size([100])
    """

    module: RaptorGraphModule

    @property
    def is_fitted(self) -> bool:
        """Whether there is a posterior of the effects."""
        return self.module.effects is not None and self.module.effects.is_fitted

    @property
    def posterior(self) -> EffectPosterior:
        """The posterior of the effects; ValueError where there is none."""
        if self.module.effects is not None and not self.module.effects.is_fitted:
            raise ValueError("The posterior of the effects is not fitted: call model.train() first.")
        if self.module.effects is None:
            raise ValueError("There is no posterior of the effects: train a model with effect_posterior=True.")
        return self.module.effects

    @property
    def control_variance(self) -> torch.Tensor:
        """Sampling variance of the mean of the control cells, shape (genes,).

        The posterior is of differences to the very control cells of the screen, which many perturbed cells tell well;
        what a perturbation does is the difference to the mean that these cells are a sample of. All effects share the
        error, so it belongs to the standard deviation of each.
        """
        measured = self.posterior.fitted.measured
        variance: torch.Tensor = measured.control_noise * measured.gene_noise
        return variance

    def fit(
        self,
        moments: EffectMoments,
        control_mean: np.ndarray,
        design: np.ndarray,
        targets: np.ndarray,
        graph: torch.Tensor | None,
        noise_loadings: np.ndarray | None = None,
        embedding: torch.Tensor | None = None,
        *,
        gene_order: np.ndarray | None = None,
        control_loadings: np.ndarray | None = None,
    ) -> None:
        """Fit the posterior to effects that were measured on all cells but those that are kept for a test.

        It has no settings that validation cells would choose, so it need not spare them. `control_mean` is the mean of
        their controls, shape (genes,); `design` is control and conditions x perturbed genes, 0 or 1; `targets` are the
        columns of the perturbed genes, -1 where there is none; `graph` has the weights among the perturbed genes, None
        where they are still to be learned; `noise_loadings` say how the noise of the genes is correlated (G x factors);
        `embedding` are rows of what is known of the perturbed genes; `gene_order` are the columns of the genes in the
        order in which they get their random numbers; `control_loadings` (control and conditions x columns) are the
        errors of the controls of batches.
        """
        effects = self.module.effects
        if effects is None:
            return
        with progress_bar("Fitting the effects"):
            effects.fit(
                torch.as_tensor(design[1:]),
                torch.as_tensor(moments.effect[1:]),
                torch.as_tensor(moments.variance[1:]),
                torch.as_tensor(moments.n[1:]),
                int(moments.n[0]),
                control_mean=torch.as_tensor(control_mean),
                targets=torch.as_tensor(targets),
                graph=graph,
                noise_loadings=None if noise_loadings is None else torch.as_tensor(noise_loadings),
                embedding=embedding,
                gene_order=None if gene_order is None else torch.as_tensor(gene_order),
                control_loadings=None if control_loadings is None else torch.as_tensor(control_loadings[1:]),
            )
        logger.info(*_said_of_combinations(design[1:], effects.combination_scale))
        if embedding is not None:
            share = effects.embedding_share
            logger.info("The gene embedding says about %.0f %% of the variance of single effects.", 100 * share)

    def keep_reference(self, drawn: DrawnLatents) -> None:
        """Keep the latents of some controls, so that a loaded model needs no data to predict."""
        assert self.module.reference is not None
        self.module.reference.store(drawn.z, drawn.library, self.module.covariates(drawn.tensors))

    @torch.inference_mode()
    def offset(self, mask: torch.Tensor) -> torch.Tensor | float:
        """Offset of each gene under a perturbation (shape (perturbed genes,), 0 or 1; none for the control).

        It is added to the output of the decoder, shape (genes,); 0.0 where there is no posterior.
        """
        module, reference = self.module, self.module.reference
        if not self.is_fitted or reference is None or reference.z is None:
            return 0.0
        z, library, covariates = reference.on(module.device)
        control = self.posterior.control_mean
        if control is None:
            return 0.0
        mask = mask.to(module.device)
        target = control + self.posterior.mean(mask[None])[0]
        location = module.decode(module.modulator(z, mask[None]), covariates, library)
        return module.distribution.offset(target, control, location, library)


def _said_of_combinations(design: np.ndarray, scale: float) -> tuple[str, float]:
    """What the log says of the scale of combinations, by the genes of each condition (conditions x genes, 0 or 1)."""
    size = design.sum(axis=1)
    alone = design[size == 1].sum(axis=0) > 0
    combined = design[size > 1]
    if not len(combined):
        return "No combination was measured: that pairs are %.2f times their sum is a prior, not learned.", scale
    if (combined[:, ~alone].sum(axis=1) > 0).all():
        why = "Each combination has a gene that was never perturbed alone"
        return f"{why}: that pairs are %.2f times their sum is a prior, not learned.", scale
    return "Effects of pairs are about %.2f times the sum of their single effects.", scale


def reference_rows(controls: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of the reference controls: each control as often as any other, give or take one."""
    repeated = np.tile(rng.permutation(controls), -(-_N_REFERENCE // len(controls)))
    return np.sort(repeated[:_N_REFERENCE])
