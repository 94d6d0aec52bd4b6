"""Every public name is on an API page, and has a docstring with an example that the tests run."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import raptorgraph as rg

API = Path(__file__).parents[2] / "docs" / "api"
ROOMS = ["model", "pp", "tl", "pl", "datasets", "metrics", "baselines", "benchmark", "nn"]
ROOMS += ["screen", "inference", "evaluation"]
SHELL = {"raptorgraph.cli", "raptorgraph.report"}  # the command line and what it writes, which have a page of their own
_MODULE = re.compile(r"^\.\. (?:current)?module:: (\S+)$")
_ENTRY = re.compile(r"^   ([\w.]+)$")
_DATA = re.compile(r"^\.\. py:data:: (\w+)$")


def documented() -> set[str]:
    """Full names in the tables of ``docs/api``."""
    found = set()
    for page in API.glob("*.md"):
        module = None
        for line in page.read_text().splitlines():
            if match := _MODULE.match(line):
                module = match[1]
            elif match := _ENTRY.match(line) or _DATA.match(line):
                found.add(f"{module}.{match[1]}")
    return found


def public() -> dict[str, object]:
    """Everything public: names of the rooms, and what the model's class has of this package."""
    found = {}
    for room in ROOMS:
        module = importlib.import_module(f"raptorgraph.{room}")
        found |= {f"raptorgraph.{room}.{name}": getattr(module, name) for name in module.__all__}
    model = rg.RaptorGraphModel
    del found["raptorgraph.model.RaptorGraphModel"]
    found["raptorgraph.RaptorGraphModel"] = model
    for name in dir(model):
        owner = next(cls for cls in model.__mro__ if name in vars(cls))
        if not name.startswith("_") and hasattr(model, name) and owner.__module__.startswith("raptorgraph."):
            found[f"raptorgraph.RaptorGraphModel.{name}"] = inspect.getattr_static(model, name)
    return found


def docstring(value: object) -> str:
    return inspect.getdoc(getattr(value, "__func__", value)) or ""


def test_what_is_public_is_documented():
    at_home = {f"raptorgraph.{name}" for name in rg.__all__} - {"raptorgraph.RaptorGraph", "raptorgraph.__version__"}
    rooms = {f"raptorgraph.{room}" for room in ROOMS}
    assert at_home - rooms - SHELL == {"raptorgraph.RaptorGraphModel"}
    missing = set(public()) - documented()
    assert sorted(missing) == []


def test_what_is_documented_is_there():
    inherited = {"raptorgraph.RaptorGraphModel.save"}
    gone = documented() - set(public()) - inherited
    assert sorted(gone) == []


@pytest.mark.parametrize("name", sorted(public()))
def test_docstring_and_example(name):
    value = public()[name]
    if name == "raptorgraph.benchmark.EXPERIMENTS":  # a tuple
        return
    text = docstring(value)
    assert text, f"{name} has no docstring"
    if isinstance(value, property) or (inspect.isclass(value) and issubclass(value, Exception)):
        return
    head, found, example = text.partition("\nExamples\n--------\n")
    assert found, f"{name} has no section Examples"
    assert ">>> " in example
