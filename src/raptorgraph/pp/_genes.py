"""Gene selection that never loses a perturbed gene."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

from raptorgraph._arguments import check_choice, check_flag, check_integer, check_text
from raptorgraph._docs import docs
from raptorgraph._progress import progress_line
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import data_kind, to_expression
from raptorgraph.screen._guide_features import guide_features
from raptorgraph.screen._inputs import batch_codes, library_of, matrix
from raptorgraph.screen._moments import condition_moments
from raptorgraph.screen._names import gene_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from scipy import sparse

LIBRARY_SIZE_KEY = "raptorgraph_library_size"
"""Column of ``adata.obs`` to which :func:`select_genes` writes the total counts over all genes."""

_COUNT_FLAVORS = ("seurat_v3", "seurat_v3_paper")
_LOG_FLAVORS = ("seurat", "cell_ranger")
_MIN_VARYING = 20  # genes, below which the local regression of the count flavors fails or brings the process down


@progress_line("Selecting genes")
@docs.dedent
def select_genes(
    adata: AnnData,
    n_top_genes: int = 5000,
    *,
    perturbation_key: str = "perturbation",
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    layer: str | None = None,
    library_size_key: str | None = None,
    batch_key: str | None = None,
    flavor: str | None = None,
    subset: bool = True,
) -> None:
    """Keep the most variable genes, and all perturbed genes with them; variables that read guides are no genes.

    Row sums over a part of the genes are not library sizes: the total counts over all genes are written to
    ``adata.obs`` before genes are dropped. Pass that column as `library_size_key` from then on.

    Parameters
    ----------
    adata
        Cells x genes, with a perturbation label for each cell.
    n_top_genes
        Number of highly variable genes; perturbed genes that are not among them are kept in addition.
    %(perturbation_key)s
    %(control)s
    %(delimiter)s
    %(layer)s
    library_size_key
        Column of ``adata.obs`` with each cell's total counts; written if it is not there. Default
        ``"raptorgraph_library_size"``. Not used for log-normalized values.
    batch_key
        Column of ``adata.obs`` with batches; genes are then ranked within each.
    flavor
        Method of :func:`scanpy.pp.highly_variable_genes`: ``"seurat_v3"`` or ``"seurat_v3_paper"`` (counts, with
        scikit-misc), ``"seurat"`` or ``"cell_ranger"`` (on the expression scale). By default ``"seurat_v3"`` for
        counts if scikit-misc is installed, else ``"seurat"``.
    subset
        Whether to drop the other genes from `adata`, in place.

    Returns
    -------
    Nothing; writes

    - ``adata.var["highly_variable"]``: bool, the genes to keep (perturbed genes included);
    - ``adata.var["perturbation_target"]``: bool, the perturbed genes;
    - ``adata.obs[library_size_key or "raptorgraph_library_size"]``: total counts of each cell, float64, if the data
      are counts and the column is not there.

    Raises
    ------
    ImportError
        If the flavor needs scikit-misc, which is not installed.
    KeyError
        If a column or the layer is not there.
    ValueError
        If labels are missing, `n_top_genes` is not positive, the flavor is unknown or does not fit the data (count
        flavors need 20 varying genes in each batch), the values are neither counts nor logarithms, or a cell is empty.

    Examples
    --------
    >>> rg.pp.select_genes(adata, n_top_genes=40, library_size_key="total_counts", flavor="seurat")
    >>> adata.n_vars >= 40, int(adata.var["perturbation_target"].sum())
    (True, 6)
    """
    check_integer("n_top_genes", n_top_genes, 1)
    check_flag("subset", subset)
    if library_size_key is not None:
        check_text("library_size_key", library_size_key, "the name of a column of obs")
    parsed = parse_obs(adata, perturbation_key, control=control, delimiter=delimiter)
    genes = ~guide_features(adata, parsed.genes)
    targets = gene_names(adata).isin(parsed.genes) & genes
    batch = batch_codes(adata, batch_key)
    X = matrix(adata, layer)
    if not genes.all():
        X = X[:, np.flatnonzero(genes)]
    kind = data_kind(X)
    flavor = _choose_flavor(flavor, kind)
    library, library_key = None, library_size_key or LIBRARY_SIZE_KEY
    if kind == "counts":
        library = library_of(adata, X, library_key if library_key in adata.obs else None)

    if flavor in _COUNT_FLAVORS:
        _check_varying(X, batch, flavor)
    keep = genes.copy()
    if n_top_genes < genes.sum():
        if flavor in _COUNT_FLAVORS:
            # scanpy computes in the type of the counts: one that holds their squares, and that numba knows
            wide = np.result_type(X.dtype, np.float32)
            values = X.astype(wide if wide.itemsize <= 8 else np.float64, copy=False)
        else:
            values = to_expression(X, library)
        keep[genes] = _highly_variable(values, n_top_genes, batch, flavor)
        keep |= targets

    if library is not None and library_key not in adata.obs:
        adata.obs[library_key] = library
    adata.var["highly_variable"] = keep
    adata.var["perturbation_target"] = targets
    if subset:
        adata._inplace_subset_var(keep)


def _choose_flavor(flavor: str | None, kind: str) -> str:
    """The flavor, or the default one; an error where it does not fit the data or scikit-misc is missing."""
    has_loess = find_spec("skmisc") is not None
    if flavor is None:
        return "seurat_v3" if kind == "counts" and has_loess else "seurat"
    check_choice("flavor", flavor, _COUNT_FLAVORS + _LOG_FLAVORS)
    if flavor in _COUNT_FLAVORS and kind == "log":
        raise ValueError(f"flavor={flavor!r} needs counts, but the data are log-normalized; use flavor='seurat'.")
    if flavor in _COUNT_FLAVORS and not has_loess:
        raise ImportError(f"flavor={flavor!r} needs scikit-misc: pip install scikit-misc, or use flavor='seurat'.")
    return flavor


def _check_varying(counts: np.ndarray | sparse.csr_matrix, batch: np.ndarray | None, flavor: str) -> None:
    """ValueError where too few genes vary in a batch for the local regression of a count flavor."""
    batch = np.zeros(counts.shape[0], dtype=np.int64) if batch is None else batch
    moments = condition_moments(counts, batch, batch.max() + 1)
    varying = (moments.var > 1e-9).sum(axis=1)
    worst = varying.argmin()
    if varying[worst] < _MIN_VARYING:
        raise ValueError(
            f"flavor={flavor!r} needs {_MIN_VARYING} genes that vary between the cells of a batch, but only "
            f"{varying[worst]} do in one of {moments.n[worst]} cells; use flavor='seurat', or merge batches."
        )


def _highly_variable(
    values: np.ndarray | sparse.csr_matrix, n_top_genes: int, batch: np.ndarray | None, flavor: str
) -> np.ndarray:
    """Mask of the highly variable genes, found in a temporary AnnData."""
    import scanpy as sc  # here, since it takes seconds

    obs = pd.DataFrame(index=pd.RangeIndex(values.shape[0]).astype(str))
    if batch is not None:
        obs["batch"] = pd.Categorical(batch)
    try:
        found = sc.pp.highly_variable_genes(
            ad.AnnData(values, obs=obs),
            n_top_genes=n_top_genes,
            flavor=flavor,
            batch_key=None if batch is None else "batch",
            inplace=False,
        )
    except ValueError as error:  # the local regression of the count flavors can still be singular
        raise ValueError(
            f"flavor={flavor!r} failed on these data ({error}); use another flavor, or merge batches."
        ) from error
    return np.asarray(found["highly_variable"], dtype=bool)
