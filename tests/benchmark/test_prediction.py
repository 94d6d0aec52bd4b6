import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import datasets, evaluation, metrics, pp
from raptorgraph.baselines import ladder
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._settings import Settings
from raptorgraph.evaluation import _scores, make_method

METHODS = ["no change", "additive", "main-effects ridge", "raptorgraph"]


@pytest.fixture(scope="module")
def result(quick):
    return quick("prediction", methods=METHODS)


def values(tables, **where):
    table = tables["prediction_long"]
    for column, value in where.items():
        table = table[table[column] == value]
    return table.set_index(["method", "metric"])["value_mean"]


def test_tables_and_figure(result):
    tables, out = result
    table = tables["prediction"]
    singles = table[table["regime"] == "singles"]["method"].tolist()
    doubles = table[table["regime"] == "doubles"]["method"].tolist()
    references = [_scores.HALF, "floor: real against real cells", "ceiling: control against real cells"]
    assert singles == ["no change", "additive", "raptorgraph", *references]
    assert doubles == ["no change", "additive", "main-effects ridge", "raptorgraph", *references]
    for suffix in ("csv", "md", "png", "json"):
        assert (out / f"prediction.{suffix}").stat().st_size > 0
    assert (out / "prediction_training.png").stat().st_size > 0


def test_loss_curves_are_kept(result):
    curves = result[0]["prediction_training"]
    assert set(curves["method"]) == {"raptorgraph"}
    assert {"reconstruction", "kl", "shift"} <= set(curves["term"])
    assert curves["epoch"].max() == 1
    assert (curves["n"] == 2).all()


def test_no_change_and_additive_score_as_computed_by_hand(result):
    tables, _ = result
    scores = values(tables, regime="singles", reference="own control")
    assert scores["no change", "relative_mse"] == 1
    assert scores["no change", "centroid_accuracy_cosine"] == pytest.approx(0.5)
    by_hand = []
    for seed in (0, 1):
        settings = Settings(screen="simulated", quick=True)
        adata = load_screen(settings, seed).adata
        effects = pp.measured_effects(adata, library_size_key="total_counts")
        doubles = [label for label in effects.index if "+" in label]
        test = evaluation.singles_only(effects.index, seed=0).test
        assert set(test) < set(doubles)
        sums = np.array([effects.loc[label.split("+")].sum() for label in test])
        by_hand.append(metrics.relative_mse(sums, effects.loc[list(test)]))
    assert scores["additive", "relative_mse"] == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_baselines_have_no_drift_and_lie_between_floor_and_ceiling(result):
    tables, _ = result
    own, data = (values(tables, regime="singles", reference=name) for name in ("own control", "data's control"))
    assert own["additive", "relative_mse"] == pytest.approx(data["additive", "relative_mse"])
    assert own["raptorgraph", "relative_mse"] != pytest.approx(data["raptorgraph", "relative_mse"], rel=1e-3)
    cells = values(tables, regime="singles", reference="")
    floor, ceiling = cells[_scores.FLOOR, "mk_mmd_200"], cells[_scores.CEILING, "mk_mmd_200"]
    assert floor < cells["additive", "mk_mmd_200"] < ceiling
    assert cells["no change", "overlap_at_50"] == 0
    assert cells["additive", "variance_ratio"] == pytest.approx(1, abs=0.3)


def test_every_double_is_predicted_once_over_the_folds(result):
    _, out = result
    parts = [ad.read_h5ad(path) for path in sorted((out / "parts" / "fits").glob("doubles*-baselines-seed0.h5ad"))]
    assert len(parts) == 2
    tested = [set(part.obs["condition"]) for part in parts]
    screen = load_screen(Settings(screen="simulated", quick=True), 0)
    assert not tested[0] & tested[1]
    assert tested[0] | tested[1] == set(screen.combinations)


