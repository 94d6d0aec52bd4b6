"""Expectations for given cells: what they would show, on average over all that is not known of them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph.model._batches import TransformBatch, in_each, transform_codes
from raptorgraph.model._cells import draw_seed, genes_of
from raptorgraph.model._field import KEYS
from raptorgraph.nn._expectation import FINE
from raptorgraph.nn._posterior_draws import N_DRAWS, posterior_draws
from raptorgraph.screen._cells_file import write_cells

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData
    from scvi.data import AnnDataManager

    from raptorgraph.model._predictor import Predictor
    from raptorgraph.model._types import Data, Perturbations


@docs.dedent
def get_counterfactual(
    predictor: Predictor,
    perturbation: str | Collection[str],
    adata: Data | None = None,
    batch_size: int = 512,
    *,
    n_samples: int = N_DRAWS,
    seed: int | None = None,
    transform_batch: TransformBatch = None,
    out: str | Path | None = None,
) -> np.ndarray | AnnData:
    """Return the expected expression of these very cells, had they been perturbed.

    The exogenous latents of a cell are not known exactly: they are drawn from their posterior, shifted, carried
    along the graph and decoded, as in training, and the expectation is the mean over the draws. (Decoding the
    posterior mean instead would take a cell where no training cell was, above all with ``latent_norm="layer"``.)
    All cells and perturbations share the draws: the answer for a cell does not depend on which others are asked
    with it, and the difference between two perturbations holds no noise of its own.

    Parameters
    ----------
    perturbation
        One label, or the genes of one perturbation; ``"control"`` gives the cells' reconstruction.
    adata
        Cells, best control cells: a perturbation is added to whatever state the cell is in. By default all
        cells of the model.
    batch_size
        Cells at a time.
    n_samples
        Draws of the latents, in pairs of opposite sign (an odd number is rounded up).
    seed
        Seed of the draws; by default ``scvi.settings.seed``.
    %(transform_batch)s
        The expectation is the mean over the batches.
    %(out)s

    Returns
    -------
    Cells x genes, float32, on the expression scale. With `out` an AnnData of them in ``X``, whose values stay in the
    file.

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
    check_integer("n_samples", n_samples, 1)
    cells = predictor.latents.cells
    path = cells.destination(out, adata)
    _, mask = predictor.masks([perturbation])
    codes = transform_codes(cells.registry, transform_batch)
    manager = cells.query(adata, "cells", batch=codes is None)
    parts = counterfactual_parts(predictor, manager, mask, batch_size, n_samples, draw_seed(seed), codes)
    if path is None:
        return np.concatenate(list(parts))
    return write_cells(path, parts, manager.adata.obs, genes_of(manager.adata, cells.var_names))


def counterfactual_parts(
    predictor: Predictor,
    manager: AnnDataManager,
    mask: torch.Tensor,
    batch_size: int,
    n_samples: int,
    seed: int,
    codes: list[int] | None,
) -> Iterator[np.ndarray]:
    """Expected expression of registered cells under a perturbation (1 x perturbed genes), batch by batch."""
    cells, module = predictor.latents.cells, predictor.latents.cells.module
    offset = predictor.calibration.offset(mask[0])
    for tensors in cells.batches(manager, batch_size=batch_size):
        with torch.inference_mode():
            library = tensors.get(KEYS.LIBRARY)
            posterior = predictor.latents.encode(tensors)
            expected = [
                module.expected_expression(
                    posterior, mask, module.covariates(placed), library, offset, n_draws=n_samples, seed=seed, **FINE
                )
                for placed in in_each(tensors, codes)
            ]
            found = torch.stack(expected).mean(0).cpu().numpy().astype(np.float32)
        yield found


