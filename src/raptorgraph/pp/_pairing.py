"""Pairing of perturbed cells with control cells, by optimal transport or simpler means."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from raptorgraph._arguments import check_choice, check_integer, check_text
from raptorgraph._progress import progress_bar, track
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import batch_codes, expression_source
from raptorgraph.screen._matrix import as_matrix

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = ("emd", "sinkhorn", "hungarian", "nearest", "random")
_N_RANDOM = 32  # controls kept for each cell under random pairing, whose full plan would be dense
_REGULARIZATION = 0.02  # entropic regularization, as a part of the median cost
_TOLERANCE = 1e-3  # relative error of the column sums at which Sinkhorn iterations end
_MAX_ITERATIONS = 2000
_NEGLIGIBLE = 1e-6  # entries of a row below this part of its mass are dropped


def principal_components(
    X, n_comps: int = 50, *, seed: int = 0, library=None, max_cells: int = 20_000, chunk_size: int = 8192
) -> np.ndarray:
    """Scores of the first principal components.

    Parameters
    ----------
    X
        Cells x genes, sparse (centered implicitly, not densified) or dense: the expression scale, or with `library`
        counts.
    n_comps
        Number of components, at most one less than the number of cells and of genes; that of one gene is the gene.
    seed
        Seed of the start vector and of the choice of cells.
    library
        Library sizes, shape (n_cells,), for counts.
    max_cells
        The components are found on at most so many cells, so that no copy of a large screen is made.
    chunk_size
        Cells that are projected at a time.

    Returns
    -------
    Cells x components, float32.

    Raises
    ------
    ValueError
        If `n_comps` is not positive, there are fewer than two cells or no genes.
    """
    X = as_matrix(X)
    if X.shape[0] < 2 or X.shape[1] < 1 or n_comps < 1:
        raise ValueError(f"Cannot find {n_comps} principal components of {X.shape[0]} cells x {X.shape[1]} genes.")
    if X.shape[1] == 1:
        values = to_expression(X, library)
        values = values.toarray() if sparse.issparse(values) else values
        return values - values.mean(axis=0)
    pca = PCA(n_components=min(n_comps, min(X.shape) - 1), svd_solver="arpack", random_state=seed)
    rows = np.arange(X.shape[0])
    if len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))

    def expression(part):
        return to_expression(X[part], None if library is None else library[part])

    with progress_bar("Principal components"):
        pca.fit(expression(rows))
    offset = pca.mean_ @ pca.components_.T
    parts = (slice(i, i + chunk_size) for i in range(0, X.shape[0], chunk_size))
    return np.concatenate([expression(part) @ pca.components_.T - offset for part in parts]).astype(np.float32)


def pairing_plan(
    Z,
    codes,
    *,
    method: str = "emd",
    batch=None,
    max_controls: int | None = 2500,
    seed: int = 0,
) -> sparse.csr_matrix:
    """Probability of each control cell to be the partner of each perturbed cell.

    Parameters
    ----------
    Z
        Shape (n_cells, n_dims): coordinates in which cells are compared by squared Euclidean distance.
    codes
        Shape (n_cells,), int: condition of each cell; 0 is the control. Conditions are paired one by one.
    method
        See :func:`pair_cells`.
    batch
        Shape (n_cells,), int: cells are paired within their batch, and with all controls where it has none.
    max_controls
        Where there are more control cells, a random subset of this size, drawn anew for each condition (and batch).
        None for all.
    seed
        Seed of the subsets and of random pairing.

    Returns
    -------
    Cells x cells, float32: row i holds the partners of perturbed cell i and sums to 1; rows of control cells are empty.

    Raises
    ------
    RuntimeError
        If the solver of ``"emd"`` does not reach the optimum.
    ValueError
        If the method is unknown, the coordinates are not finite, shapes do not fit, or there is no control cell.
    """
    couple = _couplings()[check_choice("method", method, METHODS)]
    if max_controls is not None:
        check_integer("max_controls", max_controls, 1, hint=", or None for all control cells")
    Z, codes = np.asarray(Z, dtype=np.float64), np.asarray(codes)
    batch = np.zeros(len(codes), dtype=np.int64) if batch is None else np.asarray(batch)
    if Z.ndim != 2 or not codes.shape == batch.shape == (len(Z),):
        raise ValueError(f"Z {Z.shape}, codes {codes.shape} and batch {batch.shape} must agree in the number of cells.")
    if not np.isfinite(Z).all():
        raise ValueError(f"The coordinates of cell {np.flatnonzero(~np.isfinite(Z).all(axis=1))[0]} are not finite.")
    all_controls = np.flatnonzero(codes == 0)
    if all_controls.size == 0:
        raise ValueError("There is no control cell (code 0) to pair with.")

    n = len(Z)
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
        i, j, weight = couple(Z[cells], Z[controls], rng)
        weight = weight / np.bincount(i, weights=weight, minlength=len(cells))[i]
        rows.append(cells[i])
        columns.append(controls[j])
        values.append(weight)
    if not rows:
        return sparse.csr_matrix((n, n), dtype=np.float32)
    entries = np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix(entries, shape=(n, n))


def sample_partners(plan: sparse.csr_matrix, rows, rng: np.random.Generator) -> np.ndarray:
    """Draw one control cell for each perturbed cell, control j for cell i with probability ``plan[i, j]``.

    Parameters
    ----------
    plan
        Cells x cells, from :func:`pairing_plan`; rows need not sum to 1.
    rows
        Shape (n,), int: perturbed cells, repetitions allowed.
    rng
        Random generator.

    Returns
    -------
    Shape (n,), int64: the drawn control cells.

    Raises
    ------
    ValueError
        If a cell has no partner in the plan.
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
    return part.indices[drawn].astype(np.int64)


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
    n_comps: int = 50,
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
    perturbation_key
        Column of ``adata.obs`` with the labels.
    control
        Label, or several labels, of the control.
    delimiter
        What separates the genes of a combination.
    method
        ``"emd"``, ``"sinkhorn"``, ``"hungarian"``, ``"nearest"`` or ``"random"``.
    layer
        Layer with counts or log-normalized values; default ``adata.X``.
    library_size_key
        Column of ``adata.obs`` with each cell's total counts, where the matrix is a part of the genes; default row
        sums. Not used for log-normalized values.
    batch_key
        Column of ``adata.obs`` with batches: cells are then paired within their batch, and with all control cells
        where a batch has none.
    use_rep
        Key of ``adata.obsm`` with the coordinates to compare cells in; default the principal components of the
        expression values.
    n_comps
        Number of principal components.
    max_controls
        Where there are more control cells, a random subset of this size, drawn anew for each perturbation (and
        batch). None for all.
    key_added
        Where to write the plan.
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
    check_integer("n_comps", n_comps, 1)
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


