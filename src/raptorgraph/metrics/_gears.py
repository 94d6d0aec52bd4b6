"""The interaction scores of GEARS (Roohani et al., Nature Biotechnology 2024), after Norman et al. (Science 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist, squareform

from raptorgraph._arguments import check_integer
from raptorgraph.metrics._samples import check_rows

Floats = NDArray[np.float64]
GenePairs = tuple[NDArray[np.intp], NDArray[np.intp]]

# Score of each type of interaction, whether it is strong when large, and the threshold of GEARS.
_RULES = {
    "synergy": ("magnitude", True, 1.15),
    "suppression": ("magnitude", False, 1.0),
    "redundancy": ("similarity", True, 0.85),
    "neomorphism": ("model_fit", False, 0.88),
    "epistasis": ("equality_contribution", False, 0.28),
}
_MAX_ITER = 1000
_TOLERANCE = 1e-6


def gears_scores(
    a: ArrayLike, b: ArrayLike, ab: ArrayLike, *, max_subpopulation: int = 100_000, seed: int = 0
) -> dict[str, np.ndarray]:
    r"""Scores of genetic interactions from a robust fit of the pair's effect by the two single effects.

    The Theil-Sen fit :math:`\Delta_{ab} \approx c_1 \Delta_a + c_2 \Delta_b`, without intercept and with genes as
    samples, is the spatial median of the least-squares solutions of pairs of genes. With dcor the
    :func:`distance_correlation` over genes,

    ========================= ==================================================================================
    ``magnitude``             :math:`\sqrt{c_1^2 + c_2^2}`
    ``dominance``             :math:`|\log_{10} |c_1 / c_2||`
    ``model_fit``             Pearson correlation of :math:`c_1 \Delta_a + c_2 \Delta_b` and :math:`\Delta_{ab}`
    ``similarity``            dcor of :math:`(\Delta_a, \Delta_b)`, two values a gene, and :math:`\Delta_{ab}`
    ``equality_contribution`` smaller divided by larger of dcor(a, ab) and dcor(b, ab)
    ========================= ==================================================================================

    GEARS computes them on some 1,000 genes of high mean expression; time and memory grow with the squared number of
    genes.

    Parameters
    ----------
    a, b
        Effects of the two perturbations of each pair, shape (n_pairs, n_genes).
    ab
        Effects of the pairs, of the same shape.
    max_subpopulation
        Largest number of pairs of genes in a fit: all, or so many at random where there are more. GEARS uses 100,000.
    seed
        Seed of the pairs of genes, which are the same for all rows.

    Returns
    -------
    dict of str to numpy.ndarray
        ``c1``, ``c2`` and the five scores, each of shape (n_pairs,), NaN where undefined (an effect of zero, or fitted
        effects that are constant over genes).

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than three genes, `max_subpopulation` is not positive, or a value is not
        finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 1, 40))
    >>> scores = rg.metrics.gears_scores(a, b, 1.5 * (a + b))
    >>> scores["c1"].round(3), scores["c2"].round(3)
    (array([1.5]), array([1.5]))
    >>> scores["magnitude"].round(3)  # 1.5 times the root of 2
    array([2.121])
    """
    a, b, ab = (np.asarray(effects, dtype=np.float64) for effects in (a, b, ab))
    if a.ndim != 2 or a.shape != b.shape or a.shape != ab.shape:
        raise ValueError(
            f"The effects of a, b and ab have shapes {a.shape}, {b.shape} and {ab.shape}: give (pairs, genes) for all."
        )
    if a.shape[1] < 3:
        raise ValueError(f"A fit with two coefficients needs three genes or more, got {a.shape[1]}.")
    check_integer("max_subpopulation", max_subpopulation, 1, hint=", the number of pairs of genes in a fit")
    check_rows(a=a, b=b, ab=ab)
    samples = _gene_pairs(a.shape[1], max_subpopulation, seed)
    rows = [_scores(x, y, xy, samples) for x, y, xy in zip(a, b, ab, strict=True)]
    names = ("c1", "c2", "magnitude", "dominance", "model_fit", "similarity", "equality_contribution")
    return dict(zip(names, np.array(rows).reshape(-1, len(names)).T.copy(), strict=True))


def gears_classes(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Types of interaction of each pair by the thresholds of GEARS; a pair may have several, or none.

    Synergy: magnitude > 1.15. Suppression: magnitude < 1. Redundancy: similarity > 0.85. Neomorphism: model fit
    < 0.88. Epistasis: equality of contribution < 0.28.

    Parameters
    ----------
    scores
        What :func:`gears_scores` returns.

    Returns
    -------
    dict of str to numpy.ndarray
        Booleans of shape (n_pairs,) for each of the five types; False where the score is NaN. Those of measured scores
        are the positives of :func:`~raptorgraph.metrics.precision_at_k`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 1, 40))
    >>> classes = rg.metrics.gears_classes(rg.metrics.gears_scores(a, b, 0.5 * (a + b)))
    >>> [name for name, called in classes.items() if called[0]]
    ['suppression']
    """
    return {
        kind: scores[score] > threshold if large else scores[score] < threshold
        for kind, (score, large, threshold) in _RULES.items()
    }


