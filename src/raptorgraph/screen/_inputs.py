"""Read columns, matrices and library sizes of an AnnData, or say clearly what is wrong with them."""

from __future__ import annotations

import difflib
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_text
from raptorgraph.screen._expression import check_library, data_kind, library_sizes
from raptorgraph.screen._matrix import as_matrix
from raptorgraph.screen._names import gene_names
from raptorgraph.screen._other_values import counts_hint
from raptorgraph.screen._stored import (
    StoredMatrix,
    is_stored,
    keeps_order,
    reader_of,
    stored_matrix,
    values_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from raptorgraph.screen._matrix import Matrix

_ROUNDING = 0.01  # part of its row sum by which a library size may lie below it, as rounded totals do
_WARNED = 0.1  # share of cells with such a library size from which there is a warning
_REFUSED = 0.5  # and from which there is an error
_FEW = 10  # cells, of which half may be below by chance, as where a screen is read in parts
_SMALLEST = 0.01  # part of its row sum that a library size has at least, in every cell
_LARGEST = 1e4  # library sizes over row sums of all cells, from which there is a warning


def obs_column(adata: AnnData, key: str, argument: str) -> pd.Series:
    """Column `key` of ``adata.obs``; KeyError naming the argument that asked for it and similar columns.

    TypeError if the key is no string, ValueError if it names several columns or there are no cells.
    """
    check_text(argument, key, "the name of a column of obs")
    if not adata.n_obs:
        raise ValueError("adata has no cells.")
    if key not in adata.obs:
        columns = [str(column) for column in adata.obs.columns if not str(column).startswith("_scvi")]
        near = difflib.get_close_matches(str(key), columns, n=3) or columns
        hint = f"; did you mean one of {near}?" if near else f", which has none: adata.obs[{key!r}] = ... writes one."
        raise KeyError(f"{argument}={key!r} is not a column of adata.obs{hint}")
    column = adata.obs[key]
    if not isinstance(adata.obs, pd.DataFrame):  # of a lazy AnnData
        return adata.obs[[key]].to_memory()[key]
    if column.ndim > 1:
        raise ValueError(f"{argument}={key!r} is the name of {column.shape[1]} columns of adata.obs; rename them.")
    return column


def numbers(adata: AnnData, key: str, argument: str) -> np.ndarray:
    """Column `key` of ``adata.obs`` as float64, missing values as NaN; ValueError where it holds no real numbers."""
    column = obs_column(adata, key, argument)
    dtype, name = column.dtype, f"adata.obs[{key!r}]"
    if pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c":
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    values = column.astype(object)
    found = "text" if values.map(lambda value: isinstance(value, str)).any() else f"values of type {dtype}"
    if dtype.kind == "c":
        fix = f"take their real part, {name} = {name}.to_numpy().real"
    elif dtype.kind in "mM":
        fix = "turn them into a number, such as days since the first"
    elif pd.to_numeric(values, errors="coerce").notna().sum() == values.notna().sum():
        fix = f"convert it, {name} = pandas.to_numeric({name}.astype(object))"
    else:
        fix = "name a column of numbers"
        if argument == "continuous_covariate_keys":
            fix += ", or name this one in categorical_covariate_keys"
    raise ValueError(f"{argument}: {key!r} holds {found}, not numbers; {fix}.")


def matrix(adata: AnnData, layer: str | None) -> Matrix:
    """``adata.X`` or a layer, in canonical form, or as a StoredMatrix where it is not in memory.

    KeyError if there is none, ValueError if it is empty, TypeError if it has no numbers.
    """
    if layer is not None and check_text("layer", layer, "the name of a layer") not in adata.layers:
        raise KeyError(f"layer={layer!r} is not in adata.layers, which has {list(adata.layers)}.")
    if 0 in adata.shape:
        raise ValueError(f"adata has {adata.n_obs} cells and {adata.n_vars} genes: there is nothing to read.")
    if layer is not None and adata.isbacked and values_of(adata) is None:
        raise ValueError(
            "The file of adata has no X, and anndata takes no parts of such a file: write one with the values as X, "
            f"adata = anndata.read_h5ad(path); adata.X = adata.layers[{layer!r}]; adata.write_h5ad(...)."
        )
    X, where = (values_of(adata), "adata.X") if layer is None else (adata.layers[layer], f"adata.layers[{layer!r}]")
    if X is None:
        there = f"; adata.layers has {list(adata.layers)}" if len(adata.layers) else ""
        raise ValueError(f"adata.X is empty; name the layer with the expression values: layer=...{there}.")
    if getattr(X, "dtype", np.dtype(float)).kind not in "buif":
        raise TypeError(
            f"{where} holds values of type {X.dtype}, not real numbers; convert them, {where} = "
            f"{where}.astype('float32')."
        )
    return StoredMatrix(reader_of(X, where)) if is_stored(X) else as_matrix(X)


def _observed_library(adata: AnnData, key: str, X: Matrix) -> np.ndarray:
    """Library sizes (total counts) in column `key` of ``adata.obs``, shape (n_cells,), float64.

    They are the totals of cells of which `X`, the counts, may hold a part of the genes.

    Raises
    ------
    ValueError
        If a library size is not a positive number, if more than half of them, ten or more, are below the row sums of
        `X`, or one is below a hundredth of it.

    Warns
    -----
    UserWarning
        If a tenth of them is below the row sums (with fewer than ten such cells only where the sum over all cells is,
        too), or all of them are ten thousand times larger.
    """
    column = f"library_size_key={key!r}: "
    library = check_library(numbers(adata, key, "library_size_key"), names=adata.obs_names, column=column)
    sums = library_sizes(X)
    below = library < (1 - _ROUNDING) * sums
    share, tiny = below.mean(), np.flatnonzero(library < _SMALLEST * sums)
    few, short = below.sum() < _FEW, library.sum() < (1 - _ROUNDING) * sums.sum()
    refused = share > _REFUSED and not few
    needed = (
        "The column must hold the total counts of each cell over all genes, which are at least the sum of its row: no "
        "size factors, logarithms, fractions or numbers of genes. Leave the argument out to take row sums."
    )
    if refused or tiny.size:
        first = np.flatnonzero(below)[0] if refused else tiny[0]
        raise ValueError(
            f"{column}the library size is below the sum of the cell's counts in {below.sum()} of "
            f"{len(library)} cells ({share:.0%}), as in {adata.obs_names[first]} ({library[first]:g} < "
            f"{sums[first]:g}). {needed}"
        )
    if share > _WARNED and (short or not few):
        first = ", ".join(str(name) for name in adata.obs_names[below][:5])
        warnings.warn(
            f"{column}the library size is below the sum of the cell's counts in {below.sum()} of "
            f"{len(library)} cells ({share:.0%}; first: {first}), whose expression comes out too high. {needed}",
            UserWarning,
            stacklevel=2,
        )
    elif library.sum() > _LARGEST * sums.sum():
        warnings.warn(
            f"{column}the counts of all cells are {sums.sum() / library.sum():.1g} of their library sizes, "
            "so that all expression is near zero. The column must hold counts in the units of the matrix, no reads "
            "or their number times a constant.",
            UserWarning,
            stacklevel=2,
        )
    return library


def library_of(adata: AnnData, X: Matrix, library_size_key: str | None) -> np.ndarray:
    """Library sizes of the counts `X`, shape (n_cells,): from a column of ``obs``, or else row sums."""
    if library_size_key is not None:
        return _observed_library(adata, library_size_key, X)
    if X.shape[1] == 1:
        raise ValueError(
            "adata has one gene, whose counts are no library sizes: name the column with the total counts of each cell "
            "over all genes, library_size_key=..."
        )
    return check_library(library_sizes(X), names=adata.obs_names)


def expression_source(
    adata: AnnData, layer: str | None, library_size_key: str | None, genes: Sequence[str] | None = None
) -> tuple[Matrix, np.ndarray | None]:
    """Matrix and library sizes that :func:`~raptorgraph.screen._expression.to_expression` takes.

    The library sizes are None where the matrix is log-normalized already, and row sums without `library_size_key`.
    `genes` are those to be read of data that keep the order of their genes, since they are not in memory.
    """
    X = matrix(adata, layer)
    if genes is not None and keeps_order(adata, layer):
        X = stored_matrix(X).of_genes(gene_names(adata).get_indexer(list(genes)))
    kind = kind_of_values(adata, X, layer)
    return X, None if kind == "log" else library_of(adata, X, library_size_key)


def kind_of_values(adata: AnnData, X: Matrix, layer: str | None) -> str:
    """Kind of the values `X` of ``adata``, ``"counts"`` or ``"log"``; the error for others says where counts are."""
    try:
        return data_kind(X)
    except ValueError as error:
        raise ValueError(f"{error}{counts_hint(adata, layer)}") from None


def batch_codes(adata: AnnData, batch_key: str | None) -> np.ndarray | None:
    """Batch of each cell as int64 codes, shape (n_cells,); None without `batch_key`; ValueError where it is missing."""
    if batch_key is None:
        return None
    column = obs_column(adata, batch_key, "batch_key")
    try:
        codes, _ = pd.factorize(column)
    except TypeError as error:
        raise TypeError(f"batch_key={batch_key!r} holds what is no name of a batch ({error}).") from None
    missing = np.flatnonzero(codes < 0)
    if missing.size:
        first = ", ".join(str(name) for name in adata.obs_names[missing[:5]])
        raise ValueError(f"batch_key={batch_key!r} is missing for {missing.size} cells (first: {first}).")
    return np.asarray(codes, dtype=np.int64)
