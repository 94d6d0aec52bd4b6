"""Notebooks are stored as they ran, and come into the documentation with links that fit."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def extension():
    path = ROOT / "docs" / "_ext" / "local_tutorials.py"
    spec = importlib.util.spec_from_file_location("local_tutorials", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_fit_where_notebooks_are_copied_to(extension, tmp_path):
    text = ["See [the graph](../docs/graph.md#how-sure-to-be)\n", "and [another](02_b.ipynb)."]
    cells = [
        {"cell_type": "markdown", "source": text},
        {"cell_type": "markdown", "source": "".join(text)},
        {"cell_type": "code", "source": ["a = '](../docs/x)'"]},
    ]
    path = tmp_path / "01_a.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    adapted = json.loads(extension._adapted(path))["cells"]
    expected = "See [the graph](../graph.md#how-sure-to-be)\nand [another](02_b.ipynb)."
    assert ["".join(cell["source"]) for cell in adapted[:2]] == [expected, expected]
    assert adapted[2] == cells[2]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_ran(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code" and cell["source"]]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds - {"error"} == kinds
    assert kinds  # it shows something


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_fits_on_a_page_and_says_the_name_of_the_class(path):
    lines = [line for code in code_cells(path) for line in code.splitlines()]
    assert [line for line in lines if len(line) > 76] == []
    assert [line for line in lines if "rg.RaptorGraph(" in line or "rg.RaptorGraph." in line] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_files_that_a_notebook_reads_are_named(path, runner):
    notebook = runner.nbformat.read(path, as_version=4)
    code = "\n".join(code_cells(path))
    named = notebook.metadata.get("raptorgraph", {}).get("data", [])
    assert sorted(re.findall(r'folder / "([^"]+)"', code)) == sorted(named)
    assert ("RAPTORGRAPH_DATA" in code) == bool(named)


@pytest.fixture(scope="module")
def runner():
    pytest.importorskip("nbclient")
    spec = importlib.util.spec_from_file_location("run_tutorials", ROOT / "docs" / "run_tutorials.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAPTORGRAPH_DATA", "TQDM_DISABLE"):  # which the module sets
            patch.setenv(name, os.environ.get(name, ""))
        patch.delenv("RAPTORGRAPH_DATA")
        spec.loader.exec_module(module)
    return module


def test_without_its_data_a_notebook_is_skipped_with_a_reason(runner, tmp_path, monkeypatch, capsys):
    (tmp_path / "01_real.ipynb").write_text(
        json.dumps({"cells": [], "metadata": {"raptorgraph": {"data": ["a.h5ad"]}}, "nbformat": 4, "nbformat_minor": 5})
    )
    monkeypatch.setattr(runner, "TUTORIALS", tmp_path)
    monkeypatch.setenv("RAPTORGRAPH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(runner.sys, "argv", ["run_tutorials.py"])
    ran = []
    monkeypatch.setattr(runner, "run", lambda path, write: ran.append((path.name, write)))
    assert runner.main() == 0
    assert capsys.readouterr().out == f"01_real.ipynb: skipped, a.h5ad not in {tmp_path / 'data'} (RAPTORGRAPH_DATA)\n"
    assert ran == []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.h5ad").touch()
    assert runner.main() == 0
    assert ran == [("01_real.ipynb", True)]
    assert capsys.readouterr().out.startswith("01_real.ipynb: ran in ")
