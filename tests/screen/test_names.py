"""Blanks around names do not matter, and text that stands for a missing label is missing, wherever names are read."""

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.screen._labels import parse_labels
from raptorgraph.screen._names import means_missing

pytestmark = pytest.mark.usefixtures("few_steps")

GENES = ["KLF1", "BAK1", "SPI1", "ACTB", "GATA1"]
TEXTS = ["nan", "NaN", "NA", "N/A", "n/a", "<NA>", "#N/A", "None", "none", "null", "NULL", "", "  ", " nan ", "-", "*"]


def screen(labels, genes=GENES, **obs):
    cells = pd.DataFrame({"perturbation": labels, **obs}, index=[f"cell{i}" for i in range(len(labels))])
    X = np.random.default_rng(0).poisson(3.0, (len(labels), len(genes))).astype(np.float32)
    return ad.AnnData(X, obs=cells, var=pd.DataFrame({"number": range(len(genes))}, index=list(genes)))


@pytest.mark.parametrize("text", TEXTS)
def test_text_for_a_missing_value(text):
    assert means_missing(text)
    labels = pd.Series(["KLF1", text, "control", "KLF1"], index=["w", "x", "y", "z"], name="perturbation")
    with pytest.raises(ValueError, match=r"1 of 4 cells have no perturbation label \(first: x"):
        parse_labels(labels)
    with pytest.raises(ValueError, match=r"1 of 4 cells have no perturbation label \(first: x"):
        parse_labels(labels.replace({text: f"KLF1+{text}"}))
    with pytest.raises(ValueError, match="no perturbation"):
        rg.pp.parse_perturbation(f"{text}+KLF1")
    with pytest.raises(ValueError, match="empty|missing"):
        rg.pp.format_perturbation([text, "KLF1"])


@pytest.mark.parametrize("name", ["NAT1", "NANOG", "NANS", "NONO", "NULL1", "NA1", "unassigned", "C-", "TN"])
def test_names_of_genes_are_not_missing(name):
    assert not means_missing(name)
    assert rg.pp.parse_perturbation(f"{name}+A") == tuple(sorted([name, "A"]))


def test_parts_that_spell_a_missing_value_together_are_genes():
    assert rg.pp.parse_perturbation("N+A") == ("A", "N")
    with pytest.raises(ValueError, match="N/A"):
        rg.pp.parse_perturbation("N/A", delimiter="/")


def test_what_the_user_calls_control_is_control():
    parsed = parse_labels(["None", " None", "KLF1", "KLF1+None"], control="None")
    assert parsed.conditions == ((), ("KLF1",))
    assert parsed.codes.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="'nan'"):
        parse_labels(["None", "nan", "KLF1"], control="None")


def readers():
    model = rg.RaptorGraphModel
    return {
        "setup": lambda a: model.setup_anndata(a),
        "report": lambda a: rg.pp.perturbation_report(a),
        "tidy": lambda a: rg.pp.tidy_labels(a),
        "effects": lambda a: rg.pp.measured_effects(a),
        "genes": lambda a: rg.pp.select_genes(a, 3),
        "pairs": lambda a: rg.pp.pair_cells(a),
        "baseline": lambda a: rg.baselines.ladder()["additive"]().fit(a),
    }


@pytest.mark.parametrize("reader", ["setup", "report", "tidy", "effects", "genes", "pairs", "baseline"])
def test_every_reader_gives_the_error_of_real_missing_labels(reader):
    messages = []
    for missing in (None, "nan", "KLF1+NA"):
        adata = screen(["control", "control", "KLF1", "BAK1", missing, "BAK1+KLF1"])
        before = adata.copy()
        with pytest.raises(ValueError, match=r"1 of 6 cells have no perturbation label \(first: cell4") as error:
            readers()[reader](adata)
        pd.testing.assert_frame_equal(adata.obs, before.obs)
        pd.testing.assert_frame_equal(adata.var, before.var)
        # the line in the message leaves the other five cells
        line = str(error.value).split("drop them: adata = ")[1].split(".copy()")[0]
        assert eval(line, {"adata": adata}).n_obs == 5
        messages.append(str(error.value))
    assert "spelled 'nan'" in messages[1]
    assert "spelled 'KLF1+NA'" in messages[2]
    assert not any("astype(str)" in message for message in messages)


