"""The simulated screen: its counts, its truth and its table."""

from dataclasses import replace

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from raptorgraph.datasets import _counts, _simulate, simulate
from raptorgraph.datasets._screen import Cells

SMALL = {"n_genes": 40, "n_perturbed": 4, "n_control_cells": 60, "n_cells_per_perturbation": 20, "n_doubles": 3}


@pytest.fixture(scope="module")
def screen_data():
    return simulate(**SMALL)


def test_too_large_counts_are_refused():
    with pytest.raises(ValueError, match=r"beyond 2\^24: lower effect_size"):
        simulate(**SMALL, effect_size=10.0, mechanism="linear", interaction_strength=10.0)


def test_counts_are_negative_binomial(make_screen):
    screen = make_screen(n_genes=5)
    n_cells = 20_000
    means = np.array([2.0, 4.0, 0.2, 0.05, 12.0])
    screen = replace(screen, base=np.log(means / 2000), loadings=0 * screen.loadings)
    cells = Cells(
        np.zeros((n_cells, 6)), np.zeros((n_cells, 3)), np.full(n_cells, 2000.0), np.zeros(n_cells, dtype=int)
    )
    draws = _counts.CountDraws(screen, 1.5, np.random.default_rng(0), np.random.default_rng(1))
    counts = draws(cells, cells.exogenous).toarray()
    for column, mean in zip(counts.T, means, strict=True):
        cut = int(stats.nbinom.ppf(0.995, 1.5, 1.5 / (1.5 + mean)))
        expected = stats.nbinom.pmf(np.arange(cut), 1.5, 1.5 / (1.5 + mean))
        expected = n_cells * np.append(expected, 1 - expected.sum())
        observed = np.bincount(np.minimum(column, cut).astype(int), minlength=cut + 1)
        assert stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize(("mechanism", "n_batches", "seed"), [("linear", 1, 0), ("saturating", 3, 1)])
def test_truth_agrees_with_the_data(mechanism, n_batches, seed):
    adata = simulate(
        60, 3, n_control_cells=6000, n_cells_per_perturbation=3000, n_doubles="all", mechanism=mechanism,
        n_batches=n_batches, interaction_strength=0.5, n_truth_cells=500, seed=seed,
    )  # fmt: skip
    effects = adata.uns["simulation"]["effects"]
    expression = np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])
    groups = pd.DataFrame(expression, columns=adata.var_names).groupby(
        adata.obs["perturbation"].to_numpy(), observed=True
    )
    mean, error = groups.mean(), groups.sem()
    measured = (mean - mean.loc["control"]).loc[effects.index]
    both = np.hypot(error.loc[effects.index].to_numpy(), error.loc["control"].to_numpy())
    z = (measured - effects).to_numpy() / both
    assert 0.7 < np.mean(z**2) < 1.3
    assert np.abs(z).max() < 5
    assert np.mean((effects.to_numpy() / both) ** 2) > 30  # there is much to agree on


def test_latents_follow_the_structural_model():
    adata = simulate(20, 4, n_control_cells=20_000, n_cells_per_perturbation=2000, n_doubles=0, expected_degree=1.5)
    adjacency = adata.uns["simulation"]["adjacency"]
    latents = pd.DataFrame(adata.obsm["u_true"].astype(float), columns=adjacency.index)
    labels = adata.obs["perturbation"].to_numpy()
    control = latents[labels == "control"]
    np.testing.assert_allclose(control.var(), 1.0, atol=0.06)
    for effect in adjacency.columns:
        parents = adjacency.index[adjacency[effect] != 0]
        fit = np.linalg.lstsq(control[parents].to_numpy(), control[effect].to_numpy(), rcond=None)[0]
        np.testing.assert_allclose(fit, adjacency.loc[parents, effect], atol=0.06)
    total = np.linalg.inv(np.eye(len(adjacency)) - adjacency.to_numpy())
    for k, gene in enumerate(adjacency.index[:4]):
        shift = (latents[labels == gene].mean() - control.mean()).to_numpy()
        assert -2.5 < shift[k] < -1.1  # effect size 2, efficiencies in [0.6, 1.2]
        np.testing.assert_allclose(shift / shift[k], total[k], atol=0.12)


