import numpy as np
import pytest
from scipy import sparse

from raptorgraph.metrics._samples import as_samples, dense


@pytest.mark.parametrize(
    ("given", "kept"),
    [(np.int8, np.float32), (np.uint16, np.float32), (np.int64, np.float64),
     (np.float32, np.float32), (np.float64, np.float64), (bool, np.float32)],
)  # fmt: skip
def test_types_hold_all_values(given, kept):
    x = np.array([[0, 1], [100, 0]]).astype(given)
    for sample in (x, sparse.csr_matrix(x), sparse.csc_array(x)):
        (found,) = as_samples(sample)
        assert found.dtype == kept
        np.testing.assert_array_equal(dense(found), x)
        assert dense(found).dtype == np.float64


def test_formats():
    x = np.arange(6.0).reshape(3, 2)
    array, table, *rest = as_samples(x, x.tolist(), *(sparse.coo_array(x), sparse.csc_matrix(x), sparse.csr_array(x)))
    assert array is x  # no copy
    np.testing.assert_array_equal(table, x)
    assert all(matrix.format == "csr" for matrix in rest)
    # entries that are stored twice add up as floats, not as bytes
    twice = sparse.coo_array((np.array([100, 100], dtype=np.int8), ([0, 0], [1, 1])), shape=(1, 2))
    np.testing.assert_array_equal(dense(as_samples(twice)[0]), [[0, 200]])


def test_errors():
    x = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"shapes \(3, 2\) and \(3, 1\)"):
        as_samples(x, x[:, :1])
    with pytest.raises(ValueError, match=r"shapes \(3,\)"):
        as_samples(x[:, 0])
    with pytest.raises(ValueError, match=r"shapes \(3, 0\)"):
        as_samples(x[:, :0])
    with pytest.raises(ValueError, match="at least 4 cells, got 3"):
        as_samples(x, least=4)
    with pytest.raises(ValueError, match="masked values"):
        as_samples(np.ma.masked_equal([[1.0, 2.0]], 2.0))
    for sample in (np.array([[1.0, np.inf]]), sparse.csr_matrix([[1.0, np.nan]])):
        with pytest.raises(ValueError, match="not finite, first of gene 1"):
            as_samples(x, sample)
