"""Which pairs every method is asked for, beside those that were measured."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raptorgraph.screen import Screen

# The 20 genes of the reverse task on Norman et al. (2019), as the paper and scGPT use them.
NORMAN_GENES = (
    "CEBPA",
    "CEBPE",
    "CNN1",
    "FEV",
    "FOSB",
    "FOXA1",
    "FOXF1",
    "HOXB9",
    "IGDCC3",
    "IKZF3",
    "KLF1",
    "MAP2K6",
    "MAPK1",
    "OSR2",
    "PRTG",
    "PTPN9",
    "SAMD1",
    "TGFBR2",
    "UBASH3B",
    "ZBTB25",
)
_MOST_GENES = 30  # their 435 pairs are as many as the database of the reverse task needs


def database_genes(screen: Screen) -> list[str]:
    """Genes whose pairs make up the database of the reverse task.

    Those of the published task where the screen perturbed all of them; else the genes of the screen that were
    perturbed alone, at most 30: those in most measured combinations, then by name.
    """
    alone = {screen.genes_of[label][0] for label in screen.singles}
    if alone.issuperset(NORMAN_GENES):
        return list(NORMAN_GENES)
    in_combinations = [gene for label in screen.combinations for gene in screen.genes_of[label]]
    return sorted(sorted(alone, key=lambda gene: (-in_combinations.count(gene), gene))[:_MOST_GENES])


def database(screen: Screen) -> list[str]:
    """Canonical labels of all pairs of :func:`database_genes`."""
    return [screen.label(pair) for pair in combinations(database_genes(screen), 2)]
