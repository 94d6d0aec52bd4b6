"""Hierarchical posterior of perturbation effects: what the measured effects say about all sets of genes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from raptorgraph._threads import one_thread
from raptorgraph.inference import _prior as prior
from raptorgraph.inference._mixture import LEVELS, GeneMixture

_NO_CELLS = 1e-6  # "number of cells" of a condition without any: it then says nothing
_TARGET = 64.0  # prior variance of the effect on a perturbation's own target, in units of noise
_MOST_SPREAD = 2.0  # largest factor by which a prediction is set off from the others
_FEW_CONDITIONS = 200  # up to which one thread is about as fast as several
_NEGLIGIBLE = 1e-8  # probability of a class and level


@dataclass
class _Asked:
    """Sets that are asked for: covariance with the conditions, prior variance, the same without a condition's own."""

    members: torch.Tensor  # sets x k
    cross: torch.Tensor  # classes x sets x conditions
    prior: torch.Tensor  # classes x sets
    of_genes: torch.Tensor  # classes x sets


@dataclass
class _Answer:
    """Mean, variance, and the part of the variance that belongs to the genes of the set, each sets x G."""

    mean: torch.Tensor
    variance: torch.Tensor
    of_genes: torch.Tensor


@dataclass
class _OnTargets:
    """What the conditions say of perturbed genes' effects on their own targets, T of them, by class and level."""

    members: torch.Tensor  # k positions of the genes
    columns: torch.Tensor  # columns of their targets
    solved: torch.Tensor  # conditions x T: inverse covariance times the conditions of the gene
    data: torch.Tensor  # conditions x T: inverse covariance times the measured effects
    precision: torch.Tensor  # T, over the gene's noise variance
    effect: torch.Tensor  # T: posterior mean


