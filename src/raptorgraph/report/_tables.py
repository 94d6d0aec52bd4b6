"""Tables of the page: what each cell shows, and what it is sorted by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MISSING = "–"
Z = 1.645  # an interval of 90 % is so many standard errors to either side


@dataclass(frozen=True)
class Column:
    """A column: its heading, how a value is written, and what the heading means (shown when pointed at).

    ``number`` says that it is sorted by value, ``wide`` that it holds sentences.
    """

    title: str
    text: Callable[[Any], str] = str
    hint: str = ""
    number: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Cell:
    """What is written, and the number it is sorted by (None for text, which is sorted as it is written)."""

    text: str
    value: float | None = None
    missing: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted.

    Attributes
    ----------
    name
        Name of the element, unique on the page.
    caption
        What the table is.
    reading
        A sentence on how to read it.
    columns, rows
        Headings and cells; ``strong`` has the positions of rows to set off.
    """

    name: str
    caption: str
    reading: str
    columns: list[Column]
    rows: list[list[Cell]]
    strong: frozenset[int] = frozenset()


def table(
    name: str,
    caption: str,
    reading: str,
    frame: pd.DataFrame,
    columns: Mapping[str, Column],
    *,
    strong: Iterable[int] = (),
) -> Table:
    """Table of some columns of a frame.

    Parameters
    ----------
    name, caption, reading
        See :class:`Table`.
    frame
        Values; tuples of a number and its error or interval are sorted by the number.
    columns
        Column of the frame and how it is shown.
    strong
        Positions of rows to set off.
    """
    rows = [
        [_cell(column, value) for column, value in zip(columns.values(), values, strict=True)]
        for values in frame[list(columns)].itertuples(index=False, name=None)
    ]
    return Table(name, caption, reading, list(columns.values()), rows, frozenset(strong))


def _cell(column: Column, value: Any) -> Cell:
    by = value[0] if isinstance(value, tuple) else value
    if pd.isna(by):
        return Cell(MISSING, missing=True)
    return Cell(column.text(value), float(by) if column.number else None)


# -- how values are written --------------------------------------------------------------------------------------------
def fixed(digits: int) -> Callable[[float], str]:
    """Write a number with so many digits after the point, and a true minus sign."""

    def write(value: float) -> str:
        text = f"{value:,.{digits}f}"
        zero = not text.strip("-0.,")
        return text.lstrip("-") if zero else text.replace("-", "\N{MINUS SIGN}")

    return write


def whole(value: float) -> str:
    """Write an integer with separators."""
    return f"{int(value):,}"


def with_error(digits: int, errors: float = Z) -> Callable[[tuple[float, float]], str]:
    """Write (value, standard error) with its interval of 90 %, as `with_interval` does; alone where it is unknown.

    The interval is so many standard `errors` to either side.
    """
    write = with_interval(digits)
    return lambda pair: write((pair[0], pair[0] - errors * pair[1], pair[0] + errors * pair[1]))


def with_interval(digits: int) -> Callable[[tuple[float, float, float]], str]:
    """Write (value, low, high) as ``value [low, high]``; the interval is left out where there is none."""
    write = fixed(digits)

    def text(three: tuple[float, float, float]) -> str:
        value, low, high = three
        return write(value) if pd.isna(low) or pd.isna(high) else f"{write(value)} [{write(low)}, {write(high)}]"

    return text


def small(value: float) -> str:
    """Write a p value, q value or FDR."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def yes_no(value: bool) -> str:
    """Write a truth value."""
    return "yes" if value else "no"
