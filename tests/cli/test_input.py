"""What the shell says of files and options that do not do: one line on stderr, exit code 2, nothing trained."""

import logging
import os
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from raptorgraph import benchmark, datasets
from raptorgraph.cli._commands import main
from raptorgraph.model import NonFiniteLossError, RaptorGraphModel

pytestmark = [
    pytest.mark.usefixtures("few_steps"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning"),
]


@pytest.fixture(scope="module")
def adata():
    return datasets.simulate(
        40, 4, n_doubles=3, n_control_cells=80, n_cells_per_perturbation=30, n_truth_cells=20, seed=3
    )


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Training is what no bad input may reach."""
    monkeypatch.setattr(RaptorGraphModel, "train", lambda self, **kwargs: pytest.fail("trained"))


@pytest.fixture
def screen(adata, tmp_path):
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    return path


def ended(arguments, capsys):
    """Exit code and stderr."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        code = exit_.code
    return code, capsys.readouterr().err


def failure(arguments, capsys):
    code, err = ended(arguments, capsys)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


COMMANDS = {
    "run": lambda path, out: ["run", path, "--out", out],
    "benchmark": lambda path, out: ["benchmark", "prediction", "--screen", path, "--out", out, "--quick"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", ["empty", "text", "cut", "binary", "folder"])
def test_files_that_are_no_screen(command, content, screen, tmp_path, capsys):
    whole, path = screen.read_bytes(), tmp_path / "other.h5ad"
    if content == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            {"empty": b"", "text": b"gene,cell\n", "cut": whole[: len(whole) // 2], "binary": b"\0\1"}[content]
        )
    assert "other.h5ad" in failure(COMMANDS[command](path, tmp_path / "out"), capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_results_that_cannot_be_written(command, adata, tmp_path, capsys, monkeypatch):
    store = tmp_path / "screen.zarr"
    adata.write_zarr(store)
    assert "lies in the screen" in failure(COMMANDS[command](store, store / "out"), capsys)
    (tmp_path / "file").touch()
    assert "is a file" in failure(COMMANDS[command](store, tmp_path / "file"), capsys)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "cannot be written to" in failure(COMMANDS[command](store, tmp_path / "out"), capsys)


def predictions(adata, kind, path):
    labels = ["P01", "P01+P02"]
    table = pd.DataFrame(0.5, index=labels, columns=adata.var_names)
    if kind == "empty":
        path.touch()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 4)
    elif kind == "no rows":
        table.iloc[:0].to_csv(path)
    elif kind == "cells without values":
        ad.AnnData(obs=pd.DataFrame({"perturbation": ["P01"]}, index=["a"]), var=adata.var[[]]).write_h5ad(path)
    else:
        if kind == "text":
            table = table.astype(object)
            table.iloc[0, 3] = "high"
        elif kind in ("inf", "nan"):
            table.iloc[1, 2] = float(kind)
        elif kind == "missing gene":
            table = table.iloc[:, 1:]
        elif kind == "gene twice":
            table.insert(5, adata.var_names[0], 1.0, allow_duplicates=True)
        elif kind == "other labels":
            table.index = ["X", "Y"]
        table.to_csv(path)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("empty", "cannot be read as predictions"),
        ("binary", "cannot be read as predictions"),
        ("no rows", "has no row"),
        ("text", "'high' for"),
        ("inf", "1 missing or infinite"),
        ("nan", "1 missing or infinite"),
        ("missing gene", "lacks 1 of the screen's 40 genes"),
        ("gene twice", "twice"),
        ("other labels", "theirs like X, Y"),
        ("cells without values", "no cells with values in X"),
    ],
)
def test_predictions_that_do_not_do(kind, match, adata, screen, tmp_path, capsys):
    path = tmp_path / "predictions.csv"
    predictions(adata, kind, path)
    arguments = [*COMMANDS["benchmark"](screen, tmp_path / "out"), "--predictions", f"mine={path}"]
    assert match in failure(arguments, capsys)


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip"])
@pytest.mark.parametrize("part", [0.7, 0.2])
def test_compressed_predictions_that_are_cut(ending, part, adata, screen, tmp_path, capsys):
    path = tmp_path / f"predictions.csv.{ending}"
    pd.DataFrame(np.random.default_rng(0).random((2, 40)), ["P01", "P01+P02"], adata.var_names).to_csv(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    error = failure([*COMMANDS["benchmark"](screen, tmp_path / "out"), "--predictions", f"mine={path}"], capsys)
    assert f"predictions.csv.{ending}' cannot be read as predictions" in error


EMPTY = {
    "screen": ["run", "", "--out", "out"],
    "out": ["run", "screen.h5ad", "--out", ""],
    "sets": ["run", "screen.h5ad", "--out", "out", "--gene-sets", ""],
    "demo": ["demo", "--out", " "],
    "benchmark screen": ["benchmark", "prediction", "--screen", ""],
    "methods": ["benchmark", "prediction", "--screen", "simulated", "--methods", ""],
}


@pytest.mark.parametrize("arguments", EMPTY.values(), ids=EMPTY)
def test_an_empty_name_is_not_the_current_folder(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "the value is empty" in failure(arguments, capsys)
    assert not list(tmp_path.iterdir())


def test_drawing_does_not_speak_of_its_cache(screen, tmp_path, capsys, monkeypatch):
    loggers, heard = [logging.getLogger(name) for name in ("matplotlib", "matplotlib.font_manager")], []

    def run(*args, **kwargs):
        heard.extend(logger.isEnabledFor(logging.WARNING) for logger in loggers)
        raise ValueError("that is all")

    monkeypatch.setattr("raptorgraph.cli._run.run", run)
    assert failure(COMMANDS["run"](screen, tmp_path / "out"), capsys).endswith(
        "that is all (RAPTORGRAPH_DEBUG=1 shows where)\n"
    )
    assert heard == [False, False]
    assert loggers[0].isEnabledFor(logging.WARNING)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--predictions", "a=x.csv", "--predictions", "a=y.csv"], "--predictions a=... is given twice"),
        (["--predictions", "additive=x.csv"], "'additive' is the name of a method"),
        (["--set", "k=1", "--set", "k=2"], "--set k=... is given twice"),
        (["--set", "max-epochs=0"], "there is an option --max-epochs"),
        (["--set", "out=1"], "there is an option --out"),
        (["--max-epochs", "0"], "'0' is not a positive integer"),
        (["--layer", "nowhere"], "layer='nowhere'"),
        (["--gene-sets", "EMPTY", "--methods", "SENA"], "The file is empty"),
    ],
)
def test_options_that_contradict(options, match, screen, tmp_path, capsys):
    empty = tmp_path / "empty.gmt"
    empty.touch()
    options = [str(empty) if option == "EMPTY" else option for option in options]
    assert match in failure([*COMMANDS["benchmark"](screen, tmp_path / "out"), *options], capsys)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted; the same command goes on where it stopped"),
        (BrokenPipeError(), 141, ""),
        (
            MemoryError("no 9 GB"),
            2,
            "error: the memory does not suffice; fewer genes (--n-top-genes) need less. no 9 GB",
        ),
        (
            NonFiniteLossError("The loss is nan."),
            2,
            "error: NonFiniteLossError: The loss is nan. (RAPTORGRAPH_DEBUG=1 ",
        ),
        (OSError(28, "No space left on device", "x.csv"), 2, "error: [Errno 28] No space left on device: 'x.csv'"),
        (AttributeError("deep\ninside"), 2, "error: AttributeError: deep inside (RAPTORGRAPH_DEBUG=1 shows where)"),
        (KeyError("gone"), 2, "error: KeyError: gone (RAPTORGRAPH_DEBUG=1 shows where)"),
    ],
)
def test_nothing_leaves_the_shell_as_a_traceback(error, code, line, screen, tmp_path, capsys, monkeypatch):
    def fail(self, **kwargs):
        raise error

    monkeypatch.setattr(RaptorGraphModel, "train", fail)
    found, err = ended(COMMANDS["run"](screen, tmp_path / "out"), capsys)
    assert found == code
    assert err.startswith(line)
    assert err.count("\n") == (code != 141)
    monkeypatch.setenv("RAPTORGRAPH_DEBUG", "1")
    if code == 2:
        _, err = ended(COMMANDS["run"](screen, tmp_path / "out"), capsys)
        assert "Traceback" in err
        assert "in fail" in err


