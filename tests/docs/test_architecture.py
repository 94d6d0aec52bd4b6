"""The plan of the house speaks of the house that there is."""

import pkgutil
import re
from pathlib import Path

import pytest

import raptorgraph as rg
from raptorgraph.benchmark import EXPERIMENTS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
FILES = sorted(set(re.findall(r"`((?:[a-z]+/)+_\w+\.py)`", TEXT)))


def test_every_room_is_there_once():
    assert sorted(ROOMS) == sorted(m.name for m in pkgutil.iter_modules(rg.__path__) if not m.name.startswith("_"))


@pytest.mark.parametrize("file", FILES)
def test_files_exist(file):
    file = file.removeprefix("raptorgraph/")
    assert (ROOT / "src" / "raptorgraph" / file).is_file()


def test_files_are_found():
    assert {"nn/_encoder.py", "benchmark/_capacity.py", "raptorgraph/_arguments.py"} <= set(FILES)


@pytest.mark.parametrize("what", ["Eq. 4", "Eq. S21", "Eq. S23", "section D.4", "the effect model", "the graph model"])
def test_what_strangers_look_for_is_in_the_table(what):
    (row,) = re.findall(rf"^\| {re.escape(what)}\b.*$", TEXT, re.MULTILINE)
    assert re.search(r"`\w+/_\w+\.py`.*raptorgraph\.", row)


def test_every_experiment_is_said_to_ask_something():
    text = (ROOT / "docs" / "api" / "benchmark.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `([\w-]+)` \| \w+", text, re.MULTILINE)) == sorted(EXPERIMENTS)


def test_classes_and_constants_that_are_named_are_in_the_package():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    names = set(re.findall(r"`([A-Z]\w+|_[A-Z]+)`", TEXT)) - {"RAPTORGRAPH_REGENERATE"}
    assert {"EdgeTable", "LIKELIHOODS", "Screen", "_SHOWN"} <= names
    assert [name for name in names if not re.search(rf"^(class )?{name}\b", source, re.MULTILINE)] == []
