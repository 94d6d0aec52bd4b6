"""Which cells responded to their perturbation, and which escaped it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_number
from raptorgraph._progress import progress_line
from raptorgraph.model._cells import draw_seed
from raptorgraph.model._escape import drawn_in, fit_mixture, fit_shares, posterior
from raptorgraph.model._field import KEYS
from raptorgraph.screen._guides import guide_names
from raptorgraph.screen._inputs import obs_column

if TYPE_CHECKING:
    from scipy import sparse
    from scvi.data import AnnDataManager
    from torch import Tensor

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._cells import Cells
    from raptorgraph.model._escape import Mixture
    from raptorgraph.model._module import RaptorGraphModule
    from raptorgraph.model._predictor import Predictor
    from raptorgraph.model._types import Data

_REST = 0.4  # of what the encoder says of the other latents, which take a part of the response for their own
_MOST_STORED = 200_000  # cells that it is fitted to, where they are not in memory
_MOST_CONTROLS, _FEWEST_CONTROLS, _N_PAIRS = 256, 64, 50_000  # of a gene; fewer where there are many genes


def get_response_probability(
    predictor: Predictor,
    adata: Data | None = None,
    batch_size: int = 1024,
    *,
    guide_key: str | None = None,
    share: float | None = None,
) -> pd.Series:
    r"""Probability that each cell responded to its perturbation, given its expression and its label.

    A cell is scored by the likelihood ratio of two decoded cells, with and without the shift of its own latent, from 0
    (expected of a cell without the shift) to 1 (with it). Scores of cells that escaped are as those of control cells;
    scores of cells that responded have a mean and a variance of their own, and a cell of gene g escaped with
    probability :math:`\pi_g`. All three were fitted to the training cells.

    Parameters
    ----------
    adata
        Cells with labels; by default those of the model. Genes are matched by name.
    batch_size
        Cells at a time.
    guide_key
        Column of ``obs`` with the guide of each cell: the share of responders is then estimated for each guide of a
        gene in these cells, near that of the gene where a guide has few of them. By default the one of the setup, where
        the cells have it.
    share
        Share of responders, above 0 and below 1, to be taken for granted for every gene: at 0.5 the odds of a cell are
        its likelihood ratio. By default what was estimated.

    Returns
    -------
    Series named ``"raptorgraph_responded"`` with the names of the cells, in [0, 1]. NaN for control cells; for a
    combination the probability that all of its genes responded.

    Raises
    ------
    KeyError
        If `guide_key` is no column, and for cells without labels.
    ValueError
        For a gene that the model does not know as perturbed, cells of an unknown batch, a `share` out of range, both
        `share` and `guide_key`, and in an older model without data, which was not fitted to any.

    Examples
    --------
    >>> responded = model.get_response_probability()
    >>> bool((responded[adata.obs["perturbation"] == "P01"] > 0.5).mean() > 0.9)
    True
    >>> bool(responded[adata.obs["perturbation"] == "control"].isna().all())
    True
    """
    if share is not None:
        check_number("share", share, 0, 1, above=True)
        if share == 1 or guide_key is not None:
            raise ValueError(f"share={share!r} must be below 1, and comes without guide_key: leave one of them out.")
    cells = predictor.latents.cells
    manager = cells.query(adata)
    if adata is not None:  # there cells without labels would pass for controls
        obs_column(cells.data(adata, labels=True), cells.setup.perturbation_key, "perturbation_key")
    guides = _guides(cells, adata, guide_key) if share is None else None
    mask = manager.get_from_registry(KEYS.PERTURBATION).tocsr()
    perturbed = np.flatnonzero(np.diff(mask.indptr))
    found = np.full(mask.shape[0], np.nan)
    found[perturbed] = 1.0
    rows, gene, log_ratio = response_log_ratios(predictor, manager, perturbed, batch_size)
    mixture: Mixture = cells.module.responses.mixture
    escape = mixture.escape[gene] if share is None else np.full(len(gene), 1 - share)
    if guides is not None:
        known, group = np.unique(guides[rows], return_inverse=True)
        pairs, group = np.unique(gene * len(known) + group, return_inverse=True)
        escape = fit_shares(log_ratio, group, mixture.escape[pairs // len(known)])[group]
    np.multiply.at(found, rows, posterior(log_ratio, escape))
    return pd.Series(found, index=manager.adata.obs_names, name="raptorgraph_responded")


def _guides(cells: Cells, adata: Data | None, guide_key: str | None) -> np.ndarray | None:
    """Guide of each cell as text, empty where it has none; None where no column has them."""
    data, key = cells.data(adata), cells.setup.guide_key if guide_key is None else guide_key
    if key is None or (guide_key is None and key not in data.obs):
        return None
    return np.array([name or "" for name in guide_names(data, key)])


def response_log_ratios(
    predictor: Predictor, manager: AnnDataManager, rows: np.ndarray, batch_size: int = 1024
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, gene and logarithm of the likelihood ratio of having responded, of each perturbed gene of these cells.

    Fits the mixture of an older model to its data first; ValueError where it has none.
    """
    cells = predictor.latents.cells
    if not cells.module.responses.is_fitted:
        if cells.own is None:
            raise ValueError(
                "The model was saved by an older version, which did not tell responders: load it with its data, "
                "load(folder, adata), to fit them."
            )
        cells.module.responses.store(fit_responses(cells, predictor.test_rows))
    mixture: Mixture = cells.module.responses.mixture
    seen = manager is cells.own or cells.digest(manager) in predictor.control_digests
    mask = manager.get_from_registry(KEYS.PERTURBATION).tocsr()
    row, gene, score, noise, _ = _scores(cells, manager, rows, mask[rows], batch_size)
    return row, gene, mixture.log_ratio(drawn_in(score, noise, mixture.noise[gene]), gene, seen=seen)


