"""Let autodoc see the types of annotations: imports for type checkers are made, and types get their public names."""

from __future__ import annotations

import ast
import inspect
import sys
import typing
from typing import TYPE_CHECKING

import anndata
import matplotlib.axes
import matplotlib.figure
import mudata
import networkx
import pandas

import raptorgraph

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# numpy's own is a union of a dozen types.
_ARRAY_LIKE = type("ArrayLike", (), {"__module__": "numpy.typing"})


def resolve(app: Sphinx) -> None:
    """Run the imports under ``if TYPE_CHECKING`` in every module of the package, and evaluate annotations."""
    for room in [getattr(raptorgraph, name) for name in raptorgraph.__all__]:
        for name in room.__all__ if inspect.ismodule(room) else ():
            getattr(room, name)  # imports its module
    classes = set()
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] != "raptorgraph":
            continue
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                exec(compile(ast.unparse(node.body), name, "exec"), vars(module))
        if hasattr(module, "ArrayLike"):
            module.ArrayLike = _ARRAY_LIKE
        classes.update(value for value in vars(module).values() if isinstance(value, type))
    for cls in (anndata.AnnData, mudata.MuData, networkx.DiGraph, pandas.DataFrame, pandas.Series):
        cls.__module__ = cls.__module__.split(".")[0]
    matplotlib.axes.Axes.__module__ = "matplotlib.axes"
    # autodoc reads those of functions, and not those of a class's __init__.
    for cls in classes:
        if cls.__module__.startswith("raptorgraph.") and inspect.isfunction(vars(cls).get("__init__")):
            cls.__init__.__annotations__ = typing.get_type_hints(cls.__init__)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", resolve, priority=50)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
