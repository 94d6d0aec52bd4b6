"""The graph of a model for other tools: networkx, and files that Cytoscape and Gephi read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd

from raptorgraph._docs import docs
from raptorgraph._files import replaced

if TYPE_CHECKING:
    from os import PathLike

    from raptorgraph.model import RaptorGraphModel

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (".graphml", *_SEPARATORS)


@docs.dedent
def to_networkx(model: RaptorGraphModel) -> nx.DiGraph:
    """Turn the graph of a model into a networkx graph.

    Parameters
    ----------
    %(model)s

    Returns
    -------
    networkx.DiGraph
        One node for each latent, named and ordered as in ``model.latent_names``, with the attribute ``perturbed``
        (bool): whether it belongs to a perturbed gene. One edge from cause to effect for each edge of
        ``model.get_dag()``, with

        - ``weight`` (float): effect of the cause on the effect, in the units of ``model.get_dag()``;
        - ``sign``: ``"+"`` or ``"-"``;
        - what else the model knows of its edges, under the names of those columns. A missing value is left out.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = rg.tl.to_networkx(model)
    >>> nx.is_directed_acyclic_graph(graph), list(graph) == model.latent_names
    (True, True)
    """
    perturbed = set(model.perturbed_genes)
    network = nx.DiGraph()
    network.add_nodes_from((name, {"perturbed": name in perturbed}) for name in model.latent_names)
    for edge in model.get_edges().to_dict("records"):  # its values are Python's own, as GraphML needs them
        source, target, weight = (edge.pop(name) for name in ("source", "target", "weight"))
        more = {name: value for name, value in edge.items() if not pd.isna(value)}
        network.add_edge(source, target, weight=float(weight), sign="+" if weight > 0 else "-", **more)
    return network


@docs.dedent
def write_dag(model: RaptorGraphModel, path: str | PathLike[str]) -> None:
    """Write the graph of a model to a file that other tools read.

    Parameters
    ----------
    %(model)s
    path
        File to write, replaced where it exists. Its suffix says the format:

        - ``.graphml``: the graph of :func:`to_networkx`, for Cytoscape, Gephi, igraph and networkx;
        - ``.csv``, ``.tsv``: one row for each edge, strongest first, with ``source``, ``interaction``
          (``"activates"`` or ``"represses"``, by the sign), ``target``, ``weight`` and what else the model knows of
          its edges: what Cytoscape's *Import Network from File* expects. Latents without an edge are not in it.

    Raises
    ------
    ValueError
        If the suffix is none of these.
    FileNotFoundError
        If the directory of `path` does not exist.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "graph.csv"
    >>> rg.tl.write_dag(model, file)
    >>> pd.read_csv(file).columns[:4].tolist()
    ['source', 'interaction', 'target', 'weight']
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"{str(path)!r}: the suffix {path.suffix!r} is unknown; use one of {', '.join(_SUFFIXES)}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{str(path)!r}: there is no directory {str(path.parent)!r}; create it first.")
    if suffix == ".graphml":
        with replaced(path) as part:
            nx.write_graphml(to_networkx(model), part)
        return
    table = model.get_edges()
    interaction = np.where(table["weight"] > 0, "activates", "represses")
    table.insert(table.columns.get_loc("source") + 1, "interaction", interaction)
    with replaced(path) as part:
        table.to_csv(part, sep=_SEPARATORS[suffix], index=False)
