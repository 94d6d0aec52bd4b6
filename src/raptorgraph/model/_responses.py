"""Start of the perturbed prior: how the response depends on the state of a cell, and how many cells escaped."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from raptorgraph.nn._modulator import own_response

_N_ROUNDS = 3
_N_EXPECTATIONS = 50
_PRIOR_CELLS = 5.0  # that responded, as it were, in addition to those of each gene; controls beside those there are
_LIKE_CONTROLS = 100.0  # cells that speak, as it were, for responses that vary as much as controls do
_LEAST = 1e-3  # probability of escape
_CLEAR, _MOST = 0.75, 0.8  # standard deviations of an own latent by which cells respond on average; of escape
_WORTH = 1.0  # nats that each parameter of the dependence on the state must explain
_EVIDENCE = 3.0  # nats by which cells that escaped must explain the latents better than none


@dataclass(frozen=True)
class Responses:
    """What is fitted: `weight` (k x background latents) and `bias` (k) of the state, and `escape` (k)."""

    weight: torch.Tensor
    bias: torch.Tensor
    escape: torch.Tensor


def fit_responses(mean: torch.Tensor, mask: torch.Tensor) -> Responses:
    r"""Fit the prior of the own latents to cells that were encoded.

    In the cells of gene g alone the mean of the latent is :math:`y = l_g m_g(z_b) + \epsilon` in those that responded,
    with the map :math:`m_g` of :class:`raptorgraph.nn.ConditionalModulator`, and as in control cells in the others. The
    weights of :math:`m_g` have a standard normal prior, so that a weak response stays the same in all states; they and
    the probability of escape are found by expectation and maximization. (The level :math:`l_g` is below the strength of
    the gene where a cell says little of its latent.)

    Parameters
    ----------
    mean
        Posterior means of the latents, cells x d, those of the perturbed genes first.
    mask
        Perturbed genes of the cells, cells x k, 0 or 1.
    """
    k = mask.shape[1]
    mean, mask = mean.double(), mask.double()
    control = mask.sum(1) == 0
    own, state = mean[:, :k], mean[:, k:]
    # What an own latent says of the state alone, which is not a response: its regression on the state among controls.
    ones = torch.cat([torch.ones_like(own[:, :1]), state], dim=1)
    precision = ones[control].T @ ones[control] + _PRIOR_CELLS * torch.eye(ones.shape[1], dtype=ones.dtype)
    own = own - ones @ torch.linalg.solve(precision, ones[control].T @ own[control])
    alone = torch.nonzero(mask.sum(1) == 1).squeeze(1)
    gene = mask[alone].argmax(1)
    y, state = own[alone, gene], state[alone]
    # Of few controls little is known; the prior of the latents has a variance of 1.
    noise = (own[control].square().sum(0) + _PRIOR_CELLS) / (control.sum() + _PRIOR_CELLS)

    weight, bias = y.new_zeros(k, state.shape[1]), y.new_zeros(k)
    responded = torch.ones_like(y)
    for i in range(_N_ROUNDS):
        size = own_response(state, weight, bias, gene)
        found = _Mixture(y, size, gene, noise)
        # From no escape, and from every second cell: the likelihood decides, with what a parameter more is worth.
        none, half = found.fit(0.0), found.fit(0.5)
        better = half.log_likelihood > none.log_likelihood + _EVIDENCE
        # At first none, since cells of a state that does not respond would pass for such that escaped.
        better &= (i > 0) & (none.level > _CLEAR * noise.sqrt()) & (half.escape < _MOST)
        level, variance, escape = (
            torch.where(better, getattr(half, name), getattr(none, name)) for name in ("level", "variance", "escape")
        )
        responded = torch.where(better[gene], half.responded, none.responded)
        precision = responded * level[gene] ** 2 / variance[gene]
        weight, bias = _fit_state(y / level[gene], precision, state, gene, k)
    return Responses(weight.float(), bias.float(), escape.float())


@dataclass(frozen=True)
class _Component:
    level: torch.Tensor
    variance: torch.Tensor
    escape: torch.Tensor
    responded: torch.Tensor
    log_likelihood: torch.Tensor


@dataclass(frozen=True)
class _Mixture:
    """Cells that responded, N(level * size, variance), and cells that escaped, N(0, noise), for each gene."""

    y: torch.Tensor
    size: torch.Tensor
    gene: torch.Tensor
    noise: torch.Tensor

    def by_gene(self, values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(len(self.noise)).index_add_(0, self.gene, values)

    def fit(self, escape_at_first: float) -> _Component:
        """Expectation and maximization, from this share of the cells with the lowest latents on."""
        y, size, gene, noise = self.y, self.size, self.gene, self.noise
        n = self.by_gene(torch.ones_like(y)).clamp_min(1)
        rank = torch.argsort(torch.argsort(gene.double() * 1e6 + y))  # within genes, since they come in blocks
        first = torch.cumsum(self.by_gene(torch.ones_like(y)), 0) - self.by_gene(torch.ones_like(y))
        responded = ((rank - first[gene]) / n[gene] >= escape_at_first).double()
        escape = torch.full_like(noise, max(escape_at_first, _LEAST))
        for _ in range(_N_EXPECTATIONS if escape_at_first else 1):
            total = self.by_gene(responded * size**2).clamp_min(1e-9)
            level = self.by_gene(responded * y * size) / total
            squares = self.by_gene(responded * (y - level[gene] * size) ** 2)
            variance = (squares + _LIKE_CONTROLS * noise) / (self.by_gene(responded) + _LIKE_CONTROLS)
            here = -0.5 * ((y - level[gene] * size) ** 2 / variance[gene] + variance[gene].log())
            away = -0.5 * (y**2 / noise[gene] + noise[gene].log())
            both = torch.stack([here + torch.log1p(-escape[gene]), away + escape[gene].log()])
            log_likelihood = self.by_gene(torch.logsumexp(both, 0))
            log_likelihood = log_likelihood - 0.5 * _LIKE_CONTROLS * (variance.log() + noise / variance)
            if escape_at_first:
                responded = torch.softmax(both, 0)[0]
                escape = ((self.by_gene(1 - responded) + _LEAST) / (n + _PRIOR_CELLS)).clamp_min(_LEAST)
        return _Component(level, variance, escape, responded, log_likelihood)


def _fit_state(
    ratio: torch.Tensor, precision: torch.Tensor, state: torch.Tensor, gene: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Most probable weights and biases given responses relative to their level.

    They stay 0 for a gene whose cells they do not explain better by more than their number, in nats.
    """
    weight, bias = state.new_zeros(k, state.shape[1], requires_grad=True), state.new_zeros(k, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def misfit() -> torch.Tensor:
        size = own_response(state, weight, bias, gene)
        return 0.5 * precision * (ratio - size) ** 2

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = misfit().sum() + 0.5 * (weight**2).sum() + 0.5 * (bias**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch
    with torch.no_grad():
        gain = state.new_zeros(k).index_add_(0, gene, 0.5 * precision * (ratio - 1) ** 2 - misfit())
        kept = gain > _WORTH * (state.shape[1] + 1)
        return torch.where(kept[:, None], weight, 0.0), torch.where(kept, bias, 0.0)
