"""Checks of a screen: each fires where it should, and does not on a screen that is in order."""

import numpy as np
import pandas as pd
import pytest

from raptorgraph import datasets
from raptorgraph.screen import Screen
from raptorgraph.screen._checks import NOTE, WARNING, Checked, NotChecked, checked, note, table_of, warning
from raptorgraph.screen._screen_checks import LOOKS_FOR, check_screen
from raptorgraph.screen._strength import strengths

SETUP = {"library_size_key": "total_counts"}


@pytest.fixture(scope="module")
def adata():
    return datasets.simulate(
        60, 5, n_doubles=9, n_control_cells=160, n_cells_per_perturbation=60, n_truth_cells=40, seed=0
    )


@pytest.fixture(scope="module")
def checks():
    """Function that makes all checks; by name, findings by their line."""

    def make(adata, **setup):
        screen = Screen(adata, {**SETUP, **setup})
        found = check_screen(screen, strengths(screen, n_null=100).assign(stands_out=True))
        return {check.name: {finding.found: finding for finding in check.findings} for check in found}

    return make


def rows_of(adata, label):
    return np.flatnonzero(adata.obs["perturbation"] == label)


def scaled(adata, rows, factor):
    """The same cells, some of them with more molecules."""
    adata, factors = adata.copy(), np.ones(adata.n_obs)
    factors[rows] = factor
    adata.X = adata.X.multiply(factors[:, None]).rint().tocsr()
    adata.obs["total_counts"] *= factors
    return adata


def test_nothing_fires_on_a_screen_in_order(adata, checks):
    found = checks(adata)
    assert list(found) == list(LOOKS_FOR)
    assert not any(found.values())


def test_twice_the_counts_of_controls(adata, checks):
    (found,) = checks(scaled(adata, rows_of(adata, "P01+P02"), 2))["library sizes"].values()
    assert (found.level, found.concerns) == (WARNING, ("P01+P02",))
    assert "P01+P02 (" in found.text
    assert not checks(scaled(adata, rows_of(adata, "P01+P02"), 1.2))["library sizes"]


def test_libraries_of_two_sizes(adata, checks):
    rows = rows_of(adata, "P02")
    (found,) = checks(scaled(adata, rows[: len(rows) // 3], 8))["library sizes"].values()
    assert (found.level, found.concerns) == (NOTE, ("P02",))
    assert found.found == "1 group of cells with libraries of two sizes"
    controls = rows_of(adata, "control")
    found = checks(scaled(adata, controls[::2], 8))["library sizes"]
    assert found["1 group of cells with libraries of two sizes"].level == WARNING


def test_depth_of_a_batch_is_no_doublet(adata, checks):
    adata = adata.copy()
    lane = np.arange(adata.n_obs) % 2
    lane[rows_of(adata, "P03")] = 1
    adata.obs["lane"] = np.where(lane, "deep", "shallow")
    deep = scaled(adata, np.flatnonzero(lane), 8)
    assert "P03" in {name for x in checks(deep)["library sizes"].values() for name in x.concerns}
    assert not checks(deep, batch_key="lane")["library sizes"]


def test_log_values_have_no_libraries(adata):
    log = adata.copy()
    log.X = np.log1p(log.X.toarray() / log.obs["total_counts"].to_numpy()[:, None] * 1e4)
    screen = Screen(log, {})
    (check,) = (x for x in check_screen(screen, strengths(screen, n_null=50)) if x.name == "library sizes")
    assert not check.reason  # the totals are in obs
    del log.obs["total_counts"]
    screen = Screen(log, {})
    (check,) = (x for x in check_screen(screen, strengths(screen, n_null=50)) if x.name == "library sizes")
    assert "log-normalized" in check.reason


def test_read_outs_of_guides_are_no_genes(adata, checks):
    changed = adata.copy()
    changed.var_names = [*changed.var_names[:-2], "sgP01-1", "P02_g1:P03_g2"]
    (finding,) = checks(changed)["values"].values()
    assert finding.level == WARNING
    assert finding.concerns == ("sgP01-1", "P02_g1:P03_g2")
    assert "2 of " in finding.found
    assert "~raptorgraph.pp.guide_features(adata)" in finding.advice


def test_batches(adata, checks):
    adata, screen = adata.copy(), Screen(adata, SETUP)
    adata.obs["lane"] = np.where(np.arange(adata.n_obs) % 2, "1", "2")
    assert not checks(adata, batch_key="lane")["batches"]
    (found,) = checks(adata)["batches"].values()  # which might be told
    assert (found.level, found.concerns) == (NOTE, ("lane",))

    adata.obs.loc[adata.obs["perturbation"] == "P01", "lane"] = "3"
    (found,) = checks(adata)["batches"].values()
    assert (found.level, found.concerns) == (WARNING, ("P01",))
    found = checks(adata, batch_key="lane")["batches"]
    assert found["1 batch without control cells"].concerns == ("3",)
    assert found["1 perturbation that cannot be told from the batch"].concerns == ("P01",)

    lane = np.where(np.arange(adata.n_obs) % 2, "1", "2").astype(object)
    lane[screen.rows("control")[:4]] = "3"
    lane[screen.rows("P02")] = "3"
    adata.obs["lane"] = lane
    (found,) = checks(adata, batch_key="lane")["batches"].values()
    assert (found.level, found.found) == (NOTE, "1 batch with fewer than 10 control cells")


def test_effects_below_noise(adata):
    screen = Screen(adata, SETUP)
    weak = adata[adata.obs["perturbation"] == "control"].copy()
    labels = np.repeat(["control", "P01", "P02"], [100, 30, 30])
    weak.obs["perturbation"] = labels
    of_controls = Screen(weak, SETUP)
    for given, fires in ((screen, False), (of_controls, True)):
        found = {x.name: x.findings for x in check_screen(given, strengths(given, n_null=300))}
        assert bool(found["effects"]) == fires
    (finding,) = found["effects"]
    assert (finding.level, finding.concerns) == (WARNING, ("P01", "P02"))


def test_table():
    def cannot():
        raise NotChecked("there is nothing")
        yield

    found = [
        checked("a", "Looks for a.", lambda: [note("n", "m")]),
        Checked("b", "Looks for b."),
        checked("c", "Looks for c.", cannot),
        checked("d", "Looks for d.", lambda: [warning("w", "It means.", "Do.", ("A", "B")), note("o", "m")]),
    ]
    table = table_of(found)
    assert table["check"].tolist() == ["d", "a", "d", "b", "c"]
    assert table["fires"].tolist() == [True, True, True, False, pd.NA]
    assert table["level"].tolist() == [WARNING, NOTE, NOTE, "", ""]
    assert table.loc[0, ["concerns", "meaning", "advice"]].tolist() == [("A", "B"), "It means.", "Do."]
    assert table["found"].tolist()[3:] == ["Nothing stood out.", "Not checked: there is nothing."]
    assert found[3].findings[0].text == "A and B. It means. Do."
    assert warning("w", "It means.", concerns=("A",), named=()).text == "It means."
