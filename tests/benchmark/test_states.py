import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark, tl
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _states as states
from raptorgraph.benchmark._settings import Unit

QUICK = {"quick": True, "n_jobs": 0, "progress": False}
WITHOUT_MODEL = [states.TRUE_AVERAGE, *states.BASELINES]


class Off:
    """A model whose effects are the truth times a factor, 1.5 and 0.5 for the decoder, and that calls what is even."""

    def __init__(self, *args):
        self.model = self

    def fit(self, adata):
        self.truth = pd.concat(adata.uns["simulation"]["state_effects"]).swaplevel()
        return self

    def predict_effects(self, perturbations, *, groupby, kind):
        assert groupby == "state"
        factor = 0.5 if kind == "decoder" else 1.5
        return factor * self.truth[self.truth.index.get_level_values(0).isin(perturbations)].iloc[:, ::-1]


def even_is_called(model, *, groupby):
    assert groupby == "state"
    labels = model.truth.index.get_level_values(0).unique()[::-1]
    even = np.array([int(label[-1]) % 2 == 0 for label in labels])
    return pd.DataFrame({"perturbation": labels, "p_value": np.where(even, 0.01, 0.04), "FDR": 0.5 - 0.46 * even})


@pytest.fixture
def off(monkeypatch):
    monkeypatch.setattr(states, "method_of", Off)
    monkeypatch.setattr(tl, "state_effects", even_is_called, raising=False)


def test_run_without_a_model(tmp_path):
    tables = benchmark.run("states", out=tmp_path, seeds=2, methods=WITHOUT_MODEL, **QUICK)
    table = tables["states"]
    assert table.columns.tolist() == ["screen", "perturbations", "method", "10 cells"]
    assert table["screen"].drop_duplicates().tolist() == list(states.SCREENS)
    assert set(table.loc[table["screen"] == "none", "perturbations"]) == {"do not"}
    long = tables["states_long"].set_index(["screen", "perturbations", "method"])["value_mean"]
    assert long["none", "do not", "true average"] == 0
    for screen in ("two states", "three states", "continuous state"):
        assert long[screen, "depend on the state", "true average"] > 5 * long[screen, "do not", "true average"]
        # ten cells say less of a state than twice or three times as many say of all
        assert long[screen, "do not", "differences of means by state"] > 1.5 * long[screen, "do not", "average effect"]
    assert set(tables) == {"states", "states_long"}
    assert (tmp_path / "states.png").stat().st_size > 10_000


def test_scores_of_a_model_that_is_off_by_known_amounts(off, tmp_path):
    tables = benchmark.run("states", out=tmp_path, seeds=2, screens=["two states", "none"], cells=[3, 5], **QUICK)
    long = tables["states_long"].query("metric == @states.ERROR").set_index(["method"])["value_mean"]
    np.testing.assert_allclose(long[[states.OURS, states.NETWORK]], 0.25)
    paired = tables["states_paired"].set_index("method")
    assert paired.columns.tolist() == ["screen", "perturbations", "3 cells", "5 cells"]
    network = paired.loc[states.NETWORK, ["3 cells", "5 cells"]].to_numpy().ravel()
    assert {text.removeprefix("-") for text in network} == {"0.000 +- 0.000"}
    assert set(paired.query("screen == 'none'").loc[states.TRUE_AVERAGE, ["3 cells", "5 cells"]]) == {"0.250 +- 0.000"}
    assert states.OURS not in paired.index


def test_power_and_false_alarms(off):
    unit, settings = Unit("a", 0, {"screen": "two states", "cells": 5}), Settings(quick=True)
    rows = states.work(unit, settings).rows.query("method == 'raptorgraph'")
    found = rows.set_index(["perturbations", "metric"])["value"]
    adata = states.screen_of(unit.options, settings, 0)
    varies = (adata.uns["simulation"]["state_activity"] != 1).any(axis=1)
    labels = adata.obs["perturbation"].cat.categories.drop("control")
    table = pd.DataFrame({
        "depends": [varies[label.split("+")].any() for label in labels],
        "even": [int(label[-1]) % 2 == 0 for label in labels],
    })  # fmt: skip
    share = table.groupby("depends")["even"].mean()
    assert found["depend on the state", states.CALLED] == pytest.approx(share[True])
    assert found["do not", states.CALLED] == pytest.approx(share[False])
    assert found["do not", states.SMALL_P] == 1
    table = states.tables([(unit, states.work(unit, settings))], settings)["states_test"]
    assert table.iloc[0].to_dict() == {
        "screen": "two states",
        "cells": "5 cells",
        "power": f"{share[True]:.3f}",
        "false alarms": f"{share[False]:.3f}",
        f"{states.SMALL_P} where nothing depends": "1.000",
    }


def test_continuous_states_are_judged_in_tertiles():
    options = {"screen": "continuous state", "cells": 4}
    adata = states.screen_of(options, Settings(quick=True), 1)
    assert list(adata.obs["state"].cat.categories) == ["T1", "T2", "T3"]
    assert not adata.obs["state"].isna().any()
    assert (adata.obs["perturbation"].value_counts().drop("control") == 12).all()


@pytest.mark.skipif(not hasattr(tl, "state_effects"), reason="the package cannot test for effects by state yet")
def test_run_of_our_model(tmp_path, with_few_steps):
    with with_few_steps():
        tables = benchmark.run("states", out=tmp_path, seeds=1, screens="two states", **QUICK)
    table = tables["states"].set_index(["perturbations", "method"])["10 cells"].astype(float)
    for kind in states.DEPENDS.values():
        assert table[kind].index.tolist() == list(states.METHODS)
        assert table[kind, states.OURS] < table[kind, "differences of means by state"]
    assert tables["states_test"].columns.tolist()[:4] == ["screen", "cells", "power", "false alarms"]


@pytest.mark.parametrize(
    ("screen", "options", "match"),
    [
        ("simulated", {}, "leave --screen out"),
        (None, {"cells": [10, 1]}, r"cells: \[1\] must be whole numbers of 2 or more"),
        (None, {"cells": []}, "whole numbers"),
        (None, {"screens": ["four states"]}, "'four states' is unknown; there are two states, three states"),
        (None, {"methods": ["guess"]}, "'guess' is unknown"),
    ],
)
def test_bad_options(screen, options, match):
    with pytest.raises(ValueError, match=match):
        states.units(Settings(screen=screen, seeds=(0,), options=options))
