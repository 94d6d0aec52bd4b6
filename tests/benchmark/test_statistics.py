import numpy as np
import pytest
import torch

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings, _statistics
from raptorgraph.benchmark._cost import PEAK, WALL
from raptorgraph.inference import infer_graph


def test_it_runs_and_writes_tables_and_figure(tmp_path):
    found = benchmark.run("statistics", out=tmp_path, quick=True, seeds=2, n_jobs=0, progress=False)
    assert {"statistics.csv", "statistics_long.csv", "statistics.png"} <= {path.name for path in tmp_path.iterdir()}
    table = found["statistics"]
    assert list(table.columns) == ["stage", "metric", "20", "40", "exponent"]
    assert list(zip(table["stage"], table["metric"], strict=True)) == [
        (stage, metric) for stage in ("graph", "posterior") for metric in (PEAK, WALL)
    ]


def test_the_table_has_a_graph_that_is_found():
    effect, variance, control_variance = _statistics._table(30, 400, np.random.default_rng(0))
    found = infer_graph(effect, variance, targets=torch.arange(30), control_variance=control_variance)
    assert 3 <= int((found.probability >= 0.5).sum()) <= 20  # of thirty draws those that lead forward
    noise = (variance + control_variance).numpy()
    assert np.median(effect.numpy() ** 2 / noise) == pytest.approx(0.455, rel=0.2)  # most genes do not move


def test_numbers_are_checked():
    assert len(_statistics.units(Settings(seeds=(0, 1)))) == 6
    with pytest.raises(ValueError, match="perturbations: 3 is not a number of 10 or more"):
        _statistics.units(Settings(seeds=(0,), options={"perturbations": [3]}))
