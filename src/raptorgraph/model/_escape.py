"""Cells that responded and cells that escaped: a mixture of their scores, for each perturbed gene."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import nn

_STARTS = (0.05, 0.3, 0.6)  # shares of the lowest cells that escaped at first
_N_ROUNDS = 60
_LEAST, _MOST = 1e-3, 0.98  # probability of escape
# Nats by which escape must explain the scores of a gene better than none, and nats for each cell: responses are no
# normal distributions, and the tail of one is no escape.
_EVIDENCE, _EVIDENCE_OF_CELL = 3.0, 0.03
_SHARED = 20.0  # cells that speak, as it were, for the mean probability of escape over genes
_RESPONDED = 5.0  # cells of each gene that responded, as it were, beside those that there are
_KEPT = 0.7  # of the noise in measured effects, which their posterior shrinks
_MUCH = 4.0  # times the usual variance of a score: beyond, the perturbation hardly acts in the state of the cell
_WIDE = 3.0  # times the usual variance of a score: from there on it is that of the responding cells
_TINY = 1e-9  # least variance
_AS_PREDICTED = 20.0  # cells that speak, as it were, for responses that vary as the likelihood says


@dataclass(frozen=True)
class Mixture:
    """Scores of the cells of each perturbed gene, arrays of shape (k,).

    With probability `escape` a score is distributed as those of control cells: two halves of normal distributions meet
    at the mode `null`, of variance `below` and `above`, since responses that saturate leave scores skewed. Otherwise it
    follows N(`level`, `variance`). A cell that the model was trained on gains `optimism` from its own part in the
    measured effect. `noise` is the variance that the likelihood gives a score where the perturbation acts.
    """

    escape: np.ndarray
    level: np.ndarray
    variance: np.ndarray
    null: np.ndarray
    below: np.ndarray
    above: np.ndarray
    optimism: np.ndarray
    noise: np.ndarray

    def log_ratio(self, score: np.ndarray, gene: np.ndarray, *, seen: bool) -> np.ndarray:
        """Logarithm of the likelihood ratio of cells that responded and that escaped; `seen` says trained on.

        The ratio rises with the score: beyond `level` a score counts as there, and below the point where the ratio
        would rise again, because scores of responders vary more, as at that point.
        """
        unseen = 0.0 if seen else self.optimism
        null, level = (values[gene] for values in (self.null + self.optimism - unseen, self.level - unseen))
        variance, below = self.variance[gene], self.below[gene]
        wider = variance > below
        turn = (level * below - null * variance) / np.where(wider, below - variance, -1.0)
        score = np.minimum(np.maximum(score, np.where(wider, turn, -np.inf)), level)
        away = log_split_normal(score, null, below, self.above[gene])
        return np.asarray(_log_normal(score, level, variance) - away)


NAMES = tuple(field.name for field in fields(Mixture))


class ResponseState(nn.Module):
    """The mixture as a part of a model, NaN before it is fitted."""

    def __init__(self, n_perturbed: int) -> None:
        super().__init__()
        for name in NAMES:
            self.register_buffer(name, torch.full((n_perturbed,), torch.nan))

    @property
    def is_fitted(self) -> bool:
        """Whether there is a mixture."""
        return not bool(self.get_buffer(NAMES[0]).isnan().any())

    @property
    def mixture(self) -> Mixture:
        """The mixture in numpy."""
        return Mixture(**{name: self.get_buffer(name).double().cpu().numpy() for name in NAMES})

    @torch.no_grad()
    def store(self, mixture: Mixture) -> None:
        """Keep a mixture."""
        for name in NAMES:
            self.get_buffer(name).copy_(torch.as_tensor(getattr(mixture, name)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over state; that of an older model has none."""
        for name in NAMES:
            state_dict.setdefault(f"{prefix}{name}", torch.full_like(self.get_buffer(name), torch.nan))
        super()._load_from_state_dict(state_dict, prefix, *args)


