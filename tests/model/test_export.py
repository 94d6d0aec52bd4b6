"""Results in the forms of others: cell-eval's pair of files, scanpy's embeddings."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

import raptorgraph as rg

pytestmark = pytest.mark.usefixtures("few_steps")


def screen():
    return rg.datasets.simulate(
        n_genes=60, n_perturbed=5, n_control_cells=120, n_cells_per_perturbation=40, n_doubles=3, n_truth_cells=50,
        targets_without_gene=0.2, seed=1,
    )  # fmt: skip


def fit(adata, **kwargs):
    scvi.settings.seed = 0
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata, **kwargs)
    model.train(max_epochs=8, enable_progress_bar=False, accelerator="cpu")
    return model


@pytest.fixture(scope="module")
def trained():
    return fit(screen())


# -- cell-eval -----------------------------------------------------------------------------------------------------
def test_pair_of_files(trained, tmp_path):
    labels = [*[label for label in trained.conditions if "+" in label][:1], "P03"]
    predicted, real = trained.export_to_cell_eval(tmp_path / "out", labels, seed=0)
    for cells, name in ((predicted, "pred"), (real, "real")):
        back = ad.read_h5ad(tmp_path / "out" / f"{name}.h5ad")
        np.testing.assert_array_equal(back.X.toarray(), cells.X.toarray())
        assert list(back.obs["perturbation"]) == list(cells.obs["perturbation"])
        assert list(back.var_names) == list(trained.adata.var_names)
        assert isinstance(cells.X, sparse.csr_matrix)
        assert cells.X.dtype == np.float32
    counts = real.obs["perturbation"].value_counts().to_dict()
    assert (
        counts == predicted.obs["perturbation"].value_counts().to_dict() == {"control": 120, labels[0]: 40, "P03": 40}
    )
    # Real cells are those of the data on the expression scale, and controls are the same in both.
    own = trained.adata[(trained.adata.obs["perturbation"] == "P03").to_numpy()]
    expected = np.log1p(1e4 * own.X.toarray() / own.obs["total_counts"].to_numpy()[:, None])
    np.testing.assert_allclose(real.X[(real.obs["perturbation"] == "P03").to_numpy()].toarray(), expected, rtol=1e-5)
    same = [cells.X[(cells.obs["perturbation"] == "control").to_numpy()].toarray() for cells in (predicted, real)]
    np.testing.assert_array_equal(*same)
    drawn = trained.predict("P03", n_cells=40, seed=0).X.toarray()
    np.testing.assert_array_equal(predicted.X[(predicted.obs["perturbation"] == "P03").to_numpy()].toarray(), drawn)
    with pytest.raises(FileExistsError, match="pred.h5ad"):
        trained.export_to_cell_eval(tmp_path / "out", labels)
    trained.export_to_cell_eval(tmp_path / "out", "P03", n_cells=7, overwrite=True)
    assert ad.read_h5ad(tmp_path / "out" / "pred.h5ad").n_obs == 127


def test_held_out_cells(trained):
    held_out = screen()
    held_out.obs["perturbation"] = held_out.obs["perturbation"].astype(str)
    names = list(held_out.var_names)
    held_out = held_out[held_out.obs["perturbation"].isin(["control", "P01", "P04"]), names[::-1]].copy()
    predicted, real = trained.export_to_cell_eval(adata=held_out, n_cells=15)
    assert set(real.obs["perturbation"]) == {"control", "P01", "P04"}
    assert list(real.var_names) == list(trained.adata.var_names)
    assert (predicted.obs["perturbation"] == "P01").sum() == 15
    without = held_out[held_out.obs["perturbation"] != "control"].copy()
    predicted, real = trained.export_to_cell_eval(adata=without, n_cells=15)
    assert (real.obs["perturbation"] == "control").sum() == 120  # those of the training data
    with pytest.raises(ValueError, match="no real cells of P02"):
        trained.export_to_cell_eval(perturbations=["P01", "P02"], adata=held_out)
    with pytest.raises(ValueError, match="TP53"):
        trained.export_to_cell_eval(perturbations=["TP53"])
    with pytest.raises(ValueError, match="genes are not in var_names"):
        trained.export_to_cell_eval(adata=held_out[:, :30].copy())


def test_values_below_zero_are_cut_off():
    adata = screen()
    adata.X = sparse.csr_matrix(np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None]))
    model = fit(adata)
    predicted, real = model.export_to_cell_eval(perturbations=["P01"])
    assert model.predict("P01", n_cells=40).X.min() < 0 == predicted.X.min()
    mask = (real.obs["perturbation"] == "P01").to_numpy()
    own = adata.X[(adata.obs["perturbation"] == "P01").to_numpy()].toarray()
    np.testing.assert_allclose(real.X[mask].toarray(), own, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:the string cache has been replaced:DeprecationWarning")
def test_cell_eval_runs_on_them(trained, tmp_path):
    cell_eval = pytest.importorskip("cell_eval")
    trained.export_to_cell_eval(tmp_path / "pair", ["P01", "P02", "P03"], seed=0)
    evaluator = cell_eval.MetricsEvaluator(
        adata_pred=str(tmp_path / "pair" / "pred.h5ad"),
        adata_real=str(tmp_path / "pair" / "real.h5ad"),
        control_pert="control",
        pert_col="perturbation",
        num_threads=1,
        outdir=str(tmp_path / "scores"),
    )
    results, _ = evaluator.compute(profile="minimal", write_csv=False, break_on_error=True)
    table = results.to_pandas().set_index("perturbation")
    assert set(table.index) == {"P01", "P02", "P03"}
    # Our own score of the same cells.
    pair = [ad.read_h5ad(tmp_path / "pair" / f"{name}.h5ad") for name in ("pred", "real")]
    for label in table.index:
        deltas = []
        for cells in pair:
            X, labels = cells.X.toarray(), cells.obs["perturbation"].to_numpy(str)
            deltas.append(X[labels == label].mean(0) - X[labels == "control"].mean(0))
        assert table.loc[label, "pearson_delta"] == pytest.approx(rg.metrics.pearson_delta(*np.stack(deltas)), abs=1e-5)
        assert table.loc[label, "pearson_delta"] > 0.5  # in-sample


# -- scanpy --------------------------------------------------------------------------------------------------------
def test_scanpy_works_on_the_latents(trained):
    adata = trained.adata.copy()
    trained.annotate(adata)
    sc.pp.neighbors(adata, use_rep="X_raptorgraph", n_neighbors=10)
    assert adata.uns["neighbors"]["params"]["use_rep"] == "X_raptorgraph"
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    sc.tl.umap(adata, maxiter=20)
    assert adata.obsm["X_umap"].shape == (adata.n_obs, 2)
    nearest = np.sort(cdist(adata.obsm["X_raptorgraph"], adata.obsm["X_raptorgraph"]), axis=1)[:, 1:10]
    np.testing.assert_allclose(np.sort(adata.obsp["distances"].toarray(), axis=1)[:, -9:], nearest, rtol=1e-4)
    sc.tl.embedding_density(adata, basis="umap", groupby="perturbation")
    sc.tl.dendrogram(adata, "perturbation", use_rep="X_raptorgraph")
    axes = sc.pl.umap(adata, color=["perturbation", "leiden"], show=False)
    assert len(axes) == 2
    assert sc.pl.embedding(adata, basis="X_raptorgraph", color="perturbation", show=False) is not None


@pytest.mark.slow  # numba compiles pynndescent: about 45 s of a core
@pytest.mark.timeout(900)
def test_scanpy_works_on_the_latents_of_many_cells():
    # from 8,192 cells on scanpy asks pynndescent; numbers stand in for the latents of two far groups of cells
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(9000, 5)).astype(np.float32)
    latents[:4500, 0] += 40
    adata = ad.AnnData(np.zeros((9000, 1), dtype=np.float32), obsm={"X_raptorgraph": latents})
    sc.pp.neighbors(adata, use_rep="X_raptorgraph")
    some = rng.choice(9000, 200, replace=False)
    near = NearestNeighbors(n_neighbors=10).fit(latents).kneighbors(latents[some], return_distance=False)
    found = [set(adata.obsp["distances"][cell].indices) | {cell} for cell in some]
    assert np.mean([len(found[i].intersection(near[i])) / 10 for i in range(200)]) > 0.98
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    assert pd.crosstab(adata.obs["leiden"], np.arange(9000) < 4500).gt(0).sum(axis=1).eq(1).all()
    sc.tl.umap(adata, maxiter=20)
    left, right = adata.obsm["X_umap"][:4500], adata.obsm["X_umap"][4500:]
    assert np.linalg.norm(left.mean(0) - right.mean(0)) > 2 * max(left.std(), right.std())
