import logging
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from raptorgraph import RaptorGraphModel, benchmark
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _responders as responders

pytestmark = pytest.mark.usefixtures("few_steps")
SETTINGS = Settings(quick=True, seeds=(0,))
HERE = {"seeds": 2, "quick": True, "n_jobs": 0, "progress": False}


@pytest.fixture
def all_alike(monkeypatch):
    """A model that gives every perturbed cell one half, and no Mixscape."""

    def answer(self, adata=None):
        cells = self.adata.obs
        return pd.Series(np.where(cells["perturbation"] == "control", np.nan, 0.5), index=cells.index)

    monkeypatch.setattr(RaptorGraphModel, "get_response_probability", answer, raising=False)
    monkeypatch.setitem(sys.modules, "pertpy", None)


@pytest.mark.usefixtures("all_alike")
def test_run(tmp_path):
    tables = benchmark.run("responders", out=tmp_path, **HERE)
    assert (tmp_path / "responders_6.png").stat().st_size > 10_000
    assert set(tables) == {"responders", "responders_long", "responders_perturbations"}
    assert all((tmp_path / f"{name}.md").exists() for name in tables)
    table = tables["responders"]
    methods = ["raptorgraph", "projection", responders.TRUTH, responders.ALL_RESPONDED]
    for group in (responders.SINGLES, responders.COMBINATIONS):
        here = table[table["group"] == group]
        assert here["escaped"].tolist() == 4 * [0.0] + 4 * [0.5]
        assert here["method"].tolist() == 2 * methods
    mean = tables["responders_long"].set_index(["metric", "escaped", "group", "method"])["value_mean"]
    none, half = (mean[:, escaped, responders.SINGLES] for escaped in (0.0, 0.5))
    assert "AUROC" not in none.index  # nobody escaped
    assert none["calibration error"][["raptorgraph", responders.TRUTH, responders.ALL_RESPONDED]].tolist() == [
        0.5,
        0,
        0,
    ]
    assert half["AUROC"][["raptorgraph", responders.ALL_RESPONDED]].tolist() == [0.5, 0.5]
    assert half["AUROC", responders.TRUTH] > 0.8
    assert half["AUROC", responders.TRUTH] > half["AUROC", "projection"]
    assert half["share off", responders.ALL_RESPONDED] == pytest.approx(1 - half["true share", "raptorgraph"])
    each = tables["responders_perturbations"]
    assert {"P01", "P02", "P03", "P04"} < set(each["group"])


@pytest.mark.usefixtures("all_alike")
def test_a_screen_has_shares_alone(tmp_path):
    adata = responders.simulated(0.5, 6.0, SETTINGS, 0)[0].adata
    adata.write_h5ad(tmp_path / "screen.h5ad")
    out = tmp_path / "out"
    tables = benchmark.run(
        "responders", screen=tmp_path / "screen.h5ad", out=out, library_size_key="total_counts", **HERE
    )
    assert (out / "responders.png").stat().st_size > 10_000
    table = tables["responders_shares"].set_index("perturbation")
    assert (table["cells"] == 40).all()
    assert len(table) == 6
    assert (table["raptorgraph, share"] == "0.500 +- 0.000").all()
    assert (table["raptorgraph, share above one half"] == "0.000 +- 0.000").all()
    assert table["projection, share"].str.split().str[0].astype(float).between(0, 1).all()


def test_where_nobody_escapes_all_respond():
    screen, truth, effects = responders.simulated(0.0, 6.0, SETTINGS, 0)
    np.testing.assert_array_equal(truth, screen.codes > 0)
    assert effects.shape == (6, 60)
    np.testing.assert_allclose(effects, responders.simulated(0.5, 6.0, SETTINGS, 0)[2], atol=1e-6)


