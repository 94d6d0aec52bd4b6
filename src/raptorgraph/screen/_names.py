"""Names as people write them: blanks around them, and text that stands for a missing one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

# What other programs write for a missing value, without case and brackets.
_MISSING = frozenset({"nan", "na", "n/a", "n.a", "none", "null"})


def means_missing(text: str) -> bool:
    """Whether a text stands for a missing value: ``nan``, ``NA``, ``<NA>``, ``N/A``, ``None``, ``null``, or no letters.

    Fruit flies have genes called *na* and *nan*; they need another spelling, since ``astype(str)`` writes ``nan`` for
    every missing label.
    """
    plain = text.strip().strip("<>()[]#\"'.-").casefold()
    return plain in _MISSING or not any(character.isalnum() for character in plain)


def stripped(names: Iterable[str], where: str) -> pd.Index:
    """Names without the blanks around them, shape as given; ValueError where that makes two of them the same."""
    given = pd.Index(names).astype(str)
    found = given.str.strip()
    if found.nunique() < given.nunique():
        spelled = [sorted(set(given[found == name])) for name in found[found.duplicated()].unique()]
        same = [repr(spelling) for spellings in spelled if len(spellings) > 1 for spelling in spellings]
        raise ValueError(
            f"{where} differ only in the blanks around them: {', '.join(same[:10])}. Rename all but one, or drop them."
        )
    return found


def gene_names(adata: AnnData) -> pd.Index:
    """Names of the genes without the blanks around them; `adata` is unchanged."""
    return stripped(adata.var_names, "var_names")


def strip_gene_names(adata: AnnData) -> None:
    """Take the blanks around ``var_names`` away, in place; everything else, ``raw`` included, stays as it is."""
    names = gene_names(adata)
    if list(names) != list(adata.var_names):
        adata.var_names = names.rename(adata.var_names.name)
