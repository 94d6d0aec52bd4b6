"""Effects that are linear in embeddings of genes and of perturbations, both from the training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.baselines._shift import ShiftBaseline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.screen._screen import Screen


@docs.dedent
class LinearEmbedding(ShiftBaseline):
    r"""Predict effects by the linear model of Ahlmann-Eltze et al. (2025), with embeddings from the training data.

    .. math::
        \hat Y = G W P^\top + b 1^\top, \qquad
        W = (G^\top G + \lambda I)^{-1} G^\top (Y - b 1^\top) P (P^\top P + \lambda I)^{-1},

    with the measured effects Y (genes x conditions, those of the control, 0, among them), their mean b over conditions,
    and embeddings G of genes: their scores on the first r principal components of the mean expression of control and
    conditions (genes are the observations). The row of P of a condition is the sum of the rows of G of the genes that
    are perturbed in it, 0 for the control. A perturbed gene that is not measured has no row in G and adds nothing, so
    that its prediction is b; where the published script leaves its conditions out, they are a part of b here.

    Parameters
    ----------
    %(perturbation_key)s
    rank
        Number r of components; all of them if there are fewer.
    ridge
        Penalty :math:`\lambda` on either side, positive.
    %(baseline_setup)s

    Attributes
    ----------
    center_
        Shape (n_genes,): the mean effect b.

    Raises
    ------
    ValueError
        If `rank` is below 1 or `ridge` is not positive.

    References
    ----------
    Ahlmann-Eltze, Huber & Anders (2025), Nature Methods 22, 1657-1661.

    Examples
    --------
    >>> baseline = rg.baselines.LinearEmbedding(rank=4, library_size_key="total_counts").fit(adata)
    >>> effects = baseline.predict_effects(["P01", "P02", "P01+P02"])
    >>> center = effects.loc["P01"] + effects.loc["P02"] - effects.loc["P01+P02"]
    >>> np.allclose(center, baseline.center_)
    True
    """

    def __init__(
        self, perturbation_key: str = "perturbation", *, rank: int = 10, ridge: float = 0.1, **setup: Any
    ) -> None:
        super().__init__(perturbation_key, **setup)
        check_integer("rank", rank, 1)
        check_number("ridge", ridge, 0, above=True)
        self.rank, self.ridge = rank, ridge

    def _learn(self, screen: Screen) -> None:
        effect = screen.moments.effect  # conditions x genes
        values = screen.control_mean + effect
        left, size, _ = np.linalg.svd((values - values.mean(axis=1, keepdims=True)).T, full_matrices=False)
        genes = left[:, : self.rank] * size[: self.rank]
        row = {name: i for i, name in enumerate(screen.var_names)}
        self._rows = {gene: genes[row[gene]] for gene in screen.perturbed_genes if gene in row}
        self._nothing = np.zeros(genes.shape[1])
        self.center_ = effect.mean(axis=0)
        conditions = self._embedded(screen.parsed.conditions)
        penalty = self.ridge * np.eye(genes.shape[1])
        half = np.linalg.solve(genes.T @ genes + penalty, genes.T @ (effect - self.center_).T @ conditions)
        weights = np.linalg.solve(conditions.T @ conditions + penalty, half.T)  # W, transposed
        self._slopes = weights @ genes.T

    def _embedded(self, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Embedding of each gene set, sets x components."""
        rows = [[self._rows.get(gene, self._nothing) for gene in genes] for genes in sets]
        return np.array([np.sum([self._nothing, *of_genes], axis=0) for of_genes in rows])

    def _shifts(self, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
        return np.asarray(self._embedded(sets) @ self._slopes + self.center_)