def test_scores_of_known_answers():
    screen, truth, _ = responders.simulated(0.5, 6.0, SETTINGS, 1)
    alone = screen.n_perturbed[1:] == 1
    signal = np.where(np.arange(len(alone)) % 2, 5.0, 3.0)
    # right for the first condition, reversed for the others
    p = np.where(screen.codes == 1, np.where(truth, 0.8, 0.1), np.where(truth, 0.3, 0.6))
    p[screen.codes == 0] = np.nan
    rows = responders.judge(p, truth, signal, screen)
    found = rows.set_index(["group", "metric"])["value"]
    first, other = screen.conditions[:2]
    share = truth[screen.codes == 1].mean()
    assert found[first, "AUROC"] == 1
    assert found[other, "AUROC"] == 0
    assert found[first, "true share"] == share
    assert found[first, "share off"] == pytest.approx(abs(0.8 * share + 0.1 * (1 - share) - share))
    assert found[first, "calibration error"] == pytest.approx(0.2 * share + 0.1 * (1 - share))
    assert found[first, "signal to noise"] == 3
    assert found[responders.SINGLES, "AUROC"] == pytest.approx((alone[0] * 1.0) / alone.sum())
    strong = alone & (signal > 4)
    assert found[responders.STRONG, "perturbations"] == strong.sum()
    cells = np.isin(screen.codes, 1 + np.flatnonzero(strong))
    assert found[responders.STRONG, "calibration error"] == pytest.approx(
        0.7 * truth[cells].mean() + 0.6 * (1 - truth[cells].mean())
    )
    assert found[responders.COMBINATIONS, "perturbations"] == (~alone).sum()


def test_mixscape_is_left_out_where_it_is_not_installed(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "pertpy", None)
    monkeypatch.setattr(logging.getLogger("raptorgraph"), "propagate", True)
    with caplog.at_level(logging.INFO):
        found = responders.units(SETTINGS)
    assert {unit.options["method"] for unit in found} == {"raptorgraph", "projection", responders.TRUTH}
    assert 'Mixscape is left out. Mixscape needs pertpy: pip install "raptorgraph[pertpy]"' in caplog.text
    with pytest.raises(ImportError, match="Mixscape needs pertpy: pip install"):
        responders.units(Settings(quick=True, seeds=(0,), options={"methods": "Mixscape"}))
    monkeypatch.setitem(sys.modules, "pertpy", SimpleNamespace(tl=SimpleNamespace(Mixscape=object)))
    assert "Mixscape" in {unit.options["method"] for unit in responders.units(SETTINGS)}


@pytest.mark.parametrize("of_screen", [False, True])
def test_mixscape_in_an_environment_of_its_own(monkeypatch, fake_peer, tmp_path, of_screen):
    """It is a method beside the others, and a table names its version."""
    code = """
        import pandas as pd

        def run(cells, task):
            return {"responses.csv": pd.DataFrame({"probability": 0.75}, index=cells.obs_names)}
    """
    monkeypatch.setitem(sys.modules, "pertpy", None)
    monkeypatch.setattr(responders.responses, "_TOOL", fake_peer(code, experiment="responders"))
    settings = {"methods": ["mixscape", "projection"], "escaped": [0.5]}
    if of_screen:
        responders.simulated(0.5, 6.0, SETTINGS, 0)[0].adata.write_h5ad(tmp_path / "screen.h5ad")
        settings = {"methods": settings["methods"], "screen": tmp_path / "screen.h5ad"}
    tables = benchmark.run("responders", out=tmp_path / "out", **HERE | {"seeds": 1}, **settings)
    found = tables["responders_long"].set_index(["method", "metric"]).loc["Mixscape"]["value_mean"]
    assert (found["share"] == 0.75).all()
    if not of_screen:
        assert (found["AUROC"] == 0.5).all()
    [told] = tables["responders_peers"].to_dict("records")
    assert told["method"] == "Mixscape"
    assert told["package"] == "fake-tool 1.2"
    assert told["python"] == "3.11.0"


@pytest.mark.parametrize(
    ("screen", "options", "match"),
    [
        (None, {"methods": ["additive"]}, "'additive' says nothing of single cells"),
        (None, {"escaped": [1.5]}, "escaped=1.5 is out of range"),
        (None, {"effect_sizes": []}, "effect_sizes: give one number or more"),
        ("simulated-additive", {"escaped": [0.5]}, "escaped: it is for simulated screens"),
    ],
)
def test_bad_options(screen, options, match):
    options = {"methods": ["projection"], **options}
    with pytest.raises(ValueError, match=match):
        responders.units(Settings(screen=screen, quick=True, seeds=(0,), options=options))
