"""Names of controls and of unknown cells are recognized, genes are not taken for them."""

import pandas as pd
import pytest

from raptorgraph.screen._label_hints import (
    SetupWarning,
    likely_controls,
    likely_names,
    likely_unassigned,
    no_control_message,
    warn_of_controls,
)


def test_names_of_controls():
    # WT1 and NT5E are genes.
    found = likely_controls(["WT1", "NT5E", "CTRL1", "NT_1", "SAFE", "NegCtrl0"])
    assert found == ["CTRL1", "NT_1", "NegCtrl0", "SAFE"]
    # plasmids, guides and pairs of guides of controls, as published screens write them
    published = ["NTg4", "sgCtrl-1", "sgNT_2", "62(mod)_pBA581", "Gal4-4(mod)_pBA582", "3x_neg_ctrl_pMJ144-1",
                 "NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", "INTERGENIC_12", "lacZ", "ONE-SITE", "safe_harbor",
                 "ROSA26"]  # fmt: skip
    genes = ["STAT1g1", "CREB1_pDS269", "KLF1_NegCtrl0__KLF1_NegCtrl0", "NT5Cg2", "WT1", "ROSA", "SAFB", "NEGR1",
             "PBX1", "CTRL", "CTRB1", "MOCS1", "UNTX"]  # fmt: skip
    assert likely_controls([*published, *genes]) == sorted([*published, "CTRL", "ROSA"])


def test_controls_among_perturbed_genes_are_named_with_the_argument():
    with pytest.warns(SetupWarning, match="^NT, ctrl will be taken as perturbed genes.* name them in control"):
        warn_of_controls(["KLF1", "ctrl", "NT"], "control")


def test_names_of_unknown_cells():
    names = ["Unassigned", "no_guide", "multi-guide", "doublet", "UNKNOWN", "KLF1", "OTHER1", "unlabelled"]
    assert likely_unassigned(names) == sorted(set(names) - {"KLF1", "OTHER1"})


def test_the_message_lists_frequent_labels_and_controls_inside_of_combinations():
    labels = pd.Series(["KLF1+ctrl"] * 3 + ["BAK1"])
    message = no_control_message(labels, ("control",), "+")
    assert "none of ['control'] is among the labels" in message
    assert "'KLF1+ctrl' (3 cells), 'BAK1' (1 cells)" in message
    assert message.endswith("control=['ctrl'].")


def test_names_of_missing_genes():
    genes = pd.Index(["Klf1", "HOX-B9", "MAP2K6", "RHOXF2B", "SPI1"])
    missing = ["KLF1", "HOXB9", "MAP2K3", "RHOXF2BB", "spi1"]
    assert likely_names(missing, genes, ["SPI1"]) == {"KLF1": "Klf1", "HOXB9": "HOX-B9", "RHOXF2BB": "RHOXF2B"}
    assert likely_names([], genes, []) == {}
