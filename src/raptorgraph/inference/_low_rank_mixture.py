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
from raptorgraph.inference._prior import CONDITION_SPECIFIC, INDEPENDENT, SHARED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from raptorgraph.inference._covariances import Conditions
    from raptorgraph.inference._expansion import Expansion
    from raptorgraph.inference._low_rank import LowRank
    from raptorgraph.inference._state import Hyperparameters, Measured

_NEVER = -1e3  # log weight below which a class and level is closed to a gene
_AT_ONCE = 2e7  # numbers that are kept for linked genes, over all levels
_NEGLIGIBLE = 1e-10  # probability of a class and level that a gradient leaves out


class _Found(NamedTuple):
    """The covariances of a class at some levels, and what they say of the effects of all genes."""

    m: int
    levels: torch.Tensor  # positions
    covariances: LowRank
    scores: torch.Tensor  # p = U' solve(y), levels x columns x genes
    pulled: torch.Tensor  # effects of linked genes as without U, levels x linked x genes
    quadratic: torch.Tensor  # y' solve(y), levels x genes


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
    expansion
        Takes the place of the independent class in :meth:`objective`.
    near
        Change of hyperparameters up to which it serves.
    """

    def __init__(
        self,
        prior: Hyperparameters,
        measured: Measured,
        conditions: Conditions,
        log_weights: torch.Tensor,
        expansion: Expansion | None = None,
        near: float = 0.0,
    ) -> None:
        self.prior, self.measured, self.conditions, self.log_weights = prior, measured, conditions, log_weights
        self.expansion, self._near = expansion, near
        self._open = log_weights.detach().amax(2) > _NEVER

    @torch.no_grad()
    def log_density(self, y: torch.Tensor) -> torch.Tensor:
        """Classes x levels x genes, weights included, up to a constant; ``y`` is C x genes, each over its root of w."""
        return self._density(self._find(y), y.shape[1])

    def objective(self, y: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return a scalar with the gradient of the log marginal likelihood of all genes, and the latter's value."""
        prior, measured, conditions = self.prior, self.measured, self.conditions
        covariance = prior.shared_covariance
        assert isinstance(covariance, GeneCovariance)
        with torch.no_grad():
            expanded = self._open[INDEPENDENT].nonzero().squeeze(1)
            if self.expansion is None:
                found = list(self._find(y))
                density = self._density(found, y.shape[1])
            else:
                found = list(self._find(y, without=INDEPENDENT))
                density = self._density(found, y.shape[1])
                independent = self.expansion.density(prior, expanded, self._near)
                density[INDEPENDENT, expanded] = self.log_weights[INDEPENDENT, expanded] + independent
            value = torch.logsumexp(density.flatten(0, 1), 0)
            responsibility = (density - value).exp()
            gradient = _Gradient(prior, measured, conditions, covariance.loadings.shape[1])
            squared = y**2
            for of in found:
                gradient.add(of, y, squared, responsibility[of.m, of.levels])
            if self.expansion is not None:
                gradient.add_expanded(self.expansion, LEVELS[expanded], responsibility[INDEPENDENT, expanded])
        residual = prior.interaction_variance * conditions.combination + prior.residual_variance
        surrogate = (
            gradient.own @ ((1 + prior.excess_by_condition) * measured.condition_noise)
            + gradient.residual @ residual
            + gradient.scale @ prior.scale_by_condition
            + gradient.common * prior.combination_variance
            + gradient.specific @ covariance.specific
            + (gradient.loadings * covariance.loadings).sum()
        )
        return surrogate + (responsibility * self.log_weights).sum(), float(value.sum())

    def _find(self, y: torch.Tensor, without: int | None = None) -> Iterator[_Found]:
        """What each class but one says of these effects at its open levels, some of these at a time."""
        squared = y**2
        for m, is_open in enumerate(self._open):
            links = self.conditions.links[m]
            n_linked = len(links.genes)
            at_once = max(1, int(_AT_ONCE / max(1, links.blocks.n_entries + n_linked * y.shape[1])))
            for at in is_open.nonzero().squeeze(1).split(at_once):
                if not len(at) or m == without:
                    continue
                each = self.conditions.covariances(self.prior, self.measured, 1.0, m, LEVELS[at])
                projected = (each.solved_loads.mT.flatten(0, 1) @ y).view(len(at), -1, y.shape[1])
                scores = torch.cholesky_solve(projected, each.capacitance)
                quadratic = (1 / each.own) @ squared - (projected * scores).sum(1)
                pulled = y.new_zeros(len(at), 0, y.shape[1])
                if n_linked:
                    summed = each.sums(y[each.rows, None])
                    pulled = each.inverse.times(summed)
                    quadratic -= (summed * pulled).sum(1)
                yield _Found(m, at, each, scores, pulled, quadratic)

    def _density(self, found: Iterable[_Found], n_genes: int) -> torch.Tensor:
        density = torch.full((*self.log_weights.shape[:2], n_genes), -torch.inf, dtype=self.log_weights.dtype)
        for of in found:
            log_density = -0.5 * (of.quadratic + of.covariances.log_det[:, None])
            density[of.m, of.levels] = self.log_weights[of.m, of.levels] + log_density
        return density


