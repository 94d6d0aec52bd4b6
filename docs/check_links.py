"""Whether the links of the built pages lead somewhere: ``python docs/check_links.py docs/_build/html``.

Sphinx checks the links between its sources; this checks what came of them, with pictures, downloads and anchors, for
links within the pages. Links to other sites are checked by ``make linkcheck``, which needs a network.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

_MADE_BY_SCRIPTS = {"genindex.html", "search.html"}
_OF_MODULES = "module-"  # which Sphinx names in its indices and docutils leaves out of some pages


class _Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        link = found.get("href") if tag in ("a", "link") else found.get("src")
        if link and not urlsplit(link).scheme and not link.startswith("//"):
            self.links.append(link)


def broken(folder: Path) -> list[str]:
    """Links of the pages in a folder that lead nowhere."""
    files = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in files}
    found = []
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if urlsplit(address).path else path
            if not target.is_file():
                found.append(f"{path.relative_to(folder)}: {link}")
            elif not anchor or target not in pages or target.name in _MADE_BY_SCRIPTS or anchor.startswith(_OF_MODULES):
                continue
            elif unquote(anchor) not in pages[target].anchors:
                found.append(f"{path.relative_to(folder)}: {link} (no such anchor)")
    return found


def main() -> int:
    """Print what is broken."""
    found = broken(Path(sys.argv[1]).resolve())
    for line in found:
        print(line, file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
