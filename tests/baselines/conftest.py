"""Screens whose effects are known exactly."""

from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest


class Effects:
    """Random single effects on the expression scale, and the screens that show given effects without noise."""

    def __init__(self, n_perturbed: int = 8, n_genes: int = 40):
        rng = np.random.default_rng(0)
        self.genes = [f"P{i}" for i in range(n_perturbed)]
        self.singles = {gene: rng.normal(scale=0.4, size=n_genes) for gene in self.genes}
        self.doubles = [f"{a}+{b}" for a, b in combinations(self.genes, 2)]
        self.base = rng.uniform(6, 9, size=n_genes)
        half = rng.normal(scale=0.3, size=(3, n_genes))
        self.spread = np.vstack([half, -half])  # mean exactly 0

    def sums(self, labels) -> np.ndarray:
        return np.array([sum(self.singles[gene] for gene in label.split("+")) for label in labels])

    def screen(self, combined=None, *, singles=None) -> ad.AnnData:
        """Log-normalized cells: six of the control, of each single and of each combination (label to effect)."""
        effects = {"control": 0.0, **(self.singles if singles is None else singles), **(combined or {})}
        X = np.vstack([self.base + np.asarray(effect) + self.spread for effect in effects.values()])
        obs = pd.DataFrame({"perturbation": np.repeat(list(effects), len(self.spread))})
        obs.index = [f"cell{i}" for i in range(len(obs))]
        var = pd.DataFrame(index=[f"G{i}" for i in range(X.shape[1])])
        return ad.AnnData(X, obs=obs, var=var)

    def trained(self) -> ad.AnnData:
        """The screen with twenty combinations, whose effects are 0.7 of the sums."""
        labels = self.doubles[:20]
        return self.screen(dict(zip(labels, 0.7 * self.sums(labels), strict=True)))


@pytest.fixture
def effects() -> Effects:
    return Effects()
