"""Perturbation labels: a perturbation is a set of genes, and a label is one way to spell it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raptorgraph._docs import docs
from raptorgraph.screen._label_hints import no_control_message
from raptorgraph.screen._names import means_missing


@dataclass(frozen=True)
class ParsedLabels:
    """The perturbation of every cell.

    Attributes
    ----------
    codes
        Shape (n_cells,), int64: the index of each cell's perturbation in `conditions`.
    conditions
        The distinct perturbations, each a sorted tuple of genes. ``conditions[0]`` is always ``()``, the control,
        even when no cell carries it; the others are sorted.
    genes
        All perturbed genes, sorted.
    """

    codes: np.ndarray
    conditions: tuple[tuple[str, ...], ...]
    genes: tuple[str, ...]


@docs.dedent
def parse_perturbation(
    label: str | Collection[str], *, control: str | Sequence[str] = "control", delimiter: str = "+"
) -> tuple[str, ...]:
    """Split a perturbation label into the genes it names.

    Order, repetition, white space around the parts and control labels inside a combination do not matter:
    ``"A+B"``, ``"B + A"``, ``"A+B+A"`` and ``"control+A+B"`` are the same perturbation.

    Parameters
    ----------
    label
        Label of a cell or a perturbation, or a tuple, list or set of its genes.
    %(control)s
    %(delimiter)s

    Returns
    -------
    The sorted distinct genes; ``()`` for the control.

    Raises
    ------
    TypeError
        If the label is neither a string nor a collection of strings.
    ValueError
        If the label or a part of it is empty or text for a missing value (``nan``, ``NA``, ``None``, ...) and no
        control label, a gene of a collection contains the delimiter, or `control` or `delimiter` is empty.

    Examples
    --------
    >>> rg.pp.parse_perturbation("KLF1+control+BAK1")
    ('BAK1', 'KLF1')
    >>> rg.pp.parse_perturbation({"KLF1", "BAK1"})
    ('BAK1', 'KLF1')
    """
    return _parse(label, control_labels(control), _check_delimiter(delimiter))


@docs.dedent
def format_perturbation(genes: Iterable[str], *, control: str | Sequence[str] = "control", delimiter: str = "+") -> str:
    """Write a set of genes as its canonical label, the inverse of :func:`parse_perturbation`.

    Parameters
    ----------
    genes
        The perturbed genes, in any order; control labels among them are dropped.
    %(control)s
    %(delimiter)s

    Returns
    -------
    The sorted distinct genes joined by the delimiter; the first control label if there are none.

    Raises
    ------
    TypeError
        If `genes` is a string or holds something other than strings.
    ValueError
        If a gene is empty, text for a missing value, or contains the delimiter, or `control` or `delimiter` is empty.

    Examples
    --------
    >>> rg.pp.format_perturbation(["KLF1", "BAK1"])
    'BAK1+KLF1'
    """
    if isinstance(genes, str):
        raise TypeError(
            f"genes must be a list of gene names, not the string {genes!r}; parse_perturbation splits a label."
        )
    controls, delimiter = control_labels(control), _check_delimiter(delimiter)
    distinct = _gene_set(genes, controls, delimiter)
    return delimiter.join(distinct) if distinct else controls[0]


@docs.dedent
def parse_labels(
    labels: pd.Series | Sequence[str],
    *,
    control: str | Sequence[str] = "control",
    delimiter: str = "+",
    require_control: bool = False,
) -> ParsedLabels:
    """Parse the labels of all cells, each distinct label once.

    Parameters
    ----------
    labels
        Shape (n_cells,): one label a cell, a Series (its index then names the cells in errors) or a sequence.
    %(control)s
    %(delimiter)s
    require_control
        Whether to raise if no cell is a control cell.

    Returns
    -------
    The codes of the cells, the distinct perturbations and the perturbed genes.

    Raises
    ------
    TypeError
        If a label is not a string.
    ValueError
        If labels or parts of them are missing, empty or text for a missing value, or if `require_control` and no cell
        is control.
    """
    controls, delimiter = control_labels(control), _check_delimiter(delimiter)
    labels = labels if isinstance(labels, pd.Series) else pd.Series(list(labels), dtype=object)
    spellings, raw_codes = _distinct_labels(labels)
    _check_labeled(labels, spellings, raw_codes, controls, delimiter)

    parsed = [_parse(spelling, controls, delimiter) for spelling in spellings]
    conditions = ((), *sorted(set(parsed) - {()}))
    position = {condition: i for i, condition in enumerate(conditions)}
    codes = np.array([position[genes] for genes in parsed], dtype=np.int64)[raw_codes]
    if require_control and () not in parsed:
        raise ValueError(no_control_message(labels, controls, delimiter))
    genes = tuple(sorted({gene for condition in conditions for gene in condition}))
    return ParsedLabels(codes=codes, conditions=conditions, genes=genes)


def control_labels(control: str | Collection[str]) -> tuple[str, ...]:
    """Control labels without the blanks around them, those of a set sorted; ValueError where there is none."""
    if isinstance(control, str):
        labels = [control]
    else:
        labels = list(control) if isinstance(control, Collection) and not isinstance(control, Mapping) else []
    if not labels or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ValueError(
            f"control={control!r} must be a label or a list of labels, all non-empty strings, such as 'control'."
        )
    labels = sorted(labels) if isinstance(control, Set) else labels
    return tuple(dict.fromkeys(str(label).strip() for label in labels))


def plain_control(control: str | Collection[str]) -> str | list[str]:
    """Control labels as they are kept and shown: a string, or a list whatever collection they came in."""
    labels = control_labels(control)
    return labels[0] if isinstance(control, str) else list(labels)


def _check_delimiter(delimiter: str) -> str:
    if not isinstance(delimiter, str) or not delimiter:
        raise ValueError(f"delimiter={delimiter!r} must be a non-empty string, such as '+'.")
    return delimiter


def _parse(label: str | Collection[str], controls: tuple[str, ...], delimiter: str) -> tuple[str, ...]:
    if isinstance(label, (tuple, list, set, frozenset, pd.Index, pd.Series)) or getattr(label, "ndim", False):
        return _gene_set(label, controls, delimiter)
    if not isinstance(label, str):
        raise TypeError(f"Perturbation labels must be strings, found {label!r} of type {type(label).__name__}.")
    parts = _parts(label, controls, delimiter)
    missing = [part for part in parts if means_missing(part)]
    if missing:
        empty = f"it is empty or has an empty part between delimiters {delimiter!r}"
        what = f"{missing[0]!r} stands for a missing value" if missing[0].strip() else empty
        raise ValueError(f"Perturbation label {label!r} names no perturbation: {what}.")
    return tuple(sorted(set(parts)))


def _parts(label: str, controls: tuple[str, ...], delimiter: str) -> list[str]:
    """Parts of a label without the controls among them; the whole label where it stands for a missing value."""
    if label.strip() in controls:
        return []
    if means_missing(label):
        return [label]
    text = f"{delimiter}{delimiter.join(part.strip() for part in label.split(delimiter))}{delimiter}"
    for name in controls:
        # As a piece of text, since a control label may itself contain the delimiter ("non_targeting" with "_").
        while (piece := f"{delimiter}{name}{delimiter}") in text:
            text = text.replace(piece, delimiter)
    return text[len(delimiter) : -len(delimiter)].split(delimiter) if text != delimiter else []


def _gene_set(genes: Iterable[str], controls: tuple[str, ...], delimiter: str) -> tuple[str, ...]:
    """Distinct genes of a collection, sorted, without controls."""
    distinct = set()
    for gene in genes:
        if not isinstance(gene, str):
            raise TypeError(f"Gene names must be strings, found {gene!r}.")
        name = gene.strip()
        if name in controls:
            continue
        if not name:
            raise ValueError("A gene name is empty.")
        if means_missing(name):
            raise ValueError(f"Gene name {gene!r} stands for a missing value.")
        if delimiter in name:
            raise ValueError(
                f"Gene {name!r} contains the delimiter {delimiter!r}. A tuple or set names the genes of one "
                "perturbation: give several labels as a list. If it is one gene, choose another delimiter."
            )
        distinct.add(name)
    return tuple(sorted(distinct))


def _distinct_labels(labels: pd.Series) -> tuple[list[str], np.ndarray]:
    """Distinct labels and each cell's index into them, -1 where there is none."""
    try:
        codes, spellings = pd.factorize(labels, use_na_sentinel=True)
    except TypeError:  # of lists and dicts, which it cannot tell apart
        codes, spellings = np.zeros(len(labels), dtype=np.int64), labels[labels.notna()]
    wrong = [spelling for spelling in spellings if not isinstance(spelling, str)]
    if wrong:
        column = f"adata.obs[{labels.name!r}]" if labels.name is not None else "labels"
        is_code = type(wrong[0]) is int or isinstance(wrong[0], np.integer)
        hint = " (of codes that stand for names, write the names)" if is_code else ""
        raise TypeError(
            f"Perturbation labels must be strings, found {wrong[0]!r} of type {type(wrong[0]).__name__}{hint}; convert "
            f"them, and keep what is missing: {column} = {column}.map(str, na_action='ignore')."
        )
    return list(spellings), codes


