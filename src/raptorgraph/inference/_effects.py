"""Hierarchical posterior of perturbation effects: what the measured effects say about all sets of genes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from raptorgraph._deprecated import with_old_arguments
from raptorgraph._threads import OwnLock, one_thread
from raptorgraph.inference._adding_up import learn_additivity
from raptorgraph.inference._conditioning import Conditional, Moments, Sets
from raptorgraph.inference._config import EffectPosteriorConfig
from raptorgraph.inference._draws import JointDraws
from raptorgraph.inference._learning import independent_prior, learn
from raptorgraph.inference._state import Fitted, Measured
from raptorgraph.inference._unseen_genes import (
    check_embedding,
    learn_with_embedding,
    never_perturbed,
)
from raptorgraph.inference._with_genes import with_genes

if TYPE_CHECKING:
    from raptorgraph.inference._combinations import Additivity

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

    :math:`a_P = 1` for a single gene, a for a combination, and a scale near a of its own for one that was measured.
    Effects are measured with an error of covariance :math:`w_g N`,
    :math:`N = \operatorname{diag}((1 + \kappa_c) / n_c) + 1 1^\top / n_0`: sampling noise of condition c, more of the
    same kind between conditions (:math:`\kappa_c`, from clones, guides or days), and that of the control cells (part of
    every effect: all are differences to these very cells). The residual :math:`\eta` belongs to
    a condition and not to its genes: it is part of no mean, and of every standard deviation. :math:`\tau_g / w_g` has a
    discrete prior on eleven levels (the grid of scales), and a gene is of one of three classes of covariances:

    - *shared*: :math:`K_g = K = B B^\top + \operatorname{diag}(s)`, which says which perturbations act alike, so
      that they borrow strength from each other;
    - *independent*: :math:`K_g \propto (I - W)^{-1} (I - W)^{-\top}`, for genes that few perturbations move directly,
      and others along the graph W; I without a graph;
    - *condition-specific*: no t; each condition has an effect that no combination inherits, as transcripts of a
      guide do. Open to genes whose effect exceeds their expression in controls.

    K, the scales, :math:`\beta`, :math:`\gamma`, :math:`\omega`, :math:`\kappa` and the weights of classes and levels
    maximize the marginal likelihood times their prior (empirical Bayes). Where genes are few, the columns of B would
    take noise for effects. So the fit is tried on half of the genes with and without a prior by which B has few
    columns, and that prior is used where it makes the other half likelier beyond doubt. A measured combination may also
    move single genes far more than such interactions do, which no other set inherits. The effect of a perturbation on
    its own target has a wide prior, and adds up unscaled. :doc:`/concepts/inference` has all derivations.

    Where no combination is measured a, :math:`\beta` and :math:`\gamma` have their prior alone. The prior median of a
    is .93 less up to .43: as far as conditions differ by more than sampling *and* their effects are alike, part of what
    they share is not due to their genes, and a sum of effects counts it twice. It is a rule of thumb, chosen on a few
    screens, and the first thing to doubt where no pair was measured. A combination that was not measured has a scale
    that is lower, the more its genes act alike, and a departure of its own, learned from the measured ones
    (:attr:`additivity`). A set that is larger than a pair has the scale of a pair. Combinations with a gene that was
    never perturbed alone have a separate scale.

    **Predictions are not the posterior mean.** That minimizes the expected squared error and makes perturbations look
    too much alike, since shrinkage takes first what is particular to the weak ones. The prediction is therefore
    shrunk for half of the conditions' noise, and its difference to the mean prediction for sets of that size is
    widened to the variance that true effects are expected to have (constrained empirical Bayes, [2]_, [3]_), by a
    factor of at most 2 and at an unchanged length. No effect takes a gene below zero expression. Standard deviations
    are about the prediction: its distance to the posterior mean counts. What is said of more than one gene comes from
    joint draws (:meth:`draw`), in which genes that respond alike are off together.

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
        self._found_additivity: Additivity | None = None
        self._drawn: JointDraws | None = None  # of the last call
        self._drawing = OwnLock()  # which keeps what was drawn for one seed, until another is asked for

    def __getstate__(self) -> dict[str, Any]:
        """Without what is found again when it is asked for."""
        return {**self.__dict__, "_conditionals": {}, "_found_additivity": None, "_drawn": None}

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
        self._set(Fitted.from_tensors(state) if state else None)

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
        noise_loadings: torch.Tensor | None = None,
        n_steps: int = 200,
        n_fit_genes: int | None = None,
        rank: int = 12,
        embedding: torch.Tensor | None = None,
        n_fit_conditions: int | None = None,
        gene_order: torch.Tensor | None = None,
        control_loadings: torch.Tensor | None = None,
    ) -> None:
        r"""Learn the prior and store what the posterior needs.

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
        noise_loadings
            Correlation between genes of the sampling noise, G x factors (:func:`loadings_of_cells` of control cells);
            by default genes are measured independently.
        n_steps, n_fit_genes, rank
            Steps of the optimizer; genes (evenly spaced) that the prior is learned from, by default 2,000, or fewer
            where there are more than 75 conditions; largest rank of B.
        embedding
            k x features: what is known of the perturbed genes before, a row of NaN for those without. It says nothing
            of the effects of these sets, and lets :meth:`with_genes` answer for other genes.
        n_fit_conditions
            For tables of thousands of conditions, with `embedding`: number of conditions (evenly spaced) that levels
            are learned from. The covariance of single effects is then that of the embedding, what concerns
            combinations is at its prior median. By default all conditions are used, and the covariance is learned.
        gene_order
            Shape (G,): the columns in the order in which genes are chosen and random numbers given to them, such as
            that of their names; results then do not depend on the order of the columns. By default their own.
        control_loadings
            L, conditions x columns: where batches have controls of their own, two effects share the variance of a cell
            times :math:`1 / n_0 + (L L^\top)_{cd}`. By default all are compared with all controls.

        Raises
        ------
        ValueError
            If an effect or variance is not finite, if `embedding` has other than k rows or fewer than three of genes
            that were perturbed alone, and for `n_fit_conditions` without `embedding`.
        """
        n_conditions, k = design.shape
        check_embedding(embedding, k, n_fit_conditions)
        n_fit_genes = n_fit_genes or int(min(2000, max(500, 150_000 // n_conditions)))
        if gene_order is not None and bool((gene_order.diff() == 1).all()):
            gene_order = None  # their own
        lowest = torch.full_like(effect[0], -torch.inf) if control_mean is None else -control_mean
        if noise_loadings is None:
            noise_loadings = effect.new_zeros(effect.shape[1], 0)
        if targets is None or not self.config.target_effects:
            targets = torch.full((k,), -1)
        with torch.enable_grad(), torch.inference_mode(False), one_thread(n_conditions <= _FEW_CONDITIONS):
            given = targets, lowest, noise_loadings, control_loadings
            measured = Measured.of(design, effect, variance, n_cells, n_controls, *given)
            if gene_order is not None:
                gene_order = gene_order.cpu().long()
                measured = measured.of_columns(gene_order)
            weights = None if graph is None or not self.config.graph else graph.cpu().double()
            sizes = {"n_steps": n_steps, "n_fit_genes": n_fit_genes, "rank": rank}
            if embedding is None:
                fitted = learn(measured, independent_prior(weights, k, n_conditions), self.config, **sizes)
            else:
                known = embedding.cpu().double()
                fitted = learn_with_embedding(measured, weights, known, self.config, n_fit_conditions, **sizes)
            if gene_order is not None:
                fitted = replace(fitted.of_columns(torch.argsort(gene_order)), gene_order=gene_order)
            self._set(fitted)

    def _set(self, fitted: Fitted | None) -> None:
        """Take what was fitted, and forget what was made from an earlier fit."""
        self._fitted, self._conditionals, self._found_additivity, self._drawn = fitted, {}, None, None

    # -- answers ---------------------------------------------------------------------------------------------------
    @_with_design
    def mean(self, design: torch.Tensor, chunk_size: int = 512) -> torch.Tensor:
        """Predicted effects, sets x G, of the sets in ``design`` (sets x k, 0/1)."""
        parts = torch.split(self._like_fitted(design), chunk_size)
        return torch.cat([_unless_control(part, self._prediction(self._sets(part))[0]) for part in parts])

    @_with_design
    def mean_and_sd(self, design: torch.Tensor, chunk_size: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted effects against these controls, and SDs without their error, each sets x G; 0 for the empty set."""
        measured, prior = self.fitted.measured, self.fitted.hyperparameters
        # What another condition of this kind would differ by, however many cells it had.
        between = prior.excess * measured.condition_noise.median() * measured.gene_noise
        means, sds = [], []
        for part in torch.split(self._like_fitted(design), chunk_size):
            sets = self._sets(part)
            mean, exact = self._prediction(sets)
            variance = exact.variance + self._conditional().scale_variance(part, self.additivity)
            inherited = sets.scale**2 * part.sum(1)  # what the conditions of its genes leave in each set
            variance = variance + (mean - exact.mean) ** 2 + inherited[:, None] * between
            means.append(_unless_control(part, mean))
            sds.append(_unless_control(part, variance.sqrt()))
        return torch.cat(means), torch.cat(sds)

    @_with_design
    def posterior_mean(self, design: torch.Tensor) -> torch.Tensor:
        """Mean of the posterior itself, sets x G, which is not what is predicted (see the class)."""
        design = self._like_fitted(design)
        return _unless_control(design, self._moments(self._sets(design)).mean)

    @_with_design
    def draw(self, design: torch.Tensor, n_draws: int, seed: int = 0, *, controls: bool = False) -> torch.Tensor:
        """Joint draws of the effects of sets, n_draws x sets x G.

        Drawn is what another condition of these genes is expected to show, however many cells it had, against the mean
        that the control cells are a sample of; with `controls` against these very cells, as effects are measured. A
        gene has the residual of its condition (of another guide, say) in all sets. Genes of the transcriptome that
        respond alike are drawn together, and so are sets that share genes. The same seed gives the same draws of a set,
        whichever others are asked for with it. (:doc:`/concepts/inference` has the equations.)
        """
        design = self._like_fitted(design)
        with self._drawing:
            if self._drawn is None or (self._drawn.n_draws, self._drawn.seed) != (n_draws, seed):
                with one_thread(len(self.fitted.measured.design) <= _FEW_CONDITIONS):
                    self._drawn = self._joint_draws(n_draws, seed)
            drawn = self._drawn.effects(design, controls=controls)
        return _unless_control(design, drawn)

    def _joint_draws(self, n_draws: int, seed: int) -> JointDraws:
        """Draws in which genes get their random numbers in the order that they were fitted in."""
        order = self.fitted.gene_order
        if order is None:
            return JointDraws(self._conditional(), self.additivity, n_draws, seed)
        conditional = Conditional(self.fitted.of_columns(order))
        return JointDraws(conditional, learn_additivity(conditional), n_draws, seed, places=torch.argsort(order))

    @property
    def additivity(self) -> Additivity:
        """How the effects of single genes add up, as the measured combinations show it."""
        if self._found_additivity is None:
            self._found_additivity = learn_additivity(self._conditional())
        return self._found_additivity

    def _prediction(self, sets: Sets) -> tuple[torch.Tensor, Moments]:
        """Constrained estimate of the effects of sets, sets x G, and the moments of their posterior."""
        lowest = self.fitted.measured.lowest
        exact, mean = self._moments(sets), self._moments(sets, self.config.noise_fraction).mean
        if not self.config.constrained:
            return torch.maximum(mean, lowest), exact
        of_sizes, at = sets.means_of_sizes(self.fitted)
        center = self._conditional(self.config.noise_fraction).moments(of_sizes).mean[at]
        deviation = mean - center
        ratio = exact.set_variance.sum(1) / (deviation**2).sum(1).clamp_min(1e-300)
        factor = (1 + ratio).sqrt().clamp_max(_LARGEST_FACTOR)[:, None]
        constrained = center + factor * deviation
        length = mean.norm(dim=1) / constrained.norm(dim=1).clamp_min(1e-300)
        predicted = length[:, None] * constrained
        others = never_perturbed(self.fitted.measured)
        if others.any():  # of whose effects little is known: what is, and nothing in the way of others
            predicted = torch.where((sets.design @ others > 0)[:, None], exact.mean, predicted)
        return torch.maximum(predicted, lowest), exact

    # -- genes that were not perturbed, and tables -----------------------------------------------------------------
    @property
    def embedding_share(self) -> float:
        """Part of the variance of single effects that an embedding says, 0 to 1; 0 where there was none.

        Half of the prior probability is that it says nothing: with few perturbed genes, or none alike, it stays low.
        """
        kernel = self.fitted.kernel
        return 0.0 if kernel is None else float(kernel.weights.sum())

    with_genes = with_genes

    def _of(self, fitted: Fitted) -> Self:
        """Another posterior with these settings."""
        found = type(self)(self.config)
        found._fitted = fitted
        return found

    # -- parts -----------------------------------------------------------------------------------------------------
    def _sets(self, design: torch.Tensor) -> Sets:
        return Sets.of(design, self.fitted, self.additivity)

    def _moments(self, sets: Sets, noise_fraction: float = 1.0) -> Moments:
        return self._conditional(noise_fraction).moments(sets, self.additivity.own)

    def _conditional(self, noise_fraction: float = 1.0) -> Conditional:
        """Cache of the effects on targets and, where they are not large, of factors of the covariances."""
        if noise_fraction not in self._conditionals:
            self._conditionals[noise_fraction] = Conditional(self.fitted, noise_fraction)
        return self._conditionals[noise_fraction]

    def _like_fitted(self, design: torch.Tensor) -> torch.Tensor:
        """The sets in the type and on the device of the fitted tensors, wherever they come from."""
        return design.to(self.fitted.measured.effect)


def _unless_control(design: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values, ... x sets x G, with 0 for the empty set."""
    return (design.sum(1) > 0).to(values.dtype)[:, None] * values
