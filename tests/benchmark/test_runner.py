"""The frame, tried with an experiment of the test's own."""

import json
import sys
import types

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from raptorgraph.benchmark import _runner, _settings
from raptorgraph.benchmark._parts import read_part, write_part
from raptorgraph.benchmark._settings import Part, Settings, Unit, fingerprint


@pytest.fixture
def toy(monkeypatch):
    """An experiment that squares its seed, counts its calls, and fails on seed 13."""
    module = types.ModuleType("raptorgraph.benchmark._losses")
    module.TITLE, module.OPTIONS, module.calls = "Squares", ("factor",), []

    def work(unit, settings):
        module.calls.append(unit.seed)
        if unit.seed == 13:
            raise ValueError("unlucky")
        return Part(pd.DataFrame({"value": [settings.options.get("factor", 1) * unit.seed**2]}))

    module.units = lambda settings: [Unit(f"seed{seed}", seed) for seed in settings.seeds]
    module.work = work
    module.tables = lambda parts, settings: {"losses": pd.concat([part.rows for _, part in parts], ignore_index=True)}
    module.draw = lambda tables: Figure()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def run(out, **options):
    return _runner.run("losses", out=out, n_jobs=0, progress=False, **options)


def test_tables_and_figure_are_written(toy, tmp_path):
    tables = run(tmp_path, seeds=3)
    assert tables["losses"]["value"].tolist() == [0, 1, 4]
    assert {"losses.csv", "losses.md", "losses.png", "losses.json"} <= {path.name for path in tmp_path.iterdir()}
    assert pd.read_csv(tmp_path / "losses.csv")["value"].tolist() == [0, 1, 4]


def test_finished_units_are_used_again_and_new_ones_added(toy, tmp_path):
    run(tmp_path, seeds=2)
    run(tmp_path, seeds=[0, 1, 5])
    assert toy.calls == [0, 1, 5]


def test_other_settings_are_other_work(toy, tmp_path):
    run(tmp_path, seeds=2)
    tables = run(tmp_path, seeds=2, factor=10)
    assert toy.calls == [0, 1, 0, 1]
    assert tables["losses"]["value"].tolist() == [0, 10]


def test_a_failed_unit_is_reported_after_the_others_are_done(toy, tmp_path):
    with pytest.raises(RuntimeError, match="1 of 3 units .* seed13: ValueError: unlucky"):
        run(tmp_path, seeds=[1, 13, 2])
    assert toy.calls == [1, 13, 2]
    run(tmp_path, seeds=[1, 2])
    assert toy.calls == [1, 13, 2]


def test_a_part_that_was_broken_off_counts_as_unfinished(toy, tmp_path):
    run(tmp_path, seeds=1)
    (tmp_path / "parts" / "losses" / "seed0.json").unlink()
    run(tmp_path, seeds=1)
    assert toy.calls == [0, 0]


def test_a_broken_mark_counts_as_unfinished(toy, tmp_path):
    run(tmp_path, seeds=1)
    mark = tmp_path / "parts" / "losses" / "seed0.json"
    mark.write_text(mark.read_text()[:20])
    run(tmp_path, seeds=1)
    assert toy.calls == [0, 0]


def test_a_part_that_was_written_over_does_not_pass_for_the_earlier_one(toy, tmp_path, monkeypatch):
    run(tmp_path, seeds=[2])
    with monkeypatch.context() as broken:
        broken.setattr(_runner, "write_part", lambda *args: (write_part(*args), sys.exit()))
        with pytest.raises(SystemExit):  # after the part, before its mark
            run(tmp_path, seeds=[2], factor=10)
    assert run(tmp_path, seeds=[2])["losses"]["value"].tolist() == [4]
    assert toy.calls == [2, 2, 2]


def test_arrays_of_an_earlier_part_are_not_read_again(tmp_path):
    unit, rows = Unit("a", 0), pd.DataFrame({"value": [1.0]})
    write_part(tmp_path, unit, Part(rows, ad.AnnData(np.eye(2))))
    np.testing.assert_array_equal(read_part(tmp_path, unit).arrays.X, np.eye(2))
    write_part(tmp_path, unit, Part(rows))
    assert read_part(tmp_path, unit).arrays is None


def test_work_with_other_threads_or_code_is_other_work(toy, tmp_path, monkeypatch):
    run(tmp_path, seeds=1)
    run(tmp_path, seeds=1)
    assert toy.calls == [0]
    for name in _runner._THREADS:
        monkeypatch.setenv(name, "3")
    run(tmp_path, seeds=1)
    assert toy.calls == [0, 0]
    monkeypatch.setattr(_settings, "code_hash", lambda name: f"code of {name}")
    run(tmp_path, seeds=1)
    run(tmp_path, seeds=1)
    assert toy.calls == [0, 0, 0]


def test_bad_requests_are_refused_before_any_work(toy, tmp_path):
    with pytest.raises(ValueError, match="no experiment 'guess'"):
        _runner.run("guess", out=tmp_path)
    with pytest.raises(ValueError, match="'color' is not an option"):
        run(tmp_path, color="red")
    with pytest.raises(ValueError, match="seeds"):
        run(tmp_path, seeds=0)
    with pytest.raises(ValueError, match="seeds"):
        run(tmp_path, seeds=[1, 1])
    assert not toy.calls


def test_every_experiment_follows_the_protocol():
    for name in _runner.EXPERIMENTS:
        module = _runner.experiment(name)
        assert module.TITLE
        assert isinstance(module.OPTIONS, tuple)
        assert all(callable(getattr(module, part)) for part in ("units", "work", "tables", "draw"))


def test_fingerprint_holds_data_settings_and_code(tmp_path):
    path = tmp_path / "screen.h5ad"
    path.write_bytes(b"one")
    unit = Unit("a", 0)

    def mark(**settings):
        return fingerprint("losses", unit, Settings(**{"screen": str(path), **settings}))

    assert mark() == mark() == json.loads(json.dumps(mark()))
    assert mark(quick=True) != mark()
    assert mark(setup={"control": "ctrl"}) != mark()
    before = mark()
    path.write_bytes(b"another")
    assert mark() != before


def test_processes_of_their_own_give_the_same(tmp_path):
    """Real processes, with the experiment that needs no screen."""
    options = {"seeds": [0], "quick": True, "progress": False}
    apart = _runner.run("losses", out=tmp_path / "apart", n_jobs=1, **options)
    here = _runner.run("losses", out=tmp_path / "here", n_jobs=0, **options)
    for name in apart:
        pd.testing.assert_frame_equal(apart[name], here[name])
