"""What sections of the page consist of, beside tables and figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raptorgraph.report._figures import Picture
    from raptorgraph.report._tables import Table

IMPORTANT, NOTE = "important", "note"


@dataclass(frozen=True)
class Text:
    """A paragraph; ``strong`` for one that sums up."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: list[str]


@dataclass(frozen=True)
class Terms:
    """Names and their values or explanations."""

    items: list[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """A command, as it is typed."""

    text: str


@dataclass(frozen=True)
class Note:
    """One thing to know: ``level`` (`IMPORTANT` or `NOTE`), a title and the explanation."""

    level: str
    title: str
    text: str


@dataclass(frozen=True)
class Notes:
    """Things to know."""

    items: list[Note]


@dataclass
class Section:
    """A section: ``name`` is its anchor."""

    name: str
    title: str
    blocks: list[Any] = field(default_factory=list)

    def add(self, *blocks: Text | Heading | Bullets | Terms | Code | Notes | Table | Picture) -> Section:
        """Append blocks; returns the section."""
        self.blocks.extend(blocks)
        return self
