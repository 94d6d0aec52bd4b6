"""Mark the cells of tables that hold numbers, so that these stay on one line.

Our own: a style cannot tell numbers from words. That wide tables scroll is the theme's work.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_NUMBER = re.compile(r"^[\s\d.,±+-]+%?$")


class WholeNumbers(SphinxPostTransform):
    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs) -> None:
        for entry in self.document.findall(nodes.entry):
            if _NUMBER.match(entry.astext()):
                entry["classes"].append("number")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(WholeNumbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
