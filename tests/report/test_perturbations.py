"""The section on what each perturbation does."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph.evaluation._held_out_scores import HeldOut
from raptorgraph.report._blocks import Text
from raptorgraph.report._perturbations import perturbations
from raptorgraph.report._tables import Table

GENES = [
    ("A", "A", -3.0, 0.0, True),
    ("A", "g", -2.0, 0.0, False),
    ("A", "h", -2.5, 0.0, False),
    ("A", "k", 1.0, 0.3, False),
    ("B", "k", 1.5, 0.0, False),
    ("C", "k", 9.0, 0.0, False),
]


@pytest.fixture
def found(tmp_path):
    """Three perturbations, of which C does not stand out."""
    strength = pd.DataFrame(
        {
            "n_cells": 50, "size": [3.0, 2.0, 9.0], "magnitude": [2.5, 3.5, 0.5], "magnitude_low": [2.0, 3.0, 0.1],
            "magnitude_high": [3.0, 4.0, 0.9], "signal_to_noise": [5.0, 6.0, 1.0], "p": 0.01,
            "stands_out": [True, True, False], "own_gene": np.nan, "own_gene_se": np.nan,
            "trained": True,
        },
        index=pd.Index(["A", "B", "C"], name="perturbation"),
    )  # fmt: skip
    genes = pd.DataFrame(GENES, columns=["perturbation", "gene", "effect", "FDR", "own_target"])
    genes = genes.assign(low=genes["effect"] - 0.5, high=genes["effect"] + 0.5)
    answers = SimpleNamespace(strength=strength, top_genes=genes)
    return SimpleNamespace(answers=answers, strength=strength, held=HeldOut(reason="few cells"), out=tmp_path)


def tables(section):
    return {block.name: block for block in section.blocks if isinstance(block, Table)}


def texts(table):
    return [[None if cell.missing else cell.text for cell in row] for row in table.rows]


def test_those_that_stand_out_come_first_with_the_sizes_of_their_effects(found):
    shown = tables(perturbations(found))["all"]
    assert [column.title for column in shown.columns] == [
        "perturbation", "cells", "size of effect", "signal to noise", "stands out",
    ]  # fmt: skip
    assert texts(shown) == [
        ["B", "50", "3.50 [3.00, 4.00]", "6.0", "yes"],
        ["A", "50", "2.50 [2.00, 3.00]", "5.0", "yes"],
        ["C", "50", "0.50 [0.10, 0.90]", "1.0", "no"],
    ]


def test_own_genes_and_held_out_cells_are_shown_where_they_are_known(found):
    found.strength["own_gene"], found.strength["own_gene_se"] = -1.0, 0.1
    conditions = pd.DataFrame({"unseen": np.nan, "seen": 0.9, "half": 0.8}, index=found.strength.index)
    found.held = HeldOut(conditions=conditions)
    shown = tables(perturbations(found))["all"]
    titles = [column.title for column in shown.columns]
    assert titles[-3:] == ["own gene", "agreement, seen", "agreement, measured"]
    assert texts(shown)[0][-3:] == ["−1.00 [−1.16, −0.84]", "0.90", "0.80"]
    conditions["unseen"] = [0.5, np.nan, np.nan]
    assert "agreement, unseen" in [column.title for column in tables(perturbations(found))["all"].columns]


def test_genes_that_surely_change(found):
    section = perturbations(found)
    shown = tables(section)["genes"]
    assert texts(shown) == [
        ["B", None, "k (+1.50 [1.00, 2.00])"],
        ["A", "h (−2.50 [−3.00, −2.00]), g (−2.00 [−2.50, −1.50])", None],
    ]
    assert shown.caption == "The genes that 2 perturbations change most"
    said = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "1 perturbation that does not stand out is left out." in said


def test_why_no_gene_is_listed(found):
    found.answers.top_genes["FDR"] = np.nan
    assert "genes" not in tables(perturbations(found))
    assert "This model has no intervals" in perturbations(found).blocks[-1].text
    found.answers.top_genes = None
    assert "could not be made" in perturbations(found).blocks[-1].text
    found.strength["stands_out"] = False
    assert perturbations(found).blocks[-1].text.startswith("No perturbation stands out")


def test_what_is_not_known_or_predicted_is_said(found):
    found.strength.loc["B", "magnitude"] = np.nan
    found.strength.loc["A", "trained"] = False
    section = perturbations(found)
    assert [row[0] for row in texts(tables(section)["genes"])] == ["A"]
    said = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "1 perturbation that does not stand out is left out." in said
    assert "1 perturbation with a gene that the model does not know is left out." in said
    assert "Changes by 1 perturbation that the training did not see are predictions, and come last." in said
