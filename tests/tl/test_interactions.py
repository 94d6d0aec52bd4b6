from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from raptorgraph import metrics, tl


class FakeModel:
    """Additive predictions, but for the given pairs."""

    def __init__(self, n_genes=6, special=None):
        rng = np.random.default_rng(0)
        self.perturbed_genes = [f"P{k}" for k in range(n_genes)][::-1]
        self.singles = {gene: rng.normal(size=30) for gene in self.perturbed_genes}
        self.special = special or {}
        self.conditions = [*self.perturbed_genes, "P1_P0"]
        self.setup_args = {"perturbation_key": "perturbation", "control": ["nt", "control"], "delimiter": "_"}
        self.asked = []

    def predict_effects(self, labels):
        self.asked.append(len(labels))
        rows = [
            self.special[label](self.singles)
            if label in self.special
            else sum(self.singles[g] for g in label.split("_"))
            for label in labels
        ]
        return pd.DataFrame(rows, index=labels)


def test_additive_model():
    table = tl.interactions(FakeModel())
    assert len(table) == 15 and (table["interaction"] == "additive").all()
    np.testing.assert_allclose(table[["synergy", "suppression"]], 1)
    np.testing.assert_allclose(table["neomorphism"], 0, atol=1e-12)
    assert list(table.index) == [f"{a}_{b}" for a, b in combinations(sorted(FakeModel().perturbed_genes), 2)]
    assert list(table.index[table["measured"]]) == ["P0_P1"]


def test_scores_and_classes_of_planted_interactions():
    rng = np.random.default_rng(1)
    new = 6 * rng.normal(size=30)
    model = FakeModel(
        special={
            "P0_P1": lambda s: 3 * (s["P0"] + s["P1"]),
            "P2_P3": lambda s: 0.2 * (s["P2"] + s["P3"]),
            "P0_P2": lambda s: new * np.linalg.norm(s["P0"] + s["P2"]) / np.linalg.norm(new),
            "P4_P5": lambda s: 0.8 * s["P4"],
            "P1_P5": lambda s: 0 * s["P1"],
        }
    )
    table = tl.interactions(model)
    kinds = table["interaction"]
    assert kinds["P0_P1"] == "synergy" and kinds["P2_P3"] == "suppression"
    assert kinds["P0_P2"] == "neomorphism" and kinds["P4_P5"] == "epistasis" and kinds["P1_P5"] == "undefined"
    assert table.loc["P0_P1", "synergy"] == pytest.approx(3)
    s = model.singles
    assert table.loc["P4_P5", "epistasis"] == pytest.approx(metrics.epistasis(s["P4"], s["P5"], s["P4"]))
    assert table.loc["P2_P3", "magnitude"] == pytest.approx(0.2 * np.linalg.norm(s["P2"] + s["P3"]))


def test_chosen_pairs_once_and_in_chunks():
    model = FakeModel(n_genes=8)
    table = tl.interactions(model, [("P3", "P1"), ("P1", "P3"), ("P0", "P2")])
    assert list(table.index) == ["P1_P3", "P0_P2"] and list(table["gene_a"]) == ["P1", "P0"]
    model.asked.clear()
    chunked = tl.interactions(model, chunk_size=10)
    assert model.asked == [8, 10, 10, 8]
    pd.testing.assert_frame_equal(chunked, tl.interactions(model))


@pytest.mark.parametrize(
    ("pairs", "error", "match"),
    [
        ([("P0", "X")], KeyError, "'X' is not a perturbed gene"),
        ([("P0", "P0")], ValueError, "twice"),
        (["P0"], TypeError, "not a pair"),
        ([("P0", "P1", "P2")], TypeError, "not a pair"),
        ([], ValueError, "no pair"),
    ],
)
def test_bad_pairs(pairs, error, match):
    model = FakeModel()
    with pytest.raises(error, match=match):
        tl.interactions(model, pairs)
    assert model.asked == []


def test_bad_chunk_size():
    with pytest.raises(ValueError, match="chunk_size=0"):
        tl.interactions(FakeModel(), chunk_size=0)
