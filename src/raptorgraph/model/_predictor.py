"""Predictions of a trained model: cells of perturbations, their mean effects, and draws of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph._order import name_order
from raptorgraph._progress import progress_bar, track
from raptorgraph.model._batches import TransformBatch, in_batch, transform_codes
from raptorgraph.model._cells import draw_seed, genes_of
from raptorgraph.model._field import KEYS
from raptorgraph.model._predicted_cells import PartsInFile, PartsInMemory
from raptorgraph.model._query import known_categories
from raptorgraph.model._unseen_genes import Asked, no_latent
from raptorgraph.nn._expectation import FINE

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from anndata import AnnData

    from raptorgraph.inference import EffectPosterior
    from raptorgraph.model._calibration import Calibration
    from raptorgraph.model._gene_embedding import GeneEmbedding
    from raptorgraph.model._latents import Latents
    from raptorgraph.model._types import Data, Perturbations

_BATCH = 1024  # cells


@dataclass(frozen=True)
class Predictor:
    """What a trained model predicts of perturbations.

    Parameters
    ----------
    latents
        Latents of cells, with the network and the cells.
    calibration
        Posterior of the effects, and what brings decoded cells to it.
    control_digests
        Digests of the training controls (``Cells.digest``), by which a copy of them is known.
    test_rows
        Rows of the model's own cells that were kept from the training for a test.
    embedding
        What is known of genes that nobody perturbed.

    Examples
    --------
    >>> model.predictor.masks(["P02", "P01+P03"])[1].int().tolist()
    [[0, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0]]
    """

    latents: Latents
    calibration: Calibration
    control_digests: Collection[str] = ()
    test_rows: np.ndarray | None = None
    embedding: GeneEmbedding | None = None

    def masks(self, perturbations: Perturbations) -> tuple[list[str], torch.Tensor]:
        """Canonical labels and their 0/1 masks over the perturbed genes; ValueError for genes without a latent."""
        asked = self.asked(perturbations)
        if asked.unseen:
            raise ValueError(no_latent(asked.unseen))
        return asked.labels, asked.design.to(self.latents.cells.module.device)

    def asked(self, perturbations: Perturbations) -> Asked:
        """Perturbations, with genes that nobody perturbed where there is an embedding; ValueError for unknown genes."""
        return Asked.of(perturbations, self.latents.cells.setup, list(self.latents.genes), self.embedding)

    def posterior_of(self, asked: Asked) -> EffectPosterior:
        """The posterior of the effects that answers for these; ValueError where there is none."""
        return asked.posterior(self.calibration, self.embedding, self.latents.cells.var_names)

    @torch.inference_mode()
    @docs.dedent
    def predict(
        self,
        perturbations: Perturbations,
        adata: Data | None = None,
        n_cells: int | None = None,
        seed: int | None = None,
        *,
        noise: str = "own",
        transform_batch: TransformBatch = None,
        out: str | Path | None = None,
    ) -> AnnData:
        """Predict cells of each perturbation, with the spread of real ones.

        Parameters
        ----------
        perturbations
            A label such as ``"A"``, ``"A+B"`` or ``"control"``; the genes of one perturbation as a tuple or set,
            ``("A", "B")``; or a list of these.
        adata
            Cells to start from: its controls, or all of its cells where none is control. By default the controls
            of the training data.
        n_cells
            Cells of each perturbation; by default one for each starting cell. Drawn with replacement where there
            are fewer.
        seed
            Seed of the draws; by default ``scvi.settings.seed``.
        noise
            ``"own"``: a counterfactual of the starting cell, which keeps what the model does not explain of its
            measured expression; under ``"control"`` it is that cell. ``"new"``: noise is drawn anew from the
            likelihood, and with it cells show what the model has learned of controls.
        %(transform_batch)s
            Of several batches each gets as many cells as any other, in random order. With ``noise="own"`` a cell stays
            at the level that it was measured at, with ``"new"`` it gets that of the batch.
        %(out)s

        Returns
        -------
        AnnData with the expression scale in ``X``, for likelihood ``"nb"`` counts in ``layers["counts"]``;
        ``obs["perturbation"]``, ``obs["control_cell"]`` (the cell it started from); for counts
        ``obs["library_size"]``; with `transform_batch` the batch, under the name of `batch_key`. A cell of likelihood
        ``"normal"`` can lie below 0. With `out` the values stay in the file.

        Raises
        ------
        ValueError
            For an unknown gene, batch or `noise`, and for `n_cells` below 1.

        Examples
        --------
        >>> cells = model.predict(["P01", "P01+P02"], n_cells=50, seed=0)
        >>> cells.shape
        (100, 100)
        >>> cells.obs["perturbation"].value_counts().to_dict()
        {'P01': 50, 'P01+P02': 50}
        """
        check_choice("noise", noise, ("own", "new"))
        labels, masks = self.masks(perturbations)
        cells, module = self.latents.cells, self.latents.cells.module
        path = cells.destination(out, adata)
        codes = transform_codes(cells.registry, transform_batch)
        manager = cells.query(adata, "controls", batch=codes is None)
        source, distribution, seed = manager.adata, module.distribution, draw_seed(seed)
        rng = np.random.default_rng(seed)
        generator = torch.Generator(device=module.device).manual_seed(seed)
        rows = cells.start_rows(source, n_cells, rng, replace=True)
        back = np.argsort(rows, kind="stable")  # to the order of the file
        columns = self._columns() if cells.by_name else None
        drawing = distribution if columns is None else distribution.of_genes(columns)
        at_control = self.calibration.offset(torch.zeros_like(masks[0]))
        offsets = [self.calibration.offset(mask) for mask in track(masks, "Means")]
        placed = None
        if codes is not None:  # seeded apart, so that the draws are those without it
            placed = np.random.default_rng((seed, 1)).permutation(np.resize(codes, len(rows)))
        libraries, start = [], 0
        with (
            PartsInMemory(len(labels)) if path is None else PartsInFile(len(labels), path) as found,
            progress_bar("Cells", len(labels) * -(-len(rows) // _BATCH)) as advance,
        ):
            for tensors in cells.batches(manager, rows=rows, batch_size=_BATCH):
                if placed is not None:
                    tensors = in_batch(tensors, torch.as_tensor(placed[start : start + len(tensors[KEYS.X])]))
                    start += len(tensors[KEYS.X])
                z, covariates = self.latents.draw_batch(tensors, rng), module.covariates(tensors)
                library = tensors.get(KEYS.LIBRARY)
                observed = distribution.observed(tensors[KEYS.X], module.expression(tensors))
                before = module.decode(z, covariates, library, at_control)
                for i, (mask, offset) in enumerate(zip(masks, offsets, strict=True)):
                    after = module.decode(module.modulator(z, mask[None]), covariates, library, offset)
                    if noise == "own":
                        drawn = drawing.carry(
                            _taken(observed, columns), _taken(before, columns), _taken(after, columns), generator
                        )
                    else:
                        drawn = drawing.draw(_taken(after, columns), generator)
                    if columns is not None:
                        drawn = drawn[:, torch.argsort(columns)]
                    found.append(i, distribution.pack(drawn))
                    advance()
                if library is not None:
                    libraries.append(library.cpu().numpy().ravel())
            sizes = np.concatenate(libraries) if libraries else None
            in_file = (None if x is None else x[back] for x in (placed, sizes))
            obs = self._obs_of(labels, source.obs_names[rows[back]], *in_file)
            var = genes_of(source, cells.var_names)
            return found.cells(distribution, obs, var, sizes, back)

    def _columns(self) -> torch.Tensor | None:
        """Columns of the genes in the order of their names, in which they get their random numbers."""
        order = name_order(self.latents.cells.var_names)
        if (np.diff(order) == 1).all():
            return None
        return torch.as_tensor(order, device=self.latents.cells.module.device)

    def _obs_of(
        self, labels: list[str], starts: pd.Index, placed: np.ndarray | None, sizes: np.ndarray | None
    ) -> pd.DataFrame:
        """Table of predicted cells: their perturbation, the cells they start from, batches and library sizes."""
        n = len(starts)
        obs = pd.DataFrame(
            {
                "perturbation": pd.Categorical(np.repeat(labels, n), categories=list(dict.fromkeys(labels))),
                "control_cell": np.tile(starts.astype(str), len(labels)),
            },
            index=np.arange(len(labels) * n).astype(str),
        )
        if placed is not None:
            ((key, known),) = known_categories(self.latents.cells.registry)[KEYS.BATCH].items()
            names = np.asarray(known)
            obs[key] = pd.Categorical(np.tile(names[placed], len(labels)), categories=names)
        if sizes is not None:
            obs["library_size"] = np.tile(sizes, len(labels))
        return obs

    @torch.inference_mode()
    def mean_expression(
        self,
        z: torch.Tensor,
        covariates: torch.Tensor | None,
        library: torch.Tensor | None,
        offset: torch.Tensor | float = 0.0,
    ) -> torch.Tensor:
        """Mean over cells of the expression that latents decode to, shape (genes,)."""
        module = self.latents.cells.module
        location = module.decode(z, covariates, library, offset)
        mean: torch.Tensor = module.distribution.expected_expression(location, library, **FINE).mean(0)
        return mean

    @torch.inference_mode()
    def sample_effects(
        self,
        perturbations: Perturbations,
        n_draws: int = 50,
        seed: int | None = None,
    ) -> np.ndarray:
        """Draw effects of perturbations from their joint posterior, from which all that is uncertain follows.

        Parameters
        ----------
        perturbations
            As in :meth:`predict`, each once; with a ``gene_embedding`` also genes that nobody perturbed.
        n_draws
            Number of draws.
        seed
            Seed of the draws; by default ``scvi.settings.seed``.

        Returns
        -------
        n_draws x perturbations x genes, float64, on the expression scale: what another condition of these genes would
        show, however many cells it had, against the mean that the control cells are a sample of: the error of these,
        which all measured effects share, is taken off as far as it is known, and else is in the spread. They are about
        the posterior mean, off which predictions are set. Genes that respond alike are drawn together, the size of a
        combination is uncertain as a whole, and perturbations share what they have in common. The same seed gives the
        same draws of a perturbation, whichever others are asked for with it (but for genes that nobody perturbed, whose
        draws depend on which of them are asked for together).

        Raises
        ------
        ValueError
            For an unknown gene, a perturbation that is named twice, and in a model without that posterior.

        Examples
        --------
        >>> model.sample_effects(["P01", "P02", "P01+P02"], n_draws=20, seed=0).shape
        (20, 3, 100)
        """
        asked = self.asked(perturbations)
        if len(set(asked.labels)) < len(asked.labels):
            raise ValueError(f"{asked.labels} names a perturbation twice.")
        check_integer("n_draws", n_draws, 1)
        posterior = self.posterior_of(asked)
        draws: np.ndarray = posterior.draw(asked.design, n_draws, draw_seed(seed)).numpy()
        return draws


def _taken(values: torch.Tensor, columns: torch.Tensor | None) -> torch.Tensor:
    """Values in some order of the columns, or as they are."""
    return values if columns is None else values[:, columns]
