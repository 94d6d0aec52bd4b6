"""The directive ``command-help``: what ``raptorgraph COMMAND --help`` prints, so that pages say what it does."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from raptorgraph.cli._commands import _parser

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class CommandHelp(SphinxDirective):
    """Help of the program (without an argument) or of one of its commands."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        parser = _parser()
        if self.arguments:
            commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
            parser = commands.choices[self.arguments[0]]
        before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "90"
        text = parser.format_help()
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
