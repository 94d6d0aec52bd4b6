"""Canonical labels and the table of a screen's perturbations."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph.pp import perturbation_report, tidy_labels


def screen(labels, genes=("A", "B", "C")):
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
    return ad.AnnData(np.ones((len(labels), len(genes)), np.float32), obs=obs, var=pd.DataFrame(index=list(genes)))


def test_tidy_labels_merges_spellings_and_is_idempotent():
    adata = screen(["B+A", "A+B", "ctrl", "A+ctrl", "NT", "C"])
    tidy_labels(adata, control=["ctrl", "NT"], key_added="tidy")
    assert adata.obs["tidy"].tolist() == ["A+B", "A+B", "ctrl", "A", "ctrl", "C"]
    assert adata.obs["tidy"].cat.categories.tolist() == ["ctrl", "A", "A+B", "C"]
    assert adata.obs["perturbation"].tolist()[0] == "B+A"
    tidy_labels(adata, "tidy", control=["ctrl", "NT"])
    assert adata.obs["tidy"].tolist() == ["A+B", "A+B", "ctrl", "A", "ctrl", "C"]


def test_tidy_labels_warns_of_an_unknown_control():
    adata = screen(["A", "ctrl", "B+A"])
    with pytest.warns(UserWarning, match=r"control=\['ctrl'\]"):
        tidy_labels(adata)
    assert adata.obs["perturbation"].tolist() == ["A", "ctrl", "A+B"]


def test_tidy_labels_leaves_the_data_alone_on_error():
    adata = screen(["A", "A++B", "control"])
    before = adata.obs.copy()
    with pytest.raises(ValueError, match=r"A\+\+B"):
        tidy_labels(adata)
    with pytest.raises(KeyError, match="perturbation"):
        tidy_labels(adata, "perturbatoin")
    pd.testing.assert_frame_equal(adata.obs, before)


def test_report_counts_cells_and_finds_targets():
    adata = screen(["A+X", "X+A", "control", "A", "A"], genes=["A", "B"])
    report = perturbation_report(adata)
    assert report.index.tolist() == ["control", "A", "A+X"]
    assert report["n_cells"].tolist() == [1, 2, 2]
    assert report["n_genes"].tolist() == [0, 1, 2]
    assert report["targets_in_var"].tolist() == ["", "A", "A"]
    assert report["targets_missing"].tolist() == ["", "", "X"]
    assert report["spellings"].tolist() == ["control", "A", "A+X, X+A"]
    assert report.loc["A+X", "suggestions"] == ""


def test_report_shows_a_control_without_cells():
    assert perturbation_report(screen(["A", "ctrl"])).loc["control", "n_cells"] == 0


def test_report_suggests_names_but_not_other_members_of_a_family():
    genes = ["Klf1", "HOX-B9", "MAP2K6", "RHOXF2B", "SLC25A1", "TGFB2", "FOXP2"]
    targets = ["KLF1", "HOXB9", "MAP2K3", "RHOXF2BB", "SLC25A12", "TGFBR2", "FOXL2"]
    suggestions = perturbation_report(screen([*targets, "control"], genes=genes))["suggestions"]
    assert suggestions["KLF1"] == "KLF1 -> Klf1"
    assert suggestions["HOXB9"] == "HOXB9 -> HOX-B9"
    assert suggestions["MAP2K3"] == ""
    assert suggestions["RHOXF2BB"] == "RHOXF2BB -> RHOXF2B"
    assert suggestions[["SLC25A12", "TGFBR2", "FOXL2"]].tolist() == ["", "", ""]


def test_guides_of_a_gene_are_one_perturbation_where_that_is_asked():
    adata = screen(["A_g2+B", "A_g1", "control", "A|g3", "ctrl_2"], genes=["A", "B", "A_x"])
    tidy_labels(adata, control=["control", "ctrl_2"], key_added="tidy", collapse=True)
    assert adata.obs["tidy"].tolist() == ["A+B", "A", "control", "A", "control"]
    with pytest.warns(UserWarning, match="look like guides"):
        report = perturbation_report(adata, control=["control", "ctrl_2"])
    assert report.index.tolist() == ["control", "A_g1", "A_g2+B", "A|g3"]
    assert report["suggestions"].tolist() == ["", "A_g1 -> A", "A_g2 -> A", "A|g3 -> A"]
