"""Mean effects of perturbations: by the posterior or the decoder, of all cells or by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_choice
from raptorgraph._docs import docs
from raptorgraph._progress import progress_bar
from raptorgraph.model._batches import TransformBatch, transform_codes
from raptorgraph.model._cells import draw_seed
from raptorgraph.model._decoded_effects import controls_by_group, decoded_effects, offsets_of
from raptorgraph.model._group_effects import groups_of, infer_groups
from raptorgraph.model._unseen_genes import no_latent

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

    from raptorgraph.model._predictor import Predictor
    from raptorgraph.model._types import Data, Perturbations


@torch.inference_mode()
@docs.dedent
def predict_effects(
    predictor: Predictor,
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
        One or more, as in :meth:`~raptorgraph.RaptorGraphModel.predict`: a list of strings is a list of labels, a tuple
        or set of strings one perturbation. With a ``gene_embedding``
        (:meth:`~raptorgraph.RaptorGraphModel.setup_anndata`) also genes that nobody perturbed: their effects follow
        from those of genes that are alike there, by the posterior alone.
    adata
        As there. A copy of the training controls, in whatever order or type, counts as these.
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
    cells. The error of the mean of this screen's control cells is in it, since all effects share it: where these are
    few, they agree on a difference that is none.
    ``attrs["kind"]`` says what they are: ``"posterior"``, ``"decoder"``, or ``"shifted decoder"`` for a decoder
    that was shifted to the posterior. ``attrs["unseen_genes"]`` lists genes that nobody perturbed, where there are
    some.

    Raises
    ------
    KeyError
        If `groupby` is no column of ``obs``.
    ValueError
        For an unknown gene, batch or `kind`, for a gene that nobody perturbed where cells are decoded, where the
        posterior is asked of a model or cells that have none, and for a column of groups that has missing or
        continuous values, or groups with fewer than two controls.

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
    asked = predictor.asked(perturbations)
    labels, masks = asked.labels, asked.design
    cells, calibration = predictor.latents.cells, predictor.calibration
    calibrated = kind != "decoder" and calibration.is_fitted
    codes = transform_codes(cells.registry, transform_batch)
    manager = None if adata is None else cells.query(adata, "controls", batch=codes is None)
    if calibrated and codes is None and _are_training_controls(predictor, manager, groupby):
        groups = None
        if groupby is not None and asked.unseen:
            raise ValueError(no_latent(asked.unseen))
        with progress_bar("Effects"):
            if groupby is None:
                posterior = predictor.posterior_of(asked)  # standard deviations take longer than means
                tensors = posterior.mean_and_sd(masks) if return_sd else (posterior.mean(masks),)
                found = tuple(x.cpu().numpy() for x in tensors)
            else:
                by_group = infer_groups(predictor, groupby, adata)
                found, groups = by_group.of(labels, masks, predictor), by_group.groups
        if return_sd:
            shared = (masks.sum(1, keepdim=True) > 0).cpu().numpy() * calibration.control_variance.cpu().numpy()
            found = found[0], np.sqrt(found[1] ** 2 + (shared if groupby is None else shared[:, None]))
        frames = [_frame(predictor, values, labels, "posterior", groups) for values in found]
        for frame in frames if asked.unseen else ():
            frame.attrs["unseen_genes"] = list(asked.unseen)
        return (frames[0], frames[1]) if return_sd else frames[0]
    if asked.unseen:
        raise ValueError(no_latent(asked.unseen))
    masks = masks.to(cells.module.device)
    if return_sd or kind == "posterior":
        raise ValueError(
            "The posterior of the effects is known for the controls of the training data, in trained models with "
            "effect_posterior=True: leave out `adata` and transform_batch, or ask without return_sd and "
            "kind='posterior'."
        )
    manager = cells.query(adata, "controls") if manager is None else manager
    kind = "shifted decoder" if calibrated else "decoder"
    offsets = offsets_of(predictor, masks, calibrated=calibrated)
    if groupby is None:
        rng = np.random.default_rng(draw_seed(None))
        rows = cells.start_rows(manager.adata, n_cells, rng, replace=False)
        effects = decoded_effects(predictor, manager, rows, masks, rng, codes=codes, offsets=offsets)
        return _frame(predictor, effects, labels, kind)
    _, groups = groups_of(cells.data(adata), groupby)
    each = [
        decoded_effects(predictor, manager, rows, masks, rng, codes=codes, offsets=offsets)
        for rows, rng in controls_by_group(manager.adata, groupby, groups, n_cells, cells)
    ]
    return _frame(predictor, np.stack(each, axis=1), labels, kind, groups)


def _are_training_controls(predictor: Predictor, manager: AnnDataManager | None, groupby: str | None) -> bool:
    """Whether the posterior is that of these controls (of the training for None, where no cells are asked for)."""
    if manager is None and groupby is None:
        return True
    cells = predictor.latents.cells
    return cells.digest(cells.query(None) if manager is None else manager) in predictor.control_digests


def _frame(
    predictor: Predictor, effects: np.ndarray, labels: list[str], kind: str, groups: pd.Index | None = None
) -> pd.DataFrame:
    """Table of effects, perturbations (x groups) x genes."""
    columns = pd.Index(predictor.latents.cells.var_names)
    index = pd.Index(labels, name="perturbation")
    if groups is not None:
        index = pd.MultiIndex.from_product([index, groups])
    frame = pd.DataFrame(effects.reshape(-1, len(columns)).astype(np.float32), index, columns)
    frame.attrs["kind"] = kind
    return frame