def test_numbers_become_labels_without_new_ones_for_missing_values():
    labels = pd.Series([1, 2, None], name="perturbation", dtype=object)
    with pytest.raises(TypeError) as error:
        parse_labels(labels)
    line = str(error.value).split(" = ")[1].rstrip(".")
    for dtype in (object, "category"):
        adata = screen([1, 2, None])
        adata.obs["perturbation"] = adata.obs["perturbation"].astype(dtype)
        found = eval(line, {"adata": adata})
        assert found.notna().tolist() == [True, True, False]
        assert all(isinstance(x, str) for x in found.dropna())


def test_a_suggestion_takes_no_missing_label_for_a_control():
    with pytest.raises(ValueError, match=r"2 cells have an empty label \('None'\)") as error:
        rg.pp.suggest_setup(screen(["control", "KLF1", "None", "BAK1", "None"]))
    assert "drop them" in str(error.value)
    assert rg.pp.suggest_setup(screen(["KLF1", "None", "BAK1", "None"])).loc["control", "value"] == "None"


# -- blanks --------------------------------------------------------------------------------------------------------
SPELLED = [" KLF1", "BAK1 ", "\tSPI1\t", "ACTB", "GATA1"]
LABELS = ["control ", " control", "control", "KLF1 ", "BAK1", " SPI1", "KLF1 + BAK1", "BAK1+KLF1 "]


def test_blanks_around_names_of_genes_change_nothing():
    blank, plain = screen(LABELS, SPELLED), screen(LABELS)
    pd.testing.assert_frame_equal(rg.pp.perturbation_report(blank), rg.pp.perturbation_report(plain))
    assert (rg.pp.perturbation_report(blank)["targets_missing"] == "").all()
    pd.testing.assert_frame_equal(rg.pp.measured_effects(blank), rg.pp.measured_effects(plain))
    assert list(blank.var_names) == SPELLED  # what only reads leaves names alone
    pd.testing.assert_series_equal(rg.pp.suggest_setup(blank)["value"], rg.pp.suggest_setup(plain)["value"])
    effects = [
        rg.baselines.ladder()["additive"]().fit(adata).predict_effects([" BAK1+KLF1"]) for adata in (blank, plain)
    ]
    pd.testing.assert_frame_equal(*effects)

    for adata in (blank, plain):
        rg.pp.select_genes(adata, 1, flavor="seurat")
        rg.RaptorGraphModel.setup_anndata(adata, library_size_key="raptorgraph_library_size")
    assert list(blank.var_names) == list(plain.var_names)
    assert list(blank.var_names[:3]) == ["BAK1", "KLF1", "SPI1"]
    pd.testing.assert_frame_equal(blank.var, plain.var)
    assert rg.RaptorGraphModel(blank).get_state_registry("perturbation")["n_targets"] == 3


def test_setup_renames_genes_and_loses_nothing():
    adata = screen(LABELS, SPELLED)
    adata.raw, adata.varm["loading"] = adata, np.arange(5.0)[:, None]
    adata.var_names.name = "symbol"
    before = adata.copy()
    rg.RaptorGraphModel.setup_anndata(adata)
    rows = [SPELLED.index(name) for name in ("BAK1 ", " KLF1", "\tSPI1\t", "ACTB", "GATA1")]
    assert adata.var_names.name == "symbol"
    assert adata.var["number"].tolist() == rows
    np.testing.assert_array_equal(adata.varm["loading"], before.varm["loading"][rows])
    np.testing.assert_array_equal(adata.X, before.X[:, rows])
    assert list(adata.raw.var_names) == SPELLED


