r"""Coordinate ascent on the posterior of the graph model; symbols are those of :mod:`raptorgraph.inference._graph`."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch

from raptorgraph._acyclic import acyclic_support
from raptorgraph.inference._graph_directions import Directions
from raptorgraph.inference._graph_prior import (
    EDGE,
    EDGE_SD,
    EDGES_PER_LATENT,
    FEW,
    FRACTION_RANGE,
    GREEDY_STEPS,
    NO_EDGE_SD,
    PROGRAM_FRACTION,
    SETTLED,
    TINY,
)

_Index: TypeAlias = tuple[torch.Tensor | slice, torch.Tensor | slice | int]
_BLOCK = 16  # explaining effects at a time


class _Weights(NamedTuple):
    """Posterior moments of some weights: under edge and no edge together, and under an edge."""

    mean: torch.Tensor
    variance: torch.Tensor
    edge: torch.Tensor
    probability: torch.Tensor
    odds: torch.Tensor


class Variational:
    """State of the updates; names follow the equations of :func:`infer_graph`."""

    def __init__(
        self,
        y: torch.Tensor,
        v: torch.Tensor,
        targets: torch.Tensor,
        v0: torch.Tensor | None,
        loadings: torch.Tensor | None = None,
    ) -> None:
        k, n_genes = y.shape
        self.y, self.v = y, v
        self.v0 = None if v0 is None else v0.to(y)
        ones = y.new_ones(k, 1)
        self.loadings = ones if loadings is None else torch.cat([ones, loadings.to(y)], 1)
        index = torch.nonzero(targets >= 0).squeeze(1)
        self.on_target = torch.zeros_like(y, dtype=torch.bool)
        self.on_target[index, targets[index]] = True
        self.is_target = self.on_target.any(0)
        # The effect on a target is whatever it is; programs start at a part of it. Where targets are not measured, or
        # keep their transcript as after many knock-outs, the other genes say how large effects are: were programs not
        # allowed to be as large, edges would take their place.
        size = float(y[self.on_target].abs().median()) if len(index) else 0.0
        typical = max(size, float((y**2 - v).clamp_min(0).mean().sqrt()), 1e-3)
        self.target_variance = (1.5 * typical) ** 2
        self.program_fraction = [PROGRAM_FRACTION, PROGRAM_FRACTION]  # of genes that are no target, of other targets
        self.program_variance = [(0.2 * typical) ** 2] * 2
        self.range = ((0.02 * typical) ** 2, typical**2)
        self.edge_fraction = EDGES_PER_LATENT[1] / max(k, 1)
        self.off_diagonal = ~torch.eye(k, dtype=torch.bool, device=y.device)
        self.allowed = self.off_diagonal.clone()
        self.weight = y.new_zeros(k, k)  # posterior mean under edge and no edge
        self.weight_variance = y.new_zeros(k, k)
        self.edge, self.probability = y.new_zeros(k, k), y.new_zeros(k, k)
        self.e, self.e_variance = y.clone(), torch.zeros_like(y)
        self.c = y.new_zeros(self.loadings.shape[1], n_genes)

    def share(self) -> torch.Tensor:
        """K x k: norm of what an edge carries, over that of the whole effect of its cause."""
        norm = self.e.norm(dim=1).clamp_min(1e-12)
        share: torch.Tensor = self.probability * self.edge.abs() * norm[None, :] / norm[:, None]
        return share

    def direction_support(self) -> torch.Tensor:
        """K x k: probability that a pair with an edge is ordered this way; NaN for other pairs."""
        edge = self.probability >= EDGE
        first, second = torch.nonzero(torch.triu(edge | edge.T, 1), as_tuple=True)
        found = Directions(
            self.y - self.control_error(),
            self.v,
            self.e,
            self.on_target,
            target_variance=self.target_variance,
            program_fraction=self.program_fraction[0],
            program_variance=self.program_variance[0],
        ).support(first, second)
        found = found.to(self.probability)
        support = torch.full_like(self.probability, torch.nan)
        support[first, second], support[second, first] = found, 1 - found
        return support

    def run(self, n_sweeps: int, learn: bool = True) -> None:
        """Update everything in turn."""
        for sweep in range(n_sweeps):
            self._sweep(learn and sweep >= SETTLED, greedy=learn and sweep == 0)

    def make_acyclic(self) -> None:
        """Allow edges of an acyclic graph only, of each cycle without the edge with the smallest share."""
        self.allowed = torch.as_tensor(acyclic_support(self.share().cpu().numpy())).to(self.allowed)

    def program(self) -> torch.Tensor:
        """Posterior mean of b."""
        return self.e - self.weight @ self.e

    def _sweep(self, learn: bool, greedy: bool) -> None:
        y, v = self.y, self.v
        carried = self.weight @ self.e
        carried_variance = self.weight**2 @ self.e_variance + self.weight_variance @ self.e**2
        if self.v0 is not None:
            in_program = self._in_program(y - carried - self.control_error())
            precision = 1 / (v + carried_variance + self._prior_variance() * in_program)
            self._update_control_error(y - carried, precision)
        rest = y - self.control_error() - carried
        slab = self._prior_variance()
        total = v + carried_variance
        in_program = self._in_program(rest, total)
        shrink = slab / (slab + v)
        self.e = carried + in_program * shrink * rest
        self.e_variance = in_program * shrink * v + in_program * (1 - in_program) * (shrink * rest) ** 2
        if learn:
            self._learn_programs(in_program, shrink, rest)
        precision = (1 - in_program) / v + in_program / (v + slab)
        self._update_weights(precision, greedy)
        if learn:
            k = len(y)
            low, _, high = EDGES_PER_LATENT
            self.edge_fraction = min(max(float(self.probability.sum()) / (k * (k - 1)), low / k), min(high / k, 0.5))

    def control_error(self, rows: slice = slice(None)) -> torch.Tensor:
        """Posterior mean of what the control cells put into the measured effects of some perturbations, rows x G."""
        return self.loadings[rows] @ self.c

    def _update_control_error(self, rest: torch.Tensor, precision: torch.Tensor, genes: slice = slice(None)) -> None:
        """Posterior means of the errors in some genes, given what is left of the effects."""
        assert self.v0 is not None
        prior, weighted = 1 / self.v0[genes].to(rest).clamp_min(1e-12), precision * rest
        if self.loadings.shape[1] == 1:
            self.c[0, genes] = (weighted.sum(0) / (precision.sum(0) + prior)).to(self.c)
            return
        # All together: while one is not yet told from the others, what they leave would become edges.
        loadings = self.loadings.to(rest)
        total = torch.stack([(loadings * loading[:, None]).T @ precision for loading in loadings.T]).permute(2, 0, 1)
        total.diagonal(dim1=1, dim2=2).add_(prior[:, None])
        self.c[:, genes] = torch.linalg.solve(total, weighted.T @ loadings).T.to(self.c)

    def _prior_variance(self) -> torch.Tensor:
        by_gene = torch.where(self.is_target, self.program_variance[1], self.program_variance[0]).to(self.y)
        return torch.where(self.on_target, self.target_variance, by_gene)

    def _in_program(self, rest: torch.Tensor, total: torch.Tensor | None = None) -> torch.Tensor:
        """Probability that a gene is in the program of a perturbation, k x G; 1 on its target."""
        total = self.v if total is None else total
        wide = total + self._prior_variance()
        fraction = torch.where(self.is_target, self.program_fraction[1], self.program_fraction[0]).to(self.y)
        odds = torch.logit(fraction) + 0.5 * (total / wide).log() + 0.5 * rest**2 * (1 / total - 1 / wide)
        return torch.where(self.on_target, 1.0, torch.sigmoid(odds))

    def _learn_programs(self, in_program: torch.Tensor, shrink: torch.Tensor, rest: torch.Tensor) -> None:
        for group, genes in enumerate((~self.is_target, self.is_target)):
            entries = genes & ~self.on_target
            if int(entries.sum()) < FEW:
                continue
            weight = in_program[entries]
            second = ((shrink * rest) ** 2 + shrink * self.v)[entries]
            self.program_fraction[group] = float(weight.mean().clamp(*FRACTION_RANGE))
            self.program_variance[group] = float(((weight * second).sum() / weight.sum()).clamp(*self.range))

    def _update_weights(self, precision: torch.Tensor, greedy: bool) -> None:
        """One round over the weights, each row for itself.

        Effects along a path resemble each other. At the start each row therefore takes the explaining effect with the
        most evidence, and then the next; later rounds go through all of them, the smallest first.
        """
        e, everything = self.e, slice(None)
        information = precision @ (e**2).T  # k x k: row i, explaining j
        noisy = information + precision @ self.e_variance.T
        if greedy:
            every = torch.arange(len(e), device=e.device)
            for _ in range(GREEDY_STEPS):
                gradient = precision * (self.y - self.control_error() - self.weight @ e)
                found = self._posterior(gradient @ e.T + self.weight * information, noisy, (everything, everything))
                best = torch.where(self.weight == 0, found.odds, -torch.inf).argmax(1)
                rows = every[found.odds[every, best] > 0]
                if not len(rows):
                    break
                chosen = rows, best[rows]
                self._set(chosen, _Weights(*(value[chosen] for value in found)))
            return
        gradient = precision * (self.y - self.control_error() - self.weight @ e)
        for block in torch.split(torch.argsort((e**2).sum(1)), _BLOCK):
            # One pass over all entries for a block; what its effects take from each other is kept by their products.
            explaining = e[block]
            numerator = gradient @ explaining.T
            first, later = torch.triu_indices(len(block), len(block), 1, device=e.device)
            overlap = torch.zeros(len(e), len(block), len(block), dtype=e.dtype, device=e.device)
            overlap[:, first, later] = precision @ (explaining[first] * explaining[later]).T
            change = torch.zeros_like(numerator)
            for m, j in enumerate(block.tolist()):
                at = everything, j
                found = self._posterior(numerator[:, m] + self.weight[at] * information[at], noisy[at], at)
                step = found.mean - self.weight[at]
                change[:, m] = torch.where(step.abs() > TINY, step, 0.0)
                numerator -= change[:, m, None] * overlap[:, m]
                # What was not carried on must not be in the weights either.
                self._set(at, found._replace(mean=self.weight[at] + change[:, m]))
            rows = torch.nonzero(change.any(1)).squeeze(1)
            gradient[rows] -= precision[rows] * (change[rows] @ explaining)

    def _posterior(self, numerator: torch.Tensor, precision: torch.Tensor, at: _Index) -> _Weights:
        """Posterior of the weights `at`, from the precision of their likelihood and its mode times that."""
        moments = []
        for sd in (EDGE_SD, NO_EDGE_SD):
            squared_sd = 1 / (precision + 1 / sd**2)
            mean = squared_sd * numerator
            moments.append((mean, squared_sd + mean**2, 0.5 * (squared_sd / sd**2).log() + 0.5 * mean**2 / squared_sd))
        (edge, edge_second, evidence), (other, other_second, other_evidence) = moments
        odds = torch.logit(numerator.new_tensor(self.edge_fraction)) + evidence - other_evidence
        odds = torch.where(self.allowed[at], odds, -torch.inf)
        probability = torch.sigmoid(odds)
        rest = (1 - probability) * self.off_diagonal[at]
        mean = probability * edge + rest * other
        variance = (probability * edge_second + rest * other_second - mean**2).clamp_min(0)
        return _Weights(mean, variance, torch.where(probability > 0, edge, 0.0), probability, odds)

    def _set(self, at: _Index, found: _Weights) -> None:
        self.weight[at], self.weight_variance[at] = found.mean, found.variance
        self.edge[at], self.probability[at] = found.edge, found.probability
