import zlib
from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi

import raptorgraph as rg
from raptorgraph import metrics, tl
from raptorgraph.tl import _interactions
from raptorgraph.tl._pair_scores import SCORES, score_draws

pytestmark = pytest.mark.usefixtures("few_steps")


class FakeModel:
    """Additive predictions, but for the given pairs; without a posterior."""

    has_posterior = False
    adata = None

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
    assert (table["interaction"] == "undetermined").all()
    assert table.attrs["intervals"].startswith("none")
    assert not any("low" in column or "probability" in column for column in table)
    np.testing.assert_allclose(table[["synergy", "suppression"]], 1)
    np.testing.assert_allclose(table["neomorphism"], 0, atol=1e-12)
    assert list(table.index) == [f"{a}_{b}" for a, b in combinations(sorted(FakeModel().perturbed_genes), 2)]
    assert list(table.index[table["measured"]]) == ["P0_P1"]


def test_scores_of_planted_interactions():
    model = FakeModel(
        special={
            "P0_P1": lambda s: 3 * (s["P0"] + s["P1"]),
            "P2_P3": lambda s: 0.2 * (s["P2"] + s["P3"]),
            "P4_P5": lambda s: 0.8 * s["P4"],
            "P1_P5": lambda s: 0 * s["P1"],
        }
    )
    table = tl.interactions(model)
    assert table.loc["P0_P1", "synergy"] == pytest.approx(3)
    s = model.singles
    assert table.loc["P4_P5", "epistasis"] == pytest.approx(metrics.epistasis(s["P4"], s["P5"], s["P4"]))
    assert table.loc["P2_P3", "magnitude"] == pytest.approx(0.2 * np.linalg.norm(s["P2"] + s["P3"]))
    assert np.isnan(table.loc["P1_P5", "suppression"])
    # without intervals nothing is known
    assert (table["interaction"] == "undetermined").all()


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


class DrawnModel(FakeModel):
    """Draws about the predictions: of a set the same in each call, as a model gives them."""

    has_posterior = True
    adata = "cells"
    screen = "screen"

    def __init__(self, spread=None, *, single_spread=0.1, **kwargs):
        super().__init__(**kwargs)
        self.spread, self.single_spread = spread or {}, single_spread
        self.var_names_ = [f"g{k}" for k in range(30)]
        self.calls = []

    def sample_effects(self, labels, n_draws, seed):
        self.calls.append(list(labels))
        return np.stack([self.draws_of(label, n_draws, seed) for label in labels], axis=1)

    def draws_of(self, label, n_draws, seed):
        rng = np.random.default_rng([zlib.crc32(label.encode()), seed])
        noise = rng.normal(size=(n_draws, 30))
        if "_" not in label:
            return self.singles[label] + self.single_spread * noise
        drawn = {gene: self.draws_of(gene, n_draws, seed) for gene in label.split("_")}
        mean = self.special[label](drawn) if label in self.special else sum(drawn.values())
        return mean + self.spread.get(label, 0.0) * noise


@pytest.fixture
def all_strong(monkeypatch):
    monkeypatch.setattr(_interactions, "singles_that_stand_out", lambda screen: {f"P{k}" for k in range(9)})


NEW = 6 * np.random.default_rng(1).normal(size=30)
PLANTED = {
    "P0_P1": lambda s: 1.5 * (s["P0"] + s["P1"]),
    "P2_P3": lambda s: 0.5 * (s["P2"] + s["P3"]),
    "P0_P2": lambda s: s["P0"] + s["P2"] + NEW,
    "P1_P3": lambda s: s["P1"],
    "P4_P5": lambda s: 1.05 * (s["P4"] + s["P5"]),
}


