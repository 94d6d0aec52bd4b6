"""Embeddings of genes from all their forms, and a model that answers for genes that nobody perturbed."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import raptorgraph as rg
from raptorgraph.inference._conditioning import Conditional
from raptorgraph.inference._draws import JointDraws
from raptorgraph.model._gene_embedding import GeneEmbedding, of_gene_sets

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def screen():
    return rg.datasets.simulate(
        n_genes=60,
        n_perturbed=6,
        n_doubles=3,
        n_control_cells=100,
        n_cells_per_perturbation=30,
        n_truth_cells=20,
        seed=0,
    )


@pytest.fixture(scope="module")
def table(screen):
    """Noisy components of the true effects; NEW is like P01, G0010 a measured gene, ZERO has a row of zeros."""
    truth = screen.uns["simulation"]["effects"].loc[[f"P0{i}" for i in range(1, 7)]]
    left, size, _ = np.linalg.svd(truth, full_matrices=False)
    found = pd.DataFrame(left[:, :3] * size[:3], index=truth.index)
    found.loc["NEW"], found.loc["G0010"], found.loc["ZERO"] = found.loc["P01"] + 0.1, found.loc["P02"], 0.0
    return found


@pytest.fixture(scope="module")
def model(screen, table):
    adata = screen.copy()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", gene_embedding=table)
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, enable_progress_bar=False)
    return model


def test_all_forms_give_the_same_rows(screen, table, tmp_path):
    known = table.drop(index="ZERO").astype(np.float32)
    table.to_csv(tmp_path / "table.csv")
    np.savez(tmp_path / "table.npz", genes=table.index.to_numpy(str), embedding=table.to_numpy(np.float32))
    for given in (table, tmp_path / "table.csv", str(tmp_path / "table.npz")):
        found = GeneEmbedding.of(given)
        assert list(found.genes) == list(known.index)
        np.testing.assert_allclose(found.values, known, rtol=1e-5)
    adata = screen.copy()
    adata.varm["known"] = np.arange(2 * adata.n_vars).reshape(-1, 2) + 1.0
    rows = GeneEmbedding.of("known", adata).rows([adata.var_names[3], "elsewhere"])
    np.testing.assert_array_equal(rows, [[7, 8], [np.nan, np.nan]])


def test_gene_sets_become_tf_idf(tmp_path):
    sets = {"rare": ["A", "B"], "common": ["A", "B", "C", "D"]}
    found = of_gene_sets(sets)
    idf = {name: np.log(5 / (1 + len(genes))) + 1 for name, genes in sets.items()}  # smooth: one gene more has all sets
    expected = pd.DataFrame([[idf[n] * (g in sets[n]) for n in sets] for g in "ABCD"], index=list("ABCD"))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    path = tmp_path / "sets.gmt"
    path.write_text("\n".join("\t".join([name, "na", *genes]) for name, genes in sets.items()) + "\n")
    for given in (sets, path):
        np.testing.assert_allclose(GeneEmbedding.of(given).values, expected, rtol=1e-6)
    rng = np.random.default_rng(0)
    many = {f"s{i}": [f"g{j}" for j in rng.choice(200, 10, replace=False)] for i in range(90)}
    assert of_gene_sets(many).shape[1] == 64
    pd.testing.assert_frame_equal(of_gene_sets(many), of_gene_sets(many))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (3, TypeError, "of type int"),
        ("nowhere", KeyError, "no key of adata.varm"),
        ("nowhere.csv", FileNotFoundError, "no such file"),
        (pd.DataFrame({"x": [1.0, 2]}, index=["A", "A"]), ValueError, "'A'"),
        (pd.DataFrame({"x": [1.0, np.nan]}, index=["A", "B"]), ValueError, "'B'"),
        (pd.DataFrame({"x": ["a", "b"]}, index=["A", "B"]), ValueError, "no numbers"),
        (pd.DataFrame(index=["A"]), ValueError, "empty"),
        (pd.DataFrame({"x": [1.0, 2, 3]}, index=["P01", "P02", "p03"]), ValueError, "has 2 of the 6 genes"),
    ],
)
def test_bad_embeddings_change_nothing(screen, given, error, match):
    adata = screen.copy()
    with pytest.raises(error, match=match):
        rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", gene_embedding=given)
    assert list(adata.var_names) == list(screen.var_names)
    assert set(adata.obsm) == set(screen.obsm)


def test_a_gene_that_nobody_perturbed(model, caplog):
    with caplog.at_level(logging.INFO, logger="raptorgraph"):
        mean, sd = model.predict_effects(["P01", "P02", "NEW", "NEW+P02", "G0010"], return_sd=True)
    assert mean.index.to_list() == ["P01", "P02", "NEW", "NEW+P02", "G0010"]
    assert mean.attrs == sd.attrs == {"kind": "posterior", "unseen_genes": ["NEW", "G0010"]}
    assert any("Nobody perturbed NEW, G0010" in record.getMessage() for record in caplog.records)
    others = [name for name in mean.columns if name not in ("P01", "P02", "G0010")]
    average = sd[others].mean(axis=1)
    assert average[["NEW", "G0010"]].min() > average[["P01", "P02"]].max()
    # whether G0010 falls, as targets do, is not known
    assert sd.loc["G0010", "G0010"] > 2 * sd.loc["NEW", "G0010"]
    draws = model.sample_effects(["P01", "NEW", "NEW+P02"], n_draws=200, seed=0)
    assert draws.shape == (200, 3, 60)
    columns = [mean.columns.get_loc(name) for name in others]
    asked = model.predictor.asked(["NEW"])  # against the very control cells of the screen, as predictions are
    posterior = model.predictor.posterior_of(asked)
    draws = JointDraws(Conditional(posterior.fitted), posterior.additivity, 200, 0)
    drawn = draws.effects(asked.design.double(), controls=True)[:, 0, columns].numpy()
    off = np.abs(drawn.mean(0) - mean.loc["NEW", others]).mean()
    assert off < 0.3 * average["NEW"]


def test_perturbed_genes_are_as_without_it(screen, model):
    adata = screen.copy()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    plain = rg.RaptorGraphModel(adata, n_hidden=8)
    plain.train(max_epochs=1, enable_progress_bar=False)
    asked = [*plain.conditions, "P01+P04"]
    found = model.predict_effects(asked)
    pd.testing.assert_frame_equal(plain.predict_effects(asked), found, check_exact=True)
    assert "unseen_genes" not in found.attrs
    with pytest.raises(
        ValueError, match="NEW was not perturbed in the training screen, and there is no gene_embedding"
    ):
        plain.predict_effects("NEW")


def test_what_needs_a_latent_says_so(model):
    for ask in (
        lambda: model.predict("NEW"),
        lambda: model.get_counterfactual("NEW"),
        lambda: model.predict_effects("NEW", kind="decoder"),
        lambda: model.predict_effects("NEW", adata=model.adata[:40].copy()),
        lambda: model.predict_effects("NEW", groupby="perturbation"),
        lambda: model.annotate(counterfactuals=["NEW"]),
    ):
        with pytest.raises(ValueError, match="Nobody perturbed NEW, so the network has no latent"):
            ask()
    for gene in ("ZERO", "ELSEWHERE"):
        with pytest.raises(ValueError, match=f"{gene} was not perturbed .* has no row in the gene_embedding"):
            model.predict_effects(gene)


def test_it_is_saved_and_loaded(model, tmp_path):
    expected = model.predict_effects(["NEW", "NEW+P02"])
    model.save(tmp_path / "model")
    for adata in (False, model.adata.copy()):
        loaded = rg.RaptorGraphModel.load(tmp_path / "model", adata)
        pd.testing.assert_frame_equal(loaded.predict_effects(["NEW", "NEW+P02"]), expected, check_exact=True)
    assert "gene_embedding" not in loaded.setup_args
    loaded.train(max_epochs=1, enable_progress_bar=False)  # on the same cells
    pd.testing.assert_frame_equal(loaded.predict_effects(["NEW", "NEW+P02"]), expected, rtol=1e-4)


def test_the_published_configuration_has_no_posterior_to_ask(screen, table):
    adata = screen.copy()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts", gene_embedding=table)
    model = rg.RaptorGraphModel.from_preset(adata, "paper", n_hidden=8)
    model.train(max_epochs=1, enable_progress_bar=False)
    with pytest.raises(ValueError, match="Nobody perturbed NEW"):
        model.predict_effects("NEW")
    with pytest.raises(ValueError, match="no posterior of the effects"):
        model.sample_effects("NEW")


def test_setup_mudata_takes_it(screen, table):
    md = pytest.importorskip("mudata")
    mdata = md.MuData({"rna": screen.copy()})
    arguments = {"modalities": {"expression": "rna"}, "library_size_key": "total_counts"}
    rg.RaptorGraphModel.setup_mudata(mdata, **arguments, gene_embedding=table)
    assert set(rg.RaptorGraphModel(mdata, n_hidden=8).gene_embedding_["genes"]) == set(table.index) - {"ZERO"}
    with pytest.raises(ValueError, match="has 0 of the 6 genes"):
        rg.RaptorGraphModel.setup_mudata(mdata, **arguments, gene_embedding={"one": ["X", "Y"]})


def test_what_cannot_be_read_is_named(tmp_path):
    for name, content in {"empty.csv": b"", "binary.csv": b"\xff\xfe\x00\x81", "none.npz": b"no archive"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}' cannot be read .*holds"):
            GeneEmbedding.of(tmp_path / name)
    np.savez(tmp_path / "objects.npz", genes=np.array(["A", "B"], dtype=object), embedding=np.eye(2))
    with pytest.raises(ValueError, match=r"objects.npz' cannot be read .*'genes' \(text\)"):
        GeneEmbedding.of(tmp_path / "objects.npz")


def test_tables_that_say_nothing_or_are_complex():
    with pytest.raises(ValueError, match="zero in all rows"):
        GeneEmbedding.of(pd.DataFrame(np.zeros((3, 2)), index=list("ABC")))
    with pytest.raises(ValueError, match="complex"):
        GeneEmbedding.of(pd.DataFrame(np.eye(2) * 1j, index=list("AB")))


def test_a_sparse_varm_is_read():
    adata = ad.AnnData(np.ones((2, 3)), varm={"known": sparse.csr_matrix(np.eye(3))})
    np.testing.assert_array_equal(GeneEmbedding.of("known", adata).values, np.eye(3))