def test_format(screen_data):
    assert screen_data.shape == (60 + 7 * 20, 40)
    assert isinstance(screen_data.X, sparse.csr_matrix)
    assert screen_data.X.dtype == np.float32
    assert (screen_data.X.data > 0).all()
    assert (screen_data.X.data == np.rint(screen_data.X.data)).all()
    assert screen_data.obs["total_counts"].dtype == float
    assert (screen_data.obs["total_counts"] > 0).all()
    assert screen_data.obs_names.is_unique
    assert set(screen_data.var_names) == {*(f"P0{k}" for k in range(1, 5)), *(f"G{k:04d}" for k in range(1, 37))}
    assert not screen_data.var_names[:4].str.startswith("P").all()
    assert screen_data.obsm["u_true"].shape == (200, 9)
    assert screen_data.obsm["u_true"].dtype == np.float32
    assert "batch" not in screen_data.obs


def test_labels(screen_data):
    labels = screen_data.obs["perturbation"]
    sizes = labels.value_counts()
    doubles = [label for label in labels.cat.categories if "+" in label]
    assert list(labels.cat.categories[:5]) == ["control", "P01", "P02", "P03", "P04"]
    assert len(doubles) == 3
    assert all("+".join(sorted(set(label.split("+")))) == label for label in doubles)
    assert sizes["control"] == 60
    assert (sizes.drop("control") == 20).all()
    assert labels.iloc[:60].nunique() > 2  # cells come in no order


def test_truth_table_has_all_singles_and_pairs(screen_data):
    effects = screen_data.uns["simulation"]["effects"]
    singles = ["P01", "P02", "P03", "P04"]
    pairs = [f"{a}+{b}" for k, a in enumerate(singles) for b in singles[k + 1 :]]
    assert list(effects.index) == singles + pairs
    assert list(effects.columns) == list(screen_data.var_names)
    adjacency = screen_data.uns["simulation"]["adjacency"]
    assert list(adjacency.index) == list(adjacency.columns) == [*singles, "L05", "L06", "L07", "L08", "L09"]
    assert nx.is_directed_acyclic_graph(nx.from_pandas_adjacency(adjacency, create_using=nx.DiGraph))


@pytest.mark.parametrize(("n_doubles", "expected"), [("all", 6), (0, 0), (2, 2)])
def test_number_of_doubles(n_doubles, expected):
    labels = simulate(**{**SMALL, "n_doubles": n_doubles}).obs["perturbation"].cat.categories
    assert labels.str.contains("+", regex=False).sum() == expected


def test_own_gene_falls():
    adata = simulate(60, 6, n_control_cells=400, n_cells_per_perturbation=200, n_doubles=5)
    effects = adata.uns["simulation"]["effects"]
    expression = np.log1p(1e4 * adata.X.toarray() / adata.obs["total_counts"].to_numpy()[:, None])
    mean = pd.DataFrame(expression, columns=adata.var_names).groupby(adata.obs["perturbation"].to_numpy()).mean()
    for label in effects.index:
        assert (effects.loc[label, label.split("+")] < -0.1).all()
    for label in mean.index.drop("control"):
        assert (mean.loc[label, label.split("+")] < mean.loc["control", label.split("+")]).all()


def test_default_counts_are_sparse_like_a_screen():
    adata = simulate()
    assert adata.shape == (4000, 500)
    assert 0.5 < 1 - adata.X.nnz / (4000 * 500) < 0.85
    share = np.asarray(adata.X.sum(axis=1)).ravel() / adata.obs["total_counts"]
    assert share.mean() == pytest.approx(0.6, abs=0.05)
    assert (share > 1).mean() < 0.01
    assert adata.obs["total_counts"].mean() == pytest.approx(5000, rel=0.03)
    assert np.log(adata.obs["total_counts"]).std() == pytest.approx(0.3, rel=0.05)


