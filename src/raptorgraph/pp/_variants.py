"""Labels that name a guide or a dose rather than a gene: ``KLF1_2``, ``KLF1|g2``, ``sgKLF1-2``, ``DRUG (10nM)``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

_UNIT = r"(?:[pnuµμm]M|[pnuµμm]?g/m[lL]|%)"
_DOSE = re.compile(
    rf"(?P<base>.*[^\W_])[\s_.:|@-]*[\s_:|@(-]\(?\s*\d+(?:[.,]\d+)?\s*{_UNIT}\)?"
    r"|(?P<timed>.*[^\W_])[\s_(]+\(?\s*\d+\s*(?:h|hr|hrs|min)\)?"
    rf"|\d+(?:[.,]\d+)?\s*{_UNIT}[\s_-]+(?P<dosed>.+)"
)
# A word for a guide and its number; a protospacer; strand and position, as in KLF1_+_12997999.23-P1P2; STAT1g2.
_GUIDE = re.compile(
    r"(?P<base>.+?)(?:[\s_.|:#/-]+(?:[sS]g(?:RNA)?|gRNA|g|[gG]uide|sh(?:RNA)?|[oO]ligo)[\s_.#-]?\d{1,3}[a-z]?"
    r"|[\s_.|:#/-]+[ACGT]{15,}|_[+-]_\d+\.\d+\S*)"
    r"|(?P<symbol>[A-Z][A-Z0-9-]{2,})g\d{1,2}"
)
_PREFIXED = re.compile(r"(?:sg(?:RNA)?|gRNA|guide|shRNA|siRNA|crRNA)[\s_.:-]*(?P<base>[A-Z0-9].*)")
_NUMBERED = re.compile(r"(?P<base>.*[^\W_])(?:[\s_|:#]+\d{1,2}|\s*\(\d{1,2}\))")
# Genes are called so, too: NKX2-1, HLA_A, AC012345.1.
_LIKE_GENES = re.compile(r"(?P<base>.*[^\W_])(?:[-./]\d{1,2}|_[A-Za-z])")
_ENSEMBL = re.compile(r"ENS[A-Z]*\d{11}(\.\d+)?")


class Variants(NamedTuple):
    """Gene of each name that is a guide of one, and of each that is a dose."""

    guides: dict[str, str]
    doses: dict[str, str]


def find_variants(names: Iterable[str], known: Collection[str]) -> Variants:
    """Names that look like guides or doses of a gene, and that gene.

    Parameters
    ----------
    names
        Perturbed genes, as read from labels.
    known
        Names of genes and controls. A name that is one of them is what it says.

    Returns
    -------
    The variants. A number behind a hyphen or a dot, and a letter, make a guide only where the rest is a known name or
    another perturbed gene, or where nearly all names have one: NKX2-1 and HLA_A are genes, and NKX2_1 is where NKX2-1
    is known.
    """
    names = sorted(set(names))
    unknown = [name for name in names if name not in known and not _ENSEMBL.fullmatch(name)]
    found, doses = {}, {}
    for name in unknown:
        if match := _DOSE.fullmatch(name):
            doses[name] = next(base for base in match.groups() if base).strip()
        elif match := _GUIDE.fullmatch(name):
            found[name] = (match["base"] or match["symbol"]).strip()
    prefixed = {name: match["base"] for name in unknown if (match := _PREFIXED.fullmatch(name)) and name not in doses}
    found |= _without_prefix(prefixed, found, known)

    rest = [name for name in unknown if name not in found and name not in doses]
    numbered = {name: match["base"] for name in rest if (match := _NUMBERED.fullmatch(name))}
    if numbered:
        letters = {_letters(name) for name in known}
        numbered = {name: base for name, base in numbered.items() if base in known or _letters(name) not in letters}
    alike = {name: match["base"] for name in rest if (match := _LIKE_GENES.fullmatch(name))}
    genes = {*known, *found.values(), *numbered.values()} | (set(names) - {*found, *doses, *numbered})
    if not _most_are_guides(alike, len(names)):
        alike = {name: base for name, base in alike.items() if base in genes}
    return Variants(found | numbered | alike, doses)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _most_are_guides(alike: dict[str, str], n_names: int) -> bool:
    """Whether names such as KLF1-2 can only be guides: four of five names, with several guides of three genes or more.

    All genes of a worm are called like *unc-22*.
    """
    bases = Counter(base for base in alike.values() if not re.fullmatch("[a-z]+", base))
    return 5 * bases.total() >= 4 * n_names and sum(n > 1 for n in bases.values()) > 2


def _without_prefix(prefixed: dict[str, str], found: dict[str, str], known: Collection[str]) -> dict[str, str]:
    """Genes of names such as ``sgKLF1-2``; the number is that of a guide where most have one."""
    ends = re.compile(r"(?P<base>.+?)[\s_.|:#-]+\d{1,2}")
    numbered = {name: match["base"] for name, rest in prefixed.items() if (match := ends.fullmatch(rest))}
    most = 2 * len(numbered) > len(prefixed)
    bases = {}
    for name, rest in prefixed.items():
        if name in found:  # sgKLF1_g2
            bases[name] = _PREFIXED.fullmatch(found[name])["base"] if _PREFIXED.fullmatch(found[name]) else found[name]
        elif name in numbered and rest not in known and (most or numbered[name] in known):
            bases[name] = numbered[name]
        else:
            bases[name] = rest
    return bases
