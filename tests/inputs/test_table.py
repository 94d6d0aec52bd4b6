"""Every input of the table does what the documentation says."""

import contextlib
import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest
from input_table import ROWS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_input(row, case):
    warns = pytest.warns(UserWarning, match=re.escape(row.warns)) if row.warns else contextlib.nullcontext()
    if row.error is None:
        with warns:
            row.act(case)
        return
    with pytest.raises(row.error) as caught, warns:
        row.act(case)
    assert type(caught.value) is row.error
    text = caught.value.args[0] if isinstance(caught.value, KeyError) else str(caught.value)
    for part in row.says:
        assert part in text, text


def test_the_table_is_long_and_every_row_has_a_name_of_its_own():
    assert len(ROWS) >= 150
    assert [name for name, n in Counter(row.id for row in ROWS).items() if n > 1] == []
    assert all(row.answer for row in ROWS)


def test_the_page_is_what_the_table_says():
    spec = importlib.util.spec_from_file_location("build_inputs", ROOT / "docs" / "build_inputs.py")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    assert (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8") == builder.build(), "run `make inputs`"
