"""Predictions of a trained model: cells of perturbations, their mean effects, and draws of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_choice, check_integer
from raptorgraph._docs import docs
from raptorgraph._progress import progress_bar, track
from raptorgraph.model._batches import TransformBatch, in_batch, transform_codes
from raptorgraph.model._cells import draw_seed
from raptorgraph.model._decoded_effects import controls_by_group, decoded_effects
from raptorgraph.model._field import KEYS
from raptorgraph.model._group_effects import GroupPosterior, groups_of, infer_groups
from raptorgraph.model._query import known_categories
from raptorgraph.nn._expectation import FINE

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData
    from scvi.data import AnnDataManager

    from raptorgraph.model._calibration import Calibration
    from raptorgraph.model._latents import Latents
    from raptorgraph.model._types import Data, Perturbations
    from raptorgraph.nn._likelihood_base import Matrix

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

    Examples
    --------
    >>> model.predictor.masks(["P02", "P01+P03"])[1].int().tolist()
    [[0, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0]]
    """

    latents: Latents
    calibration: Calibration
    control_digests: Collection[str] = ()
    test_rows: np.ndarray | None = None

    def masks(self, perturbations: Perturbations) -> tuple[list[str], torch.Tensor]:
        """Canonical labels and their 0/1 masks over the perturbed genes; ValueError for unknown genes."""
        known, setup = list(self.latents.genes), self.latents.cells.setup
        sets = setup.asked(perturbations, known)
        mask = torch.zeros(len(sets), len(known), device=self.latents.cells.module.device)
        for i, genes in enumerate(sets):
            mask[i, [known.index(gene) for gene in genes]] = 1.0
        return [setup.label(genes) for genes in sets], mask

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
        check_choice("noise", noise, ("own", "new"))
        labels, masks = self.masks(perturbations)
        cells, module = self.latents.cells, self.latents.cells.module
        codes = transform_codes(cells.registry, transform_batch)
        manager = cells.query(adata, "controls", batch=codes is None)
        source, distribution, seed = manager.adata, module.distribution, draw_seed(seed)
        rng = np.random.default_rng(seed)
        generator = torch.Generator(device=module.device).manual_seed(seed)
        rows = cells.start_rows(source, n_cells, rng, replace=True)
        at_control = self.calibration.offset(torch.zeros_like(masks[0]))
        offsets = [self.calibration.offset(mask) for mask in track(masks, "Means")]
        placed = None
        if codes is not None:  # seeded apart, so that the draws are those without it
            placed = np.random.default_rng((seed, 1)).permutation(np.resize(codes, len(rows)))
        found: list[list[Matrix]] = [[] for _ in labels]
        libraries, start = [], 0
        with progress_bar("Cells", len(labels) * -(-len(rows) // _BATCH)) as advance:
            for tensors in cells.batches(manager, rows=rows, batch_size=_BATCH):
                if placed is not None:
                    tensors = in_batch(tensors, torch.as_tensor(placed[start : start + len(tensors[KEYS.X])]))
                    start += len(tensors[KEYS.X])
                z, covariates = self.latents.draw_batch(tensors, rng), module.covariates(tensors)
                library = tensors.get(KEYS.LIBRARY)
                observed = distribution.observed(tensors[KEYS.X], module.expression(tensors))
                before = module.decode(z, covariates, library, at_control)
                for parts, mask, offset in zip(found, masks, offsets, strict=True):
                    after = module.decode(module.modulator(z, mask[None]), covariates, library, offset)
                    if noise == "own":
                        drawn = distribution.carry(observed, before, after, generator)
                    else:
                        drawn = distribution.draw(after, generator)
                    parts.append(distribution.pack(drawn))
                    advance()
                if library is not None:
                    libraries.append(library.cpu().numpy().ravel())
        obs = pd.DataFrame(
            {
                "perturbation": pd.Categorical(np.repeat(labels, len(rows)), categories=list(dict.fromkeys(labels))),
                "control_cell": np.tile(source.obs_names[rows].astype(str), len(labels)),
            },
            index=np.arange(len(labels) * len(rows)).astype(str),
        )
        if placed is not None:
            ((key, known),) = known_categories(cells.registry)[KEYS.BATCH].items()
            names = np.asarray(known)
            obs[key] = pd.Categorical(np.tile(names[placed], len(labels)), categories=names)
        sizes = np.tile(np.concatenate(libraries), len(labels)) if libraries else None
        if sizes is not None:
            obs["library_size"] = sizes
        X, layers = distribution.matrices([part for parts in found for part in parts], sizes)
        return ad.AnnData(X, obs=obs, var=source.var.copy(), layers=layers)

    # -- mean effects ------------------------------------------------------------------------------------------------
    @torch.inference_mode()
    @docs.dedent
    def predict_effects(
        self,
        perturbations: Perturbations,
        adata: Data | None = None,
        *,
        groupby: str | None = None,
        n_cells: int = 256,
        return_sd: bool = False,
        kind: str | None = None,
        transform_batch: TransformBatch = None,
    ) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
        """Mean effects on the expression scale, predicted perturbed minus predicted control.

        For the controls of the training data they are what the hierarchical posterior predicts
        (:class:`raptorgraph.inference.EffectPosterior`, which says how that differs from its mean). For other cells,
        and in a model without that posterior, they are expectations, not draws: the same control cells are decoded with
        and without the perturbation.

        Parameters
        ----------
        perturbations
            One or more, as in :meth:`predict`: a list of strings is a list of labels, a tuple or set of strings one
            perturbation.
        adata
            As in :meth:`predict`. A copy of the training controls, in whatever order or type, counts as these.
        groupby
            Column of ``obs`` with groups of cells, such as a state, a cell type or a donor. Effects are then those
            within each group, against its controls: :func:`raptorgraph.inference.infer_group_effects` shrinks what was
            measured in the group, by the cells of `adata` or else the model's own, to the effect in all of them. A
            perturbation that was not measured takes its deviations from its members and from the network. The column
            may be newer than the model.
        n_cells
            Largest number of control cells (of each group), drawn at random, in the mean where cells are decoded.
        return_sd
            Return standard deviations too.
        kind
            ``"posterior"``, or ``"decoder"`` for what the network alone has learned of the effects; by default the
            posterior where it applies and otherwise the decoder, shifted to the posterior where there is one.
        %(transform_batch)s
            Effects are the mean over the batches; they are decoded, since the posterior has one effect for all batches.

        Returns
        -------
        DataFrame perturbations x genes; with `groupby` its rows are a MultiIndex of perturbation and group, named
        ``"perturbation"`` and as the column. With ``return_sd`` a second one with the standard deviation of each
        effect: of the mean over many cells in an experiment like this one, without the sampling of that experiment's
        cells.
        ``attrs["kind"]`` says what they are: ``"posterior"``, ``"decoder"``, or ``"shifted decoder"`` for a decoder
        that was shifted to the posterior.

        Raises
        ------
        KeyError
            If `groupby` is no column of ``obs``.
        ValueError
            For an unknown gene, batch or `kind`, where the posterior is asked of a model or cells that have none, and
            for a column of groups that has missing or continuous values, or groups with fewer than two controls.

        Examples
        --------
        >>> effects, sd = model.predict_effects(["P01", "P01+P02"], return_sd=True)
        >>> effects.shape
        (2, 100)
        >>> bool((sd > 0).all(axis=None))
        True
        >>> model.adata.obs["half"] = np.resize(["first", "second"], model.adata.n_obs)
        >>> model.predict_effects("P01", groupby="half").index.to_list()
        [('P01', 'first'), ('P01', 'second')]
        """
        if kind is not None:
            check_choice("kind", kind, ("posterior", "decoder"))
        labels, masks = self.masks(perturbations)
        cells, calibrated = self.latents.cells, kind != "decoder" and self.calibration.is_fitted
        codes = transform_codes(cells.registry, transform_batch)
        manager = None if adata is None else cells.query(adata, "controls", batch=codes is None)
        if calibrated and codes is None and self._are_training_controls(manager, groupby):
            if groupby is not None:
                with progress_bar("Effects"):
                    found = self.group_posterior(groupby, adata)
                    by_group = found.of(labels, masks, self)
                mean, sd = (self._frame(values, labels, "posterior", groupby, found.groups) for values in by_group)
                return (mean, sd) if return_sd else mean
            with progress_bar("Effects"):
                mean, sd = (
                    self._frame(values, labels, "posterior") for values in self.calibration.posterior.mean_and_sd(masks)
                )
            return (mean, sd) if return_sd else mean
        if return_sd or kind == "posterior":
            raise ValueError(
                "The posterior of the effects is known for the controls of the training data, in trained models with "
                "effect_posterior=True: leave out `adata` and transform_batch, or ask without return_sd and "
                "kind='posterior'."
            )
        manager = cells.query(adata, "controls") if manager is None else manager
        kind = "shifted decoder" if calibrated else "decoder"
        if groupby is None:
            rng = np.random.default_rng(draw_seed(None))
            rows = cells.start_rows(manager.adata, n_cells, rng, replace=False)
            effects = decoded_effects(self, manager, rows, masks, rng, codes=codes, calibrated=calibrated)
            return self._frame(effects, labels, kind)
        _, groups = groups_of(cells.data(adata), groupby)
        each = [
            decoded_effects(self, manager, rows, masks, rng, codes=codes, calibrated=calibrated)
            for rows, rng in controls_by_group(manager.adata, groupby, groups, n_cells)
        ]
        return self._frame(torch.stack(each, 1), labels, kind, groupby, groups)

    def _are_training_controls(self, manager: AnnDataManager | None, groupby: str | None) -> bool:
        """Whether the posterior is that of these controls (of the training for None, where no cells are asked for)."""
        if manager is None and groupby is None:
            return True
        cells = self.latents.cells
        return cells.digest(cells.query(None) if manager is None else manager) in self.control_digests

    def group_posterior(self, groupby: str, adata: Data | None = None) -> GroupPosterior:
        """Posterior of the effects by group of all measured perturbations, by the cells of the training.

        Parameters
        ----------
        groupby, adata
            As in :meth:`predict_effects`.

        Examples
        --------
        >>> model.adata.obs["half"] = np.resize(["first", "second"], model.adata.n_obs)
        >>> model.predictor.group_posterior("half").effects.scale.shape
        (10, 2)
        """
        return infer_groups(self, groupby, adata)

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
        """Draw the effects of a few perturbations from their joint posterior.

        Parameters
        ----------
        perturbations
            As in :meth:`predict`, each once.
        n_draws
            Number of draws.
        seed
            Seed of the draws; by default ``scvi.settings.seed``.

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
        labels, masks = self.masks(perturbations)
        if len(set(labels)) < len(labels):
            raise ValueError(f"{labels} names a perturbation twice.")
        posterior = self.calibration.posterior
        check_integer("n_draws", n_draws, 1)
        draws: np.ndarray = posterior.draw(masks, n_draws, torch.Generator().manual_seed(draw_seed(seed))).numpy()
        return draws

    def _frame(
        self,
        effects: torch.Tensor | np.ndarray,
        labels: list[str],
        kind: str,
        groupby: str | None = None,
        groups: pd.Index | None = None,
    ) -> pd.DataFrame:
        columns = pd.Index(self.latents.cells.var_names)
        if groups is None:
            index = pd.Index(labels, name="perturbation")
        else:
            index = pd.MultiIndex.from_product([labels, groups], names=["perturbation", groupby])
        values = effects.cpu().numpy() if isinstance(effects, torch.Tensor) else effects
        frame = pd.DataFrame(values.reshape(-1, len(columns)).astype(np.float32), index, columns)
        frame.attrs["kind"] = kind
        return frame