def fit_escape(model: RaptorGraphModel) -> None:
    """Fit the scores of responders and the probability of escape to the cells of a model, once it is trained."""
    mixture = fit_responses(model.cells, model.predictor.test_rows)
    model.module.responses.store(mixture)
    if model.module.prior is not None:
        with torch.no_grad():
            model.module.prior.escape_logit.copy_(torch.as_tensor(mixture.escape).logit())


@progress_line("Cells that responded")
def fit_responses(cells: Cells, left_out: np.ndarray | None) -> Mixture:
    """Fit the mixture of responders and of cells that escaped to the model's own cells, but for those left out.

    A gene is fitted to the cells in which it is perturbed alone, or where there are none, to all of its cells. Of cells
    that are not in memory it takes at most 200,000, drawn at random, as many of each gene as far as it has them.
    """
    manager = cells.query()
    mask = manager.get_from_registry(KEYS.PERTURBATION).tocsr()
    alone = np.diff(mask.indptr) == 1
    never = np.bincount(mask[alone].indices, minlength=mask.shape[1]) == 0
    used = np.setdiff1d(np.flatnonzero(alone | (mask @ never > 0)), _rows(left_out))
    cell, gene = mask[used].nonzero()
    n_cells = np.bincount(gene[alone[used[cell]] | never[gene]], minlength=mask.shape[1])
    if manager.stored is not None and len(used) > _MOST_STORED:
        used = cells.in_order(manager.adata, used)
        used = _some_of_each(used, mask.indices[mask.indptr[used]], _MOST_STORED)
    rows, gene, score, noise, wide = _scores(cells, manager, used, mask[used])
    of_gene = alone[rows] | never[gene]
    k, controls = mask.shape[1], np.setdiff1d(cells.control_rows(manager.adata), _rows(left_out))
    n = min(len(controls), max(_FEWEST_CONTROLS, min(_MOST_CONTROLS, _N_PAIRS // k)))
    controls = cells.in_order(manager.adata, controls)
    controls = np.sort(np.random.default_rng((draw_seed(None), 11)).choice(controls, n, replace=False))
    null, of_null = _null_scores(cells, manager, controls, k)
    score, noise, gene, wide = (values[of_gene] for values in (score, noise, gene, wide))
    return fit_mixture(score, noise, gene, null, of_null, manager.adata.n_vars, wide, n_cells)


def _some_of_each(rows: np.ndarray, gene: np.ndarray, n: int) -> np.ndarray:
    """Draw `n` of the rows, as many of each gene as far as it has them."""
    order = np.random.default_rng((draw_seed(None), 13)).permutation(len(rows))
    order = order[np.argsort(gene[order], kind="stable")]
    sizes = np.unique(gene, return_counts=True)[1]
    place = np.concatenate([np.arange(size) for size in sizes])  # of each row among those of its gene
    return np.sort(rows[order[np.argsort(place, kind="stable")[:n]]])


@torch.inference_mode()
def _scores(
    cells: Cells, manager: AnnDataManager, rows: np.ndarray, masks: sparse.csr_array, batch_size: int = 1024
) -> tuple[np.ndarray, ...]:
    """Scores of some cells under each gene of their masks (rows x k).

    Returns row, gene, score and the variances that the likelihood gives the score of a small shift and of this one, one
    entry for each cell and gene.
    """
    # Small results of each batch, kept one by one, would leave holes in the memory that no later batch fits into.
    n, module = masks.count_nonzero(), cells.module
    row, genes, found = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), np.empty((3, n))
    start = end = 0
    for tensors in cells.batches(manager, rows=rows, batch_size=batch_size):
        part = slice(start, start + len(tensors[KEYS.X]))
        mask = torch.as_tensor(masks[part].toarray(), dtype=torch.float32, device=module.device)
        cell, gene = torch.nonzero(mask, as_tuple=True)
        at = slice(end, end + len(cell))
        row[at], genes[at] = rows[part][cell.cpu().numpy()], gene.cpu().numpy()
        found[:, at] = torch.stack(_score(module, tensors, mask, cell, gene)).cpu().numpy()
        start, end = part.stop, at.stop
    return row, genes, *found


@torch.inference_mode()
def _null_scores(
    cells: Cells, manager: AnnDataManager, rows: np.ndarray, n_perturbed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of some control cells under each gene, and their variances for a small shift, genes x cells."""
    module, parts = cells.module, []
    for tensors in cells.batches(manager, rows=rows):
        expression, cell = module.expression(tensors), torch.arange(len(tensors[KEYS.X]), device=module.device)
        encoded, found = module.encode(expression)[0], []  # once, and not for each gene
        for g in range(n_perturbed):
            mask = expression.new_zeros(len(cell), n_perturbed)
            mask[:, g] = 1.0
            gene = torch.full_like(cell, g)
            found.append(_score(module, tensors, mask, cell, gene, (expression, encoded))[:2])
        parts.append([torch.stack(each).cpu().numpy() for each in zip(*found, strict=True)])
    score, noise = (np.concatenate(each, axis=1).astype(np.float64) for each in zip(*parts, strict=True))
    return score, noise


def _score(
    module: RaptorGraphModule,
    tensors: dict[str, Tensor],
    mask: Tensor,
    cell: Tensor,
    gene: Tensor,
    known: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Score of each pair of a cell and one of its perturbed genes, and its variances; the other genes responded.

    The logarithm of the likelihood ratio of two locations is linear in what is observed, so that its expectation under
    either is that at the location. `known` are the expression of the cells and their encoded means.
    """
    expression = module.expression(tensors) if known is None else known[0]
    z = _REST * (module.encode(expression)[0] if known is None else known[1])
    own = slice(0, mask.shape[1])
    shift = module.modulator.shift(z, mask)
    z[:, own] = torch.where(mask > 0, shift, z[:, own])
    z = z[cell]
    without = z.clone()
    without[torch.arange(len(gene), device=gene.device), gene] -= shift[cell, gene]
    covariates, library = module.covariates(tensors), tensors.get(KEYS.LIBRARY)
    covariates, library = (None if x is None else x[cell] for x in (covariates, library))
    low, high = (module.decode(values, covariates, library) for values in (without, z))
    distribution = module.distribution
    slope = distribution.evidence(low, high)
    size = ((high - low) * slope).sum(1).clamp_min(1e-9)
    observed = distribution.observed(tensors[KEYS.X], expression)[cell]
    wide = (slope**2 * distribution.variance(high)).sum(1) / size**2
    return ((observed - low) * slope).sum(1) / size, 1 / size, wide


def _rows(rows: np.ndarray | None) -> np.ndarray:
    return np.zeros(0, dtype=np.int64) if rows is None else np.asarray(rows, dtype=np.int64)
