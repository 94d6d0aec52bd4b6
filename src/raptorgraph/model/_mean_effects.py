"""Mean effects of perturbations: from the posterior, or decoded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_integer
from raptorgraph._progress import progress_bar, track
from raptorgraph.model._batches import TransformBatch, in_each, transform_codes
from raptorgraph.model._expected import QUADRATURE
from raptorgraph.model._field import KEYS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData
    from mudata import MuData
    from scvi.data import AnnDataManager

_CHUNK = 1024  # cells at a time
_READ = (KEYS.X, KEYS.LIBRARY, KEYS.BATCH, KEYS.CATEGORICAL, KEYS.CONTINUOUS)


class EffectsMixin:
    """Mean effects and their posterior."""

    @torch.inference_mode()
    def predict_effects(
        self,
        perturbations: str | Collection[str] | Sequence[str | Collection[str]],
        adata: AnnData | MuData | None = None,
        *,
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
        n_cells
            At most so many control cells enter the mean (seeded), where cells are decoded.
        return_sd
            Return standard deviations too.
        kind
            ``"posterior"``, or ``"decoder"`` for what the network alone has learned of the effects; by default the
            posterior where it applies and otherwise the decoder, shifted to the posterior where there is one.
        transform_batch
            Batch that the cells are decoded in: None for their own, the name of a batch, a list of names, or ``"all"``
            for all that the model knows (unless a batch has that name). Cells of a batch that the model was not trained
            on need it. Effects are the mean over the batches; they are decoded, since the
            posterior has one effect for all batches.

        Returns
        -------
        DataFrame perturbations x genes; with ``return_sd`` a second one with the standard deviation of each effect:
        of the mean over many cells in an experiment like this one, without the sampling of that experiment's cells.
        ``attrs["kind"]`` says what they are: ``"posterior"``, ``"decoder"``, or ``"shifted decoder"`` for a decoder
        that was shifted to the posterior.

        Raises
        ------
        ValueError
            For an unknown gene, batch or `kind`, and where the posterior is asked of a model or cells that have none.

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
        codes = transform_codes(self, transform_batch)
        manager = None if adata is None else self._query(adata, "controls", batch=codes is None)
        whole = kind != "decoder" and self._has_posterior and codes is None
        if whole and (adata is None or self._are_training_controls(manager)):
            with progress_bar("Effects"):
                frames = [self._frame(x, labels, "posterior") for x in self.module.effects.mean_and_sd(masks)]
            return tuple(frames) if return_sd else frames[0]
        if return_sd or kind == "posterior":
            raise ValueError(
                "The posterior of the effects is known for the controls of the training data, in trained models with "
                "effect_posterior=True: leave out `adata` and transform_batch, or ask without return_sd and "
                "kind='posterior'."
            )
        manager = self._query(adata, "controls") if manager is None else manager
        plain = kind == "decoder" or not self._has_posterior
        rng = np.random.default_rng(self._seed(None))
        cells = list(self._cells(manager, rows=self._start_rows(manager.adata, n_cells, rng, replace=False)))
        z = torch.cat([self._draw_latents(tensors, rng) for tensors in cells])
        each = {key: torch.cat([tensors[key] for tensors in cells]) for key in cells[0]}
        library = each.get(KEYS.LIBRARY)
        covariates = [self.module.covariates(tensors) for tensors in in_each(each, codes)]

        def mean(latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            offset, total = 0.0 if plain else self._offset(mask), 0.0
            for values in covariates:
                location = self.module.decode(latents, values, library, offset)
                total = total + self.module.mean_expression(location, library, **QUADRATURE).mean(0)
            return total / len(covariates)

        control = mean(z, torch.zeros_like(masks[0]))
        effects = torch.stack(
            [mean(self.module.modulator(z, mask[None]), mask) - control for mask in track(masks, "Effects")]
        )
        return self._frame(effects, labels, "decoder" if plain else "shifted decoder")

    def _frame(self, effects: torch.Tensor, labels: list[str], kind: str) -> pd.DataFrame:
        index, columns = pd.Index(labels, name="perturbation"), pd.Index(self.var_names_)
        frame = pd.DataFrame(effects.cpu().numpy().astype(np.float32), index, columns)
        frame.attrs["kind"] = kind
        return frame

    # -- whose controls ----------------------------------------------------------------------------------------------
    def _keep_controls(self, known_controls: np.ndarray) -> None:
        """Remember the training controls, and all controls of the training data where some were kept for a test."""
        groups = (known_controls, self._control_rows(self.adata))
        self.control_digests_ = sorted({self._digest(self.adata_manager, rows) for rows in groups})

    def _are_training_controls(self, manager: AnnDataManager) -> bool:
        """Whether the controls of registered cells are those that effects were measured against."""
        return self._digest(manager, self._control_rows(manager.adata)) in self.control_digests_

    def _digest(self, manager: AnnDataManager, rows: np.ndarray) -> str:
        """Digest of cells by what the model reads of them, whatever their order, names, type and storage."""
        dataset = manager.create_torch_dataset()
        cells = []
        for i in range(0, len(rows), _CHUNK):
            batch = dataset[rows[i : i + _CHUNK]]
            values = np.hstack([np.asarray(batch[key], dtype="<f4") for key in _READ if key in batch])
            values += 0.0  # a negative zero is a zero
            cells += [hashlib.blake2b(cell.tobytes(), digest_size=16).digest() for cell in values]
        return hashlib.blake2b(b"".join(sorted(cells)), digest_size=16).hexdigest()

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
        labels, masks = self._masks(perturbations)
        if len(set(labels)) < len(labels):
            raise ValueError(f"{labels} names a perturbation twice.")
        if not self._has_posterior:
            raise ValueError("There is no posterior to draw from: train a model with effect_posterior=True.")
        check_integer("n_draws", n_draws, 1)
        generator = torch.Generator().manual_seed(self._seed(seed))
        return self.module.effects.draw(masks, n_draws, generator).numpy()
