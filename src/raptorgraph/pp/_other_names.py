"""Perturbed genes that are among the genes under other names: in a column of ``var``, or in other letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from raptorgraph.pp._names import gene_names

if TYPE_CHECKING:
    from anndata import AnnData

_FEW = 0.2  # as a part of those that another reading finds: so few in var_names may be there by chance
_VERSION = r"\.\d+$"
_CHANGES: dict[str, Callable[[pd.Index], pd.Index]] = {
    "": lambda names: names,
    ".str.upper()": lambda names: names.str.upper(),
    ".str.capitalize()": lambda names: names.str.capitalize(),
    ".str.lower()": lambda names: names.str.lower(),
    f".str.replace(r'{_VERSION}', '', regex=True)": lambda names: names.str.replace(_VERSION, "", regex=True),
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


def text_columns(adata: AnnData) -> list:
    """Columns of ``var`` that hold text."""
    types = {
        column: values.cat.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
        for column, values in adata.var.items()
    }
    return [column for column, dtype in types.items() if pd.api.types.is_string_dtype(dtype)]


def texts(adata: AnnData, column) -> pd.Index:
    """Column of ``var`` without the blanks around its texts; empty where it is missing."""
    values = adata.var[column].astype(object)
    return pd.Index(values.where(values.notna(), "")).astype(str).str.strip()


def _message(adata: AnnData, genes: Sequence[str], direct: int, column, code: str, found: dict[str, str]) -> str:
    few = "None" if not direct else f"Only {direct}"
    examples = ", ".join(f"{gene!r} is {name!r}" for gene, name in list(found.items())[:2])
    if column is None:
        where, source = "var_names", "adata.var_names"
    else:
        where, source = f"var[{column!r}]", f"adata.var[{column!r}]"
        if adata.var[column].isna().any():
            source += ".astype(object).fillna(adata.var_names.to_series())"
        source += ".astype(str)"
    return (
        f"{few} of the {len(genes)} perturbed genes {'is' if direct < 2 else 'are'} in var_names, and {where}{code} "
        f"has {len(found)} of them ({examples} in var_names). A gene that is not found counts as not measured, and its "
        "latent is placed without its own expression. To mend it: "
        f"adata.var_names = {source}{code}; adata.var_names_make_unique()"
    )
