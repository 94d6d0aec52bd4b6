r"""Posterior of the graph among perturbed latents: spike-and-slab regression of effects on each other.

=====================================  =======================  ====================================================
symbol                                 name                     meaning
=====================================  =======================  ====================================================
:math:`y, v`                           ``y``, ``v``             measured effects and their sampling variance, k x G
:math:`v_0`                            ``v0``                   sampling variance of the control cells
:math:`c`                              ``c``                    error of the control cells, part of every effect
:math:`e`                              ``e``, ``e_variance``    effects, posterior mean and variance
:math:`W`                              ``weight``, ``edge``,    weights: posterior mean, posterior mean under an
                                       ``probability``          edge, posterior probability of an edge
:math:`b`                              ``program()``            direct effects
:math:`\alpha`                         ``in_program``           posterior probability that a gene is in a program
:math:`\pi`                            ``program_fraction``     prior probability of that
:math:`\tau^2`                         ``program_variance``     variance of direct effects on genes in a program
:math:`\rho`                           ``edge_fraction``        prior probability of an edge
:math:`\sigma_1, \sigma_0`            ``_EDGE_SD``,            prior SD of a weight with and without an edge
                                       ``_NO_EDGE_SD``
=====================================  =======================  ====================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch

from raptorgraph._acyclic import acyclic_support
from raptorgraph._deprecated import with_old_arguments
from raptorgraph._threads import one_thread
from raptorgraph.inference._graph_directions import Directions

EDGE = 0.5  # probability from which an edge is one
_Index: TypeAlias = tuple[torch.Tensor | slice, torch.Tensor | slice | int]

# Standard deviations of spike and slab of the weights, in units of the effect of perturbing the target. The former is
# not 0: a gene may move a little with a perturbation without standing for the other's program.
_NO_EDGE_SD, _EDGE_SD = 0.05, 0.3
_EDGES_PER_LATENT = (0.2, 1.0, 5.0)  # least, first and largest number that the prior expects
_PROGRAM_FRACTION = 0.05  # of the genes in a program, at the start
_FRACTION_RANGE = (0.005, 0.5)
_FEW = 50  # entries from which a prior is not learned
_GREEDY_STEPS = 10  # edges of a latent that are looked for at the start
_SETTLED = 5  # sweeps before priors are learned
_TINY = 1e-3  # change of a weight that is not carried on
_FEW_LATENTS = 100  # up to which one thread is about as fast as several
_BLOCK = 16  # explaining effects at a time


@dataclass(frozen=True)
class GraphPosterior:
    """What the effects of single perturbations say about the edges among their latents.

    Attributes
    ----------
    weight
        Posterior means of the edges of an acyclic graph, k x k, row = cause: the part of the effect of perturbing j
        that a perturbation of i brings about directly.
    probability
        Probability that there is an edge, k x k; that of edges left out by the acyclicity is 0.
    share
        Size of what the edge carries as a part of the whole effect of its cause, k x k: the best single number to rank
        edges by.
    programs
        Direct effect b of each perturbation, k x G.
    direction_support
        Of each pair with an edge, the probability that it runs from the row to the column and not the other way round,
        k x k: that of the other direction is 1 less this. NaN for other pairs; None where it was not asked for.

    Examples
    --------
    >>> import torch
    >>> effect, variance = torch.eye(3, 30), torch.full((3, 30), 0.01)  # each moves its own gene alone
    >>> found = rg.inference.infer_graph(effect, variance, targets=torch.arange(3))
    >>> found.programs.shape
    torch.Size([3, 30])
    >>> int((found.probability >= 0.5).sum())  # no edge
    0
    """

    weight: torch.Tensor
    probability: torch.Tensor
    share: torch.Tensor
    programs: torch.Tensor
    direction_support: torch.Tensor | None = None


@with_old_arguments(own="targets", shared_variance="control_variance")
@torch.no_grad()
def infer_graph(
    effect: torch.Tensor,
    variance: torch.Tensor,
    targets: torch.Tensor,
    *,
    control_variance: torch.Tensor | None = None,
    n_sweeps: int = 20,
    directions: bool = False,
) -> GraphPosterior:
    r"""Infer the graph from the effects of single perturbations and their sampling variance.

    Spike-and-slab regression of the effects on each other, by coordinate ascent variational inference as in [1]_.
    The graph is then made acyclic. Symbols, updates and approximations are in :doc:`/concepts/inference`.

    In the structural model u = u A + z a perturbation of gene i shifts z_i, and a decoder that is linear on the log
    scale turns the shift of u into a shift of log rates. In units of the shift of each perturbation, the effect e_i of
    perturbing i is then what i does itself and, for each child j, a part of the effect of perturbing j:

    .. math::
        e_i = b_i + \sum_j W_{ij} e_j, \qquad y_i = e_i + c + \varepsilon_i, \qquad
        \varepsilon_{ig} \sim N(0, v_{ig}), \quad c_g \sim N(0, v_{0g}),

    :math:`W_{ij} = A_{ij} \delta_i / \delta_j` for shifts :math:`\delta`. Only the children of an intervened latent
    explain its effect, its parents never do. Without more, W is not identified: any W fits, with
    :math:`b = (I - W) e`. Two assumptions anchor it. A direct program b reaches few genes,

    .. math:: b_{ig} \sim \pi N(0, \tau^2) + (1 - \pi) \delta_0,

    so that an effect which holds the whole of another, the genes downstream of it included, is explained by an edge
    and not by chance. And the target of a perturbation, where it is measured, is moved by it directly (a wide normal
    prior), while direct effects on the targets of *others* have a separate :math:`\pi` and :math:`\tau`. A weight is
    drawn from :math:`\rho N(0, 0.3^2) + (1 - \rho) N(0, 0.05^2)`, the slab of an edge and the spike of none.

    Parameters
    ----------
    effect
        Effects y on the log scale, k x G.
    variance
        Their sampling variance v without that of the control cells, k x G, positive; genes for which it is infinite in
        any row are left out.
    targets
        Column of each perturbed gene, k, int64; -1 where it is not measured.
    control_variance
        Sampling variance v_0 of the control cells, G; default 0.
    n_sweeps
        Rounds of updates, before and half as many after the graph was made acyclic.
    directions
        Also say how far the direction of each edge is supported. It takes longer than the graph itself.

    Returns
    -------
    GraphPosterior

    References
    ----------
    .. [1] Carbonetto, P. & Stephens, M. Scalable variational inference for Bayesian variable selection in regression,
       and its accuracy in genetic association studies. *Bayesian Analysis* 7, 73-108 (2012).

    Examples
    --------
    Perturbing 0 does three things directly and, by moving 1, half of what perturbing 1 does.

    >>> import torch
    >>> rng = np.random.default_rng(0)
    >>> program = np.zeros((2, 60))
    >>> program[0, [0, 10, 11, 12]], program[1, 1], program[1, 30:50] = 2.0, 2.0, rng.normal(0, 1.5, 20)
    >>> effect = np.stack([program[0] + 0.5 * program[1], program[1]]) + rng.normal(0, 0.1, (2, 60))
    >>> found = rg.inference.infer_graph(torch.tensor(effect), torch.full((2, 60), 0.01), torch.tensor([0, 1]))
    >>> found.weight.numpy().round(1) + 0.0
    array([[0. , 0.5],
           [0. , 0. ]])
    >>> found.probability.numpy().round(1) + 0.0
    array([[0., 1.],
           [0., 0.]])
    """
    targets, known = targets.to(effect.device), torch.isfinite(variance).all(0)
    v0 = None if control_variance is None else control_variance[known]
    column = torch.cumsum(known, 0) - 1
    targets = torch.where((targets >= 0) & known[targets.clamp_min(0)], column[targets.clamp_min(0)], -1)
    fit = _Variational(effect[:, known].double(), variance[:, known].double(), targets, v0)
    if len(effect) > 1 and bool(known.any()):
        with one_thread(len(effect) <= _FEW_LATENTS):
            fit.run(n_sweeps)
            fit.allowed = torch.as_tensor(acyclic_support(fit.share().cpu().numpy())).to(fit.allowed)
            fit.run(max(1, n_sweeps // 2), learn=False)
    programs = torch.zeros(effect.shape, dtype=torch.float64, device=effect.device)
    programs[:, known] = fit.program()
    support = None
    if directions:
        with one_thread(len(effect) <= _FEW_LATENTS):
            support = fit.direction_support()
    return GraphPosterior(fit.probability * fit.edge, fit.probability, fit.share(), programs, support)


class _Weights(NamedTuple):
    """Posterior moments of some weights: under edge and no edge together, and under an edge."""

    mean: torch.Tensor
    variance: torch.Tensor
    edge: torch.Tensor
    probability: torch.Tensor
    odds: torch.Tensor


class _Variational:
    """State of the updates; names follow the equations of :func:`infer_graph`."""

    def __init__(self, y: torch.Tensor, v: torch.Tensor, targets: torch.Tensor, v0: torch.Tensor | None) -> None:
        k, n_genes = y.shape
        self.y, self.v = y, v
        self.v0 = None if v0 is None else v0.to(y)
        index = torch.nonzero(targets >= 0).squeeze(1)
        self.on_target = torch.zeros_like(y, dtype=torch.bool)
        self.on_target[index, targets[index]] = True
        self.is_target = self.on_target.any(0)
        size = y[self.on_target]
        # The effect on a target is whatever it is; programs start at a part of it.
        typical = float(size.abs().median()) if len(size) else float((y**2 - v).clamp_min(0).mean().sqrt())
        typical = max(typical, 1e-3)
        self.target_variance = (1.5 * typical) ** 2
        self.program_fraction = [_PROGRAM_FRACTION, _PROGRAM_FRACTION]  # of genes that are no target, of other targets
        self.program_variance = [(0.2 * typical) ** 2] * 2
        self.range = ((0.02 * typical) ** 2, typical**2)
        self.edge_fraction = _EDGES_PER_LATENT[1] / max(k, 1)
        self.off_diagonal = ~torch.eye(k, dtype=torch.bool, device=y.device)
        self.allowed = self.off_diagonal.clone()
        self.weight = y.new_zeros(k, k)  # posterior mean under edge and no edge
        self.weight_variance = y.new_zeros(k, k)
        self.edge, self.probability = y.new_zeros(k, k), y.new_zeros(k, k)
        self.e, self.e_variance = y.clone(), torch.zeros_like(y)
        self.c = y.new_zeros(n_genes)

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
            self.y - self.c,
            self.v,
            self.e,
            self.on_target,
            target_variance=self.target_variance,
            program_fraction=self.program_fraction[0],
            program_variance=self.program_variance[0],
        ).support(first, second)
        support = torch.full_like(self.probability, torch.nan)
        support[first, second], support[second, first] = found, 1 - found
        return support

    def run(self, n_sweeps: int, learn: bool = True) -> None:
        """Update everything in turn."""
        for sweep in range(n_sweeps):
            self._sweep(learn and sweep >= _SETTLED, greedy=learn and sweep == 0)

    def program(self) -> torch.Tensor:
        """Posterior mean of b."""
        return self.e - self.weight @ self.e

    def _sweep(self, learn: bool, greedy: bool) -> None:
        y, v = self.y, self.v
        carried = self.weight @ self.e
        carried_variance = self.weight**2 @ self.e_variance + self.weight_variance @ self.e**2
        if self.v0 is not None:
            precision = 1 / (v + carried_variance + self._prior_variance() * self._in_program(y - carried - self.c))
            self.c = (precision * (y - carried)).sum(0) / (precision.sum(0) + 1 / self.v0.clamp_min(1e-12))
        rest = y - self.c - carried
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
            low, _, high = _EDGES_PER_LATENT
            self.edge_fraction = min(max(float(self.probability.sum()) / (k * (k - 1)), low / k), min(high / k, 0.5))

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
            if int(entries.sum()) < _FEW:
                continue
            weight = in_program[entries]
            second = ((shrink * rest) ** 2 + shrink * self.v)[entries]
            self.program_fraction[group] = float(weight.mean().clamp(*_FRACTION_RANGE))
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
            for _ in range(_GREEDY_STEPS):
                gradient = precision * (self.y - self.c - self.weight @ e)
                found = self._posterior(gradient @ e.T + self.weight * information, noisy, (everything, everything))
                best = torch.where(self.weight == 0, found.odds, -torch.inf).argmax(1)
                rows = every[found.odds[every, best] > 0]
                if not len(rows):
                    break
                chosen = rows, best[rows]
                self._set(chosen, _Weights(*(value[chosen] for value in found)))
            return
        gradient = precision * (self.y - self.c - self.weight @ e)
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
                change[:, m] = torch.where(step.abs() > _TINY, step, 0.0)
                numerator -= change[:, m, None] * overlap[:, m]
                # What was not carried on must not be in the weights either.
                self._set(at, found._replace(mean=self.weight[at] + change[:, m]))
            rows = torch.nonzero(change.any(1)).squeeze(1)
            gradient[rows] -= precision[rows] * (change[rows] @ explaining)

    def _posterior(self, numerator: torch.Tensor, precision: torch.Tensor, at: _Index) -> _Weights:
        """Posterior of the weights `at`, from the precision of their likelihood and its mode times that."""
        moments = []
        for sd in (_EDGE_SD, _NO_EDGE_SD):
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
