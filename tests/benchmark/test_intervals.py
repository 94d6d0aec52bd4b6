import numpy as np
import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings
from raptorgraph.benchmark import _intervals as intervals

QUICK = {"quick": True, "n_jobs": 0, "progress": False}


def test_run(tmp_path):
    tables = benchmark.run("intervals", out=tmp_path, seeds=1, interaction_strengths=[0.3], n_draws=20, **QUICK)
    table, long = tables["intervals"], tables["intervals_long"]
    assert table["intervals of"].tolist() == 2 * [intervals.EFFECTS, *intervals.SCORES]
    assert table["pairs"].tolist() == 6 * ["measured"] + 6 * ["not measured"]
    mean = long.set_index(["pairs", "intervals of", "metric"])["value_mean"]
    assert mean.between(0, np.inf).all()
    assert (mean[:, :, "held"] <= 1).all()
    assert (mean[:, :, "width"] > 0).all()
    assert (mean[:, :, "held"] + mean[:, :, "true value below"] <= 1 + 1e-12).all()
    # a lower bound of 0 is below everything
    assert (mean[:, "neomorphism", "true value below"] == 0).all()
    assert (tmp_path / "intervals.png").stat().st_size > 5_000


def test_what_is_counted():
    rows = intervals._counted("measured", "synergy", np.array([0.0, 1.0, 2.0, 3.0]), ([1, 1, 1, 1], [2, 2, 2, 2]))
    assert [row[2:] for row in rows] == [("held", 0.5), ("true value below", 0.25), ("width", 1.0)]


@pytest.mark.parametrize(
    ("screen", "options", "match"),
    [
        ("simulated", {}, "leave --screen out"),
        (None, {"interaction_strengths": [-1]}, r"\[-1\]"),
        (None, {"interaction_strengths": []}, "numbers"),
        (None, {"n_draws": 1}, "n_draws: 1"),
    ],
)
def test_bad_options(screen, options, match):
    with pytest.raises(ValueError, match=match):
        intervals.units(Settings(screen=screen, seeds=(0,), options=options))
