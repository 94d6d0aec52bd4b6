import gseapy
import numpy as np
import pandas as pd
import pytest
import scvi

import raptorgraph as rg
from raptorgraph.pp._gene_sets import match_gene_sets, read_gene_sets
from raptorgraph.tl._enrich import enrich, enrich_effects

GENES = [f"G{k}" for k in range(200)]
FAST = {"n_permutations": 200}


def planted(seed=0):
    """Effects of A, B and A+B, and 20 disjoint sets of 10 genes: A raises set s0, B lowers set s1."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(GENES)
    sets = {f"s{k}": list(order[10 * k : 10 * k + 10]) for k in range(20)}
    effects = pd.DataFrame(rng.normal(size=(3, 200)), index=["A", "B", "A+B"], columns=GENES)
    effects.loc["A", sets["s0"]] += 2.5
    effects.loc["B", sets["s1"]] -= 2.5
    effects.loc["A+B"] = effects.loc["A"] + effects.loc["B"]
    return effects, sets


def running_sum(effect, members):
    """ES and leading edge, written out gene by gene."""
    order = effect.sort_values(ascending=False, kind="stable")
    total = order[order.index.isin(members)].abs().sum()
    best, path, where = 0.0, 0.0, 0
    for k, (gene, value) in enumerate(order.items()):
        path += abs(value) / total if gene in members else -1.0 / (len(order) - len(members))
        if abs(path) > abs(best):
            best, where = path, k
    side = order.index[: where + 1] if best > 0 else order.index[where + 1 :]
    return best, {gene for gene in side if gene in members}


def test_planted_sets_come_first():
    table = enrich_effects(*planted(), **FAST)
    assert len(table) == 60 and list(table["perturbation"].unique()) == ["A", "B", "A+B"]
    best = table.loc[table.groupby("perturbation")["NES"].apply(lambda nes: nes.abs().idxmax())]
    best = best.set_index("perturbation")
    assert best.loc["A", "gene_set"] == "s0" and best.loc["A", "NES"] > 1.8
    assert best.loc["B", "gene_set"] == "s1" and best.loc["B", "NES"] < -1.8
    assert (best.loc[["A", "B"], "FDR"] < 0.01).all() and (table["n_genes"] == 10).all()
    both = table[table["perturbation"] == "A+B"].set_index("gene_set")
    assert (both.loc[["s0", "s1"], "FDR"] < 0.05).all()


def test_scores_against_the_definition():
    effects, sets = planted()
    table = enrich_effects(effects, sets, **FAST).set_index(["perturbation", "gene_set"])
    for (label, name), row in table.iterrows():
        score, edge = running_sum(effects.loc[label], set(sets[name]))
        assert row["ES"] == pytest.approx(score, abs=1e-9)
        assert row["magnitude"] == pytest.approx(np.linalg.norm(effects.loc[label]))
        if score > 0:  # gseapy leaves a set below the valley to its own convention
            assert set(row["leading_edge"].split(";")) == edge


def test_permuted_labels_find_next_to_nothing():
    null, least = [], []
    for seed in range(20):
        effects, sets = planted(seed)
        null.append(enrich_effects(effects.iloc[:2], sets, permute=seed, **FAST))
        least.append(enrich_effects(effects.iloc[:2], sets, **FAST).groupby("perturbation")["FDR"].min().max())
    null = pd.concat(null)
    assert abs((null["p"] < 0.05).mean() - 0.05) < 3 * np.sqrt(0.05 * 0.95 / len(null))
    assert (null["FDR"] < 0.05).mean() < 0.02  # 0.006 to 0.007 over 120 rankings
    assert max(least) < 0.05  # while the planted set is found each time


def test_permutation_keeps_the_values_and_leaves_targets_out():
    effects, sets = planted()
    effects = effects.rename(columns={"G0": "A"})
    plain, permuted = (enrich_effects(effects, sets, permute=permute, **FAST) for permute in (None, 3))
    np.testing.assert_array_equal(plain["magnitude"], permuted["magnitude"])
    assert not np.allclose(plain["ES"], permuted["ES"])
    pd.testing.assert_frame_equal(permuted, enrich_effects(effects, sets, permute=3, **FAST))


def test_targets_are_left_out():
    effects, sets = planted()
    effects = effects.rename(columns={sets["s2"][0]: "A", sets["s3"][0]: "B"})
    sets["s2"][0], sets["s3"][0] = "A", "B"
    effects.loc["A", "A"] = -50.0
    without = enrich_effects(effects, sets, **FAST).set_index(["perturbation", "gene_set"])
    within = enrich_effects(effects, sets, exclude_targets=False, **FAST).set_index(["perturbation", "gene_set"])
    assert without.loc[("A", "s2"), "n_genes"] == 9 and without.loc[("B", "s2"), "n_genes"] == 10
    assert list(without.loc[[("A+B", "s2"), ("A+B", "s3")], "n_genes"]) == [9, 9]
    assert within.loc[("A", "s2"), "ES"] < -0.9 < without.loc[("A", "s2"), "ES"]
    score, _ = running_sum(effects.loc["A"].drop("A"), set(sets["s2"][1:]))
    assert without.loc[("A", "s2"), "ES"] == pytest.approx(score, abs=1e-9)


def test_rows_do_not_depend_on_each_other_or_on_threads():
    effects, sets = planted()
    table = enrich_effects(effects, sets, **FAST)
    pd.testing.assert_frame_equal(table, enrich_effects(effects, sets, threads=2, **FAST))
    alone = enrich_effects(effects.loc[["B"]], sets, **FAST)
    pd.testing.assert_frame_equal(table[table["perturbation"] == "B"].reset_index(drop=True), alone)
    other = enrich_effects(effects, sets, seed=1, **FAST)
    np.testing.assert_array_equal(table["ES"], other["ES"])
    assert not np.allclose(table["NES"], other["NES"])


def test_scale_does_not_matter():
    effects, sets = planted()
    small = enrich_effects(effects / 2**13, sets, **FAST)
    pd.testing.assert_series_equal(small["NES"], enrich_effects(effects, sets, **FAST)["NES"])


def test_ties_and_zero_effects(capfd):
    effects, sets = planted()
    effects.loc["A", GENES[:120]] = 0.0
    effects.loc["A", sets["s4"]] = 0.0
    effects.loc["B"] = 0.0
    table = enrich_effects(effects, sets, **FAST).set_index(["perturbation", "gene_set"])
    assert table.loc["B", ["ES", "NES", "p", "FDR"]].isna().all(axis=None)
    assert (table.loc["B", "leading_edge"] == "").all() and (table.loc["B", "magnitude"] == 0).all()
    assert np.isnan(table.loc[("A", "s4"), "ES"]) and table.loc["A", "ES"].notna().sum() >= 15
    assert capfd.readouterr().err == ""


def test_gene_names_keep_their_case():
    effects, sets = planted()
    effects.columns = [f"c{k}orf" for k in range(200)]
    sets = {name.upper(): [f"c{gene[1:]}orf" for gene in genes] for name, genes in sets.items()}
    table = enrich_effects(effects, sets, **FAST)
    assert (table["n_genes"] == 10).all()
    assert set(table["leading_edge"].str.split(";").explode()) <= set(effects.columns)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"min_size": 11}, ValueError, "None of the 20 gene sets has from 11 to 500 of the 200 genes"),
        ({"min_size": 0}, ValueError, "min_size=0"),
        ({"n_permutations": 0}, ValueError, "n_permutations=0"),
        ({"gene_sets": {"a": ["g0", "g1"]}}, ValueError, "from 0 to 0"),
        ({"gene_sets": {}}, ValueError, "no gene set"),
        ({"gene_sets": {"a": "G0"}}, TypeError, "'a' is the string 'G0'"),
        ({"gene_sets": ["G0"]}, TypeError, "not list"),
        ({"gene_sets": "Hallmark"}, ValueError, "'Hallmark' is not the path"),
        ({"gene_sets": "missing.gmt"}, FileNotFoundError, "missing.gmt"),
        ({"gene_sets": pd.DataFrame({"source": ["a"], "gene": ["G0"]})}, KeyError, "no column 'target'"),
        ({"effects": np.zeros((2, 3))}, TypeError, "not ndarray"),
        ({"effects": pd.DataFrame([[np.nan, 1]], index=["A"])}, ValueError, "'A' are not all finite"),
        ({"effects": pd.DataFrame([[0.0, 1]], columns=["G0", "G0"])}, ValueError, "'G0' is there twice"),
        ({"effects": pd.DataFrame()}, ValueError, "no perturbations"),
    ],
)
def test_bad_arguments(change, error, match):
    effects, sets = planted()
    with pytest.raises(error, match=match):
        enrich_effects(**{"effects": effects, "gene_sets": sets, **change})


def test_gene_sets_in_all_forms(tmp_path):
    sets = {"one": ["G0", "G1", "G2"], "two": ["G2", "G3", "H"]}
    gseapy.parser.write_gmt(sets, str(tmp_path / "sets.gmt"))
    table = pd.DataFrame([(name, gene) for name, genes in sets.items() for gene in genes], columns=["source", "target"])
    for form in (sets, tmp_path / "sets.gmt", str(tmp_path / "sets.gmt"), table, {"one": sets["one"] * 2, **sets}):
        assert read_gene_sets(form) == sets
    matched = match_gene_sets(sets, ["G3", "G2", "G1", "G0"], min_size=2)
    assert matched == {"one": ["G2", "G1", "G0"], "two": ["G3", "G2"]}
    assert match_gene_sets(sets, ["G0", "G1", "G2"], min_size=1) == {"two": ["G2"]}  # "one" is all of them


@pytest.fixture(scope="module")
def trained():
    scvi.settings.seed = 0
    adata = rg.datasets.simulate(
        n_genes=60, n_perturbed=5, n_control_cells=120, n_cells_per_perturbation=40, n_doubles=0, n_truth_cells=20
    )
    rg.RaptorGraph.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraph(adata)
    model.train(max_epochs=5, enable_progress_bar=False, accelerator="cpu")
    return model


def test_latents_of_a_model(trained):
    effects = trained.predict_effects(trained.perturbed_genes, n_cells=50)
    gene = trained.perturbed_genes[0]
    up = effects.loc[gene].drop(gene).nlargest(8).index
    sets = {"up": list(up), "some": list(effects.columns[20:30])}
    table = enrich(trained, sets, n_cells=50, **FAST)
    assert list(table["latent"].unique()) == trained.perturbed_genes and len(table) == 10
    first = table.set_index(["latent", "gene_set"]).loc[(gene, "up")]
    assert first["ES"] == pytest.approx(1) and first["FDR"] < 0.05
    expected = enrich_effects(effects, sets, **FAST).rename(columns={"perturbation": "latent"})
    pd.testing.assert_frame_equal(table, expected)


def test_real_effects(shared_data):
    import anndata as ad

    adata = ad.read_h5ad(shared_data / "carpool_semireal.h5ad")
    effects = rg.pp.measured_effects(adata, library_size_key="total_counts").iloc[:2]
    table = enrich_effects(effects, shared_data / "hallmark_v2023.2.gmt", n_permutations=100)
    assert 20 < table["gene_set"].nunique() <= 50 and table["ES"].between(-1, 1).all()
    assert table["n_genes"].min() >= 4 and table["p"].between(0, 1).all()
