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
from raptorgraph._arguments import check_choice
from raptorgraph.datasets._normalization import NORMALIZATIONS, check_log, to_median, to_target
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import TARGET_SUM, data_kind, library_sizes, to_expression
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


def to_screen(
    adata: AnnData, n_top_genes: int | None, *, normalization: str = "1e4", held_out: Iterable[str] = ()
) -> AnnData:
    """Screen on the expression scale, with counts and library sizes where the file has them.

    The file has counts, or log-normalized values with or without ``layers["counts"]``. By the `normalization` ``X`` is
    ``log1p(1e4 * count / library size)``; or the same to the median library size, or as the file has it, and then there
    are no counts, so that nothing brings it to another scale. It is CSR float32. With counts there is
    ``layers["counts"]``, and of a whole transcriptome ``obs["total_counts"]`` too; ``uns["target_sum"]`` says what
    counts were normalized to where that is known. Of a whole transcriptome `n_top_genes` genes that are variable among
    the cells of all conditions but those `held_out` are kept beside the perturbed ones; None keeps all. Embeddings and
    graphs of the file are left out. ValueError where the file does not have what is asked for.
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
    counts = adata.layers.get("counts", None)
    if counts is None and data_kind(adata.X) == "counts":
        counts = adata.X
    whole = adata.n_vars >= WHOLE_TRANSCRIPTOME
    held = held_out_cells(adata, held_out)
    if held.any() and (not whole or n_top_genes is None):
        why = f"the file has {adata.n_vars} genes, chosen before" if not whole else "n_top_genes=None chooses none"
        raise ValueError(f"held_out is about the choice of genes, and {why}: leave it out.")
    if normalization == "file":
        check_log(adata.X, counts, adata.n_vars)
        counts = None
    elif normalization == "median" and (counts is None or not whole):
        raise ValueError(
            f"normalization='median' needs counts of all genes, and the file has {adata.n_vars} genes"
            + (" without counts" if counts is None else "")
            + ": use 'file' to keep what it has."
        )
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
        if normalization == "1e4":
            screen.X = to_target(screen.X, screen.obs)
        if counts is not None:
            screen.layers["counts"] = _csr(counts)
        return screen
    library = None
    if counts is not None:
        library = library_sizes(counts)
        screen.obs[LIBRARY_SIZE] = library
        screen.uns["target_sum"] = TARGET_SUM
    if normalization == "median":
        assert library is not None
        screen.X, screen.uns["target_sum"] = to_median(screen.X, library)
        counts = None
    if n_top_genes is not None:
        screen = _variable(screen, n_top_genes, held, LIBRARY_SIZE if counts is not None else None)
    if counts is not None:
        screen.layers["counts"] = screen.X
        screen.X = to_expression(screen.X, library)
    return screen


def _variable(screen: AnnData, n_top_genes: int, held: np.ndarray, library_size_key: str | None) -> AnnData:
    """Variable genes and all perturbed ones; those held out say nothing of which genes vary."""
    # this flavor needs no further package, so that the genes do not depend on what is installed
    how: dict[str, Any] = {"flavor": "seurat", "library_size_key": library_size_key}
    if not held.any():
        pp.select_genes(screen, n_top_genes, **how)
        return screen
    seen = screen[~held].copy()
    pp.select_genes(seen, n_top_genes, subset=False, **how)
    targets = screen.var_names.isin(parse_obs(screen, "perturbation", control=CONTROL).genes)
    screen.var["highly_variable"] = seen.var["highly_variable"].to_numpy() | targets
    screen.var["perturbation_target"] = targets
    screen._inplace_subset_var(screen.var["highly_variable"].to_numpy())
    return screen


def held_out_cells(adata: AnnData, held_out: Iterable[str]) -> np.ndarray:
    """Mask of the cells of these conditions, labels in any order of genes; ValueError for one that is not there."""
    if isinstance(held_out, str):
        raise TypeError(f"held_out={held_out!r} must be a list of labels: held_out=[{held_out!r}].")
    renamed = adata.uns["target_aliases"]
    known, asked = set(adata.obs["perturbation"].unique()), set()
    for label in held_out:
        genes = (renamed.get(gene, gene) for gene in genes_of_label(str(label)))
        canonical = pp.format_perturbation(genes, control=CONTROL)
        if canonical not in known or canonical == CONTROL:
            raise ValueError(f"held_out names {label!r}, which is no perturbation of the screen.")
        asked.add(canonical)
    found: np.ndarray = adata.obs["perturbation"].isin(asked).to_numpy()
    return found


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