@torch.inference_mode()
def get_normalized_expression(
    predictor: Predictor,
    adata: Data | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    transform_batch: TransformBatch = None,
    gene_list: Sequence[str] | None = None,
    library_size: float | str = 1.0,
    n_samples: int = N_DRAWS,
    batch_size: int = 512,
    return_mean: bool = True,
    return_numpy: bool = False,
    *,
    seed: int | None = None,
) -> pd.DataFrame | np.ndarray:
    """Decoded expression of cells as they are, without measurement noise, as scvi-tools' models give it.

    Parameters
    ----------
    adata
        Cells, whatever their labels; by default all cells of the model.
    indices
        Rows of the cells to use, or a mask of them; by default all.
    transform_batch
        As in :meth:`get_counterfactual`.
    gene_list
        Genes to return; by default all.
    library_size
        Counts are scaled to this total: 1 gives frequencies. ``"latent"`` takes each cell's own library size.
    n_samples
        Draws of the latents from their posterior.
    batch_size
        Cells at a time.
    return_mean
        Return the mean over the draws; otherwise every draw.
    return_numpy
        Return an array and no table.
    seed
        Seed of the draws; by default ``scvi.settings.seed``.

    Returns
    -------
    DataFrame cells x genes, or an array with `return_numpy`; without `return_mean` an array, draws x cells x genes.
    Likelihood ``"nb"`` gives the mean counts at that library size, so that rows of a part of the genes sum to less,
    ``"normal"`` the mean on the expression scale, whatever the library size. To compare it with measured values on
    the expression scale, use ``get_counterfactual("control")``.

    Raises
    ------
    ValueError
        For an unknown gene or batch, a `library_size` that is none, and numbers below 1.

    Examples
    --------
    >>> frequencies = model.get_normalized_expression(indices=[0, 1], gene_list=["P01", "P02"])
    >>> frequencies.shape
    (2, 2)
    >>> bool((frequencies.to_numpy() < 1).all())
    True
    """
    check_integer("n_samples", n_samples, 1)
    cells, module = predictor.latents.cells, predictor.latents.cells.module
    module.distribution.check_library_size(library_size)
    genes = pd.Index(cells.var_names)
    asked = genes if gene_list is None else pd.Index(list(gene_list))
    unknown = asked.difference(genes)
    if len(unknown):
        raise ValueError(f"gene_list: {', '.join(map(str, unknown[:10]))} are not genes of the model.")
    columns = torch.as_tensor(genes.get_indexer(asked), device=module.device)
    codes = transform_codes(cells.registry, transform_batch)
    manager = cells.query(adata, "cells", batch=codes is None)
    rows = np.arange(manager.adata.n_obs)
    rows = rows if indices is None else np.atleast_1d(rows[np.asarray(indices)])
    none = torch.zeros(len(predictor.latents.genes), device=module.device)
    offset, seed = predictor.calibration.offset(none), draw_seed(seed)
    parts = []
    for tensors in cells.batches(manager, rows=rows, batch_size=batch_size):
        library = tensors.get(KEYS.LIBRARY)
        posterior = predictor.latents.encode(tensors)
        placed = [module.covariates(values) for values in in_each(tensors, codes)]
        # Means take the draws whose moments are exact, draws by themselves are independent.
        n_draws = n_samples if return_mean else 2 * max(n_samples, N_DRAWS)
        draws = posterior_draws(*posterior, n_draws, seed)
        each = []
        for z in draws if return_mean else islice(draws, n_samples):
            located = torch.stack([module.decode(z, values, library, offset) for values in placed]).mean(0)
            each.append(module.distribution.at_library_size(located, library, library_size)[:, columns])
        drawn = torch.stack(each)
        parts.append((drawn.mean(0) if return_mean else drawn).cpu().numpy())
    found = np.concatenate(parts, axis=-2) if parts else np.zeros((0, len(columns)), np.float32)
    if return_numpy or not return_mean:
        return found
    return pd.DataFrame(found, index=manager.adata.obs_names[rows], columns=genes[columns.cpu().numpy()])


@torch.inference_mode()
def mean_control_profiles(predictor: Predictor, perturbations: Perturbations, seed: int | None = None) -> pd.DataFrame:
    """Profiles that the mean of the model's own control cells has under perturbations (Eq. S17).

    The mean expression of the controls is encoded as if it were a cell, with their mean library size and covariates;
    its latents are drawn as in :func:`get_counterfactual`. A mean cell is none that the network was trained on, so that
    its profile is not the mean over cells.

    Parameters
    ----------
    predictor
        Predictions of a trained model.
    perturbations
        As in :meth:`Predictor.predict`.
    seed
        Seed of the draws; by default ``scvi.settings.seed``.

    Returns
    -------
    Canonical labels x genes, on the expression scale.

    Raises
    ------
    ValueError
        For an unknown gene.
    """
    labels, masks = predictor.masks(perturbations)
    cells, module = predictor.latents.cells, predictor.latents.cells.module
    manager = cells.query()
    rows = cells.control_rows(manager.adata)
    sums = [
        tuple(map(_sum, (module.expression(tensors), tensors.get(KEYS.LIBRARY), module.covariates(tensors))))
        for tensors in cells.batches(manager, rows=rows)
    ]
    each = (_mean(parts, len(rows)) for parts in zip(*sums, strict=True))
    expression, library, covariates = (None if mean is None else mean.to(module.device) for mean in each)
    assert expression is not None
    posterior = module.encode(expression)
    found = [
        module.expected_expression(
            posterior,
            mask[None],
            covariates,
            library,
            predictor.calibration.offset(mask),
            n_draws=N_DRAWS,
            seed=draw_seed(seed),
            **FINE,
        )[0]
        for mask in masks
    ]
    return pd.DataFrame(torch.stack(found).cpu().numpy(), index=labels, columns=list(cells.var_names))


def _sum(values: torch.Tensor | None) -> torch.Tensor | None:
    """Sum over cells, 1 x columns."""
    return None if values is None else values.cpu().double().sum(0, keepdim=True)


def _mean(sums: Sequence[torch.Tensor | None], n_cells: int) -> torch.Tensor | None:
    """Mean over the cells of all batches, 1 x columns; None where the cells have none of it."""
    found = [part for part in sums if part is not None]
    return (torch.cat(found).sum(0, keepdim=True) / n_cells).float() if found else None
