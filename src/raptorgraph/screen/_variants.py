"""Labels that name a guide or a dose rather than a gene: ``KLF1_2``, ``KLF1|g2``, ``sgKLF1-2``, ``DRUG (10nM)``."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_NUMBER = r"\d+(?:[.,]\d+)?"
_UNIT = r"(?:[pnuµμm]M|[NU]M|[nuµμ]m|[pnuµμm]?mol(?:/[lL])?|[pnuµμm]?g/(?:m?[lL]|kg)|I?U/m[lL]|Gy|%)"
_HOURS = r"(?:h|hrs?|hours?|min|minutes?)"
DOSE = rf"{_NUMBER}\s*(?:{_UNIT}|{_HOURS}|days?)"
"""Text of a dose or time alone."""
_DOSE = re.compile(
    rf"(?P<base>.*[^\W_])[\s_.:|@-]*[\s_:|@(-]\(?\s*{_NUMBER}\s*{_UNIT}\)?"
    # let_7d is a gene
    rf"|(?P<timed>.*[^\W_])(?:[\s_(]+\s*{_NUMBER}\s*(?:{_HOURS}|days?|(?<!let[_ ]\d)d)|-\d\d\s*{_HOURS})\)?"
    rf"|{_NUMBER}\s*{_UNIT}[\s_-]+(?P<dosed>.+)"
)
STRAND = r"_[+-]_\d+\.\d+[^\s|;,]*"
"""Strand and position behind a gene, as in ``KLF1_+_12997999.23-P1P2``."""
# A word for a guide and its number; a protospacer; strand and position; a plasmid, as in CREB1_pDS269; an id; STAT1g2.
_GUIDE = re.compile(
    # 5025_NELFE_P1P2_ENSG00000204356
    r"\d+_(?P<transcript>[^\W_]+(?:-[^\W_]+)*)_P\d(?:P\d)?_ENS[A-Z]*\d{11}|"
    r"(?P<base>.+?)(?:[\s_.|:#/-]+(?:"
    r"(?:[sS]g(?:RNA)?|gRNA|g|[gG]uide|sh(?:RNA)?|si(?:RNA)?|crRNA|[oO]ligo)[\s_.#-]?\d{1,3}[a-z]?"
    r"|(?:[sS]g(?:RNA)?|gRNA|[gG]uide)[\s_.#-]?[A-Z]|[ACGT]{15,})"
    rf"|{STRAND}|_p[A-Z]{{2,3}}\d{{2,4}}(?:-\d)?|_ENS[A-Z]*\d{{11}}(?:\.\d+)?)"
    r"|(?P<symbol>[A-Z][A-Z0-9-]+)g\d{1,2}"
)
_PREFIXED = re.compile(r"(?:[a-z][_-])?(?:sg(?:RNA)?|gRNA|guide|shRNA|siRNA|crRNA)[\s_.:-]*(?P<base>[A-Z0-9].*)")
_SHORT = re.compile(r"(?:sh|si)[_-]?(?P<base>[A-Z].*)")  # genes of zebrafish are called si..., too
_NUMBERED = re.compile(r"(?P<base>.*[^\W_])(?:[\s_|:#]*[_|:#]+(?:\d{1,2}|0\d{2,3})|\s*\(\d{1,2}\))")
# Genes are called so, too: NKX2-1, HLA_A, AC012345.1, ADAM 22.
_LIKE_GENES = re.compile(
    r"(?P<base>.*[^\W_])(?:[-./\s](?:\d{1,2}|0\d{2,3})|_[A-Za-z]|_P\d(?:P\d)?|[\s_-]+(?:KO|KD|OE|ko|kd|oe|CRISPR[ai]))"
)
_ENSEMBL = re.compile(r"ENS[A-Z]*\d{11}(\.\d+)?")
_MOST_GUIDES = 10  # of a gene that is not known; more numbers behind one word are no guides of one gene


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
    names = set(names)
    guides, doses = _one_step(names, known, most=True)
    of_name = guides | doses
    # DRUG_10nM_24h is DRUG_10nM, which is DRUG
    while step := set(of_name.values()) - set(known):
        names = (names - set(of_name)) | set(of_name.values())
        further = _one_step(names, known, most=False)
        inner = {base: gene for base, gene in (further.guides | further.doses).items() if base in step}
        if not inner:
            break
        of_name = {name: inner.get(base, base) for name, base in of_name.items()}
    return Variants({name: of_name[name] for name in guides}, {name: of_name[name] for name in doses})


def _one_step(names: Collection[str], known: Collection[str], *, most: bool) -> Variants:
    """Take one guide or dose off each name; `most`: whether numbers on nearly all names count as guides."""
    unknown = sorted(name for name in names if name not in known and not _ENSEMBL.fullmatch(name))
    found, doses = {}, {}
    for name in unknown:
        if match := _DOSE.fullmatch(name):
            doses[name] = next(base for base in match.groups() if base).strip()
        elif match := _GUIDE.fullmatch(name):
            base = (match["base"] or match["symbol"] or match["transcript"]).strip()
            if not match["symbol"] or len(base) > 2 or base in known:  # NTg4
                found[name] = base
    prefixed = {name: match["base"] for name in unknown if (match := _PREFIXED.fullmatch(name)) and name not in doses}
    found |= _without_prefix(prefixed, found, known)
    for name in unknown:
        if match := _SHORT.fullmatch(name):
            bases = [match["base"], re.sub(r"[\W_]\d{1,2}$", "", match["base"])]
            found.update((name, base) for base in bases[::-1] if base in known)
    found, doses = ({name: base for name, base in one.items() if _is_one_name(base)} for one in (found, doses))

    rest = [name for name in unknown if name not in found and name not in doses]
    numbered = {name: match["base"] for name in rest if (match := _NUMBERED.fullmatch(name))}
    if numbered:
        letters = {_letters(name) for name in known}
        numbers = Counter(numbered.values())
        numbered = {
            name: base
            for name, base in numbered.items()
            if base in known or (_letters(name) not in letters and _is_one_name(base) and numbers[base] <= _MOST_GUIDES)
        }
    alike = {name: match["base"] for name in rest if (match := _LIKE_GENES.fullmatch(name))}
    alike = {name: base for name, base in alike.items() if _is_one_name(base)}
    genes = {*known, *found.values(), *numbered.values()} | (set(names) - {*found, *doses, *numbered})
    if not most or not _most_are_guides(alike, len(names)):
        alike = {name: base for name, base in alike.items() if base in genes}
    return Variants(found | numbered | alike, doses)


def _is_one_name(base: str) -> bool:
    """Whether a text may be a gene: it has letters that are more than a word for guides, and is no list."""
    if re.fullmatch(r"(?:sg|g|si|sh|cr)(?:RNA)?|guide|oligo|RNA", base, re.IGNORECASE):
        return False
    return bool(re.search(r"[^\W\d_]", base)) and not re.search(r"[;,|&+]|g\d{1,2}[:/]|[\W_](?:sg|gRNA)[A-Z]", base)


def genes_of_guide(name: str) -> set[str]:
    """What the gene of a name may be that can be nothing but that of a guide; empty for others.

    KLF1_g2 and sgKLF1-3 are guides, and sgNKX2-1 one of NKX2-1 or NKX2; KLF1-2 may be the second row of a gene, and
    KLF1_ENSG00000105610 the gene.
    """
    match, of_gene = _GUIDE.fullmatch(name), re.search(r"_ENS[A-Z]*\d{11}(\.\d+)?$", name)
    if match and (match["transcript"] or not of_gene):
        name = match["transcript"] or match["base"] or match["symbol"]
    elif not _PREFIXED.fullmatch(name):
        return set()
    prefixed = _PREFIXED.fullmatch(name)
    return {prefixed["base"], re.sub(r"[\s_.|:#-]+\d{1,2}$", "", prefixed["base"])} if prefixed else {name}


def joined_guides(names: Iterable[str], known: Collection[str]) -> tuple[str, list[str]] | None:
    """Delimiter of the guides of several genes in names such as ``KLF1_g1:BAK1_g2``, and these names."""
    names = [name for name in names if name not in known]
    for delimiter in ":;|,&/":
        parts = {name: [part.strip() for part in name.split(delimiter)] for name in names if delimiter in name}
        guides = find_variants({part for several in parts.values() for part in several}, known).guides
        joined = sorted(name for name, several in parts.items() if all(part in guides for part in several))
        if joined:
            return delimiter, joined
    return None


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
            prefix = _PREFIXED.fullmatch(found[name])
            bases[name] = found[name] if prefix is None else prefix["base"]
        elif name in numbered and rest not in known and (most or numbered[name] in known):
            bases[name] = numbered[name]
        else:
            bases[name] = rest
    return bases
