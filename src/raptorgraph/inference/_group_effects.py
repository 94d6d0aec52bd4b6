"""Effects by group of cells, such as a cell state: shrunken to what a perturbation does in all groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raptorgraph.inference._group_contrasts import LEVELS, Contrasts, ScalePosterior, scale_posterior
from raptorgraph.inference._group_measurements import LEAST

if TYPE_CHECKING:
    from raptorgraph.inference._group_contrasts import Array
    from raptorgraph.inference._group_measurements import GroupMeasurements

_N_SWEEPS = 12  # of the hyperparameters, which have converged by then
_FIT_EFFECTS = 150_000  # of all perturbations, on evenly spaced genes, that hyperparameters are learned from
_FIT_GENES = 300, 2000  # fewest and most of these genes
_BINS = (0.004, 0.03, 0.25)  # bounds of the squared common effect in units of the variance among cells
_PRIOR_GENES = 50.0  # that the weights of all perturbations count for in those of one
_PRIOR_WEIGHTS = np.array([2.0, 0.5, 0.5, 0.5])  # of the scales: perturbations that count for each before the data
_OWN = 0.15  # share of the variance of deviations that is a set's own and not its members', as of interactions


@dataclass(frozen=True)
class GroupEffects:
    """Posterior of the effects by group, of :func:`infer_group_effects`.

    Attributes
    ----------
    mean, sd
        P x S x G: effects and their standard deviations.
    deviation, deviation_variance
        P x S x G: difference of each effect to the common one, without what the network says, and its variance.
    scale, scale_sd
        P x S: size of the effect in each group, as a multiple of the common effect: a, and what the network adds
        along the common effect.
    dependence, dependence_low, dependence_high
        Shape (P,): share of the squared length of the effects that differs between groups, and a 90 % interval.
    common
        P x G: what was given.
    center
        P x G: common effects without what differs in the composition of perturbed and control cells.
    network_weight
        Weight w of the network's deviations, from 0 to 1.
    scale_variance
        Mean square of the differences of the scales a from 1, beyond the network.
    remainder_variance
        Shape (G,): prior variance of the remainder.
    lowest
        As measured.

    Examples
    --------
    >>> noise, rng = np.full((1, 2, 100), 0.02), np.random.default_rng(0)
    >>> measured = rg.inference.GroupMeasurements(
    ...     np.sqrt(noise) * rng.normal(size=noise.shape), noise, noise[0] / 10, np.array([[50, 50]]), np.full(2, 500)
    ... )  # fmt: skip
    >>> posterior = rg.inference.infer_group_effects(measured, measured.within, np.full((1, 100), 0.1))
    >>> mean, sd = posterior.of_set([0], measured.within[0], np.full(100, 0.1))
    >>> mean.shape  # groups x genes
    (2, 100)
    """

    mean: Array
    sd: Array
    deviation: Array
    deviation_variance: Array
    scale: Array
    scale_sd: Array
    dependence: Array
    dependence_low: Array
    dependence_high: Array
    common: Array
    center: Array
    network_weight: float
    scale_variance: float
    remainder_variance: Array
    lowest: Array | float

    def of_set(self, members: list[int], mean: Array, sd: Array, network: Array | None = None) -> tuple[Array, Array]:
        r"""Effects by group of a set of genes that was not measured, and their standard deviations, S x G each.

        The common effect of the set is predicted (`mean`, `sd`, shape (G,)). To it are added the network's deviation,
        weighted, and those of the `members` that were measured alone (their rows), each as its posterior has it beyond
        the network's, times the slope of the set's common effect on the sum of theirs, from 0 to 1. Of the variance of
        deviations among measured perturbations 0.15 is the set's own, as in the prior of interactions.
        """
        together = self.common[members].sum(axis=0)
        square = float(together @ together)
        slope = float(np.clip(mean @ together / square, 0.0, 1.0)) if square > 0 else 0.0
        deviation = slope * self.deviation[members].sum(axis=0)
        if network is not None:
            deviation = deviation + self.network_weight * network
        own = self.scale_variance * mean**2 + self.remainder_variance
        variance = sd**2 + slope**2 * self.deviation_variance[members].sum(axis=0) + _OWN * own
        return np.maximum(mean + deviation, self.lowest), np.sqrt(variance)


def infer_group_effects(
    measured: GroupMeasurements,
    common: Array,
    common_sd: Array,
    *,
    predicted: Array | None = None,
    overall: Array | None = None,
    overall_variance: Array | None = None,
    network: Array | None = None,
    seed: int = 0,
) -> GroupEffects:
    r"""Infer effects by group from those measured in each group and the posterior of the common effect.

    The effect of perturbation p on gene g in group s is

    .. math::
        \beta_{psg} = a_{ps} \mu_{pg} + w\, d_{psg} + \epsilon_{psg}, \qquad \sum_s q_{ps} \beta_{psg} = \mu_{pg},
        \quad \mu_{pg} \sim N(m_{pg}, u_{pg}), \quad a_{ps} \sim N(1, \sigma_p^2), \quad
        \epsilon_{psg} \sim N(0, \tau_{pg}^2),

    where m and u are the common posterior's mean and variance, q the shares of the groups by the precision of their
    effects, d what a network predicts of the difference, and a the scale of
    a whole effect, which all genes determine together: an effect that is on in one state only has the scales 2 and 0.
    :math:`\sigma_p^2` and :math:`\tau_{pg}^2` have discrete priors that begin with 0 (the scale for each perturbation,
    the remainder for each gene, given the size of its common effect), whose weights maximize the marginal
    likelihood, so that effects are those of all groups where groups do not differ.

    Only contrasts between groups enter, since the common posterior has seen their mean: with the shares q the errors of
    the two are independent. Given a, everything is normal with closed forms, gene by gene; a, the weights and w take
    turns (EM). The contrasts inform :math:`\mu`, too: where an effect is off in one group, the other's cells alone
    measure it.

    Parameters
    ----------
    measured
        Effects by group.
    common, common_sd
        P x G: mean and standard deviation of the common effects. A mean that is shrunk less, as predictions are, would
        hold noise along which groups seem to differ less than they do.
    predicted
        P x G: common effects that are predicted in the place of these means; the difference is added in each group,
        times its scale. By default there is none.
    overall, overall_variance
        P x G: differences of means over all cells, which the common effects rest on, and their variance. They differ
        from the mean within groups (:attr:`GroupMeasurements.within`), as perturbed and control cells differ in
        composition, and so do common effects, by the share ``common_sd**2 / overall_variance`` (the weight of its own
        measurement in a normal posterior mean); it is taken off. By default there is no difference.
    network
        P x S x G: deviation d from the common effect that a network predicts for each group; by default 0.
    seed
        Seed of the intervals.

    Returns
    -------
    GroupEffects

    Raises
    ------
    ValueError
        If shapes do not fit, or a value is not finite.

    Examples
    --------
    An effect that is there in one of two groups, 20 cells in each, and one that is the same in both:

    >>> rng = np.random.default_rng(0)
    >>> effect, noise = rng.normal(size=(2, 1, 200)), np.full((2, 2, 200), 1 / 20)
    >>> truth = effect * np.array([[1.0, 0.0], [1.0, 1.0]])[:, :, None]
    >>> measured = rg.inference.GroupMeasurements(
    ...     truth + np.sqrt(noise) * rng.normal(size=truth.shape), noise, np.full((2, 200), 1 / 500),
    ...     np.full((2, 2), 20), np.full(2, 500),
    ... )  # fmt: skip
    >>> posterior = rg.inference.infer_group_effects(measured, measured.within, np.full((2, 200), 0.16))
    >>> posterior.scale.round(1)
    array([[1.9, 0.1],
           [1. , 1. ]])
    """
    n_perturbations, _, n_genes = measured.effect.shape
    for name, given, shape in (
        ("common", common, (n_perturbations, n_genes)),
        ("common_sd", common_sd, (n_perturbations, n_genes)),
        ("predicted", predicted, (n_perturbations, n_genes)),
        ("overall", overall, (n_perturbations, n_genes)),
        ("overall_variance", overall_variance, (n_perturbations, n_genes)),
        ("network", network, measured.effect.shape),
    ):
        if given is not None and given.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {given.shape}.")
    if (overall is None) != (overall_variance is None):
        raise ValueError("overall and overall_variance belong together: give both or none.")
    center = np.asarray(common, dtype=np.float64)
    if overall is not None and overall_variance is not None:
        kept = np.clip(common_sd**2 / np.where(overall_variance > 0, overall_variance, np.inf), 0.0, 1.0)
        center = center - kept * (overall - measured.within) * (measured.n_cells.sum(axis=1) > 0)[:, None]
    fitted = _Fit(measured, center, np.maximum(common_sd**2, LEAST), network)
    turns = 1 if network is None else 2
    for i in range(turns * _N_SWEEPS):
        fitted.sweep(levels=i >= turns)
    more = np.zeros_like(center) if predicted is None else predicted - common
    return fitted.answer(common, more, np.random.default_rng(seed))


class _Fit:
    """State of the learning: scales of every perturbation, and the hyperparameters."""

    def __init__(self, measured: GroupMeasurements, center: Array, variance: Array, network: Array | None) -> None:
        n_perturbations, n_groups, n_genes = measured.effect.shape
        self.measured, self.center, self.variance = measured, center, variance
        self.shares = measured.shares
        self.network = None
        if network is not None:
            self.network = network - np.einsum("ps,psg->pg", self.shares, network)[:, None]
        self.gene_variance = measured.gene_variance
        self.bins = np.searchsorted(_BINS, center**2 / self.gene_variance)
        self.inflation = np.broadcast_to(np.asarray(measured.inflation, dtype=np.float64), n_perturbations)
        n_fit = min(n_genes, int(np.clip(_FIT_EFFECTS // max(n_perturbations, 1), *_FIT_GENES)))
        self.fit_genes = np.linspace(0, n_genes - 1, n_fit).round().astype(int)
        self.deviation = np.zeros((n_perturbations, n_groups))  # a - 1
        self.counts = np.zeros((n_perturbations, len(_BINS) + 1, len(LEVELS)))
        self.weights = np.full((len(_BINS) + 1, len(LEVELS)), 0.05 / (len(LEVELS) - 1))
        self.weights[:, 0] = 0.95
        self.scale_weights = _PRIOR_WEIGHTS / _PRIOR_WEIGHTS.sum()
        self.network_weight, self.n_sweeps = 0.0, 0

    def contrasts(self, p: int, genes: Array | slice = slice(None)) -> Contrasts:
        """Contrasts of a perturbation, less what the network predicts."""
        measured = self.measured
        effect = measured.effect[p][:, genes]
        if self.network is not None:
            effect = effect - self.network_weight * self.network[p][:, genes]
        return Contrasts(
            effect,
            measured.variance[p][:, genes] + measured.control_variance[:, genes],
            self.center[p, genes],
            self.variance[p, genes],
            1.0 + self.deviation[p],
            self.gene_variance[genes],
            measured.n_cells[p],
        )

    def log_weights(self, p: int, genes: Array | slice = slice(None)) -> Array:
        """Levels x genes: log prior weights of the remainder, those of all perturbations and its own together."""
        found = _PRIOR_GENES * self.weights + self.counts[p]
        found /= found.sum(axis=1, keepdims=True)
        logs: Array = np.log(found[self.bins[p, genes]].T + 1e-300)
        return logs

    def update_scales(self, p: int, contrasts: Contrasts, probability: Array) -> ScalePosterior:
        """Scales of a perturbation by the contrasts of some genes, or of all."""
        evidence = contrasts.scale_evidence(probability, self.inflation[p])
        found = scale_posterior(evidence, self.scale_weights, self.shares[p])
        self.deviation[p] = found.mean
        return found

    def sweep(self, *, levels: bool) -> None:
        """Update the scales or the weight of the network, which take turns, since they may say the same.

        And the levels, but not in the first sweeps, so that network and scales explain what they can.
        """
        asks_network = self.network is not None and self.n_sweeps % 2 == 0
        self.n_sweeps += 1
        genes, top, below = self.fit_genes, 0.0, 0.0
        scale_counts = _PRIOR_WEIGHTS.copy()
        counts = np.zeros_like(self.counts)
        for p in np.flatnonzero((self.measured.n_cells > 0).sum(axis=1) > 1).tolist():
            contrasts, logs = self.contrasts(p, genes), self.log_weights(p, genes)
            if levels:
                responsibility = contrasts.responsibility(logs)
                for b in range(len(counts[p])):
                    counts[p, b] = responsibility[:, self.bins[p, genes] == b].sum(axis=1)
            if asks_network and self.network is not None:
                gain, size = contrasts.slope(self.network[p][:, genes], np.exp(logs))
                top, below = top + gain / self.inflation[p], below + size / self.inflation[p]
            else:
                scale_counts += self.update_scales(p, contrasts, np.exp(logs)).probability
        if levels:
            self.counts = counts
            pooled = counts.sum(axis=0) + self.weights
            self.weights = pooled / pooled.sum(axis=1, keepdims=True)
        if asks_network:
            self.network_weight = float(np.clip(self.network_weight + top / max(below, 1e-300), 0.0, 1.0))
        else:
            self.scale_weights = scale_counts / scale_counts.sum()

    def answer(self, common: Array, more: Array, rng: np.random.Generator) -> GroupEffects:
        """Moments of all genes, with `more` of the common effect."""
        shape = self.measured.effect.shape
        mean, variance, deviation, left = (np.empty(shape) for _ in range(4))
        scale, scale_sd = np.empty(shape[:2]), np.empty(shape[:2])
        dependence = np.empty((3, shape[0]))
        for p in range(shape[0]):
            shares = self.shares[p]
            logs = self.log_weights(p)
            scales = self.update_scales(p, self.contrasts(p), np.exp(logs))
            contrasts = self.contrasts(p)
            responsibility = contrasts.responsibility(logs)
            moments = contrasts.moments(responsibility, shares)
            of_scale = np.diagonal(scales.covariance)[:, None] * self.center[p] ** 2
            added = np.zeros(shape[1:]) if self.network is None else self.network_weight * self.network[p]
            along = self.center[p] / self.gene_variance
            scale[p] = 1.0 + scales.mean + added @ along / max(self.center[p] @ along, LEAST)
            mean[p] = np.maximum(moments.mean + added + scale[p][:, None] * more[p], self.measured.lowest)
            variance[p] = moments.variance + of_scale
            deviation[p] = moments.mean - common[p]
            left[p] = moments.deviation_variance + of_scale
            scale_sd[p] = np.sqrt(np.diagonal(scales.covariance))
            dependence[:, p] = moments.dependence(scales, added, shares, rng)
        pooled = self.counts.sum(axis=(0, 1)) + self.weights.mean(axis=0)
        return GroupEffects(
            mean=mean,
            sd=np.sqrt(variance),
            deviation=deviation,
            deviation_variance=left,
            scale=scale,
            scale_sd=scale_sd,
            dependence=dependence[0],
            dependence_low=dependence[1],
            dependence_high=dependence[2],
            common=common,
            center=self.center,
            network_weight=self.network_weight,
            scale_variance=float((self.deviation**2 + scale_sd**2).mean()),
            remainder_variance=(pooled / pooled.sum()) @ LEVELS * self.gene_variance,
            lowest=self.measured.lowest,
        )
