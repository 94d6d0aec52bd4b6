import io
import json
from functools import partial

import pandas as pd
from rich.console import Console

from raptorgraph.benchmark import EXPERIMENTS, _runner
from raptorgraph.cli._commands import _show_tables, main


def run(*arguments):
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return exit_.code


def test_prediction_from_the_shell(tmp_path, capsys, monkeypatch):
    """The whole way, in processes of their own."""
    out = tmp_path / "out"
    arguments = ["benchmark", "prediction", "--screen", "simulated", "--quick", "--seeds", 1, "--out", out]
    assert run(*arguments, "--methods", "no change,additive", "--regimes", "singles", "--n-jobs", 1) == 0
    printed = capsys.readouterr().out
    assert "additive" in printed
    assert str(out) in printed
    table = pd.read_csv(out / "prediction.csv")
    assert {"no change", "additive"} < set(table["method"])


def test_further_options_are_read_as_json(tmp_path, monkeypatch):
    here = partial(_runner._work_all, n_jobs=0, n_threads=1)  # processes of their own take seconds to start
    monkeypatch.setattr(_runner, "_work_all", lambda *arguments: here(*arguments[:4]))
    assert run("benchmark", "losses", "--quick", "--seeds", "4-5", "--out", tmp_path, "--set", "sparsities=[0.25]") == 0
    assert json.loads((tmp_path / "losses.json").read_text())["seeds"] == [4, 5]
    assert pd.read_csv(tmp_path / "losses.csv")["zeros"].tolist() == ["25%"] * 3


def test_help_names_every_experiment(capsys):
    assert run("benchmark", "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(name in printed for name in EXPERIMENTS)


def test_numbers_have_a_place_beside_long_names():
    names = ["differences of means by state, shrunken", "conditional-mean regression"]
    table = pd.DataFrame({"screen": "continuous state", "perturbations": "depend on the state", "method": names})
    table = table.assign(**{"10 cells": ["0.286", "-"], "error": [0.125, 2.5], "last": "x" * 60})
    console = Console(width=78, record=True, file=io.StringIO())
    _show_tables({"states": table}, console)
    printed = console.export_text()
    assert "0.286" in printed
    assert "0.125" in printed
    assert "1 of the columns do not fit here: see states.md" in printed
