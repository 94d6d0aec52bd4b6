"""Latents of cells: asked for, drawn, and checked for whether the model uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_choice
from raptorgraph._docs import docs
from raptorgraph.model._cells import draw_seed
from raptorgraph.model._field import KEYS
from raptorgraph.nn import kl_standard_normal
from raptorgraph.nn._posterior_draws import N_DRAWS, posterior_expectation
from raptorgraph.screen._cells_file import write_cells

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData
    from scvi.data import AnnDataManager

    from raptorgraph.model._cells import Cells
    from raptorgraph.model._types import Data

ACTIVE_KL = 0.01  # nats


@dataclass(frozen=True)
class DrawnLatents:
    """Exogenous latents `z` of cells, drawn from their posterior (cells x d), and the `tensors` of these cells."""

    z: torch.Tensor
    tensors: dict[str, torch.Tensor]

    @property
    def library(self) -> torch.Tensor | None:
        """Library sizes, cells x 1; None for data without."""
        return self.tensors.get(KEYS.LIBRARY)


@dataclass(frozen=True)
class Latents:
    """Latents of cells.

    Parameters
    ----------
    cells
        Where cells come from, and the network that reads them.
    genes, names
        Perturbed genes, and the name of each latent.

    Examples
    --------
    >>> model.latents.draw_controls(n_cells=20, seed=0).z.shape[0]
    20
    """

    cells: Cells
    genes: Sequence[str]
    names: Sequence[str]

    @docs.dedent
    def get_latent_representation(
        self,
        adata: Data | None = None,
        kind: str = "causal",
        batch_size: int = 1024,
        *,
        out: str | Path | None = None,
    ) -> np.ndarray | AnnData:
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
        %(out)s

        Returns
        -------
        Cells x d, float32. With `out` an AnnData of them in ``X``, whose values stay in the file.

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
        check_choice("kind", kind, ("causal", "exogenous"))
        path = self.cells.destination(out, adata)
        manager = self.cells.query(adata, "latents")
        parts = self.parts(manager, kind, batch_size)
        if path is None:
            return np.concatenate(list(parts))
        return write_cells(path, parts, manager.adata.obs, pd.DataFrame(index=pd.Index(self.names)))

    def parts(self, manager: AnnDataManager, kind: str, batch_size: int = 1024) -> Iterator[np.ndarray]:
        """Posterior means of the latents of registered cells, batch by batch."""
        module, batches = self.cells.module, self.cells.batches(manager, batch_size=batch_size)
        for tensors in batches:
            with torch.inference_mode():
                mean, log_var = self.encode(tensors)
                if kind == "causal":
                    mean = module.graph(posterior_expectation(module.norm, mean, log_var, N_DRAWS, draw_seed(None)))
            yield mean.cpu().numpy().astype(np.float32)

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
        manager = self.cells.query()
        rows = self.cells.control_rows(manager.adata)
        parts = [kl_standard_normal(*self.encode(tensors)) for tensors in self.cells.batches(manager, rows=rows)]
        kl = torch.cat(parts).mean(0).cpu().numpy()
        genes = [*self.genes, *[None] * (len(kl) - len(self.genes))]
        index = pd.Index(self.names, name="latent")
        return pd.DataFrame({"gene": genes, "kl": kl, "active": kl > ACTIVE_KL}, index=index)

    def encode(self, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log variance of z given the cells of a batch."""
        return self.cells.module.encode(self.cells.module.expression(tensors))

    # -- draws -----------------------------------------------------------------------------------------------------
    def draw_batch(self, tensors: dict[str, torch.Tensor], rng: np.random.Generator) -> torch.Tensor:
        """Draw z from its posterior given the cells of a batch."""
        mean, log_var = self.encode(tensors)
        noise = torch.as_tensor(rng.standard_normal(mean.shape), dtype=mean.dtype, device=mean.device)
        return mean + torch.exp(0.5 * log_var) * noise

    @torch.inference_mode()
    def draw(self, manager: AnnDataManager, rows: np.ndarray, rng: np.random.Generator) -> DrawnLatents:
        """Draw z of some of the registered cells, all at once."""
        batches = list(self.cells.batches(manager, rows=rows))
        z = torch.cat([self.draw_batch(tensors, rng) for tensors in batches])
        return DrawnLatents(z, {key: torch.cat([tensors[key] for tensors in batches]) for key in batches[0]})

    @torch.inference_mode()
    def draw_controls(self, n_cells: int, seed: int | None = None) -> DrawnLatents:
        """Draw z of at most `n_cells` of the model's own control cells."""
        manager, rng = self.cells.query(), np.random.default_rng(draw_seed(seed))
        return self.draw(manager, self.cells.start_rows(manager.adata, n_cells, rng, replace=False), rng)
