"""Counts that a screen has elsewhere than where it is read from: for messages, never taken for granted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raptorgraph.screen._expression import data_kind
from raptorgraph.screen._matrix import as_matrix, to_dense
from raptorgraph.screen._stored import is_stored, values_of

if TYPE_CHECKING:
    from anndata import AnnData

_PARTS = {"spliced", "unspliced", "ambiguous", "mature", "nascent"}  # of the counts
_LOOKED_AT = 50  # cells in which logarithms are compared with counts


def kind_of(values: Any) -> str | None:
    """``"counts"`` or ``"log"``; None for values that are neither, are not there or are not in memory."""
    if values is None or is_stored(values):
        return None
    try:
        return data_kind(values)
    except (ValueError, TypeError):
        return None


def counts_layer(adata: AnnData, layer: str | None = None) -> str | None:
    """Name of another layer that holds counts.

    Where the screen is read from holds logarithms, they must be those of these counts: zero in the same places.
    """
    X = values_of(adata) if layer is None else adata.layers[layer]
    names = [name for name in adata.layers if name != layer and str(name).lower() not in _PARTS]
    return next((str(name) for name in names if _are_counts_of(X, adata.layers[name])), None)


def counts_hint(adata: AnnData, layer: str | None = None) -> str:
    """How to read the counts that a screen has elsewhere, a sentence with a blank before it; or an empty text."""
    name = counts_layer(adata, layer)
    if name is not None:
        return f" adata.layers[{name!r}] holds counts: name it, layer={name!r} (--layer {name})."
    if not adata.isbacked and adata.raw is not None and _are_counts_of(None, adata.raw.X):
        return " adata.raw holds counts: take them, adata = adata.raw.to_adata()."
    return ""


def _are_counts_of(X: Any, values: Any) -> bool:
    if kind_of(values) != "counts":
        return False
    first = to_dense(as_matrix(values[:_LOOKED_AT]))
    if first.max() <= 1:  # a mask, or nothing to tell it from one
        return False
    if kind_of(X) != "log":
        return True
    return bool(((to_dense(as_matrix(X[:_LOOKED_AT])) > 0) == (first > 0)).all())
