"""Predictions: cells of a perturbation, mean effects, counterfactuals of given cells, and their annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import settings

from raptorgraph._arguments import check_integer
from raptorgraph._progress import progress_bar, track
from raptorgraph.model._calibration import CalibrationMixin
from raptorgraph.model._expected import QUADRATURE
from raptorgraph.model._field import KEYS, MASK_KEY
from raptorgraph.model._loader import as_tensors
from raptorgraph.pp._asked import asked_perturbations
from raptorgraph.pp._expression import TARGET_SUM

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from anndata import AnnData
    from mudata import MuData

_BATCH = 1024  # cells


class PredictionMixin(CalibrationMixin):
    """Everything a trained model predicts."""

    # -- cells -----------------------------------------------------------------------------------------------------
    def _control_rows(self, adata: AnnData) -> np.ndarray:
        """Rows of control cells, or all rows where there are none."""
        rows = np.flatnonzero(np.asarray(adata.obsm[MASK_KEY].sum(1)).ravel() == 0)
        return rows if len(rows) else np.arange(adata.n_obs)

    def _cells(self, adata, *, rows=None, batch_size: int = _BATCH) -> Iterator[dict[str, torch.Tensor]]:
        """Yield tensors of registered cells, batch by batch, on the model's device."""
        self._check_if_trained(warn=True)
        check_integer("batch_size", batch_size, 1)
        adata = self._validate_anndata(adata)
        dataset = self.get_anndata_manager(adata, required=True).create_torch_dataset()
        rows = np.arange(adata.n_obs) if rows is None else rows
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

        Returns
        -------
        AnnData with the expression scale in ``X``, for likelihood ``"nb"`` counts in ``layers["counts"]``;
        ``obs["perturbation"]``, ``obs["control_cell"]`` (the cell it started from) and, for counts,
        ``obs["library_size"]``. A cell of likelihood ``"normal"`` can lie below 0.

        Raises
        ------
        ValueError
            For an unknown gene or `noise`, and for `n_cells` below 1.

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
        source = self._validate_anndata(self._expression(adata, labels=True))
        rng = np.random.default_rng(self._seed(seed))
        generator = torch.Generator(device=self.device).manual_seed(self._seed(seed))
        rows = self._start_rows(source, n_cells, rng, replace=True)
        module, counts = self.module, self.module.likelihood == "nb"
        at_control = self._offset(torch.zeros_like(masks[0]))
        offsets = [self._offset(mask) for mask in track(masks, "Means")]
        cells: list[list] = [[] for _ in labels]
        library_sizes = []
        with progress_bar("Cells", len(labels) * -(-len(rows) // _BATCH)) as advance:
            for tensors in self._cells(source, rows=rows):
                z, covariates, library = (
                    self._draw_latents(tensors, rng),
                    module.covariates(tensors),
                    tensors.get(KEYS.LIBRARY),
                )
                measured = tensors[KEYS.X] if counts else module.expression(tensors[KEYS.X], library)
                before = module.decode(z, covariates, library, at_control)
                for found, mask, offset in zip(cells, masks, offsets, strict=True):
                    after = module.decode(module.modulator(z, mask[None]), covariates, library, offset)
                    if noise == "own":
                        drawn = module.carry(measured, before, after, generator)
                    else:
                        drawn = module.draw(after, generator)
                    found.append(sparse.csr_matrix(drawn.cpu().numpy()) if counts else drawn.cpu().numpy())
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
        if library_sizes:
            obs["library_size"] = np.tile(np.concatenate(library_sizes), len(labels))
        parts = [part for found in cells for part in found]
        if not counts:
            return ad.AnnData(np.vstack(parts), obs=obs, var=source.var.copy())
        drawn = sparse.vstack(parts).tocsr()
        X = sparse.diags_array(TARGET_SUM / obs["library_size"].to_numpy()) @ drawn
        return ad.AnnData(X.log1p().astype(np.float32), obs=obs, var=source.var.copy(), layers={"counts": drawn})

    @torch.inference_mode()
    def predict_effects(
        self,
        perturbations: str | Collection[str] | Sequence[str | Collection[str]],
        adata: AnnData | MuData | None = None,
        *,
        n_cells: int = 256,
        return_sd: bool = False,
        kind: str | None = None,
    ) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
        """Mean effects on the expression scale, predicted perturbed minus predicted control.

        For the controls of the training data they are what the hierarchical posterior predicts
        (:class:`raptorgraph.nn.EffectPosterior`, which says how that differs from its mean). For other cells, and in a
        model without that posterior, they are expectations, not draws: the same control cells are decoded with and
        without the perturbation.

        Parameters
        ----------
        perturbations
            One or more, as in :meth:`predict`: a list of strings is a list of labels, a tuple or set of strings one
            perturbation.
        adata
            As in :meth:`predict`.
        n_cells
            At most so many control cells enter the mean (seeded), where cells are decoded.
        return_sd
            Return standard deviations too.
        kind
            ``"posterior"``, or ``"decoder"`` for what the network alone has learned of the effects; by default the
            posterior where it applies and otherwise the decoder, shifted to the posterior where there is one.

        Returns
        -------
        DataFrame perturbations x genes; with ``return_sd`` a second one with the standard deviation of each effect:
        of the mean over many cells in an experiment like this one, without the sampling of that experiment's cells.

        Raises
        ------
        ValueError
            For an unknown gene or `kind`, and where the posterior is asked of a model or of cells that have none.

        Examples
        --------
        >>> effects, sd = model.predict_effects(["P01", "P01+P02"], return_sd=True)
        >>> effects.shape
        (2, 100)
        >>> bool((sd > 0).all(axis=None))
        True
        """
        if kind not in (None, "posterior", "decoder"):
            raise ValueError(f"kind={kind!r} is unknown; use 'posterior' or 'decoder'.")
        labels, masks = self._masks(perturbations)
        adata = self._expression(adata, labels=True)
        own_cells = adata is None or adata is self.adata
        if kind != "decoder" and own_cells and self._has_posterior:
            with progress_bar("Effects"):
                mean, sd = self.module.effects.mean_and_sd(masks.cpu())
            index = pd.Index(labels, name="perturbation")
            columns = pd.Index(self.var_names_)
            frames = [pd.DataFrame(x.numpy().astype(np.float32), index, columns) for x in (mean, sd)]
            return tuple(frames) if return_sd else frames[0]
        if return_sd or kind == "posterior":
            raise ValueError(
                "The posterior of the effects is known for the controls of the training data, in trained models with "
                "effect_posterior=True: leave out `adata`, or ask without return_sd and kind='posterior'."
            )
        plain = kind == "decoder"
        source = self._validate_anndata(adata)
        rng = np.random.default_rng(self._seed(None))
        cells = list(self._cells(source, rows=self._start_rows(source, n_cells, rng, replace=False)))
        z = torch.cat([self._draw_latents(tensors, rng) for tensors in cells])
        covariates, library = (
            None if parts[0] is None else torch.cat(parts)
            for parts in zip(*((self.module.covariates(x), x.get(KEYS.LIBRARY)) for x in cells), strict=True)
        )

        def mean(latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            location = self.module.decode(latents, covariates, library, 0.0 if plain else self._offset(mask))
            return self.module.mean_expression(location, library, **QUADRATURE).mean(0)

        control = mean(z, torch.zeros_like(masks[0]))
        effects = torch.stack(
            [mean(self.module.modulator(z, mask[None]), mask) - control for mask in track(masks, "Effects")]
        )
        return pd.DataFrame(
            effects.cpu().numpy(), index=pd.Index(labels, name="perturbation"), columns=source.var_names
        )

    @torch.inference_mode()
    def sample_effects(
        self,
        perturbations: str | Collection[str] | Sequence[str | Collection[str]],
        n_draws: int = 50,
        seed: int | None = None,
    ) -> np.ndarray:
        """Draw the effects of a few perturbations from their joint posterior.

        Parameters
        ----------
        perturbations
            As in :meth:`predict`, each once.
        n_draws
            Number of draws.
        seed
            Of the draws; by default ``scvi.settings.seed``.

        Returns
        -------
        n_draws x perturbations x genes, float64, on the expression scale, of the effects that belong to the perturbed
        genes (standard deviations of :meth:`predict_effects` hold what is a condition's own, too). Given what was
        learned of all genes, the effects on two genes are drawn independently.

        Raises
        ------
        ValueError
            For an unknown gene, a perturbation that is named twice, and in a model without that posterior.

        Examples
        --------
        >>> model.sample_effects(["P01", "P02", "P01+P02"], n_draws=20, seed=0).shape
        (20, 3, 100)
        """
        labels, masks = self._masks(perturbations)
        if len(set(labels)) < len(labels):
            raise ValueError(f"{labels} names a perturbation twice.")
        if not self._has_posterior:
            raise ValueError("There is no posterior to draw from: train a model with effect_posterior=True.")
        check_integer("n_draws", n_draws, 1)
        generator = torch.Generator().manual_seed(self._seed(seed))
        return self.module.effects.draw(masks.cpu(), n_draws, generator).numpy()
