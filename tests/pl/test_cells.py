import numpy as np
import pytest
from scipy import sparse

import raptorgraph as rg
from raptorgraph.pl._cells import canonical, expression_of, screen_of


@pytest.mark.parametrize("spelled", ["B+A", " A + B", ("B", "A"), {"A", "B"}, "A+B+control"])
def test_perturbations_are_written_as_the_model_writes_them(fixed, spelled):
    assert canonical(fixed, spelled) == "A+B"
    fixed.setup_args |= {"delimiter": "_", "control": ["NT", "safe"]}
    assert canonical(fixed, ["B", "A", "safe"]) == "A_B"
    assert canonical(fixed, "safe") == "NT"


def test_model_without_data(fixed):
    assert screen_of(fixed).labels == ["control", "A", "A+B", "B", "C"]
    fixed.adata = None
    with pytest.raises(ValueError, match=r"without data: load it with adata=\.\.\., or else$"):
        screen_of(fixed, ", or else")


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_counts_are_read_on_the_expression_scale(fixed, make):
    counts = np.random.default_rng(0).poisson(3.0, size=fixed.adata.shape)
    fixed.adata.X = make(counts.astype(np.float32))
    fixed.adata.obs["total"] = counts.sum(axis=1) * 2.0
    screen = rg.screen.Screen(fixed.adata, {**fixed.setup_args, "library_size_key": "total"})
    expected = np.log1p(1e4 * counts / fixed.adata.obs["total"].to_numpy()[:, None])
    for rows, genes in ((slice(None), slice(None)), ([7, 3], slice(None)), ([7, 3], [5]), (slice(None), [5, 1])):
        values = expression_of(screen, rows, genes)
        values = values.toarray() if sparse.issparse(values) else values
        np.testing.assert_allclose(values, expected[rows][:, genes], rtol=1e-6)
