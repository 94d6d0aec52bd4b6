"""Values of the matrix: their type, their kind, and how they are stored."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from input_table._row import Row, closed_form, counts, refused, same

if TYPE_CHECKING:
    from collections.abc import Callable

V, A, L = "Values", "Arrays", "Layers, views and parts"


def with_X(make: Callable[[np.ndarray], Any]):
    """Change of the matrix: what is made of the counts."""

    def change(adata: ad.AnnData) -> None:
        adata.X = make(counts())

    return change


def logs() -> np.ndarray:
    """The plain screen on the expression scale."""
    values = counts()
    return np.log1p(1e4 * values / values.sum(axis=1, keepdims=True))


def one_value(value: float, dtype: str = "float64", where: tuple[int, int] = (4, 2)):
    """Counts with one value that is another."""

    def make(values: np.ndarray) -> np.ndarray:
        values[where] = value
        return values.astype(dtype)

    return with_X(make)


def half_sparse(values: np.ndarray) -> sparse.csr_matrix:
    found = sparse.csr_matrix(values.astype(np.float32))
    found.data = found.data.astype(np.float16)
    return found


def in_parts(values: np.ndarray) -> sparse.csr_matrix:
    """Each entry as the sum of two."""
    whole = sparse.csr_matrix(values)
    halves = np.stack([whole.data - whole.data // 3, whole.data // 3], axis=1).ravel()
    return sparse.csr_matrix((halves, np.repeat(whole.indices, 2), whole.indptr * 2), shape=values.shape)


def unsorted(values: np.ndarray) -> sparse.csr_matrix:
    X = sparse.csr_matrix(values)
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))
    order = np.lexsort((-X.indices, rows))
    return sparse.csr_matrix((X.data[order], X.indices[order], X.indptr), shape=X.shape)


def with_zeros(values: np.ndarray) -> sparse.csr_matrix:
    n, g = values.shape
    return sparse.csr_matrix((values.ravel(), np.tile(np.arange(g), n), np.arange(n + 1) * g), shape=values.shape)


def with_room(values: np.ndarray) -> sparse.csr_matrix:
    found = sparse.csr_matrix(values)
    found.data, found.indices = np.append(found.data, 1.0), np.append(found.indices, 0)
    return found


def long_indices(values: np.ndarray) -> sparse.csr_matrix:
    found = sparse.csr_matrix(values)
    found.indices, found.indptr = found.indices.astype(np.int64), found.indptr.astype(np.int64)
    return found


def read_only(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.tobytes(), values.dtype).reshape(values.shape)


def mapped(values: np.ndarray) -> np.memmap:
    with tempfile.TemporaryFile() as file:
        found = np.memmap(file, dtype=values.dtype, mode="w+", shape=values.shape)
    found[:] = values
    return found


def lazy(of: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """A dask array of chunks of ten cells."""

    def make(values: np.ndarray) -> Any:
        import dask.array as da

        dense = da.from_array(values, chunks=(10, values.shape[1]))
        return dense.map_blocks(of, dtype=values.dtype, meta=of(values[:0]))

    return make


def as_layer(adata: ad.AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    adata.X = logs()


def as_raw(adata: ad.AnnData) -> None:
    adata.raw = adata.copy()
    adata.X = logs()


def scaled(change: Callable[[ad.AnnData], None]) -> Callable[[ad.AnnData], None]:
    """The change, and then values of mean 0 in ``X``."""

    def make(adata: ad.AnnData) -> None:
        change(adata)
        adata.X = adata.X - adata.X.mean(axis=0)

    return make


def layer_alone(adata: ad.AnnData) -> ad.AnnData:
    return ad.AnnData(obs=adata.obs, var=adata.var, layers={"counts": adata.X})


WIDTHS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]
SPARSE = ["csr_matrix", "csr_array", "csc_matrix", "csc_array"]

ROWS: list[Row] = [
    *(
        same(V, f"`{dtype}`, dense", with_X(lambda values, dtype=dtype: values.astype(dtype)))
        for dtype in [*WIDTHS, "float16", "longdouble"]
    ),
    *(
        same(V, f"`{dtype}`, sparse", with_X(lambda values, dtype=dtype: sparse.csr_matrix(values.astype(dtype))))
        for dtype in WIDTHS
    ),
    same(V, "numbers of the other byte order, dense", with_X(lambda values: values.astype(">f4"))),
    same(
        V,
        "truth values",
        with_X(lambda values: values > 0),
        happens="taken as counts of 0 and 1",
        expected=lambda: closed_form(counts() > 0),
    ),
    same(
        V,
        "truth values, sparse",
        with_X(lambda values: sparse.csr_matrix(values > 0)),
        happens="taken as counts of 0 and 1",
        expected=lambda: closed_form(counts() > 0),
    ),
    same(V, "logarithms of rates, dense", with_X(lambda values: logs().astype(np.float32))),
    same(V, "logarithms of rates, sparse", with_X(lambda values: sparse.csr_matrix(logs()))),
    same(
        V,
        "logarithms, with `library_size_key`",
        with_X(lambda values: logs()),
        library_size_key="total",
        happens="the same effects; the column is not used",
    ),
    same(V, "counts of a million", with_X(lambda values: 1e6 * values), expected=lambda: closed_form(1e6 * counts())),
    refused(
        V,
        "`float16`, sparse",
        with_X(half_sparse),
        TypeError,
        "sparse matrices of type float16",
        "astype(numpy.float32)",
    ),
    refused(
        V,
        "complex numbers",
        with_X(lambda values: values.astype(complex)),
        TypeError,
        "values of type complex128, not real numbers",
    ),
    refused(
        V,
        "objects",
        with_X(lambda values: values.astype(object)),
        TypeError,
        "values of type object, not real numbers",
        "astype('float32')",
    ),
    refused(V, "text", with_X(lambda values: values.astype(str)), TypeError, "not real numbers"),
    refused(
        V,
        "a negative value",
        one_value(-1.0),
        ValueError,
        "1 values are negative or not finite",
        "the first is -1.0 at cell 4, gene 2",
        "not scaled or centered ones",
    ),
    refused(V, "a negative whole number", one_value(-1, "int16"), ValueError, "1 values are negative or not finite"),
    refused(V, "`NaN`", one_value(np.nan), ValueError, "negative or not finite", "nan at cell 4, gene 2"),
    refused(V, "an infinite value", one_value(np.inf), ValueError, "negative or not finite", "inf at cell 4, gene 2"),
    refused(
        V, "`NaN`, sparse", lambda adata: adata.X.data.__setitem__(0, np.nan), ValueError, "negative or not finite"
    ),
    refused(
        V,
        "scaled values (mean 0)",
        with_X(lambda values: values - values.mean(axis=0)),
        ValueError,
        "negative or not finite",
    ),
    refused(
        V,
        "rates that are no logarithms",
        with_X(lambda values: 1e4 * values / values.sum(1, keepdims=True)),
        ValueError,
        "above 30 among non-integer values",
        "scanpy.pp.log1p(adata)",
    ),
    refused(
        V,
        "counts with rounding errors",
        with_X(lambda values: values + 1e-5 * (values > 0)),
        ValueError,
        "no whole numbers, all within rounding errors of one",
        "numpy.rint(adata.X)",
    ),
    refused(V, "zeros alone", with_X(lambda values: 0 * values), ValueError, "has no value above zero"),
    refused(
        V,
        "zeros alone, sparse",
        with_X(lambda values: sparse.csr_matrix(0 * values)),
        ValueError,
        "has no value above zero",
    ),
    # arrays
    *(same(A, f"`scipy.sparse.{name}`", with_X(getattr(sparse, name))) for name in SPARSE),
    same(A, "sparse, with stored zeros", with_X(with_zeros)),
    same(A, "sparse, entries in any order", with_X(unsorted)),
    same(A, "sparse, entries in parts that add up", with_X(in_parts)),
    same(A, "sparse, positions of 64 bits", with_X(long_indices)),
    refused(A, "sparse, with more room than entries", with_X(with_room), ValueError, "have room for", "X.prune()"),
    same(A, "an array in the order of C", with_X(np.ascontiguousarray)),
    same(A, "an array in the order of Fortran", with_X(np.asfortranarray)),
    same(A, "an array with steps", with_X(lambda values: np.repeat(values, 2, axis=1)[:, ::2])),
    same(A, "an array that must not be written", with_X(read_only)),
    same(A, "an array in a file (`numpy.memmap`)", with_X(mapped)),
    same(A, "a masked array in which nothing is masked", with_X(np.ma.masked_array)),
    refused(
        A,
        "masked values",
        with_X(lambda values: np.ma.masked_array(values, values > 30)),
        ValueError,
        "values are masked",
        "adata.X.filled(0)",
    ),
    same(
        A,
        "a table (`pandas.DataFrame`)",
        lambda adata: ad.AnnData(pd.DataFrame(counts(), index=adata.obs_names, columns=adata.var_names), obs=adata.obs),
    ),
    same(A, "a dask array", with_X(lazy(np.asarray)), happens="read in chunks, the same effects"),
    same(
        A, "a dask array of sparse chunks", with_X(lazy(sparse.csr_matrix)), happens="read in chunks, the same effects"
    ),
    # layers and views
    same(L, "counts in a layer, logarithms in `X`", as_layer, layer="counts"),
    same(
        L,
        "counts in a layer that is not named, logarithms in `X`",
        as_layer,
        happens="the logarithms are read",
        warns="adata.layers['counts'] holds counts: name it, layer='counts'",
    ),
    same(
        L,
        "counts in `raw`, logarithms in `X`",
        as_raw,
        happens="the logarithms are read",
        warns="adata.raw holds counts: take them, adata = adata.raw.to_adata()",
    ),
    refused(
        L,
        "counts in a layer that is not named, scaled values in `X`",
        scaled(as_layer),
        ValueError,
        "negative or not finite",
        "adata.layers['counts'] holds counts: name it, layer='counts'",
    ),
    refused(
        L,
        "counts in `raw`, scaled values in `X`",
        scaled(as_raw),
        ValueError,
        "negative or not finite",
        "adata.raw holds counts: take them, adata = adata.raw.to_adata()",
    ),
    same(L, "a layer, and no `X`", layer_alone, layer="counts"),
    refused(L, "no `X`, and no layer named", layer_alone, ValueError, "adata.X is empty; name the layer", "['counts']"),
    refused(
        L,
        "a layer that is not there",
        as_layer,
        KeyError,
        "layer='spliced' is not in adata.layers",
        "['counts']",
        layer="spliced",
    ),
    refused(L, "a layer with an empty name", as_layer, ValueError, "layer='' is empty", layer=""),
    refused(L, "a layer by number", as_layer, TypeError, "layer=0 must be the name of a layer", layer=0),
    refused(
        L,
        "a view of an AnnData",
        lambda adata: adata[:30],
        ValueError,
        "adata is a view of another AnnData",
        "adata.copy()",
    ),
    same(L, "a copy of a view", lambda adata: adata[np.arange(36)].copy()),
    refused(
        L,
        "a table instead of an AnnData",
        lambda adata: adata.to_df(),
        TypeError,
        "adata must be an AnnData, not DataFrame",
    ),
    refused(
        L, "an array instead of an AnnData", lambda adata: counts(), TypeError, "adata must be an AnnData, not ndarray"
    ),
    refused(L, "a list instead of an AnnData", lambda adata: [], TypeError, "adata must be an AnnData, not list"),
]
