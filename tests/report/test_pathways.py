import pandas as pd
import pytest

from raptorgraph.report._pathways import asked, labeled, significant

ROWS = [  # latent, gene set, NES, FDR, change, FDR_null, stands_out
    ("B", "passes", -1.5, 0.01, -0.2, 0.01, True),
    ("A", "passes, weaker", 1.2, 0.05, 0.1, 0.05, True),
    ("A", "passes", 2.0, 0.0, 0.3, 0.0, True),
    ("A", "no set of genes", 1.9, 0.2, 0.3, 0.0, True),
    ("A", "no change of cells", 1.9, 0.0, 0.3, 0.3, True),
    ("A", "cells go the other way", 1.9, 0.0, -0.3, 0.0, True),
    ("C", "does not stand out", 1.9, 0.0, 0.3, 0.0, False),
    ("latent_3", "no cells of its own", 1.4, 0.01, float("nan"), float("nan"), True),
]
COLUMNS = ["latent", "gene_set", "NES", "FDR", "change", "FDR_null", "stands_out"]


def test_gene_sets_that_count():
    table = pd.DataFrame(ROWS, columns=COLUMNS)
    found = significant(table)
    assert list(zip(found["latent"], found["gene_set"], strict=True)) == [
        ("A", "passes"),
        ("A", "passes, weaker"),
        ("B", "passes"),
        ("latent_3", "no cells of its own"),
    ]
    assert list(found.columns) == COLUMNS


@pytest.mark.parametrize("rows", [ROWS[3:7], ROWS[:0]])
def test_none_counts(rows):
    found = significant(pd.DataFrame(rows, columns=COLUMNS))
    assert found.empty
    assert list(found.columns) == COLUMNS


def test_labels():
    latents = pd.DataFrame(
        {"label": ["Hypoxia ↑", "", ""], "reason": ["", "no enriched set", "not analyzed"]},
        index=["A", "B", "latent_2"],
    )
    assert list(asked(latents).index) == ["A", "B"]
    assert list(labeled(latents)) == [True, False, False]
