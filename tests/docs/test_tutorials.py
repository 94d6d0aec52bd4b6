"""Notebooks are stored as they ran, and come into the documentation with links that fit."""

import importlib.util
import json
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
