"""What a latent space shows: labels of cells, the latent that belongs to a cell's label, and the mixing of batches."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from raptorgraph._arguments import check_choice, check_integer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_MAX_STEPS = 300  # of L-BFGS, which the accuracy has long ceased to depend on


def label_accuracy(
    latents: ArrayLike,
    labels: ArrayLike,
    classifier: Literal["neighbors", "logistic"] = "neighbors",
    *,
    n_neighbors: int = 15,
    n_folds: int = 4,
    seed: int = 0,
) -> float:
    """Balanced accuracy with which the label of a cell is told from its latents, in stratified cross-validation.

    Balanced accuracy is the mean over labels of the share of their cells that are told right: 1 over the number of
    labels by chance, whatever their sizes.

    Parameters
    ----------
    latents
        Cells x latents.
    labels
        Label of each cell, shape (n_cells,).
    classifier
        ``"neighbors"``: the most frequent label among the nearest cells in Euclidean distance; ``"logistic"``:
        multinomial logistic regression on standardized latents with an L2 penalty (C = 0.1). A cell counts by the
        inverse of the size of its label in both, so that no label is guessed because it is large.
    n_neighbors
        Number of nearest cells.
    n_folds
        Number of parts, each of which is told from the others.
    seed
        Seed of the parts.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    TypeError
        If a number is no integer.
    ValueError
        If the shapes do not fit, a latent is not finite, there is one label only, a label has fewer cells than there
        are folds, there are too few cells for the neighbors, or the classifier is unknown.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat(["control", "A"], 40)
    >>> latents = rng.normal(size=(80, 3))
    >>> latents[labels == "A", 0] += 8
    >>> rg.metrics.label_accuracy(latents, labels)
    1.0
    >>> rg.metrics.label_accuracy(latents, labels, "logistic")
    1.0
    """
    check_choice("classifier", classifier, ("neighbors", "logistic"))
    n_folds, latents = check_integer("n_folds", n_folds, 2), _cells(latents)
    names, codes, counts = np.unique(_by_cell("labels", labels, latents), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"All cells have the label {str(names[0])!r}: give cells of two labels or more.")
    if counts.min() < n_folds:
        few = names[counts.argmin()]
        raise ValueError(f"{str(few)!r} has {counts.min()} cells, fewer than the {n_folds} folds: leave it out.")
    model: Any
    if classifier == "neighbors":
        n_fitted = len(latents) - -(-len(latents) // n_folds)
        model = KNeighborsClassifier(_check_neighbors(n_neighbors, n_fitted))
    else:
        logistic = LogisticRegression(C=0.1, max_iter=_MAX_STEPS, class_weight="balanced")
        model = make_pipeline(StandardScaler(), logistic)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        votes = cross_val_predict(model, latents, codes, cv=folds, method="predict_proba")
    if classifier == "neighbors":
        votes = votes / counts
    return float(balanced_accuracy_score(codes, votes.argmax(1)))


def own_latent_ranks(latents: ArrayLike, own: ArrayLike) -> np.ndarray:
    """Rank of each cell's own latent among its latents, the largest being 1; ties count half.

    Parameters
    ----------
    latents
        Cells x latents, in units in which they can be compared.
    own
        Column of the latent that is each cell's own, shape (n_cells,).

    Returns
    -------
    numpy.ndarray
        Shape (n_cells,), from 1 to the number of latents; half of that plus one on average by chance.

    Raises
    ------
    ValueError
        If the shapes do not fit, a latent is not finite, or there is no such column.

    Examples
    --------
    >>> rg.metrics.own_latent_ranks([[3.0, 0.1, 0.2], [1.0, 0.5, 0.5]], [0, 1]).tolist()
    [1.0, 2.5]
    """
    latents = _cells(latents)
    own = _by_cell("own", own, latents)
    if own.dtype.kind not in "iu" or (len(own) and not (own.min() >= 0 and own.max() < latents.shape[1])):
        raise ValueError(f"`own` must have columns from 0 to {latents.shape[1] - 1}, as integers.")
    value = np.take_along_axis(latents, own[:, None], axis=1)
    ranks: np.ndarray = 1 + (latents > value).sum(axis=1) + 0.5 * ((latents == value).sum(axis=1) - 1)
    return ranks


def batch_mixing(latents: ArrayLike, batches: ArrayLike, *, n_neighbors: int = 15) -> float:
    r"""Share of other batches among the nearest cells, over the share that is expected without batch effects.

    .. math::
        \frac{\sum_i |\{j \in N(i) : b_j \ne b_i\}| / k}{\sum_i (n - n_{b_i}) / (n - 1)}

    with N(i) the k cells nearest to cell i in Euclidean distance and :math:`n_b` the number of cells of batch b.

    Parameters
    ----------
    latents
        Cells x latents.
    batches
        Batch of each cell, shape (n_cells,).
    n_neighbors
        Number of nearest cells.

    Returns
    -------
    float
        1 where batches mix as if they were drawn at random, 0 where they lie apart.

    Raises
    ------
    TypeError
        If the number of neighbors is no integer.
    ValueError
        If the shapes do not fit, a latent is not finite, there is one batch only, or too few cells.

    Examples
    --------
    >>> latents = np.random.default_rng(0).normal(size=(200, 2))
    >>> batches = np.arange(200) % 2
    >>> round(rg.metrics.batch_mixing(latents, batches), 1)
    1.0
    >>> rg.metrics.batch_mixing(latents + 100 * batches[:, None], batches)
    0.0
    """
    latents = _cells(latents)
    names, codes, counts = np.unique(_by_cell("batches", batches, latents), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"All cells are of the batch {str(names[0])!r}: give cells of two batches or more.")
    n = len(latents)
    k = _check_neighbors(n_neighbors, n - 1)
    nearest = NearestNeighbors(n_neighbors=k).fit(latents).kneighbors(return_distance=False)  # without the cell itself
    other = (codes[nearest] != codes[:, None]).mean()
    return float(other / ((n - counts[codes]) / (n - 1)).mean())


def _cells(latents: ArrayLike) -> NDArray[np.float64]:
    """Cells x latents as floats."""
    values = np.asarray(latents, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"`latents` has the shape {values.shape}: give cells x latents.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise ValueError(f"Row {bad[0]} of `latents` is not finite ({bad.size} such rows): leave it out.")
    return values


def _by_cell(name: str, values: ArrayLike, latents: NDArray[np.float64]) -> NDArray[Any]:
    """One value for each cell."""
    found = np.asarray(values)
    if found.shape != latents.shape[:1]:
        raise ValueError(f"`{name}` has the shape {found.shape}: give one for each of the {len(latents)} cells.")
    return found


def _check_neighbors(n_neighbors: int, n_cells: int) -> int:
    """Number of neighbors, of which there are that many cells."""
    if check_integer("n_neighbors", n_neighbors, 1) > n_cells:
        raise ValueError(f"n_neighbors={n_neighbors} are more than the {n_cells} cells that they are looked for among.")
    return n_neighbors
