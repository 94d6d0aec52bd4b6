"""Pairs of cells: what sums of a plan are, whatever the cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raptorgraph.pp._pairing import METHODS, pairing_plan, sample_partners


@pytest.mark.parametrize("method", sorted(METHODS))
@given(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 2**31), st.booleans())
def test_marginals(method, n_controls, sizes, seed, batches):
    codes = np.repeat(np.arange(len(sizes) + 1), [n_controls, *sizes])
    rng = np.random.default_rng(seed)
    codes, Z = rng.permutation(codes), rng.normal(size=(len(codes), 2))
    batch = rng.integers(2, size=len(codes)) if batches else None
    plan = pairing_plan(Z, codes, method=method, batch=batch, seed=0)
    assert plan.shape == (len(codes), len(codes))
    assert (plan.data >= 0).all()
    np.testing.assert_allclose(np.asarray(plan.sum(1)).ravel(), codes > 0, rtol=1e-5)
    assert not plan[:, np.flatnonzero(codes)].nnz  # partners are controls
    if batch is not None:
        i, j = plan.nonzero()
        with_controls = np.isin(batch[i], batch[codes == 0])
        assert (batch[i] == batch[j])[with_controls].all()
    if method == "emd" and batch is None:  # every control serves as much as any other
        for code in range(1, len(sizes) + 1):
            rows = np.flatnonzero(codes == code)
            used = np.asarray(plan[rows].sum(0)).ravel()[codes == 0] / len(rows)
            np.testing.assert_allclose(used, 1 / n_controls, atol=1e-5)
    partners = sample_partners(plan, np.flatnonzero(codes), rng)
    assert (codes[partners] == 0).all()
