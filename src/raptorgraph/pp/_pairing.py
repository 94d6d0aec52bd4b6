"""Pairing of perturbed cells with control cells, by optimal transport or simpler means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA

from raptorgraph._arguments import check_choice, check_integer, check_text
from raptorgraph._docs import docs
from raptorgraph._progress import progress_bar, track
from raptorgraph.pp._couplings import COUPLINGS
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import batch_codes, expression_source
from raptorgraph.screen._matrix import as_matrix, to_dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from anndata import AnnData

    from raptorgraph.screen._matrix import Matrix

METHODS = tuple(COUPLINGS)


def principal_components(
    X: np.ndarray | sparse.csr_matrix,
    n_comps: int = 50,
    *,
    seed: int = 0,
    library: np.ndarray | None = None,
    max_cells: int = 20_000,
    chunk_size: int = 8192,
) -> np.ndarray:
    """Scores of the cells on the first principal components of their expression, cells x components, float32.

    `X`, cells x genes, is on the expression scale, or has counts for which `library` has the library sizes; a sparse
    one is centered implicitly. There are at most `n_comps` components, and one less than cells and genes; of one gene
    it is the centered gene. They are found on at most `max_cells` cells, drawn by `seed`, so that no copy of a large
    screen is made, and `chunk_size` cells are projected at a time.
    """
    X = as_matrix(X)
    if X.shape[0] < 2 or X.shape[1] < 1 or n_comps < 1:
        raise ValueError(f"Cannot find {n_comps} principal components of {X.shape[0]} cells x {X.shape[1]} genes.")
    if X.shape[1] == 1:
        values = to_dense(to_expression(X, library))
        return np.asarray(values - values.mean(axis=0))
    pca = PCA(n_components=min(n_comps, min(X.shape) - 1), svd_solver="arpack", random_state=seed)
    rows = np.arange(X.shape[0])
    if len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))

    def expression(part: np.ndarray | slice) -> np.ndarray | sparse.csr_matrix:
        return to_expression(X[part], None if library is None else library[part])

    with progress_bar("Principal components"):
        pca.fit(expression(rows))
    offset = pca.mean_ @ pca.components_.T
    parts = (slice(i, i + chunk_size) for i in range(0, X.shape[0], chunk_size))
    return np.concatenate([expression(part) @ pca.components_.T - offset for part in parts]).astype(np.float32)


def pairing_plan(
    Z: npt.ArrayLike | sparse.csr_matrix,
    codes: npt.ArrayLike,
    *,
    method: str = "emd",
    batch: npt.ArrayLike | None = None,
    max_controls: int | None = 2500,
    seed: int = 0,
) -> sparse.csr_matrix:
    """Probability of each control cell to be the partner of each perturbed cell: cells x cells, float32.

    Row i holds the partners of perturbed cell i and sums to 1; rows of control cells are empty. Cells are compared by
    the squared Euclidean distance of their coordinates `Z`, cells x dimensions, dense or sparse. `codes` has the
    condition of each cell, 0 for the control, and conditions are paired one by one; so are batches, whose code `batch`
    has, and with all controls where a batch has none. The other arguments and what is raised are those of
    :func:`pair_cells`.
    """
    couple = COUPLINGS[check_choice("method", method, METHODS)]
    if max_controls is not None:
        check_integer("max_controls", max_controls, 1, hint=", or None for all control cells")
    points: Matrix = Z if sparse.issparse(Z) else np.asarray(Z, dtype=np.float64)
    codes = np.asarray(codes)
    batch = np.zeros(len(codes), dtype=np.int64) if batch is None else np.asarray(batch)
    if points.ndim != 2 or not codes.shape == batch.shape == (points.shape[0],):
        raise ValueError(
            f"Z {points.shape}, codes {codes.shape} and batch {batch.shape} must agree in the number of cells."
        )
    finite = np.isfinite(points.data if sparse.issparse(points) else points)
    if not finite.all():
        bad = (
            sparse.csr_matrix((~finite, points.indices, points.indptr), points.shape)
            if sparse.issparse(points)
            else ~finite
        )
        raise ValueError(f"The coordinates of cell {np.flatnonzero(np.asarray(bad.sum(axis=1)))[0]} are not finite.")
    all_controls = np.flatnonzero(codes == 0)
    if all_controls.size == 0:
        raise ValueError("There is no control cell (code 0) to pair with.")

    n = points.shape[0]
    perturbed = np.flatnonzero(codes != 0)
    groups, member_of = np.unique(np.stack([codes[perturbed], batch[perturbed]], axis=1), axis=0, return_inverse=True)
    rows, columns, values = [], [], []
    for g in track(range(len(groups)), "Pairing cells"):
        cells = perturbed[member_of == g]
        controls = all_controls[batch[all_controls] == groups[g, 1]]
        controls = controls if controls.size else all_controls
        rng = np.random.default_rng([seed, *groups[g]])
        if max_controls is not None and controls.size > max_controls:
            controls = np.sort(rng.choice(controls, max_controls, replace=False))
        i, j, weight = couple(_dense(points, cells), _dense(points, controls), rng)
        weight = weight / np.bincount(i, weights=weight, minlength=len(cells))[i]
        rows.append(cells[i])
        columns.append(controls[j])
        values.append(weight)
    if not rows:
        return sparse.csr_matrix((n, n), dtype=np.float32)
    entries = np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix(entries, shape=(n, n))


def _dense(points: Matrix, rows: np.ndarray) -> np.ndarray:
    """Coordinates of some cells, dense, float64."""
    part = points[rows]
    found: np.ndarray = part.toarray().astype(np.float64) if sparse.issparse(part) else part
    return found


def sample_partners(plan: sparse.csr_matrix, rows: npt.ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """Draw one control cell for each perturbed cell of `rows`: j for cell i with probability ``plan[i, j]``; int64.

    Rows of the plan need not sum to 1, and cells may be repeated. ValueError if a cell has no partner in the plan.
    """
    rows = np.asarray(rows, dtype=np.int64)
    part = plan[rows]
    ends = np.concatenate([[0.0], np.cumsum(part.data, dtype=np.float64)])
    low, high = ends[part.indptr[:-1]], ends[part.indptr[1:]]
    lonely = rows[high <= low]
    if lonely.size:
        raise ValueError(
            f"{lonely.size} cells have no partner in the pairing plan (first: {lonely[:5].tolist()}); they are control "
            "cells, or were not paired, or their partners were removed: run raptorgraph.pp.pair_cells again."
        )
    drawn = np.searchsorted(ends[1:], low + rng.random(len(rows)) * (high - low), side="right")
    drawn = np.clip(drawn, part.indptr[:-1], part.indptr[1:] - 1)  # rounding may step over the end of a row
    return np.asarray(part.indices[drawn], dtype=np.int64)


@docs.dedent
def pair_cells(
    adata: AnnData,
    perturbation_key: str = "perturbation",
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    method: str = "emd",
    layer: str | None = None,
    library_size_key: str | None = None,
    batch_key: str | None = None,
    use_rep: str | None = None,
    n_comps: int | None = 50,
    max_controls: int | None = 2500,
    key_added: str = "raptorgraph_pairing",
    seed: int = 0,
) -> None:
    r"""Pair every perturbed cell with control cells, one perturbation at a time.

    For n perturbed cells and m control cells at squared Euclidean distances :math:`M_{ij}`, ``"emd"`` finds the
    exact transport plan :math:`\arg\min_\gamma \sum_{ij} \gamma_{ij} M_{ij}` with row sums 1/n and column sums 1/m
    (sections 4.1 and E.4 of the paper), and stores the conditional probabilities :math:`n \gamma_{ij}` of control j
    for cell i. The other methods are ``"sinkhorn"`` (the same with an entropic term, which spreads the partners),
    ``"hungarian"`` (one control for each cell at the smallest total cost, each control used as evenly as the numbers
    allow), ``"nearest"`` (the closest control, which may serve many cells) and ``"random"`` (32 controls drawn
    uniformly, the baseline that ignores expression).

    Parameters
    ----------
    adata
        Cells x genes, with a perturbation label for each cell.
    %(perturbation_key)s
    %(control)s
    %(delimiter)s
    method
        ``"emd"``, ``"sinkhorn"``, ``"hungarian"``, ``"nearest"`` or ``"random"``.
    %(layer)s
    %(library_size_key)s
    batch_key
        Column of ``adata.obs`` with batches: cells are then paired within their batch, and with all control cells
        where a batch has none.
    use_rep
        Key of ``adata.obsm`` with the coordinates to compare cells in; default the principal components of the
        expression values.
    n_comps
        Number of principal components; None compares cells in the expression of all genes, as published, which takes
        much longer.
    max_controls
        Size of the random subset of control cells, drawn anew for each perturbation (and batch), where there are more.
        None for all.
    key_added
        Key of ``adata.obsp`` and ``adata.uns`` to write to.
    seed
        Seed of the principal components, the subsets and random pairing.

    Returns
    -------
    Nothing; writes

    - ``adata.obsp[key_added]``: CSR matrix, cells x cells, float32; row i holds the partners of perturbed cell i with
      their probabilities, rows of control cells are empty;
    - ``adata.uns[key_added]``: dict of the settings that were given.

    Raises
    ------
    KeyError
        If a column, the layer or `use_rep` is not there.
    RuntimeError
        If the solver of ``"emd"`` does not reach the optimum.
    ValueError
        If the method is unknown, labels are missing, there are no control or no perturbed cells, the values are
        neither counts nor logarithms, or a library size is not positive.

    Examples
    --------
    >>> rg.pp.pair_cells(adata, method="nearest", library_size_key="total_counts")
    >>> plan = adata.obsp["raptorgraph_pairing"]
    >>> perturbed = (adata.obs["perturbation"] != "control").to_numpy()
    >>> bool((np.asarray(plan.sum(1)).ravel() == perturbed).all())  # one control for each perturbed cell
    True
    """
    check_choice("method", method, METHODS)
    if n_comps is not None:
        check_integer("n_comps", n_comps, 1, hint=", or None for all genes")
    check_integer("seed", seed, 0)
    if max_controls is not None:
        check_integer("max_controls", max_controls, 1, hint=", or None for all control cells")
    check_text("key_added", key_added, "a key of obsp and uns")
    if use_rep is not None:
        check_text("use_rep", use_rep, "a key of obsm")
    parsed = parse_obs(adata, perturbation_key, control=control, delimiter=delimiter, require_control=True)
    if len(parsed.conditions) == 1:
        raise ValueError(f"All cells are control cells: there is nothing to pair in adata.obs[{perturbation_key!r}].")
    batch = batch_codes(adata, batch_key)
    if use_rep is None:
        X, library = expression_source(adata, layer, library_size_key)
        if n_comps is None:
            Z = sparse.csr_matrix(to_expression(X, library))
        else:
            Z = principal_components(X, n_comps, seed=seed, library=library)
    elif use_rep in adata.obsm:
        Z = np.asarray(adata.obsm[use_rep])
    else:
        raise KeyError(f"use_rep={use_rep!r} is not in adata.obsm, which has {list(adata.obsm)}.")
    plan = pairing_plan(Z, parsed.codes, method=method, batch=batch, max_controls=max_controls, seed=seed)

    settings = {
        "perturbation_key": perturbation_key,
        "control": [control] if isinstance(control, str) else list(control),
        "delimiter": delimiter,
        "method": method,
        "layer": layer,
        "library_size_key": library_size_key,
        "batch_key": batch_key,
        "use_rep": use_rep,
        "n_comps": n_comps if use_rep is None else None,
        "max_controls": max_controls,
        "seed": seed,
    }
    adata.obsp[key_added] = plan
    # None has no place in an h5ad file.
    adata.uns[key_added] = {name: value for name, value in settings.items() if value is not None}