def gears_strengths(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores to rank the pairs by, one for each type of interaction: larger is stronger.

    Parameters
    ----------
    scores
        What :func:`gears_scores` returns.

    Returns
    -------
    dict of str to numpy.ndarray
        Shape (n_pairs,) for each of the five types: magnitude (synergy), its negative (suppression), similarity
        (redundancy), the negatives of model fit (neomorphism) and of the equality of contribution (epistasis).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 1, 40))
    >>> scores = rg.metrics.gears_scores(a, b, a + b)
    >>> sorted(rg.metrics.gears_strengths(scores))
    ['epistasis', 'neomorphism', 'redundancy', 'suppression', 'synergy']
    """
    return {kind: scores[score] if large else -scores[score] for kind, (score, large, _) in _RULES.items()}


def distance_correlation(x: ArrayLike, y: ArrayLike) -> float:
    r"""Distance correlation of two samples (Szekely, Rizzo & Bakirov, Annals of Statistics 2007).

    .. math::
        \left( \frac{\overline{A \circ B}}{\sqrt{\overline{A \circ A} \; \overline{B \circ B}}} \right)^{1/2}

    where A and B are the matrices of Euclidean distances within each sample, minus row means, minus column means, plus
    the mean.

    Parameters
    ----------
    x, y
        Observations of two quantities, shape (n,) or (n, n_dimensions).

    Returns
    -------
    float
        From 0 to 1 (1 for linear relations); 0 where a quantity is constant.

    Raises
    ------
    ValueError
        If the numbers of observations differ.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 50)
    >>> round(rg.metrics.distance_correlation(x, 3 * x), 6)
    1.0
    >>> rg.metrics.distance_correlation(x, x**2) > 0.4  # where the correlation is 0
    True
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (x, y))
    x, y = (values.reshape(len(values), -1) for values in (x, y))
    if len(x) != len(y):
        raise ValueError(f"There are {len(x)} observations of x and {len(y)} of y: give the same number.")
    return _correlation(_centered(squareform(pdist(x))), _centered(squareform(pdist(y))))


def _scores(a: Floats, b: Floats, ab: Floats, samples: GenePairs) -> list[float]:
    c1, c2 = _theil_sen(np.column_stack([a, b]), ab, samples)
    within_a, within_b, within_ab = (np.abs(np.subtract.outer(effect, effect)) for effect in (a, b, ab))
    within_both, within_ab = _centered(np.hypot(within_a, within_b)), _centered(within_ab)
    parts = sorted(_correlation(_centered(within), within_ab) for within in (within_a, within_b))
    with np.errstate(divide="ignore", invalid="ignore"):  # effects of zero
        return [
            c1,
            c2,
            np.hypot(c1, c2),
            np.abs(np.log10(np.abs(c1 / c2))),
            np.corrcoef(c1 * a + c2 * b, ab)[0, 1],
            _correlation(within_both, within_ab),
            parts[0] / parts[1] if parts[1] > 0 else np.nan,
        ]


def _centered(distances: Floats) -> Floats:
    means = distances.mean(axis=0)
    distances -= means
    distances -= (means - means.mean())[:, None]
    return distances


def _correlation(x: Floats, y: Floats) -> float:
    """Square root of the cosine of two double-centered matrices of distances."""
    size = np.sqrt(np.vdot(x, x) * np.vdot(y, y))
    # the covariance is not negative but for rounding
    return float(np.sqrt(max(np.vdot(x, y), 0.0) / size)) if size > 0 else 0.0


def _gene_pairs(n_genes: int, limit: int, seed: int) -> GenePairs:
    if n_genes * (n_genes - 1) // 2 <= limit:
        return np.triu_indices(n_genes, 1)
    rng = np.random.default_rng(seed)
    first, second = rng.integers(n_genes, size=limit), rng.integers(n_genes - 1, size=limit)
    return first, second + (second >= first)  # two different genes


def _theil_sen(X: Floats, y: Floats, samples: GenePairs) -> Floats:
    """Coefficients of scikit-learn's TheilSenRegressor(fit_intercept=False), with all its small fits at once."""
    first, second = samples
    (p, q), (r, t), y1, y2 = X[first].T, X[second].T, y[first], y[second]
    determinant = p * t - q * r
    size = np.maximum(p**2 + q**2, r**2 + t**2)
    regular = np.abs(determinant) > 1e-12 * size
    points = np.empty((len(first), 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        points[:, 0] = (t * y1 - q * y2) / determinant
        points[:, 1] = (p * y2 - r * y1) / determinant
    if not regular.all():
        # the least squares of least norm, where two genes do not determine both coefficients
        rows = np.stack([first[~regular], second[~regular]], axis=1)
        points[~regular] = (np.linalg.pinv(X[rows]) @ y[rows][:, :, None])[:, :, 0]
    return _spatial_median(points)


def _spatial_median(points: Floats) -> Floats:
    """Point of the least sum of distances: Weiszfeld's iteration as modified by Vardi & Zhang (PNAS 2000)."""
    center: Floats = np.median(points, axis=0)
    for _ in range(_MAX_ITER):
        difference = points - center
        distance = np.hypot(*difference.T)
        away = distance > np.finfo(float).eps
        inverse = 1.0 / distance[away]
        pull = inverse @ difference[away]
        strength, here = np.hypot(*pull), len(points) - inverse.size
        if strength <= here:  # the points at the center outweigh all others
            return center
        step = (1.0 - here / strength) * pull / inverse.sum()
        center = center + step
        if np.hypot(*step) < _TOLERANCE:
            return center
    return center
