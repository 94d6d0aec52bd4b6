import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

from raptorgraph.pp import pair_cells
from raptorgraph.pp._pairing import pairing_plan, principal_components, sample_partners

DATA = Path(os.environ.get("RAPTORGRAPH_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
METHODS = ["emd", "sinkhorn", "hungarian", "nearest", "random"]


def cloud(*sizes, seed=0, n_dims=4):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).normal(size=(len(codes), n_dims)) + 0.3 * codes[:, None], codes


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_components_span_those_of_the_singular_value_decomposition(make):
    X = np.random.default_rng(0).poisson(1.0, size=(60, 20)) * np.linspace(0.3, 2, 20)
    scores = principal_components(make(X), 5)
    left, values, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(np.abs(scores), np.abs(left[:, :5] * values[:5]), atol=1e-4)
    np.testing.assert_array_equal(principal_components(make(X), 5), scores)


def test_the_number_of_components_is_clipped():
    X = np.random.default_rng(0).random((30, 6))
    assert principal_components(X, 50).shape == (30, 5)
    with pytest.raises(ValueError, match="1 cells"):
        principal_components(X[:1], 2)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_of_one_gene_the_component_is_the_gene(make):
    counts = np.array([[1.0], [4.0], [0.0]])
    library = np.array([100.0, 200.0, 50.0])
    values = np.log1p(1e4 * counts[:, 0] / library)
    found = principal_components(make(counts), 5, library=library)
    np.testing.assert_allclose(found[:, 0], values - values.mean(), rtol=1e-5)


def test_components_are_found_on_some_cells_and_all_are_projected():
    X = np.random.default_rng(0).normal(size=(300, 6)) * [9, 4, 1, 0.1, 0.1, 0.1]
    found = principal_components(X, 2, max_cells=100, chunk_size=70, seed=1)
    rows = np.sort(np.random.default_rng(1).choice(300, 100, replace=False))
    _, _, axes = np.linalg.svd(X[rows] - X[rows].mean(axis=0), full_matrices=False)
    expected = (X - X[rows].mean(axis=0)) @ axes[:2].T
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_perturbed_cells_are_distributions_over_controls(method):
    Z, codes = cloud(25, 10, 40)
    order = np.random.default_rng(1).permutation(len(codes))
    Z, codes = Z[order], codes[order]
    plan = pairing_plan(Z, codes, method=method)
    assert plan.format == "csr"
    assert plan.shape == (75, 75)
    np.testing.assert_allclose(np.asarray(plan.sum(axis=1)).ravel(), codes > 0, rtol=1e-6)
    assert (plan.data > 0).all()
    assert (codes[plan.indices] == 0).all()


def test_cells_are_paired_within_their_batch_or_with_all_controls():
    Z, codes = cloud(30, 30)
    batch = np.r_[np.arange(30) % 2, np.arange(30) % 3]  # batch 2 has no control
    plan = pairing_plan(Z, codes, batch=batch).tocoo()
    for value in (0, 1):
        assert (batch[plan.col[batch[plan.row] == value]] == value).all()
    assert len(set(plan.col[batch[plan.row] == 2])) == 30


def test_random_pairing_follows_the_seed_and_the_perturbation():
    Z, codes = cloud(64, 20, 20)
    plan = pairing_plan(Z, codes, method="random", seed=3)
    assert (plan != pairing_plan(Z, codes, method="random", seed=3)).nnz == 0
    assert (plan != pairing_plan(Z, codes, method="random", seed=4)).nnz > 0
    assert (plan[64:84] != plan[84:]).nnz > 0


def test_more_controls_than_the_limit_are_sampled():
    Z, codes = cloud(100, 20, 20)
    plan = pairing_plan(Z, codes, max_controls=10)
    drawn = [set(plan[100:120].indices), set(plan[120:].indices)]
    assert [len(d) for d in drawn] == [10, 10]
    assert drawn[0] != drawn[1]
    assert (plan != pairing_plan(Z, codes, max_controls=10)).nnz == 0
    assert len(set(pairing_plan(Z, codes, max_controls=90)[100:120].indices)) == 90
    assert len(set(pairing_plan(Z, codes, max_controls=None).indices)) == 100


def test_a_plan_without_perturbed_cells_is_empty():
    assert pairing_plan(np.ones((4, 2)), np.zeros(4, int)).nnz == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "best"}, "best"),
        ({"max_controls": 0}, "max_controls"),
        ({"codes": [1, 1, 2]}, "no control"),
        ({"codes": [0, 1]}, "agree"),
        ({"Z": [[0.0], [np.nan], [1.0]]}, "cell 1"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {"Z": [[0.0], [1.0], [2.0]], "codes": [0, 0, 1], **changes}
    with pytest.raises(ValueError, match=message):
        pairing_plan(**arguments)


def test_partners_are_drawn_with_their_probabilities():
    rows, columns = [3, 3, 3, 4, 5, 5], [0, 1, 2, 1, 0, 2]
    plan = sparse.csr_matrix(([0.5, 0.3, 0.2, 1.0, 0.9, 2.7], (rows, columns)), shape=(6, 6), dtype=np.float32)
    n = 20_000
    drawn = sample_partners(plan, np.tile([5, 3, 4], n), np.random.default_rng(0)).reshape(n, 3)
    frequencies = [np.bincount(column, minlength=3)[:3] / n for column in drawn.T]
    np.testing.assert_allclose(frequencies, [[0.25, 0, 0.75], [0.5, 0.3, 0.2], [0, 1, 0]], atol=0.015)
    again = sample_partners(plan, np.tile([5, 3, 4], n), np.random.default_rng(0)).reshape(n, 3)
    np.testing.assert_array_equal(drawn, again)


def test_cells_without_partner_are_named():
    plan = pairing_plan(*cloud(5, 5))
    with pytest.raises(ValueError, match=r"2 cells have no partner .*\[0, 3\]"):
        sample_partners(plan, [7, 0, 3], np.random.default_rng(0))
    assert sample_partners(plan, [], np.random.default_rng(0)).shape == (0,)


@pytest.fixture
def screen():
    rng = np.random.default_rng(0)
    labels = np.repeat(["ctrl", "B+A", "A+B", "A"], [30, 5, 5, 12])
    obs = pd.DataFrame(
        {"perturbation": labels, "batch": rng.choice(["x", "y"], 52)}, index=[f"c{i}" for i in range(52)]
    )
    return ad.AnnData(sparse.csr_matrix(rng.poisson(3.0, size=(52, 10)).astype(np.float32)), obs=obs)


def test_spellings_of_a_perturbation_are_paired_together(screen):
    pair_cells(screen, control="ctrl", method="hungarian", n_comps=4)
    partners = screen.obsp["raptorgraph_pairing"][30:40].indices
    assert len(set(partners)) == 10  # one problem of ten cells, not two of five


def test_given_coordinates_are_used(screen):
    screen.obsm["Z"] = np.random.default_rng(1).normal(size=(52, 3))
    pair_cells(screen, control="ctrl", method="nearest", use_rep="Z", key_added="near")
    expected = cdist(screen.obsm["Z"][30:], screen.obsm["Z"][:30]).argmin(axis=1)
    np.testing.assert_array_equal(screen.obsp["near"].indices, expected)
    assert screen.uns["near"]["use_rep"] == "Z"
    assert "n_comps" not in screen.uns["near"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "ot"}, ValueError, "'ot'"),
        ({"control": "control"}, ValueError, r"control=\['ctrl'\]"),
        ({"control": ["ctrl", "A", "B"]}, ValueError, "nothing to pair"),
        ({"perturbation_key": "label"}, KeyError, "label"),
        ({"batch_key": "lane"}, KeyError, "lane"),
        ({"use_rep": "X_pca"}, KeyError, "X_pca"),
        ({"layer": "raw"}, KeyError, "raw"),
    ],
)
def test_errors_leave_the_data_alone(screen, arguments, error, message):
    before = screen.copy()
    with pytest.raises(error, match=message):
        pair_cells(screen, **{"control": "ctrl", **arguments})
    pd.testing.assert_frame_equal(screen.obs, before.obs)
    assert not screen.obsp
    assert not screen.uns
    assert (screen.X != before.X).nnz == 0