@pytest.mark.usefixtures("all_strong")
def test_planted_interactions_are_named_and_others_are_not():
    model = DrawnModel(special=PLANTED, n_genes=7)
    model.conditions += ["P0_P3", "P0_P4"]  # three pairs say how effects add up
    model.singles["P6"] = 1.01 * model.singles["P5"]
    model.special["P5_P6"] = lambda s: s["P5"]
    table = tl.interactions(model, seed=0)
    named = table["interaction"].astype(str)
    expected = {
        "P0_P1": "synergy",
        "P2_P3": "suppression",
        "P0_P2": "neomorphism",
        "P1_P3": "epistasis",
        "P5_P6": "redundancy",
    }
    assert named[named != "undetermined"].to_dict() == expected
    for pair, name in expected.items():
        assert table.loc[pair, f"{name}_probability"] == 1
    # additive whatever the others are: a name does not depend on them
    for pair in ("P0_P2", "P4_P5"):
        pd.testing.assert_frame_equal(tl.interactions(model, [pair], seed=0), table.loc[[pair]])


@pytest.mark.usefixtures("all_strong")
def test_points_intervals_and_probabilities_are_those_of_the_same_draws():
    model = DrawnModel({"P0_P1": 0.5, "P0_P2": 0.05, "P2_P4": 2.0})
    table = tl.interactions(model, n_draws=60, seed=3)
    names = [*SCORES, "magnitude"]
    for pair in ("P0_P1", "P2_P4"):
        three = np.moveaxis(model.sample_effects([*pair.split("_"), pair], 60, 3), 1, 0)
        drawn = score_draws(*three)
        for name in names:
            values = drawn.scores[name]
            row = table.loc[pair]
            assert row[name] == pytest.approx(np.median(values), abs=1e-5)
            assert row[f"{name}_high"] == pytest.approx(np.quantile(values, 0.95), abs=1e-5)
            low = drawn.known_turn if name == "neomorphism" else values
            assert row[f"{name}_low"] == pytest.approx(np.quantile(low, 0.05), abs=1e-5)
            if name != "magnitude":
                assert row[f"{name}_probability"] == drawn.types[name].mean()
    for name in names:
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    width = table["synergy_high"] - table["synergy_low"]
    assert width["P2_P4"] > width["P0_P1"] > width["P0_P2"] > width["P1_P3"]


@pytest.mark.usefixtures("all_strong")
def test_singles_are_drawn_once_and_pairs_in_blocks():
    model = DrawnModel({"P0_P1": 0.5})
    whole = tl.interactions(model, seed=0)
    model.calls.clear()
    blocks = tl.interactions(model, seed=0, chunk_size=4)
    pd.testing.assert_frame_equal(blocks, whole)
    asked = [label for call in model.calls for label in call]
    assert sorted(asked) == sorted({*model.perturbed_genes, *whole.index})
    assert [len(call) for call in model.calls] == [4, 2, 4, 4, 4, 3]


def test_what_an_interaction_needs_to_be_determined(monkeypatch):
    monkeypatch.setattr(_interactions, "singles_that_stand_out", lambda screen: {"P0", "P1", "P2"})
    special = {pair: lambda s: 2 * sum(s.values()) for pair in ("P0_P1", "P0_P2", "P1_P2", "P2_P3")}
    model = DrawnModel(special=special)
    model.conditions = ["P0", "P1", "P3", "P0_P1", "P1_P2"]  # P2 was never perturbed alone
    table = tl.interactions(model, seed=0)
    assert set(table.index[table["interaction"] != "undetermined"]) == {"P0_P1"}
    assert table.loc["P0_P2"][["both_stand_out", "singles_measured"]].tolist() == [True, False]
    assert table.loc["P0_P3"][["both_stand_out", "singles_measured"]].tolist() == [False, True]
    assert table.index[table["measured"]].tolist() == ["P0_P1", "P1_P2"]
    assert (table["pairs_seen"] == 2).all()
    assert table.attrs["scale"].startswith("learned; pairs whose genes were measured alone: 1, too few to name")
    assert table.attrs["pairs_learned"] == 1
    # no measured pair of two genes that were measured alone: all scores are a prior
    for conditions, seen in ((["P0", "P1"], 0), (["P0", "P1", "P1_P2"], 1)):
        model.conditions = conditions
        table = tl.interactions(model, seed=0)
        assert (table["synergy_low"] > 1.1).sum() == 4
        assert (table["interaction"] == "undetermined").all()
        assert (table["pairs_seen"] == seen).all()
        assert table.attrs["scale"].startswith("a prior")
        assert table.attrs["pairs_learned"] == 0


