"""Cosines of effects, before and after what all perturbations have in common is taken out."""

from __future__ import annotations

import numpy as np

_LEAST = 1e-9  # length below which nothing is left


class CommonDirection:
    """For each pair of unit vectors the sum of those that stand out, without the two themselves.

    Parameters
    ----------
    units
        Vectors of length 1 (or 0), n x genes.
    clear
        Which of them stand out, shape (n,).
    """

    def __init__(self, units: np.ndarray, clear: np.ndarray) -> None:
        self.units, self.clear = units, clear.astype(float)
        self.inner = units @ units.T

    def along(self, inner: np.ndarray, a: int) -> np.ndarray:
        """Components of vectors along the common directions of the pairs of `a` with all later ones.

        The vectors are given by their inner products with the units, n x k; the result is n x (k - 1 - a).
        """
        b = np.arange(a + 1, len(self.clear))
        found = (inner @ self.clear - self.clear[a] * inner[:, a])[:, None] - self.clear[b] * inner[:, b]
        length = self._lengths(a)[None, b]
        return np.asarray(np.divide(found, length, out=np.zeros_like(found), where=length > _LEAST))

    def specific(self) -> np.ndarray:
        """Cosines of all pairs without their common direction, n x n; 0 where nothing else is left."""
        inner, clear, own = self.inner, self.clear, self.inner.diagonal()
        length = self._lengths()
        # of the first of each pair along the direction of the pair
        first = (inner @ clear - clear * own)[:, None] - clear * inner
        first = np.divide(first, length, out=np.zeros_like(first), where=length > _LEAST)
        left = np.sqrt(np.maximum(1 - first**2, 0.0))
        rest, left = inner - first * first.T, left * left.T
        cosines = np.divide(rest, left, out=np.zeros_like(rest), where=left > _LEAST)
        return np.asarray(np.clip(cosines, -1.0, 1.0))

    def _lengths(self, a: int | None = None) -> np.ndarray:
        """Lengths of the common directions of all pairs, n x n, or of those with `a`, shape (n,)."""
        inner, clear = self.inner, self.clear
        with_total, own = inner @ clear, clear * self.inner.diagonal()
        without = clear * (own - 2 * with_total)  # what leaving one out takes from the square of the sum
        square = clear @ with_total + without
        if a is None:
            square = square[:, None] + without + 2 * clear[:, None] * clear * inner
        else:
            square = square + without[a] + 2 * clear[a] * clear * inner[a]
        return np.asarray(np.sqrt(np.maximum(square, 0.0)))
