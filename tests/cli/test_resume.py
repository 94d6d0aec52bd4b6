"""A run that was broken off goes on where it stopped, and ends as if nothing had been."""

import json
import os
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from raptorgraph import datasets
from raptorgraph.cli._commands import main
from raptorgraph.model import RaptorGraphModel, _training
from raptorgraph.model._runner import ScreenRunner
from raptorgraph.report import _folder, _stages, _write
from raptorgraph.report._folder import RunFolder

pytestmark = pytest.mark.usefixtures("few_steps", "still")

# the last product of each stage
LAST = {
    "network": "model",
    "tables": "interactions.csv",
    "graph": "model",
    "gene sets": "latents.csv",
    "answers": "reverse.csv",
    "cells": "annotated.h5ad",
    "figures": "volcano.png",
    "report": "report.html",
}


@pytest.fixture(scope="module")
def still():
    """Clocks of a run that stand still: pages with other times have other bytes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (_folder, _write):
            patch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 1.0))
        now = datetime(2026, 1, 2, 3, 4).astimezone()
        patch.setattr(_folder, "datetime", SimpleNamespace(now=lambda: now))
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a screen and gene sets."""
    folder = tmp_path_factory.mktemp("inputs")
    adata = datasets.simulate(
        30, 3, n_doubles=2, n_control_cells=60, n_cells_per_perturbation=20, n_truth_cells=10, seed=3
    )
    adata.write_h5ad(folder / "screen.h5ad")
    wanted = adata[adata.obs["perturbation"] == "P01"].copy()
    wanted.write_h5ad(folder / "wanted.h5ad")
    genes = list(adata.var_names)
    (folder / "sets.gmt").write_text("".join(f"SET_{k}\tna\t" + "\t".join(genes[k::3]) + "\n" for k in range(3)))
    return folder


def _command(inputs):
    """Arguments of a run of everything, into the folder ``out`` of the current one."""
    options = ["--max-epochs", "1", "--library-size-key", "total_counts", "--report", "--resamples", "2"]
    options += ["--query", str(inputs / "wanted.h5ad")]
    return ["run", str(inputs / "screen.h5ad"), "--out", "out", "--gene-sets", str(inputs / "sets.gmt"), *options]


@pytest.fixture
def command(inputs):
    return _command(inputs)


@pytest.fixture(scope="module")
def unbroken(inputs, still, with_few_steps, tmp_path_factory):
    """What a run leaves that nothing befell."""
    folder = tmp_path_factory.mktemp("unbroken")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with with_few_steps():
            assert main(_command(inputs)) == 0
    finally:
        os.chdir(before)
    return state(folder / "out")


