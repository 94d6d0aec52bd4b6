"""The table of equations: what it names exists, every number of the paper is there once, and no other way of citing."""

import ast
import functools
import importlib
import operator
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "equations.md"
NUMBERS = [*(f"Eq. {i}" for i in range(1, 8)), *(f"Eq. S{i}" for i in range(1, 26))]  # the paper's, without a gap
HEAD = "| paper | says | here | test |"
_OBJECT = re.compile(r"\{\w+\}`~?(raptorgraph[\w.]*)`|`(raptorgraph\.[\w.]+)`")
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
# "equation (4)", "Eq (4)", "Eq.4", "eq. S9", "Eqs. 4", "(S21)" and "Sec. D.4", but no "Eq. 4" or "section D.4"
_OTHER_WAYS = re.compile(
    r"\b[Ee]quations? \(?S?\d|\b[Ee]q \(?S?\d|\b[Ee]qs?\.\(?S?\d|\beqs?\. \(?S?\d|\bEqs\. |\bEq\. \(|\(S\d+\)"
    r"|\bSec\. ?[A-F1-6]|\bSections? [A-F]\.\d|\b[Aa]ppendix [A-F]\b|\bpaper, [A-F]\.\d"
    r"|Eq\. S?\d+(, | and | to )S?\d"
)


def rows() -> list[list[str]]:
    """Cells of the rows of all tables."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("|") and line != HEAD and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]


def resolve(name: str) -> object:
    """Object of a dotted name, whose first parts are modules."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        return operator.attrgetter(".".join(parts[n:]))(module) if n < len(parts) else module
    raise ModuleNotFoundError(name)


@functools.cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_number_is_there_once():
    found = [cells[0] for cells in rows() if cells[0].startswith("Eq.")]
    assert sorted(found) == sorted(NUMBERS)


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: cells[0])
def test_objects_and_tests_exist(cells):
    _, says, here, test = cells
    assert says
    names = [a or b for a, b in _OBJECT.findall(here)]
    for name in names:
        assert resolve(name) is not None
    if here.startswith("not here: "):
        assert names == []
        assert test == ""
        return
    assert names
    ((file, function),) = _TEST.findall(test)
    assert function in functions(file)


def test_equations_are_cited_in_one_way():
    pages = [page for page in (ROOT / "docs").rglob("*.md") if not {"_build", "generated"} & set(page.parts)]
    wrong = [
        f"{path.relative_to(ROOT)}:{i}: {match[0]}"
        for path in [*(ROOT / "src").rglob("*.py"), *pages]
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := _OTHER_WAYS.search(line))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "way",
    [
        "equation (4)",
        "Eq. (S1)",
        "Eq.4",
        "eq. S9",
        "Eqs. 4",
        "(S21)",
        "Sec. D.4",
        "Eq. 4, S21",
        "Eq. S9 and S10",
        "paper, D.4",
    ],
)
def test_other_ways_are_found(way):
    assert _OTHER_WAYS.search(way)


@pytest.mark.parametrize("way", ["(Eq. 4)", "(Eq. 4, Eq. S21)", "section D.4", "sections B to F", "Tables S4 and S5"])
def test_the_one_way_is_free(way):
    assert not _OTHER_WAYS.search(way)
