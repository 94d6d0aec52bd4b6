"""Likely meanings of labels and names of genes: for messages, never taken for granted."""

from __future__ import annotations

import difflib
import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

# Whole labels (lower case, no punctuation, no number at the end) that screens commonly give to their control cells.
_USUAL_CONTROLS = re.compile(
    r"(sg)?(control|ctrl|ctl|neg|negative|negctrl|negcontrol|negativecontrol|nt|ntc|ntctrl|ntcontrol|nontargeting|"
    r"nontargetingcontrol|nontarget|notarget|nosite|onesite|intergenic|safe|safetargeting|safeharbou?r|scramble|"
    r"scrambled|unperturbed|untreated|unt|wt|wildtype|none|aavs|rosa|lacz|luciferase|vehicle|dmso|pbs|mock)"
)


# Likewise of cells whose perturbation is not known.
_USUAL_UNASSIGNED = re.compile(
    r"(unassigned|notassigned|unknown|undetermined|ambiguous|unmapped|unlabell?ed|missing|doublets?|multiplets?|"
    r"multipleguides?|multiguides?|noguides?|nosgrna|nogrna|nocall|nolabel|other|undefined)"
)


class SetupWarning(UserWarning):
    """Something in a screen is probably not what was meant."""


def likely_unassigned(names: Iterable[str]) -> list[str]:
    """Those of the names that screens commonly give to cells whose perturbation is not known, sorted."""
    return sorted(name for name in names if _USUAL_UNASSIGNED.fullmatch(re.sub(r"[\W_]", "", name).casefold()))


def likely_controls(names: Iterable[str]) -> list[str]:
    """Those of the names that screens commonly give to controls, sorted."""
    return sorted({name for name in names if _is_control(name)})


def _is_control(name: str) -> bool:
    if "(mod)" in name:  # Gal4-4(mod)_pBA582, as Adamson and others write it
        return True
    pieces = name.split("__")
    if len(pieces) > 1:  # NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0, as Norman and others write it
        return all(_is_control(half) for piece in pieces for half in piece.split("_"))
    name = re.sub(r"_p[A-Z]{2,3}\d{2,4}(-\d)?$|(?<=[A-Z])g\d{1,2}$", "", name)  # a plasmid, a guide as in NTg4
    plain = re.sub(r"[\W_]", "", re.sub(r"[\W_]+\d+$", "", re.sub(r"^\dx_", "", name))).lower()
    # Numbers belong to guides, as in NegCtrl0, but WT1 is a gene.
    return bool(_USUAL_CONTROLS.fullmatch(re.sub(r"(?<=\D{3})\d+$", "", plain)))


def warn_of_controls(genes: Iterable[str], argument: str) -> None:
    """Warn of perturbed genes that are named like controls; `argument` is what would make them controls."""
    likely = likely_controls(genes)
    if likely:
        warnings.warn(
            f"{', '.join(likely[:10])} will be taken as perturbed genes, and are named like controls: if they are, "
            f"name them in {argument}.",
            SetupWarning,
            stacklevel=2,
        )


def no_control_message(labels: pd.Series, controls: tuple[str, ...], delimiter: str) -> str:
    """Say that there is no control, which labels there are, and which of them look like one."""
    likely = likely_controls(part.strip() for label in labels.unique() for part in (label, *label.split(delimiter)))
    frequent = labels.value_counts().head(5)
    listed = ", ".join(f"{name!r} ({count} cells)" for name, count in frequent.items())
    hint = f" These look like controls: control={likely[:10]!r}." if likely else ""
    return (
        f"No cell is labeled as control: none of {list(controls[:10])!r} is among the labels. "
        f"Most frequent labels: {listed}.{hint}"
    )


def likely_names(missing: Sequence[str], var_names: pd.Index, targets: Sequence[str]) -> dict[str, str]:
    """Name that each missing gene may have in `var_names`, where there is a likely one."""
    if not missing:
        return {}
    perturbed = set(targets)
    others = [str(name) for name in var_names if name not in perturbed]
    by_plain: dict[str, str] = {}
    by_initial: dict[str, list[str]] = {}
    for name in others:
        by_plain.setdefault(_plain(name), name)
        by_initial.setdefault(name[:1].lower(), []).append(name)
    hints = {}
    for gene in missing:
        if _plain(gene) in by_plain:
            hints[gene] = by_plain[_plain(gene)]
            continue
        # Short names one letter apart, or names that differ in their number alone, are mostly other genes.
        relatives = [name for name in by_initial.get(gene[:1].lower(), []) if _stem(name) != _stem(gene)]
        near = difflib.get_close_matches(gene, relatives, n=1, cutoff=0.92)
        if near:
            hints[gene] = near[0]
    return hints


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _stem(name: str) -> str:
    return re.sub(r"\d", "", name).casefold()
