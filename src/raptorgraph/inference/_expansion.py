r"""The independent class along a graph of many genes: its likelihood to first order in the hyperparameters.

Its covariances need a dense matrix of the genes that the graph links, at every level, and depend on a few
hyperparameters alone: the noise and residuals of the conditions d, the scale of combinations, and what these have in
common. So the log density of each gene is expanded in these, and the matrices are factored again when the
hyperparameters have moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import INDEPENDENT

if TYPE_CHECKING:
    from raptorgraph.inference._covariances import Conditions
    from raptorgraph.inference._state import Hyperparameters, Measured


class Expansion:
    """Log densities of genes in the independent class about the hyperparameters of some step, without weights.

    Parameters
    ----------
    conditions, measured
        The screen.
    y
        Effects, C x genes, each over its root of w.
    """

    def __init__(self, conditions: Conditions, measured: Measured, y: torch.Tensor) -> None:
        self._conditions, self._measured, self._y = conditions, measured, y
        self._combinations = conditions.combination.nonzero().squeeze(1)
        self._levels = torch.zeros(0, dtype=torch.long)
        self._at: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self.n_found = 0  # how often it was found anew

    def density(self, prior: Hyperparameters, levels: torch.Tensor, near: float) -> torch.Tensor:
        """Log densities at these (positions of) levels, levels x genes.

        They are found anew where the logarithms of hyperparameters have changed by more than `near`, in the mean.
        """
        own, scale, common = self._values(prior, LEVELS[levels])
        if self._at is None or not torch.equal(levels, self._levels) or self._change(own, scale, common) > near:
            self._find(prior, levels)
            self._at = own, scale, common
        before = self._at
        assert before is not None
        found = self._density + torch.einsum("lc,lcg->lg", own - before[0], self._by_own)
        found += torch.einsum("c,lcg->lg", scale - before[1], self._by_scale)
        return found + (common - before[2]) * self._by_common

    def gradient(self, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Derivatives, weighted by r (levels x genes): by d (levels x C), scale (C) and the common variance."""
        scale = torch.zeros_like(self._conditions.combination)
        scale[self._combinations] = torch.einsum("lcg,lg->c", self._by_scale, r)
        return torch.einsum("lcg,lg->lc", self._by_own, r), scale, (self._by_common * r).sum()

    def _values(self, prior: Hyperparameters, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        combination = self._conditions.combination
        residual = prior.interaction_variance * combination + prior.residual_variance
        own = levels[:, None] * residual + (1 + prior.excess_by_condition) * self._measured.condition_noise
        return own, prior.scale_by_condition[self._combinations], prior.combination_variance

    def _change(self, *values: torch.Tensor) -> float:
        assert self._at is not None
        parts = list(zip(values, self._at, strict=True))[: None if len(self._combinations) else 1]
        return max(float((value / before).log().abs().mean()) for value, before in parts)

    def _find(self, prior: Hyperparameters, levels: torch.Tensor) -> None:
        y, several = self._y, self._combinations
        n, n_genes = y.shape
        self._levels, self.n_found = levels, self.n_found + 1
        self._density = y.new_empty(len(levels), n_genes)
        self._by_own = y.new_empty(len(levels), n, n_genes)
        self._by_scale = y.new_empty(len(levels), len(several), n_genes)
        self._by_common = y.new_empty(len(levels), n_genes)
        scale = prior.scale_by_condition[several]
        for i, level in enumerate(levels.tolist()):
            each = self._conditions.covariances(prior, self._measured, 1.0, INDEPENDENT, LEVELS[level : level + 1])
            z, loads = each.solve(y)[0], each.loads[0]
            self._density[i] = -0.5 * ((y * z).sum(0) + each.log_det)
            self._by_own[i] = 0.5 * (z**2 - each.inverse_diagonal().mT)
            # Of the columns of U, what combinations have in common and the controls' error.
            solved = torch.cholesky_solve(each.solved_loads.mT, each.capacitance)[0].mT
            by_loads = 0.5 * (loads.mT @ z)[:, None] * z  # columns x C x genes
            by_loads -= 0.5 * solved.mT[:, :, None]
            others = by_loads * loads.mT[:, :, None]
            self._by_common[i] = others[0].sum(0) / prior.combination_variance
            inherited = 0.5 * (z * y - 1)[several] - self._by_own[i, several] * each.own[0, several, None]
            self._by_scale[i] = 2 * (inherited - others.sum(0)[several]) / scale[:, None]
