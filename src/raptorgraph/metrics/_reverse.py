"""The reverse task: find the perturbation of a measured profile by the nearest predicted profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import comb

from raptorgraph.metrics._samples import check_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray


def reverse_distances(predicted: ArrayLike, queries: ArrayLike, *, exclude: ArrayLike | None = None) -> np.ndarray:
    r"""Euclidean distance of each measured query to each predicted perturbation (RAPTORGraph paper, Eq. S18).

    .. math::
        d_{qp} = \sqrt{\sum_{g \notin E} (x_{qg} - \hat x_{pg})^2}

    Parameters
    ----------
    predicted
        Predicted mean profiles, or effects, of the perturbations of the database, shape (n_database, n_genes).
    queries
        Measured mean profiles, or effects, shape (n_queries, n_genes).
    exclude
        Booleans of shape (n_genes,), True for the genes E to leave out. Leave out all candidate targets: the measured
        level of the targets themselves would give the answer away.

    Returns
    -------
    numpy.ndarray
        Distances, shape (n_queries, n_database).

    Raises
    ------
    ValueError
        If the genes differ in number, all are left out, or a value is not finite.

    Examples
    --------
    >>> predicted = np.array([[0.0, 0.0], [3.0, 4.0]])
    >>> rg.metrics.reverse_distances(predicted, np.array([[0.0, 0.0]]))
    array([[0., 5.]])
    """
    predicted, queries = np.asarray(predicted, dtype=np.float64), np.asarray(queries, dtype=np.float64)
    if predicted.ndim != 2 or queries.ndim != 2 or predicted.shape[1] != queries.shape[1]:
        raise ValueError(
            f"The database has shape {predicted.shape} and the queries {queries.shape}: give rows of the same genes."
        )
    check_rows(predicted=predicted, queries=queries)
    if exclude is not None:
        exclude = np.asarray(exclude)
        if exclude.dtype != bool or exclude.shape != predicted.shape[1:] or exclude.all():
            raise ValueError(
                f"`exclude` has type {exclude.dtype} and shape {exclude.shape}: "
                f"give booleans, one for each of the {predicted.shape[1]} genes, that leave some gene."
            )
        predicted, queries = predicted[:, ~exclude], queries[:, ~exclude]
    return np.asarray(cdist(queries, predicted))


def hit_rates(
    distances: ArrayLike,
    database: Sequence[Iterable[str]],
    queries: Sequence[Iterable[str]],
    *,
    k: Sequence[int] = (1, 3, 5, 10),
) -> dict[str, np.ndarray]:
    r"""Correct and relevant hit rate at K (RAPTORGraph paper, Eq. S19 and Eq. S20).

    The correct rate is the part of the queries whose own perturbation is among the K nearest of the database, the
    relevant rate the part with a perturbation among them that shares a gene with the query's. Where distances tie, the
    expected value under a random order of the ties: if s entries are nearer than a group of t that tie for the last
    :math:`r = K - s` places, a member is among the K nearest with probability r / t, and at least one of c relevant
    members with probability :math:`1 - \binom{t - c}{r} / \binom{t}{r}`.

    Parameters
    ----------
    distances
        Distance of each query to each perturbation of the database, shape (n_queries, n_database).
    database
        Genes of each perturbation of the database; their order and repetition do not matter.
    queries
        Genes of each query, each of which must be in the database.
    k
        Numbers of nearest perturbations, K.

    Returns
    -------
    dict of str to numpy.ndarray
        ``"correct"`` and ``"relevant"``, each of shape (len(k),), from 0 to 1.

    Raises
    ------
    TypeError
        If a perturbation is given as one string.
    ValueError
        If the distances do not fit the names or are NaN, a K is out of range, a query is not in the database, or a
        perturbation is in the database twice.

    Examples
    --------
    >>> database = [("A",), ("B",), ("A", "B"), ("C", "D")]
    >>> distances = np.array([[3.0, 2.0, 1.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    >>> rates = rg.metrics.hit_rates(distances, database, [("A", "B"), ("B",)], k=(1, 2))
    >>> rates["correct"]
    array([0.5, 1. ])
    >>> rates["relevant"]
    array([0.5, 1. ])
    """
    database, queries = _gene_sets(database, "database"), _gene_sets(queries, "queries")
    distances = np.asarray(distances, dtype=np.float64)
    if distances.shape != (len(queries), len(database)) or not len(queries):
        raise ValueError(
            f"Distances have shape {distances.shape}, for {len(queries)} queries and {len(database)} perturbations: "
            "give one row for each query and one column for each perturbation."
        )
    if np.isnan(distances).any():
        raise ValueError(f"Distances of query {int(np.isnan(distances).any(axis=1).argmax())} are NaN.")
    wrong = [K for K in k if not 1 <= K <= len(database)]
    if wrong:
        raise ValueError(f"k={wrong[0]!r} must be from 1 to the {len(database)} perturbations of the database.")
    column = {genes: j for j, genes in enumerate(database)}
    if len(column) < len(database):
        twice = next(genes for j, genes in enumerate(database) if column[genes] != j)
        raise ValueError(f"{'+'.join(sorted(twice))} is in the database twice: give each perturbation once.")
    unknown = [genes for genes in queries if genes not in column]
    if unknown:
        raise ValueError(f"The query {'+'.join(sorted(unknown[0]))} is not in the database: predict it too.")

    hits = {"correct": np.zeros((len(queries), len(k))), "relevant": np.zeros((len(queries), len(k)))}
    for q, genes in enumerate(queries):
        own = np.arange(len(database)) == column[genes]
        sharing = np.array([not genes.isdisjoint(other) for other in database])
        for i, K in enumerate(k):
            hits["correct"][q, i] = _hit(distances[q], own, K)
            hits["relevant"][q, i] = _hit(distances[q], sharing, K)
    return {name: values.mean(axis=0) for name, values in hits.items()}


def chance_hit_rates(
    database: Sequence[Iterable[str]], queries: Sequence[Iterable[str]], *, k: Sequence[int] = (1, 3, 5, 10)
) -> dict[str, np.ndarray]:
    r"""Hit rates of a random order of the database, exactly.

    For a database of N perturbations, of which c share a gene with the query, the correct rate is K / N and the
    relevant one :math:`1 - \binom{N - c}{K} / \binom{N}{K}`, each averaged over the queries.

    Parameters
    ----------
    database, queries, k
        As for :func:`hit_rates`.

    Returns
    -------
    dict of str to numpy.ndarray
        ``"correct"`` and ``"relevant"``, as :func:`hit_rates`.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hit_rates`.

    Examples
    --------
    >>> database = [("A",), ("B",), ("A", "B"), ("C", "D")]
    >>> rg.metrics.chance_hit_rates(database, [("A", "B")], k=(1, 2))["correct"]
    array([0.25, 0.5 ])
    """
    database, queries = list(database), list(queries)
    return hit_rates(np.zeros((len(queries), len(database))), database, queries, k=k)


def _hit(distances: NDArray[np.float64], wanted: NDArray[np.bool_], k: int) -> float:
    """Probability that one of the wanted is among the k nearest, when ties are in random order."""
    boundary = np.partition(distances, k - 1)[k - 1]
    nearer, ties = distances < boundary, distances == boundary
    if (nearer & wanted).any():
        return 1.0
    n_ties, places = int(ties.sum()), k - int(nearer.sum())
    misses = comb(n_ties - int((ties & wanted).sum()), places, exact=True)
    return 1.0 - float(misses / comb(n_ties, places, exact=True))


def _gene_sets(perturbations: Sequence[Iterable[str]], argument: str) -> list[frozenset[str]]:
    strings = [genes for genes in perturbations if isinstance(genes, str)]
    if strings:
        raise TypeError(f"{strings[0]!r} in `{argument}` is a string: write its genes as a tuple, ('A', 'B').")
    return [frozenset(genes) for genes in perturbations]
