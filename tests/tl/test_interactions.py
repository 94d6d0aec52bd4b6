from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raptorgraph import metrics, tl
from raptorgraph.tl._interactions import widened


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

    def predict_effects(self, labels, return_sd=False):
        self.asked.append(len(labels))
        rows = [
            self.special[label](self.singles)
            if label in self.special
            else sum(self.singles[g] for g in label.split("_"))
            for label in labels
        ]
        mean = pd.DataFrame(rows, index=labels)
        return (mean, 0 * mean) if return_sd else mean


def test_additive_model():
    table = tl.interactions(FakeModel())
    assert len(table) == 15
    assert (table["interaction"] == "additive").all()
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
    assert kinds["P0_P1"] == "synergy"
    assert kinds["P2_P3"] == "suppression"
    assert kinds["P0_P2"] == "neomorphism"
    assert kinds["P4_P5"] == "epistasis"
    assert kinds["P1_P5"] == "undefined"
    assert table.loc["P0_P1", "synergy"] == pytest.approx(3)
    s = model.singles
    assert table.loc["P4_P5", "epistasis"] == pytest.approx(metrics.epistasis(s["P4"], s["P5"], s["P4"]))
    assert table.loc["P2_P3", "magnitude"] == pytest.approx(0.2 * np.linalg.norm(s["P2"] + s["P3"]))


def test_chosen_pairs_once_and_in_chunks():
    model = FakeModel(n_genes=8)
    table = tl.interactions(model, [("P3", "P1"), ("P1", "P3"), ("P0", "P2")])
    assert list(table.index) == ["P1_P3", "P0_P2"]
    assert list(table["gene_a"]) == ["P1", "P0"]
    pd.testing.assert_frame_equal(tl.interactions(model, ["P3_P1", "P0_P2"]), table)
    assert list(tl.interactions(model, "P3_P1").index) == ["P1_P3"]
    model.asked.clear()
    chunked = tl.interactions(model, chunk_size=10)
    assert model.asked == [8, 10, 10, 8]
    pd.testing.assert_frame_equal(chunked, tl.interactions(model))


@pytest.mark.parametrize(
    ("pairs", "error", "match"),
    [
        ([("P0", "X")], KeyError, "'X' is not a perturbed gene"),
        ([("P0", "P0")], ValueError, "twice"),
        (["P0"], TypeError, r"'P0' is not a pair.*'A_B'\.$"),
        ([5], TypeError, "5 is not a pair"),
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


class UncertainModel(FakeModel):
    """Draws about the predictions, with a spread of its own for each pair."""

    def __init__(self, spread, **kwargs):
        super().__init__(**kwargs)
        self.spread = spread

    def sample_effects(self, labels, n_draws, seed):
        rng = np.random.default_rng(seed)
        mean = self.predict_effects(labels).to_numpy()
        return mean + self.spread.get(labels[-1], 0.0) * rng.normal(size=(n_draws, *mean.shape))


def test_intervals_are_as_wide_as_what_is_not_known():
    model = UncertainModel({"P0_P1": 0.3, "P0_P2": 0.03})
    table = tl.interactions(model, n_draws=200, seed=1)
    certain = table.drop(["P0_P1", "P0_P2"])
    for name in ("synergy", "redundancy", "magnitude"):
        np.testing.assert_allclose(certain[f"{name}_low"], certain[name], atol=1e-6)
        np.testing.assert_allclose(certain[f"{name}_high"], certain[name], atol=1e-6)
        width = table[f"{name}_high"] - table[f"{name}_low"]
        assert width["P0_P1"] > 3 * width["P0_P2"] > 0
    assert (table["neomorphism_low"] == 0).all()
    assert table.loc["P0_P1", "neomorphism_high"] > 10 * table.loc["P0_P2", "neomorphism_high"] > 0
    pd.testing.assert_frame_equal(table, tl.interactions(model, n_draws=200, seed=1))


def test_the_departure_of_a_pair_has_a_size_of_its_own():
    rng = np.random.default_rng(0)
    n_draws, n_genes = 4000, 50
    expected = rng.normal(size=(3, n_genes))
    draws = expected + 0.1 * rng.normal(size=(n_draws, 3, n_genes))
    wide = widened(draws, expected, np.full((3, n_genes), 0.2), seed=0)
    # singles: what belongs to the condition on top
    np.testing.assert_allclose(wide[:, :2].std(axis=0), 0.2, rtol=0.1)
    np.testing.assert_allclose(wide.mean(axis=0), expected, atol=0.03)
    departure = wide[:, 2] - wide[:, 0] - wide[:, 1] - (expected[2] - expected[0] - expected[1])
    squared = (departure**2).mean(axis=1) / (3 * 0.2**2)  # over three independent effects
    assert squared.mean() == pytest.approx(2, rel=0.1)  # that of twice a chi-square of one degree
    quantiles = 2 * stats.chi2(1).ppf([0.1, 0.5, 0.9])
    np.testing.assert_allclose(np.quantile(squared, [0.1, 0.5, 0.9]), quantiles, rtol=0.15)


def test_probability_ranks_a_certain_interaction_before_an_uncertain_one():
    strong = {"P0_P1": lambda s: 1.6 * (s["P0"] + s["P1"]), "P2_P3": lambda s: 1.7 * (s["P2"] + s["P3"])}
    model = UncertainModel({"P2_P3": 3.0, "P4_P5": 0.5, "P0_P4": 0.5}, special=strong)
    table = tl.interactions(model, n_draws=300, seed=0)
    probability = table["synergy_probability"]
    assert table.loc["P2_P3", "synergy"] > table.loc["P0_P1", "synergy"]
    assert probability["P0_P1"] == 1 > probability["P2_P3"]
    threes = [[row.gene_a, row.gene_b, row.Index] for row in table.itertuples()]
    scores = np.array([metrics.synergy(*np.moveaxis(model.sample_effects(three, 300, 0), 1, 0)) for three in threes])
    np.testing.assert_allclose(probability, (scores > np.quantile(scores, 0.75)).mean(axis=1))
    with pytest.raises(ValueError, match="n_draws=-1"):
        tl.interactions(model, n_draws=-1)
