"""What the terminal says of pairs, and steps after the training that fail without taking the others with them."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from raptorgraph import datasets, pl
from raptorgraph._failures import optional
from raptorgraph.cli._commands import main
from raptorgraph.cli._show import show
from raptorgraph.model import RaptorGraphModel
from raptorgraph.report import _results, _stages, _work
from raptorgraph.report._blocks import Note
from raptorgraph.report._results import Result, against

pytestmark = pytest.mark.usefixtures("few_steps")


def pairs(rows):
    table = pd.DataFrame(rows, columns=["label", "synergy", "synergy_low", "synergy_high", "magnitude", "measured"])
    table["magnitude_low"], table["magnitude_high"] = table["magnitude"] - 0.1, table["magnitude"] + 0.1
    beyond = table["synergy_low"] > 1, table["synergy_high"] < 1
    table["interaction"] = np.select(beyond, ["synergy", "suppression"], "undetermined")
    table[["singles_measured", "both_stand_out"]], table["pairs_seen"] = True, 1
    table["against_sum"] = against(table, 1.0)
    table["against_median"] = against(table, table["synergy"].median())
    return table.set_index("label")


def shown(table, width=100, **told):
    summary = pd.DataFrame({"set": ["singles"], "conditions": 3, "method": "x", "pearson": np.nan, "relative_mse": 1.0})
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    show(Result("A title", summary, table, {"cells": 3}, **told), console)
    return " ".join(console.file.getvalue().split())


def test_a_pair_differs_from_the_sum_where_it_is_determined_and_the_interval_lies_on_one_side():
    table = pairs(
        [
            ("a", 1.5, 1.1, 2.0, 1.0, False),
            ("b", 1.5, 0.9, 2.0, 1.0, False),
            ("c", 0.5, 0.3, 0.9, 1.0, False),
            ("d", np.nan, np.nan, np.nan, 0.0, False),
        ]
    )
    assert table["against_sum"].tolist() == ["stronger", "", "weaker", ""]
    table.loc["a", "interaction"] = "undetermined"
    assert against(table, 1.0).tolist() == ["", "", "weaker", ""]


def test_pairs_that_differ_are_shown_with_how_sure_that_is():
    printed = shown(pairs([("[b]A[/b]+B", 1.5, 1.1, 2.0, 1.0, False), ("C+D", 1.0, 0.9, 1.1, 5.0, True)]))
    assert "(1 of 2)" in printed
    assert "synergy" in printed
    assert "1.50 [1.10, 2.00]" in printed
    assert "[b]A[/b]+B" in printed
    assert "C+D" not in printed
    assert "All 2 pairs (1 unmeasured) are in interactions.csv." in printed
    assert "1.25 for the median of these pairs" in printed


def test_names_of_two_genes_stay_on_one_line_of_a_terminal():
    table = pairs([("TMSB4X+ZBTB10", 1.5, 1.1, 2.0, 11.0, False), ("MAP2K3+MAP2K6", 0.6, 0.5, 0.7, 1.0, True)])
    printed = shown(table, width=80)
    assert "TMSB4X+ZBTB10" in printed
    assert "MAP2K3+MAP2K6" in printed
    assert "0.60 [0.50, 0.70]" in printed


def test_no_effect_is_written_as_zero():
    effects = pd.DataFrame([[-0.0, 1.0]], ["A"], ["g", "h"], dtype=np.float32)
    for with_sd in (False, True):
        model = SimpleNamespace(
            has_posterior=with_sd,
            predict_effects=lambda labels, return_sd=False: (effects, effects.abs() * 0) if return_sd else effects,
        )
        table = _results.effects_of(model, ["A"], ["g", "h"])[1].drop(columns=["perturbation", "gene"])
        assert not np.signbit(table["effect"]).any()
        assert "-0" not in table.to_csv(float_format="%.6g", index=False)


def test_a_pair_that_stands_out_from_the_others_is_marked():
    rows = [("A+B", 0.9, 0.8, 0.95, 1.0, False), ("C+D", 0.6, 0.5, 0.7, 5.0, False), ("E+F", 0.5, 0.4, 0.7, 5.0, True)]
    table = pairs(rows)
    assert table["against_sum"].tolist() == ["weaker"] * 3
    assert table["against_median"].tolist() == ["stronger", "", ""]


def test_where_no_pair_is_determined_or_nothing_is_known_there_is_no_table():
    table = pairs([("A+B", 1.3, 0.9, 1.6, 1.0, False), ("C+D", 1.0, 0.9, 1.1, 5.0, True)])
    for some in (table, table.drop(columns=["synergy_low", "synergy_high"]), table[:0]):
        assert "A+B" not in shown(some)
        assert "synergy" not in shown(some)


def test_the_sentences_of_the_report_come_last():
    table = pairs([("A+B", 1.5, 1.1, 2.0, 1.0, False)])
    notes = [Note("important", "Few cells", "Add some."), Note("note", "Of note", "More.")]
    said = ["[b]A[/b] does much.", "B does little."]
    told = {"short": said, "unsaid": ["What C does cannot be said."], "notes": notes}
    printed = shown(table, **told)
    end = "Warning: Few cells. Add some. Note: Of note. In short: - [b]A[/b] does much. - B does little. "
    assert printed.endswith(end + "What cannot be said: - What C does cannot be said.")
    without = shown(table)
    assert "In short" not in without
    assert "cannot be said" not in without
    page = shown(table, report=Path("out/report.html"), **told)
    assert page.endswith("cannot be said. The report is out/report.html: open it in a browser.")


# -- steps that may fail -------------------------------------------------------------------------------------------
def test_an_optional_step_names_its_failure_and_the_fix():
    said = []
    with optional("umap.png", said.append):
        raise RuntimeError("cannot cache function 'f': no locator available for file 'x.py'")
    with optional("x.csv", said.append):
        raise ValueError("two\nlines")
    assert said[0].startswith("There is no umap.png: RuntimeError: cannot cache function 'f'")
    assert said[0].endswith("set NUMBA_CACHE_DIR to a folder that can be written")
    assert said[1:] == ["There is no x.csv: ValueError: two lines"]


def interrupted():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise RuntimeError("a library stopped") from error


def full():
    raise RuntimeError("write failed, errno = 28, error message = 'No space left on device'")


def test_an_interruption_and_a_full_disk_are_no_failure_of_one_step(tmp_path):
    said = []
    with pytest.raises(KeyboardInterrupt), optional("y", said.append):
        raise KeyboardInterrupt
    with pytest.raises(RuntimeError, match="a library stopped"), optional("y", said.append):
        interrupted()
    with pytest.raises(RuntimeError, match="No space"), optional("y", said.append):
        full()
    assert not said


TABLES = (
    "effects.csv", "interactions.csv", "dag.csv", "summary.csv", "facts.csv", "model/model.json", "perturbations.csv",
    "top_genes.csv", "next_pairs.csv",
)  # fmt: skip


@pytest.mark.parametrize(
    ("where", "name", "missing"),
    [
        (pl, "latents", "umap.png"),
        (pl, "dag", "dag.png"),
        (_stages, "findings_of", "report.html"),
        (_work, "strengths", "perturbations.csv"),
    ],
)
def test_a_step_that_fails_after_the_training_costs_itself_alone(where, name, missing, tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("cannot cache function 'f': no locator available")

    monkeypatch.setattr(where, name, fail)
    adata = datasets.simulate(
        20, 3, n_doubles=1, n_control_cells=40, n_cells_per_perturbation=15, n_truth_cells=10, seed=0
    )
    adata.write_h5ad(tmp_path / "screen.h5ad")
    out = tmp_path / "out"
    arguments = ["run", tmp_path / "screen.h5ad", "--out", out, "--max-epochs", 1]
    arguments += ["--report", "--resamples", 0] if missing == "report.html" else []
    assert main([str(argument) for argument in arguments]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"There is no {missing}: RuntimeError: cannot cache function" in printed
    assert "NUMBA_CACHE_DIR" in printed
    expected = {*TABLES, "annotated.h5ad", "dag.png", "training.png", "effects.png", "umap.png"} - {missing}
    assert all((out / file).is_file() for file in expected)
    assert not (out / missing).exists()


def test_answers_that_fail_cost_themselves_alone(tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("too odd")

    for name in ("top_genes", "next_pairs"):
        monkeypatch.setattr(_work, name, fail)
    datasets.simulate(
        20, 3, n_doubles=1, n_control_cells=40, n_cells_per_perturbation=15, n_truth_cells=10, seed=0
    ).write_h5ad(tmp_path / "screen.h5ad")
    out = tmp_path / "out"
    assert main(["run", str(tmp_path / "screen.h5ad"), "--out", str(out), "--max-epochs", "1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name in ("top_genes.csv", "next_pairs.csv"):
        assert f"There is no {name}: ValueError: too odd" in printed
        assert not (out / name).exists()
    assert "No pair to measure next is named, because the choice failed." in printed
    assert (out / "perturbations.csv").is_file()


def test_tables_and_model_are_there_when_the_cells_cannot_be_written(tmp_path, capsys, monkeypatch):
    adata = datasets.simulate(
        20, 3, n_doubles=1, n_control_cells=40, n_cells_per_perturbation=15, n_truth_cells=10, seed=0
    )
    adata.write_h5ad(tmp_path / "screen.h5ad")

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(adata), "write_h5ad", full)
    out = tmp_path / "out"
    arguments = ["run", str(tmp_path / "screen.h5ad"), "--out", str(out), "--max-epochs", "1"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: [Errno 28] No space left on device: '{out / 'annotated.h5ad'}'\n"
    assert all((out / file).is_file() for file in TABLES)
    monkeypatch.undo()  # room again
    monkeypatch.setattr(RaptorGraphModel, "train", lambda self, **kwargs: pytest.fail("trained again"))
    assert main(arguments) == 0
    assert all((out / file).is_file() for file in (*TABLES, "annotated.h5ad", "umap.png", "dag.png"))
