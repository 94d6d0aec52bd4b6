"""Gene sets from a mapping, a GMT file, a table or a library, matched to the genes of a screen; their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from raptorgraph._arguments import check_integer

# A file of MSigDB, as "h.all.v2023.2.Hs"; other names are Enrichr's.
_MSIGDB = re.compile(r"([a-z0-9]+(?:\.[a-z0-9_]+)+)\.v(\d{4}\.\d+\.(?:Hs|Mm))")
_PREFIX = re.compile(
    r"^(HALLMARK|KEGG(_MEDICUS)?(_REFERENCE|_PATHOGEN|_VARIANT)?|REACTOME|BIOCARTA|PID|WP|GO(BP|CC|MF)|GO|HP)_"
)
_IDENTIFIER = re.compile(r"\s*(\(GO:\d+\)|R-HSA-\d+|WP\d+|\(?hsa\d+\)?)$")
# Words that stay in capitals, beside those with a digit.
_CAPITALS = frozenset(
    "ABC AKT ATP BCR BMP CDC DNA EGF EGFR ER ERBB ERK FGF GTP HIF IFN IL JAK JNK KRAS MAPK MHC MTOR MTORC MYC NFKB NK "
    "NMDA NOD PI3K PPAR RAS RIG RNA RNAI ROS STAT TCA TCR TGF TLR TNF TNFA UV VEGF WNT".split()
)
_SPELLED = {"DN": "down", "MRNA": "mRNA", "NCRNA": "ncRNA", "RRNA": "rRNA", "TRNA": "tRNA"}


def read_gene_sets(
    gene_sets: Mapping[str, Iterable[str]] | str | Path | pd.DataFrame, *, organism: str = "Human"
) -> dict[str, list[str]]:
    """Bring gene sets of any of the usual forms into one.

    Parameters
    ----------
    gene_sets
        A mapping from the name of a set to its genes; the path of a GMT file (one set a line: name, description,
        genes, separated by tabs); a table with a row for each member and the columns ``source`` (the set) and
        ``target`` (the gene), as decoupler has it (a column of weights is not read); or the name of a library, which
        gseapy fetches: one of Enrichr's such as ``"MSigDB_Hallmark_2020"`` (``gseapy.get_library_name()`` lists
        them), or a collection and release of MSigDB such as ``"h.all.v2023.2.Hs"``.
    organism
        Organism of an Enrichr library: ``"Human"``, ``"Mouse"``, ``"Yeast"``, ``"Fly"``, ``"Fish"`` or ``"Worm"``.

    Returns
    -------
    dict
        Name of each set, in the order given, and its distinct genes, in the order given and without blanks around them.

    Raises
    ------
    ConnectionError
        If a library cannot be fetched.
    FileNotFoundError
        If there is no such file.
    KeyError
        If the table lacks a column.
    TypeError
        If `gene_sets` is none of these, or the genes of a set are one string.
    ValueError
        If there is no gene set, a path is not that of a GMT file, or there is no such library.

    Examples
    --------
    >>> rg.pp.read_gene_sets({"one": ["KLF1", "GATA1", "KLF1"]})
    {'one': ['KLF1', 'GATA1']}
    >>> table = pd.DataFrame({"source": ["one", "two", "one"], "target": ["KLF1", "MYC", "GATA1"]})
    >>> rg.pp.read_gene_sets(table)
    {'one': ['KLF1', 'GATA1'], 'two': ['MYC']}
    """
    sets: Mapping[str, Iterable[str]]
    if isinstance(gene_sets, str | Path):
        sets = _read_path(gene_sets) if _is_path(gene_sets) else _fetch(str(gene_sets), organism)
    elif isinstance(gene_sets, pd.DataFrame):
        missing = [column for column in ("source", "target") if column not in gene_sets]
        if missing:
            raise KeyError(
                f"The table of gene sets has no column {missing[0]!r}, only {list(gene_sets.columns)}; rename its "
                "columns to 'source' (the set) and 'target' (the gene)."
            )
        sets = gene_sets.groupby("source", sort=False, observed=True)["target"].agg(list).to_dict()
    elif isinstance(gene_sets, Mapping):
        sets = gene_sets
    else:
        raise TypeError(
            "gene_sets must be a mapping, the path of a GMT file, the name of a library or a table, not "
            f"{type(gene_sets).__name__}."
        )
    text = next((name for name, genes in sets.items() if isinstance(genes, str)), None)
    if text is not None:
        raise TypeError(f"Gene set {text!r} is the string {sets[text]!r}: give a list of genes.")
    if not sets:
        raise ValueError("There is no gene set in gene_sets.")
    return {str(name): list(dict.fromkeys(str(gene).strip() for gene in genes)) for name, genes in sets.items()}


def _is_path(given: str | Path) -> bool:
    """Whether a file is meant, and not a library."""
    text = str(given)
    spelled = text.lower().endswith(".gmt") or "/" in text or "\\" in text
    return isinstance(given, Path) or spelled or Path(text).exists()


def _read_path(path: str | Path) -> dict[str, list[str]]:
    """Gene sets of a GMT file."""
    import gseapy  # a second to import

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of gene sets {str(path)!r}.")
    try:
        if path.suffix.lower() != ".gmt":
            raise ValueError("This is not the path of a .gmt file.")
        lines = path.read_text(encoding="utf-8").splitlines()
        other = next((number for number, line in enumerate(lines, 1) if line.strip() and "\t" not in line), None)
        if other is not None:
            raise ValueError(f"Line {other} has no tab.")
        if not any(line.strip() for line in lines):
            raise ValueError("The file is empty.")
        return dict(gseapy.read_gmt(str(path)))
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"gene_sets={str(path)!r} cannot be read as a GMT file, named .gmt, with one set a line: its name, a "
            f"description and its genes, separated by tabs. {error}"
        ) from error


def _fetch(name: str, organism: str) -> dict[str, list[str]]:
    """Gene sets of a library of Enrichr or MSigDB."""
    import gseapy
    import requests  # comes with gseapy

    release = _MSIGDB.fullmatch(name.removesuffix(".symbols"))
    try:
        if release:
            sets = gseapy.Msigdb.get_gmt(category=release[1], dbver=release[2])
            if sets is None:
                raise ValueError(
                    f"MSigDB has no collection {release[1]!r} of release {release[2]!r}; "
                    "gseapy.Msigdb.list_category(dbver=...) lists them."
                )
            return dict(sets)
        known = gseapy.get_library_name(organism=organism)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise ValueError(
                f"gene_sets={name!r} is neither the path of a .gmt file nor one of Enrichr's {len(known)} libraries "
                f"for {organism!r}{'; did you mean ' + ' or '.join(map(repr, near)) if near else ''}."
            )
        # with these sizes, nothing is left out
        return dict(gseapy.get_library(name, organism=organism, min_size=0, max_size=10**9))
    except requests.RequestException as error:
        raise ConnectionError(
            f"gene_sets={name!r} is not the path of a .gmt file, and as a library it could not be fetched "
            f"({type(error).__name__}): connect to the network, or download its GMT file elsewhere and give its path."
        ) from error


def clean_set_name(name: str) -> str:
    """Name of a gene set as one would write it in a sentence.

    The prefix of a collection, identifiers at the end, underscores and capital letters are removed; abbreviations and
    words with a digit stay in capitals.

    Examples
    --------
    >>> from raptorgraph.pp._gene_sets import clean_set_name
    >>> [clean_set_name(name) for name in ("HALLMARK_TNFA_SIGNALING_VIA_NFKB", "Heme Metabolism")]
    ['TNFA signaling via NFKB', 'Heme metabolism']
    >>> clean_set_name("regulation of cell cycle (GO:0051726)")
    'Regulation of cell cycle'
    """
    if name.isupper() and "_" not in name:
        return name  # a regulator's name, or an abbreviation
    words = _IDENTIFIER.sub("", _PREFIX.sub("", name)).replace("_", " ").split()
    if not words:
        return name
    if name.isupper():
        words = [
            _SPELLED.get(word, word if word in _CAPITALS or not word.isalpha() else word.lower()) for word in words
        ]
    else:
        words = [word.lower() if word.istitle() and word.isalpha() else word for word in words]
    first = words[0].capitalize() if words[0].isalpha() and words[0].islower() else words[0]
    return " ".join([first, *words[1:]])


def match_gene_sets(
    gene_sets: Mapping[str, Sequence[str]], genes: Sequence[str], *, min_size: int = 5, max_size: int = 500
) -> dict[str, list[str]]:
    """Reduce gene sets to the genes at hand, in the order of these, and drop sets that are then too small or too large.

    Names must be spelled alike, case included. A set of all genes at hand is dropped too. ValueError if no set is left.
    """
    check_integer("min_size", min_size, 1)
    if max_size != float("inf"):
        check_integer("max_size", max_size, 1)
    if min_size > max_size:
        raise ValueError(f"min_size={min_size!r} and max_size={max_size!r} must be min_size <= max_size.")
    position = {gene: k for k, gene in enumerate(genes)}
    matched = {
        name: sorted((gene for gene in members if gene in position), key=position.__getitem__)
        for name, members in gene_sets.items()
    }
    kept = {name: found for name, found in matched.items() if min_size <= len(found) <= min(max_size, len(genes) - 1)}
    if not kept:
        sizes = sorted(len(found) for found in matched.values())
        raise ValueError(
            f"None of the {len(matched)} gene sets has from {min_size} to {max_size} of the {len(genes)} genes and "
            f"not all of them: they have from {sizes[0]} to {sizes[-1]}. Genes at hand are spelled like "
            f"{list(genes[:3])}, those of the sets like {[gene for found in gene_sets.values() for gene in found][:3]}."
        )
    return kept