def fit_mixture(
    score: np.ndarray,
    noise: np.ndarray,
    gene: np.ndarray,
    controls: np.ndarray,
    controls_noise: np.ndarray,
    n_genes: int,
    wide: np.ndarray | None = None,
    n_cells: np.ndarray | None = None,
) -> Mixture:
    r"""Fit the mixture by expectation and maximization.

    Three things identify it. Cells that escaped are as control cells, whose scores are known. The scores of cells that
    responded vary about as much as the likelihood says, and no more than those of controls unless it says so clearly,
    as of a gene that is switched on: an effect half as large with more variance is no response. And genes share their
    guides' quality: the probability of escape of each has a beta prior around that of all, which is 0 unless the
    likelihood of all cells speaks against it.

    Parameters
    ----------
    score, noise, gene
        Score of each cell, the variance that the likelihood gives it for a small response, and its perturbed gene.
    controls, controls_noise
        The same of control cells under each gene, k x cells.
    n_genes
        Number of genes that the scores read. The measured effect holds 1/n of the noise of each of its n cells, so that
        its own score gains :math:`\rho / (1 + \rho)`, with :math:`\rho` the number of genes times `noise` over n.
    wide
        Variance that the likelihood gives each score with the response; by default `noise`.
    n_cells
        Cells that the measured effect of each gene has, where scores are of some of them; by default as many as scores.
    """
    typical = np.quantile(controls_noise, 0.25, axis=1)
    score, noise = drawn_in(score, noise, typical[gene]), np.minimum(noise, _MUCH * typical[gene])
    null, below, above = split_normal(drawn_in(controls, controls_noise, typical[:, None]))
    n = np.bincount(gene, minlength=len(null))
    expected = np.bincount(gene, noise, minlength=len(null)) / np.maximum(n, 1)
    rho = n_genes * expected / np.maximum(n if n_cells is None else n_cells, 1)
    optimism = _KEPT * rho / (1 + rho)
    usual = np.maximum(np.minimum(expected, 0.5 * (below + above)), _TINY)
    of_response = np.bincount(gene, noise if wide is None else wide, minlength=len(null)) / np.maximum(n, 1)
    usual = np.where(of_response > _WIDE * usual, of_response, usual)
    data = _Data(score, gene, null + optimism, below, above, usual)
    none = data.fit(0.0)
    pooled = max((data.fit(start) for start in _STARTS), key=lambda fit: fit.log_likelihood.sum())
    needed = np.maximum(_EVIDENCE, _EVIDENCE_OF_CELL * n) * (n > 0)
    everywhere = pooled.log_likelihood.sum() > none.log_likelihood.sum() + needed.sum()
    share = float(pooled.escape[0]) if everywhere else 0.0
    fits = [data.fit(start, max(share, 0.01)) for start in _STARTS]
    best = np.argmax([fit.log_posterior for fit in fits], axis=0)
    chosen = {name: np.choose(best, [getattr(fit, name) for fit in fits]) for name in ("escape", "level", "variance")}
    gained = np.choose(best, [fit.log_likelihood for fit in fits]) - none.log_likelihood
    kept = (n > 0) & (everywhere | (gained > needed))
    chosen = {name: np.where(kept, values, getattr(none, name)) for name, values in chosen.items()}
    # Of a gene without cells nothing is known but what the model expects of those that respond.
    unknown = {
        "escape": max(share, _LEAST),
        "level": 1.0,
        "variance": np.maximum(np.minimum(typical, 0.5 * (below + above)), _TINY),
    }
    chosen = {name: np.where(n > 0, values, unknown[name]) for name, values in chosen.items()}
    return Mixture(null=null, below=below, above=above, optimism=optimism, noise=typical, **chosen)