def test_scaled_values_point_to_the_counts(adata, tmp_path, capsys):
    cells = adata.copy()
    cells.layers["umis"] = cells.X.copy()
    cells.X = cells.X.toarray() - cells.X.toarray().mean(axis=0)
    cells.write_h5ad(tmp_path / "scaled.h5ad")
    err = failure(["run", tmp_path / "scaled.h5ad", "--out", tmp_path / "out"], capsys)
    assert "adata.layers['umis'] holds counts: name it, layer='umis' (--layer umis)" in err
    del cells.layers["umis"]
    cells.raw = adata
    cells.write_h5ad(tmp_path / "scaled.h5ad")
    err = failure(["run", tmp_path / "scaled.h5ad", "--out", tmp_path / "out"], capsys)
    assert "adata.raw holds counts: take them, adata = adata.raw.to_adata()" in err


def test_an_interruption_within_lightning(screen, tmp_path, capsys, monkeypatch):
    def interrupted(self, **kwargs):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr(RaptorGraphModel, "train", interrupted)
    assert ended(COMMANDS["run"](screen, tmp_path / "out"), capsys) == (
        130,
        "error: interrupted; the same command goes on where it stopped\n",
    )


def test_a_zarr_store_is_read_as_a_file_is(adata, screen, tmp_path, monkeypatch):
    monkeypatch.undo()
    adata.write_zarr(tmp_path / "screen.zarr")
    options = {
        "quick": True,
        "seeds": 1,
        "n_jobs": 0,
        "progress": False,
        "methods": ["additive"],
        "regimes": ["singles"],
    }
    for name in ("screen.h5ad", "screen.zarr"):
        out = tmp_path / name.replace(".", "-")
        arguments = ["run", tmp_path / name, "--out", out, "--max-epochs", 1, "--library-size-key", "total_counts"]
        assert main([str(argument) for argument in arguments]) == 0
        benchmark.run("prediction", screen=tmp_path / name, out=out, **options)
    for name in ("effects.csv", "interactions.csv", "dag.csv", "prediction_conditions.csv"):
        first, second = ((tmp_path / folder / name).read_text() for folder in ("screen-h5ad", "screen-zarr"))
        assert first == second


