"""Read numpydoc docstrings as they are meant where napoleon takes prose for types.

Our own: napoleon takes the first line of Returns for a type and each line of a paragraph for a value, of a property
what stands before a colon, and of several attributes on a line all but the last; sphinx-autodoc-typehints does not mend
it, and neither does the extension of scverse-misc, which documents deprecations and settings (from Python 3.12 on).
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


def _parse_attributes_section(self: NumpyDocstring, section: str) -> list[str]:
    fields = self._consume_fields(multiple=True)
    return [line for name, _, text in fields for line in self._format_block(f":ivar {name}: ", text)] + [""]


def _consume_inline_attribute(self: NumpyDocstring) -> tuple[str, list[str]]:
    return "", NumpyDocstring(self._dedent(self._consume_to_end()), self._config).lines()


def setup(app: Sphinx) -> dict[str, bool]:
    NumpyDocstring._parse_returns_section = _parse_returns_section
    NumpyDocstring._parse_attributes_section = _parse_attributes_section
    NumpyDocstring._consume_inline_attribute = _consume_inline_attribute
    return {"parallel_read_safe": True, "parallel_write_safe": True}
