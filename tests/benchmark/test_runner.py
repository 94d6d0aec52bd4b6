"""The frame, tried with an experiment of the test's own."""

import json
import sys
from functools import wraps
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from raptorgraph.benchmark import _provenance, _runner
from raptorgraph.benchmark._experiments import Experiment, experiment
from raptorgraph.benchmark._parts import read_part, write_part
from raptorgraph.benchmark._provenance import fingerprint
from raptorgraph.benchmark._report import all_rows
from raptorgraph.benchmark._settings import Part, Settings, Unit


@pytest.fixture
def calls(monkeypatch):
    """Seeds of the calls of an experiment that squares its seed and fails on seed 13."""
    found, losses = [], experiment("losses")

    @wraps(losses.work)  # its sources are those of the experiment in whose place it is
    def work(unit, settings):
        found.append(unit.seed)
        if unit.seed == 13:
            raise ValueError("unlucky")
        return Part(pd.DataFrame({"value": [settings.option("factor", 1) * unit.seed**2]}))

    toy = Experiment(
        "losses",
        "Squares",
        ("factor", "color"),
        lambda settings: [Unit(f"seed{seed}", seed) for seed in settings.seeds],
        work,
        lambda parts, settings: {"losses": all_rows(parts)},
        lambda tables: Figure(),
        work_options=("factor",),
    )
    monkeypatch.setattr(_runner, "experiment", {"losses": toy}.__getitem__)
    return found


def run(out, **options):
    return _runner.run("losses", out=out, n_jobs=0, progress=False, **options)


def test_tables_and_figure_are_written(calls, tmp_path):
    tables = run(tmp_path, seeds=3)
    assert tables["losses"]["value"].tolist() == [0, 1, 4]
    assert {"losses.csv", "losses.md", "losses.png", "losses.json"} <= {path.name for path in tmp_path.iterdir()}
    assert pd.read_csv(tmp_path / "losses.csv")["value"].tolist() == [0, 1, 4]


def test_as_many_seeds_as_the_experiment_has_unless_they_are_asked_for(calls, tmp_path):
    assert run(tmp_path)["losses"]["seed"].tolist() == [0, 1, 2]
    assert experiment("ablation").n_seeds == 5


def test_finished_units_are_used_again_and_new_ones_added(calls, tmp_path):
    run(tmp_path, seeds=2)
    run(tmp_path, seeds=[0, 1, 5])
    assert calls == [0, 1, 5]


def test_an_option_that_the_work_does_not_depend_on_is_no_other_work(calls, tmp_path):
    run(tmp_path, seeds=1)
    run(tmp_path, seeds=1, color="red")
    assert calls == [0]


def test_other_settings_are_other_work(calls, tmp_path):
    run(tmp_path, seeds=2)
    tables = run(tmp_path, seeds=2, factor=10)
    assert calls == [0, 1, 0, 1]
    assert tables["losses"]["value"].tolist() == [0, 10]


def test_a_failed_unit_is_reported_after_the_others_are_done(calls, tmp_path):
    with pytest.raises(RuntimeError, match="1 of 3 units .* seed13: ValueError: unlucky"):
        run(tmp_path, seeds=[1, 13, 2])
    assert calls == [1, 13, 2]
    run(tmp_path, seeds=[1, 2])
    assert calls == [1, 13, 2]


def test_a_part_that_was_broken_off_counts_as_unfinished(calls, tmp_path):
    run(tmp_path, seeds=1)
    (tmp_path / "parts" / "losses" / "seed0.json").unlink()
    run(tmp_path, seeds=1)
    assert calls == [0, 0]


def test_a_broken_mark_counts_as_unfinished(calls, tmp_path):
    run(tmp_path, seeds=1)
    mark = tmp_path / "parts" / "losses" / "seed0.json"
    mark.write_text(mark.read_text()[:20])
    run(tmp_path, seeds=1)
    assert calls == [0, 0]


def test_a_part_that_was_written_over_does_not_pass_for_the_earlier_one(calls, tmp_path, monkeypatch):
    run(tmp_path, seeds=[2])
    with monkeypatch.context() as broken:
        broken.setattr(_runner, "write_part", lambda *args: (write_part(*args), sys.exit()))
        with pytest.raises(SystemExit):  # after the part, before its mark
            run(tmp_path, seeds=[2], factor=10)
    assert run(tmp_path, seeds=[2])["losses"]["value"].tolist() == [4]
    assert calls == [2, 2, 2]


def test_arrays_of_an_earlier_part_are_not_read_again(tmp_path):
    unit, rows = Unit("a", 0), pd.DataFrame({"value": [1.0]})
    write_part(tmp_path, unit, Part(rows, ad.AnnData(np.eye(2))))
    np.testing.assert_array_equal(read_part(tmp_path, unit).arrays.X, np.eye(2))
    write_part(tmp_path, unit, Part(rows))
    assert read_part(tmp_path, unit).arrays is None


def test_work_with_other_threads_or_code_is_other_work(calls, tmp_path, monkeypatch):
    run(tmp_path, seeds=1)
    run(tmp_path, seeds=1)
    assert calls == [0]
    for name in _runner.THREADS:
        monkeypatch.setenv(name, "3")
    run(tmp_path, seeds=1)
    assert calls == [0, 0]
    edited = SimpleNamespace(digest="edited", external=())
    monkeypatch.setattr(_provenance, "own_closure", lambda work: edited)
    run(tmp_path, seeds=1)
    run(tmp_path, seeds=1)
    assert calls == [0, 0, 0]


def test_bad_requests_are_refused_before_any_work(calls, tmp_path):
    with pytest.raises(ValueError, match="'size' is not an option of the experiment 'losses', which has"):
        run(tmp_path, size="red")
    with pytest.raises(ValueError, match="seeds"):
        run(tmp_path, seeds=0)
    with pytest.raises(ValueError, match="seeds"):
        run(tmp_path, seeds=[1, 1])
    assert not calls


def test_fingerprint_holds_data_settings_and_code(tmp_path):
    path = tmp_path / "screen.h5ad"
    path.write_bytes(b"one")
    unit = Unit("a", 0)

    def mark(**settings):
        return fingerprint(experiment("losses"), unit, Settings(**{"screen": str(path), **settings}))

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


@pytest.mark.parametrize("content", [b"", b"value\n", b"\xff\xfe", None])
@pytest.mark.parametrize("name", ["seed0.csv", "seed0.json"])
def test_a_part_that_is_empty_or_broken_is_written_anew(name, content, calls, tmp_path):
    expected = run(tmp_path, seeds=2)
    path = tmp_path / "parts" / "losses" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    pd.testing.assert_frame_equal(run(tmp_path, seeds=2)["losses"], expected["losses"])
    assert calls == [0, 1, 0]


def test_a_mark_of_anything_else_counts_as_unfinished(calls, tmp_path):
    run(tmp_path, seeds=1)
    for text in ("[]", "null", "{}"):
        (tmp_path / "parts" / "losses" / "seed0.json").write_text(text)
        run(tmp_path, seeds=1)
    assert calls == [0] * 4
