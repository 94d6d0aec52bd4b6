"""Which perturbations stand out from the noise of sampling cells, and what each does to its own gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph._progress import track
from raptorgraph.screen._noise import ControlNoise, cell_classes, effect_statistics, stands_out, tail_probability

if TYPE_CHECKING:
    from raptorgraph.screen import Screen

FEWEST_CONTROLS = 20  # of which random groups can be drawn
_N_NULL = 1000


def strengths(screen: Screen, seed: int = 0, *, n_null: int = _N_NULL) -> pd.DataFrame:
    """Compare the effect of every condition with those of random groups of control cells.

    The statistics are those by which :func:`raptorgraph.tl.enrich` says which latents stand out.

    Parameters
    ----------
    screen
        All cells.
    seed
        Seed of the random groups.
    n_null
        Number of random groups of each size.

    Returns
    -------
    pandas.DataFrame
        Index: condition. ``n_cells``; ``size``, the norm of the effect; ``signal_to_noise``, its square over the sum
        of the sampling variances, about 1 for a condition that does nothing; ``p``, of an effect as large, on many
        genes or on few, in random groups of as many control cells (NaN with fewer than 20 that are not alone in their
        batch); ``stands_out``, whether the false discovery rate among all conditions is at most 0.05; ``own_gene``, of
        a single whose gene was measured the change of that gene, and ``own_gene_se``.
    """
    moments = screen.moments
    effect, variance = moments.effect[1:], moments.variance[1:]
    p = _p_values(screen, seed, n_null)
    table = pd.DataFrame(
        {
            "n_cells": moments.n[1:],
            "size": np.linalg.norm(effect, axis=1),
            "signal_to_noise": (effect**2).sum(axis=1) / variance.sum(axis=1),
            "p": p,
            "stands_out": stands_out(p),
            "own_gene": np.nan,
            "own_gene_se": np.nan,
        },
        index=pd.Index(screen.conditions, name="perturbation"),
    )
    for row, columns in enumerate(_own_columns(screen)):
        if len(columns) == 1 == len(screen.genes_of[table.index[row]]):
            j = columns[0]
            table.iloc[row, -2:] = effect[row, j], np.sqrt(variance[row, j])
    return table


def singles_that_stand_out(screen: Screen, seed: int = 0) -> set[str]:
    """Perturbed genes whose single perturbation stands out by :func:`strengths`, whatever combinations do."""
    table = strengths(screen, seed)
    return {screen.genes_of[label][0] for label in screen.singles if table.at[label, "stands_out"]}


def _p_values(screen: Screen, seed: int, n_null: int) -> np.ndarray:
    """Probability of as large an effect where there is none, the smaller of two for broad and for sparse effects."""
    controls = screen.rows_by_name(screen.control)
    batch = np.zeros(len(controls), dtype=int) if screen.batch is None else screen.batch[controls]
    n_in_batch = np.unique(batch, return_counts=True)[1]
    if n_in_batch[n_in_batch > 1].sum() < FEWEST_CONTROLS:  # of a batch with one none can be drawn
        return np.full(len(screen.conditions), np.nan)
    noise = ControlNoise(sparse.csr_matrix(screen.expression_at(controls)), batch=batch)
    # cells are taken to vary among perturbed ones as among controls, which is what is compared
    moments = screen.moments_of(shrinkage=len(controls))
    classes, own, p = cell_classes(moments.n[1:]), _own_columns(screen), np.empty(len(screen.conditions))
    for n in track(np.unique(classes), "Noise"):
        effects, variance = noise.draw(int(n), n_null, np.random.default_rng([seed, int(n)]))
        null = effect_statistics(effects, variance, noise.seen)
        for i in np.flatnonzero(classes == n):
            genes = noise.seen.copy()
            genes[own[i]] = False  # that the perturbed gene changes does not say that it does anything
            genes = genes if genes.any() else noise.seen
            observed = effect_statistics(moments.effect[[i + 1]], moments.variance[i + 1], genes)[0]
            p[i] = min(1.0, 2 * tail_probability(observed, null).min())
    return p


def _own_columns(screen: Screen) -> list[list[int]]:
    """Columns of the perturbed genes of each condition, as far as they were measured."""
    column = {gene: j for j, gene in enumerate(screen.var_names)}
    return [[column[gene] for gene in screen.genes_of[label] if gene in column] for label in screen.conditions]