def test_predictions_of_other_tools_are_scored_as_the_methods_are(quick, tmp_path):
    screen = load_screen(Settings(screen="simulated", quick=True), 0)
    additive = ladder()["additive"](**screen.setup).fit(screen.cells(screen.singles))
    effects = additive.predict_effects(screen.combinations)
    effects.to_csv(tmp_path / "effects.csv")
    cells = additive.predict([*screen.combinations, "control"], n_cells=200)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    files = {"table": str(tmp_path / "effects.csv"), "cells": str(tmp_path / "cells.h5ad")}
    tables, _ = quick("prediction", seeds=1, regimes=["singles"], methods=["additive"], predictions=files)
    scores = values(tables, regime="singles", reference="own control")
    assert scores["table", "relative_mse"] == pytest.approx(scores["additive", "relative_mse"], rel=1e-4)
    assert scores["cells", "relative_mse"] == pytest.approx(scores["additive", "relative_mse"], rel=1e-3)
    cell_scores = values(tables, regime="singles", reference="")
    assert cell_scores["cells", "mk_mmd_200"] == pytest.approx(cell_scores["additive", "mk_mmd_200"], abs=0.05)
    assert ("table", "mk_mmd_200") not in cell_scores.index


def test_seen_regime_says_what_a_closed_world_cannot_predict(quick):
    tables, _ = quick("prediction", seeds=1, regimes=["seen"], methods=["additive"])
    counts = values(tables, regime="seen", reference="")
    assert counts["additive", "not predictable"] > 0
    assert set(tables["prediction_long"]["group"]) >= {"all"}


def test_the_published_split_has_the_error_of_table_1(quick):
    """Section D.1: control cells as reconstructed from one half against those of the other half."""
    tables, _ = quick("prediction", seeds=1, regimes=["paper"], methods=["additive", "dVAE"])
    table = tables["prediction"].set_index("method")
    assert table.loc["additive", "control MSE, other cells"] == "-"  # it reconstructs no cells
    screen = load_screen(Settings(screen="simulated", quick=True), 0)
    scores = values(tables, regime="paper", reference="")
    assert set(tables["prediction_conditions"]["condition"]) == set(screen.combinations)
    method = make_method("dVAE", screen.setup, seed=0, max_epochs=2).fit(screen.cells(screen.singles))
    control = screen.adata[screen.codes == 0].copy()
    error = metrics.control_mse(method.reconstruct(control), screen.expression_of("control").astype(float), seed=0)
    assert scores["dVAE", "control MSE, other cells"] == pytest.approx(error)
    assert float(table.loc["dVAE", "control MSE, other cells"]) == pytest.approx(error, abs=1e-3)
    with pytest.raises(ValueError, match="'paper' has no validation part"):
        quick("prediction", regimes=["paper"], methods=["additive"], on="validation")


def test_validation_conditions_are_not_test_conditions(quick):
    test, _ = quick("prediction", seeds=1, regimes=["singles"], methods=["additive"])
    validation, _ = quick("prediction", seeds=1, regimes=["singles"], methods=["additive"], on="validation")
    found = [set(tables["prediction_conditions"]["condition"]) for tables in (test, validation)]
    assert found[0]
    assert found[1]
    assert not found[0] & found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["guess"]}, "'guess' is unknown"),
        ({"methods": ["SENA"]}, "needs gene sets"),
        ({"regimes": ["triples"]}, "'triples' is unknown"),
        ({"on": "train"}, "on='train'"),
        ({"screen": "no-such-file.h5ad"}, "no file 'no-such-file.h5ad'"),
        ({"predictions": {"x": "no-such.csv"}}, "no file of predictions"),
    ],
)
def test_bad_requests(quick, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        quick("prediction", **options)


def test_predictions_with_missing_genes_are_refused(tmp_path, quick):
    pd.DataFrame({"G0001": [0.0]}, index=["P01+P02"]).to_csv(tmp_path / "few.csv")
    with pytest.raises(ValueError, match="lacks 59 of the screen's 60 genes"):
        quick("prediction", predictions={"x": str(tmp_path / "few.csv")})


def test_screen_without_combinations_is_refused(tmp_path, quick):
    adata = datasets.simulate(40, 4, n_doubles=0, n_control_cells=60, n_cells_per_perturbation=20, n_truth_cells=10)
    adata.write_h5ad(tmp_path / "singles.h5ad")
    with pytest.raises(ValueError, match="No combination"):
        quick("prediction", screen=str(tmp_path / "singles.h5ad"), library_size_key="total_counts")


def test_real_screen(quick, shared_data):
    """18 singles and 5 doubles whose genes were perturbed alone."""
    tables, _ = quick(
        "prediction",
        seeds=1,
        screen=str(shared_data / "norman2019_devel.h5ad"),
        regimes=["singles"],
        methods=["no change", "additive"],
    )
    table = tables["prediction"]
    assert set(table["regime"]) == {"singles"}
    scores = values(tables, regime="singles", reference="own control")
    assert 0 < scores["additive", "pearson_delta"] < 1
