"""Which perturbations a user asks for: labels, or collections of genes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from raptorgraph.screen._label_hints import likely_controls
from raptorgraph.screen._labels import control_labels, format_perturbation, parse_perturbation
from raptorgraph.screen._variants import find_variants

_SHORTEST = 4  # letters of a name for which a similar one is proposed


def listed(perturbations: str | Collection[str] | Iterable[Any]) -> list[Any]:
    """One entry for each perturbation that is asked for.

    A string is one label; a tuple, set or frozenset of strings is one perturbation, its genes. Anything else, such as a
    list, an array or an index, holds several, each a label or a collection of genes. An empty tuple holds none.
    """
    if isinstance(perturbations, np.ndarray) and not perturbations.ndim:
        perturbations = perturbations.item()
    if isinstance(perturbations, str):
        return [perturbations]
    if isinstance(perturbations, (bytes, Mapping, pd.DataFrame)):
        raise TypeError(f"perturbations is of type {type(perturbations).__name__}: give labels as a list of strings.")
    if isinstance(perturbations, (set, frozenset)) and not all(isinstance(one, str) for one in perturbations):
        raise TypeError("A set has no order: give several perturbations as a list.")
    if isinstance(perturbations, (tuple, set, frozenset)) and all(isinstance(one, str) for one in perturbations):
        return [perturbations] if perturbations else []
    if not isinstance(perturbations, Iterable):
        raise TypeError(f"{perturbations!r} is no perturbation: give a label, a tuple of genes, or a list of these.")
    return list(perturbations)


def asked_perturbations(
    perturbations: str | Collection[str] | Iterable[Any],
    known: Sequence[str],
    *,
    control: str | Sequence[str],
    delimiter: str,
    where: str = "training screen",
) -> list[tuple[str, ...]]:
    """Sorted genes of each perturbation that is asked for (see :func:`listed`), once all of them are known.

    Raises ValueError for an unknown gene, with the label that was probably meant, and where nothing is asked.
    """
    spelling: dict[str, Any] = {"control": control, "delimiter": delimiter}
    given = listed(perturbations)
    if not given:
        raise ValueError("perturbations is empty; name at least one, for example 'A' or 'A+B'.")
    sets = [parse_perturbation(one, **spelling) for one in given]
    perturbed = set(known)
    for one, genes in zip(given, sets, strict=True):
        unknown = [gene for gene in genes if gene not in perturbed]
        if unknown:
            label = str(one) if isinstance(one, str) else delimiter.join(genes)
            raise ValueError(
                f"{label!r}: {', '.join(unknown)} was not perturbed in the {where}, so there is no effect to predict "
                f"it from{did_you_mean(label, known, **spelling) or '.'} Perturbed genes: "
                f"{', '.join(list(known)[:20])}{', ...' if len(known) > 20 else ''}"
            )
    return sets


def did_you_mean(label: str, known: Iterable[str], *, control: str | Sequence[str], delimiter: str) -> str:
    """``"; did you mean 'A+B'?"`` where other letters, delimiters or a slip make a label of known genes; else empty."""
    meant = meant_label(label, known, control=control, delimiter=delimiter)
    return f"; did you mean {meant!r}?" if meant and meant != label.strip() else ""


def meant_label(label: str, known: Iterable[str], *, control: str | Sequence[str], delimiter: str) -> str | None:
    """The label of known genes that was probably meant; None where none is near."""
    spelling: dict[str, Any] = {"control": control, "delimiter": delimiter}
    known = sorted(known)
    controls = control_labels(control)
    by_key: dict[str, set[str]] = {}
    for name in [*known, *controls]:
        by_key.setdefault(_key(name), set()).add(name)
    names = {key: next(iter(found)) for key, found in by_key.items() if len(found) == 1}
    covered = _covered(re.findall(r"[^\W_]+", label), names)
    if covered is None:
        parts = [part.strip() for part in label.split(delimiter) if part.strip()]
        near = [_near(part, known, controls) for part in parts]
        covered = [] if None in near else [name for name in near if name is not None]
    return format_perturbation(covered, **spelling) if covered else None


def _covered(words: list[str], names: dict[str, str]) -> list[str] | None:
    """Names whose words, one name after another, are the given ones; longer names first."""
    if not words:
        return []
    for end in range(len(words), 0, -1):
        name = names.get(_key("".join(words[:end])))
        rest = _covered(words[end:], names) if name is not None else None
        if name is not None and rest is not None:
            return [name, *rest]
    return None


def _near(part: str, known: list[str], controls: Sequence[str]) -> str | None:
    """The known name that a slip may have made of a part of a label."""
    if part in known or part in controls:
        return part
    if likely_controls([part]):
        return controls[0]
    variants = find_variants([part], known)
    if (base := (variants.guides | variants.doses).get(part)) in known:
        return base
    if len(part) < _SHORTEST:
        return None
    # names that differ in their number alone are other genes
    others = {_key(name): name for name in known if _letters(name) != _letters(part)}
    near = difflib.get_close_matches(_key(part), list(others), n=1, cutoff=0.8)
    return others[near[0]] if near else None


def _key(name: str) -> str:
    """Letters and digits alone, without case and leading zeros."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\W_]", "", name).casefold())


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name).casefold()
