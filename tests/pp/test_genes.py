import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from raptorgraph.pp import _genes, select_genes

DATA = Path(os.environ.get("RAPTORGRAPH_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture
def screen():
    """Counts of 300 cells x 120 genes, 30 of them variable; targets g0 (variable), g100 (not) and one not measured."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.5, 5.0, size=120)
    rate = np.where(np.arange(120) < 30, rng.gamma(0.3, 1 / 0.3, size=(300, 120)), 1.0) * mean
    obs = pd.DataFrame(
        {"perturbation": rng.choice(["control", "g0", "g100+g0", "absent"], 300), "batch": rng.choice(["x", "y"], 300)},
        index=[f"c{i}" for i in range(300)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(120)])
    return ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=var)


@pytest.mark.parametrize("flavor", [None, "seurat_v3", "seurat_v3_paper", "seurat", "cell_ranger"])
@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_variable_genes_and_targets_are_kept(screen, flavor, batch_key):
    if flavor in ("seurat_v3", "seurat_v3_paper"):
        pytest.importorskip("skmisc")
    total = np.asarray(screen.X.sum(axis=1)).ravel()
    before = screen.X.copy()
    full = screen.copy()
    select_genes(full, 20, flavor=flavor, batch_key=batch_key, subset=False)
    kept = full.var_names[full.var["highly_variable"]]
    assert {"g0", "g100"} <= set(kept)
    assert len(kept) in (20, 21, 22)
    assert full.var_names[full.var["perturbation_target"]].tolist() == ["g0", "g100"]
    if flavor != "cell_ranger":  # it scales within bins of genes, here of six
        assert sum(int(name[1:]) < 30 for name in kept) >= 15
    np.testing.assert_array_equal(full.X.toarray(), before.toarray())
    select_genes(screen, 20, flavor=flavor, batch_key=batch_key)
    assert screen.var_names.tolist() == kept.tolist()
    np.testing.assert_allclose(screen.obs["raptorgraph_library_size"], total)


def test_read_outs_of_guides_are_no_genes(screen):
    """They vary most, being there in the cells of one perturbation alone, and are in no library."""
    rng = np.random.default_rng(1)
    read = sparse.csr_matrix(50.0 * (screen.obs[["perturbation"]] == "g0").to_numpy() * rng.integers(1, 3, (300, 1)))
    var = pd.DataFrame(index=[*screen.var_names, "sgg0-1", "g0_g1:g100_g2"])
    X = sparse.csr_matrix(sparse.hstack([screen.X, read, read]), dtype=np.float32)
    both = ad.AnnData(X, obs=screen.obs.copy(), var=var)
    both.var["feature_types"] = ["Gene Expression"] * 120 + ["CRISPR Guide Capture"] * 2
    for n in (20, 1000):
        full, genes = both.copy(), screen.copy()
        select_genes(full, n)
        select_genes(genes, n)
        assert full.var_names.tolist() == genes.var_names.tolist()
        np.testing.assert_array_equal(full.obs["raptorgraph_library_size"], genes.obs["raptorgraph_library_size"])


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger"])
def test_agrees_with_scanpy_on_the_expression_scale(screen, flavor):
    reference = screen.copy()
    sc.pp.normalize_total(reference, target_sum=1e4)
    sc.pp.log1p(reference)
    sc.pp.highly_variable_genes(reference, n_top_genes=25, flavor=flavor)
    select_genes(screen, 25, flavor=flavor, subset=False)
    expected = reference.var["highly_variable"] | reference.var_names.isin(["g0", "g100"])
    np.testing.assert_array_equal(screen.var["highly_variable"], expected)


def test_given_library_sizes_set_the_expression_scale(screen):
    screen.obs["total"] = np.random.default_rng(0).uniform(100, 3000, size=300)
    reference = screen.copy()
    reference.X = np.log1p(1e4 * screen.X.toarray() / screen.obs["total"].to_numpy()[:, None])
    score = sc.pp.highly_variable_genes(reference, n_top_genes=25, inplace=False)["dispersions_norm"].to_numpy()
    # Bins of two genes tie: cut at the widest gap between the scores.
    ranked = np.sort(score)[::-1]
    n_top = 15 + int(np.argmax(ranked[14:29] - ranked[15:30]))
    expected = (score >= ranked[n_top - 1]) | reference.var_names.isin(["g0", "g100"])
    by_rows = screen.copy()
    select_genes(by_rows, n_top, flavor="seurat", subset=False)
    select_genes(screen, n_top, flavor="seurat", library_size_key="total", subset=False)
    np.testing.assert_array_equal(screen.var["highly_variable"], expected)
    assert (by_rows.var["highly_variable"] != expected).any()


def test_logarithms_need_no_library(screen):
    sc.pp.normalize_total(screen, target_sum=1e4)
    sc.pp.log1p(screen)
    select_genes(screen, 20)
    assert "raptorgraph_library_size" not in screen.obs
    assert {"g0", "g100"} <= set(screen.var_names)
    with pytest.raises(ValueError, match="needs counts"):
        select_genes(screen, 5, flavor="seurat_v3")


def test_without_scikit_misc_the_log_scale_is_used(screen, monkeypatch):
    monkeypatch.setattr(_genes, "find_spec", lambda name: None)
    other = screen.copy()
    select_genes(screen, 20)
    select_genes(other, 20, flavor="seurat")
    assert screen.var_names.tolist() == other.var_names.tolist()
    with pytest.raises(ImportError, match="scikit-misc"):
        select_genes(other, 5, flavor="seurat_v3")


def test_library_sizes_that_are_there_are_kept(screen):
    screen.obs["total"] = np.asarray(screen.X.sum(axis=1)).ravel() + 100.0
    before = screen.obs.copy()
    select_genes(screen, 40, library_size_key="total")
    pd.testing.assert_frame_equal(screen.obs, before)
    select_genes(screen, 20)
    select_genes(screen, 10)  # a second selection does not take the part for the whole
    assert (screen.obs["raptorgraph_library_size"] > np.asarray(screen.X.sum(axis=1)).ravel() * 1.2).all()


def test_more_genes_than_there_are_keeps_all(screen):
    select_genes(screen, 5000)
    assert screen.n_vars == 120
    assert screen.var["highly_variable"].all()


def test_survives_writing(screen, tmp_path):
    select_genes(screen, 20)
    screen.write_h5ad(tmp_path / "screen.h5ad")
    back = ad.read_h5ad(tmp_path / "screen.h5ad")
    pd.testing.assert_frame_equal(back.var, screen.var)
    np.testing.assert_array_equal(back.obs["raptorgraph_library_size"], screen.obs["raptorgraph_library_size"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_top_genes": 0}, ValueError, "n_top_genes"),
        ({"n_top_genes": 2.5}, TypeError, "2.5"),
        ({"flavor": "seurat_v4"}, ValueError, "seurat_v4"),
        ({"perturbation_key": "guide"}, KeyError, "guide"),
        ({"batch_key": "lane"}, KeyError, "lane"),
        ({"layer": "raw"}, KeyError, "raw"),
    ],
)
def test_errors_leave_the_data_alone(screen, arguments, error, message):
    obs, var = screen.obs.copy(), screen.var.copy()
    with pytest.raises(error, match=message):
        select_genes(screen, **arguments)
    pd.testing.assert_frame_equal(screen.obs, obs)
    pd.testing.assert_frame_equal(screen.var, var)


def test_empty_cells_are_named(screen):
    X = screen.X.tolil()
    X[7] = 0
    screen.X = X.tocsr()
    with pytest.raises(ValueError, match=r"c7 \(0\)"):
        select_genes(screen, 20)
    assert "raptorgraph_library_size" not in screen.obs


def test_batches_too_small_for_the_regression_are_refused(screen):
    pytest.importorskip("skmisc")
    screen.obs["batch"] = ["lonely"] + ["x"] * 299
    with pytest.raises(ValueError, match=r"only 0 do in one of 1 cells"):
        select_genes(screen, 20, flavor="seurat_v3", batch_key="batch")
    assert "highly_variable" not in screen.var


def test_a_singular_regression_names_the_flavor(screen):
    pytest.importorskip("skmisc")
    # All genes have one of two means.
    half = np.arange(300) % 2
    X = np.stack([np.roll(half, i) * (1 + i % 2) for i in range(120)], axis=1)
    alike = ad.AnnData(X.astype(np.float32), obs=screen.obs, var=screen.var)
    with pytest.raises(ValueError, match="'seurat_v3' failed"):
        select_genes(alike, 20, flavor="seurat_v3")
    assert "highly_variable" not in alike.var


def test_real_screen_keeps_every_measured_target():
    path = DATA / "carpool_semireal.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    adata = ad.read_h5ad(path)
    targets = {gene for label in adata.obs["perturbation"].unique() for gene in label.split("+")} & set(adata.var_names)
    select_genes(adata, 100, library_size_key="total_counts")
    assert not any(":" in name for name in adata.var_names)  # 240 of 2,000 variables are arrays of guides
    assert len(targets) == 7
    assert targets <= set(adata.var_names)
    assert adata.n_vars <= 107