class _Gradient:
    """Derivatives of the log likelihood by what covariances are made of, added up over classes and levels."""

    def __init__(self, prior: Hyperparameters, measured: Measured, conditions: Conditions, n_directions: int) -> None:
        n, k = measured.design.shape
        dtype = measured.effect.dtype
        self._prior, self._conditions, self._scale = prior, conditions, prior.scale_by_condition
        self._n_others = 2 + measured.control_loadings.shape[1]  # columns of U behind the directions
        self.own = torch.zeros(n, dtype=dtype)  # by the noise of the conditions
        self.residual = torch.zeros(n, dtype=dtype)  # by their residuals and interactions
        self.scale = torch.zeros(n, dtype=dtype)
        self.common = torch.zeros((), dtype=dtype)
        self.specific = torch.zeros(k, dtype=dtype)
        self.loadings = torch.zeros(k, n_directions, dtype=dtype)

    def add(self, of: _Found, y: torch.Tensor, squared: torch.Tensor, r: torch.Tensor) -> None:
        """Add a class; r are its probabilities, levels x genes."""
        covariances, loads, own, total = of.covariances, of.covariances.loads, of.covariances.own, r.sum(1)
        levels, rows, links = LEVELS[of.levels], of.covariances.rows, of.covariances.links
        # Sums over genes, weighted by r, of z^2 and of z times the scores p. Without linked genes z = (y - U p) / d.
        weighted = of.scores * r[:, None]
        second = weighted @ of.scores.mT
        pull = (y @ weighted.flatten(0, 1).mT).view(len(y), len(levels), -1).transpose(0, 1)
        carried = loads @ second
        squares = ((squared @ r.mT).mT - ((2 * pull - carried) * loads).sum(2)) / own**2
        scored = (pull - carried) / own[:, :, None]
        explained = torch.zeros_like(own)  # sums of z times y, of linked conditions
        if len(rows):
            of_genes = torch.zeros(len(levels), len(links.genes), dtype=y.dtype)
            through = covariances.inverse.times(covariances.sums(loads[:, rows].transpose(0, 1)))
            for i, (score, pulled, r_at) in enumerate(zip(of.scores, of.pulled, r, strict=True)):
                at = (r_at > _NEGLIGIBLE).nonzero().squeeze(1)
                score, weight = score[:, at], r_at[at]
                effects = sparse_times(links.members, pulled[:, at] - through[i] @ score)
                y_at = y[:, at][rows]
                left = y_at - loads[i, rows] @ score - covariances.scale[:, None] * effects
                z = left / own[i, rows, None]
                z_weighted = z * weight
                squares[i, rows] = (z_weighted * z).sum(1)
                explained[i, rows] = (z_weighted * y_at).sum(1)
                scored[i, rows] = z_weighted @ score.mT
                if of.m == SHARED:
                    of_genes[i] = sparse_times(links.conditions, covariances.scale[:, None] * z) ** 2 @ weight
            if of.m == SHARED:
                inverse = total[:, None] * covariances.inverse_of_genes()
                self.specific[links.genes] += 0.5 * levels @ (of_genes - inverse)
        diagonal = 0.5 * (squares - total[:, None] * covariances.inverse_diagonal())
        solved = torch.cholesky_solve(covariances.solved_loads.mT, covariances.capacitance).mT
        by_loads = 0.5 * (scored - total[:, None, None] * solved)
        self.own += diagonal.sum(0)
        if of.m == CONDITION_SPECIFIC:
            return
        by_level = levels @ diagonal
        self.residual += by_level
        n = self._n_others
        others = by_loads[:, :, -n:] * loads[:, :, -n:]  # of what combinations have in common, and of the controls
        self.common += others[:, :, 0].sum() / self._prior.combination_variance
        inherited = 0.5 * (explained - total[:, None]) - diagonal * own - others.sum(2)
        self.scale += 2 * self._conditions.combination * inherited.sum(0) / self._scale
        if of.m == SHARED:
            alone, genes = links.alone
            self.specific.index_add_(0, genes, by_level[alone])
            directions = torch.einsum("l,lcr->cr", levels.sqrt(), by_loads[:, :, :-n])
            self.loadings += 2 * sparse_times(self._conditions.design_by_gene, self._scale[:, None] * directions)

    def add_expanded(self, expansion: Expansion, levels: torch.Tensor, r: torch.Tensor) -> None:
        """Add the independent class by its expansion; r are its probabilities, levels x genes."""
        own, scale, common = expansion.gradient(r)
        self.own += own.sum(0)
        self.residual += levels @ own
        self.scale += scale
        self.common += common
