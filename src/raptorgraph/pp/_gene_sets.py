"""Gene sets from a mapping, a GMT file or a table, matched to the genes of a screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd


def read_gene_sets(gene_sets: Mapping[str, Iterable[str]] | str | Path | pd.DataFrame) -> dict[str, list[str]]:
    """Bring gene sets of any of the usual forms into one.

    Parameters
    ----------
    gene_sets
        A mapping from the name of a set to its genes; the path of a GMT file (one set a line: name, description,
        genes, separated by tabs); or a table with a row for each member and the columns ``source`` (the set) and
        ``target`` (the gene), as decoupler has it.

    Returns
    -------
    Name of each set, in the order given, and its distinct genes, in the order given.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If the table lacks a column.
    TypeError
        If `gene_sets` is none of these, or the genes of a set are one string.
    ValueError
        If there is no gene set, or the file is not named ``.gmt``.
    """
    if isinstance(gene_sets, str | Path):
        import gseapy  # a second to import

        if not Path(gene_sets).suffix.lower() == ".gmt":
            raise ValueError(f"gene_sets={str(gene_sets)!r} is not the path of a .gmt file.")
        sets = gseapy.read_gmt(str(gene_sets))
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
            f"gene_sets must be a mapping, the path of a GMT file or a table, not {type(gene_sets).__name__}."
        )
    text = next((name for name, genes in sets.items() if isinstance(genes, str)), None)
    if text is not None:
        raise TypeError(f"Gene set {text!r} is the string {sets[text]!r}: give a list of genes.")
    sets = {str(name): list(dict.fromkeys(str(gene) for gene in genes)) for name, genes in sets.items()}
    if not sets:
        raise ValueError("There is no gene set in gene_sets.")
    return sets


def match_gene_sets(
    gene_sets: Mapping[str, Sequence[str]], genes: Sequence[str], *, min_size: int = 5, max_size: int = 500
) -> dict[str, list[str]]:
    """Reduce gene sets to the genes at hand, and drop sets that are then too small or too large.

    Parameters
    ----------
    gene_sets
        Name of each set and its distinct genes.
    genes
        The genes at hand. Names must be spelled alike, case included.
    min_size, max_size
        Smallest and largest number of genes of a set among those at hand. A set of all of them is dropped too.

    Returns
    -------
    The sets that are left, each with its genes in the order of `genes`.

    Raises
    ------
    ValueError
        If the sizes are not possible, or no set is left.
    """
    if not 1 <= min_size <= max_size:
        raise ValueError(f"min_size={min_size!r} and max_size={max_size!r} must be 1 <= min_size <= max_size.")
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