class EffectPosterior(nn.Module):
    r"""Posterior of the mean effect of any set of perturbed genes, gene by gene of the transcriptome.

    The effect of perturbing the genes P on gene g is, with one latent effect t for each perturbed gene,

    .. math::
        e_{Pg} = a_P \sum_{i \in P} t_{ig} + [|P| > 1] (b_g + \epsilon_{Pg}) + \eta_{Pg}, \qquad
        t_{\cdot g} \sim N(0, \tau_g K_g), \quad b_g \sim N(0, \tau_g \beta), \quad
        \epsilon_{Pg} \sim N(0, \tau_g \gamma), \quad \eta_{Pg} \sim N(0, \tau_g \omega),

    :math:`a_P = 1` for a single gene and a for a combination, and it is measured with an error of covariance
    :math:`w_g N`, :math:`N = \operatorname{diag}((1 + \kappa_c) / n_c) + 1 1^\top / n_0`: sampling noise of condition
    c, more of the same kind between conditions (:math:`\kappa_c`, from clones, guides or days), and that of the shared
    controls (part of every effect: all are differences to these very cells). :math:`\eta` is what belongs to a
    condition and not to its genes: part of no mean, and of every standard deviation. :math:`\tau_g / w_g` has a
    discrete prior on eleven levels, and a gene is of one of three classes:

    - *together*: :math:`K_g = K = B B^\top + \operatorname{diag}(s)`, which says which perturbations act alike, so
      that they lend each other strength;
    - *alone*: :math:`K_g \propto (I - W)^{-1} (I - W)^{-\top}`, for genes that few perturbations move directly, and
      others along the graph W; I without a graph;
    - *private*: no t; each condition has an effect of its own that no combination inherits, as transcripts of a
      guide do. Open to genes whose effect exceeds their expression in controls.

    K, a, :math:`\beta`, :math:`\gamma`, :math:`\omega`, :math:`\kappa` and the weights of classes and levels maximize
    the marginal likelihood times their prior (empirical Bayes). The effect of a perturbation on its own target has a
    wide prior of its own, and adds up to combinations unscaled.

    Where no combination is measured a, :math:`\beta` and :math:`\gamma` have their prior alone. The prior median of a
    is :math:`1 - 0.35 \kappa / (\kappa + 0.7)`: in screens whose conditions differ by more than sampling, sums of
    effects overshoot. It is a rule of thumb, chosen on a few screens, and the first thing to doubt where no pair was
    measured. A set that is larger than a pair has the scale of a pair. Combinations with a gene that
    was never perturbed alone have a scale of their own.

    **Predictions are not the posterior mean.** That minimizes the expected squared error and makes perturbations look
    too much alike, since shrinkage takes first what is particular to the weak ones. The prediction is therefore
    shrunk for half of the conditions' noise, and its difference to the mean prediction c for sets of that size is set
    off to the spread that true effects are expected to have (constrained empirical Bayes, Louis 1984, Ghosh 1992),
    at an unchanged length:

    .. math::
        p \propto c + \left(1 + \frac{\operatorname{tr} V}{\|m - c\|^2}\right)^{1/2} (m - c), \qquad \|p\| = \|m\|,

    with V the posterior variance of what belongs to the genes, and a factor of at most 2. No effect takes a gene below
    zero expression. Standard deviations are about the prediction: its distance to the posterior mean counts.

    The fitted tensors are float64 on the CPU wherever the network is; they travel with its state.

    Parameters
    ----------
    alone, private, targets, excess_by_condition
        Whether there are genes of these classes, effects on targets have a prior of their own, and
        :math:`\kappa_c` differs between conditions (otherwise one :math:`\kappa` holds for all).
    graph
        Whether effects are expected to travel along the graph that :meth:`fit` is given.
    overshoot
        Whether sums are expected to overshoot; otherwise the prior median of a is 1.
    temper
        Share of the conditions' noise for which predictions are shrunk; 1 for that of the posterior mean.
    spread
        Whether predictions are set off from the mean prediction.

    Examples
    --------
    Two genes perturbed alone, 200 cells each, on 50 genes of the transcriptome; what would the pair do?

    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> effect = torch.randn(2, 50, generator=generator)
    >>> posterior = rg.inference.EffectPosterior()
    >>> posterior.fit(torch.eye(2), effect, torch.full((2, 50), 0.01), torch.full((2,), 200.0), n_controls=500)
    >>> mean, sd = posterior.mean_and_sd(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    >>> tuple(mean.shape)
    (2, 50)

    A pair that was not measured is known less well than a single that was.

    >>> bool(sd[1].mean() > sd[0].mean())
    True
    >>> tuple(posterior.draw(torch.tensor([[1.0, 1.0]]), n_draws=20).shape)
    (20, 1, 50)
    """

    def __init__(
        self,
        *,
        alone: bool = True,
        private: bool = True,
        targets: bool = True,
        graph: bool = True,
        excess_by_condition: bool = True,
        overshoot: bool = True,
        temper: float = 0.5,
        spread: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < temper <= 1:
            raise ValueError(f"temper={temper!r} must lie in (0, 1].")
        self.alone, self.private, self.own_targets, self.graph = alone, private, targets, graph
        self.excess_by_condition, self.overshoot = excess_by_condition, overshoot
        self.temper, self.spread = temper, spread
        self.state: dict[str, torch.Tensor] = {}
        self._solved: dict[float, tuple[torch.Tensor, _OnTargets]] = {}  # of the state, by temper

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
        self._solved = {}

    # -- fit -------------------------------------------------------------------------------------------------------
    def fit(
        self,
        members: torch.Tensor,
        effect: torch.Tensor,
        variance: torch.Tensor,
        n_cells: torch.Tensor,
        n_controls: int,
        *,
        control_mean: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        graph: torch.Tensor | None = None,
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
        control_mean
            Shape (G,): mean of the control cells, for data that cannot be negative. Without it no gene is private.
        targets
            Shape (k,): column of each perturbed gene among the G, -1 where it has none; by default none has.
        graph
            Weights W of an acyclic graph among the perturbed genes, k x k, row = cause, in units of the effects of
            their perturbations (:func:`infer_graph`); by default there is no edge.
        n_steps, n_fit_genes, rank
            Steps of the optimizer; genes (evenly spaced) that the prior is learned from, by default 2,000, or fewer
            where there are more than 75 conditions; largest rank of B.

        Raises
        ------
        ValueError
            If an effect or variance is not finite.
        """
        n_fit_genes = n_fit_genes or int(min(2000, max(500, 150_000 // len(members))))
        lowest = torch.full_like(effect[0], -torch.inf) if control_mean is None else -control_mean
        if targets is None or not self.own_targets:
            targets = torch.full((members.shape[1],), -1)
        with torch.enable_grad(), torch.inference_mode(False), one_thread(len(members) <= _FEW_CONDITIONS):
            members, effect, variance, n_cells, lowest = (
                x.cpu().double().clone() for x in (members, effect, variance, n_cells, lowest)
            )
            for name, found in {"effect": effect, "variance": variance[n_cells > 0]}.items():
                if not torch.isfinite(found).all():
                    raise ValueError(f"A measured {name} is not finite: look for extreme values in the data.")
            sampling = 1 / n_cells[n_cells > 0] + 1 / n_controls
            typical = sampling.mean()
            gene_noise = (variance[n_cells > 0] / sampling[:, None]).mean(0) * typical
            self.state = {
                "members": members,
                "measured": effect,
                "gene_noise": gene_noise,
                "own_noise": 1 / n_cells.clamp_min(_NO_CELLS) / typical,
                "common_noise": 1 / n_controls / typical,
                "targets": targets.cpu().long().clone(),
                "lowest": lowest,
                "along": prior.along_graph(
                    None if graph is None or not self.graph else graph.cpu().double(), len(targets)
                ),
            }
            self._learn(effect / gene_noise.sqrt(), n_steps, n_fit_genes, rank)

    def _learn(self, scaled: torch.Tensor, n_steps: int, n_fit_genes: int, rank: int) -> None:
        """Hyperparameters, and the probability of each class and level for every gene."""
        data = dict(self.state)
        members = data["members"]
        # Only what controls hardly express can belong to a condition alone.
        closed = torch.zeros(prior.N_CLASSES, 1, scaled.shape[1], dtype=scaled.dtype)
        closed[prior.PRIVATE] = prior.CLOSED * (data["measured"].amax(0) <= -data["lowest"])
        for name, index in {"alone": prior.ALONE, "private": prior.PRIVATE}.items():
            if not getattr(self, name):
                closed[index] = prior.CLOSED
        usual = torch.ones(scaled.shape[1], dtype=torch.bool)
        usual[data["targets"][data["targets"] >= 0]] = False
        usual = usual.nonzero().squeeze(1)
        usual = torch.arange(scaled.shape[1]) if len(usual) == 0 else usual  # a panel of targets alone
        sample = usual[torch.linspace(0, len(usual) - 1, min(n_fit_genes, len(usual))).round().long()]

        def mixture(values, genes) -> GeneMixture:
            weights = values["log_weights"][:, :, None] + closed[:, :, genes]
            return GeneMixture(prior.signals({**data, **values}, members), prior.noise({**data, **values}), weights)

        seen_alone = members[members.sum(1) == 1].sum(0) > 0
        y = scaled[:, sample]
        free = prior.free_parameters(members, y, rank)
        if not self.excess_by_condition:
            free["deviation"].requires_grad_(False)
        optimizer = torch.optim.Adam([value for value in free.values() if value.requires_grad], lr=0.08)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
        for _ in range(n_steps):
            optimizer.zero_grad()
            gain, _ = mixture(prior.hyperparameters(free, seen_alone), sample).objective(y)
            ((prior.penalty(free, self.overshoot) - gain) / len(sample)).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            values = prior.hyperparameters(free, seen_alone)
            if not (members.sum(1) > 1).any():
                values["scale"] = prior.expected_scale(values["excess"], self.overshoot)
            self.state.update(values)
            density = mixture(values, slice(None)).log_density(scaled)
            own = self._on_targets(self._factor(), scaled)
            density[:, :, own.columns] += 0.5 * own.precision * own.effect**2 - 0.5 * torch.log(_TARGET * own.precision)
            self.state["share"] = torch.softmax(density.flatten(0, 1), 0).view_as(density)
            self._solved = {}

    # -- conditioning ----------------------------------------------------------------------------------------------
    def _factor(self, temper: float = 1.0) -> torch.Tensor:
        """Cholesky factors of the covariance of the measured effects, classes x levels x C x C."""
        signals = prior.signals(self.state, self.state["members"])
        return torch.linalg.cholesky(LEVELS[:, None, None] * signals[:, None] + prior.noise(self.state, temper))

    def _solve(self, temper: float = 1.0) -> tuple[torch.Tensor, _OnTargets]:
        """What every question needs: factors, and effects on targets; found once."""
        if temper not in self._solved:
            factor = self._factor(temper)
            self._solved[temper] = factor, self._on_targets(factor, self.state["measured"])
        return self._solved[temper]

    def _on_targets(self, factor: torch.Tensor, effects: torch.Tensor) -> _OnTargets:
        """Posterior of the effects on targets, given ``effects`` of the conditions (C x G)."""
        genes = (self.state["targets"] >= 0).nonzero().squeeze(1)
        columns = self.state["targets"][genes]
        in_sets = self.state["members"][:, genes]
        both = torch.cat([in_sets, effects[:, columns]], 1).expand(*factor.shape[:2], -1, -1)
        solved, data = torch.cholesky_solve(both, factor).chunk(2, -1)
        precision = 1 / _TARGET + (solved * in_sets).sum(2)
        return _OnTargets(genes, columns, solved, data, precision, (data * in_sets).sum(2) / precision)

    def _asked(self, members: torch.Tensor) -> _Asked:
        state = self.state
        same = (members[:, None] == state["members"][None]).all(2).to(members.dtype)
        combined = (members.sum(1) > 1).to(members.dtype)
        cross = prior.carried(state, members, state["members"])
        cross[: prior.PRIVATE] += state["interaction"] * combined[:, None] * same
        cross[prior.PRIVATE] = same
        variance = prior.signals(state, members).diagonal(dim1=1, dim2=2)
        of_genes = variance - state["own"]
        of_genes[prior.PRIVATE] = 0.0
        return _Asked(members, cross, variance, of_genes)

    def _typical(self, asked: _Asked) -> _Asked:
        """The mean over all sets of each size, in place of the sets that are asked for."""
        members = asked.members
        combined = (members.sum(1) > 1).to(members.dtype)
        even = (members.mean(1, keepdim=True)).expand_as(members)
        cross = prior.carried(self.state, even, self.state["members"], combined)
        return _Asked(even, cross, asked.prior, asked.of_genes)

    def _with_measured(self, asked: _Asked) -> torch.Tensor:
        """Covariance of the asked sets with the measured effects, classes x levels x sets x C.

        All are differences to the same control cells, whose sampling error they share.
        """
        return LEVELS[:, None, None] * asked.cross[:, None] + self.state["common_noise"]

    def _condition(self, asked: _Asked, temper: float = 1.0) -> _Answer:
        """Mean and variance of the asked sets given the measured effects."""
        factor, own = self._solve(temper)
        state, levels, common = self.state, LEVELS[:, None], self.state["common_noise"]
        cross = self._with_measured(asked)
        maps = torch.cholesky_solve(cross.mT, factor)  # classes x levels x conditions x sets
        known = (cross.mT * maps).sum(2)
        left = (levels * asked.prior[:, None] + common - known).clamp_min(0.0)
        left_genes = (levels * asked.of_genes[:, None] + common - known).clamp_min(0.0)
        shape = (len(asked.members), state["measured"].shape[1])
        mean, square, variance, of_genes = torch.zeros(4, *shape, dtype=maps.dtype)
        for m, level in torch.nonzero(state["share"].amax(2) > _NEGLIGIBLE).tolist():
            share = state["share"][m, level]
            value = maps[m, level].T @ state["measured"]
            mean += share * value
            square += share * value**2
            variance += torch.outer(left[m, level], share * state["gene_noise"])
            of_genes += torch.outer(left_genes[m, level], share * state["gene_noise"])
        # On its own target a perturbation has one more effect, known as well as its conditions show it.
        value, load = self._with_targets(asked, cross, own)
        share, more = state["share"][:, :, None, own.columns], load**2 / own.precision[:, :, None]
        mean[:, own.columns] = (share * value).sum((0, 1))
        square[:, own.columns] = (share * value**2).sum((0, 1))
        for total, part in ((variance, left), (of_genes, left_genes)):
            total[:, own.columns] = state["gene_noise"][own.columns] * (share * (part[..., None] + more)).sum((0, 1))
        return _Answer(mean, variance + (square - mean**2).clamp_min(0.0), of_genes)

    def _with_targets(self, asked: _Asked, cross: torch.Tensor, own: _OnTargets) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of the asked sets on the targets, and how it changes with their own effects; m x level x sets x T."""
        load = asked.members[:, own.members] - cross @ own.solved
        return cross @ own.data + load * own.effect[:, :, None], load

    # -- answers ---------------------------------------------------------------------------------------------------
    def mean(self, members: torch.Tensor, chunk_size: int = 512) -> torch.Tensor:
        """Predicted effects, sets x G, of the sets in ``members`` (sets x k, 0/1)."""
        return self.mean_and_sd(members, chunk_size)[0]

    def mean_and_sd(self, members: torch.Tensor, chunk_size: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted effects and their standard deviations, each sets x G; both are 0 for control, the empty set."""
        self._check_fitted()
        # What another condition of this kind would differ by, however many cells it had.
        between = self.state["excess"] * self.state["own_noise"].median() * self.state["gene_noise"]
        means, sds = [], []
        for part in self._members(members).split(chunk_size):
            asked = self._asked(part)
            exact = self._condition(asked)
            mean = self._predicted(asked, exact)
            variance = exact.variance + (mean - exact.mean) ** 2 + between
            some = (part.sum(1) > 0).to(mean.dtype)[:, None]
            means.append(some * mean)
            sds.append(some * variance.sqrt())
        return torch.cat(means), torch.cat(sds)

    def posterior_mean(self, members: torch.Tensor) -> torch.Tensor:
        """Mean of the posterior itself, sets x G, which is not what is predicted (see the class)."""
        self._check_fitted()
        members = self._members(members)
        some = (members.sum(1) > 0).to(members.dtype)[:, None]
        return some * self._condition(self._asked(members)).mean

    def _predicted(self, asked: _Asked, exact: _Answer) -> torch.Tensor:
        mean = self._condition(asked, self.temper).mean
        if not self.spread:
            return torch.maximum(mean, self.state["lowest"])
        center = self._condition(self._typical(asked), self.temper).mean
        deviation = mean - center
        ratio = exact.of_genes.sum(1) / (deviation**2).sum(1).clamp_min(1e-300)
        spread = (1 + ratio).sqrt().clamp_max(_MOST_SPREAD)[:, None]
        spread = center + spread * deviation
        length = mean.norm(dim=1) / spread.norm(dim=1).clamp_min(1e-300)
        return torch.maximum(length[:, None] * spread, self.state["lowest"])

    def draw(self, members: torch.Tensor, n_draws: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Joint draws of the effects of a few sets, n_draws x sets x G, about the predicted effects.

        Of what belongs to the genes of a set, without what is a condition's own. Genes of the transcriptome are
        independent given the prior.
        """
        self._check_fitted()
        state, (factor, own) = self.state, self._solve()
        members = self._members(members)
        asked = self._asked(members)
        exact = self._condition(asked)
        shift = self._predicted(asked, exact) - exact.mean
        of_condition = state["own"] * torch.eye(len(members), dtype=factor.dtype)
        covariance = prior.signals(state, members)
        covariance[: prior.PRIVATE] -= of_condition
        cross = self._with_measured(asked)
        maps = torch.cholesky_solve(cross.mT, factor)
        left = LEVELS[:, None, None] * covariance[:, None] + state["common_noise"] - cross @ maps
        jitter = 1e-9 * left.diagonal(dim1=2, dim2=3).mean(2).clamp_min(1e-12)
        root = torch.linalg.cholesky(left + jitter[..., None, None] * torch.eye(len(members), dtype=left.dtype))
        n_genes = state["measured"].shape[1]
        flat = state["share"].flatten(0, 1).T
        chosen = torch.multinomial(flat, n_draws, replacement=True, generator=generator).T  # draws x genes
        normal = torch.randn(n_draws, len(members), n_genes, generator=generator, dtype=left.dtype)
        on_targets, load = self._with_targets(asked, cross, own)
        extra = torch.randn(n_draws, len(own.members), generator=generator, dtype=left.dtype)
        used, chosen = torch.unique(chosen, return_inverse=True)
        value = maps.flatten(0, 1)[used].mT @ state["measured"]
        value[:, :, own.columns] = on_targets.flatten(0, 1)[used]
        root, load = root.flatten(0, 1)[used], load.flatten(0, 1)[used]
        on_target = (state["gene_noise"][own.columns] / own.precision.flatten(0, 1)[used]).sqrt()
        genes, some_genes = torch.arange(n_genes), torch.arange(len(own.columns))
        out = torch.empty_like(normal)
        for i, at in enumerate(chosen):
            out[i] = (
                torch.einsum("gst,tg->sg", root[at], normal[i]) * state["gene_noise"].sqrt() + value[at, :, genes].T
            )
            at = at[own.columns]
            out[i][:, own.columns] += load[at, :, some_genes].T * (extra[i] * on_target[at, some_genes])
        some = (members.sum(1) > 0).to(out.dtype)[:, None]
        return some * torch.maximum(out + shift, state["lowest"])

    def _members(self, members: torch.Tensor) -> torch.Tensor:
        """The sets in the type and on the device of the fitted tensors, wherever they come from."""
        return members.to(self.state["measured"])

    def _check_fitted(self) -> None:
        if not self.is_fitted:
            raise RuntimeError("The posterior of the effects has not been fitted: train the model first.")
