"""Hierarchical posterior of perturbation effects: what the measured effects say about all sets of genes."""

from __future__ import annotations

import math

import torch
from torch import nn

# Variance of a gene's effects over that of their noise: the levels that each gene is a mixture of.
_LEVELS = 4.0 ** torch.arange(-4.0, 7.0, dtype=torch.float64)
# Prior medians, variances relative to that of a single effect, with a log SD of 1: what all combinations share, the
# interaction of a combination, noise between conditions as a part of sampling noise, what is a condition's own.
_MEDIANS = {"shared": 0.02, "interaction": 0.15, "excess": 0.3, "own": 0.03}
_SCALE_SD = 0.15  # of the log scale of combinations, a priori
_OVERSHOOT = 0.4  # largest share by which sums are expected to overshoot
_NO_CELLS = 1e-6  # "number of cells" of a condition without any: it then says nothing


class EffectPosterior(nn.Module):
    r"""Gaussian posterior of the mean effect of any set of perturbed genes, gene by gene.

    The effect of perturbing the genes P on gene g of the transcriptome is, with one latent effect t for each perturbed
    gene,

    .. math::
        e_{Pg} = a_P \sum_{i \in P} t_{ig} + [|P| > 1] (b_g + \epsilon_{Pg}) + \eta_{Pg}, \qquad
        t_{\cdot g} \sim N(0, \tau_g K), \quad b_g \sim N(0, \tau_g \beta), \quad
        \epsilon_{Pg} \sim N(0, \tau_g \gamma), \quad \eta_{Pg} \sim N(0, \tau_g \omega),

    :math:`a_P = 1` for a single gene and a for a combination, and it is measured with an error of covariance
    :math:`w_g R`, :math:`R = (1 + \kappa) \operatorname{diag}(1 / n_c) + 1 1^\top / n_0`: sampling noise of the
    condition, more of the same kind between conditions (:math:`\kappa`), and that of the shared controls.
    :math:`\eta` is what belongs to a condition and not to its genes (guides, growth, the day of the experiment): it
    is part of no mean and of every standard deviation. :math:`K = B B^\top + \operatorname{diag}(s)` says which
    perturbations act alike, so that they lend each other strength; :math:`\tau_g / w_g` has a discrete prior on eleven
    levels, learned over genes. K, a, :math:`\beta`, :math:`\gamma`, :math:`\omega`, :math:`\kappa` and the weights of
    the levels maximize the marginal likelihood times their prior (empirical Bayes).

    Where no combination is measured a, :math:`\beta` and :math:`\gamma` have their prior alone. The prior median of a
    is :math:`1 - 0.4 \kappa / (\kappa + 1/2)`: in screens whose conditions differ by more than sampling, sums of
    effects overshoot. It is a rule of thumb, chosen on a few screens, and the first thing to doubt where no pair was
    measured. A set that is larger than a pair has the scale of a pair.

    The fitted tensors are float64 on the CPU wherever the network is; they travel with its state.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, torch.Tensor] = {}

    @property
    def is_fitted(self) -> bool:
        """Whether there is a posterior to ask."""
        return bool(self.state)

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        """Return what was fitted, for ``state_dict``."""
        return dict(self.state)

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what another instance had fitted."""
        self.state = {name: value.cpu() for name, value in state.items()}

    # -- fit -------------------------------------------------------------------------------------------------------
    def fit(
        self,
        members: torch.Tensor,
        effect: torch.Tensor,
        variance: torch.Tensor,
        n_cells: torch.Tensor,
        n_controls: int,
        *,
        n_steps: int = 200,
        n_fit_genes: int | None = None,
        rank: int = 12,
    ) -> None:
        """Learn the prior and store what the posterior needs.

        Parameters
        ----------
        members
            Conditions x k, 0/1: genes of each condition.
        effect, variance
            Conditions x G: measured effects and their sampling variance.
        n_cells
            Cells of each condition.
        n_controls
            Control cells.
        n_steps, n_fit_genes, rank
            Steps of the optimizer; genes (evenly spaced) that the prior is learned from, by default 2,000, or fewer
            where there are more than 60 conditions; largest rank of B.
        """
        n_fit_genes = n_fit_genes or int(min(2000, max(300, 120_000 // len(members))))
        with torch.enable_grad(), torch.inference_mode(False):
            self._fit(*(x.double().cpu().clone() for x in (members, effect, variance, n_cells)), n_controls,
                      n_steps, n_fit_genes, rank)  # fmt: skip

    def _fit(self, members, effect, variance, n_cells, n_controls, n_steps, n_fit_genes, rank) -> None:
        combined = members.sum(1) > 1
        present = n_cells > 0
        sampling = 1 / n_cells[present] + 1 / n_controls
        gene_noise = (variance[present] / sampling[:, None]).mean(0) * sampling.mean()
        n_cells = n_cells.clamp_min(_NO_CELLS)
        keep = torch.linspace(0, effect.shape[1] - 1, min(n_fit_genes, effect.shape[1])).round().long()
        y, w = effect[:, keep], gene_noise[keep]
        # Starting values: directions of the effects in units of noise; of genes without a single from combinations.
        start = torch.linalg.lstsq(members, y / w.sqrt(), driver="gelsd").solution
        left, size, _ = torch.linalg.svd(start, full_matrices=False)
        rank = min(rank, len(size))
        free = {
            "loadings": left[:, :rank] * size[:rank] / ((size**2).sum() / len(left)).clamp_min(1e-12).sqrt(),
            "specific": torch.full((len(left),), math.log(0.3), dtype=torch.float64),
            "scale": torch.tensor(math.log(0.8), dtype=torch.float64),
            **{name: torch.tensor(math.log(value), dtype=torch.float64) for name, value in _MEDIANS.items()},
            "levels": torch.zeros(len(_LEVELS), dtype=torch.float64),
        }
        free = {name: value.requires_grad_() for name, value in free.items()}
        optimizer = torch.optim.Adam(free.values(), lr=0.08)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        noise_of = _Noise(n_cells, n_controls, sampling.mean())
        for _ in range(n_steps):
            optimizer.zero_grad()
            covariance, constants = _hyperparameters(free)
            signal = _signal(covariance, constants, members)
            log_density = _log_density(signal, noise_of(constants), y, w) + torch.log_softmax(free["levels"], 0)
            deviation = free["scale"] - _expected_scale(constants["excess"]).log().detach()
            prior = (deviation / _SCALE_SD) ** 2
            prior = prior + sum((free[name] - math.log(median)) ** 2 for name, median in _MEDIANS.items())
            loss = (0.5 * prior - torch.logsumexp(log_density, 1).sum()) / y.shape[1]
            if not torch.isfinite(loss):
                raise ValueError("The posterior of the effects is not finite: look for extreme values in the data.")
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            covariance, constants = _hyperparameters(free)
            if not combined.any():
                constants["scale"] = _expected_scale(constants["excess"])
            noise = noise_of(constants)
            signal = _signal(covariance, constants, members)
            log_density = _log_density(signal, noise, effect, gene_noise) + torch.log_softmax(free["levels"], 0)
            self.state = {
                **constants,
                "members": members,
                "covariance": covariance,
                "factor": torch.linalg.cholesky(_LEVELS[:, None, None] * signal + noise),
                "measured": effect,
                "gene_noise": gene_noise,
                "responsibility": torch.softmax(log_density, 1),
            }

    # -- posterior -------------------------------------------------------------------------------------------------
    def _posterior(self, members: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Linear maps to the asked sets (levels x asked x conditions) and their covariance (levels x asked x asked)."""
        if not self.is_fitted:
            raise RuntimeError("The posterior of the effects has not been fitted: train the model first.")
        state = self.state
        weights, combined = _weights(state["members"], state["scale"])
        members = members.to(weights)
        asked, pairs = _weights(members, state["scale"])
        same = (members[:, None] == state["members"][None]).all(2).to(weights)
        cross = asked @ state["covariance"] @ weights.T + state["shared"] * torch.outer(pairs, combined)
        cross = cross + state["interaction"] * pairs[:, None] * same
        level = _LEVELS[:, None, None]
        part = torch.cholesky_solve(level * cross.T, state["factor"])
        spread = level * (_signal(state["covariance"], state, members) - cross @ part)
        return part.transpose(1, 2), spread

    def mean(self, members: torch.Tensor, chunk_size: int = 512) -> torch.Tensor:
        """Posterior mean, sets x G, of the effects of the sets in ``members`` (sets x k, 0/1)."""
        return self.mean_and_sd(members, chunk_size)[0]

    def mean_and_sd(self, members: torch.Tensor, chunk_size: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and standard deviation, each sets x G."""
        means, sds = [], []
        for part in members.split(chunk_size):
            maps, spread = self._posterior(part)
            variance = spread.diagonal(dim1=1, dim2=2).clamp_min(0.0)
            mean = torch.zeros(len(part), self.state["measured"].shape[1], dtype=maps.dtype)
            square = mean.clone()
            for level, share in enumerate(self.state["responsibility"].T):
                value = maps[level] @ self.state["measured"]
                mean += share * value
                square += share * (value**2 + variance[level][:, None] * self.state["gene_noise"])
            known = (part.sum(1) > 0).to(mean.dtype)[:, None]  # control has no effect, surely
            means.append(known * mean)
            sds.append(known * (square - mean**2).clamp_min(0.0).sqrt())
        return torch.cat(means), torch.cat(sds)

    def draw(self, members: torch.Tensor, n_draws: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Joint draws of the effects of a few sets, n_draws x sets x G; genes are independent given the prior."""
        maps, spread = self._posterior(members)
        jitter = 1e-9 * spread.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        eye = torch.eye(len(members), dtype=spread.dtype)
        factor = torch.linalg.cholesky(spread + jitter[:, None, None] * eye)
        n_genes = self.state["measured"].shape[1]
        level = torch.multinomial(self.state["responsibility"], n_draws, replacement=True, generator=generator)
        noise = torch.randn(n_draws, len(members), n_genes, generator=generator, dtype=spread.dtype)
        out = torch.empty_like(noise)
        for j in range(len(_LEVELS)):
            value = maps[j] @ self.state["measured"]
            deviation = torch.einsum("st,ntg->nsg", factor[j], noise) * self.state["gene_noise"].sqrt()
            chosen = (level.T == j)[:, None, :].expand_as(out)
            out = torch.where(chosen, value + deviation, out)
        return out


def _hyperparameters(free) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """K with a mean diagonal of 1, and the scale and the relative variances by name."""
    covariance = free["loadings"] @ free["loadings"].T + torch.diag(free["specific"].exp())
    return covariance / covariance.diagonal().mean(), {name: free[name].exp() for name in ("scale", *_MEDIANS)}


def _expected_scale(excess: torch.Tensor) -> torch.Tensor:
    return 1 - _OVERSHOOT * excess / (excess + 0.5)


def _weights(members: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight of each latent effect in each set, and 1 for combinations."""
    combined = (members.sum(1) > 1).to(members.dtype)
    return members * (1 + combined * (scale - 1))[:, None], combined


def _signal(covariance: torch.Tensor, constants, members: torch.Tensor) -> torch.Tensor:
    """Prior covariance of the effects of distinct sets."""
    weights, combined = _weights(members, constants["scale"])
    shared = constants["shared"] * torch.outer(combined, combined)
    return (
        weights @ covariance @ weights.T + shared + torch.diag(constants["interaction"] * combined + constants["own"])
    )


class _Noise:
    """Covariance of the measurement errors in units in which the sampling variance of a typical condition is 1."""

    def __init__(self, n_cells: torch.Tensor, n_controls: int, typical: torch.Tensor) -> None:
        self.own, self.common = torch.diag(1 / n_cells) / typical, 1 / n_controls / typical

    def __call__(self, constants) -> torch.Tensor:
        return (1 + constants["excess"]) * self.own + self.common


def _log_density(signal, noise, y, w) -> torch.Tensor:
    """Genes x levels, up to a constant of each gene; w is the noise variance of a typical condition."""
    factor = torch.linalg.cholesky(_LEVELS[:, None, None] * signal + noise)
    white = torch.linalg.solve_triangular(factor, (y / w.sqrt()).expand(len(_LEVELS), -1, -1), upper=False)
    log_det = torch.log(torch.diagonal(factor, dim1=1, dim2=2)).sum(1)
    return (-0.5 * (white**2).sum(1) - log_det[:, None]).T
