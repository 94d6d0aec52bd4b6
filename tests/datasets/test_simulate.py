"""The simulated screen: its graph, its mechanism, its truth and its table."""

from dataclasses import replace

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from raptorgraph.datasets import _simulate, simulate
from raptorgraph.datasets._graph import random_graph
from raptorgraph.datasets._screen import Cells, random_screen
from raptorgraph.datasets._truth import latin_normal, normalized, true_effects

SMALL = {"n_genes": 40, "n_perturbed": 4, "n_control_cells": 60, "n_cells_per_perturbation": 20, "n_doubles": 3}


def make_screen(n_genes=30, n_perturbed=3, n_latent=6, mechanism="linear", interaction_strength=0.0, n_batches=1):
    rng = np.random.default_rng(1)
    return random_screen(
        random_graph(n_latent, "erdos-renyi", 1.0, rng),
        np.array([4, -1, *range(n_perturbed - 2)]),
        n_genes=n_genes,
        mechanism=mechanism,
        interaction_strength=interaction_strength,
        effect_size=2.0,
        n_batches=n_batches,
        batch_effect=0.2,
        rng=rng,
    )


def make_cells(screen, n_cells, library_size=5000.0):
    normal = latin_normal(n_cells, screen.loadings.shape[0] + len(screen.shift) + 1, np.random.default_rng(2))
    return screen.draw_cells(normal, np.zeros(n_cells, dtype=int), library_size, 0.3)


def log_rates(screen, cells, condition):
    shifts = np.zeros_like(cells.shifts)
    shifts[:, condition] = cells.shifts[:, condition]
    return screen.log_rates(screen.latents(cells.exogenous, shifts), shifts, cells.batch)


@pytest.fixture(scope="module")
def screen_data():
    return simulate(**SMALL)


@pytest.mark.parametrize(("kind", "degree"), [("erdos-renyi", 2.0), ("scale-free", 1.0), ("scale-free", 2.5)])
def test_graph_is_acyclic_and_standardized(kind, degree):
    d = 120
    graph = random_graph(d, kind, degree, np.random.default_rng(0))
    network = nx.from_numpy_array(graph.adjacency, create_using=nx.DiGraph)
    assert nx.is_directed_acyclic_graph(network)
    rows, columns = np.nonzero(graph.adjacency)
    assert 0.3 < (rows < columns).mean() < 0.7  # the order of the index says nothing
    assert 0.3 < (graph.adjacency[rows, columns] > 0).mean() < 0.7
    assert len(rows) / d == pytest.approx(degree, rel=0.15)
    np.testing.assert_allclose((np.eye(d) - graph.adjacency) @ graph.total, np.eye(d), atol=1e-12)
    variance = graph.total.T @ np.diag(graph.noise_sd**2) @ graph.total
    np.testing.assert_allclose(np.diag(variance), 1.0)
    has_path = nx.to_numpy_array(nx.transitive_closure_dag(network), nodelist=range(d), weight=None) > 0
    assert not graph.total[~has_path & ~np.eye(d, dtype=bool)].any()


def test_scale_free_graph_has_hubs():
    children = {
        kind: np.count_nonzero(random_graph(300, kind, 1.0, np.random.default_rng(0)).adjacency, axis=1).max()
        for kind in ("erdos-renyi", "scale-free")
    }
    assert children["scale-free"] > 2 * children["erdos-renyi"]


def test_two_latents_are_not_in_index_order():
    edges = [random_graph(2, "erdos-renyi", 0.5, np.random.default_rng(seed)).adjacency for seed in range(5)]
    assert all(edge[1, 0] != 0 and edge[0, 1] == 0 for edge in edges)


def test_linear_screen_without_interaction_is_additive():
    screen = make_screen()
    cells = make_cells(screen, 20)
    control, first, second, both = (log_rates(screen, cells, list(c)) for c in [(), (0,), (1,), (0, 1)])
    np.testing.assert_allclose(both - control, (first - control) + (second - control), atol=1e-12)
    assert np.abs(both - control).max() > 0.5


@pytest.mark.parametrize("mechanism", ["linear", "saturating"])
def test_interaction_is_bilinear_in_the_shifts(mechanism):
    screen = make_screen(mechanism=mechanism, interaction_strength=0.5, n_perturbed=6, n_latent=9)
    cells = make_cells(screen, 20)
    without = replace(screen, pairs=screen.pairs[:0], pair_loadings=screen.pair_loadings[:0])
    for single in ([], [0], [3]):
        np.testing.assert_array_equal(log_rates(screen, cells, single), log_rates(without, cells, single))
    i, j = screen.pairs[1]
    bound = np.full(6, np.inf) if mechanism == "linear" else screen.saturation[:6]
    a, b = (
        cells.shifts[:, k] if mechanism == "linear" else bound[k] * np.tanh(cells.shifts[:, k] / bound[k])
        for k in (i, j)
    )
    expected = np.outer(a * b, screen.pair_loadings.toarray()[1])
    assert np.count_nonzero(expected) == 20 * 3  # a tenth of the genes
    difference = log_rates(screen, cells, [i, j]) - log_rates(without, cells, [i, j])
    np.testing.assert_allclose(difference, expected, atol=1e-12)


def test_saturating_response_is_odd_bounded_and_of_slope_one():
    screen = make_screen(mechanism="saturating")
    small, large = np.full((1, 6), 1e-4), np.full((1, 6), 50.0)
    np.testing.assert_allclose(screen.respond(small), small, rtol=1e-6)
    np.testing.assert_allclose(screen.respond(large)[0], screen.saturation)
    np.testing.assert_array_equal(screen.respond(-large), -screen.respond(large))