def drawn_in(score: np.ndarray, noise: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Scores of cells with much more `noise` than is `typical` are drawn towards 1/2, where they say little."""
    return np.asarray(0.5 + (score - 0.5) / np.sqrt(np.maximum(noise / (_MUCH * typical), 1.0)))


def fit_shares(log_ratio: np.ndarray, group: np.ndarray, escape: np.ndarray) -> np.ndarray:
    """Probability of escape in each group of cells, with a beta prior around `escape`, both of shape (groups,)."""
    n, found = np.bincount(group, minlength=len(escape)), escape
    for _ in range(_N_ROUNDS):
        stayed = posterior(log_ratio, found[group])
        found = _updated(np.bincount(group, 1 - stayed, minlength=len(escape)), n, escape)
    return found


def posterior(log_ratio: np.ndarray, escape: np.ndarray) -> np.ndarray:
    """Probability that cells responded, given the likelihood ratio and the probability of escape."""
    with np.errstate(over="ignore", divide="ignore"):
        odds = np.exp(-log_ratio) * escape / (1 - escape)
    return np.asarray(1 / (1 + odds))


@dataclass(frozen=True)
class _Fit:
    escape: np.ndarray
    level: np.ndarray
    variance: np.ndarray
    log_likelihood: np.ndarray
    log_posterior: np.ndarray


@dataclass(frozen=True)
class _Data:
    """Scores, and what is known beforehand: scores without a response, and the `expected` variance with one."""

    score: np.ndarray
    gene: np.ndarray
    null: np.ndarray
    below: np.ndarray
    above: np.ndarray
    expected: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over the cells of each gene."""
        return np.bincount(self.gene, values, minlength=len(self.null))

    def fit(self, start: float, prior: float | None = None) -> _Fit:
        """Fit from this share of lowest cells that escaped on; without a `prior` all genes have the same escape."""
        score, gene, n = self.score, self.gene, self.sums(np.ones_like(self.score))
        order = np.lexsort((score, gene))
        rank = np.empty(len(score))
        rank[order] = np.arange(len(score))
        first = np.cumsum(n) - n
        stayed = (rank - first[gene] >= start * n[gene]).astype(float)
        escape = np.full(len(n), max(start, _LEAST))
        away = log_split_normal(score, self.null[gene], self.below[gene], self.above[gene])
        most = np.maximum(0.5 * (self.below + self.above), self.expected)
        for _ in range(_N_ROUNDS if start else 1):
            responded = self.sums(stayed)
            level = self.sums(stayed * score) / np.maximum(responded, 1e-9)
            squares = self.sums(stayed * (score - level[gene]) ** 2)
            variance = (squares + _AS_PREDICTED * self.expected) / (responded + _AS_PREDICTED)
            variance = np.minimum(variance, most)
            here = _log_normal(score, level[gene], variance[gene]) + np.log1p(-escape[gene])
            total = np.logaddexp(here, away + np.log(escape[gene]))
            of_variance = -0.5 * _AS_PREDICTED * (np.log(variance) + self.expected / variance)
            log_likelihood = self.sums(total) + of_variance
            of_escape = 0.0
            if prior is not None:
                of_escape = _SHARED * (prior * np.log(escape) + (1 - prior) * np.log1p(-escape))
            if start:
                stayed = np.exp(here - total)
                escaped = self.sums(1 - stayed)
                if prior is None:
                    share = escaped.sum() / (n.sum() + _RESPONDED * len(n))
                    escape = np.full(len(n), np.clip(share, _LEAST, _MOST))
                else:
                    escape = _updated(escaped, n, np.full(len(n), prior))
        return _Fit(escape, level, variance, log_likelihood, log_likelihood + of_escape)


def split_normal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Mode and the variances below and above it of each row, by maximum likelihood.

    At a given mode with the sums of squares :math:`S_1` below and :math:`S_2` above it, the likelihood of the two
    variances is highest at :math:`S_i^{2/3} (S_1^{1/3} + S_2^{1/3}) / n`, and higher the smaller that sum of roots.
    """
    modes = np.quantile(values, np.linspace(0.1, 0.9, 33), axis=1)[..., None]  # modes x rows x 1
    away = [np.square(np.clip(values - modes, *ends)).sum(-1) for ends in ((None, 0), (0, None))]
    roots = np.cbrt(np.maximum(away, _TINY))
    best = roots.sum(0).argmin(0)
    row = np.arange(len(values))
    below, above = roots[:, best, row] ** 2 * roots[:, best, row].sum(0) / values.shape[1]
    return modes[best, row, 0], np.maximum(below, _TINY), np.maximum(above, _TINY)


def log_split_normal(x: np.ndarray, mode: np.ndarray, below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Logarithm of the density, but for a constant that it shares with the normal distribution."""
    variance = np.where(x < mode, below, above)
    return np.asarray(-0.5 * (x - mode) ** 2 / variance - np.log(0.5 * (np.sqrt(below) + np.sqrt(above))))


def _updated(escaped: np.ndarray, n: np.ndarray, prior: np.ndarray) -> np.ndarray:
    return np.clip((escaped + _SHARED * prior) / (n + _SHARED), _LEAST, _MOST)


def _log_normal(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.asarray(-0.5 * ((x - mean) ** 2 / variance + np.log(variance)))
