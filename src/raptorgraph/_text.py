"""How numbers and names are written in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def percent(value: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * value:.0f} %"


def listed(names: Iterable[Any], most: int = 12) -> str:
    """Names in a sentence, and how many more there are."""
    names = [str(name) for name in names]
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def counted(n: int, one: str, many: str | None = None) -> str:
    """A number and its noun."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
