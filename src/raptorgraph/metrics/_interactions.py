"""Scores of genetic interactions: how the effect of a pair departs from the sum of its two effects.

Effects are vectors over genes, ``a`` and ``b`` of the two perturbations and ``ab`` of the pair; the naive expectation
is ``a + b`` (RAPTORGraph paper, section D.4, Eq. S11). Each function takes arrays of shape (..., n_genes) and returns
(...).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raptorgraph._docs import docs

Floats = NDArray[np.float64]


@docs.dedent
def synergy(a: ArrayLike, b: ArrayLike, ab: ArrayLike) -> np.ndarray:
    r"""Magnitude of the pair's effect against that of the sum (Eq. S12).

    .. math::
        \frac{\lVert \Delta_{ab} \rVert_2}{\lVert \Delta_a + \Delta_b \rVert_2}

    Parameters
    ----------
    %(pair_effects)s

    Returns
    -------
    numpy.ndarray
        Shape (...): 1 for additive pairs, more for stronger ones; NaN where ``a + b`` is zero.

    %(shapes_differ)s

    Examples
    --------
    >>> a, b = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    >>> rg.metrics.synergy(a, b, a + b).item()
    1.0
    >>> rg.metrics.synergy(a, b, 2 * (a + b)).item()
    2.0
    """
    a, b, ab = _effects(a, b, ab)
    return _ratio(_norm(ab), _norm(a + b))


@docs.dedent
def suppression(a: ArrayLike, b: ArrayLike, ab: ArrayLike) -> np.ndarray:
    r"""Magnitude of the sum against that of the pair's effect, the inverse of :func:`synergy` (Eq. S12).

    .. math::
        \frac{\lVert \Delta_a + \Delta_b \rVert_2}{\lVert \Delta_{ab} \rVert_2}

    Parameters
    ----------
    %(pair_effects)s

    Returns
    -------
    numpy.ndarray
        Shape (...): 1 for additive pairs, more for weaker ones; NaN where ``ab`` is zero.

    %(shapes_differ)s

    Examples
    --------
    >>> a, b = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    >>> rg.metrics.suppression(a, b, 0.5 * (a + b)).item()
    2.0
    """
    a, b, ab = _effects(a, b, ab)
    return _ratio(_norm(a + b), _norm(ab))


@docs.dedent
def neomorphism(a: ArrayLike, b: ArrayLike, ab: ArrayLike) -> np.ndarray:
    r"""Change of direction against the sum (Eq. S13).

    .. math::
        1 - \cos(\Delta_{ab}, \Delta_a + \Delta_b)

    Parameters
    ----------
    %(pair_effects)s

    Returns
    -------
    numpy.ndarray
        Shape (...), from 0 (the direction of the sum) to 2 (the opposite one); NaN where a vector is zero.

    %(shapes_differ)s

    Examples
    --------
    >>> a, b = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    >>> new = np.array([0.0, 0.0, 1.0])
    >>> rg.metrics.neomorphism(a, b, new).item()  # at a right angle to the sum
    1.0
    """
    a, b, ab = _effects(a, b, ab)
    return 1.0 - _cosine(ab, a + b)


@docs.dedent
def redundancy(a: ArrayLike, b: ArrayLike, ab: ArrayLike) -> np.ndarray:
    r"""Similarity of the pair's effect to both single effects (Eq. S14).

    .. math::
        \min(\cos(\Delta_{ab}, \Delta_a), \cos(\Delta_{ab}, \Delta_b))

    Parameters
    ----------
    %(pair_effects)s

    Returns
    -------
    numpy.ndarray
        Shape (...), from -1 to 1; NaN where a vector is zero.

    %(shapes_differ)s

    Examples
    --------
    >>> a = np.array([1.0, 0.5, 0.0])
    >>> round(rg.metrics.redundancy(a, a, a).item(), 6)  # the pair does what each of the two does
    1.0
    """
    a, b, ab = _effects(a, b, ab)
    return np.asarray(np.minimum(_cosine(ab, a), _cosine(ab, b)))


@docs.dedent
def epistasis(a: ArrayLike, b: ArrayLike, ab: ArrayLike) -> np.ndarray:
    r"""Dominance of one perturbation over the other (Eq. S15).

    .. math::
        |\cos(\Delta_{ab}, \Delta_a) - \cos(\Delta_{ab}, \Delta_b)|

    Parameters
    ----------
    %(pair_effects)s

    Returns
    -------
    numpy.ndarray
        Shape (...), from 0 to 2; NaN where a vector is zero.

    %(shapes_differ)s

    Examples
    --------
    >>> a, b = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    >>> rg.metrics.epistasis(a, b, a).item()  # the effect of a alone
    1.0
    >>> rg.metrics.epistasis(a, b, a + b).item()
    0.0
    """
    a, b, ab = _effects(a, b, ab)
    return np.abs(_cosine(ab, a) - _cosine(ab, b))


def _effects(*effects: ArrayLike) -> list[Floats]:
    arrays = [np.asarray(effect, dtype=np.float64) for effect in effects]
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim == 0:
        raise ValueError(
            f"The effects of a, b and ab have shapes {', '.join(str(array.shape) for array in arrays)}: "
            "give one row for each pair and the same genes to all three."
        )
    return arrays


def _norm(x: Floats) -> Floats:
    return np.asarray(np.linalg.norm(x, axis=-1))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.asarray(np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom > 0))


def _cosine(x: Floats, y: Floats) -> Floats:
    return np.clip(_ratio((x * y).sum(axis=-1), _norm(x) * _norm(y)), -1.0, 1.0)
