"""Perturbed genes that are among the genes under other names: in a column of ``var``, or in other letters."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from raptorgraph.screen._names import gene_names, means_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from anndata import AnnData

_FEW = 0.2  # as a part of those that another reading finds: so few in var_names may be there by chance
_VERSION = r"\.\d+$"
_GENOME = r"^(?:GRCh38|GRCm39|hg19|hg38|mm10)_+"  # before genes of screens that were mapped to two genomes
VERSIONED = r"(ENS[A-Z]*\d{11})\.\d+"
"""An Ensembl id with its version."""
_CHANGES: dict[str, Callable[[pd.Index], pd.Index]] = {
    "": lambda names: names,
    ".str.upper()": lambda names: names.str.upper(),
    ".str.capitalize()": lambda names: names.str.capitalize(),
    ".str.lower()": lambda names: names.str.lower(),
    f".str.replace(r'{_VERSION}', '', regex=True)": lambda names: names.str.replace(_VERSION, "", regex=True),
    f".str.replace(r'{_GENOME}', '', regex=True)": lambda names: names.str.replace(_GENOME, "", regex=True),
}


class OtherNames(NamedTuple):
    """How perturbed genes that are not in ``var_names`` are found.

    Attributes
    ----------
    found
        Name in ``var_names`` of each perturbed gene that the other reading finds.
    message
        A sentence with the reason and the lines that mend it.
    """

    found: dict[str, str]
    message: str


def other_names(adata: AnnData, genes: Sequence[str]) -> OtherNames | None:
    """The reading of ``var`` that finds most of the perturbed genes; None where ``var_names`` do about as well."""
    var_names = gene_names(adata)
    direct = len(set(genes) & set(var_names))
    best: tuple[int, str | None, str, pd.Index] | None = None
    if 2 * direct >= len(genes):
        return None
    for column in (None, *text_columns(adata)):
        names = var_names if column is None else texts(adata, column)
        for code, change in _CHANGES.items():
            changed = change(names)
            n = len(set(genes) & set(changed))
            if best is None or n > best[0]:
                best = n, column, code, changed
    if best is None or best[0] < min(2, len(genes)) or direct > _FEW * best[0]:
        return None
    n, column, code, names = best
    by_name = dict(zip(names[::-1], var_names[::-1], strict=True))  # the first of several
    found = {gene: by_name[gene] for gene in genes if gene in by_name}
    return OtherNames(found, _message(adata, genes, direct, column, code, found))


def versioned_ids(adata: AnnData, genes: Collection[str]) -> dict[str, str]:
    """Ensembl ids without their versions, of perturbed genes that ``var`` has without one or with another."""
    plain = {gene: match[1] for gene in genes if (match := re.fullmatch(VERSIONED, gene))}
    if not plain:
        return {}
    var_names = gene_names(adata)
    known = pd.Index(var_names).union(pd.Index([name for key in text_columns(adata) for name in texts(adata, key)]))
    known = set(known.str.replace(_VERSION, "", regex=True)) if not set(plain) & set(known) else set()
    return {gene: name for gene, name in sorted(plain.items()) if name in known}


def text_columns(adata: AnnData) -> list[str]:
    """Columns of ``var`` that hold text."""
    types = {
        column: values.cat.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
        for column, values in adata.var.items()
    }
    return [column for column, dtype in types.items() if pd.api.types.is_string_dtype(dtype)]


def texts(adata: AnnData, column: str) -> pd.Index:
    """Column of ``var`` without the blanks around its texts; empty where it is missing."""
    values = adata.var[column].astype(object)
    return pd.Index(values.where(values.notna(), "")).astype(str).str.strip()


def _message(
    adata: AnnData, genes: Sequence[str], direct: int, column: str | None, code: str, found: dict[str, str]
) -> str:
    few = "None" if not direct else f"Only {direct}"
    examples = ", ".join(f"{gene!r} is {name!r}" for gene, name in list(found.items())[:2])
    if column is None:
        where, source = "var_names", "adata.var_names"
    else:
        where, source = f"var[{column!r}]", f"adata.var[{column!r}]"
        values = adata.var[column]
        empty = sorted({text for text in values.dropna().unique() if means_missing(text)})
        if values.isna().any() or empty:
            there = f"{source}.notna() & ~{source}.isin({empty!r})" if empty else f"{source}.notna()"
            source += f".astype(object).where({there}, adata.var_names)"
        source += ".astype(str)"
    # the old names stay in a column, unless they are in one
    kept = any(list(texts(adata, key)) == list(gene_names(adata)) for key in text_columns(adata))
    keep = "" if kept else f"adata.var[{_free(adata)!r}] = adata.var_names; "
    return (
        f"{few} of the {len(genes)} perturbed genes {'is' if direct < 2 else 'are'} in var_names, and {where}{code} "
        f"has {len(found)} of them ({examples} in var_names). A gene that is not found counts as not measured, and its "
        "latent is placed without its own expression. To mend it: "
        f"{keep}adata.var_names = {source}{code}; adata.var_names_make_unique()"
    )


def _free(adata: AnnData) -> str:
    """Name of a column that is not there."""
    return next(name for i in count() if (name := f"former_name{i or ''}") not in adata.var)
