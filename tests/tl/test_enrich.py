import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import raptorgraph as rg
from raptorgraph.tl import enrich, enrich_effects, latent_programs

GENES = [f"G{k}" for k in range(200)]
FAST = {"n_permutations": 200}
LEARNED = {"activation": "learned", "n_null": 400, "progress": False, **FAST}


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
    assert len(table) == 60
    assert list(table["perturbation"].unique()) == ["A", "B", "A+B"]
    best = table.loc[table.groupby("perturbation")["NES"].apply(lambda nes: nes.abs().idxmax())]
    best = best.set_index("perturbation")
    assert best.loc["A", "gene_set"] == "s0"
    assert best.loc["A", "NES"] > 1.8
    assert best.loc["B", "gene_set"] == "s1"
    assert best.loc["B", "NES"] < -1.8
    assert (best.loc[["A", "B"], "FDR"] < 0.01).all()
    assert (table["n_genes"] == 10).all()
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
    assert without.loc[("A", "s2"), "n_genes"] == 9
    assert without.loc[("B", "s2"), "n_genes"] == 10
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
    assert (table.loc["B", "leading_edge"] == "").all()
    assert (table.loc["B", "magnitude"] == 0).all()
    assert np.isnan(table.loc[("A", "s4"), "ES"])
    assert table.loc["A", "ES"].notna().sum() >= 15
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
        ({"gene_sets": "sets/Hallmark"}, FileNotFoundError, "no file of gene sets 'sets/Hallmark'"),
        ({"method": "ora"}, ValueError, "method='ora'"),
        ({"threads": 0}, ValueError, "threads=0"),
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


def test_latents_of_a_model(known_screen):
    model = known_screen.model
    effects = model.predict_effects(model.perturbed_genes)
    gene = model.perturbed_genes[0]
    sets = {"up": list(effects.loc[gene].drop(gene).nlargest(8).index), "some": list(effects.columns[20:30])}
    table = enrich(model, sets, activation="learned", n_null=0, **FAST)
    assert list(table["latent"].unique()) == model.perturbed_genes
    assert len(table) == 2 * len(effects)
    first = table.set_index(["latent", "gene_set"]).loc[(gene, "up")]
    assert first["ES"] == pytest.approx(1)
    assert first["FDR"] < 0.05
    expected = enrich_effects(effects, sets, **FAST).rename(columns={"perturbation": "latent"})
    pd.testing.assert_frame_equal(table, expected)


NULL = ["change", "p_null", "FDR_null", "p_effect", "stands_out"]


@pytest.fixture(scope="module")
def sets(known_screen):
    """The genes that P08 moves most in truth, genes that vary together among controls, and genes at random."""
    adata = known_screen.adata
    true = adata.uns["simulation"]["effects"].loc["P08"].drop(known_screen.model.perturbed_genes)
    rng = np.random.default_rng(0)
    found = {"P08 up": list(true.nlargest(15).index), "P08 down": list(true.nsmallest(15).index)}
    cells = adata[adata.obs["perturbation"] == "control"]
    values = np.log1p(1e4 * cells.X.toarray() / cells.obs["total_counts"].to_numpy()[:, None])
    correlation = np.corrcoef(values + 1e-9 * rng.normal(size=values.shape), rowvar=False)
    for k, gene in enumerate(rng.permutation(adata.n_vars)[:10]):
        found[f"together {k}"] = list(adata.var_names[np.argsort(-correlation[gene])[:15]])
    for k in range(10):
        found[f"random {k}"] = list(rng.choice(adata.var_names, 15, replace=False))
    return found


@pytest.fixture(scope="module")
def table(known_screen, sets):
    return enrich(known_screen.model, sets, **LEARNED)


def test_planted_sets_pass_both_nulls(table):
    both = table.set_index(["latent", "gene_set"])
    up, down = both.loc[("P08", "P08 up")], both.loc[("P08", "P08 down")]
    assert up["change"] > 0 > down["change"]
    assert up["NES"] > 0 > down["NES"]
    assert max(up["FDR"], up["FDR_null"], down["FDR"], down["FDR_null"]) < 0.05
    assert up["stands_out"]
    assert up["p_effect"] < 1e-3


def test_null_perturbations_are_marked_and_correlated_sets_do_not_deceive(known_screen, table):
    null = table[table["latent"].isin(known_screen.null)]
    assert not null["stands_out"].any()
    assert table[~table["latent"].isin(known_screen.null)]["stands_out"].all()
    assert (null["p_null"] < 0.05).mean() < 0.1
    assert not ((null["FDR"] < 0.05) & (null["FDR_null"] < 0.05)).any()
    together = null[null["gene_set"].str.startswith("together")]
    assert (together["p"] < 0.05).mean() > 2 * (together["p_null"] < 0.05).mean()  # random sets ignore correlation


