"""Give notebooks a button to download them, and pages one that leads to their source, as far as these exist.

Our own: the theme offers both for all pages or none, knows no pages that are made by the builder, and no notebooks that
are copied from ``tutorials/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_MADE = ("api/generated/", "genindex", "search", "py-modindex")


def is_notebook(pagename: str, context: dict[str, Any]) -> bool:
    return pagename.startswith("tutorials/") and context.get("page_source_suffix") == ".ipynb"


def set_folder(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Notebooks lie beside ``docs``; before the theme makes addresses."""
    if is_notebook(pagename, context):
        context["doc_path"] = ""


def drop_buttons(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Take away what leads nowhere; after the theme made the buttons."""
    dropped = set() if is_notebook(pagename, context) else {"download-buttons"}
    if pagename.startswith(_MADE):
        dropped |= {"source-buttons", "source-file-button"}
    buttons = context.get("header_buttons", [])
    context["header_buttons"] = [button for button in buttons if button.get("label") not in dropped]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", set_folder, priority=400)
    app.connect("html-page-context", drop_buttons, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
