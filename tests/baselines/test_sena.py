import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from raptorgraph.baselines._sena import SENA
from raptorgraph.datasets import simulate
from raptorgraph.metrics import relative_mse
from raptorgraph.pp import measured_effects

SETUP = {"library_size_key": "total_counts"}


@pytest.fixture(scope="module")
def screen():
    return simulate(80, 6, n_control_cells=200, n_cells_per_perturbation=50, n_doubles=6, effect_size=3.0, seed=0)


@pytest.fixture(scope="module")
def gene_sets(screen):
    """Twelve sets of six genes each, one gene shared by neighbors, that leave the last genes out."""
    return {f"set{k}": [*screen.var_names[5 * k : 5 * k + 6], "not measured"] for k in range(12)}


def _fit(adata, gene_sets, **kwargs):
    return SENA(gene_sets, **{"max_epochs": 2, **SETUP, **kwargs}).fit(adata)


@pytest.fixture(scope="module")
def fitted(screen, gene_sets):
    return _fit(screen, gene_sets)


def test_published_settings():
    settings = SENA({"s": ["A"]}).settings
    assert (settings.mmd_weight, settings.kl_weight, settings.l1_weight) == (1.0, 1.0, 0.1)
    assert (settings.temperature, settings.fix_sigma) == (100.0, 200.0)
    assert (settings.max_epochs, settings.batch_size, settings.lr) == (100, 32, 1e-3)


def test_the_encoder_reads_genes_through_their_sets(screen, fitted):
    inside = np.arange(80) < 61
    x = torch.randn(80)
    jacobian = torch.autograd.functional.jacobian(lambda v: fitted.encoder_mean(v[None])[0], x).numpy()
    assert jacobian.shape == (6, 80)
    assert (jacobian[:, ~inside] == 0).all()
    assert (jacobian[:, inside] != 0).all()
    hidden = torch.autograd.functional.jacobian(lambda v: fitted.module_.encoder.hidden(v[None])[0], x).numpy()
    sets = np.array([[gene in members for gene in screen.var_names] for members in fitted.gene_sets_.values()])
    np.testing.assert_array_equal(hidden != 0, sets)


def test_leak_lets_the_other_genes_through(screen, gene_sets):
    leaky = _fit(screen, gene_sets, leak=0.1, max_epochs=1)
    jacobian = torch.autograd.functional.jacobian(lambda v: leaky.encoder_mean(v[None])[0], torch.randn(80))
    assert (jacobian != 0).all()


def test_small_sets_are_left_out(screen, gene_sets):
    small = {"small": [*screen.var_names[:4], "elsewhere"]}
    fitted = _fit(screen, gene_sets | small, max_epochs=1)
    assert list(fitted.gene_sets_) == list(gene_sets)
    assert all(len(genes) == 6 for genes in fitted.gene_sets_.values())
    assert len(_fit(screen, gene_sets | small, min_genes=4, max_epochs=1).gene_sets_) == 13


def test_all_forms_of_gene_sets_agree(screen, gene_sets, fitted, tmp_path):
    rows = [(name, gene) for name, genes in gene_sets.items() for gene in genes]
    long = pd.DataFrame(rows, columns=["set", "gene"])
    every = [*screen.var_names, "not measured"]
    boolean = pd.DataFrame([[g in members for g in every] for members in gene_sets.values()], gene_sets, every)
    path = tmp_path / "sets.gmt"
    path.write_text("".join("\t".join([name, "of the test", *genes]) + "\n" for name, genes in gene_sets.items()))
    for form in (long, long.rename(columns={"set": "source", "gene": "target"}), boolean, path, str(path)):
        other = _fit(screen, form)
        assert other.gene_sets_ == fitted.gene_sets_
        pd.testing.assert_frame_equal(other.history_, fitted.history_, check_exact=True)


def test_reductions():
    kl, adjacency = torch.rand(32, 5), torch.triu(torch.randn(4, 4), 1)
    assert SENA._reduce_kl(kl).item() == pytest.approx(kl.sum().item() / (32 * 5) / 32)
    assert SENA._reduce_l1(adjacency).item() == pytest.approx(adjacency.abs().sum().item() / 6)
    assert SENA._reduce_l1(torch.zeros(1, 1)).item() == 0.0


