import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from raptorgraph.datasets._normalization import to_median, to_target


@pytest.fixture
def counts():
    """Counts of 60 cells, and library sizes of more genes than these."""
    rng = np.random.default_rng(0)
    values = rng.poisson(1.0, size=(60, 30))
    return sparse.csr_matrix(values), values.sum(1) + rng.integers(50, 400, 60).astype(float)


def log_values(counts, library, target):
    return np.log1p(target * counts.toarray() / library[:, None])


def test_the_median_cell_keeps_its_counts(counts):
    X, library = counts
    values, target = to_median(X, library)
    assert target == np.median(library)
    np.testing.assert_allclose(values.toarray(), log_values(X, library, np.median(library)), rtol=1e-5)
    assert values.dtype == np.float32


@pytest.mark.parametrize("column", ["total_counts", "ncounts", "n_counts", "nCount_RNA"])
def test_values_are_brought_to_counts_per_10_000(counts, column):
    X, library = counts
    values = sparse.csr_matrix(log_values(X, library, 777.0).astype(np.float32))
    found = to_target(values, pd.DataFrame({column: library}))
    np.testing.assert_allclose(found.toarray(), log_values(X, library, 1e4), rtol=1e-4)
    assert found.dtype == np.float32


def test_values_that_do_not_tell_their_scale_stay(counts):
    X, library = counts
    values = sparse.csr_matrix(log_values(X, library, 777.0).astype(np.float32))
    assert to_target(values, pd.DataFrame({"lane": library})) is values  # without library sizes
    shuffled = pd.DataFrame({"n_counts": library[::-1].copy()})  # with those of other cells
    assert to_target(values, shuffled) is values
    right = sparse.csr_matrix(log_values(X, library, 1e4).astype(np.float32))
    assert to_target(right, pd.DataFrame({"n_counts": library})) is right
    empty = sparse.csr_matrix((60, 30), dtype=np.float32)
    assert to_target(empty, pd.DataFrame({"n_counts": library})) is empty
