"""Labels of a screen made canonical, and tabulated with their targets."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph._docs import docs
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._guide_features import feature_hint
from raptorgraph.screen._guide_features import guide_features as which_read_guides
from raptorgraph.screen._label_hints import likely_names, no_control_message
from raptorgraph.screen._labels import control_labels, parse_labels
from raptorgraph.screen._names import gene_names
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._setup_hints import label_hints, label_variants, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@docs.dedent
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
    %(perturbation_key)s
    control
        Label, or several labels, of the control; all become the first.
    %(delimiter)s
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
    setup = Setup(perturbation_key, control, delimiter)
    parsed = parse_obs(adata, perturbation_key, **setup.spelling)
    if collapse:
        variants = label_variants(adata, parsed.genes, control)
        gene_of = variants.guides | variants.doses
        labels = [setup.label(gene_of.get(gene, gene) for gene in genes) for genes in parsed.conditions]
        parsed = parse_labels([labels[code] for code in parsed.codes], **setup.spelling)
    first = parsed.codes.min()  # 1 where no cell is a control cell
    if first:
        message = no_control_message(adata.obs[perturbation_key], control_labels(control), delimiter)
        warnings.warn(message, UserWarning, stacklevel=2)
    categories = [setup.label(genes) for genes in parsed.conditions[first:]]
    adata.obs[key_added or perturbation_key] = pd.Categorical.from_codes(parsed.codes - first, categories=categories)


@docs.dedent
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
    %(perturbation_key)s
    %(control)s
    %(delimiter)s

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
    report = tabulate_labels(adata, Setup(perturbation_key, control, delimiter))
    warn(report.attrs["hints"])
    return report


@docs.dedent
def guide_features(
    adata: AnnData,
    perturbation_key: str = "perturbation",
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
) -> np.ndarray:
    """Find variables that read a guide rather than a gene.

    They tell which guide a cell carries, and nothing of what it does: a model that has them knows the perturbation of
    every cell, and its latents, responders and scores look better than they are.
    :meth:`raptorgraph.RaptorGraphModel.setup_anndata` warns of them.

    Parameters
    ----------
    adata
        Cells x variables, with a perturbation label for each cell.
    %(perturbation_key)s
    %(control)s
    %(delimiter)s

    Returns
    -------
    Shape (n_vars,), bool: True where ``adata.var["feature_types"]`` is ``"CRISPR Guide Capture"``, or where the name
    is that of a guide, or of several, of a perturbed gene: ``KLF1_g2``, ``sgKLF1-3``, ``NT_g1:KLF1_g2``.

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
    >>> int(rg.pp.guide_features(adata).sum())
    0
    >>> adata.var_names = ["sgP01-1", "P02_g1:P03_g2", *adata.var_names[2:]]
    >>> adata.var_names[rg.pp.guide_features(adata)].tolist()
    ['sgP01-1', 'P02_g1:P03_g2']
    >>> adata = adata[:, ~rg.pp.guide_features(adata)].copy()
    """
    setup = Setup(perturbation_key, control, delimiter)
    return which_read_guides(adata, parse_obs(adata, perturbation_key, **setup.spelling).genes)


def tabulate_labels(adata: AnnData, setup: Setup) -> pd.DataFrame:
    """:func:`perturbation_report` without warnings."""
    parsed = parse_obs(adata, setup.perturbation_key, **setup.spelling)
    spelled: dict[tuple[str, ...], list[str]] = {condition: [] for condition in parsed.conditions}
    for spelling in adata.obs[setup.perturbation_key].unique():
        spelled[setup.genes(spelling)].append(spelling)

    var_names = gene_names(adata)
    measured = set(var_names)
    messages, others = label_hints(adata, parsed, setup)
    messages += feature_hint(adata, parsed.genes, setup)
    variants = label_variants(adata, parsed.genes, setup["control"])
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
                "targets_in_var": setup.delimiter.join(gene for gene in condition if gene in measured),
                "targets_missing": setup.delimiter.join(missing),
                "suggestions": ", ".join(f"{gene} -> {hints[gene]}" for gene in missing if gene in hints),
                "spellings": ", ".join(sorted(spelled[condition])),
            }
        )
    report = pd.DataFrame(rows, index=pd.Index(map(setup.label, parsed.conditions), name="perturbation"))
    report.attrs["hints"] = messages
    return report
