r"""The marginal likelihood of :class:`GeneMixture` where covariances are of low rank, with its gradient in closed form.

With :math:`\Sigma = E + U U^\top` of a class and level, :math:`z = \Sigma^{-1} y`, and
:math:`G = \frac12 \sum_g r_g (z_g z_g^\top - \Sigma^{-1})`, the derivative of the log likelihood by :math:`\Sigma`,
each hyperparameter needs little of G: its diagonal, its product with U, and sums of z over the conditions of a gene.
Nothing of the size conditions x conditions is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from raptorgraph.inference._gene_covariance import GeneCovariance
from raptorgraph.inference._low_rank import sparse_times
from raptorgraph.inference._mixture import LEVELS
from raptorgraph.inference._prior import CONDITION_SPECIFIC, SHARED, scale_of

if TYPE_CHECKING:
    from raptorgraph.inference._covariances import Conditions
    from raptorgraph.inference._low_rank import LowRank
    from raptorgraph.inference._state import Hyperparameters, Measured

_NEVER = -1e3  # log weight below which a class and level is closed to a gene
_NEGLIGIBLE = 1e-10  # probability of a class and level that a gradient leaves out


class _Found(NamedTuple):
    """A covariance, and what it says of the effects of all genes."""

    covariance: LowRank
    scores: torch.Tensor  # p = U' solve(y), columns x genes
    pulled: torch.Tensor  # effects of linked genes as without U, linked x genes
    quadratic: torch.Tensor  # y' solve(y), genes


class LowRankMixture:
    """The mixture over classes and levels of the measured effects of genes, as :class:`GeneMixture`.

    Parameters
    ----------
    prior, measured
        Hyperparameters with :class:`GeneCovariance`, and the screen.
    conditions
        Which genes its conditions hold.
    log_weights
        Classes x levels x genes.
    """

    def __init__(
        self, prior: Hyperparameters, measured: Measured, conditions: Conditions, log_weights: torch.Tensor
    ) -> None:
        self.prior, self.measured, self.conditions, self.log_weights = prior, measured, conditions, log_weights
        self._open = [(m, level) for m, level in torch.nonzero(log_weights.detach().amax(2) > _NEVER).tolist()]

    @torch.no_grad()
    def log_density(self, y: torch.Tensor) -> torch.Tensor:
        """Classes x levels x genes, weights included, up to a constant; ``y`` is C x genes, each over its root of w."""
        return self._density(self._find(y), y.shape[1])

    def objective(self, y: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return a scalar whose gradient is that of the log marginal likelihood of all genes, and the latter's value."""
        prior, measured, conditions = self.prior, self.measured, self.conditions
        covariance = prior.shared_covariance
        assert isinstance(covariance, GeneCovariance)
        with torch.no_grad():
            found = self._find(y)
            density = self._density(found, y.shape[1])
            value = torch.logsumexp(density.flatten(0, 1), 0)
            responsibility = (density - value).exp()
            gradient = _Gradient(prior, measured, conditions)
            r = torch.stack([responsibility[at] for at in self._open])
            squares = (y**2 @ r.mT).mT
            pulls = (y @ torch.cat([r_at * of.scores for r_at, of in zip(r, found, strict=True)]).mT).split(
                [len(of.scores) for of in found], 1
            )
            for at, of, r_at, square, pull in zip(self._open, found, r, squares, pulls, strict=True):
                gradient.add(*at, of, y, r_at, square, pull)
        residual = prior.interaction_variance * conditions.combination + prior.residual_variance
        surrogate = (
            gradient.own @ ((1 + prior.excess_by_condition) * measured.condition_noise)
            + gradient.residual @ residual
            + gradient.scale @ scale_of(prior, measured.design)
            + gradient.common * prior.combination_variance
            + gradient.specific @ covariance.specific
            + (gradient.loadings * covariance.loadings).sum()
        )
        return surrogate + (responsibility * self.log_weights).sum(), float(value.sum())

    def _find(self, y: torch.Tensor) -> list[_Found]:
        """What each open class and level says of these effects."""
        covariances = [
            self.conditions.covariance(self.prior, self.measured, 1.0, m, float(LEVELS[level]))
            for m, level in self._open
        ]
        projected = (torch.cat([each.solved_loads for each in covariances], 1).mT @ y).split(
            [each.loads.shape[1] for each in covariances]
        )
        squares = torch.stack([1 / each.own for each in covariances]) @ y**2
        found = []
        for each, projection, quadratic in zip(covariances, projected, squares, strict=True):
            scores = torch.cholesky_solve(projection, each.capacitance)
            quadratic = quadratic - (projection * scores).sum(0)
            pulled = y.new_zeros(0, y.shape[1])
            if len(each.links.genes):
                summed = each.sums(y[each.rows])
                pulled = each.linked_inverse @ summed
                quadratic -= (summed * pulled).sum(0)
            found.append(_Found(each, scores, pulled, quadratic))
        return found

    def _density(self, found: list[_Found], n_genes: int) -> torch.Tensor:
        density = torch.full((*self.log_weights.shape[:2], n_genes), -torch.inf, dtype=self.log_weights.dtype)
        for at, of in zip(self._open, found, strict=True):
            density[at] = self.log_weights[at] - 0.5 * (of.quadratic + of.covariance.log_det)
        return density


