"""Names of genes and cells, and cells and genes without values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from input_table._row import GENES, LABELS, Row, closed_form, counts, labels, refused, same

if TYPE_CHECKING:
    import anndata as ad

G = "Names of genes and cells"


def genes(*names: str):
    """Change of the names of the first genes."""

    def change(adata: ad.AnnData) -> None:
        adata.var_names = [*names, *GENES[len(names) :]]

    return change


def columns(**names: str):
    """Effects of the plain screen, with other names of genes."""
    return lambda: closed_form().rename(columns=names)


def cells(*names: str):
    """Change of the names of the first cells."""

    def change(adata: ad.AnnData) -> None:
        adata.obs_names = [*names, *adata.obs_names[len(names) :]]

    return change


def other_alphabet(adata: ad.AnnData) -> None:
    labels([label.replace("KLF1", "Krüppel-β") for label in LABELS])(adata)
    adata.var_names = [name.replace("KLF1", "Krüppel-β") for name in GENES]


def with_values(change):
    """Change of the counts, cells x genes, in place."""

    def changed(adata: ad.AnnData) -> None:
        values = counts()
        change(values)
        adata.X = sparse.csr_matrix(values.astype(np.float32))

    return changed


def named_index(adata: ad.AnnData) -> None:
    adata.obs.index.name, adata.var.index.name = "cell", "gene"


def no_gene(values: np.ndarray) -> None:
    values[:, 6] = 0


def no_cell(values: np.ndarray) -> None:
    values[3] = 0


def without_gene() -> pd.DataFrame:
    values = counts()
    no_gene(values)
    return closed_form(values)


def without_cell() -> pd.DataFrame:
    values = counts()
    total = values.sum(axis=1) + 50
    no_cell(values)
    return closed_form(values, library=total)


ROWS: list[Row] = [
    same(G, "blanks around names of genes", genes("ACTB", " KLF1", "GAPDH ", "BAK1 "), happens="taken away"),
    same(G, "blanks within names of genes", genes("beta actin"), expected=columns(ACTB="beta actin")),
    same(
        G,
        "names of genes in other alphabets",
        other_alphabet,
        expected=lambda: closed_form().rename(
            index={"KLF1": "Krüppel-β", "BAK1+KLF1": "BAK1+Krüppel-β"}, columns={"KLF1": "Krüppel-β"}
        ),
    ),
    same(G, "a gene with an empty name", genes(""), happens="a gene of that name", expected=columns(ACTB="")),
    same(G, "names of genes that are numbers, as text", genes("1", "KLF1", "2"), expected=columns(ACTB="1", GAPDH="2")),
    same(
        G,
        "variables that read guides, `sgKLF1-1` or `NT_g1:KLF1_g2`",
        genes("sgKLF1-1"),
        warns="1 of 8 variables read guides and no genes",
        happens="they are read as genes; `rg.pp.guide_features` finds them",
        expected=columns(ACTB="sgKLF1-1"),
    ),
    same(G, "very long names", genes("A" * 5000), expected=columns(ACTB="A" * 5000)),
    refused(
        G,
        "a gene twice",
        genes("ACTB", "KLF1", "ACTB"),
        ValueError,
        "var_names are not unique",
        "ACTB",
        "var_names_make_unique()",
    ),
    refused(
        G,
        "genes that differ in blanks alone",
        genes("KLF1 "),
        ValueError,
        "var_names differ only in the blanks around them",
        "Rename all but one",
    ),
    refused(G, "a cell twice", cells("a", "a"), ValueError, "obs_names are not unique", "obs_names_make_unique()"),
    same(G, "names of cells with blanks, in other alphabets, empty", cells("", "Zelle ä", "细胞")),
    same(G, "a gene without a count", with_values(no_gene), happens="effects of 0", expected=without_gene),
    refused(
        G,
        "a cell without a count",
        with_values(no_cell),
        ValueError,
        "1 cells have no positive library size",
        "cell3 (0)",
        "filter_cells",
    ),
    same(
        G,
        "a cell without a count on these genes, with `library_size_key`",
        with_values(no_cell),
        happens="read",
        expected=without_cell,
        library_size_key="total",
    ),
    refused(G, "no cell", lambda adata: adata[:0].copy(), ValueError, "0 cells and 8 genes"),
    refused(G, "no gene", lambda adata: adata[:, :0].copy(), ValueError, "36 cells and 0 genes"),
    refused(
        G,
        "one gene, without `library_size_key`",
        lambda adata: adata[:, :1].copy(),
        ValueError,
        "adata has one gene, whose counts are no library sizes",
        "library_size_key",
    ),
    same(
        G,
        "one gene, with `library_size_key`",
        lambda adata: adata[:, :1].copy(),
        happens="read",
        expected=lambda: closed_form(counts()[:, :1], library=counts().sum(axis=1) + 50),
        library_size_key="total",
    ),
    same(
        G, "`raw`, with other genes", lambda adata: setattr(adata, "raw", adata[:, :3].copy()), happens="left as it is"
    ),
    same(G, "genes in any order", lambda adata: adata[:, ::-1].copy(), happens="matched by name"),
    refused(
        G,
        "a column of `var` twice",
        lambda adata: setattr(adata, "var", pd.concat([adata.var.assign(n=1)] * 2, axis=1)),
        ValueError,
        "adata.var has the column 'n' more than once",
        "rename one",
    ),
    refused(
        G,
        "a column of `obs` twice, which is not used",
        lambda adata: setattr(adata, "obs", pd.concat([adata.obs, adata.obs[["depth"]]], axis=1)),
        ValueError,
        "adata.obs has the column 'depth' more than once",
        "rename one",
    ),
    same(G, "cells in any order", lambda adata: adata[::-1].copy(), happens="the same effects"),
    same(G, "`obs` and `var` with an index that has a name", named_index),
]
