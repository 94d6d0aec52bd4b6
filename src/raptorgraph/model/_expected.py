"""Expectations for given cells: what they would show, on average over all that is not known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph.model._batches import TransformBatch, in_each, transform_codes
from raptorgraph.model._field import KEYS
from raptorgraph.nn._posterior_draws import N_DRAWS

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

# Accurate to 1e-4 for expression up to 1e4 per 1e4 counts.
QUADRATURE = {"step": 1.0, "lower": -18.0}


class ExpectationMixin:
    """Expected expression of given cells."""

    @torch.inference_mode()
    def get_counterfactual(
        self,
        perturbation: str,
        adata: AnnData | MuData | None = None,
        batch_size: int = 512,
        *,
        n_samples: int = N_DRAWS,
        seed: int | None = None,
        transform_batch: TransformBatch = None,
    ) -> np.ndarray:
        """Return the expected expression of these very cells, had they been perturbed.

        The exogenous latents of a cell are not known exactly: they are drawn from their posterior, shifted, carried
        along the graph and decoded, as in training, and the expectation is the mean over the draws. (Decoding the
        posterior mean instead would take a cell where no training cell was, above all with ``latent_norm="layer"``.)
        All cells and perturbations share the draws: the answer for a cell does not depend on which others are asked
        with it, and the difference between two perturbations holds no noise of its own.

        Parameters
        ----------
        perturbation
            One label; ``"control"`` gives the cells' reconstruction.
        adata
            Cells, best control cells: a perturbation is added to whatever state the cell is in. By default all
            cells of the model.
        batch_size
            Cells at a time.
        n_samples
            Draws of the latents, in pairs of opposite sign (an odd number is rounded up).
        seed
            Seed of the draws; by default ``scvi.settings.seed``.
        transform_batch
            Batch that the cells are decoded in: None for their own, the name of a batch, a list of names, or ``"all"``
            for all that the model knows (unless a batch has that name). Cells of a batch that the model was not trained
            on need it. The expectation is the mean over the batches.

        Returns
        -------
        Cells x genes, float32, on the expression scale.

        Raises
        ------
        ValueError
            For an unknown gene or batch, and for `n_samples` or `batch_size` below 1.

        Examples
        --------
        >>> controls = adata[adata.obs["perturbation"] == "control"].copy()
        >>> change = model.get_counterfactual("P01", controls) - model.get_counterfactual("control", controls)
        >>> change.shape == controls.shape
        True
        """
        check_at_least_one(batch_size=batch_size, n_samples=n_samples)
        _, mask = self._masks(perturbation)
        codes = transform_codes(self, transform_batch)
        manager = self._query(adata, "cells", batch=codes is None)
        offset = self._offset(mask[0])
        parts = []
        for tensors in self._cells(manager, batch_size=batch_size):
            library = tensors.get(KEYS.LIBRARY)
            posterior = self.module.encode(self.module.expression(tensors[KEYS.X], library))
            expected = [
                self.module.expected_expression(
                    posterior,
                    mask,
                    self.module.covariates(placed),
                    library,
                    offset,
                    n_draws=n_samples,
                    seed=self._seed(seed),
                    **QUADRATURE,
                )
                for placed in in_each(tensors, codes)
            ]
            parts.append(torch.stack(expected).mean(0).cpu().numpy())
        return np.concatenate(parts).astype(np.float32)


def check_at_least_one(**values: int) -> None:
    """Raise a ValueError that names the first value below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}={value!r} must be at least 1.")
