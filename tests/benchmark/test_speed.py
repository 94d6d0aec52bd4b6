"""Experiment `speed` on a small screen."""

import numpy as np
import pytest

from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _speed as speed
from raptorgraph.benchmark._experiments import experiment


@pytest.fixture(scope="module")
def made(quick):
    return quick("speed", seeds=1, methods=["raptorgraph", "scVI", "dVAE"], max_epochs=3)


def test_each_method_has_its_times(made):
    tables, out = made
    long = tables["speed_long"].pivot(index="method", columns="metric", values="value_mean")
    assert list(tables["speed"]["method"]) == ["raptorgraph", "scVI", "dVAE"]
    assert (long[speed.EPOCH] == 3).all()
    assert (long[speed.TO_QUALITY] <= long[speed.SECONDS]).all()
    assert (long[[speed.SECONDS, speed.TO_QUALITY, speed.PER_EPOCH]] > 0).all(axis=None)
    profiled = long.loc[["raptorgraph", "scVI"]]
    np.testing.assert_allclose(
        profiled["ms in matrix products"] / profiled["ms a step"], profiled["share in matrix products"]
    )
    np.testing.assert_allclose(1 / profiled["share in matrix products"], profiled["step over matrix products"])
    assert profiled["share of the matrix rate"].between(0, 1, inclusive="neither").all()
    assert long.loc["dVAE", ["ms a step", "share in matrix products"]].isna().all()
    assert (out / "speed.png").is_file()


def test_the_parts_of_a_training_add_up(made):
    tables, _ = made
    parts = tables["speed_parts"].set_index("part")["seconds"].astype(float)
    assert list(parts.index) == list(speed.PARTS)
    total = tables["speed_long"].query("method == 'raptorgraph' and metric == @speed.SECONDS")["value_mean"].item()
    assert parts.sum() == pytest.approx(total, abs=0.05 * len(parts))  # each is rounded
    assert (parts >= 0).all()


def test_methods_that_cannot_be_asked():
    with pytest.raises(ValueError, match="'CPA' is unknown; there are raptorgraph, scVI"):
        experiment("speed").units(Settings("simulated", quick=True, options={"methods": ["CPA"]}))
    names = [unit.options["method"] for unit in speed.units(Settings("simulated", quick=True, seeds=(0,)))]
    assert names == ["raptorgraph", "scVI", "dVAE"]  # SENA has no gene sets
