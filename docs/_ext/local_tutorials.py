"""Bring the notebooks of ``tutorials/`` into the documentation, with their links to it made to fit.

Our own, since Sphinx reads below ``docs/`` alone: nbsphinx-link and a link in the file system leave links as they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_LINK = re.compile(r"\]\(\.\./docs/")


def copy_notebooks(app: Sphinx) -> None:
    """Copy what changed; remove what is no longer there."""
    target = Path(app.srcdir) / "tutorials"
    source = Path(app.srcdir).parent / "tutorials"
    notebooks = {path.name: _adapted(path) for path in sorted(source.glob("[0-9]*.ipynb"))}
    for path in target.glob("*.ipynb"):
        if path.name not in notebooks:
            path.unlink()
    for name, text in notebooks.items():
        path = target / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _adapted(path: Path) -> str:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            lines = [cell["source"]] if isinstance(cell["source"], str) else cell["source"]
            cell["source"] = [_LINK.sub("](../", line) for line in lines]
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def list_notebooks(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add those that there are to the page of tutorials."""
    if docname == "tutorials/index":
        names = [path.stem for path in sorted((Path(app.srcdir) / "tutorials").glob("*.ipynb"))]
        source[0] += "\n".join(["\n```{toctree}", *names, "```\n"])


def reread_list(app: Sphinx, *args) -> list[str]:
    """The page depends on which notebooks there are."""
    return ["tutorials/index"]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_notebooks, priority=100)
    app.connect("source-read", list_notebooks)
    app.connect("env-get-outdated", reread_list)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
