"""Sentences on the graph: its surest edges, and the genes that it cannot order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from raptorgraph._text import counted, listed, percent
from raptorgraph.inference._graph_modules import ORDERED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_OFTEN = 0.9  # frequency from which an edge is sure
_N_EDGES = 3
_MEANING = "A → B says that perturbing A does a part of what it does by moving B."


def unordered(edges: pd.DataFrame) -> pd.Series:
    """Which edges have a direction that the data do not support."""
    support = edges.get("direction_support", pd.Series(1.0, index=edges.index))
    return ~(support >= ORDERED)


def between(edges: pd.DataFrame, genes: Collection[str]) -> pd.Series:
    """Which edges join two of these genes."""
    return edges["source"].isin(genes) & edges["target"].isin(genes)


def surest(edges: pd.DataFrame, strong: Collection[str]) -> pd.DataFrame:
    """Edges that one may name: with a direction, between perturbations that stand out, and found again if resampled.

    The surest first: by frequency where the graph was resampled, else by probability.
    """
    kept = edges[~unordered(edges) & between(edges, strong)]
    if "frequency" in kept:
        kept = kept[kept["frequency"] >= _OFTEN]
    by = [name for name in ("frequency", "probability", "share") if name in kept]
    return kept.sort_values(by, ascending=False, kind="stable") if by else kept


def graph(edges: pd.DataFrame, strong: Collection[str], *, n_alone: int) -> str:
    """What the graph says.

    Parameters
    ----------
    edges
        Table of the edges of the model.
    strong
        Genes whose own perturbation stands out.
    n_alone
        Number of genes that were perturbed alone.
    """
    if n_alone < 2:
        return "There is no graph, which takes two genes that were perturbed alone."
    if edges.empty:
        return "The graph has no edge, which is no proof that no gene acts through another."
    has, resampled = f"The graph has {counted(len(edges), 'edge')}.", "frequency" in edges
    named = surest(edges, strong)
    if named.empty:
        if resampled:
            return (
                f"{has} None of them joins perturbations that stand out, has a direction that the data support, and "
                f"was found in {percent(_OFTEN)} or more of the resampled screens."
            )
        return f"{has} None of them joins perturbations that stand out and has a direction that the data support."
    told = [_edge(edge) for edge in named.head(_N_EDGES).to_dict("records")]
    are = "is" if len(told) == 1 else "are"
    if resampled:
        return (
            f"{has} {len(named):,} of them {'has' if len(named) == 1 else 'have'} a direction that the data support "
            f"and {'was' if len(named) == 1 else 'were'} found in {percent(_OFTEN)} or more of the resampled screens; "
            f"the surest {are} {listed(told)}. {_MEANING}"
        )
    if "probability" in edges:
        return (
            f"{has} By the model's own probabilities, which are too high on real screens, the surest {are} "
            f"{listed(told)}. {_MEANING}"
        )
    return f"{has} The heaviest {are} {listed(told)}; how sure they are is not known. {_MEANING}"


def modules(groups: Mapping[str, Sequence[str]], strong: Collection[str]) -> Iterator[str]:
    """Which genes act as one, a sentence for each group, as far as their own perturbations stand out."""
    for name, genes in groups.items():
        told = [gene for gene in genes if gene in strong]
        if len(told) > 1:
            yield f"{listed(told)} act as one ({name}): their effects are so alike that the data cannot order them."


def _edge(edge: Mapping[str, Any]) -> str:
    text, facts = f"{edge['source']} → {edge['target']}", []
    if pd.notna(edge.get("share")):
        facts.append(f"{percent(edge['share'])} of the effect of {edge['source']}")
    if pd.notna(edge.get("frequency")):
        facts.append(f"in {percent(edge['frequency'])} of the resampled screens")
    elif pd.notna(edge.get("probability")):
        facts.append(f"probability {edge['probability']:.2f}")
    return f"{text} ({', '.join(facts)})" if facts else text
