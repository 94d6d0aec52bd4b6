"""Labels of latents."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.tl import annotate_latents

MODEL = SimpleNamespace(latent_names=["A", "B", "C", "D", "latent_4", "latent_5"])
HEME, MYC, E2F = "HALLMARK_HEME_METABOLISM", "HALLMARK_MYC_TARGETS_V1", "Mitotic Spindle"


def table(*rows, null=True):
    """Latent, set, NES, FDR, change, FDR_null, stands_out."""
    columns = ["latent", "gene_set", "NES", "FDR", "change", "FDR_null", "stands_out"]
    found = pd.DataFrame(rows, columns=columns)
    return found if null else found[columns[:4]]


@pytest.fixture
def rows():
    return table(
        ("A", HEME, 2.0, 0.01, 0.3, 0.001, True),
        ("A", MYC, -2.4, 0.001, -0.5, 0.001, True),
        ("A", E2F, 1.0, 0.6, 0.1, 0.4, True),
        ("B", HEME, 0.9, 0.7, 0.1, 0.8, True),
        ("B", MYC, -2.2, 0.02, -0.4, 0.01, True),
        ("B", E2F, 2.9, 0.001, -0.4, 0.01, True),  # the cells go the other way
        ("C", HEME, -2.5, 0.001, -0.4, 0.2, True),  # no more than noise in the cells
        ("C", MYC, -1.0, 0.2, -0.1, 0.01, True),
        ("C", E2F, 0.8, 0.9, 0.0, 0.9, True),
        ("D", HEME, 2.8, 0.001, 0.5, 0.001, False),
        ("D", MYC, -2.8, 0.001, -0.5, 0.001, False),
        ("D", E2F, 1.8, 0.001, 0.5, 0.001, False),
        ("latent_4", HEME, 1.9, 0.03, np.nan, np.nan, True),
        ("latent_4", MYC, -0.9, 0.9, np.nan, np.nan, True),
        ("latent_4", E2F, np.nan, np.nan, np.nan, np.nan, True),
    )


def test_labels_and_reasons(rows):
    before = rows.copy()
    labels = annotate_latents(MODEL, rows)
    pd.testing.assert_frame_equal(rows, before)
    assert list(labels.index) == MODEL.latent_names
    assert labels.index.name == "latent"
    assert labels["summary"].tolist() == [
        "A: MYC targets V1 ↓",
        "B: MYC targets V1 ↓",
        "C: no enriched set",
        "D: no effect beyond noise",
        "latent_4: heme metabolism ↑",
        "latent_5: not analyzed",
    ]
    assert labels["label"].tolist() == ["MYC targets V1 ↓", "MYC targets V1 ↓", "", "", "Heme metabolism ↑", ""]
    assert labels["reason"].tolist() == ["", "", "no enriched set", "no effect beyond noise", "", "not analyzed"]
    assert labels["direction"].tolist() == ["down", "down", "", "", "up", ""]
    assert labels["gene_set"].tolist() == [MYC, MYC, "", "", HEME, ""]
    assert labels["n_sets"].tolist() == [2, 1, 0, 0, 1, 0]
    # of the three other latents that stand out
    np.testing.assert_allclose(labels["shared"], [1 / 3, 1 / 3, np.nan, np.nan, 1 / 3, np.nan])
    assert labels.loc["A", "FDR_null"] == 0.001
    assert np.isnan(labels.loc["latent_4", "FDR_null"])


def test_what_sets_a_latent_apart(rows):
    labels = annotate_latents(MODEL, rows, distinct=True)
    assert labels.loc["A", "label"] == "MYC targets V1 ↓"  # median -1.6; that of heme is 1.45
    rows.loc[rows["gene_set"] == MYC, "NES"] -= 0.5
    rows.loc[3, "NES"] = -1.0
    assert annotate_latents(MODEL, rows)["label"].iloc[0] == "MYC targets V1 ↓"
    assert annotate_latents(MODEL, rows, distinct=True)["label"].iloc[0] == "Heme metabolism ↑"


def test_false_discovery_rates_count(rows):
    assert annotate_latents(MODEL, rows, fdr=0.005)["label"].tolist() == ["MYC targets V1 ↓", "", "", "", "", ""]
    assert annotate_latents(MODEL, rows, fdr=0.3).loc["C", "label"] == "Heme metabolism ↓"


def test_a_table_without_what_the_cells_say(rows):
    plain = table(*rows.itertuples(index=False), null=False)
    labels = annotate_latents(MODEL, plain)
    assert labels["label"].tolist()[:4] == [
        "MYC targets V1 ↓",
        "Mitotic spindle ↑",
        "Heme metabolism ↓",
        labels.loc["D", "label"],
    ]
    assert labels.loc["D", "label"]
    assert "FDR_null" not in labels


def test_nothing_to_say():
    labels = annotate_latents(MODEL, table(("A", HEME, 1.0, 0.9, 0.1, 0.9, False)))
    assert (labels["label"] == "").all()
    assert labels["n_sets"].eq(0).all()
    assert labels["NES"].isna().all()


@pytest.mark.parametrize("dtype", ["category", "string", "str"])
@pytest.mark.parametrize("fdr", [0.05, 1e-6])
def test_columns_of_text_of_any_kind(rows, dtype, fdr):
    given = rows.astype({"latent": dtype, "gene_set": dtype})
    if dtype == "category":
        given["gene_set"] = given["gene_set"].cat.add_categories(["no one's set"])
    for distinct in (False, True):
        found, expected = (annotate_latents(MODEL, each, fdr=fdr, distinct=distinct) for each in (given, rows))
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"fdr": 0}, ValueError, "fdr=0"),
        ({"drop": "NES"}, KeyError, "no column 'NES'"),
        ({"drop": "change"}, KeyError, "no column 'change'"),
        ({"name": "Z"}, ValueError, "'Z' in the table is not a latent"),
    ],
)
def test_bad_arguments(rows, change, error, match):
    given = rows.drop(columns=change.pop("drop")) if "drop" in change else rows
    if "name" in change:
        given = rows.replace({"latent": {"A": change.pop("name")}})
    with pytest.raises(error, match=match):
        annotate_latents(MODEL, given, **change)


def test_labels_of_a_model_mark_its_graph(known_screen):
    model = known_screen.model
    true = known_screen.adata.uns["simulation"]["effects"].drop(columns=model.perturbed_genes, errors="ignore")
    sets = {f"{gene} up": list(true.loc[gene].nlargest(15).index) for gene in ("P04", "P07", "P09")}
    enrichment = rg.tl.enrich(model, sets, n_permutations=200, n_null=200, progress=False)
    labels = annotate_latents(model, enrichment)
    assert labels.loc["P04", "label"] == "P04 up ↑"
    assert labels.loc["P07", "label"] == "P07 up ↑"
    assert (labels.loc[known_screen.null, "reason"] == "no effect beyond noise").all()
    assert (labels["reason"] != "not analyzed").all()
    learned = rg.tl.enrich(model, sets, activation="learned", n_permutations=200, n_null=200, progress=False)
    free = annotate_latents(model, learned)["reason"].iloc[len(model.perturbed_genes) :]
    assert (free == "not analyzed").all()
    graph = pd.DataFrame(0.0, index=model.latent_names, columns=model.latent_names)
    graph.loc["P04", "P07"] = graph.loc["P04", "P09"] = 1.0
    ax = rg.pl.dag(graph, label=labels, color=labels)
    drawn = "\n".join(text.get_text() for text in ax.texts)
    assert "P04 up ↑" in drawn
    assert "P07 up ↑" in drawn
    assert "P09" in drawn
