"""Names of gene sets as a reader wants them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PREFIX = re.compile(
    r"^(HALLMARK|KEGG(_MEDICUS)?(_REFERENCE|_PATHOGEN|_VARIANT)?|REACTOME|BIOCARTA|PID|WP|GO(BP|CC|MF)|GO|HP)_"
)
# words that stay in capitals, beside those with a digit
_CAPITALS = set(
    "ABC AKT ATP BCR BMP CDC DNA EGF EGFR ER ERBB ERK FGF GTP HIF IFN IL JAK JNK KRAS MAPK MHC MTOR MTORC MYC NFKB NK "
    "NMDA NOD PI3K PPAR RAS RIG RNA RNAI ROS STAT TCA TCR TGF TLR TNF TNFA UV VEGF WNT".split()
)
_MAX_LETTERS = 42


def clean_set_names(names: Iterable[str]) -> list[str]:
    """``HALLMARK_TNFA_SIGNALING_VIA_NFKB`` becomes ``TNFA signaling via NFKB``; different names stay different."""
    names = [str(name) for name in names]
    long = [clean_set_name(name) for name in names]
    short = [shorten(name, _MAX_LETTERS) for name in long]
    for candidates in (short, long):
        if len(set(candidates)) == len(set(names)):
            return candidates
    return names


def clean_set_name(name: str) -> str:
    """Without the prefix of the collection, underscores and shouting."""
    if "_" not in name:
        return name
    words = _PREFIX.sub("", name).split("_")
    if any(not word.isupper() for word in words if word.isalpha()):
        return " ".join(words)
    words = ["down" if word == "DN" else word for word in words]
    words = [word if word in _CAPITALS or re.search(r"\d", word) else word.lower() for word in words]
    words[0] = words[0][:1].upper() + words[0][1:]
    return " ".join(words)


def shorten(name: str, n_letters: int) -> str:
    """At most so many letters, the last of them an ellipsis where some are left out."""
    return name if len(name) <= n_letters else name[: n_letters - 1].rstrip() + "…"
