import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from raptorgraph.screen import _expression
from raptorgraph.screen._expression import data_kind, library_sizes, to_expression
from raptorgraph.screen._inputs import batch_codes, expression_source

FORMATS = [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]


@pytest.fixture
def counts():
    counts = np.random.default_rng(0).poisson(2.0, size=(30, 7))
    counts[:, 0] += 1
    return counts


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float32, np.float64])
def test_kind_of_counts_and_of_logarithms(counts, make, dtype):
    assert data_kind(make(counts.astype(dtype) * 40)) == "counts"
    assert data_kind(make(np.log1p(counts.astype(np.float64)))) == "log"


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize(("value", "message"), [(-0.5, "-0.5"), (np.nan, "nan"), (np.inf, "inf")])
def test_impossible_values_are_named_with_their_place(counts, make, value, message, monkeypatch):
    monkeypatch.setattr(_expression, "_CHUNK", 16)  # the value lies in a late chunk
    X = counts.astype(np.float64)
    X[21, 4] = value
    with pytest.raises(ValueError, match=f"{message} at cell 21, gene 4"):
        data_kind(make(X))


@pytest.mark.parametrize("make", FORMATS)
def test_normalized_values_without_logarithm_are_refused(counts, make):
    X = counts + 0.5
    X[3, 2] = 31.5
    with pytest.raises(ValueError, match=r"31.5 at cell 3, gene 2.*scanpy"):
        data_kind(make(X))


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_that_were_calculated_are_to_be_rounded(counts, make, dtype):
    """They are not taken for logarithms, and numpy.rint makes counts of them."""
    total = counts.sum(1, keepdims=True) * 40.0
    logarithms = np.log1p(1e4 * counts / total).astype(np.float32)
    for X in (counts * (1 + 1e-7 * np.arange(7)), np.expm1(logarithms) * total / 1e4):
        X = make(X.astype(dtype))
        with pytest.raises(ValueError, match=r"no whole numbers.* numpy.rint\(adata.X\)"):
            data_kind(X)
        rounded = np.rint(X)
        assert data_kind(rounded) == "counts"
        np.testing.assert_array_equal(rounded.toarray() if sparse.issparse(rounded) else rounded, counts)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_logarithms_near_zero_are_no_counts(counts, scale):
    rates = scale * counts / counts.sum(1, keepdims=True)
    assert data_kind(np.log1p(rates)) == "log"


@pytest.mark.parametrize("make", FORMATS)
def test_an_empty_matrix_is_refused(make):
    with pytest.raises(ValueError, match="no value above zero"):
        data_kind(make(np.zeros((3, 2))))


def test_what_is_no_matrix_is_refused():
    for wrong in (np.ones(3), np.array([["a"]]), None):
        with pytest.raises(TypeError, match="matrix of numbers"):
            data_kind(wrong)


@pytest.mark.parametrize("make", FORMATS)
def test_library_sizes_are_row_sums(counts, make):
    sizes = library_sizes(make(counts.astype(np.float32)))
    assert sizes.dtype == np.float64
    np.testing.assert_array_equal(sizes, counts.sum(axis=1))


@pytest.mark.parametrize("make", FORMATS)
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_expression_scale_and_input_unchanged(counts, make, dtype):
    X = make(counts.astype(dtype))
    library = np.linspace(50, 500, 30)
    out = to_expression(X, library)
    dense = out.toarray() if sparse.issparse(out) else out
    assert dense.dtype == np.float32
    np.testing.assert_allclose(dense, np.log1p(1e4 * counts / library[:, None]), rtol=1e-6)
    np.testing.assert_array_equal(X.toarray() if sparse.issparse(X) else X, counts)
    if sparse.issparse(X):
        assert out.format == "csr"
        assert not np.shares_memory(out.indices, X.indices)


@pytest.mark.parametrize("make", FORMATS)
def test_logarithms_are_copied_as_they_are(counts, make):
    X = make(np.log1p(counts).astype(np.float32))
    out = to_expression(X)
    values = out.data if sparse.issparse(out) else out
    values += 1.0
    original = X.toarray() if sparse.issparse(X) else X
    np.testing.assert_array_equal(original, np.log1p(counts).astype(np.float32))


def test_agrees_with_scanpy(counts):
    import scanpy as sc

    adata = ad.AnnData(counts.astype(np.float32))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    np.testing.assert_allclose(to_expression(counts, library_sizes(counts)), adata.X, rtol=1e-5)


def test_cells_without_counts_are_named(counts):
    library = library_sizes(counts)
    library[[4, 9]] = 0
    with pytest.raises(ValueError, match=r"2 cells .*first: 4 \(0\), 9 \(0\).*filter_cells"):
        to_expression(counts, library)
    with pytest.raises(ValueError, match="3 library sizes were given for 30 cells"):
        to_expression(counts, [1, 2, 3])


def test_source_of_an_anndata(counts):
    adata = ad.AnnData(np.log1p(counts).astype(np.float32), layers={"counts": counts})
    adata.obs["total"] = counts.sum(axis=1) + 5
    assert expression_source(adata, None, "total")[1] is None
    X, library = expression_source(adata, "counts", "total")
    np.testing.assert_array_equal(library, counts.sum(axis=1) + 5)
    np.testing.assert_array_equal(X, counts)
    np.testing.assert_array_equal(expression_source(adata, "counts", None)[1], counts.sum(axis=1))


def test_wrong_sources_are_named(counts):
    adata = ad.AnnData(counts.astype(np.float32))
    adata.obs["total"] = 5.0
    adata.obs["kind"] = "x"
    adata.obs["batch"] = ["a"] * 29 + [None]
    with pytest.raises(KeyError, match="layer='counts'"):
        expression_source(adata, "counts", None)
    with pytest.raises(KeyError, match=r"library_size_key='totals'.*\['total'\]"):
        expression_source(adata, None, "totals")
    with pytest.raises(ValueError, match="library_size_key: 'kind' holds text, not numbers"):
        expression_source(adata, None, "kind")
    with pytest.raises(ValueError, match=r"missing for 1 cells \(first: 29\)"):
        batch_codes(adata, "batch")
    with pytest.raises(ValueError, match="adata.X is empty"):
        expression_source(ad.AnnData(shape=(3, 2)), None, None)


def test_kind_of_data_is_that_of_the_sums():
    halves = sparse.csr_matrix((np.full(4, 0.5), np.array([0, 0, 1, 1]), np.array([0, 4])), shape=(1, 2))
    assert data_kind(halves) == "counts"
    wholes = sparse.csr_matrix((np.array([3.0, -1.0]), np.array([0, 0]), np.array([0, 2])), shape=(1, 2))
    assert data_kind(wholes) == "counts"
    with pytest.raises(ValueError, match=r"-1.0 at cell 0, gene 0"):
        data_kind(-wholes + sparse.csr_matrix([[1.0, 0.0]]))
