"""What a setup should say: names, batches and delimiters that make other perturbations than were meant."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.pp._label_hints import SetupWarning, likely_controls, likely_unassigned, warn_of_controls
from raptorgraph.pp._names import gene_names, means_missing
from raptorgraph.pp._other_names import OtherNames, other_names, text_columns, texts
from raptorgraph.pp._variants import Variants, find_variants

if TYPE_CHECKING:
    from anndata import AnnData

    from raptorgraph.pp._labels import ParsedLabels


def warn(messages: Iterable[str]) -> None:
    """Warn of each."""
    for message in messages:
        warnings.warn(message, SetupWarning, stacklevel=3)


def warn_of_setup(
    adata: AnnData,
    parsed: ParsedLabels,
    *,
    perturbation_key: str,
    control: str | Sequence[str],
    delimiter: str,
    batch_key: str | None,
    categorical: Iterable[str],
) -> None:
    """Warn of everything that a setup would take otherwise than it is probably meant; `adata` is unchanged."""
    warn_of_controls(parsed.genes, "control")
    hints, _ = label_hints(adata, parsed, perturbation_key, control, delimiter)
    hints += batch_hints(adata, parsed, delimiter, batch_key)
    warn([*hints, *covariate_hints(adata, parsed, delimiter, categorical)])


def label_hints(
    adata: AnnData, parsed: ParsedLabels, key: str, control: str | Sequence[str], delimiter: str
) -> tuple[list[str], OtherNames | None]:
    """Sentences about labels that are probably no genes, and about genes that have other names in ``var``."""
    variants = label_variants(adata, parsed.genes, control)
    others = [gene for gene in parsed.genes if gene not in set(likely_controls(parsed.genes))]
    call = (
        f"raptorgraph.pp.tidy_labels(adata, {key!r}, control={control!r}, delimiter={delimiter!r}, collapse=True) "
        "writes the gene alone"
    )
    messages = []
    unassigned = likely_unassigned(set(parsed.genes) - set(gene_names(adata)))
    if unassigned:
        messages.append(
            f"{_some(unassigned)} will be taken as perturbed genes, and are named like cells of which the perturbation "
            "is not known: if they are, drop them: "
            f"adata = adata[~adata.obs[{key!r}].isin({unassigned[:10]!r})].copy()"
        )
    guides = {name: gene for name, gene in variants.guides.items() if name in others}
    if guides:
        messages.append(
            f"{_examples(guides)} look like guides, and each would be a perturbed gene of its own ({len(guides)} of "
            f"{len(parsed.genes)}), apart from other guides of its gene and from that gene's expression. If they are, "
            f"{call}."
        )
    if variants.doses:
        messages.append(
            f"{_examples(variants.doses)} look like doses or times, and each would be a perturbed gene of its own "
            f"({len(variants.doses)} of {len(parsed.genes)}), since the model knows no doses. Keep one dose of each, "
            f"or take all doses of one as the same perturbation: {call}."
        )
    of_name = variants.guides | variants.doses
    names = other_names(adata, sorted({of_name.get(gene, gene) for gene in others}))
    if names is not None:
        messages.append(names.message)
    return [*messages, *cut_names(adata, key, control, delimiter)], names


def label_variants(adata: AnnData, genes: Sequence[str], control: str | Sequence[str]) -> Variants:
    """Perturbed genes that look like guides or doses of one; genes in ``var`` are what they say."""
    known = set(gene_names(adata))
    if known.issuperset(genes):
        return Variants({}, {})
    known |= {label.strip() for label in ([control] if isinstance(control, str) else control)}
    return find_variants(genes, known.union(*(texts(adata, column) for column in text_columns(adata))))


def batch_hints(adata: AnnData, parsed: ParsedLabels, delimiter: str, key: str | None) -> list[str]:
    """Sentences about batches that have no control cells, or are the perturbation."""
    if key is None:
        return []
    names, table = _counts(adata.obs[key], parsed)
    labels = _labels(parsed, delimiter)
    messages = _missing_text(key, names, table, "batch")
    without = np.flatnonzero((table[:, 0] == 0) & table.any(axis=1))
    if _apart(table):
        messages.append(
            f"batch_key={key!r}: no batch has control cells and perturbed cells, {_one_each(table, names, labels)}. "
            "Perturbed cells are then compared with controls of other batches, so that effects cannot be told from "
            "differences between batches. Leave batch_key out, or name the column with the batches of the experiment."
        )
    elif without.size:
        conditions = [labels[i] for i in np.flatnonzero(table[without].any(axis=0))]
        messages.append(
            f"batch_key={key!r}: {len(without)} of {len(names)} batches have no control cells, "
            f"{_some([str(names[b]) for b in without])}. Their {table[without].sum():,} cells ({_some(conditions)}) "
            "are compared with the control cells of all batches, so that differences between batches are part of the "
            "effects."
        )
    return messages


def covariate_hints(adata: AnnData, parsed: ParsedLabels, delimiter: str, keys: Iterable[str]) -> list[str]:
    """Sentences about categorical covariates that tell which cells are perturbed."""
    messages, labels = [], _labels(parsed, delimiter)
    for key in keys:
        names, table = _counts(adata.obs[key], parsed)
        messages += _missing_text(key, names, table, "category")
        if _apart(table):
            messages.append(
                f"categorical_covariate_keys: in obs[{key!r}] no category has control cells and perturbed cells, "
                f"{_one_each(table, names, labels)}. The decoder takes covariates as given, so that it can lay effects "
                "on this column and leave them out of its predictions. Leave it out."
            )
    return messages


def _counts(column: pd.Series, parsed: ParsedLabels) -> tuple[pd.Index, np.ndarray]:
    """Values of a column, and the number of cells of each value x condition."""
    codes, names = pd.factorize(column)
    table = np.zeros((len(names), len(parsed.conditions)), dtype=int)
    np.add.at(table, (codes, parsed.codes), 1)
    return names, table


def _labels(parsed: ParsedLabels, delimiter: str) -> list[str]:
    return [delimiter.join(genes) or "control" for genes in parsed.conditions]


def _apart(table: np.ndarray) -> bool:
    return len(table) > 1 and not ((table[:, 0] > 0) & (table[:, 1:].sum(axis=1) > 0)).any()


def _one_each(table: np.ndarray, names: pd.Index, labels: Sequence[str]) -> str:
    alone = [b for b in range(len(names)) if (table[b] > 0).sum() == 1]
    examples = ", ".join(f"{names[b]!s}: {labels[int(table[b].argmax())]}" for b in alone[:3])
    if len(alone) == len(names):
        return (
            f"and each has one condition alone ({examples}{', ...' if len(alone) > 3 else ''}): it is the perturbation"
        )
    controls = [str(names[b]) for b in np.flatnonzero(table[:, 0])]
    return f"with controls in {_some(controls)} alone"


def _missing_text(key: str, names: pd.Index, table: np.ndarray, what: str) -> list[str]:
    return [
        f"obs[{key!r}] is {name!r} in {table[b].sum():,} cells, which reads as a missing value: they are taken as "
        f"one {what} of that name."
        for b, name in enumerate(names)
        if isinstance(name, str) and means_missing(name)
    ]


def cut_names(adata: AnnData, key: str, control: str | Sequence[str], delimiter: str) -> list[str]:
    """Genes in ``var_names`` whose name the delimiter cuts, and numbers that it cuts off."""
    controls = {label.strip() for label in ([control] if isinstance(control, str) else control)}
    genes = set(gene_names(adata))
    with_delimiter = {name for name in genes if delimiter in name}
    cut: dict[str, str] = {}
    numbers: dict[str, str] = {}
    for label in adata.obs[key].unique():
        parts = [part.strip() for part in label.split(delimiter)]
        if len(parts) < 2 or label.strip() in controls:
            continue
        for start in range(len(parts)):
            for end in range(start + 2, len(parts) + 1):
                name = delimiter.join(parts[start:end])
                if name in with_delimiter:
                    cut[name] = label
        numbers |= {part: label for part in parts if re.fullmatch(r"\d{1,3}", part) and part not in genes}
    messages = []
    if cut:
        messages.append(
            f"delimiter={delimiter!r} cuts {_some(sorted(cut))}, which {'is' if len(cut) == 1 else 'are'} in "
            f"var_names: the label {next(iter(cut.values()))!r} is read as a combination of other genes, with their "
            "effects. Write combinations with another delimiter, one that no gene has in its name."
        )
    if numbers:
        number, label = next(iter(numbers.items()))
        pattern = rf"{re.escape(delimiter)}\d+(?={re.escape(delimiter)}|$)"
        messages.append(
            f"delimiter={delimiter!r} cuts numbers off, such as {number!r} off {label!r}, and these will be taken as "
            f"perturbed genes. If they number guides, take them away: adata.obs[{key!r}] = "
            f"adata.obs[{key!r}].str.replace(r'{pattern}', '', regex=True)"
        )
    return messages


def _examples(bases: dict[str, str]) -> str:
    shown = [f"{name!r} of {gene!r}" for name, gene in list(bases.items())[:3]]
    return ", ".join(shown) + (", ..." if len(bases) > 3 else "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
