"""Latents of cells: asked for, and checked for whether the model uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph.model._field import KEYS
from raptorgraph.nn import kl_standard_normal
from raptorgraph.nn._posterior_draws import N_DRAWS

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

ACTIVE_KL = 0.01  # nats


class LatentMixin:
    """What the encoder says of cells."""

    @torch.inference_mode()
    def get_latent_representation(
        self, adata: AnnData | MuData | None = None, kind: str = "causal", batch_size: int = 1024
    ) -> np.ndarray:
        """Posterior means of the latents.

        Without a norm u is linear in z, and its mean that of z carried along the graph. With ``latent_norm="layer"`` it
        is the mean over draws of z from its posterior, each normed and carried along: the norm of the mean would blow
        up latents that say nothing of the cell.

        Parameters
        ----------
        adata
            Cells; by default those of the model. Genes are matched by name.
        kind
            ``"causal"`` for u, ``"exogenous"`` for z.
        batch_size
            Cells at a time.

        Returns
        -------
        Cells x d, float32.

        Raises
        ------
        ValueError
            For an unknown `kind`, and where the cells lack genes of the model.

        Examples
        --------
        >>> u = model.get_latent_representation()
        >>> u.shape == (adata.n_obs, len(model.latent_names))
        True
        """
        if kind not in ("causal", "exogenous"):
            raise ValueError(f"kind={kind!r} is unknown; use 'causal' or 'exogenous'.")
        parts = []
        for tensors in self._cells(self._query(adata, "latents"), batch_size=batch_size):
            mean, log_var = self.module.encode(self.module.expression(tensors[KEYS.X], tensors.get(KEYS.LIBRARY)))
            if kind == "causal":
                mean = self.module.expected_causal(mean, log_var, N_DRAWS, self._seed(None))
            parts.append(mean)
        return torch.cat(parts).cpu().numpy().astype(np.float32)

    @torch.inference_mode()
    def latent_activity(self) -> pd.DataFrame:
        """KL of each latent to its prior, in nats, as a mean over control cells.

        Returns
        -------
        DataFrame with one row a latent: ``gene`` (None where it has none), ``kl``, ``active`` (KL above 0.01).

        Examples
        --------
        >>> activity = model.latent_activity()
        >>> list(activity.index[:3]), list(activity.columns)
        (['P01', 'P02', 'P03'], ['gene', 'kl', 'active'])
        """
        parts = []
        for tensors in self._cells(self._query(), rows=self._control_rows(self._data())):
            expression = self.module.expression(tensors[KEYS.X], tensors.get(KEYS.LIBRARY))
            parts.append(kl_standard_normal(*self.module.encode(expression)))
        kl = torch.cat(parts).mean(0).cpu().numpy()
        genes = self.perturbed_genes + [None] * (len(kl) - len(self.perturbed_genes))
        index = pd.Index(self.latent_names, name="latent")
        return pd.DataFrame({"gene": genes, "kl": kl, "active": kl > ACTIVE_KL}, index=index)
