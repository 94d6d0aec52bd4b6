import pytest

from raptorgraph import benchmark
from raptorgraph.benchmark import Settings, _stream
from raptorgraph.benchmark._cost import PEAK


def test_it_runs_on_disk_and_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_stream, "_MOST_IN_MEMORY", 300)
    found = benchmark.run("stream", out=tmp_path, quick=True, seeds=1, n_jobs=0, progress=False)
    assert {"stream.csv", "stream_long.csv", "stream.png"} <= {path.name for path in tmp_path.iterdir()}
    table = found["stream"]
    expected = [(300, "on disk"), (300, "in memory"), (600, "on disk")]
    assert list(table[["cells", "place"]].itertuples(index=False, name=None)) == expected
    assert list(table.columns[2:]) == [PEAK, _stream.RATE, "seconds to simulate", "seconds to train", "CPU seconds"]
    assert (table.iloc[:, 2:].astype(float) > 0).all(axis=None)
    assert {"simulate", "setup", "sums", "graph", "posterior", "start", "epoch", "responders"} < set(
        found["stream_long"]["stage"]
    )


def test_screens_are_divided_by_size():
    units = _stream.units(Settings(seeds=(0, 1)))
    assert len(units) == 2 * 4
    assert [unit.options["place"] for unit in units].count("in memory") == 2
    with pytest.raises(ValueError, match="cells: 10 is not a number of cells of 100 or more"):
        _stream.units(Settings(seeds=(0,), options={"cells": [10]}))
