"""Read columns, matrices and library sizes of an AnnData, or say clearly what is wrong with them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.pp._expression import check_library, data_kind, library_sizes
from raptorgraph.pp._matrix import as_matrix

if TYPE_CHECKING:
    from anndata import AnnData


def obs_column(adata: AnnData, key: str, argument: str) -> pd.Series:
    """Column `key` of ``adata.obs``; KeyError naming the argument that asked for it and similar columns."""
    if key not in adata.obs:
        columns = [str(column) for column in adata.obs.columns]
        near = difflib.get_close_matches(str(key), columns, n=3) or columns
        raise KeyError(f"{argument}={key!r} is not a column of adata.obs; did you mean one of {near}?")
    return adata.obs[key]


def matrix(adata: AnnData, layer: str | None):
    """``adata.X`` or a layer, in canonical form; KeyError without the layer, ValueError if there is no matrix."""
    if layer is None:
        if adata.X is None:
            raise ValueError("adata.X is empty; name the layer with the expression values: layer=...")
        return as_matrix(adata.X)
    if layer not in adata.layers:
        raise KeyError(f"layer={layer!r} is not in adata.layers, which has {list(adata.layers)}.")
    return as_matrix(adata.layers[layer])


def observed_library(adata: AnnData, key: str, argument: str = "library_size_key") -> np.ndarray:
    """Library sizes (total counts) in column `key` of ``adata.obs``, shape (n_cells,), float64, checked positive."""
    column = obs_column(adata, key, argument)
    if not pd.api.types.is_numeric_dtype(column):
        raise ValueError(f"{argument}={key!r} must hold numbers (total counts), its type is {column.dtype}.")
    return check_library(column.to_numpy(dtype=np.float64, na_value=np.nan), names=adata.obs_names)


def expression_source(adata: AnnData, layer: str | None, library_size_key: str | None):
    """Matrix and library sizes from which :func:`~raptorgraph.pp._expression.to_expression` makes expression values.

    The library sizes are None where the matrix is log-normalized already, and row sums without `library_size_key`.
    """
    X = matrix(adata, layer)
    if data_kind(X) == "log":
        return X, None
    if library_size_key is None:
        return X, check_library(library_sizes(X), names=adata.obs_names)
    return X, observed_library(adata, library_size_key)


def batch_codes(adata: AnnData, batch_key: str | None) -> np.ndarray | None:
    """Batch of each cell as int64 codes, shape (n_cells,); None without `batch_key`; ValueError where it is missing."""
    if batch_key is None:
        return None
    column = obs_column(adata, batch_key, "batch_key")
    codes, _ = pd.factorize(column)
    missing = np.flatnonzero(codes < 0)
    if missing.size:
        first = ", ".join(str(name) for name in adata.obs_names[missing[:5]])
        raise ValueError(f"batch_key={batch_key!r} is missing for {missing.size} cells (first: {first}).")
    return codes.astype(np.int64)
