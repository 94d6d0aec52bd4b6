"""Covariances of the measured effects, one class and level at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from scipy import sparse

from raptorgraph.inference._gene_covariance import ExtendedCovariance, GeneCovariance
from raptorgraph.inference._low_rank import Links, LowRank, sparse_times
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import CONDITION_SPECIFIC, SHARED, is_combination, noise, signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from raptorgraph.inference._state import Covariance as SingleEffects
    from raptorgraph.inference._state import Hyperparameters, Measured

_KEPT = 8e7  # numbers in the Cholesky factors that are kept rather than found again


class Covariance(Protocol):
    """Covariance of the conditions at one class and level."""

    @property
    def log_det(self) -> torch.Tensor: ...

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        """Inverse of the covariance times a matrix, C x n."""

    def inverse_diagonal(self) -> torch.Tensor:
        """Diagonal of the inverse, shape (C,)."""


class Dense:
    """A covariance by its Cholesky factor."""

    def __init__(self, covariance: torch.Tensor) -> None:
        self.factor = torch.linalg.cholesky(covariance)

    @property
    def log_det(self) -> torch.Tensor:
        found: torch.Tensor = 2 * self.factor.diagonal().log().sum()
        return found

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.cholesky_solve(right, self.factor)
        return found

    def inverse_diagonal(self) -> torch.Tensor:
        found: torch.Tensor = torch.cholesky_inverse(self.factor).diagonal()
        return found


class Conditions:
    """What does not change with the prior: which genes each condition holds, and which of them are linked."""

    def __init__(self, design: torch.Tensor, independent: GeneCovariance) -> None:
        design = design[:, : len(independent.specific)]  # genes that come behind are in no condition
        self.design = sparse.csr_array(design.numpy())
        self.design_by_gene = sparse.csr_array(self.design.T)
        self.combination = is_combination(design)
        alone = Links(self.design, np.zeros((0, 2), dtype=int))
        graph = Links(self.design, independent.edges.numpy()) if len(independent.edges) else alone
        self.links = alone, graph, Links(0 * self.design, np.zeros((0, 2), dtype=int))  # by class

    def covariances(
        self, prior: Hyperparameters, measured: Measured, fraction: float, m: int, levels: torch.Tensor
    ) -> LowRank:
        """Covariances at a class and some levels, with a fraction of the conditions' noise."""
        genes = _perturbed(prior.shared_covariance if m == SHARED else prior.independent_covariance)
        assert genes is not None
        own = fraction * (1 + prior.excess_by_condition) * measured.condition_noise
        scale, each = prior.scale_by_condition, levels[:, None]
        controls = torch.cat([measured.control_noise.sqrt().expand(len(own), 1), measured.control_loadings], 1)
        controls = controls.expand(len(levels), -1, -1)
        if m == CONDITION_SPECIFIC:
            return LowRank(self.links[m], scale, each + own, controls, genes, levels)
        directions = each[:, None].sqrt() * (scale[:, None] * sparse_times(self.design, genes.loadings))
        common = (each * prior.combination_variance).sqrt() * self.combination
        residual = prior.interaction_variance * self.combination + prior.residual_variance
        loads = torch.cat([directions, common[:, :, None], controls], 2)
        return LowRank(self.links[m], scale, each * residual + own, loads, genes, levels)


def _perturbed(covariance: SingleEffects) -> GeneCovariance | None:
    """Covariance of the genes that were perturbed, unless it is dense."""
    if isinstance(covariance, ExtendedCovariance):
        return covariance.perturbed
    return covariance if isinstance(covariance, GeneCovariance) else None


class _OneLevel:
    """Covariance of low rank at one level."""

    def __init__(self, covariances: LowRank) -> None:
        self._covariances = covariances

    @property
    def log_det(self) -> torch.Tensor:
        return self._covariances.log_det[0]

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        return self._covariances.solve(right)[0]

    def inverse_diagonal(self) -> torch.Tensor:
        return self._covariances.inverse_diagonal()[0]


class Covariances:
    """Covariances of the measured effects by class and level, over w.

    They are dense where the prior holds a dense matrix of single effects, and of low rank where it holds a
    :class:`GeneCovariance`.
    """

    def __init__(self, prior: Hyperparameters, measured: Measured, noise_fraction: float = 1.0) -> None:
        self._found: dict[tuple[int, int], Covariance] = {}
        self._make: Callable[[int, int], Covariance]
        genes = _perturbed(prior.independent_covariance)
        if genes is not None:
            conditions = Conditions(measured.design, genes)
            self._make = lambda m, level: _OneLevel(
                conditions.covariances(prior, measured, noise_fraction, m, LEVELS[level : level + 1])
            )
            size = max(links.blocks.n_entries for links in conditions.links)
        else:
            of_signals, of_noise = signals(prior, measured.design), noise(prior, measured, noise_fraction)
            self._make = lambda m, level: Dense(LEVELS[level] * of_signals[m] + of_noise)
            size = len(measured.design) ** 2
        self._most = int(_KEPT / max(1, size))

    def at(self, m: int, level: int) -> Covariance:
        """Covariance at a class and (the position of) a level."""
        found = self._found.get((m, level))
        if found is None:
            found = self._make(m, level)
            if len(self._found) < self._most:
                self._found[m, level] = found
        return found
