"""From sections to one HTML page that needs nothing else."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from raptorgraph._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.report._blocks import Section

_TEMPLATE = "page.html.jinja"


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """HTML of the page.

    Parameters
    ----------
    title, subtitle
        Title of the page, and the line below it.
    sections
        Sections of the page, in their order.

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
    page = environment.get_template(_TEMPLATE).render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        version=__version__,
        style=Markup(_resource("style.css")),
        script=Markup(_resource("sort.js")),
    )
    return page.lstrip()


def _resource(name: str) -> str:
    return (files("raptorgraph.report") / name).read_text(encoding="utf-8")