def test_names_that_differ_in_blanks_only_are_named_and_left_alone():
    adata = screen(LABELS, ["KLF1", "KLF1 ", "BAK1", "SPI1", "ACTB"])
    before = adata.copy()
    for read in (
        rg.RaptorGraphModel.setup_anndata, rg.pp.perturbation_report, rg.pp.measured_effects, rg.pp.select_genes,
        rg.pp.suggest_setup,
    ):  # fmt: skip
        with pytest.raises(ValueError, match="'KLF1', 'KLF1 '"):
            read(adata)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)


def test_queries_and_what_is_asked_by_name():
    adata = screen(np.tile(LABELS, 6), SPELLED)
    rg.RaptorGraphModel.setup_anndata(adata, control=" control ")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    query = screen(np.tile(LABELS, 6), SPELLED)[:, ::-1].copy()
    names = list(query.var_names)
    np.testing.assert_allclose(
        model.get_latent_representation(query), model.get_latent_representation(), rtol=1e-5, atol=1e-6
    )
    assert list(query.var_names) == names
    assert model.predict_effects(" BAK1 + KLF1 ").index.tolist() == ["BAK1+KLF1"]
    table = rg.tl.interactions(model, [(" KLF1", "BAK1 ")])
    assert table.index.tolist() == ["BAK1+KLF1"]
    profile = pd.DataFrame(model.predict_effects("SPI1").to_numpy(), ["q"], [f" {name}" for name in model.var_names_])
    ranked = rg.tl.reverse(model, profile, candidates=["SPI1 ", " KLF1"], max_genes=1, exclude_targets=False)
    assert ranked["perturbation"].tolist() == ["SPI1", "KLF1"]
    assert rg.pl.pair(model, "KLF1+BAK1", genes=["ACTB ", "SPI1"]) is not None


def test_gene_sets_and_guides():
    table = pd.DataFrame({"source": ["one", "one"], "target": ["KLF1 ", " BAK1"]})
    assert rg.pp.read_gene_sets(table) == rg.pp.read_gene_sets({"one": [" KLF1", "BAK1 ", "KLF1"]})
    assert rg.pp.read_gene_sets(table) == {"one": ["KLF1", "BAK1"]}

    cells = screen(["x"] * 4)
    cells.obs["calls"] = ["k1 | n1", " n1", "nan", "k1|None"]
    targets = {"k1 ": " KLF1", "n1": "non-targeting "}
    report = rg.pp.assign_guides(cells, targets=targets, calls="calls", control=" control", key_added="called")
    assert cells.obs["called"].tolist() == ["KLF1", "control", np.nan, "KLF1"]
    assert report.guides["n_cells"].to_dict() == {"k1": 2, "n1": 2}
    with pytest.raises(ValueError, match="1 of 2 guides have no target: k1"):
        rg.pp.assign_guides(cells, targets={**targets, "k1 ": "NaN"}, calls="calls", key_added="other")
    rg.pp.assign_guides(
        cells, targets={"k1": "KLF1", "n1": "None", "None": "SPI1"}, calls="calls", non_targeting="None",
        key_added="third",
    )  # fmt: skip
    assert cells.obs["third"].tolist() == ["KLF1", "control", np.nan, "KLF1+SPI1"]


def test_a_mudata_keeps_what_it_knows_of_renamed_genes():
    guides = screen(["x"] * len(LABELS), ["g1 ", "g2"])[:, :].copy()
    mdata = md.MuData({"crispr": guides, "rna": screen(LABELS, SPELLED)})
    mdata.var["shared"] = range(7)
    rg.RaptorGraphModel.setup_mudata(mdata, modalities={"expression": "rna"})
    expected = {"g1 ": 0, "g2": 1, "KLF1": 2, "BAK1": 3, "SPI1": 4, "ACTB": 5, "GATA1": 6}
    assert mdata.var["shared"].to_dict() == expected
