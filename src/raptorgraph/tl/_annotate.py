"""A short label for each latent: the gene set that marks it, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._arguments import check_number
from raptorgraph.pp._gene_sets import clean_set_name

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel

_ARROWS = {"up": "↑", "down": "↓"}
_NO_EFFECT, _NO_SET, _NOT_ASKED = "no effect beyond noise", "no enriched set", "not analyzed"


def annotate_latents(
    model: RaptorGraphModel, enrichment: pd.DataFrame, *, fdr: float = 0.05, distinct: bool = False
) -> pd.DataFrame:
    """Give each latent a short label from its gene sets, or say why it has none.

    A gene set marks a latent if the latent's effect stands out from sampling noise, the set's false discovery rates
    are at most `fdr` both against random gene sets (``FDR``) and against control cells (``FDR_null``), and the cells
    move in the direction of the score. Where the table has no columns of the cells, ``FDR`` alone counts.

    Parameters
    ----------
    model
        The model, whose latents are named.
    enrichment
        Table of :func:`enrich`.
    fdr
        Largest false discovery rate.
    distinct
        How the set that names a latent is chosen: the one with the smallest FDR (of several, the largest absolute
        NES), or, if True, the one whose NES is farthest on its own side of the median over latents that stand out.
        Perturbations of one screen often move the same sets; this names them by what sets them apart.

    Returns
    -------
    pandas.DataFrame
        One row for each of ``model.latent_names``, its index, with

        - ``label``: name of the set and an arrow, such as ``"Heme metabolism ↑"``; an empty string where there is none;
        - ``summary``: ``"KLF1: heme metabolism ↑"``, or ``"KLF1: no effect beyond noise"``;
        - ``reason``: empty, or why there is no label: ``"no effect beyond noise"``, ``"no enriched set"``, or
          ``"not analyzed"`` for latents that the table does not have;
        - ``gene_set``, ``direction`` (``"up"``, ``"down"`` or empty), ``NES``, ``FDR`` and, if known, ``FDR_null`` of
          that set;
        - ``n_sets``: how many sets mark the latent;
        - ``shared``: share of the other latents that stand out which the same set marks in the same direction. Near
          1, the set belongs to the screen more than to the latent.

        Nothing is written into the model or its data. ``rg.pl.dag(model, label=table)`` and ``color=table`` take the
        table as it is.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If `fdr` is not between 0 and 1, or the table names a latent that the model has not.

    Examples
    --------
    >>> table = rg.tl.enrich(model, gene_sets, activation="learned", n_permutations=100, n_null=100)
    >>> labels = rg.tl.annotate_latents(model, table)
    >>> list(labels.index) == model.latent_names
    True
    >>> labels.loc[model.latent_names[-1], "summary"]
    'latent_9: not analyzed'
    """
    names = list(model.latent_names)
    _check(enrichment, names, fdr)
    # as categories or pandas' own text, they would make text of the numbers that are looked up by them
    table = enrichment.astype({"latent": object, "gene_set": object})
    known = "stands_out" in table
    clear = table["stands_out"].astype(bool) if known else pd.Series(True, index=table.index)
    found = table[clear & _marks(table, fdr)].copy()
    center = table[clear].groupby("gene_set")["NES"].median()
    found["size"] = found["NES"].abs()
    found["apart"] = np.sign(found["NES"]) * (found["NES"] - center.reindex(found["gene_set"]).to_numpy(dtype=float))
    found["direction"] = np.where(found["NES"] > 0, "up", "down")
    order = (["apart", "FDR"], [False, True]) if distinct else (["FDR", "size"], [True, False])
    best = found.sort_values(order[0], ascending=order[1], kind="stable").drop_duplicates("latent")
    best = best.set_index("latent").reindex(names)

    columns = ["gene_set", "direction", "NES", "FDR", *(["FDR_null"] if "FDR_null" in table else [])]
    result = best[columns].copy()
    result[["gene_set", "direction"]] = result[["gene_set", "direction"]].fillna("")
    result["n_sets"] = found.groupby("latent").size().reindex(names, fill_value=0)
    n_others = max(table[clear]["latent"].nunique() - 1, 1)
    alike = found.groupby(["gene_set", "direction"]).size()
    keys = pd.MultiIndex.from_frame(result[["gene_set", "direction"]])
    result["shared"] = (alike.reindex(keys).to_numpy() - 1) / n_others
    text = [f"{clean_set_name(name)} {_ARROWS[side]}" if name else "" for name, side in keys]
    asked, standing = set(table["latent"]), set(table[clear]["latent"])
    reason = [
        "" if label else _NOT_ASKED if name not in asked else _NO_EFFECT if name not in standing else _NO_SET
        for name, label in zip(names, text, strict=True)
    ]
    result.insert(0, "label", text)
    result.insert(1, "summary", [f"{n}: {_start(t) or r}" for n, t, r in zip(names, text, reason, strict=True)])
    result.insert(2, "reason", reason)
    result.index.name = "latent"
    return result


def _marks(table: pd.DataFrame, fdr: float) -> pd.Series:
    """Whether each row's set counts, apart from the size of the latent's effect."""
    marks = table["FDR"] <= fdr
    if "FDR_null" in table:  # NaN where a latent has no cells of its own
        alone = table["FDR_null"].isna()
        marks &= alone | ((table["FDR_null"] <= fdr) & (np.sign(table["change"]) == np.sign(table["NES"])))
    return marks


def _start(text: str) -> str:
    """The text for the middle of a line, with a small first letter where only the beginning of a name made it large."""
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if first.isalpha() and first.istitle() else text


def _check(table: pd.DataFrame, names: list[str], fdr: float) -> None:
    check_number("fdr", fdr, 0, 1, above=True)
    needed = ["latent", "gene_set", "NES", "FDR", *(["change"] if "FDR_null" in table else [])]
    missing = [column for column in needed if column not in table]
    if missing:
        raise KeyError(
            f"The table has no column {missing[0]!r}, only {list(table.columns)}: give the table of rg.tl.enrich."
        )
    unknown = [name for name in table["latent"].unique() if name not in set(names)]
    if unknown:
        raise ValueError(f"{unknown[0]!r} in the table is not a latent of the model: give the table of this model.")
