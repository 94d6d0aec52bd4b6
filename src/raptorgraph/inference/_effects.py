"""Hierarchical posterior of perturbation effects: what the measured effects say about all sets of genes."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from raptorgraph._deprecated import with_old_arguments
from raptorgraph._threads import one_thread
from raptorgraph.inference._conditioning import Conditional, Moments, Sets
from raptorgraph.inference._config import EffectPosteriorConfig
from raptorgraph.inference._learning import learn
from raptorgraph.inference._prior import along_graph
from raptorgraph.inference._state import Fitted, Measured

_NO_CELLS = 1e-6  # "number of cells" of a condition without any: it then says nothing
_LARGEST_FACTOR = 2.0  # by which the constraint moves a prediction away from the mean prediction
_FEW_CONDITIONS = 200  # up to which one thread is about as fast as several

_with_design = with_old_arguments(members="design")


class EffectPosterior(nn.Module):
    r"""Posterior of the mean effect of any set of perturbed genes, gene by gene of the transcriptome.

    A multivariate adaptive shrinkage model (mash, [1]_), whose covariances extend from measured conditions to sets of
    genes, with a constrained point estimate ([2]_, [3]_). The effect of perturbing the genes P on gene g is, with one
    latent effect t for each perturbed gene,

    .. math::
        e_{Pg} = a_P \sum_{i \in P} t_{ig} + [|P| > 1] (b_g + \epsilon_{Pg}) + \eta_{Pg}, \qquad
        t_{\cdot g} \sim N(0, \tau_g K_g), \quad b_g \sim N(0, \tau_g \beta), \quad
        \epsilon_{Pg} \sim N(0, \tau_g \gamma), \quad \eta_{Pg} \sim N(0, \tau_g \omega),

    :math:`a_P = 1` for a single gene and a for a combination, and it is measured with an error of covariance
    :math:`w_g N`, :math:`N = \operatorname{diag}((1 + \kappa_c) / n_c) + 1 1^\top / n_0`: sampling noise of condition
    c, more of the same kind between conditions (:math:`\kappa_c`, from clones, guides or days), and that of the
    control cells (part of every effect: all are differences to these very cells). The residual :math:`\eta` belongs to
    a condition and not to its genes: it is part of no mean, and of every standard deviation. :math:`\tau_g / w_g` has a
    discrete prior on eleven levels (the grid of scales), and a gene is of one of three classes of covariances:

    - *shared*: :math:`K_g = K = B B^\top + \operatorname{diag}(s)`, which says which perturbations act alike, so
      that they borrow strength from each other;
    - *independent*: :math:`K_g \propto (I - W)^{-1} (I - W)^{-\top}`, for genes that few perturbations move directly,
      and others along the graph W; I without a graph;
    - *condition-specific*: no t; each condition has an effect that no combination inherits, as transcripts of a
      guide do. Open to genes whose effect exceeds their expression in controls.

    K, a, :math:`\beta`, :math:`\gamma`, :math:`\omega`, :math:`\kappa` and the weights of classes and levels maximize
    the marginal likelihood times their prior (empirical Bayes). Where genes are few, the columns of B would take noise
    for effects. So the fit is tried on half of the genes with and without a prior by which B has few columns, and that
    prior is used where it makes the other half likelier beyond doubt. The effect of a perturbation on its own target
    has a wide prior, and adds up to combinations unscaled. Symbols, derivations and approximations are in
    :doc:`/concepts/inference`.

    Where no combination is measured a, :math:`\beta` and :math:`\gamma` have their prior alone. The prior median of a
    is .93 less up to .43: as far as conditions differ by more than sampling *and* their effects are alike, part of what
    they share is not due to their genes, and a sum of effects counts it twice. It is a rule of thumb, chosen on a few
    screens, and the first thing to doubt where no pair was measured. A set that is larger than a pair has the scale of
    a pair. Combinations with a gene that
    was never perturbed alone have a separate scale.

    **Predictions are not the posterior mean.** That minimizes the expected squared error and makes perturbations look
    too much alike, since shrinkage takes first what is particular to the weak ones. The prediction is therefore
    shrunk for half of the conditions' noise, and its difference to the mean prediction for sets of that size is
    widened to the variance that true effects are expected to have (constrained empirical Bayes, [2]_, [3]_), by a
    factor of at most 2 and at an unchanged length. No effect takes a gene below zero expression. Standard deviations
    are about the prediction: its distance to the posterior mean counts.

    The fitted tensors are float64 on the CPU wherever the network is; they travel with its state.

    Parameters
    ----------
    config
        Settings; by default those of :class:`EffectPosteriorConfig`.
    **old
        Settings by name, as older versions took them; deprecated.

    References
    ----------
    .. [1] Urbut, S. M., Wang, G., Carbonetto, P. & Stephens, M. Flexible statistical methods for estimating and testing
       effects in genomic studies with multiple conditions. *Nature Genetics* 51, 187-195 (2019).
    .. [2] Louis, T. A. Estimating a population of parameter values using Bayes and empirical Bayes methods. *Journal of
       the American Statistical Association* 79, 393-398 (1984).
    .. [3] Ghosh, M. Constrained Bayes estimation with applications. *Journal of the American Statistical Association*
       87, 533-540 (1992).

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

    def __init__(self, config: EffectPosteriorConfig | None = None, **old: Any) -> None:
        super().__init__()
        if old:
            if config is not None:
                raise TypeError(f"EffectPosterior got a config and {sorted(old)}: put these into the config.")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # one is enough
                config = EffectPosteriorConfig.from_options(old)
            warnings.warn(
                f"EffectPosterior({', '.join(f'{name}=...' for name in old)}) is now EffectPosterior({config}).",
                FutureWarning,
                stacklevel=2,
            )
        self.config = EffectPosteriorConfig() if config is None else config
        self._fitted: Fitted | None = None
        self._conditionals: dict[float, Conditional] = {}  # by noise fraction

    # -- state -----------------------------------------------------------------------------------------------------
    @property
    def is_fitted(self) -> bool:
        """Whether there is a posterior to ask."""
        return self._fitted is not None

    @property
    def fitted(self) -> Fitted:
        """Screen, prior, and the probabilities of each gene's class and level; RuntimeError before the fit."""
        if self._fitted is None:
            raise RuntimeError("The posterior of the effects has not been fitted: train the model first.")
        return self._fitted

    @property
    def combination_scale(self) -> float:
        """Learned scale a: effects of single genes in a combination over those alone."""
        return float(self.fitted.hyperparameters.scale)

    @property
    def control_mean(self) -> torch.Tensor | None:
        """Mean of the control cells, shape (G,), where :meth:`fit` was given it."""
        lowest = self.fitted.measured.lowest
        return -lowest if bool(torch.isfinite(lowest).all()) else None

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        """Return what was fitted, for ``state_dict``."""
        return {} if self._fitted is None else self._fitted.to_tensors()

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what another instance had fitted, in this version or an older one."""
        self._fitted = Fitted.from_tensors(state) if state else None
        self._conditionals = {}

    # -- fit -------------------------------------------------------------------------------------------------------
    @_with_design
    def fit(
        self,
        design: torch.Tensor,
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
        design
            Conditions x k, 0/1: genes of each condition.
        effect, variance
            Conditions x G: measured effects and their sampling variance.
        n_cells
            Cells of each condition.
        n_controls
            Control cells.
        control_mean
            Shape (G,): mean of the control cells, for data that cannot be negative. Without it no gene is
            condition-specific.
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
        n_conditions, k = design.shape
        n_fit_genes = n_fit_genes or int(min(2000, max(500, 150_000 // n_conditions)))
        lowest = torch.full_like(effect[0], -torch.inf) if control_mean is None else -control_mean
        if targets is None or not self.config.target_effects:
            targets = torch.full((k,), -1)
        with torch.enable_grad(), torch.inference_mode(False), one_thread(n_conditions <= _FEW_CONDITIONS):
            design, effect, variance, n_cells, lowest = (
                x.cpu().double().clone(memory_format=torch.contiguous_format)
                for x in (design, effect, variance, n_cells, lowest)
            )
            for name, found in {"effect": effect, "variance": variance[n_cells > 0]}.items():
                if not torch.isfinite(found).all():
                    raise ValueError(f"A measured {name} is not finite: look for extreme values in the data.")
            sampling = 1 / n_cells[n_cells > 0] + 1 / n_controls
            typical = sampling.mean()
            measured = Measured(
                design=design,
                effect=effect,
                gene_noise=(variance[n_cells > 0] / sampling[:, None]).mean(0) * typical,
                condition_noise=1 / n_cells.clamp_min(_NO_CELLS) / typical,
                control_noise=1 / n_controls / typical,
                target_columns=targets.cpu().long().clone(),
                lowest=lowest,
            )
            weights = None if graph is None or not self.config.graph else graph.cpu().double()
            sizes = {"n_steps": n_steps, "n_fit_genes": n_fit_genes, "rank": rank}
            self._fitted = learn(measured, along_graph(weights, k), self.config, **sizes)
            self._conditionals = {}

    # -- answers ---------------------------------------------------------------------------------------------------
    @_with_design
    def mean(self, design: torch.Tensor, chunk_size: int = 512) -> torch.Tensor:
        """Predicted effects, sets x G, of the sets in ``design`` (sets x k, 0/1)."""
        return self.mean_and_sd(design, chunk_size)[0]

    @_with_design
    def mean_and_sd(self, design: torch.Tensor, chunk_size: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted effects and their standard deviations, each sets x G; both are 0 for control, the empty set."""
        measured, prior = self.fitted.measured, self.fitted.hyperparameters
        # What another condition of this kind would differ by, however many cells it had.
        between = prior.excess * measured.condition_noise.median() * measured.gene_noise
        means, sds = [], []
        for part in torch.split(self._like_fitted(design), chunk_size):
            sets = Sets.of(part, self.fitted)
            exact = self._moments(sets)
            mean = self._predicted(sets, exact)
            variance = exact.variance + (mean - exact.mean) ** 2 + between
            means.append(_unless_control(part, mean))
            sds.append(_unless_control(part, variance.sqrt()))
        return torch.cat(means), torch.cat(sds)

    @_with_design
    def posterior_mean(self, design: torch.Tensor) -> torch.Tensor:
        """Mean of the posterior itself, sets x G, which is not what is predicted (see the class)."""
        design = self._like_fitted(design)
        return _unless_control(design, self._moments(Sets.of(design, self.fitted)).mean)

    @_with_design
    def draw(self, design: torch.Tensor, n_draws: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Joint draws of the effects of a few sets, n_draws x sets x G, about the predicted effects.

        Draws of the gene-set effect, without the residual of a condition. Genes of the transcriptome are independent
        given the prior.
        """
        design = self._like_fitted(design)
        sets = Sets.of(design, self.fitted)
        exact = self._moments(sets)
        shift = self._predicted(sets, exact) - exact.mean
        draws = self._conditional().draw(sets, n_draws, generator)
        return _unless_control(design, torch.maximum(draws + shift, self.fitted.measured.lowest))

    def _predicted(self, sets: Sets, exact: Moments) -> torch.Tensor:
        """Constrained estimate of the effects of sets, from their exact moments."""
        lowest = self.fitted.measured.lowest
        mean = self._moments(sets, self.config.noise_fraction).mean
        if not self.config.constrained:
            return torch.maximum(mean, lowest)
        center = self._moments(sets.mean_of_size(self.fitted), self.config.noise_fraction).mean
        deviation = mean - center
        ratio = exact.set_variance.sum(1) / (deviation**2).sum(1).clamp_min(1e-300)
        factor = (1 + ratio).sqrt().clamp_max(_LARGEST_FACTOR)[:, None]
        constrained = center + factor * deviation
        length = mean.norm(dim=1) / constrained.norm(dim=1).clamp_min(1e-300)
        return torch.maximum(length[:, None] * constrained, lowest)

    def _moments(self, sets: Sets, noise_fraction: float = 1.0) -> Moments:
        return self._conditional(noise_fraction).moments(sets)

    def _conditional(self, noise_fraction: float = 1.0) -> Conditional:
        """Cache of the Cholesky factors and of the effects on targets."""
        if noise_fraction not in self._conditionals:
            self._conditionals[noise_fraction] = Conditional(self.fitted, noise_fraction)
        return self._conditionals[noise_fraction]

    def _like_fitted(self, design: torch.Tensor) -> torch.Tensor:
        """The sets in the type and on the device of the fitted tensors, wherever they come from."""
        return design.to(self.fitted.measured.effect)


def _unless_control(design: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values, ... x sets x G, with 0 for the empty set."""
    return (design.sum(1) > 0).to(values.dtype)[:, None] * values