def test_real_screen_is_paired_and_survives_writing(tmp_path):
    path = DATA / "papalexi2021_eccite.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    adata = ad.read_h5ad(path)
    adata = adata[adata.obs["perturbation"].isin(["control", "IFNGR1", "MYC", "SPI1"])].copy()
    pair_cells(adata, batch_key="bio_rep", max_controls=300)
    adata.write_h5ad(tmp_path / "paired.h5ad")
    back = ad.read_h5ad(tmp_path / "paired.h5ad")
    plan = back.obsp["raptorgraph_pairing"]
    assert (plan != adata.obsp["raptorgraph_pairing"]).nnz == 0
    settings = back.uns["raptorgraph_pairing"]
    assert (settings["method"], settings["max_controls"], list(settings["control"])) == ("emd", 300, ["control"])
    rows = np.flatnonzero(adata.obs["perturbation"] != "control")
    partners = sample_partners(plan, rows, np.random.default_rng(0))
    assert (adata.obs["perturbation"].iloc[partners] == "control").all()
    assert (adata.obs["bio_rep"].to_numpy()[partners] == adata.obs["bio_rep"].to_numpy()[rows]).all()


def test_sparse_coordinates_are_paired_as_dense_ones():
    Z, codes = cloud(12, 9, 7)
    Z[Z < 0] = 0.0
    for method in METHODS:
        one, other = (pairing_plan(make(Z), codes, method=method).toarray() for make in (np.asarray, sparse.csr_matrix))
        np.testing.assert_array_equal(one, other)
    bad = sparse.csr_matrix(Z)
    bad.data[bad.indptr[13]] = np.nan
    with pytest.raises(ValueError, match="coordinates of cell 13 are not finite"):
        pairing_plan(bad, codes)


def test_without_components_cells_are_compared_in_all_genes():
    rng = np.random.default_rng(0)
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(2.0, size=(40, 70)).astype(np.float32)))
    adata.obs["perturbation"] = ["control"] * 25 + ["A"] * 15
    pair_cells(adata, method="nearest", n_comps=None, max_controls=None)
    X = adata.X.toarray().astype(float)
    values = np.log1p(1e4 * X / X.sum(1, keepdims=True))
    nearest = cdist(values[25:], values[:25]).argmin(1)
    np.testing.assert_array_equal(adata.obsp["raptorgraph_pairing"][25:].toarray().argmax(1), nearest)
    assert "n_comps" not in adata.uns["raptorgraph_pairing"]
    with pytest.raises(ValueError, match="n_comps=0 is too small: use 1 or more, or None for all genes"):
        pair_cells(adata, n_comps=0)
