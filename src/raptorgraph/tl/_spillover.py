"""How far an intervention on one gene spills over to the latents of others (paper, sections 2.4 and B.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import check_integer
from raptorgraph._docs import docs
from raptorgraph._progress import track
from raptorgraph.nn._posterior_draws import posterior_expectation
from raptorgraph.screen._screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anndata import AnnData

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.model._module import RaptorGraphModule

    Encoder = Callable[[torch.Tensor], torch.Tensor]

_BATCH = 256  # cells differentiated at a time


@docs.dedent
def spillover(
    model: RaptorGraphModel, adata: AnnData | None = None, *, n_cells: int = 256, seed: int = 0
) -> pd.DataFrame:
    """Measure how atomic interventions are among the exogenous latents of a model.

    Both indices of :func:`spillover_index`, for the exogenous variables z as the graph takes them, in units of their
    standard deviation among control cells (of the posterior's draws, so that a latent that carries no information
    does not count). Effects that travel along the graph are no spillover: they are in u, not in z.

    Parameters
    ----------
    %(model)s
    adata
        Control cells and, for the index of real cells, cells in which one gene is perturbed; by default the
        training data.
    n_cells
        Largest number of control cells in the Jacobian.
    seed
        Seed of the choice of cells and of the draws from the posterior.

    Returns
    -------
    pandas.DataFrame
        The table of :func:`spillover_index`, one row for each perturbed gene. The mean of a column is an index of
        the model; for real cells best the mean weighted by ``real_response``, as weak perturbations tell little.

    Raises
    ------
    KeyError
        If the column of labels is not in `adata`.
    ValueError
        If there are fewer than two control cells, `n_cells` is below 2, or the model was loaded without data.

    Notes
    -----
    The encoder reads a perturbed gene into its own latent only, so its Jacobian index is 0 by construction (not
    with ``latent_norm="layer"``, which ties all latents to each other). That makes the encoder atomic for a change of
    that gene *alone*. Real perturbed cells differ in the genes downstream as well, which the encoder reads into every
    latent. By default it is trained on such cells, under a prior in which a perturbation moves its own latent alone;
    how far that keeps their response there is what the index of real cells says. An encoder that has seen control cells
    alone (``perturbed_prior=False``) can spread it evenly. The modulator is atomic by construction.

    Examples
    --------
    >>> table = rg.tl.spillover(model)
    >>> table.index.tolist() == model.perturbed_genes
    True
    """
    check_integer("n_cells", n_cells, 2)
    module, cells = model.module, model.cells
    query = cells.query(adata, "latents")
    screen = Screen(cells.data(adata), model.setup_args)
    rows = screen.rows_by_name(screen.control)  # in the order of draws, which that of the file does not change
    rng = np.random.default_rng(seed)
    chosen = rows[np.sort(rng.choice(len(rows), min(n_cells, len(rows)), replace=False))]

    def encode(expression: torch.Tensor) -> torch.Tensor:
        return posterior_expectation(module.norm, *module.encode(expression))

    with torch.no_grad():
        z = torch.cat([encode(expression).cpu() for expression in cells.expression(query)]).numpy()
    singles = {screen.genes_of[label][0]: z[screen.rows(label)] for label in screen.singles}
    x = torch.cat(list(cells.expression(query, rows=chosen)))
    column = {gene: k for k, gene in enumerate(cells.var_names)}
    return _table(
        encode,
        x,
        z[rows],
        singles,
        {gene: column.get(gene) for gene in model.perturbed_genes},
        {gene: k for k, gene in enumerate(model.perturbed_genes)},
        _posterior_spread(module, x, rng),
    )


def spillover_index(
    encode: Encoder,
    x_control: torch.Tensor,
    x_perturbed: Mapping[str, torch.Tensor],
    gene_columns: Mapping[str, int | None],
    own_latent: Mapping[str, int | None],
    *,
    scale: np.ndarray | None = None,
) -> pd.DataFrame:
    r"""Measure for any encoder the share of a gene's intervention that is off one latent.

    The response r of latent j to gene g, squared and in units of the latent's spread s among control cells, is once
    that to a small change of the gene alone, and once that of real cells in which it was perturbed,

    .. math::
        r_{gj} = \frac{1}{s_j^2} \frac{1}{n} \sum_{c=1}^{n}
                 \left( \frac{\partial f_j}{\partial x_g}(x_c) \right)^2
        \qquad \text{and} \qquad
        r_{gj} = \frac{1}{s_j^2} \left[ (\bar f_{gj} - \bar f_{0j})^2 - \frac{v_{gj}}{n_g} - \frac{v_{0j}}{n_0} \right],

    where the sampling variance is taken off the squared difference of means: summed over many latents, noise would
    look like spillover. The index is :math:`1 - r_{gk} / \sum_j r_{gj}` with k the gene's own latent, or the latent
    that responds most: 0 for an atomic response, :math:`(d - 1) / d` for one spread evenly over d latents.

    Parameters
    ----------
    encode
        Maps cells x genes to cells x latents, differentiable, each cell for itself (no dropout, no statistics of the
        batch).
    x_control
        Control cells x genes, at least two.
    x_perturbed
        For each gene the cells in which it alone was perturbed; genes may be missing.
    gene_columns
        For each gene its column in the cells, None where it is not among the genes. Gives the rows of the result.
    own_latent
        For each gene its own latent, None (or missing) where it has none.
    scale
        Spread of each latent, shape (latents,). Default: its standard deviation among the control cells. Latents of
        spread 0 are left out.

    Returns
    -------
    pandas.DataFrame
        Indexed by gene:

        - ``jacobian_own``, ``jacobian_best``: index of the Jacobian, off the own latent and off the best one; NaN for
          a gene without column;
        - ``real_own``, ``real_best``: the same of real cells, from 0 to 1; NaN where fewer than two cells are
          perturbed, or the response is not above its sampling variance;
        - ``real_response``: sum of the real cells' responses over latents. Where it is near 0 or below, the indices
          of real cells are noise;
        - ``n_cells``: perturbed cells.

        The ``own`` indices are NaN for a gene without a latent of its own.

    Raises
    ------
    ValueError
        If there are fewer than two control cells, `encode` does not return cells x latents, or a column, a latent or
        `scale` does not fit.

    Examples
    --------
    An encoder whose first latent reads the first gene, and its second both:

    >>> import torch
    >>> mixing = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    >>> cells = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> index = rg.tl.spillover_index(
    ...     lambda x: x @ mixing, cells, {}, {"A": 0, "B": 1}, {"A": 0, "B": 1}, scale=np.ones(2)
    ... )
    >>> index["jacobian_own"].round(2).to_dict()
    {'A': 0.5, 'B': 0.0}
    """
    with torch.no_grad():
        encoded = encode(x_control)
        if encoded.ndim != 2 or len(encoded) != len(x_control):
            raise ValueError(
                f"encode must map cells x genes to cells x latents; {tuple(x_control.shape)} became "
                f"{tuple(encoded.shape)}."
            )
        z_perturbed = {gene: encode(x).cpu().numpy() for gene, x in x_perturbed.items()}
    z_control = encoded.cpu().numpy()
    scale = z_control.std(axis=0) if scale is None else np.asarray(scale, dtype=np.float64)
    return _table(encode, x_control, z_control, z_perturbed, gene_columns, own_latent, scale)


def _table(
    encode: Encoder,
    x: torch.Tensor,
    z_control: np.ndarray,
    z_perturbed: Mapping[str, np.ndarray],
    gene_columns: Mapping[str, int | None],
    own_latent: Mapping[str, int | None],
    scale: np.ndarray,
) -> pd.DataFrame:
    """Index of every gene, from control cells `x`, encoded control cells and encoded perturbed cells."""
    n_latents = z_control.shape[1]
    if len(z_control) < 2:
        raise ValueError(f"The spread of latents needs at least 2 control cells, got {len(z_control)}.")
    if scale.shape != (n_latents,) or not (scale >= 0).all():
        raise ValueError(f"scale must hold {n_latents} non-negative numbers, one for each latent; got {scale!r}.")
    weight = np.divide(1.0, scale**2, out=np.zeros(n_latents), where=scale > 0)
    for gene, column in gene_columns.items():
        for what, value, end in (("column", column, x.shape[1]), ("latent", own_latent.get(gene), n_latents)):
            if value is not None and not 0 <= value < end:
                raise ValueError(f"The {what} of {gene!r} is {value}, it must be from 0 to {end - 1}.")

    measured = {gene: column for gene, column in gene_columns.items() if column is not None}
    squares = _mean_squared_slopes(encode, x, list(measured.values()), n_latents)
    slopes = dict(zip(measured, squares, strict=True))
    nothing, rows = np.zeros(n_latents), {}
    for gene in gene_columns:
        own, cells = own_latent.get(gene), z_perturbed.get(gene, z_control[:0])
        shift = nothing if len(cells) < 2 else _squared_shift(cells, z_control)
        jacobian, real = (_off(weight * response, own) for response in (slopes.get(gene, nothing), shift))
        rows[gene] = {
            "jacobian_own": jacobian[0],
            "jacobian_best": jacobian[1],
            "real_own": real[0],
            "real_best": real[1],
            "real_response": float((weight * shift).sum()) if len(cells) > 1 else np.nan,
            "n_cells": len(cells),
        }
    return pd.DataFrame(list(rows.values()), index=pd.Index(rows, name="gene"))


def _mean_squared_slopes(encode: Encoder, x: torch.Tensor, columns: Sequence[int], n_latents: int) -> np.ndarray:
    """Mean over cells of the squared derivative of each latent by each of some genes, genes x latents."""
    total = np.zeros((len(columns), n_latents))
    for cells in torch.split(x, _BATCH):
        cells = cells.detach().requires_grad_()
        z = encode(cells)
        for latent in track(range(n_latents), "Latents"):
            # cells do not meet, so the gradient of their sum holds the gradient of each
            slope = torch.autograd.grad(z[:, latent].sum(), cells, retain_graph=True)[0][:, columns]
            total[:, latent] += slope.cpu().double().square().sum(0).numpy()
    return total / len(x)


def _squared_shift(cells: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Unbiased estimate of the squared difference of means, shape (latents,)."""
    cells, control = cells.astype(np.float64), control.astype(np.float64)
    noise = cells.var(axis=0, ddof=1) / len(cells) + control.var(axis=0, ddof=1) / len(control)
    return np.asarray((cells.mean(axis=0) - control.mean(axis=0)) ** 2 - noise)


def _off(response: np.ndarray, own: int | None) -> tuple[float, float]:
    """Share of the response off the own latent and off the strongest one; NaN without a response."""
    total = response.sum()
    if total <= 0:
        return np.nan, np.nan
    shares = np.clip(1.0 - response / total, 0.0, 1.0)
    return np.nan if own is None else float(shares[own]), float(shares.min())


def _posterior_spread(module: RaptorGraphModule, x: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
    """Standard deviation of drawn latents among control cells, shape (latents,)."""
    with torch.no_grad():
        mean, log_var = module.encode(x)
        noise = torch.as_tensor(rng.standard_normal(mean.shape), dtype=mean.dtype, device=mean.device)
        drawn: torch.Tensor = module.norm(mean + torch.exp(0.5 * log_var) * noise)
        return drawn.std(0).cpu().numpy().astype(np.float64)
