"""The conventions of pertpy, scPerturb and GEARS are recognized, and what is suggested works."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import raptorgraph as rg
from raptorgraph.pp import suggest_setup
from raptorgraph.screen._cell_labels import parse_obs

GENES = ["KLF1", "BAK1", "CEBPA", "SPI1", "HLA-A", "ACTB"]


def screen(labels, key="perturbation", **obs):
    cells = pd.DataFrame({key: labels, **obs}, index=[f"cell{i}" for i in range(len(labels))])
    X = np.random.default_rng(0).poisson(2.0, (len(labels), len(GENES))).astype(np.float32)
    return ad.AnnData(X, obs=cells, var=pd.DataFrame(index=GENES))


def suggested(adata):
    return suggest_setup(adata)["value"].to_dict()


@pytest.mark.parametrize(
    ("labels", "key", "control", "delimiter"),
    [
        (["control", "KLF1", "BAK1", "KLF1+BAK1"], "perturbation", "control", "+"),
        (["ctrl", "KLF1+ctrl", "ctrl+BAK1", "KLF1+BAK1"], "condition", "ctrl", "+"),  # GEARS
        (["control", "KLF1", "BAK1", "KLF1_BAK1"], "perturbation", "control", "_"),  # scPerturb
        (["NT", "KLF1", "BAK1", "HLA-A"], "gene_target", "NT", "+"),  # pertpy
        (["non-targeting", "KLF1", "BAK1", "BAK1,KLF1"], "gene", "non-targeting", ","),
        (["NegCtrl0_NegCtrl0", "KLF1_NegCtrl0", "BAK1_KLF1", "BAK1_NegCtrl0"], "guide_ids", "NegCtrl0", "_"),
        (["unperturbed", "KLF1", "BAK1"], "anything", "unperturbed", "+"),
        (["non-targeting_1", "KLF1", "BAK1"], "perturbation", "non-targeting_1", "+"),
    ],
)
def test_conventions(labels, key, control, delimiter):
    adata = screen(np.repeat(labels, 4), key)
    assert suggested(adata) == {"perturbation_key": key, "control": control, "delimiter": delimiter}
    parsed = parse_obs(adata, key, control=control, delimiter=delimiter, require_control=True)
    assert set(parsed.genes) <= set(GENES)
    rg.RaptorGraph.setup_anndata(adata, **suggested(adata))


def test_several_controls_come_the_most_frequent_first():
    adata = screen(["NT", "NT", "KLF1", "safe", "BAK1", "NT", "control", "control"])
    assert suggested(adata)["control"] == ["NT", "control", "safe"]


def test_the_number_of_perturbations_decides_between_delimiters():
    # None of these genes is measured or perturbed alone.
    labels = ["control", "a_1_b_2", "c;d", "e"]
    assert suggested(screen(labels, nperts=[0, 1, 2, 1]))["delimiter"] == ";"
    assert suggested(screen(labels, nperts=[0, 4, 1, 1]))["delimiter"] == "_"
    adata = screen(pd.Categorical(labels, categories=[*labels, "unused"]), nperts=[0, 1, 2, 1])
    assert "nperts" in suggest_setup(adata).loc["perturbation_key", "reason"]


def test_genes_are_preferred_to_guides_and_to_who_was_perturbed():
    adata = screen(
        ["NT", "Perturbed", "Perturbed", "NT"],
        gene_target=["NT", "KLF1", "BAK1", "NT"],
        guide_ID=["NTg1", "KLF1g2", "BAK1g1", "NTg3"],
        crispr=["NT", "Perturbed", "Perturbed", "NT"],
        mito=["none", "high", "low", "none"],
    )
    table = suggest_setup(adata)
    assert table.loc["perturbation_key", "value"] == "gene_target"
    assert "perturbation" in table.loc["perturbation_key", "reason"]
    assert "mito" not in table.loc["perturbation_key", "reason"]


def test_values_that_cannot_be_used_point_to_their_layer_and_totals():
    adata = screen(["control", "KLF1", "BAK1", "KLF1"])
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X - 1.5
    adata.obs["ncounts"] = adata.layers["counts"].sum(1) + 7.0
    adata.obs["n_counts"] = adata.layers["counts"].sum(1) - 1.0
    found = suggested(adata)
    assert (found["layer"], found["library_size_key"]) == ("counts", "ncounts")
    adata.X = adata.layers["counts"]
    assert "layer" not in suggested(adata)


def test_counts_are_preferred_to_their_logarithms():
    adata = screen(["control", "control", "KLF1", "BAK1", "KLF1"])
    counts = adata.X.copy()
    others = {"mask": (counts > 0).astype(int), "spliced": counts, "other": counts[:, ::-1], "umis": counts}
    adata.layers.update(others)
    adata.X = np.log1p(counts)
    assert suggested(adata)["layer"] == "umis"
    assert "their logarithms" in suggest_setup(adata).loc["layer", "reason"]
    with pytest.warns(UserWarning, match=r"layers\['umis'\] holds counts: name it, layer='umis' \(--layer umis\)"):
        rg.RaptorGraph.setup_anndata(adata)
    del adata.layers["umis"]
    assert "layer" not in suggested(adata)
    rg.RaptorGraph.setup_anndata(adata)  # the logarithms are of none of the layers


def test_nothing_is_made_up():
    with pytest.raises(ValueError, match=r"No column of obs .*\['perturbation'\]"):
        suggest_setup(screen(["KLF1", "BAK1", "SPI1", "CEBPA"]))
    with pytest.raises(ValueError, match="No column"):
        suggest_setup(screen(["none", "low", "high", "low"], "mito"))


def test_empty_labels_of_controls_are_to_be_named():
    adata = screen(["", "", "KLF1", "BAK1,KLF1"], "guide_ids", nperts=[0, 0, 1, 2])
    with pytest.raises(ValueError, match="2 cells have an empty label") as error:
        suggest_setup(adata)
    line = str(error.value).split("name them first, ")[1].split(". ")[0]
    exec(line, {"adata": adata})
    assert suggested(adata) == {"perturbation_key": "guide_ids", "control": "control", "delimiter": ","}
    wrong = screen(["", "", "KLF1", "BAK1,KLF1"], "guide_ids", nperts=[0, 1, 1, 2])
    with pytest.raises(ValueError, match="^(?!.*empty label)"):
        suggest_setup(wrong)
