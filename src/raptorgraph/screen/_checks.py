"""What a check says: what it looked at, what it found, how bad that is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from raptorgraph._text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WARNING, NOTE = "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes
    ----------
    level
        ``"warning"`` for what may lead to wrong conclusions, ``"note"`` for what is good to know.
    found
        A line.
    meaning, advice
        Sentences: what follows from it, and what to do.
    concerns
        Names of the genes, conditions, batches or parts of the model.
    named
        How the paragraph begins by naming these, by default as they are; empty where it does not.
    """

    level: str
    found: str
    meaning: str
    advice: str = ""
    concerns: tuple[str, ...] = ()
    named: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """Everything but the line, as a paragraph."""
        names = listed(self.concerns if self.named is None else self.named)
        return " ".join(part for part in (f"{names}." if names else "", self.meaning, self.advice) if part)


class NotChecked(Exception):
    """Raised by a check that lacks what it needs; the text says what."""


@dataclass(frozen=True)
class Checked:
    """A check that was made: its name, what it looks for, what it found, or why it could not be made."""

    name: str
    looks_for: str
    findings: tuple[Finding, ...] = ()
    reason: str = ""


def checked(name: str, looks_for: str, check: Callable[[], Iterable[Finding]]) -> Checked:
    """Make a check."""
    try:
        return Checked(name, looks_for, tuple(check()))
    except NotChecked as error:
        return Checked(name, looks_for, reason=str(error))


def table_of(checks: Iterable[Checked]) -> pd.DataFrame:
    """One row for each finding, and one for each check without; what fires comes first, warnings before notes."""
    rows = [row for check in checks for row in _rows(check)]
    table = pd.DataFrame(rows, columns=["check", "fires", "level", "found", "concerns", "meaning", "advice"])
    table["fires"] = table["fires"].astype("boolean")
    order = table["level"].map({WARNING: 0, NOTE: 1}).fillna(2)
    return table.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def _rows(check: Checked) -> list[tuple[object, ...]]:
    if check.reason:
        return [(check.name, pd.NA, "", f"Not checked: {check.reason}.", (), check.looks_for, "")]
    if not check.findings:
        return [(check.name, False, "", "Nothing stood out.", (), check.looks_for, "")]
    return [(check.name, True, x.level, x.found, x.concerns, x.meaning, x.advice) for x in check.findings]


warning, note = partial(Finding, WARNING), partial(Finding, NOTE)
