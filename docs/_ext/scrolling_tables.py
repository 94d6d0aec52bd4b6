"""Put every table into a box of its own, so that a wide one scrolls and the page does not; keep numbers on one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_NUMBER = re.compile(r"^[\s\d.,±+-]+%?$")


class ScrollingTables(SphinxPostTransform):
    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs) -> None:
        for table in list(self.document.findall(nodes.table)):
            box = nodes.container(classes=["table-box"])
            table.replace_self(box)
            box += table
            for entry in table.findall(nodes.entry):
                if _NUMBER.match(entry.astext()):
                    entry["classes"].append("number")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(ScrollingTables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
