"""The updates of the graph model for many perturbations: in blocks, single precision and few passes over the effects.

They have the fixed points of :class:`raptorgraph.inference._graph_variational.Variational`. What differs is the way
there: within a block of explaining effects, what two of them take from each other is known from their correlation over
all perturbations, times the exact size of each for the perturbation that is explained; exactly where a weight moves by
more than a tenth of its error. At the end of each block all is exact again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from raptorgraph._acyclic import acyclic_order
from raptorgraph.inference._graph_prior import (
    EDGE_SD,
    EDGES_PER_LATENT,
    FEW,
    FRACTION_RANGE,
    GREEDY_STEPS,
    NO_EDGE_SD,
    TINY,
)
from raptorgraph.inference._graph_variational import Variational

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK, _EXACT_BLOCK = 64, 16  # explaining effects at a time
_GENES = 256  # at a time, each for itself
_ROWS = 128  # perturbations at a time, whose entries stay in the cache
_EDGES, _FEWEST_EDGES = 10, 40_000  # per latent and in all, of which an acyclic graph is made
_LARGE = 0.1  # change of a weight in units of its error from which what others lose by it is computed exactly
_MOVING = 0.05  # share of such weights from which all are


class _Moments(NamedTuple):
    """What does not change about the posteriors of some weights while they are updated, explaining x explained."""

    information: torch.Tensor
    edge_variance: torch.Tensor  # posterior variance under an edge
    other_variance: torch.Tensor  # and under none
    log_odds: torch.Tensor  # of an edge, where the numerator is 0

    def row(self, m: int) -> _Moments:
        """Those of one explaining effect."""
        return _Moments(*(values[m] for values in self))

    def probability(self, numerator: torch.Tensor) -> torch.Tensor:
        """Posterior probability of an edge, from the mode of the likelihood times its precision."""
        return torch.sigmoid(self.odds(numerator))

    def odds(self, numerator: torch.Tensor) -> torch.Tensor:
        """Log odds of an edge."""
        return self.log_odds + 0.5 * numerator**2 * (self.edge_variance - self.other_variance)


class BlockVariational(Variational):
    """State of the updates. Matrices of weights are kept by columns, whose updates follow each other."""

    def __init__(
        self,
        y: torch.Tensor,
        v: torch.Tensor,
        targets: torch.Tensor,
        v0: torch.Tensor | None,
        loadings: torch.Tensor | None = None,
    ) -> None:
        super().__init__(y.float(), v.float(), targets, v0, loadings)
        # Transposed views: the weights of one explaining effect lie side by side.
        self.weight, self.weight_variance = self.weight.T, self.weight_variance.T
        self.edge, self.probability = self.edge.T, self.probability.T
        self.allowed = self.allowed.T
        self.moving = 1.0  # share of the weights that changed by much in the last round
        self.column = torch.where(self.on_target.any(1), self.on_target.int().argmax(1), -1)  # of each own target

    def _sweep(self, learn: bool, greedy: bool) -> None:
        y, v = self.y, self.v
        carried, carried_variance = self._carried()
        precision = torch.empty_like(y)
        if self.v0 is not None:
            self._take_off_control_error(carried, carried_variance, precision)
        sums = torch.zeros(2, 3, dtype=torch.float64, device=y.device)
        for rows in self._chunks():
            rest = y[rows] - self.control_error(rows) - carried[rows]
            slab, noise = self._prior_variance(rows), v[rows]
            in_program = self._in_program(rest, noise + carried_variance[rows], rows)
            shrink = slab / (slab + noise)
            found = shrink * rest
            second = found**2
            self.e[rows] = carried[rows] + in_program * found
            known = shrink * noise
            self.e_variance[rows] = in_program * (known + (1 - in_program) * second)
            if learn:
                sums += self._program_sums(in_program, second + known, rows)
            precision[rows] = (1 - in_program) / noise + in_program / (noise + slab)
        if learn:
            self._learn_from(sums)
        del carried, carried_variance
        if greedy:
            self._choose_weights(precision)
        else:
            self._pass_over_weights(precision)
        if learn:
            k = len(y)
            low, _, high = EDGES_PER_LATENT
            total = float(self.probability.sum(dtype=torch.float64))
            self.edge_fraction = min(max(total / (k * (k - 1)), low / k), min(high / k, 0.5))

    def make_acyclic(self) -> None:
        """Allow edges of an acyclic graph only, which is made of the strongest; all others follow its order."""
        share = self.share().cpu().numpy()
        allowed = acyclic_order(share, max(_EDGES * len(share), _FEWEST_EDGES))
        self.allowed = torch.as_tensor(np.ascontiguousarray(allowed.T)).to(self.allowed).T

    # -- effects and programs --------------------------------------------------------------------------------------
    def _chunks(self) -> Iterator[slice]:
        for start in range(0, len(self.y), _ROWS):
            yield slice(start, min(start + _ROWS, len(self.y)))

    def _carried(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the weights carry, and its variance; each k x G."""
        variance = torch.empty_like(self.y)
        square = self.e**2
        for rows in self._chunks():
            torch.mm(self.weight[rows] ** 2, self.e_variance, out=variance[rows])
            variance[rows].addmm_(self.weight_variance[rows], square)
        return self.weight @ self.e, variance

    def _take_off_control_error(
        self, carried: torch.Tensor, carried_variance: torch.Tensor, precision: torch.Tensor
    ) -> None:
        """Update the errors of the control cells; `precision` is room for that of the effects, k x G."""
        for rows in self._chunks():
            rest = self.y[rows] - carried[rows] - self.control_error(rows)
            program = self._prior_variance(rows) * self._in_program(rest, self.v[rows], rows)
            precision[rows] = 1 / (self.v[rows] + carried_variance[rows] + program)
        for start in range(0, self.y.shape[1], _GENES):
            genes = slice(start, start + _GENES)
            rest = self.y[:, genes].double() - carried[:, genes].double()
            self._update_control_error(rest, precision[:, genes].double(), genes)

    def _set_on_target(self, values: torch.Tensor, rows: slice, value: float) -> torch.Tensor:
        """Put a value where the genes of some rows are the targets of these, in place."""
        column = self.column[rows]
        has = torch.nonzero(column >= 0).squeeze(1)
        values[has, column[has]] = value
        return values

    def _by_gene(self, values: list[float]) -> torch.Tensor:
        return torch.where(self.is_target, values[1], values[0]).to(self.y)

    def _prior_variance(self, rows: slice = slice(None)) -> torch.Tensor:
        slab = self._by_gene(self.program_variance).expand(self.y[rows].shape).clone()
        return self._set_on_target(slab, rows, self.target_variance)

    def _in_program(
        self, rest: torch.Tensor, total: torch.Tensor | None = None, rows: slice = slice(None)
    ) -> torch.Tensor:
        total = self.v[rows] if total is None else total
        wide = total + self._prior_variance(rows)
        odds = (total / wide).log_().mul_(0.5).add_(torch.logit(self._by_gene(self.program_fraction)))
        odds.add_(rest**2 * (wide - total) / (total * wide), alpha=0.5)
        return self._set_on_target(odds.sigmoid_(), rows, 1.0)

    def _program_sums(self, in_program: torch.Tensor, second: torch.Tensor, rows: slice) -> torch.Tensor:
        """Number, weight and weighted second moment of the entries of both groups of genes, off the own targets."""
        weight = self._set_on_target(in_program.clone(), rows, 0.0)
        column = self.column[rows]
        counts = torch.full((self.y.shape[1],), float(len(column)), dtype=torch.float64, device=self.y.device)
        own = column[column >= 0]
        counts.index_add_(0, own, -torch.ones(len(own), dtype=torch.float64, device=self.y.device))
        of_genes = torch.stack([counts, weight.sum(0, dtype=torch.float64), (weight * second).sum(0).double()])
        return torch.stack([of_genes[:, ~self.is_target].sum(1), of_genes[:, self.is_target].sum(1)])

    def _learn_from(self, sums: torch.Tensor) -> None:
        for group, (number, weight, second) in enumerate(sums.tolist()):
            if number < FEW:
                continue
            low, high = FRACTION_RANGE
            self.program_fraction[group] = min(max(weight / number, low), high)
            self.program_variance[group] = min(max(second / weight, self.range[0]), self.range[1])

    # -- weights ---------------------------------------------------------------------------------------------------
    def _moments(self, information: torch.Tensor, precision: torch.Tensor, allowed: torch.Tensor) -> _Moments:
        """Moments from the information of the likelihood, without and with the variance of the explaining effects."""
        precision = precision.double()
        edge, other = (1 / (precision + 1 / sd**2) for sd in (EDGE_SD, NO_EDGE_SD))
        prior = math.log(self.edge_fraction / (1 - self.edge_fraction)) - math.log(EDGE_SD / NO_EDGE_SD)
        odds = torch.where(allowed, prior + 0.5 * (edge / other).log(), -torch.inf)
        return _Moments(information.double(), edge, other, odds)

    def _choose_weights(self, precision: torch.Tensor) -> None:
        """At the start: in each row the explaining effect with the most evidence, and then the next."""
        e, square, edge_scale = self.e, self.e**2, self.e.T
        with_variance = square + self.e_variance
        for rows in self._chunks():
            weighted = precision[rows]
            moments = self._moments(weighted @ square.T, weighted @ with_variance.T, self.allowed[rows])
            gradient = weighted * (self.y[rows] - self.control_error(rows))
            active = torch.arange(len(weighted), device=e.device)
            for _ in range(GREEDY_STEPS):
                numerator = (gradient[active] @ edge_scale).double()
                here = _Moments(*(values[active] for values in moments))
                free = self.weight[rows][active] == 0
                odds = torch.where(free, here.odds(numerator), -torch.inf)
                best = odds.argmax(1)
                found = odds.gather(1, best[:, None]).squeeze(1) > 0
                if not bool(found.any()):
                    break
                active, best, at = active[found], best[found], torch.nonzero(found).squeeze(1)
                chosen = _Moments(*(values[at, best] for values in here))
                mean = self._keep(chosen, numerator[at, best], (active + rows.start, best))
                gradient[active] -= weighted[active] * (mean[:, None].to(e) * e[best])

    def _keep(self, moments: _Moments, numerator: torch.Tensor, at: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Set some weights to their posterior, and return its mean."""
        probability = moments.probability(numerator)
        edge, other = numerator * moments.edge_variance, numerator * moments.other_variance
        mean = probability * edge + (1 - probability) * other
        second = probability * (moments.edge_variance + edge**2) + (1 - probability) * (
            moments.other_variance + other**2
        )
        self.weight[at], self.weight_variance[at] = mean.to(self.y), (second - mean**2).clamp_min(0).to(self.y)
        self.edge[at], self.probability[at] = edge.to(self.y), probability.to(self.y)
        return mean

    def _pass_over_weights(self, precision: torch.Tensor) -> None:
        """One round over the weights, the smallest explaining effect first."""
        e, square = self.e, self.e**2
        typical = precision.mean(0)
        information = square @ precision.T  # explaining x explained
        noisy = information + self.e_variance @ precision.T
        exact, n_large = self.moving > _MOVING, 0
        blocks = torch.split(torch.argsort(square.sum(1)), _EXACT_BLOCK if exact else _BLOCK)
        numerator = self.y.new_empty(len(blocks[0]), len(e))
        gradient = torch.empty_like(self.y)
        for rows in self._chunks():
            gradient[rows] = precision[rows] * (self.y[rows] - self.control_error(rows) - self.weight[rows] @ e)
            torch.mm(e[blocks[0]], gradient[rows].T, out=numerator[:, rows])
        for block, following in zip(blocks, (*blocks[1:], None), strict=True):
            explaining = e[block]
            moments = self._moments(information[block], noisy[block], self.allowed.T[block])
            overlap = (_Exact if exact else _Typical)(explaining, precision, typical, moments.information.sqrt())
            change = self._update_block(block, numerator.double(), moments, overlap)
            n_large += overlap.n_large
            if following is None:
                break
            # One pass over all entries: what changed is taken off, and what the next ones explain is found.
            explained, numerator = e[following], self.y.new_empty(len(following), len(e))
            for rows in self._chunks():
                gradient[rows].addcmul_(precision[rows], change[:, rows].T @ explaining, value=-1)
                numerator[:, rows] = explained @ gradient[rows].T
        self.moving = n_large / len(e) ** 2

    def _update_block(
        self, block: torch.Tensor, numerator: torch.Tensor, moments: _Moments, overlap: _Exact | _Typical
    ) -> torch.Tensor:
        """Update the weights of a block of explaining effects one after the other; their changes, block x k."""
        weight = self.weight.T[block].double()
        numerator += weight * moments.information
        change, mean = torch.zeros_like(numerator), torch.zeros_like(numerator)
        for m, j in enumerate(block.tolist()):
            here = moments.row(m)
            overlap.before(m, numerator)
            probability = here.probability(numerator[m])
            difference = here.edge_variance - here.other_variance
            torch.mul(numerator[m], here.other_variance + probability * difference, out=mean[m])
            mean[m, j] = 0.0
            step = mean[m] - weight[m]
            change[m] = torch.where(step.abs() > TINY, step, 0.0)
            overlap.after(m, change[m], numerator)

        probability = moments.probability(numerator)
        rest = 1 - probability
        rest[torch.arange(len(block)), block] = 0.0
        edge, other = numerator * moments.edge_variance, numerator * moments.other_variance
        second = probability * (moments.edge_variance + edge**2) + rest * (moments.other_variance + other**2)
        # What was not carried on must not be in the weights either.
        self.weight.T[block] = (weight + change).to(self.y)
        self.weight_variance.T[block] = (second - mean**2).clamp_min(0).to(self.y)
        self.edge.T[block] = torch.where(probability > 0, edge, 0.0).to(self.y)
        self.probability.T[block] = probability.to(self.y)
        return change.to(self.y)


class _Exact:
    """What the explaining effects of a block take from each other, of all pairs at once."""

    def __init__(
        self, explaining: torch.Tensor, precision: torch.Tensor, typical: torch.Tensor, root: torch.Tensor
    ) -> None:
        n = len(explaining)
        first, later = torch.triu_indices(n, n, 1, device=explaining.device)
        self.root, self.n_large = root, 0
        overlap = (explaining[first] * explaining[later]) @ precision.T
        self.overlap = torch.split(overlap, list(range(n - 1, -1, -1)))

    def before(self, m: int, numerator: torch.Tensor) -> None:
        """Nothing is left to take."""

    def after(self, m: int, change: torch.Tensor, numerator: torch.Tensor) -> None:
        """Take what changed from the numerators of the later ones, and count large changes."""
        numerator[m + 1 :] -= change * self.overlap[m]
        self.n_large += int((change.abs() * self.root[m] > _LARGE).sum())


class _Typical:
    """The same from their correlation at the typical precision and their exact sizes; exact where changes are large."""

    def __init__(
        self, explaining: torch.Tensor, precision: torch.Tensor, typical: torch.Tensor, root: torch.Tensor
    ) -> None:
        alike = ((explaining * typical) @ explaining.T).double()
        norm = alike.diagonal().clamp_min(1e-300).sqrt()
        self.alike = alike / norm[:, None] / norm[None, :]
        self.explaining, self.precision, self.root, self.n_large = explaining, precision, root, 0
        self.scaled = torch.zeros_like(root)  # changes in units of their errors

    def before(self, m: int, numerator: torch.Tensor) -> None:
        """Take from a numerator what the earlier ones changed."""
        if m:
            numerator[m] -= self.root[m] * (self.alike[m, :m] @ self.scaled[:m])

    def after(self, m: int, change: torch.Tensor, numerator: torch.Tensor) -> None:
        """Take what large changes take beyond that from the numerators of the later ones, and count them."""
        root, explaining = self.root, self.explaining
        torch.mul(change, root[m], out=self.scaled[m])
        large = torch.nonzero(self.scaled[m].abs() > _LARGE).squeeze(1)
        if len(large) and m + 1 < len(explaining):
            exact = explaining[m + 1 :] @ (self.precision[large] * explaining[m]).T
            taken = self.alike[m + 1 :, m, None] * root[m + 1 :, large] * root[m, large]
            numerator[m + 1 :, large] -= (exact.double() - taken) * change[large]
        self.n_large += len(large)
