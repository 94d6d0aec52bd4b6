"""Build ``docs/inputs.md`` from the table of inputs that the tests run, ``tests/inputs/input_table``.

``python docs/build_inputs.py`` (or ``make inputs``) writes it; a test says when it is out of date.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

DOCS = Path(__file__).parent
TABLE = DOCS.parent / "tests" / "inputs"

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD = """\
# What you have, and what happens

Every line of these tables is a test: a small screen is changed in one place and read, and either its effects come out \
as they should, or one error says what is wrong and what to do. The data stay as they were where they are refused. \
Text behind the type of an error, or behind "warning", is part of its message; "…" stands for what is between.

This page is made from the {n} inputs of `tests/inputs` by `make inputs`. "The same effects" are those of the plain \
screen: counts in a sparse matrix, text as labels, `control` and `+`.
"""


def build(folder: Path = TABLE) -> str:
    """Text of the page."""
    sys.path.insert(0, str(folder))
    try:
        from input_table import ROWS
    finally:
        sys.path.remove(str(folder))
    parts = [_HEAD.format(n=len(ROWS))]
    for group, rows in groupby(ROWS, key=lambda row: row.group):
        parts.append(f"## {group}\n\n{_table((row.have, row.answer) for row in rows)}")
    return "\n".join(parts)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = ["| what you have | what happens |", "|---|---|"]
    return "\n".join([*lines, *(f"| {_cell(have)} | {_cell(answer)} |" for have, answer in rows)]) + "\n"


def _cell(text: str) -> str:
    """Text for a cell of a table of Markdown: a backslash, a star and a low line outside of code are what they are."""
    parts = " ".join(text.split()).split("`")
    for i in range(0, len(parts), 2):
        for mark in "\\*_<>[]$":
            parts[i] = parts[i].replace(mark, f"\\{mark}")
    return "`".join(parts).replace("\\|", "|").replace("|", "\\|")


if __name__ == "__main__":
    (DOCS / "inputs.md").write_text(build(), encoding="utf-8")
