"""Check of what the numbers of counts per cell alone do to effects, by control cells with fewer counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from raptorgraph._text import counted
from raptorgraph.screen._checks import warning
from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._matrix import Matrix, to_dense

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from raptorgraph.screen._checks import Finding
    from raptorgraph.screen._screen import Screen

_MOST_CONTROLS = 1000  # that are thinned
_LEAST = 1.1  # ratio of libraries, either way, that is looked at
_STEP = 0.1  # of the logarithms of ratios that are told apart
_CLEAR = 0.25  # mean square of the shifts in standard errors, from which intervals of 90 % hold less than 85 %


def shifted_by_depth(screen: Screen, ratio: Mapping[str, float]) -> Iterator[Finding]:
    r"""Perturbations whose effects are shifted by the number of counts of their cells.

    The mean of :math:`\log(1 + 10^4 x / L)` depends on the library size L where counts x are few, although L divides
    them. By how much is what control cells show: each count is kept with the probability of the ratio of libraries
    (or its inverse, and the shift goes the other way), and the mean expression compared with that before.

    Parameters
    ----------
    screen
        All cells, with counts.
    ratio
        Typical library size of conditions over that of control cells (of the same batches).
    """
    X, library = screen.source
    if library is None:
        return
    far = {label: value for label, value in ratio.items() if abs(np.log(value)) > np.log(_LEAST)}
    if not far:
        return
    rng = np.random.default_rng(0)
    rows = screen.rows_by_name(screen.control)
    rows = rng.permutation(rows)[:_MOST_CONTROLS]
    counts, sizes = X[rows], library[rows]
    before = _mean(counts, sizes)
    moments, place = screen.moments, {label: c for c, label in enumerate(screen.labels)}
    steps = {label: round(abs(np.log(value)) / _STEP) for label, value in far.items()}
    seen, shift = before > 0, {}
    for step in sorted(set(steps.values())):
        part = float(np.exp(-_STEP * step))
        shift[step] = (_mean(_thinned(counts, part, rng), sizes * part) - before)[seen]
    found = {}
    for label, step in steps.items():
        errors = np.abs(shift[step]) / np.sqrt(moments.variance[place[label]][seen])
        if np.mean(errors**2) > _CLEAR:
            found[label] = float(np.mean(errors > 1))
    if found:
        yield warning(
            f"{counted(len(found), 'perturbation')} whose effects are shifted by the number of counts per cell",
            "The mean logarithm of a gene with few counts depends on how many counts a cell has, although it is "
            "divided by them. Control cells with as many counts as these cells would seem to have an effect beyond "
            "sampling noise, on many genes. No interval and no rate knows of it, and such perturbations look alike.",
            "Bring all cells to the same depth before the setup (scanpy.pp.downsample_counts), and see whether the "
            "effects stay. If lanes were sequenced to different depths, name them: setup_anndata(batch_key=...).",
            tuple(found),
            tuple(f"{label} ({far[label]:.2g} times, {share:.0%} of genes)" for label, share in found.items()),
        )


def _mean(counts: Matrix, library: np.ndarray) -> np.ndarray:
    """Mean expression of cells, shape (genes,)."""
    return np.asarray(to_dense(to_expression(counts, library)).mean(axis=0, dtype=np.float64))


def _thinned(counts: Matrix, part: float, rng: np.random.Generator) -> Matrix:
    """Counts of which each is kept with a probability."""
    if sparse.issparse(counts):
        found = sparse.csr_matrix(counts, copy=True)
        found.data = rng.binomial(found.data.astype(np.int64), part)
        return found
    return np.asarray(rng.binomial(np.asarray(counts).astype(np.int64), part))