def assert_same(one, other):
    np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_index_equal(one.var_names, other.var_names)
    np.testing.assert_array_equal(one.obsm["u_true"], other.obsm["u_true"])
    for table in ("adjacency", "effects"):
        pd.testing.assert_frame_equal(
            one.uns["simulation"][table], other.uns["simulation"][table], check_exact=True, check_names=False
        )


def test_seed_decides_everything(screen_data):
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    assert_same(screen_data, simulate(**SMALL))
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    other = simulate(**SMALL, seed=1)
    assert not np.array_equal(screen_data.uns["simulation"]["adjacency"], other.uns["simulation"]["adjacency"])
    assert (screen_data.X != other.X).nnz > 0


def test_chunks_do_not_change_the_counts(screen_data, monkeypatch):
    for entries in (1, 40 * 37):
        monkeypatch.setattr(_counts, "CHUNK_ENTRIES", entries)
        assert_same(screen_data, simulate(**SMALL))


def test_blocks_of_cells_do_not_change_the_screen(monkeypatch):
    arguments = {**SMALL, "n_control_cells": 300, "states": 2, "escape": 0.2, "n_batches": 2}
    whole = simulate(**arguments)
    monkeypatch.setattr(_simulate, "BLOCK_NUMBERS", 1)
    drawn = []
    draw = _counts.CountDraws.__call__
    monkeypatch.setattr(_counts.CountDraws, "__call__", lambda *a: drawn.append(len(a[2])) or draw(*a))
    assert_same(whole, simulate(**arguments))
    assert drawn == [256, 184]


@pytest.mark.parametrize("options", [{}, {"n_batches": 2, "graph": "scale-free", "targets_without_gene": 0.5}])
def test_h5ad_round_trip_and_repetition_from_settings(tmp_path, options):
    adata = simulate(**{**SMALL, "n_doubles": "all"}, **options)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    read = ad.read_h5ad(tmp_path / "screen.h5ad")
    assert_same(adata, read)
    settings = read.uns["simulation"]["settings"]
    assert settings == adata.uns["simulation"]["settings"]
    assert settings["n_latent"] == 9
    assert_same(read, simulate(**settings))


def test_batches_are_spread_over_conditions():
    adata = simulate(**{**SMALL, "n_control_cells": 600}, n_batches=3, batch_effect=1.0)
    assert list(adata.obs["batch"].cat.categories) == ["batch1", "batch2", "batch3"]
    table = pd.crosstab(adata.obs["perturbation"], adata.obs["batch"])
    assert (table.max(axis=1) - table.min(axis=1) <= 1).all()
    control = adata[adata.obs["perturbation"] == "control"]
    rate = pd.DataFrame(control.X.toarray() / control.obs["total_counts"].to_numpy()[:, None])
    log_mean = np.log(rate.groupby(control.obs["batch"].to_numpy()).mean().loc[:, rate.mean() > 1e-3])
    assert log_mean.std().mean() == pytest.approx(0.89, abs=0.3)  # mean standard deviation of three normal numbers


def test_targets_without_gene():
    adata = simulate(**SMALL, targets_without_gene=0.5)
    perturbed = {"P01", "P02", "P03", "P04"}
    assert adata.n_vars == 40
    assert len(perturbed & set(adata.var_names)) == 2
    assert perturbed < set(adata.obs["perturbation"])
    effects = adata.uns["simulation"]["effects"]
    assert (effects.loc[sorted(perturbed)].abs().max(axis=1) > 0.05).all()
    none = simulate(**SMALL, targets_without_gene=1.0)
    assert not perturbed & set(none.var_names)


def test_one_gene_alone():
    adata = simulate(1, 1, n_doubles=0, n_control_cells=5, n_cells_per_perturbation=5)
    assert list(adata.uns["simulation"]["effects"].index) == ["P01"]
    assert adata.uns["simulation"]["effects"].to_numpy().item() < 0