def test_change_is_measured_in_the_cells(known_screen, sets, table):
    effects = known_screen.model.measured_effects()
    for latent in ("P03", "P09"):
        own = effects.loc[latent].drop(latent, errors="ignore")
        inside = own.index.isin(sets["random 3"])
        row = table.set_index(["latent", "gene_set"]).loc[(latent, "random 3")]
        assert row["change"] == pytest.approx(own[inside].mean() - own[~inside].mean())
    rates = table.groupby("latent")["p_null"].apply(lambda p: p.min() * len(p))
    assert (table.groupby("latent")["FDR_null"].min() <= rates + 1e-12).all()


def test_same_result_whatever_the_threads(known_screen, sets, table):
    again = enrich(known_screen.model, sets, threads=3, **LEARNED)
    pd.testing.assert_frame_equal(again, table)
    other = enrich(known_screen.model, sets, seed=1, **LEARNED)
    assert not np.allclose(other["p_null"], table["p_null"])


def test_permuted_genes(known_screen, sets, table):
    permuted = enrich(known_screen.model, sets, permute=0, **LEARNED)
    pd.testing.assert_series_equal(permuted["p_effect"], table["p_effect"])
    planted = permuted[(permuted["latent"] == "P08") & permuted["gene_set"].str.startswith("P08")]
    assert planted["FDR"].min() > 0.05


def test_unit_activation(known_screen, sets):
    model = known_screen.model
    table = enrich(model, sets, n_cells=60, n_null=100, progress=False, **FAST)
    assert list(table["latent"].unique()) == model.latent_names
    free = table[~table["latent"].isin(model.perturbed_genes)]
    assert free[NULL[:-1]].isna().all(axis=None)
    active = model.latent_activity()["active"]
    assert free.groupby("latent")["stands_out"].first().eq(active[free["latent"].unique()]).all()
    assert table[table["latent"].isin(model.perturbed_genes)][NULL].notna().all(axis=None)
    programs = latent_programs(model, n_cells=60, seed=0).astype(float)
    row = table.set_index(["latent", "gene_set"]).loc[("latent_17", "random 0")]
    assert row["ES"] == pytest.approx(running_sum(programs.loc["latent_17"], set(sets["random 0"]))[0], abs=1e-9)
    planted = table.set_index(["latent", "gene_set"])["NES"].loc["P08"]
    assert planted.idxmax() == "P08 up"
    assert planted.idxmin() == "P08 down"


