"""Labels of a screen made canonical, and tabulated with their targets."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._label_hints import likely_names, no_control_message
from raptorgraph.screen._labels import (
    ParsedLabels,
    control_labels,
    distinct_labels,
    format_perturbation,
    gene_set,
    parse_perturbation,
)
from raptorgraph.screen._names import gene_names
from raptorgraph.screen._setup_hints import label_hints, label_variants, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def tidy_labels(
    adata: AnnData,
    perturbation_key: str = "perturbation",
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    key_added: str | None = None,
    collapse: bool = False,
) -> None:
    """Write one canonical label for every spelling of a perturbation.

    Warns if no cell is a control cell, since an unknown control label would be kept as a gene.

    Parameters
    ----------
    adata
        Cells x genes, with a perturbation label for each cell.
    perturbation_key
        Column of ``adata.obs`` with the labels.
    control
        Label, or several labels, of the control; all become the first.
    delimiter
        What separates the genes of a combination.
    key_added
        Column to write; by default `perturbation_key`, whose labels are replaced.
    collapse
        Whether to write genes without the guides and doses in their names, as :func:`perturbation_report` points them
        out: ``KLF1_1``, ``KLF1|g2`` and ``sgKLF1-3`` become ``KLF1``, ``DRUG (10nM)`` becomes ``DRUG``. Names that are
        in ``var_names`` stay as they are.

    Returns
    -------
    Nothing; writes ``adata.obs[key_added or perturbation_key]``, categorical, the control first and the others sorted.

    Raises
    ------
    KeyError
        If the column is not there.
    TypeError
        If a label is not a string.
    ValueError
        If labels are missing or empty, or have an empty part.

    Examples
    --------
    >>> adata.obs["perturbation"] = adata.obs["perturbation"].astype(object).replace("P01+P03", "P03 + P01 + control")
    >>> rg.pp.tidy_labels(adata)
    >>> list(adata.obs["perturbation"].cat.categories[:4])
    ['control', 'P01', 'P01+P03', 'P02']

    Guides of one gene are one perturbation:

    >>> adata.obs["guide"] = adata.obs["perturbation"].astype(object).replace("P01", "P01_g2")
    >>> rg.pp.tidy_labels(adata, "guide", collapse=True)
    >>> list(adata.obs["guide"].cat.categories[:4])
    ['control', 'P01', 'P01+P03', 'P02']
    """
    parsed = parse_obs(adata, perturbation_key, control=control, delimiter=delimiter)
    if collapse:
        variants = label_variants(adata, parsed.genes, control)
        genes = variants.guides | variants.doses
        bases = [
            gene_set([genes.get(gene, gene) for gene in one], control_labels(control), delimiter)
            for one in parsed.conditions
        ]
        conditions = ((), *sorted(set(bases) - {()}))
        position = {one: i for i, one in enumerate(conditions)}
        codes = np.array([position[one] for one in bases])[parsed.codes]
        parsed = ParsedLabels(codes, conditions, tuple(sorted({gene for one in conditions for gene in one})))
    names = [format_perturbation(genes, control=control, delimiter=delimiter) for genes in parsed.conditions]
    if not (parsed.codes == 0).any():
        spellings, _ = distinct_labels(adata.obs[perturbation_key])
        message = no_control_message(adata.obs[perturbation_key], spellings, control_labels(control), delimiter)
        warnings.warn(message, UserWarning, stacklevel=2)
        used, codes = names[1:], parsed.codes - 1
    else:
        used, codes = names, parsed.codes
    adata.obs[key_added or perturbation_key] = pd.Categorical.from_codes(codes, categories=used)


def perturbation_report(
    adata: AnnData,
    perturbation_key: str = "perturbation",
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
) -> pd.DataFrame:
    """Tabulate the perturbations of a screen: cells, targets, and which targets are among the genes.

    A perturbed gene outside ``adata.var_names`` (not measured, filtered out, or under another name) can be modeled,
    but its own expression cannot be read; names that look like it are suggested. Warns of what
    :meth:`raptorgraph.RaptorGraphModel.setup_anndata` would warn of in these labels.

    Parameters
    ----------
    adata
        Cells x genes, with a perturbation label for each cell.
    perturbation_key
        Column of ``adata.obs`` with the labels.
    control
        Label, or several labels, of the control.
    delimiter
        What separates the genes of a combination.

    Returns
    -------
    One row for each perturbation, indexed by its canonical label, the control first (also when no cell carries it):

    - ``n_cells``: number of cells, all spellings together;
    - ``n_genes``: number of perturbed genes;
    - ``targets_in_var``: the perturbed genes among ``adata.var_names``, joined by the delimiter;
    - ``targets_missing``: the others, joined by the delimiter;
    - ``suggestions``: for missing targets, ``"target -> gene"`` where a column of ``var`` has the target for that
      gene, a gene has the same name up to case and punctuation, or else nearly the same, or the target looks like a
      guide or a dose of it; hints to check, not matches;
    - ``spellings``: the labels found in the column, joined by ``", "``.

    ``attrs["hints"]`` lists what it warns of.

    Raises
    ------
    KeyError
        If the column is not there.
    TypeError
        If a label is not a string.
    ValueError
        If labels are missing or empty, or have an empty part.

    Examples
    --------
    >>> report = rg.pp.perturbation_report(adata)
    >>> report.loc[["control", "P01", "P01+P03"], ["n_cells", "n_genes", "targets_in_var"]]
                  n_cells  n_genes targets_in_var
    perturbation
    control           300        0
    P01                80        1            P01
    P01+P03            80        2        P01+P03
    """
    report = tabulate_labels(adata, perturbation_key, control=control, delimiter=delimiter)
    warn(report.attrs["hints"])
    return report


def tabulate_labels(
    adata: AnnData, perturbation_key: str, *, control: str | Sequence[str], delimiter: str
) -> pd.DataFrame:
    """:func:`perturbation_report` without warnings."""
    parsed = parse_obs(adata, perturbation_key, control=control, delimiter=delimiter)
    spellings, _ = distinct_labels(adata.obs[perturbation_key])
    spelled: dict[tuple[str, ...], list[str]] = {condition: [] for condition in parsed.conditions}
    for spelling in spellings:
        spelled[parse_perturbation(spelling, control=control, delimiter=delimiter)].append(spelling)

    var_names = gene_names(adata)
    measured = set(var_names)
    messages, others = label_hints(adata, parsed, perturbation_key, control, delimiter)
    variants = label_variants(adata, parsed.genes, control)
    hints = likely_names([gene for gene in parsed.genes if gene not in measured], var_names, parsed.genes)
    hints = variants.guides | variants.doses | hints | (others.found if others is not None else {})
    n_cells = np.bincount(parsed.codes, minlength=len(parsed.conditions))
    rows = []
    for condition, n in zip(parsed.conditions, n_cells, strict=True):
        missing = [gene for gene in condition if gene not in measured]
        rows.append(
            {
                "n_cells": n,
                "n_genes": len(condition),
                "targets_in_var": delimiter.join(gene for gene in condition if gene in measured),
                "targets_missing": delimiter.join(missing),
                "suggestions": ", ".join(f"{gene} -> {hints[gene]}" for gene in missing if gene in hints),
                "spellings": ", ".join(sorted(spelled[condition])),
            }
        )
    names = [format_perturbation(genes, control=control, delimiter=delimiter) for genes in parsed.conditions]
    report = pd.DataFrame(rows, index=pd.Index(names, name="perturbation"))
    report.attrs["hints"] = messages
    return report
