"""Configuration of the documentation: ``make docs`` builds it, without a network, into ``docs/_build/html``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from importlib.metadata import metadata
from importlib.metadata import version as installed_version
from pathlib import Path

import anndata
import matplotlib.axes
import mudata
import networkx
import pandas

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))
os.environ.setdefault("MPLBACKEND", "Agg")
# For the pages that show what the command prints: that of this environment, at the width of a page.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["COLUMNS"] = "90"
# Of imports, not of the documentation, whose warnings are errors.
warnings.filterwarnings("ignore", category=FutureWarning)
# sphinx-autodoc-typehints 3.6
warnings.filterwarnings("ignore", message=".*_RstSnippetParser.set_application")

project = "raptorgraph"
author = "raptorgraph developers"
project_copyright = "raptorgraph developers"
version = release = installed_version("raptorgraph")
SOURCE = dict(line.split(", ") for line in metadata("raptorgraph").get_all("Project-URL"))["Source"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",  # after napoleon
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
    "sphinxcontrib.programoutput",
    # in _ext: each says why it is there
    "local_tutorials",
    "numpydoc_prose",
    "page_buttons",
    "pl_figures",
    "whole_numbers",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "benchmark"]
templates_path = ["_templates"]
nitpicky = True

# -- text and notebooks ------------------------------------------------------------------------------------------------
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Tutorials are stored with their outputs; `make tutorials` runs them.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}

# -- API reference -----------------------------------------------------------------------------------------------------
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # sphinx_autodoc_typehints writes them into the lists of parameters
autodoc_type_aliases = {"ArrayLike": "numpy.typing.ArrayLike"}  # a union of a dozen types
always_use_bars_union = True
typehints_document_rtype = False  # the section Returns says it, with what it is
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


# -- links to the source -----------------------------------------------------------------------------------------------
def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Address of the lines that define an object of the package."""
    if domain != "py" or not info["module"]:
        return None
    found = importlib.import_module(info["module"])
    for name in info["fullname"].split("."):
        found = inspect.getattr_static(found, name, None) if inspect.isclass(found) else getattr(found, name, None)
    found = getattr(found, "fget", found)  # of a property
    found = inspect.unwrap(getattr(found, "__func__", found))
    try:
        lines, start = inspect.getsourcelines(found)
        path = Path(inspect.getsourcefile(found)).relative_to(DOCS.parent)
    except (TypeError, OSError, ValueError):  # data, and what the package has from elsewhere
        return None
    return f"{SOURCE}/blob/main/{path.as_posix()}#L{start}-L{start + len(lines) - 1}"


# -- references --------------------------------------------------------------------------------------------------------
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# -- links to other projects -------------------------------------------------------------------------------------------
# Their inventories need a network. Without one, names of other projects stay plain text.
intersphinx_mapping = (
    {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "networkx": ("https://networkx.org/documentation/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
    if os.environ.get("READTHEDOCS") or os.environ.get("DOCS_ONLINE")
    else {}
)
# The names under which these inventories have them.
for _cls in (anndata.AnnData, mudata.MuData, networkx.DiGraph, pandas.DataFrame, pandas.Series):
    _cls.__module__ = _cls.__module__.split(".")[0]
matplotlib.axes.Axes.__module__ = "matplotlib.axes"
_OTHERS = (
    "anndata|collections|gseapy|lightning|matplotlib|mudata|networkx|numpy|os|pandas|pathlib|scanpy|scipy|scvi|"
    "sklearn|torch|typing"
)
nitpick_ignore_regex = [
    ("py:.*", rf"({_OTHERS})(\..+)?"),
    ("py:class", r"(bool|bytes|dict|float|int|list|object|set|str|tuple|type|range)"),
    ("py:exc", r"\w*(Error|Warning)"),
    ("py:data", "Ellipsis"),
    # types of arguments that are not public
    ("py:class", r"raptorgraph\.(\w+\.)*_\w+\.\w+"),
    # in the signature of scvi-tools' save
    ("py:class", "LightningDataModule"),
]

# -- pages -------------------------------------------------------------------------------------------------------------
html_theme = "sphinx_book_theme"
html_title = "raptorgraph"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_theme_options = {
    "home_page_in_toc": False,
    "navbar_persistent": [],  # the sidebar has the search
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "repository_url": SOURCE,
    "repository_branch": "main",
    "path_to_docs": "docs",
    "use_download_button": True,  # of notebooks alone: see page_buttons
    "use_fullscreen_button": False,
    "use_repository_button": True,
    "use_source_button": True,
}
html_copy_source = True  # what the button of a notebook downloads
html_show_sourcelink = False

# MathJax as one file beside the pages: nothing is loaded from elsewhere.
_MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
html_static_path.append(str(_MATHJAX / "tex-svg-full.js"))
mathjax_path = "tex-svg-full.js"
