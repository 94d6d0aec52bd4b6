"""Pairs to choose the next experiment from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptorgraph.screen._asked import did_you_mean, listed
from raptorgraph.tl._interactions import _checked
from raptorgraph.tl._pair_list import PairList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Setup


def candidate_pairs(
    model: RaptorGraphModel,
    setup: Setup,
    candidates: Sequence[tuple[str, str] | str] | None,
    exclude: Sequence[tuple[str, str] | str],
) -> tuple[PairList, PairList]:
    """All pairs that were not measured, and those of them to choose from.

    KeyError for a gene that was not perturbed, ValueError for a candidate that was measured and where none is left.
    """
    genes = list(model.perturbed_genes)
    known = {setup.genes(label) for label in model.conditions}
    unseen = PairList.all_but(genes, known)
    asked = unseen if candidates is None else PairList.of(genes, _checked(candidates, genes, setup))
    measured = [] if candidates is None else [pair for pair in asked if pair in known]
    if measured:
        raise ValueError(
            f"The candidate {setup.label(measured[0])!r} was measured already: name pairs that were not, or leave "
            "candidates out for all of these."
        )
    without = listed(exclude)
    alone = {gene for gene in without if isinstance(gene, str) and gene in genes}
    unknown = [name for name in without if isinstance(name, str) and len(setup.genes(name)) == 1 and name not in alone]
    if unknown:
        raise KeyError(
            f"exclude names {unknown[0]!r}, which is no perturbed gene of the model; these are {sorted(genes)[:20]}"
            f"{did_you_mean(unknown[0], genes, **setup.spelling) or '.'}"
        )
    rest = [pair for pair in without if not (isinstance(pair, str) and pair in alone)]
    unwanted = _checked(rest, genes, setup)
    excluded = np.array([gene in alone for gene in asked.genes])
    kept = ~(excluded[asked.first] | excluded[asked.second])
    for pair in unwanted:
        i, j = (asked.genes.index(gene) for gene in pair)
        kept &= ~((asked.first == i) & (asked.second == j))
    pairs = asked.taken(kept)
    if not len(pairs):
        raise ValueError(
            f"There is no pair to choose among the {len(genes)} perturbed genes: {len(unseen)} were not measured, "
            f"{len(asked)} are candidates, and {len(without)} genes and pairs are excluded. Name other candidates, or "
            "exclude less."
        )
    return unseen, pairs
