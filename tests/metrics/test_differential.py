import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from scipy.stats import false_discovery_control, ttest_ind

from raptorgraph.metrics._differential import (
    log2_fold_change,
    top_genes,
    welch_t,
    wilcoxon,
)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    control = np.log1p(rng.poisson(1.0, size=(60, 25))).astype(float)
    groups = [np.log1p(rng.poisson(rng.uniform(0.3, 3, size=25), size=(n, 25))).astype(float) for n in (20, 35)]
    return groups, control


def _welch(groups, control):
    return welch_t(
        [group.mean(axis=0) for group in groups],
        [group.var(axis=0, ddof=1) for group in groups],
        [len(group) for group in groups],
        control.mean(axis=0),
        control.var(axis=0, ddof=1),
        len(control),
    )


def test_welch_is_that_of_scipy(cells):
    groups, control = cells
    result = _welch(groups, control)
    for row, group in enumerate(groups):
        expected = ttest_ind(group, control, equal_var=False)
        np.testing.assert_allclose(result.statistic[row], expected.statistic)
        np.testing.assert_allclose(result.p_value[row], expected.pvalue)
        np.testing.assert_allclose(result.fdr[row], false_discovery_control(expected.pvalue))
    group = groups[0]
    one = welch_t(
        group.mean(axis=0), group.var(axis=0, ddof=1), 20, control.mean(axis=0), control.var(axis=0, ddof=1), 60
    )
    np.testing.assert_allclose(one.statistic, result.statistic[0])


def test_welch_is_that_of_scanpy(cells):
    groups, control = cells
    obs = pd.DataFrame({"group": pd.Categorical(["g"] * len(groups[0]) + ["control"] * len(control))})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(np.vstack([groups[0], control]), obs=obs)
    adata.uns["log1p"] = {"base": None}
    sc.tl.rank_genes_groups(adata, "group", groups=["g"], reference="control", method="t-test")
    table = sc.get.rank_genes_groups_df(adata, "g").set_index("names").loc[adata.var_names]
    result = _welch(groups[:1], control)
    np.testing.assert_allclose(result.statistic[0], table["scores"], rtol=1e-5)
    np.testing.assert_allclose(result.fdr[0], table["pvals_adj"], rtol=1e-5)


def test_genes_without_variance():
    mean, var = np.array([[1.0, 1, 2]]), np.zeros((1, 3))
    result = welch_t(mean, var, [5], [1.0, 2, 1], np.zeros(3), 5)
    np.testing.assert_array_equal(result.statistic, [[0, -np.inf, np.inf]])
    np.testing.assert_array_equal(result.p_value, [[1, 0, 0]])
    same = wilcoxon(np.ones((4, 2)), np.ones((6, 2)))
    np.testing.assert_array_equal(same.statistic, 12)
    np.testing.assert_array_equal(same.p_value, 1)
    np.testing.assert_array_equal(same.fdr, 1)


def test_genes_that_are_not_measured():
    with pytest.raises(ValueError, match="mean of gene 1 is not a finite number"):
        welch_t([[1.0, np.nan]], np.ones((1, 2)), [5], [1.0, 2.0], np.ones(2), 5)
    with pytest.raises(ValueError, match="control_var of gene 0 is not a finite number"):
        welch_t([[1.0, 2.0]], np.ones((1, 2)), [5], [1.0, 2.0], [np.inf, 1.0], 5)
    with pytest.raises(ValueError, match="not finite, first of gene 1"):
        wilcoxon([[1.0, 2.0], [3.0, 4.0]], [[1.0, np.nan], [2.0, 3.0]])


def test_wilcoxon_of_sparse_cells_in_parts(cells, monkeypatch):
    groups, control = cells
    expected = wilcoxon(groups[0], control)
    pairs = (groups[0][:, None] > control).sum(axis=(0, 1)) + 0.5 * (groups[0][:, None] == control).sum(axis=(0, 1))
    np.testing.assert_allclose(expected.statistic, pairs)
    np.testing.assert_allclose(expected.fdr, false_discovery_control(expected.p_value))
    monkeypatch.setattr("raptorgraph.metrics._differential._CHUNK", 200)
    result = wilcoxon(sparse.csr_matrix(groups[0]), sparse.csr_array(control))
    for got, want in zip(result, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_fold_change():
    change = log2_fold_change(np.log1p([[0.0, 0, 2, 1, 8]]), np.log1p([0.0, 1, 0, 1, 2]))
    np.testing.assert_allclose(change, [[0, -np.inf, np.inf, 0, 2]], atol=1e-12)


def test_top_genes_are_strongest_first_and_ties_in_order():
    scores = np.array([[1.0, -3, 2, 3, 0], [0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(top_genes(scores, 3), [[1, 3, 2], [4, 0, 1]])
    np.testing.assert_array_equal(top_genes(scores[0], 5), [1, 3, 2, 0, 4])
    np.testing.assert_array_equal(top_genes([np.inf, 1, -np.inf], 2), [0, 2])


def test_errors(cells):
    groups, control = cells
    zeros = np.zeros((2, 4))
    with pytest.raises(ValueError, match="smallest perturbation has 1"):
        welch_t(zeros, zeros, [1, 5], zeros[0], zeros[0], 5)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        welch_t(zeros, zeros, [5, 5, 5], zeros[0], zeros[0], 5)
    with pytest.raises(ValueError, match="for the 4 genes"):
        welch_t(zeros, zeros, [5, 5], zeros[0, 1:], zeros[0], 5)
    with pytest.raises(ValueError, match=r"\(20, 24\)"):
        wilcoxon(groups[0][:, 1:], control)
    with pytest.raises(ValueError, match="at least 1 cells, got 0"):
        wilcoxon(groups[0][:0], control)
    with pytest.raises(ValueError, match="not effects"):
        log2_fold_change([[-1.0]], [1.0])
    with pytest.raises(ValueError, match="k=5"):
        top_genes(zeros, 5)
    with pytest.raises(ValueError, match="1 scores are NaN"):
        top_genes([0.0, np.nan], 1)