def test_without_data(known_screen, sets, tmp_path):
    known_screen.model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="loaded without anndata"):
        model = rg.RaptorGraphModel.load(tmp_path / "model", accelerator="cpu")
    with pytest.raises(ValueError, match="loaded without data"):
        enrich(model, sets)
    with pytest.raises(ValueError, match="activation='unit' decodes"):
        enrich(model, sets, n_null=0)
    table = enrich(model, sets, activation="learned", n_null=0, **FAST)
    assert not set(NULL) & set(table.columns)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"activation": "half"}, "activation='half'"),
        ({"method": "ora"}, "method='ora'"),
        ({"n_null": 5}, "n_null=5"),
        ({"n_cells": 0}, "n_cells=0"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_bad_arguments_of_enrich(known_screen, sets, change, match):
    with pytest.raises(ValueError, match=match):
        enrich(known_screen.model, sets, **change)


def test_progress_shows_on_request(known_screen, sets, capsys):
    few = {name: sets[name] for name in list(sets)[:3]}
    enrich(known_screen.model, few, n_null=20, n_permutations=10)
    assert capsys.readouterr() == ("", "")


def test_weights_of_a_table():
    effects, sets = planted()
    net = pd.DataFrame([(name, gene, 1.0) for name in sets for gene in sets[name]], columns=["source", "target", "w"])
    net = net.rename(columns={"w": "weight"})
    pd.testing.assert_frame_equal(enrich_effects(effects, net, **FAST), enrich_effects(effects, sets, **FAST))
    first = net["source"].iloc[0], net["target"].iloc[0]
    for value, match in ((-1.0, "is -1, and method='gsea' knows no weights"), (0.0, "is 0"), (np.nan, "not a finite")):
        net.loc[0, "weight"] = value
        with pytest.raises(ValueError, match=match) as error:
            enrich_effects(effects, net)
        assert all(repr(name) in str(error.value) for name in first)


def test_decoupler_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "decoupler", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "raptorgraph\[decoupler\]"'):
        enrich_effects(*planted(), method="ulm")


def test_linear_models_of_decoupler():
    pytest.importorskip("decoupler")
    effects, sets = planted()
    table = enrich_effects(effects, sets, method="ulm").set_index(["perturbation", "gene_set"])
    for name in ("s0", "s1", "s7"):
        inside = effects.columns.isin(sets[name])
        t, p = stats.ttest_ind(effects.loc["A", inside], effects.loc["A", ~inside])
        row = table.loc[("A", name)]
        np.testing.assert_allclose([row["NES"], row["p"]], [t, p], rtol=1e-6)
        difference = effects.loc["A", inside].mean() - effects.loc["A", ~inside].mean()
        assert row["ES"] == pytest.approx(difference)
    np.testing.assert_allclose(table.loc["A", "FDR"], stats.false_discovery_control(table.loc["A", "p"]))
    edge = table.loc[("A", "s0"), "leading_edge"].split(";")
    assert set(edge) <= set(sets["s0"])
    assert effects.loc["A", edge].is_monotonic_decreasing
    half = {name: sets[name] for name in list(sets)[:10]}
    several = enrich_effects(effects, half, method="mlm").set_index(["perturbation", "gene_set"])
    assert several.loc[("B", "s1"), "NES"] < -4
    assert several.loc[("B", "s1"), "FDR"] < 1e-4
    with pytest.raises(ValueError, match="all sets together"):
        enrich_effects(effects, sets, method="mlm")
    with pytest.raises(ValueError, match="at once: use method='ulm'"):
        enrich_effects(effects.iloc[:, :15], {f"g{k}": [f"G{k}"] for k in range(15)}, method="mlm", min_size=1)


def test_signed_weights_turn_a_linear_model_round():
    pytest.importorskip("decoupler")
    effects, sets = planted()
    rows = [(name, gene, -1.0 if name == "s0" else 2.0) for name in sets for gene in sets[name]]
    net = pd.DataFrame(rows, columns=["source", "target", "weight"])
    signed = enrich_effects(effects, net, method="ulm").set_index(["perturbation", "gene_set"])
    plain = enrich_effects(effects, sets, method="ulm").set_index(["perturbation", "gene_set"])
    assert signed.loc[("A", "s0"), "NES"] == pytest.approx(-plain.loc[("A", "s0"), "NES"])
    assert signed.loc[("A", "s3"), "NES"] == pytest.approx(plain.loc[("A", "s3"), "NES"])
    assert set(signed.loc[("A", "s0"), "leading_edge"].split(";")) == set(
        plain.loc[("A", "s0"), "leading_edge"].split(";")
    )


def test_gsea_of_decoupler_agrees_with_that_of_gseapy():
    pytest.importorskip("decoupler")
    effects, sets = planted()
    ours = enrich_effects(effects.iloc[:2], sets, n_permutations=1000)
    theirs = enrich_effects(effects.iloc[:2], sets, method="decoupler_gsea", n_permutations=1000)
    np.testing.assert_allclose(ours["ES"], theirs["ES"], atol=1e-6)
    assert np.corrcoef(ours["NES"], theirs["NES"])[0, 1] > 0.995
    assert abs(ours["p"] - theirs["p"]).max() < 0.1
    assert (ours["leading_edge"] == theirs["leading_edge"]).mean() > 0.9
    again = enrich_effects(effects.iloc[:2], sets, method="decoupler_gsea", n_permutations=1000)
    pd.testing.assert_frame_equal(theirs, again)


def test_learned_effects_through_decoupler(known_screen, sets):
    pytest.importorskip("decoupler")
    table = enrich(known_screen.model, sets, activation="learned", method="ulm", n_null=100, progress=False)
    best = table[table["latent"] == "P08"].nlargest(1, "NES").iloc[0]
    assert best["gene_set"] == "P08 up"
    assert best["FDR_null"] < 0.05
    assert best["stands_out"]


def test_real_effects(shared_data):
    import anndata as ad

    adata = ad.read_h5ad(shared_data / "carpool_semireal.h5ad")
    effects = rg.pp.measured_effects(adata, library_size_key="total_counts").iloc[:2]
    table = enrich_effects(effects, shared_data / "hallmark_v2023.2.gmt", n_permutations=100)
    assert 20 < table["gene_set"].nunique() <= 50
    assert table["n_genes"].min() >= 4
    hallmarks = rg.pp.read_gene_sets(shared_data / "hallmark_v2023.2.gmt")
    for row in table.iloc[[0, 7, 30]].itertuples():
        ranked = effects.loc[row.perturbation].drop(row.perturbation, errors="ignore")
        members = set(hallmarks[row.gene_set]) & set(ranked.index)
        assert row.n_genes == len(members)
        assert pytest.approx(running_sum(ranked, members)[0], abs=1e-6) == row.ES