def test_panel_takes_its_share_of_the_library():
    screen = make_screen()
    cells = make_cells(screen, 500)
    rates = np.exp(log_rates(normalized(screen, cells), cells, []))
    assert rates.sum(axis=1).mean() == pytest.approx(0.6)
    assert rates.sum(axis=1).std() > 0.01  # no cell is normalized again


def test_true_effects_match_the_sum_over_counts():
    screen = make_screen(n_genes=8, mechanism="saturating", interaction_strength=0.5)
    cells = make_cells(screen, 3, library_size=60.0)
    screen = normalized(screen, cells)
    counts = np.arange(3000)

    def expectation(condition):
        mean = cells.library_size[:, None] * np.exp(log_rates(screen, cells, condition))
        weights = stats.nbinom.pmf(counts, 2.0, 2.0 / (2.0 + mean[..., None]))
        return (weights * np.log1p(1e4 * counts / cells.library_size[:, None, None])).sum(axis=-1).mean(axis=0)

    conditions = [[0], [2], [0, 2]]
    expected = [expectation(condition) - expectation([]) for condition in conditions]
    np.testing.assert_allclose(true_effects(screen, cells, conditions, 2.0), expected, atol=2e-5)


def test_genes_that_a_perturbation_does_not_reach_have_no_effect():
    screen = make_screen(n_genes=200)
    cells = make_cells(screen, 50)
    effect = true_effects(normalized(screen, cells), cells, [[0]], 2.0)[0]
    network = nx.from_numpy_array(screen.graph.adjacency, create_using=nx.DiGraph)
    reached = np.abs(screen.loadings.toarray()[[0, *nx.descendants(network, 0)]]).sum(axis=0) > 0
    assert 0 < reached.sum() < 200
    np.testing.assert_array_equal(effect != 0, reached)


def test_too_large_counts_are_refused():
    with pytest.raises(ValueError, match=r"beyond 2\^24: lower effect_size"):
        simulate(**SMALL, effect_size=10.0, mechanism="linear", interaction_strength=10.0)


def test_counts_are_negative_binomial():
    screen = make_screen(n_genes=5)
    n_cells = 20_000
    means = np.array([2.0, 4.0, 0.2, 0.05, 12.0])
    screen = replace(screen, base=np.log(means / 2000), loadings=0 * screen.loadings)
    cells = Cells(
        np.zeros((n_cells, 6)), np.zeros((n_cells, 3)), np.full(n_cells, 2000.0), np.zeros(n_cells, dtype=int)
    )
    counts = _simulate._draw_counts(
        screen, cells, cells.exogenous, 1.5, np.random.default_rng(0), np.random.default_rng(1)
    ).toarray()
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
        monkeypatch.setattr(_simulate, "CHUNK_ENTRIES", entries)
        assert_same(screen_data, simulate(**SMALL))


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


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_genes": 0}, ValueError, "n_genes=0 is too small: use 1 or more"),
        ({"n_genes": 3.5}, TypeError, "n_genes=3.5 is not an integer"),
        ({"n_genes": True}, TypeError, "n_genes=True is not an integer"),
        ({"n_genes": 10}, ValueError, "n_genes=10 leaves no room for the 20 perturbed genes"),
        ({"n_perturbed": 0}, ValueError, "n_perturbed=0 is too small"),
        ({"n_latent": 19}, ValueError, "n_latent=19 is too small: use 20 or more, a latent for each"),
        ({"n_control_cells": 0}, ValueError, "n_control_cells=0"),
        ({"n_cells_per_perturbation": -1}, ValueError, "n_cells_per_perturbation=-1"),
        ({"n_doubles": 191}, ValueError, "n_doubles=191 but 20 perturbed genes have 190 pairs"),
        ({"n_doubles": "some"}, TypeError, "n_doubles='some' is not an integer: use 0 or more or 'all'"),
        ({"n_doubles": -1}, ValueError, "n_doubles=-1 is too small"),
        ({"graph": "ring"}, ValueError, "graph='ring' is unknown: use one of 'erdos-renyi', 'scale-free'"),
        ({"mechanism": "relu"}, ValueError, "mechanism='relu' is unknown"),
        ({"expected_degree": 12.5}, ValueError, "expected_degree=12.5 is impossible: .* 25 latents takes 0 to 12"),
        ({"expected_degree": 0.5, "graph": "scale-free"}, ValueError, "expected_degree=0.5 .* takes 1 to 24"),
        ({"expected_degree": float("inf")}, ValueError, "expected_degree=inf is impossible"),
        ({"interaction_strength": -0.1}, ValueError, "interaction_strength=-0.1 is out of range"),
        ({"effect_size": float("nan")}, ValueError, "effect_size=nan is out of range"),
        ({"effect_size": "big"}, TypeError, "effect_size='big' is not a number"),
        ({"targets_without_gene": 1.5}, ValueError, "targets_without_gene=1.5 is out of range: .* from 0 to 1"),
        ({"n_batches": 0}, ValueError, "n_batches=0"),
        ({"batch_effect": -1.0}, ValueError, "batch_effect=-1.0"),
        ({"library_size": 0.0}, ValueError, "library_size=0.0"),
        ({"library_size_sd": -0.1}, ValueError, "library_size_sd=-0.1"),
        ({"dispersion": 0.0}, ValueError, "dispersion=0.0"),
        ({"n_truth_cells": 2, "n_batches": 3}, ValueError, "n_truth_cells=2 is too small: use 3 or more, one for each"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": None}, TypeError, "seed=None is not an integer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        simulate(**arguments)