class _Gradient:
    """Derivatives of the log likelihood by what covariances are made of, added up over classes and levels."""

    def __init__(self, prior: Hyperparameters, measured: Measured, conditions: Conditions) -> None:
        n, k = measured.design.shape
        dtype = measured.effect.dtype
        self._prior, self._conditions, self._scale = prior, conditions, scale_of(prior, measured.design)
        self.own = torch.zeros(n, dtype=dtype)  # by the noise of the conditions
        self.residual = torch.zeros(n, dtype=dtype)  # by their residuals and interactions
        self.scale = torch.zeros(n, dtype=dtype)
        self.common = torch.zeros((), dtype=dtype)
        self.specific = torch.zeros(k, dtype=dtype)
        self.loadings = torch.zeros(k, prior.shared_covariance.loadings.shape[1], dtype=dtype)

    def add(
        self, m: int, level: int, of: _Found, y: torch.Tensor, r: torch.Tensor, square: torch.Tensor, pull: torch.Tensor
    ) -> None:
        """Add a class and level.

        `square` and `pull` are sums over genes, weighted by their probability r, of the squares of the effects y, and
        of y times the scores, C x columns.
        """
        covariance, loads, total = of.covariance, of.covariance.loads, r.sum()
        if total < _NEGLIGIBLE:
            return
        # Sums of the squares of z, and of z times the scores. Without linked genes z = (y - U p) / d.
        second = (of.scores * r) @ of.scores.mT
        carried = loads @ second
        own = covariance.own
        squared = (square - 2 * (pull * loads).sum(1) + (carried * loads).sum(1)) / own**2
        scored = (pull - carried) / own[:, None]
        explained = torch.zeros_like(own)  # sums of z times y, of linked conditions
        rows = covariance.rows
        if len(rows):
            at = (r > _NEGLIGIBLE).nonzero().squeeze(1)
            z = covariance.linked_solution(y[rows[:, None], at], of.scores[:, at], of.pulled[:, at])
            weighted = z * r[at]
            squared[rows] = (weighted * z).sum(1)
            explained[rows] = (weighted * y[rows[:, None], at]).sum(1)
            scored[rows] = weighted @ of.scores[:, at].mT
            if m == SHARED:
                genes = torch.from_numpy(covariance.links.genes)
                variance, of_genes = covariance.linked_variance, sparse_times(covariance.held.T, z)
                inverse = covariance.linked_inverse_diagonal()
                self.specific[genes] += 0.5 * LEVELS[level] * ((of_genes**2) @ r[at] - total * inverse)
        diagonal = 0.5 * (squared - total * covariance.inverse_diagonal())
        by_loads = 0.5 * (scored - total * torch.cholesky_solve(covariance.solved_loads.mT, covariance.capacitance).mT)
        self.own += diagonal
        if m == CONDITION_SPECIFIC:
            return
        self.residual += LEVELS[level] * diagonal
        others = by_loads[:, -2:] * loads[:, -2:]  # of what combinations have in common, and of the controls
        self.common += others[:, 0].sum() / self._prior.combination_variance
        inherited = 0.5 * (explained - total) - diagonal * own - others.sum(1)
        self.scale += 2 * self._conditions.combination * inherited / self._scale
        if m == SHARED:
            self.specific += LEVELS[level] * sparse_times(covariance.links.alone.T, diagonal[:, None])[:, 0]
            directions = 2 * LEVELS[level] ** 0.5 * self._scale[:, None] * by_loads[:, :-2]
            self.loadings += sparse_times(self._conditions.design.T, directions)
