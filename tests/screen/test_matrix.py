"""Matrices in canonical form; storages of all kinds are in tests/test_storage.py."""

import numpy as np
import pytest
from scipy import sparse

from raptorgraph.screen._matrix import as_matrix, check_matrix, to_dense


def test_what_is_canonical_is_not_copied():
    counts = np.random.default_rng(0).poisson(2.0, size=(20, 6)).astype(np.float64)
    X = sparse.csr_matrix(counts.astype(np.uint16))
    assert as_matrix(X) is X
    assert np.shares_memory(as_matrix(sparse.csr_array(X)).data, X.data)
    assert as_matrix(counts) is counts
    for same in (np.ma.masked_array(counts), counts.view(np.matrix)):
        assert type(as_matrix(same)) is np.ndarray
        assert np.shares_memory(as_matrix(same), counts)


def test_parts_add_up_beyond_their_type():
    for make in (sparse.csr_matrix, sparse.csc_matrix):
        X = make((np.array([200, 100, 5], dtype=np.uint8), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
        np.testing.assert_array_equal(as_matrix(X).data, [300, 5])
    X = sparse.coo_matrix((np.array([100, 100], dtype=np.int8), ([0, 0], [1, 1])), shape=(1, 2))
    np.testing.assert_array_equal(as_matrix(X).toarray(), [[0, 200]])
    cancelled = sparse.csr_matrix((np.array([3, -3, 2]), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 2))
    assert as_matrix(cancelled).nnz == 1
    truth = sparse.csr_matrix((np.ones(2, dtype=bool), np.array([1, 1]), np.array([0, 2])), shape=(1, 2))
    assert as_matrix(truth).dtype == bool
    assert as_matrix(truth).nnz == 1


def test_arrays_of_either_kind():
    for X in (sparse.csc_matrix(np.eye(3)), sparse.csr_array(np.eye(3)), np.eye(3)):
        assert type(to_dense(X)) is np.ndarray
        np.testing.assert_array_equal(to_dense(X), np.eye(3))


def half():
    X = sparse.csr_matrix(np.eye(2))
    X.data = X.data.astype(np.float16)
    return X


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (object(), TypeError, "in memory, not object"),
        (np.ones(3), TypeError, "1 dimensions of type float64"),
        (np.array([["a"]]), TypeError, "2 dimensions of type <U1"),
        (sparse.csr_matrix(np.eye(2), dtype=complex), TypeError, "type complex128"),
        (half(), TypeError, "sparse matrices of type float16"),
        (np.ma.masked_less(np.eye(2), 1), ValueError, "2 values are masked"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(X, error, match):
    with pytest.raises(error, match=match):
        check_matrix(X)
