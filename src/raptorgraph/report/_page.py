"""From sections to one HTML page that needs nothing else."""

from __future__ import annotations

import re
from importlib.resources import files as resources
from typing import TYPE_CHECKING

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from raptorgraph._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from raptorgraph.report._blocks import Section

_TEMPLATE = "page.html.jinja"


def render(title: str, subtitle: str, sections: Sequence[Section], files: Collection[str] = ()) -> str:
    """HTML of the page.

    Parameters
    ----------
    title, subtitle
        Title of the page, and the line below it.
    sections
        Sections of the page, in their order.
    files
        Names of files beside the page, which become links wherever a text names them.

    Returns
    -------
    A complete document: style, script and figures are in it, and it asks for nothing from elsewhere. All text is
    escaped.
    """
    # not by file name, since the loaders' choice of what to escape goes by it
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["linked"] = _linking(files)
    page = environment.get_template(_TEMPLATE).render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        version=__version__,
        style=Markup(_resource("style.css")),
        script=Markup(_resource("sort.js")),
    )
    return page.lstrip()


def _linking(files: Collection[str]) -> Callable[[str], Markup]:
    """Escape a text, and make links of the names of files in it."""
    names = "|".join(re.escape(name) for name in sorted(files, key=len, reverse=True))
    # not within another name, such as that of a file in a folder
    pattern = re.compile(rf"(?<![\w./\\-])(?:{names})(?![\w/\\-]|\.\w)") if names else None

    def linked(text: str) -> Markup:
        safe = str(escape(text))
        return Markup(safe if pattern is None else pattern.sub(r'<a href="\g<0>">\g<0></a>', safe))

    return linked


def _resource(name: str) -> str:
    return (resources("raptorgraph.report") / name).read_text(encoding="utf-8")