def test_same_seed_same_bits(screen, gene_sets, fitted):
    again = _fit(screen, gene_sets)
    pd.testing.assert_frame_equal(again.predict_effects("P03"), fitted.predict_effects("P03"), check_exact=True)


def test_predictions_and_tables(screen, fitted):
    assert fitted.predict(["P01", "P01+P02"], n_cells=5).shape == (10, 80)
    assert fitted.encode(screen).shape == (screen.n_obs, 6)
    assert (np.tril(fitted.adjacency_) == 0).all()
    np.testing.assert_allclose(fitted.targets_.sum(axis=1), 1.0, rtol=1e-5)
    assert set(fitted.predict_effects("P05").index) == {"P05"}


def test_it_beats_no_change():
    adata = simulate(
        60,
        3,
        4,
        n_control_cells=300,
        n_cells_per_perturbation=300,
        n_doubles=0,
        expected_degree=0.5,
        effect_size=3.0,
        library_size=20000.0,
        dispersion=10.0,
    )
    sets = {f"set{k}": list(adata.var_names[5 * k : 5 * k + 5]) for k in range(12)}
    fitted = _fit(adata, sets, max_epochs=40, lr=3e-3)
    truth = measured_effects(adata, **SETUP)
    assert relative_mse(fitted.predict_effects(list(truth.index)), truth) < 0.9
    history = fitted.history_
    assert history["mmd"].iloc[-1] < 0.5 * history["mmd"].iloc[0]
    assert history["reconstruction"].iloc[-1] < 0.5 * history["reconstruction"].iloc[0]


def test_hallmark_sets_fit_a_real_screen(shared_data):
    adata = ad.read_h5ad(shared_data / "carpool_semireal.h5ad")
    single = ~adata.obs["perturbation"].str.contains("+", regex=False).to_numpy()
    keep = np.flatnonzero(single)[::5]
    fitted = _fit(adata[keep].copy(), shared_data / "hallmark_v2023.2.gmt", max_epochs=1)
    assert 10 <= len(fitted.gene_sets_) <= 50
    assert all(set(genes) <= set(adata.var_names) and len(genes) >= 5 for genes in fitted.gene_sets_.values())
    assert fitted.adjacency_.shape == (28, 28)
    label = fitted.conditions[0]
    cells = fitted.predict([label, "control"], seed=fitted.settings.seed)
    perturbed, control = (cells[cells.obs["perturbation"] == name].X.mean(axis=0) for name in (label, "control"))
    np.testing.assert_allclose(fitted.predict_effects(label).loc[label], perturbed - control, atol=1e-5)


# -- errors ----------------------------------------------------------------------------------------------------------
def test_too_few_sets(screen, gene_sets):
    few = dict(list(gene_sets.items())[:9])
    with pytest.raises(ValueError, match="9 of the 9 gene sets have 5 or more of the 80 genes, but SENA needs 10"):
        _fit(screen, few)
    elsewhere = {name: [f"ENSG{k}" for k in range(8)] for name in gene_sets}
    with pytest.raises(ValueError, match=r"0 of the 12 .*spelled like .* like \['ENSG0'"):
        _fit(screen, elsewhere)


def test_wrong_gene_sets(tmp_path):
    with pytest.raises(TypeError, match="gene_sets must be a mapping"):
        SENA(3)
    with pytest.raises(TypeError, match="give a list of genes"):
        SENA({"a": "GATA1"})
    with pytest.raises(KeyError, match="no column 'source'"):
        SENA(pd.DataFrame({"pathway": ["a"], "gene": ["GATA1"]}))
    with pytest.raises(ValueError, match="no gene set"):
        SENA({})
    with pytest.raises(FileNotFoundError):
        SENA(tmp_path / "absent.gmt")


@pytest.mark.parametrize("wrong", [{"min_genes": 0}, {"leak": -0.1}, {"leak": 1.5}, {"max_epochs": 0}])
def test_numbers_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        SENA({"s": ["A"]}, **wrong)