@pytest.mark.usefixtures("all_strong")
@pytest.mark.parametrize("n_pairs", [2, 3])
def test_one_or_two_pairs_do_not_say_what_others_may_do(n_pairs):
    model = DrawnModel(special={pair: lambda s: 2 * sum(s.values()) for pair in ("P0_P1", "P2_P3")})
    model.conditions = ["P0", "P1", "P2", "P3", *["P0_P1", "P0_P2", "P1_P2"][:n_pairs]]
    table = tl.interactions(model, seed=0)
    named = {"P0_P1"} if n_pairs == 2 else {"P0_P1", "P2_P3"}
    assert set(table.index[table["interaction"] != "undetermined"]) == named
    assert ("too few to name" in table.attrs["scale"]) == (n_pairs == 2)


@pytest.mark.usefixtures("all_strong")
def test_a_model_without_data_knows_no_effect_that_stands_out(caplog):
    model = DrawnModel(special=PLANTED)
    model.adata = None
    with caplog.at_level("INFO", "raptorgraph"):
        table = tl.interactions(model, seed=0)
    assert not table["both_stand_out"].any()
    assert (table["interaction"] == "undetermined").all()
    assert "load(folder, adata)" in caplog.text


@pytest.mark.parametrize(
    ("n_draws", "error", "match"),
    [
        (-1, ValueError, "n_draws=-1"),
        (19, ValueError, "n_draws=19.*20 draws or more"),
        (2.5, TypeError, "n_draws=2.5"),
    ],
)
def test_bad_numbers_of_draws(n_draws, error, match):
    model = DrawnModel()
    with pytest.raises(error, match=match):
        tl.interactions(model, n_draws=n_draws)
    assert model.calls == []


def test_draws_need_a_posterior():
    with pytest.raises(ValueError, match="n_draws=50: the model has no posterior"):
        tl.interactions(FakeModel(), n_draws=50)


def test_tables_survive_files(tmp_path, all_strong):
    table = tl.interactions(DrawnModel(special=PLANTED), seed=0)
    cells = ad.AnnData(np.zeros((2, 2)), uns={"interactions": table})
    cells.write_h5ad(tmp_path / "cells.h5ad")
    found = ad.read_h5ad(tmp_path / "cells.h5ad").uns["interactions"]
    pd.testing.assert_frame_equal(found, table, check_column_type=False, check_index_type=False)
    assert found["interaction"].cat.categories.tolist() == ["undetermined", *SCORES]
    table.to_csv(tmp_path / "table.csv")
    again = pd.read_csv(tmp_path / "table.csv", index_col=0)
    assert again["interaction"].tolist() == table["interaction"].tolist()
    assert again["both_stand_out"].dtype == bool


@pytest.mark.parametrize("kind", ["labels shuffled", "no pairs"])
def test_nothing_is_named_where_there_is_nothing_to_know(kind):
    adata = rg.datasets.simulate(
        80, 8, n_doubles=0 if kind == "no pairs" else 12, n_control_cells=400, n_cells_per_perturbation=40, seed=0
    )
    if kind == "labels shuffled":
        labels = adata.obs["perturbation"].astype(str).to_numpy()
        adata.obs["perturbation"] = np.random.default_rng(0).permutation(labels)
    scvi.settings.seed = 0
    rg.RaptorGraphModel.setup_anndata(adata, library_size_key="total_counts")
    model = rg.RaptorGraphModel(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    table = tl.interactions(model, n_draws=40, seed=0)
    assert (table["interaction"] == "undetermined").all()
    assert table["both_stand_out"].mean() > 0.9 if kind == "no pairs" else not table["both_stand_out"].any()
    assert (table["pairs_seen"] == (0 if kind == "no pairs" else 12)).all()
