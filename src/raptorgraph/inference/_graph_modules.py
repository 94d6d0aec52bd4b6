"""Genes that cannot be ordered: edges whose direction is not supported, and the groups that they join."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

ORDERED = 0.8  # support from which a direction is one: four times as likely as the other
JOINS = 0.5  # share of an effect from which an edge without a direction makes one group of its genes


def cautious_support(support: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Support of directions by the evidence of one screen and by resampled ones: the more cautious of both.

    Parameters
    ----------
    support
        Probability of each direction, k x k, that of the other one being 1 less it; NaN where it is not known.
    frequency
        Share of resampled graphs with each edge, k x k; NaN where none were drawn.

    Returns
    -------
    numpy.ndarray
        k x k. With r the share of the graphs with either edge of a pair that have this one: whichever of support and r
        is nearer to 0.5, and 0.5 where they disagree on the direction or no resampled graph has the pair. r alone where
        there is no other evidence.
    """
    if np.isnan(frequency).all():
        return support.copy()
    either = frequency + frequency.T
    found_again = np.divide(frequency, either, out=np.full(frequency.shape, 0.5), where=either > 0)
    lean, again = support - 0.5, found_again - 0.5
    cautious = 0.5 + np.where(lean * again > 0, np.sign(lean) * np.minimum(np.abs(lean), np.abs(again)), 0.0)
    return np.where(np.isnan(support), np.where(either > 0, found_again, np.nan), cautious)


def gene_modules(edges: np.ndarray, support: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges that join genes which the data cannot order, and the module of each gene.

    Parameters
    ----------
    edges
        Whether there is an edge, k x k.
    support
        Probability of its direction, k x k. An edge below 0.8, or whose support is not known, has none.
    share
        Part of the whole effect of its cause that an edge carries, k x k. Edges that have no direction and carry half
        or more join their genes; one that carries less says little of either gene.

    Returns
    -------
    Which edges these are, k x k bool, and k names: ``"M1"`` for genes of the largest group and so on, ``""`` for a gene
    of none.
    """
    joins = edges & ~(support >= ORDERED) & (share >= JOINS)
    n_groups, group = connected_components(csr_matrix(joins), directed=False)
    _, first, sizes = np.unique(group, return_index=True, return_counts=True)
    ranked = sorted((g for g in range(n_groups) if sizes[g] > 1), key=lambda g: (-sizes[g], first[g]))
    names = np.full(n_groups, "", dtype=object)
    for place, g in enumerate(ranked, 1):
        names[g] = f"M{place}"
    return joins, names[group]


def module_labels(edges: np.ndarray, support: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Module of every edge that joins genes which the data cannot order (:func:`gene_modules`).

    Returns
    -------
    numpy.ndarray
        k x k strings; empty for all other edges and where none is.
    """
    joins, names = gene_modules(edges, support, share)
    return np.where(joins, names[:, None], "").astype(object)
