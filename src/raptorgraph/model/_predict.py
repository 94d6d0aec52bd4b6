"""Predicted cells, and what all predictions share: the cells they start from, and masks of perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scvi import settings

from raptorgraph._arguments import check_integer
from raptorgraph._progress import progress_bar, track
from raptorgraph.model._batches import TransformBatch, in_batch, transform_codes
from raptorgraph.model._calibration import CalibrationMixin
from raptorgraph.model._field import KEYS, MASK_KEY
from raptorgraph.model._loader import as_tensors
from raptorgraph.model._query import known_categories
from raptorgraph.screen._asked import asked_perturbations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from anndata import AnnData
    from mudata import MuData
    from scvi.data import AnnDataManager

_BATCH = 1024  # cells


class PredictionMixin(CalibrationMixin):
    """Everything a trained model predicts."""

    # -- cells -----------------------------------------------------------------------------------------------------
    def _control_rows(self, adata: AnnData) -> np.ndarray:
        """Rows of the control cells of registered data, or all rows where there are none."""
        if MASK_KEY not in adata.obsm:  # of a query, all cells are controls
            return np.arange(adata.n_obs)
        rows = np.flatnonzero(np.asarray(adata.obsm[MASK_KEY].sum(1)).ravel() == 0)
        return rows if len(rows) else np.arange(adata.n_obs)

    def _cells(
        self, manager: AnnDataManager, *, rows=None, batch_size: int = _BATCH
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Yield tensors of registered cells (by :meth:`_query`), batch by batch, on the model's device."""
        self._check_if_trained(warn=True)
        check_integer("batch_size", batch_size, 1)
        dataset = manager.create_torch_dataset()
        rows = np.arange(manager.adata.n_obs) if rows is None else rows
        self.module.eval()
        for i in track(range(0, len(rows), batch_size), "Cells"):
            batch = dataset[rows[i : i + batch_size]]
            yield {key: value.to(self.device) for key, value in as_tensors(batch).items()}

    def _masks(self, perturbations: str | Collection[str] | Iterable) -> tuple[list[str], torch.Tensor]:
        """Canonical labels and their 0/1 masks over the perturbed genes; ValueError for unknown genes."""
        args = {key: self.setup_args[key] for key in ("control", "delimiter")}
        sets = asked_perturbations(perturbations, self.perturbed_genes_, **args)
        column = {gene: j for j, gene in enumerate(self.perturbed_genes_)}
        mask = torch.zeros(len(sets), len(column), device=self.device)
        for i, genes in enumerate(sets):
            mask[i, [column[gene] for gene in genes]] = 1.0
        return [self._label(genes) for genes in sets], mask

    def _start_rows(self, adata: AnnData, n_cells: int | None, rng: np.random.Generator, *, replace: bool):
        """Rows of the control cells that a prediction starts from."""
        rows = self._control_rows(adata)
        if n_cells is not None:
            check_integer("n_cells", n_cells, 1)
        if n_cells is not None and (n_cells < len(rows) or replace):
            rows = np.sort(rng.choice(rows, n_cells, replace=n_cells > len(rows)))
        return rows

    def _draw_latents(self, tensors: dict[str, torch.Tensor], rng: np.random.Generator) -> torch.Tensor:
        """Draw z from its posterior given the cells."""
        mean, log_var = self.module.encode(self.module.expression(tensors[KEYS.X], tensors.get(KEYS.LIBRARY)))
        noise = torch.as_tensor(rng.standard_normal(mean.shape), dtype=mean.dtype, device=mean.device)
        return mean + torch.exp(0.5 * log_var) * noise

    def _seed(self, seed: int | None) -> int:
        if seed is not None:
            return check_integer("seed", seed, 0)
        return 0 if settings.seed is None else settings.seed

    # -- public ----------------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def predict(
        self,
        perturbations: str | Collection[str] | Sequence[str | Collection[str]],
        adata: AnnData | MuData | None = None,
        n_cells: int | None = None,
        seed: int | None = None,
        *,
        noise: str = "own",
        transform_batch: TransformBatch = None,
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
            Of the draw; by default ``scvi.settings.seed``.
        noise
            ``"own"``: a counterfactual of the starting cell, which keeps what the model does not explain of its
            measured expression; under ``"control"`` it is that cell. ``"new"``: noise is drawn anew from the
            likelihood, and with it cells show what the model has learned of controls.
        transform_batch
            Batch that the cells are decoded in: None for their own, the name of a batch, a list of names, or ``"all"``
            for all that the model knows (unless a batch has that name). Cells of a batch that the model was not trained
            on need it. Of several batches each gets as many cells as any other, in random
            order. With ``noise="own"`` a cell stays at the level that it was measured at, with ``"new"`` it gets that
            of the batch.

        Returns
        -------
        AnnData with the expression scale in ``X``, for likelihood ``"nb"`` counts in ``layers["counts"]``;
        ``obs["perturbation"]``, ``obs["control_cell"]`` (the cell it started from); for counts
        ``obs["library_size"]``; with `transform_batch` the batch, under the name of `batch_key`. A cell of likelihood
        ``"normal"`` can lie below 0.

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
        if noise not in ("own", "new"):
            raise ValueError(f"noise={noise!r} is unknown; use 'own' or 'new'.")
        labels, masks = self._masks(perturbations)
        codes = transform_codes(self, transform_batch)
        manager = self._query(adata, "controls", batch=codes is None)
        source = manager.adata
        rng = np.random.default_rng(self._seed(seed))
        generator = torch.Generator(device=self.device).manual_seed(self._seed(seed))
        rows = self._start_rows(source, n_cells, rng, replace=True)
        module, distribution = self.module, self.module.distribution
        at_control = self._offset(torch.zeros_like(masks[0]))
        offsets = [self._offset(mask) for mask in track(masks, "Means")]
        if codes is not None:
            # Seeded apart, so that the draws are those without it.
            codes = np.random.default_rng((self._seed(seed), 1)).permutation(np.resize(codes, len(rows)))
        cells: list[list] = [[] for _ in labels]
        library_sizes = []
        start = 0
        with progress_bar("Cells", len(labels) * -(-len(rows) // _BATCH)) as advance:
            for tensors in self._cells(manager, rows=rows):
                if codes is not None:
                    tensors = in_batch(tensors, torch.as_tensor(codes[start : start + len(tensors[KEYS.X])]))
                    start += len(tensors[KEYS.X])
                z, covariates, library = (
                    self._draw_latents(tensors, rng),
                    module.covariates(tensors),
                    tensors.get(KEYS.LIBRARY),
                )
                measured = distribution.observed(tensors[KEYS.X], module.expression(tensors[KEYS.X], library))
                before = module.decode(z, covariates, library, at_control)
                for found, mask, offset in zip(cells, masks, offsets, strict=True):
                    after = module.decode(module.modulator(z, mask[None]), covariates, library, offset)
                    if noise == "own":
                        drawn = distribution.carry(measured, before, after, generator)
                    else:
                        drawn = distribution.draw(after, generator)
                    found.append(distribution.pack(drawn))
                    advance()
                if library is not None:
                    library_sizes.append(library.cpu().numpy().ravel())
        obs = pd.DataFrame(
            {
                "perturbation": pd.Categorical(np.repeat(labels, len(rows)), categories=list(dict.fromkeys(labels))),
                "control_cell": np.tile(source.obs_names[rows].astype(str), len(labels)),
            },
            index=np.arange(len(labels) * len(rows)).astype(str),
        )
        if codes is not None:
            key = self.setup_args["batch_key"]
            names = np.asarray(known_categories(self.registry_)[KEYS.BATCH][key])
            obs[key] = pd.Categorical(np.tile(names[codes], len(labels)), categories=names)
        sizes = np.tile(np.concatenate(library_sizes), len(labels)) if library_sizes else None
        if sizes is not None:
            obs["library_size"] = sizes
        X, layers = distribution.matrices([part for found in cells for part in found], sizes)
        return ad.AnnData(X, obs=obs, var=source.var.copy(), layers=layers)