# Each coupling takes the coordinates of perturbed and of control cells, and returns rows, columns and weights of the
# pairs; every perturbed cell is in at least one.
_Coupling = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _couplings() -> dict[str, _Coupling]:
    return dict(zip(METHODS, (_emd, _sinkhorn, _hungarian, _nearest, _random), strict=True))


def _emd(cells, controls, rng):
    import ot  # slow to import

    cost = cdist(cells, controls, "sqeuclidean")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the solver's verdict is read from its log
        plan, log = ot.emd(ot.unif(len(cells)), ot.unif(len(controls)), cost, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(
            f"Optimal transport of {len(controls)} control cells to {len(cells)} perturbed cells failed: "
            f"{log['warning']} Lower max_controls, or use method='sinkhorn'."
        )
    return _entries(plan)


def _sinkhorn(cells, controls, rng):
    import ot  # slow to import

    cost = cdist(cells, controls, "sqeuclidean")
    scale = np.median(cost)
    plan, log = ot.sinkhorn(
        ot.unif(len(cells)),
        ot.unif(len(controls)),
        cost / (scale if scale > 0 else 1.0),
        _REGULARIZATION,
        method="sinkhorn_log",
        numItermax=_MAX_ITERATIONS,
        stopThr=_TOLERANCE / np.sqrt(len(controls)),  # the error is the norm of the deviation from weights 1/m
        log=True,
        warn=False,
    )
    error = log["err"][-1] * np.sqrt(len(controls))
    if error > _TOLERANCE:
        warnings.warn(
            f"Sinkhorn iterations for {len(cells)} perturbed cells stopped at {_MAX_ITERATIONS} with the use of the "
            f"control cells uneven by {error:.1%}; method='emd' solves the problem exactly.",
            RuntimeWarning,
            stacklevel=2,
        )
    return _entries(plan)


def _hungarian(cells, controls, rng):
    cost = cdist(cells, controls, "sqeuclidean")
    # Copies of the controls, where they are fewer than the cells.
    rows, columns = linear_sum_assignment(np.tile(cost, (1, -(-len(cells) // len(controls)))))
    return rows, columns % len(controls), np.ones(len(rows))


def _nearest(cells, controls, rng):
    neighbors = NearestNeighbors(n_neighbors=1).fit(controls).kneighbors(cells, return_distance=False)
    return np.arange(len(cells)), neighbors[:, 0], np.ones(len(cells))


def _random(cells, controls, rng):
    n_drawn = min(_N_RANDOM, len(controls))
    drawn = rng.random((len(cells), len(controls))).argpartition(n_drawn - 1, axis=1)[:, :n_drawn]
    return np.repeat(np.arange(len(cells)), n_drawn), drawn.ravel(), np.ones(drawn.size)


def _entries(plan: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of a dense plan that are not negligible in their row."""
    rows, columns = np.nonzero(plan >= _NEGLIGIBLE * plan.sum(axis=1, keepdims=True))
    return rows, columns, plan[rows, columns]