def state(out):
    """Bytes of all files of a run, and of its model, but for the manifest."""
    files = [path for path in out.rglob("*") if path.is_file() and ".run" not in path.parts and path.name != "run.json"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def check_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


SHORT = ("network", "graph", "report")  # the others are broken off in the slow tests


@pytest.mark.parametrize(
    "stage", [stage if stage in SHORT else pytest.param(stage, marks=pytest.mark.slow) for stage in LAST]
)
def test_a_run_that_is_broken_off_ends_as_an_unbroken_one(stage, command, unbroken, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    product, now, trained = RunFolder.product, [], []

    def stops(self, name):
        if now[-1:] == [stage] and name == LAST[stage]:
            raise KeyboardInterrupt
        return product(self, name)

    def noted(name, do):
        return lambda work: (now.append(name), do(work))

    noting = {name: _stages.Stage(noted(name, each.do), each.products) for name, each in _stages.STAGES.items()}
    with monkeypatch.context() as patch:
        patch.setattr(_stages, "STAGES", noting)
        patch.setattr(RunFolder, "product", stops)
        assert main(command) == 130
    assert now == list(LAST)[: list(LAST).index(stage) + 1]
    train = RaptorGraphModel.train
    monkeypatch.setattr(RaptorGraphModel, "train", lambda self, **options: (trained.append(1), train(self, **options)))
    now.clear()
    monkeypatch.setattr(_stages, "STAGES", noting)
    assert main(command) == 0
    assert now == list(LAST)[list(LAST).index(stage) :]
    check_same(state(tmp_path / "out"), unbroken)
    first = {"network": "Training on"}.get(stage, "there already, and kept")
    assert first in " ".join(capsys.readouterr().out.split())


def test_a_training_that_is_broken_off_goes_on(command, unbroken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "out" / ".run"

    def stops(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_training, "fit_escape", stops)  # after the last epoch
        assert main(command) == 130
    kept = {path.name for path in (inside / "training").iterdir()}
    assert kept
    with monkeypatch.context() as patch:
        patch.setattr(ScreenRunner, "__call__", lambda self: pytest.fail("trained again"))
        patch.setattr(RunFolder, "table", stops)  # the first thing after the network
        assert main(command) == 130
    assert main(command) == 0
    check_same(state(tmp_path / "out"), unbroken)
    assert [path.name for path in inside.iterdir()] == ["lock"]


def test_a_finished_run_is_shown_again(command, unbroken, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(_stages, "STAGES", dict.fromkeys(_stages.STAGES))
    assert main(command) == 0
    again = capsys.readouterr().out
    assert again.startswith("All is in out already.\n")
    # all that is shown after the lines that say what is done
    assert first.endswith(again.removeprefix("All is in out already.\n"))
    check_same(state(tmp_path / "out"), unbroken)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert set(manifest["products"]) == {name.partition("/")[0] for name in unbroken}


def test_other_commands_and_inputs_are_refused(command, inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = [*command[:4], *command[6:10]]
    assert main(plain) == 0
    before = state(tmp_path / "out")
    capsys.readouterr()
    other = tmp_path / "screen.h5ad"
    other.write_bytes((inputs / "screen.h5ad").read_bytes() + b"\0")
    for arguments, match in (
        ([*plain, "--seed", "1"], "with seed 0 and not 1"),
        ([*plain, "--preset", "paper"], "with preset default and not paper"),
        (["run", str(other), *plain[2:]], "with screen "),
        (command, "with gene sets not given and not"),
        (["demo", "--out", "out"], "with command run and not demo"),
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"error: 'out' has the results of another run, {match}" in err
        assert err.endswith("choose another --out, or replace them with --overwrite.\n")
    check_same(state(tmp_path / "out"), before)


def test_overwriting_leaves_nothing_of_the_earlier_results(command, unbroken, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    plain = [*command[:4], *command[6:10], "--overwrite"]
    train = RaptorGraphModel.train
    with monkeypatch.context() as patch:

        def stops(self, **options):
            train(self, **options)
            raise KeyboardInterrupt

        patch.setattr(RaptorGraphModel, "train", stops)
        assert main(plain) == 130
    files = state(tmp_path / "out")
    assert files.pop("notes.txt") == b"mine"
    check_same(files, unbroken)
    assert main(plain) == 0
    files = state(tmp_path / "out")
    assert files["notes.txt"] == b"mine"
    assert not {"report.html", "heldout.csv", "reverse.csv", "enrichment.csv", "latents.csv"} & set(files)
    assert "frequency" not in pd.read_csv(tmp_path / "out" / "dag.csv")
    assert main(plain[:-1]) == 0
    assert "All is in out already" in capsys.readouterr().out


def test_a_second_run_is_refused_while_the_first_works(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain, codes = [*command[:4], *command[6:10]], []

    def train(self, **options):
        codes.append(main(plain))
        raise KeyboardInterrupt

    monkeypatch.setattr(RaptorGraphModel, "train", train)
    assert main(plain) == 130
    assert codes == [2]
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(f"error: 'out' is written to by process {os.getpid()} on ")
    assert "(raptorgraph run " in first


def test_a_disk_that_is_too_small_is_noticed_before_the_training(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RaptorGraphModel, "train", lambda self, **options: pytest.fail("trained"))
    monkeypatch.setattr(_folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    assert main(command) == 2
    assert "and there are 0 MB: free some, or choose another --out" in capsys.readouterr().err