def test_a_reader_that_has_gone_costs_no_result(tmp_path, monkeypatch):
    from raptorgraph.cli import _run

    def demo(out, say, **rest):
        for _ in range(3):
            say("line")
        out.write_text("done")
        raise ValueError("The end of the test.")

    monkeypatch.setattr(_run, "demo", demo)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["demo", "--out", str(tmp_path / "out")]) == 2
        monkeypatch.undo()
    assert (tmp_path / "out").read_text() == "done"


def test_a_folder_of_other_data_is_another_screen(adata, tmp_path):
    from raptorgraph.benchmark import Settings
    from raptorgraph.benchmark._experiments import experiment
    from raptorgraph.benchmark._provenance import fingerprint
    from raptorgraph.benchmark._settings import Unit

    adata.write_zarr(tmp_path / "screen.zarr")
    settings = Settings(str(tmp_path / "screen.zarr"))
    prediction = experiment("prediction")
    before = fingerprint(prediction, Unit("a", 0), settings)["screen"]
    assert fingerprint(prediction, Unit("a", 0), settings)["screen"] == before
    other = adata.copy()
    other.X = other.X * np.float32(2)
    other.write_zarr(tmp_path / "screen.zarr")
    assert fingerprint(prediction, Unit("a", 0), settings)["screen"] != before


def test_large_files_are_read_in_parts(adata, tmp_path, monkeypatch):
    from raptorgraph.cli import _run
    from raptorgraph.screen import _memory

    adata.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setattr(_memory, "memory_bytes", lambda: 3 * 2**10)
    said = []
    cells = _run._read(tmp_path / "cells.h5ad", None, [], said.append)
    assert "more than a third of the memory: they are read from the file, part by part" in said.pop()
    assert type(cells.X).__name__ == "_CSRDataset"
    assert list(cells.obs_names) == list(adata.obs_names)
    cells = _run._read(tmp_path / "cells.h5ad", None, ["--report", "--n-top-genes"], said.append)
    assert "they are loaded, since --report and --n-top-genes need all of them at once" in said.pop()
    np.testing.assert_array_equal(cells.X.toarray(), adata.X.toarray())
    monkeypatch.undo()
    assert type(_run._read(tmp_path / "cells.h5ad", None, [], said.append).X) is type(cells.X)
    assert not said
