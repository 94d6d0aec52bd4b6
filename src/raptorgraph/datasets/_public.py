"""Public screens: labels, gene names, choice of genes and the comparison with published numbers."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from raptorgraph import pp
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import data_kind, library_sizes, to_expression
from raptorgraph.screen._matrix import as_matrix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CONTROL = "control"
LIBRARY_SIZE = "total_counts"
WHOLE_TRANSCRIPTOME = 15_000  # genes; with fewer, the variable ones were taken, and row sums are no library sizes

_CONTROL_PART = re.compile(r"(control|ctrl|negctrl\w*|)", re.IGNORECASE)
_SYMBOL_COLUMNS = ("gene_symbols", "gene_name", "symbol")


def genes_of_label(label: str) -> tuple[str, ...]:
    """Perturbed genes that a label of a public file names, in its order; ``()`` for control.

    Understands ``"A"``, ``"A+B"``, ``"A+ctrl"``, ``"ctrl+A"``, ``"A_B"``, ``"A,B"``, ``""``, ``"ctrl"``,
    ``"control"`` and guide pairs such as ``"A_NegCtrl0__A_NegCtrl0_2"``.
    """
    parts = re.split(r"[_+,]", label.split("__", maxsplit=1)[0])
    return tuple(part.strip() for part in parts if not _CONTROL_PART.fullmatch(part.strip()))


def set_labels(adata: AnnData, labels: pd.Series, aliases: Iterable[Sequence[str]] = ()) -> None:
    """Write canonical labels, with the names of ``adata.var_names`` for genes that are there under an alias.

    The labels are read by :func:`genes_of_label`; `aliases` are groups of names of one gene. Writes
    ``adata.obs["perturbation"]`` (categorical) and ``adata.uns["target_aliases"]`` (old to new name). ValueError if
    labels are missing.
    """
    missing = labels.index[labels.isna()]
    if len(missing):
        raise ValueError(f"obs[{labels.name!r}] is missing for {len(missing)} cells (first: {missing[0]}).")
    genes = {label: genes_of_label(label) for label in labels.unique()}
    targets = sorted({gene for group in genes.values() for gene in group})
    renamed = _resolve(targets, adata.var_names, aliases)
    canonical = {
        label: pp.format_perturbation((renamed.get(gene, gene) for gene in group), control=CONTROL)
        for label, group in genes.items()
    }
    adata.obs["perturbation"] = pd.Categorical(labels.astype(object).map(canonical))
    adata.uns["target_aliases"] = renamed
    pp.tidy_labels(adata, "perturbation", control=CONTROL)


def use_symbols(adata: AnnData) -> None:
    """Name genes by their symbols where the file names them by Ensembl identifiers; make the names unique."""
    column = next((name for name in _SYMBOL_COLUMNS if name in adata.var), None)
    if column is not None and adata.var_names.str.startswith("ENSG").all():
        adata.var["gene_ids"] = adata.var_names
        adata.var_names = adata.var[column].astype(str).to_numpy()
    adata.var.index.name = None
    adata.var_names_make_unique()


def to_screen(adata: AnnData, n_top_genes: int | None) -> AnnData:
    """Screen on the expression scale, with counts and library sizes where the file has them.

    The file has counts, or log-normalized values with or without ``layers["counts"]``. ``X`` is then ``log1p(1e4 *
    count / library size)``, CSR float32; with counts there are ``layers["counts"]``, and of a whole transcriptome
    ``obs["total_counts"]`` too. Of a whole transcriptome `n_top_genes` variable genes are kept beside the perturbed
    ones; None keeps all. Embeddings and graphs of the file are left out. ValueError if there are counts of a part of
    the genes and no log-normalized values.
    """
    counts = adata.layers.get("counts", None)
    if counts is None and data_kind(adata.X) == "counts":
        counts = adata.X
    whole = adata.n_vars >= WHOLE_TRANSCRIPTOME
    if not whole and counts is adata.X:
        raise ValueError(
            f"The file has counts of {adata.n_vars} genes, whose sums are no library sizes: use a file with the whole "
            "transcriptome, or with log-normalized values."
        )
    screen = AnnData(
        _csr(counts if whole and counts is not None else adata.X),
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns={"target_aliases": adata.uns["target_aliases"]},
    )
    if not whole:
        if counts is not None:
            screen.layers["counts"] = _csr(counts)
        return screen
    library = None
    if counts is not None:
        library = library_sizes(counts)
        screen.obs[LIBRARY_SIZE] = library
    if n_top_genes is not None:
        # this flavor needs no further package, so that the genes do not depend on what is installed
        pp.select_genes(
            screen, n_top_genes, flavor="seurat", library_size_key=None if library is None else LIBRARY_SIZE
        )
    if counts is not None:
        screen.layers["counts"] = screen.X
        screen.X = to_expression(screen.X, library)
    return screen


def numbers(adata: AnnData) -> dict[str, int]:
    """Numbers of cells, conditions (with the control), singles, doubles and targets."""
    parsed = parse_obs(adata, "perturbation", control=CONTROL)
    sizes = [len(genes) for genes in parsed.conditions]
    return {
        "cells": adata.n_obs,
        "conditions": len(np.unique(parsed.codes)),
        "singles": sizes.count(1),
        "doubles": sizes.count(2),
        "targets": len(parsed.genes),
    }


def check_published(found: Mapping[str, int], published: Mapping[str, int], source: str) -> None:
    """Warn of every number that is not as published in `source`; numbers without a counterpart are not compared."""
    differences = [
        f"{name}: {found[name]:,}, published {number:,}"
        for name, number in published.items()
        if name in found and found[name] != number
    ]
    if differences:
        warnings.warn(
            f"The screen differs from the published one ({source}): {'; '.join(differences)}. "
            "check=False loads it without this comparison.",
            UserWarning,
            stacklevel=3,
        )


def _resolve(targets: Sequence[str], var_names: pd.Index, aliases: Iterable[Sequence[str]]) -> dict[str, str]:
    """New name of each target that is among the genes under an alias only."""
    renamed = {}
    for group in aliases:
        there = [name for name in group if name in var_names]
        renamed.update({gene: there[0] for gene in group if there and gene in targets and gene not in there})
    return renamed


def _csr(X: Any) -> sparse.csr_matrix:
    return sparse.csr_matrix(as_matrix(X), dtype=np.float32)
