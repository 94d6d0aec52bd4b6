"""Sentences about names, batches and delimiters that make other perturbations than were probably meant."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.screen._guide_features import feature_hint
from raptorgraph.screen._label_hints import SetupWarning, likely_controls, likely_unassigned, warn_of_controls
from raptorgraph.screen._labels import control_labels
from raptorgraph.screen._names import gene_names, means_missing
from raptorgraph.screen._other_names import VERSIONED, OtherNames, other_names, text_columns, texts, versioned_ids
from raptorgraph.screen._other_values import counts_hint, kind_of
from raptorgraph.screen._stored import values_of
from raptorgraph.screen._variants import DOSE, STRAND, Variants, find_variants, joined_guides

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData

    from raptorgraph.screen._labels import ParsedLabels
    from raptorgraph.screen._setup import Setup


def warn(messages: Iterable[str]) -> None:
    """Warn of each."""
    for message in messages:
        warnings.warn(message, SetupWarning, stacklevel=3)


def warn_of_setup(adata: AnnData, parsed: ParsedLabels, setup: Setup) -> None:
    """Warn of everything that a setup would take otherwise than it is probably meant; `adata` is unchanged."""
    warn_of_controls(parsed.genes, "control")
    hints, _ = label_hints(adata, parsed, setup)
    hints += [*feature_hint(adata, parsed.genes, setup), *value_hints(adata, setup)]
    warn([*hints, *batch_hints(adata, parsed, setup), *covariate_hints(adata, parsed, setup)])


def value_hints(adata: AnnData, setup: Setup) -> list[str]:
    """A sentence about logarithms in ``X`` whose counts are there, too; a layer that was named is what was meant."""
    if setup.layer is not None or kind_of(values_of(adata)) != "log":
        return []
    hint = counts_hint(adata)
    return [f"adata.X holds logarithms, and counts tell more: how sure a small number is.{hint}"] if hint else []


def label_hints(adata: AnnData, parsed: ParsedLabels, setup: Setup) -> tuple[list[str], OtherNames | None]:
    """Sentences about labels that are probably no genes, and about genes that have other names in ``var``."""
    key, control, delimiter = setup.perturbation_key, setup["control"], setup.delimiter
    variants = label_variants(adata, parsed.genes, control)
    likely = set(likely_controls(parsed.genes))
    others = [gene for gene in parsed.genes if gene not in likely]
    call = (
        f"raptorgraph.pp.tidy_labels(adata, {key!r}, control={control!r}, delimiter={delimiter!r}, "
        "collapse=True) writes the gene alone"
    )
    messages = cut_names(adata, setup)
    unassigned = likely_unassigned(set(parsed.genes) - set(gene_names(adata)))
    if unassigned:
        parts = {label: {part.strip() for part in label.split(delimiter)} for label in adata.obs[key].unique()}
        spelled = sorted(label for label, names in parts.items() if not names.isdisjoint(unassigned))
        messages.append(
            f"{_some(unassigned)} will be taken as perturbed genes, and are named like cells of which the perturbation "
            f"is not known: if they are, drop them: adata = adata[~adata.obs[{key!r}].isin({spelled!r})].copy()"
        )
    joined = joined_guides(others, known_names(adata, control))
    if joined is not None:
        messages.append(
            f"{_some(joined[1])} look like guides of several genes, and each would be a perturbed gene of its own: use "
            f"delimiter={joined[0]!r}."
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
    genes = {of_name.get(gene, gene) for gene in others}
    versions = versioned_ids(adata, genes)
    if versions:
        messages.append(
            f"{_examples(versions)} {'is an Ensembl id' if len(versions) == 1 else 'are Ensembl ids'} with a version "
            "that var_names do not have, and would count as not measured. Take versions away: "
            f"adata.obs[{key!r}] = adata.obs[{key!r}].astype(object).str.replace(r'{VERSIONED}', r'\\1', regex=True)"
        )
    names = other_names(adata, sorted({versions.get(gene, gene) for gene in genes}))
    if names is not None:
        messages.append(names.message)
    return messages, names


def label_variants(adata: AnnData, genes: Sequence[str], control: str | Sequence[str]) -> Variants:
    """Perturbed genes that look like guides or doses of one; genes in ``var`` are what they say."""
    if set(gene_names(adata)).issuperset(genes):
        return Variants({}, {})
    return find_variants(genes, known_names(adata, control))


def known_names(adata: AnnData, control: str | Sequence[str]) -> set[str]:
    """Names in ``var_names`` and in columns of ``var``, and the control labels."""
    columns = (texts(adata, column) for column in text_columns(adata))
    return set(gene_names(adata)).union(control_labels(control), *columns)


def batch_hints(adata: AnnData, parsed: ParsedLabels, setup: Setup) -> list[str]:
    """Sentences about batches that have no control cells, or are the perturbation."""
    key = setup.batch_key
    if key is None:
        return []
    names, table = _counts(adata.obs[key], parsed)
    labels = _labels(parsed, setup)
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


def covariate_hints(adata: AnnData, parsed: ParsedLabels, setup: Setup) -> list[str]:
    """Sentences about categorical covariates that tell which cells are perturbed."""
    messages, labels = [], _labels(parsed, setup)
    for key in setup.categorical_covariate_keys:
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


def _labels(parsed: ParsedLabels, setup: Setup) -> list[str]:
    return ["control", *map(setup.label, parsed.conditions[1:])]


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


def cut_names(adata: AnnData, setup: Setup) -> list[str]:
    """Sentences about names of genes that the delimiter cuts, and numbers, doses and strands that it cuts off."""
    key, delimiter = setup.perturbation_key, setup.delimiter
    controls, genes = control_labels(setup.control), set(gene_names(adata))
    by_letters = {_letters(name): name for name in genes if _letters(name) != name}
    cut: dict[str, str] = {}
    numbers: dict[str, str] = {}
    strands: list[str] = []
    for label in adata.obs[key].unique():
        parts = [part.strip() for part in label.split(delimiter)]
        if len(parts) < 2 or label.strip() in controls:
            continue
        if delimiter in "+-" and re.search(STRAND, label):
            strands.append(label)
            continue
        of_genes: set[int] = set()  # positions of parts
        for start in range(len(parts)):
            for end in range(start + 2, len(parts) + 1):
                joined = delimiter.join(parts[start:end])
                name = joined if joined in genes else None
                if name is None and genes.isdisjoint(parts[start:end]):  # GENE_1 beside GENE is not GENE-1
                    name = by_letters.get(_letters(joined))  # NKX2_1 where NKX2-1 is measured
                if name is not None:
                    cut[name] = label
                    of_genes.update(range(start, end))
        others = [part for i, part in enumerate(parts) if i not in of_genes and part not in genes]
        numbers |= {part: label for part in others if re.fullmatch(rf"\d{{1,3}}|{DOSE}", part)}
    messages = []
    column = f"adata.obs[{key!r}]"
    if cut:
        messages.append(
            f"delimiter={delimiter!r} cuts {_some(sorted(cut))}, which {'is' if len(cut) == 1 else 'are'} in "
            f"var_names: the label {next(iter(cut.values()))!r} is read as a combination of other genes, with their "
            "effects. Write combinations with another delimiter, one that no gene has in its name."
        )
    if numbers:
        number, label = next(iter(numbers.items()))
        mark = re.escape(delimiter)
        ending = r"\d{1,3}" if all(map(str.isdigit, numbers)) else rf"(?:\d{{1,3}}|{DOSE})"
        messages.append(
            f"delimiter={delimiter!r} cuts numbers off, such as {number!r} off {label!r}, and these will be taken as "
            f"perturbed genes. If they number guides, or are doses to be taken together, take them away: {column} = "
            f"{column}.astype(object).str.replace(r'{mark}{ending}(?={mark}|$)', '', regex=True)"
        )
    if strands:
        messages.append(
            f"delimiter={delimiter!r} cuts names of guides at the strand, such as {strands[0]!r}, and the parts will "
            f"be taken as perturbed genes. Write the genes alone: {column} = "
            f"{column}.astype(object).str.replace(r'{STRAND}', '', regex=True)"
        )
    return messages


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name)


def _examples(bases: dict[str, str]) -> str:
    shown = [f"{name!r} of {gene!r}" for name, gene in list(bases.items())[:3]]
    return ", ".join(shown) + (", ..." if len(bases) > 3 else "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
