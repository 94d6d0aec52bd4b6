import json

import anndata as ad
import numpy as np
import pytest

from raptorgraph import metrics, pp
from raptorgraph.benchmark import Settings, _interactions, load_screen

METHODS = ["no change", "additive", "raptorgraph"]


@pytest.fixture(scope="module")
def result(quick):
    return quick("interactions", methods=METHODS, n_genes=40)


def test_tables_and_figure(result):
    tables, out = result
    table = tables["interactions"]
    assert table["method"].tolist()[:5] == [
        "no change",
        "additive",
        "raptorgraph",
        "chance",
        _interactions.HALF,
    ]
    assert set(_interactions.TYPES) <= set(table.columns)
    assert "mean of all" in table
    long = tables["interactions_long"]
    assert long["value_mean"].between(0, 1).all()
    assert (out / "interactions.png").stat().st_size > 0


def test_additive_predictions_score_chance_where_their_scores_are_constant(result):
    tables, _ = result
    values = tables["interactions_long"].query("definition == 'paper'").set_index(["method", "type"])["value_mean"]
    for kind in ("synergy", "suppression", "neomorphism"):
        assert values["additive", kind] == pytest.approx(values["chance", kind])


def test_scores_of_measured_pairs_are_those_of_the_metrics(result):
    tables, _ = result
    screen = load_screen(Settings(screen="simulated", quick=True), 1)
    row = tables["interactions_scores"].query("method == 'measured' and seed == 1").iloc[0]
    a, b = (screen.effects.loc[gene] for gene in row["pair"].split("+"))
    ab = screen.effects.loc[row["pair"]]
    for name in _interactions.TYPES:
        assert row[f"paper {name}"] == pytest.approx(float(getattr(metrics, name)(a, b, ab)), rel=1e-6)


def test_published_labels_are_a_third_definition(quick, tmp_path):
    pairs = ["P02+P03", "P03+P02", "P01+P02"]
    labels = dict.fromkeys([key for keys in _interactions._PUBLISHED.values() for key in keys], pairs)
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(labels))
    tables, _ = quick("interactions", methods=["additive"], n_genes=40, gi_labels=str(path))
    assert "published" in set(tables["interactions_long"]["definition"])
    del labels["SUPPRESSOR"]
    path.write_text(json.dumps(labels))
    with pytest.raises(ValueError, match="lacks the type 'SUPPRESSOR'"):
        quick("interactions", methods=["additive"], gi_labels=str(path))


def test_published_labels_of_norman(shared_data):
    class Screen:
        label = staticmethod(pp.format_perturbation)
        adata = ad.AnnData(uns={"target_aliases": {"C19orf26": "CBARP"}})

    settings = Settings(options={"gi_labels": str(shared_data / "norman2019_gi_labels.json")})
    labels = _interactions._labels(settings, Screen())
    assert sorted(labels) == sorted(_interactions.TYPES)
    # the second is published as TGFBR2+C19orf26
    assert {"CBL+TGFBR2", "CBARP+TGFBR2"} < labels["neomorphism"]
    assert np.all([len(pairs) for pairs in labels.values()])


def test_the_published_split_asks_for_all_pairs(quick):
    tables, out = quick("interactions", methods=METHODS[:2], n_genes=40, regimes=["singles", "paper"])
    table, scores = tables["interactions"], tables["interactions_scores"]
    assert table["regime"].unique().tolist() == ["singles", "paper"]
    for seed in (0, 1):
        screen = load_screen(Settings(screen="simulated", quick=True), seed)
        here = scores[(scores["seed"] == seed) & (scores["method"] == "additive")]
        asked = {regime: set(part["pair"]) for regime, part in here.groupby("regime")}
        assert asked["paper"] == set(screen.combinations)
        assert asked["singles"] < asked["paper"]
    # chance of the paper's definition is a quarter, counted in whole pairs: two of eight
    chance = tables["interactions_long"].query("regime == 'paper' and definition == 'paper' and method == 'chance'")
    assert chance["value_mean"].tolist() == pytest.approx([0.25] * 6)
    assert (out / "interactions.png").stat().st_size > 0
