"""Which latents resemble each other."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import raptorgraph as rg
from raptorgraph.tl import latent_programs, program_similarity

pytestmark = pytest.mark.usefixtures("few_steps")

LEARNED = {"activation": "learned", "n_null": 400, "progress": False}


@pytest.fixture(scope="module")
def table(known_screen):
    return program_similarity(known_screen.model, **LEARNED)


def test_similarities_against_their_definition(known_screen, table):
    model = known_screen.model
    programs = latent_programs(model, activation="learned").astype(float)
    for gene in set(model.perturbed_genes) & set(programs.columns):
        programs.loc[gene, gene] = 0.0  # its own change is the intervention
    units = programs.div(np.linalg.norm(programs, axis=1), axis=0)
    clear = [gene for gene in units.index if gene not in known_screen.null]
    assert len(table) == 66
    assert table["specific"].is_monotonic_decreasing
    for row in table.iloc[[0, 20, 65]].itertuples():
        a, b = units.loc[row.latent_a], units.loc[row.latent_b]
        assert row.similarity == pytest.approx(a @ b)
        common = units.loc[[gene for gene in clear if gene not in (row.latent_a, row.latent_b)]].sum()
        common /= np.linalg.norm(common)
        a, b = a - (a @ common) * common, b - (b @ common) * common
        assert row.specific == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_twins_are_found_and_null_perturbations_are_not(known_screen, table):
    pairs = table.set_index(["latent_a", "latent_b"])
    twins = pairs.loc[tuple(known_screen.twins)]
    assert twins["FDR_null"] < 0.05
    assert twins["stand_out"]
    assert twins["specific"] > 0.4
    clear = table[table["stand_out"]]
    alike = clear[clear["specific"] > 0]
    for best in (alike["specific"].idxmax(), alike["p_null"].idxmin(), alike["z"].idxmax()):
        assert tuple(table.loc[best, ["latent_a", "latent_b"]]) == tuple(known_screen.twins)
    of_null = table[table["latent_a"].isin(known_screen.null) | table["latent_b"].isin(known_screen.null)]
    assert not of_null["stand_out"].any()
    assert of_null["z"].isna().all()
    assert clear["z"].notna().all()
    assert of_null["specific"].max() > 0.5  # borrowed from each other
    assert (of_null["p_null"] < 0.05).mean() < 0.1
    assert of_null["FDR_null"].min() > 0.05
    np.testing.assert_allclose(table["FDR_null"], stats.false_discovery_control(table["p_null"]))


def test_spread_of_the_similarities(known_screen, table):
    clear = [gene for gene in known_screen.model.perturbed_genes if gene not in known_screen.null]
    square = program_similarity(known_screen.model, matrix="specific", **LEARNED).loc[clear, clear]
    spread = {g: 1.4826 * np.median(np.abs(square.loc[g].drop(g))) for g in clear}
    for row in table[table["stand_out"]].head(5).itertuples():
        assert row.z == pytest.approx(row.specific / max(spread[row.latent_a], spread[row.latent_b]))


def test_matrices(known_screen, table):
    model = known_screen.model
    for column, diagonal in (("similarity", 1.0), ("p_null", np.nan)):
        square = program_similarity(model, matrix=column, **LEARNED)
        assert list(square.index) == list(square.columns) == model.perturbed_genes
        np.testing.assert_array_equal(np.diag(square), diagonal)
        np.testing.assert_array_equal(square, square.T)
        for row in table.head(3).itertuples():
            assert square.loc[row.latent_a, row.latent_b] == getattr(row, column)


def test_same_seed_same_table(known_screen, table):
    pd.testing.assert_frame_equal(program_similarity(known_screen.model, **LEARNED), table)
    other = program_similarity(known_screen.model, seed=1, **LEARNED)
    assert not other["p_null"].equals(table["p_null"])


def test_unit_activations_have_latents_without_a_gene(known_screen):
    model = known_screen.model
    table = program_similarity(model, n_cells=60, n_null=100, progress=False)
    assert set(table["latent_a"]) | set(table["latent_b"]) == set(model.latent_names)
    free = ~table["latent_a"].isin(model.perturbed_genes) | ~table["latent_b"].isin(model.perturbed_genes)
    assert table.loc[free, "p_null"].isna().all()
    assert table.loc[~free, "p_null"].notna().all()
    programs = latent_programs(model, n_cells=60, seed=0, progress=False).astype(float)
    for row in table.iloc[[0, 40, -1]].itertuples():
        a, b = (programs.loc[name].mask(programs.columns == name, 0.0) for name in (row.latent_a, row.latent_b))
        assert row.similarity == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_genes_that_were_only_perturbed_together():
    adata = rg.datasets.simulate(
        80, 4, n_control_cells=200, n_cells_per_perturbation=60, n_doubles="all", n_truth_cells=20, seed=1
    )
    labels = adata.obs["perturbation"].astype(str)
    adata = adata[labels.isin(["control", "P01", "P02", "P03+P04"])].copy()
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=4, graph="fixed")
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    square = program_similarity(model, n_null=100, matrix="p_null", progress=False)
    assert np.isnan(square.loc["P03", "P04"])
    assert square.loc["P01", ["P02", "P03", "P04"]].notna().all()
    table = rg.tl.enrich(model, {"s": list(adata.var_names[10:20])}, n_null=100, n_permutations=20, progress=False)
    both = table.set_index("latent").loc[["P03", "P04"], ["change", "p_null"]]
    assert both["change"].notna().all()
    assert abs(both["change"].diff().iloc[1]) < 0.02


def test_without_pseudo_perturbations(known_screen, tmp_path):
    known_screen.model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="loaded without anndata"):
        model = rg.RaptorGraphModel.load(tmp_path / "model", accelerator="cpu")
    with pytest.raises(ValueError, match="loaded without data"):
        program_similarity(model)
    with pytest.raises(ValueError, match="activation='unit' decodes"):
        program_similarity(model, n_null=0)
    found = program_similarity(model, activation="learned", n_null=0)
    assert list(found) == ["latent_a", "latent_b", "similarity", "specific", "z"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"activation": "half"}, "activation='half'"),
        ({"matrix": "cosine"}, "matrix='cosine' is unknown"),
        ({"matrix": "p_null", "n_null": 0}, "matrix='p_null' needs"),
        ({"n_null": 5}, "n_null=5"),
    ],
)
def test_bad_arguments(known_screen, change, match):
    with pytest.raises(ValueError, match=match):
        program_similarity(known_screen.model, **change)
