"""Scores of unseen pairs, against the same scores computed one by one."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import raptorgraph as rg
from raptorgraph import metrics
from raptorgraph.evaluation._held_out_scores import HALF, MODEL, PERFECT
from raptorgraph.screen import Screen
from raptorgraph.tl._evaluate import CONTROL

SETUP = {"library_size_key": "total_counts"}
UNSEEN = ["P01+P03", "P01+P04", "P01+P05", "P02+P03", "P02+P04", "P02+P05", "P03+P05", "P04+P05"]


@pytest.fixture(scope="module")
def cells():
    """The screen of which `pairs_model` saw a part, with all pairs; its genes in another order."""
    adata = rg.datasets.simulate(
        80, 6, n_doubles="all", n_control_cells=200, n_cells_per_perturbation=60, n_truth_cells=20, seed=2
    )
    return adata[:, ::-1].copy()


@pytest.fixture(scope="module")
def table(pairs_model, cells):
    return rg.tl.evaluate(pairs_model, cells, seed=3)


@pytest.fixture(scope="module")
def measured(cells):
    return rg.pp.measured_effects(cells, **SETUP).loc[UNSEEN]


def test_pairs_are_scored_that_the_model_did_not_see_and_whose_genes_were_alone(table):
    assert sorted(table.attrs["conditions"]) == UNSEEN
    left_out = table.attrs["left_out"]
    assert left_out["P01+P02"] == left_out["P03"] == "the model was trained on it"
    # P05+P06 was seen, all other pairs of P06 have a gene that was never alone
    assert left_out["P01+P06"] == "P06 was not perturbed alone in the model's data"
    assert len(left_out) + len(UNSEEN) == 6 + 15


def test_scores_of_effects_are_those_of_the_metrics(table, pairs_model, measured):
    predicted = {
        MODEL: pairs_model.predict_effects(UNSEEN),
        "additive": rg.baselines.Additive(**SETUP).fit(pairs_model.adata).predict_effects(UNSEEN),
        "no change": 0 * measured,
    }
    for name, effects in predicted.items():
        values = effects[measured.columns].to_numpy(dtype=float), measured.to_numpy()
        assert table.at[name, "relative_mse"] == pytest.approx(metrics.relative_mse(*values), rel=1e-6)
        if name != "no change":
            assert table.at[name, "pearson"] == pytest.approx(metrics.pearson_delta(*values), rel=1e-6)
            assert table.at[name, "discrimination"] == metrics.centroid_accuracy(*values, "cosine")
    assert np.isnan(table.at["no change", "pearson"])


def test_references_of_effects(table, cells, pairs_model):
    columns = Screen(cells, SETUP).var_names.get_indexer(pairs_model.var_names_)
    screen = Screen(cells[:, columns].copy(), SETUP)
    first, second = (screen.effects_of(rows).loc[UNSEEN].to_numpy() for rows in screen.halves(3))
    assert table.at[HALF, "relative_mse"] == pytest.approx(metrics.relative_mse(first, second))
    assert table.at[HALF, "pearson"] == pytest.approx(metrics.pearson_delta(first, second))
    rows = [screen.labels.index(label) for label in UNSEEN]
    noise = screen.moments.variance[rows].sum() / (screen.effects.loc[UNSEEN].to_numpy() ** 2).sum()
    assert table.at[PERFECT, "relative_mse"] == pytest.approx(noise)


def test_cells_lie_between_floor_and_ceiling(table):
    distance = table["energy_distance"]
    assert distance[HALF] < distance[MODEL] < distance[CONTROL]
    # control cells of the model's own against those of the screen: the same cells
    assert distance["no change"] == pytest.approx(distance[CONTROL], rel=0.1)
    assert np.isnan(distance[PERFECT])
    assert table.at[MODEL, "variance_ratio"] == pytest.approx(1, abs=0.2)
    assert table.loc[[CONTROL], ["relative_mse", "pearson"]].isna().all(axis=None)


def test_the_verdict_is_against_the_best_baseline(table):
    of_baselines = table["relative_mse"].drop([MODEL, HALF, PERFECT, CONTROL])
    assert table.attrs["best"] == of_baselines.idxmin()
    assert table.attrs["difference"] == pytest.approx(table.at[MODEL, "relative_mse"] - of_baselines.min())
    errors = stats.t.ppf(0.975, len(table.attrs["conditions"]) - 1)
    beaten = abs(table.attrs["difference"]) > errors * table.attrs["difference_se"]
    assert (table.attrs["verdict"] == "level") != beaten
    assert 0.7 < table.attrs["coverage"] < 1


def test_baselines_that_need_pairs_are_there_where_pairs_were_seen(table, cells):
    assert "main-effects ridge" in table.index
    singles = Screen(cells, SETUP)
    train = singles.cells(singles.singles)
    rg.RaptorGraphModel.setup_anndata(train, **SETUP)
    model = rg.RaptorGraphModel(train, n_hidden=8, effect_posterior=False)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    found = rg.tl.evaluate(model, cells, cells=False)
    assert "main-effects ridge" not in found.index
    assert "energy_distance" not in found
    assert found.attrs["coverage"] is None  # there is no posterior
    assert len(found.attrs["conditions"]) == 15


def test_few_cells_are_not_compared(pairs_model, cells):
    keep = Screen(cells, SETUP)
    rows = np.concatenate([keep.rows("control"), *(keep.rows(label)[:6] for label in UNSEEN)])
    found = rg.tl.evaluate(pairs_model, cells[rows].copy(), baselines=["additive"])
    assert found["energy_distance"].isna().all()
    assert list(found.index) == [MODEL, "additive", HALF, PERFECT, CONTROL]


def test_baselines_come_in_their_order_and_the_failed_are_named(pairs_model, cells, monkeypatch):
    found = rg.tl.evaluate(pairs_model, cells, baselines=["additive", "no change"], cells=False)
    assert list(found.index)[:3] == [MODEL, "no change", "additive"]

    def fail(self, adata):
        raise ValueError("these data do not suit")

    monkeypatch.setattr(rg.baselines.Additive, "fit", fail)
    found = rg.tl.evaluate(pairs_model, cells, baselines=["additive", "no change"], cells=False)
    assert found.attrs["failed"] == {"additive": "these data do not suit"}
    with pytest.raises(ValueError, match="No baseline could be fitted.*these data do not suit"):
        rg.tl.evaluate(pairs_model, cells, baselines=["additive"], cells=False)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda a: a[:, 3:].copy(), {}, KeyError, "3 of the model's 80 genes are not in held_out"),
        (lambda a: a[a.obs["perturbation"] != "control"].copy(), {}, ValueError, "control"),
        (lambda a: a[a.obs["perturbation"].isin(["control", "P01"])].copy(), {}, ValueError, "None of the 1 cond"),
        (lambda a: a[a.obs["perturbation"] == "control"].copy(), {}, ValueError, "all cells are control cells"),
        (lambda a: a, {"baselines": ["addition"]}, ValueError, "name one or more of no change"),
        (lambda a: a, {"baselines": []}, ValueError, "name one or more of no change"),
        (lambda a: a, {"n_cells": 0}, ValueError, "n_cells=0"),
    ],
    ids=["genes", "no control", "seen", "only control", "unknown baseline", "no baseline", "no cells"],
)
def test_wrong_input(change, options, error, message, pairs_model, cells):
    with pytest.raises(error, match=message):
        rg.tl.evaluate(pairs_model, change(cells), **options)


def test_names_that_are_there_twice(pairs_model, cells):
    twice = cells.copy()
    twice.var_names = [*twice.var_names[:-1], twice.var_names[0]]
    with pytest.raises(ValueError, match="not unique"):
        rg.tl.evaluate(pairs_model, twice)


def test_the_table_can_be_written(table, tmp_path):
    table.to_csv(tmp_path / "table.csv")
    again = pd.read_csv(tmp_path / "table.csv", index_col="method")
    pd.testing.assert_frame_equal(again, table, check_names=False)