def _check_labeled(
    labels: pd.Series, spellings: list[str], codes: np.ndarray, controls: tuple[str, ...], delimiter: str
) -> None:
    """Raise where cells have no label, or one that is or contains text for a missing value."""
    missing = [any(map(means_missing, _parts(spelling, controls, delimiter))) for spelling in spellings]
    cells = np.flatnonzero(np.array([*missing, True])[codes])  # the last stands for the code -1
    if not cells.size:
        return
    names = ", ".join(str(name) for name in labels.index[cells[:5]])
    found = [spelling for spelling, bad in zip(spellings, missing, strict=True) if bad]
    texts = sorted(spelling for spelling in found if spelling.strip())
    cut = [text for text in texts if not all(part.strip() for part in text.split(delimiter))]
    if cut and 2 * np.isin(codes, [spellings.index(text) for text in cut]).sum() > len(labels):
        raise ValueError(
            f"{cells.size} of {len(labels)} cells have no perturbation label, most of them since there is nothing "
            f"between two delimiters {delimiter!r}, or before or behind one (first: {names}; "
            f"{', '.join(map(repr, cut[:5]))}). Name another delimiter, or write these labels anew."
        )
    spelled = f"; spelled {', '.join(map(repr, texts[:5]))}" if texts else ""
    message = (
        f"{cells.size} of {len(labels)} cells have no perturbation label (first: {names}{spelled}). Label them, or "
        "drop them"
    )
    if labels.name is not None and len(found) <= 5:
        column = f"adata.obs[{labels.name!r}]"
        there = [f"{column}.notna()"] if (codes < 0).any() else []
        there += [f"~{column}.isin({sorted(found)!r})"] if found else []
        message += f": adata = adata[{' & '.join(there)}].copy()"
    # not "nan", which is what astype(str) writes for a missing label
    whole = [text for text in texts if means_missing(text) and "nan" not in text.casefold()]
    hint = f" If {whole[0]!r} is what control cells are called, name it in control." if whole else ""
    raise ValueError(f"{message}.{hint}")
