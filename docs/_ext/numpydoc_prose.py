"""Read as prose what napoleon would take for types: the section Returns, and the first line of a property.

Our own: napoleon takes the first line of Returns for a type and each line of a paragraph for a value, and of a property
what stands before a colon; neither sphinx-autodoc-typehints nor scverse-misc's extension (for deprecations and
settings) does it otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sphinx.ext.napoleon import NumpyDocstring

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _parse_returns_section(self: NumpyDocstring, section: str) -> list[str]:
    lines = self._dedent(self._consume_to_next_section())
    if lines and lines[0] == ":":  # which sphinx-autodoc-typehints puts there
        lines = lines[1:]
    # On lines of their own, so that a type with an indented text below it becomes a list of definitions.
    return [":returns:", "", *self._indent(lines, 3), ""]


def _consume_inline_attribute(self: NumpyDocstring) -> tuple[str, list[str]]:
    return "", NumpyDocstring(self._dedent(self._consume_to_end()), self._config).lines()


def setup(app: Sphinx) -> dict[str, bool]:
    NumpyDocstring._parse_returns_section = _parse_returns_section
    NumpyDocstring._consume_inline_attribute = _consume_inline_attribute
    return {"parallel_read_safe": True, "parallel_write_safe": True}
