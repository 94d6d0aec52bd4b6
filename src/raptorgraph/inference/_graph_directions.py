r"""Which way an edge points: the evidence for i -> j against that for j -> i and for a common cause.

=====================================  =======================  ====================================================
symbol                                 name                     meaning
=====================================  =======================  ====================================================
:math:`y, v`                           ``y``, ``v``             effects less the error of the controls, and their
                                                                sampling variance, k x G
:math:`h`                              ``h``                    program that both effects hold
:math:`p`                              ``own``                  program that one of them has besides
:math:`w`                              ``ratio``                size of h in the first effect over that in the second
:math:`\ell`                           ``log_likelihood()``     log density of the two effects of a pair, by gene
:math:`z`                              ``_standardized()``      Vuong's statistic
:math:`\cos`                           ``resemblance()``        cosine of the posterior means e of two effects
=====================================  =======================  ====================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid
from torch.special import ndtr

# Part of an effect's squared size that may be its own although nothing but the other is behind it. Guides of one gene
# whose effects stand out agree but for 0 to 6 % in a real screen (papalexi2021_eccite), in one of eight genes for 37 %.
TOLERANCE = 0.15
_MOST_GENES = 1000  # of a pair, those that move most; the others tell nothing
_PAIRS = 64  # at a time
_STEPS = 60
_LOG_SD, _LOGIT_SD = 1.5, 1.0  # of the priors of a program's log size and logit fraction, about those of the screen
_RATIO_SD = 1.0  # of the prior of the ratio, in units of the sizes of both effects
_NEVER = -1e4  # log probability
_FARTHEST = 30.0  # log variance of a program


class _Program(NamedTuple):
    """Spike and slab of a program in every pair: log standard deviation and logit of the fraction, each E."""

    log_sd: torch.Tensor
    logit: torch.Tensor


@dataclass(frozen=True)
class Directions:
    """Effects of single perturbations whose edges are to be directed.

    Parameters
    ----------
    y
        Effects less the error of the control cells, k x G.
    v
        Their sampling variance, k x G.
    e
        Posterior means of the effects, k x G.
    on_target
        Whether the gene is the target of the perturbation, k x G: there its effect is direct, and may be large.
    target_variance
        Prior variance of such effects.
    program_fraction, program_variance
        Share of the genes in a typical program, and the variance of the effects on them.
    """

    y: torch.Tensor
    v: torch.Tensor
    e: torch.Tensor
    on_target: torch.Tensor
    target_variance: float
    program_fraction: float
    program_variance: float

    def support(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        r"""Probability that `first` acts on `second` and not the other way round, for E pairs.

        Three accounts of the two effects are compared, with a program h that both hold and sparse programs p:

        .. math::
            i \to j:\; e_j = h,\; e_i = w h + p_i, \qquad
            j \to i:\; e_i = h,\; e_j = w h + p_j, \qquad
            0:\; e_j = h + p_j,\; e_i = w h + p_i .

        What tells the direction are genes that move under i and not under j: i -> j needs one own effect for each, and
        j -> i two, since the whole of i would be in j. Under 0 each has some of them, so that neither holds the other.
        With :math:`d_g` the difference of the log densities of gene g under two accounts, each with its most likely
        parameters, :math:`z = \sum_g d_g / \sqrt{1 + \sum_g (d_g - \bar d)^2}` is Vuong's statistic, which is
        about standard normal where both are equally far from the truth, be they right or wrong. Then

        .. math::
            s = \tfrac12 + \kappa\, \Phi(-z_0) \big(\Phi(z_{ij}) - \tfrac12\big), \qquad
            \kappa = \min\Big(1, \frac{1 - \cos^2}{0.15}\Big),

        where :math:`z_0` compares 0 with the better of the others, :math:`\log G` taken off for its further program,
        and :math:`\kappa` is below 1 where the effects are proportional but for 15 % of their squared size: as
        much may differ between two guides of one gene.
        """
        if not len(first):
            return self.y.new_zeros(0)
        parts = [slice(start, start + _PAIRS) for start in range(0, len(first), _PAIRS)]
        return torch.cat([self._support_of(first[part], second[part]) for part in parts])

    def resemblance(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Cosine of the posterior means of two effects over the genes that are neither's target, E.

        Genes are weighted by their precision. What does not stand out from noise is not in the means, so that noise
        makes no difference between effects. 0 where there is no effect.
        """
        elsewhere = ~(self.on_target[first] | self.on_target[second])
        weight = elsewhere / (self.v[first] + self.v[second])
        a, b = self.e[first], self.e[second]
        product, *sizes = ((weight * values).sum(1) for values in (a * b, a**2, b**2))
        both = (sizes[0] * sizes[1]).sqrt()
        cosine: torch.Tensor = torch.where(both > 0, product / both, 0.0).clamp(-1, 1)
        return cosine

    def _support_of(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        forward, back = _Pairs.of(self, first, second), _Pairs.of(self, second, first)
        there, other, common = forward.fitted(False), back.fitted(False), forward.fitted(True)
        better = torch.where((there.sum(1) > other.sum(1))[:, None], there, other)
        z = _standardized(there - other)
        z_common = _standardized(common - better, math.log(max(common.shape[1], 1)))
        own = ((1 - self.resemblance(first, second) ** 2) / TOLERANCE).clamp_max(1.0)
        support: torch.Tensor = 0.5 + own * ndtr(-z_common) * (ndtr(z) - 0.5)
        return support


@dataclass(frozen=True)
class _Pairs:
    """Effects of E pairs on their genes, E x M: `a` is that which may hold the other, `b`."""

    a: torch.Tensor
    b: torch.Tensor
    v_a: torch.Tensor
    v_b: torch.Tensor
    on_a: torch.Tensor
    on_b: torch.Tensor
    target_variance: float
    start: tuple[float, float]  # log standard deviation and logit of the fraction of a program

    @classmethod
    def of(cls, screen: Directions, first: torch.Tensor, second: torch.Tensor) -> _Pairs:
        """Take the genes that move most in either effect."""
        y, v = screen.y, screen.v
        moved = torch.maximum(y[first] ** 2 / v[first], y[second] ** 2 / v[second])
        genes = moved.topk(min(_MOST_GENES, y.shape[1]), dim=1).indices.sort(1).values
        fraction = screen.program_fraction

        def taken(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return values[rows].gather(1, genes)

        return cls(
            a=taken(y, first).double(),
            b=taken(y, second).double(),
            v_a=taken(v, first).double(),
            v_b=taken(v, second).double(),
            on_a=taken(screen.on_target, first),
            on_b=taken(screen.on_target, second),
            target_variance=screen.target_variance,
            start=(0.5 * math.log(screen.program_variance), math.log(fraction / (1 - fraction))),
        )

    def fitted(self, common: bool) -> torch.Tensor:
        """Log density of every gene at the most likely parameters, E x M; with `common`, both have an own program."""
        n = len(self.a)
        size_a, size_b = ((values**2).sum(1).clamp_min(1e-12) for values in (self.a, self.b))
        size, ratio = (size_a / size_b).sqrt(), (self.a * self.b).sum(1) / size_b
        starts = ratio.new_tensor(self.start * (3 if common else 2))
        first = torch.cat([(ratio / size)[None], starts[:, None].expand(-1, n)])
        values = first.clone().requires_grad_(True)
        center = first.clone()
        center[0] = 0.0
        sd = ratio.new_tensor([_RATIO_SD, *(_LOG_SD, _LOGIT_SD) * (3 if common else 2)])[:, None]

        def density() -> torch.Tensor:
            programs = [_Program(values[i], values[i + 1]) for i in range(1, len(values), 2)]
            return self.log_likelihood(values[0] * size, *programs)

        optimizer = torch.optim.LBFGS([values], max_iter=_STEPS, history_size=10, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = 0.5 * (((values - center) / sd) ** 2).sum() - density().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return density()

    def log_likelihood(
        self, ratio: torch.Tensor, h: _Program, own_a: _Program, own_b: _Program | None = None
    ) -> torch.Tensor:
        """Log density of both effects on every gene, all programs integrated over, E x M.

        On the target of a perturbation its own program is wide; b's is in h where b has no other.
        """
        shared = self._prior(h, None if own_b is not None else self.on_b)
        of_a = self._prior(own_a, self.on_a)
        of_b = [(0.0, 0.0)] if own_b is None else self._prior(own_b, self.on_b)
        w = ratio[:, None]
        found = []
        for h_variance, h_log in shared:
            covariance = w * h_variance
            for b_variance, b_log in of_b:
                total_b = self.v_b + h_variance + b_variance
                slope = covariance / total_b
                log_b = h_log + b_log - 0.5 * (self.b**2 / total_b + total_b.log())
                rest = self.a - slope * self.b
                for a_variance, a_log in of_a:
                    total_a = self.v_a + a_variance + w * (w * h_variance) - slope * covariance
                    found.append(log_b + a_log - 0.5 * (rest**2 / total_a + total_a.log()))
        return torch.logsumexp(torch.stack(found), 0) - math.log(2 * math.pi)

    def _prior(self, program: _Program, target: torch.Tensor | None) -> list[tuple[torch.Tensor | float, torch.Tensor]]:
        """Variance and log probability of being outside of a program, and inside."""
        # a step of the line search may go anywhere, and the prior brings it back from where all is finite
        variance = (2 * program.log_sd).clamp(-_FARTHEST, _FARTHEST).exp()[:, None].expand(self.a.shape)
        inside, outside = (logsigmoid(sign * program.logit)[:, None].expand(self.a.shape) for sign in (1, -1))
        if target is not None:
            variance = torch.where(target, self.target_variance, variance)
            inside, outside = torch.where(target, 0.0, inside), torch.where(target, _NEVER, outside)
        return [(0.0, outside), (variance, inside)]


def _standardized(difference: torch.Tensor, penalty: float = 0.0) -> torch.Tensor:
    """Vuong's statistic of differences of log densities, E x M."""
    spread = ((difference - difference.mean(1, keepdim=True)) ** 2).sum(1)
    return (difference.sum(1) - penalty) / (1 + spread).sqrt()
