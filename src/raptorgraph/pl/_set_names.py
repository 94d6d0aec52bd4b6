"""Names of gene sets, short enough for a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph.pp._gene_sets import clean_set_name

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_LETTERS = 42


def clean_set_names(names: Iterable[str]) -> list[str]:
    """``HALLMARK_TNFA_SIGNALING_VIA_NFKB`` becomes ``TNFA signaling via NFKB``; different names stay different."""
    names = [str(name) for name in names]
    long = [readable(name) for name in names]
    short = [shorten(name, _MAX_LETTERS) for name in long]
    for candidates in (short, long):
        if len(set(candidates)) == len(set(names)):
            return candidates
    return names


def readable(name: str) -> str:
    """Collections' names cleaned; what somebody wrote by hand, without an underscore, as it is."""
    return clean_set_name(name) if "_" in name else name


def shorten(name: str, n_letters: int) -> str:
    """Text of at most `n_letters`, the last of them an ellipsis where some are left out."""
    return name if len(name) <= n_letters else name[: n_letters - 1].rstrip() + "…"
