"""Screens with so many pairs that only those which come first are listed."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from raptorgraph.cli._show import _show_pairs
from raptorgraph.report import _relations, _results
from raptorgraph.report._blocks import Text
from raptorgraph.report._pairs import top_pairs


class Additive:
    """Predictions that add up but for one pair."""

    has_posterior, adata = False, None
    setup_args = {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}

    def __init__(self, n=6):
        rng = np.random.default_rng(0)
        self.perturbed_genes = [f"P{k}" for k in range(n)]
        self.singles = {gene: rng.normal(size=20) for gene in self.perturbed_genes}
        self.conditions = [*self.perturbed_genes, "P0+P1"]

    def predict_effects(self, labels):
        rows = [sum(self.singles[gene] for gene in label.split("+")) * (1 + (label == "P2+P4")) for label in labels]
        return pd.DataFrame(rows, index=labels)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(_results, "_MOST_LISTED", 10)
    monkeypatch.setattr(_results, "_LISTED", 4)
    said = []
    found = _results.ranked_pairs(Additive(), {"P0+P1"}, 0, said.append)
    assert said == ["Of 15 pairs the 4 are listed that depart most from the sum of both effects."]
    return found


def test_the_pairs_that_depart_most_are_listed(table):
    assert len(table) == 4
    assert "P2+P4" in table.index
    assert table.attrs["n_pairs"] == 15
    assert (table["against_median"] == "").all()


def test_the_report_says_how_many_of_how_many(table):
    screen = SimpleNamespace(conditions=[], effects=None)
    pairs = top_pairs(table, screen, {f"P{k}" for k in range(6)})
    assert (pairs.n_all, pairs.n_pairs) == (15, 4)
    assert "P0+P1" not in table.index  # from which the model learned how effects add up
    assert not pairs.prior
    found = SimpleNamespace(pairs=pairs, interactions=table, held=SimpleNamespace(ranks=None))
    pairs.top.clear()
    section = _relations.interactions(found)
    text = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "Shown are 4 of 15 pairs" in text
    assert all(isinstance(block, Text) for block in section.blocks)  # and no map, which would be of all pairs


def test_the_terminal_says_so_too(table):
    console = Console(record=True, width=200)
    known = table.assign(interaction="synergy", **dict.fromkeys(["synergy_low", "synergy_high"], 1.5))
    known.attrs = table.attrs
    _show_pairs(known, console)
    assert "4 of 15 pairs" in console.export_text()
