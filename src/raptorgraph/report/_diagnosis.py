"""The section on what was checked, whether or not it fired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from raptorgraph._text import counted
from raptorgraph.report._blocks import Section
from raptorgraph.report._tables import Column, table
from raptorgraph.screen._checks import WARNING

if TYPE_CHECKING:
    from raptorgraph.report._findings import Findings
    from raptorgraph.screen._checks import Checked

_TESTED = "held-out predictions"  # which a report tests itself, by second fits


def what_was_checked(found: Findings) -> Section:
    """All checks, with what each looked for and what it found."""
    rows = [(check.name, check.looks_for, _result(check)) for check in found.checks if check.name != _TESTED]
    columns = {
        "check": Column("check"),
        "looks_for": Column("looks for", wide=True),
        "result": Column("result", wide=True),
    }
    return Section("checks", "What was checked").add(
        table(
            "checked",
            "Checks of the screen and of the model",
            "What fired is explained under “What to know before using the results”; “nothing stood out” is no proof "
            "that all is well. model.diagnose() makes the same checks of a saved model.",
            pd.DataFrame(rows, columns=list(columns)),
            columns,
            strong=[k for k, row in enumerate(rows) if row[0] in _with_warnings(found.checks)],
        )
    )


def _with_warnings(checks: list[Checked]) -> set[str]:
    return {check.name for check in checks if any(finding.level == WARNING for finding in check.findings)}


def _result(check: Checked) -> str:
    if check.reason:
        return f"Not checked: {check.reason}."
    n_warnings = sum(finding.level == WARNING for finding in check.findings)
    n_notes = len(check.findings) - n_warnings
    said = [counted(n, what) for n, what in ((n_warnings, "warning"), (n_notes, "note")) if n]
    return " and ".join(said) if said else "Nothing stood out."
