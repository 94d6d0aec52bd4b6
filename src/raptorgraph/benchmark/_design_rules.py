"""Simple rules to choose the next pairs, and what a posterior knows once the chosen pairs are revealed."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch

from raptorgraph.inference import EffectPosterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.screen import Screen

RIDGE = 3.0  # penalty of the main effects, as in the baseline
_FIT = {"n_fit_genes": 300, "n_steps": 100}  # less than by default: there are many fits


def ridge_variance(design: np.ndarray, wanted: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
    """Choose rows of `design` one after the other, each removing most of a plain ridge's variance of `wanted`.

    The ridge has a common effect of all pairs and one for each gene, as :class:`raptorgraph.baselines.MainEffectsRidge`
    has; its covariance does not depend on what is measured. `design` and `wanted` are pairs x genes, 0 or 1. Ties are
    drawn, as they are many.
    """
    candidates, others = (np.column_stack([rows, np.ones(len(rows))]) for rows in (design, wanted))
    covariance = np.diag([*np.full(design.shape[1], 1 / RIDGE), 1e3])  # the common effect is free
    square = others.T @ others
    left, chosen = list(rng.permutation(len(design))), []
    for _ in range(n):
        x = candidates[left]
        carried = x @ covariance
        removed = ((carried @ square) * carried).sum(1) / (1 + (carried * x).sum(1))
        best = left[int(np.argmax(np.round(removed, 10)))]
        chosen.append(int(best))
        left.remove(best)
        column = covariance @ candidates[best]
        covariance = covariance - np.outer(column, column) / (1 + candidates[best] @ column)
    return chosen


def refit(screen: Screen, conditions: Sequence[str]) -> EffectPosterior:
    """Posterior of the effects that was shown these conditions, from the sums of the screen."""
    rows = [screen.labels.index(label) for label in conditions]
    moments = screen.moments
    posterior = EffectPosterior()
    posterior.fit(
        torch.as_tensor(screen.design[rows]),
        torch.as_tensor(moments.effect[rows]),
        torch.as_tensor(moments.variance[rows]),
        torch.as_tensor(moments.n[rows]),
        int(moments.n[0]),
        control_mean=torch.as_tensor(screen.control_mean),
        targets=torch.as_tensor(screen.adata.var_names.get_indexer(screen.perturbed_genes)),
        **_FIT,
    )
    return posterior


def predicted(posterior: EffectPosterior, screen: Screen, labels: Sequence[str]) -> np.ndarray:
    """Predicted effects of conditions of the screen, conditions x genes."""
    rows = [screen.labels.index(label) for label in labels]
    return np.asarray(posterior.mean(torch.as_tensor(screen.design[rows])).numpy())


def open_pairs(screen: Screen) -> list[str]:
    """Measured pairs of genes that were perturbed alone."""
    single = {genes[0] for genes in (screen.genes_of[label] for label in screen.singles)}
    pairs = {screen.label(pair) for pair in combinations(sorted(single), 2)}
    return [label for label in screen.combinations if label in pairs]
