"""Likelihoods: what a cell shows, given what the decoder says of each gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from scipy import sparse

from raptorgraph.nn._count_nll import count_nll
from raptorgraph.nn._expectation import expected_log1p_nb
from raptorgraph.nn._likelihood_base import ControlStatistics, Likelihood
from raptorgraph.nn._losses import nb_nll, normal_nll
from raptorgraph.nn._mean_expression import mean_expression_nb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from raptorgraph.nn._likelihood_base import Features, Matrix, Read

T = TypeVar("T")

_HIGHEST = 2.0  # log rate
_LEAST_MEAN = 1e-10  # that a molecule speaks of
_LEAST_RATIO = 1e-6  # of two means, as one molecule tells them apart
_OFFSET_QUADRATURE = {"step": 1.0, "lower": -16.0}
_N_STEPS = 24  # one or two are usual
_TOLERANCE = 5e-4  # of a mean, on the expression scale: far below the error of any effect
_LARGEST = 8.0  # offset of a log rate


class Normal(Likelihood):
    r"""Normal distribution on the expression scale, :math:`x \sim N(\mu, \sigma_g^2)`.

    Parameters
    ----------
    n_genes, learn_scale, target_sum
        As in :class:`raptorgraph.nn.Likelihood`; the scale is the standard deviation.

    Examples
    --------
    >>> import torch
    >>> normal = rg.nn.Normal(n_genes=3)
    >>> normal.nll(torch.ones(1, 3), torch.zeros(1, 3)).detach().round(decimals=3)
    tensor([[1.4190, 1.4190, 1.4190]])
    """

    name = "normal"
    least_spread = 0.0
    """Spread of a gene below which it counts less in training, so that rare genes do not outweigh all others."""

    def get_extra_state(self) -> Tensor:
        """Return the least spread, for ``state_dict``."""
        return torch.tensor(self.least_spread, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the least spread."""
        self.least_spread = float(state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over state; that of an older model has no least spread."""
        state_dict.setdefault(f"{prefix}_extra_state", torch.tensor(self.least_spread, dtype=torch.float64))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def training_nll(self, observed: Tensor, decoded: Tensor, library: Tensor | None) -> Tensor:
        """Negative log-likelihood of cells, summed over genes, shape (cells,)."""
        nll = self.nll(observed, decoded)
        if self.least_spread > 0:
            nll = nll * (self.log_scale.detach().exp() / self.least_spread).square().clamp(max=1.0)
        return nll.sum(1)

    def starting_values(self, control: ControlStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Mean and standard deviation of control cells."""
        return control.mean, np.log(control.spread)

    def nll(self, observed: Tensor, location: Tensor) -> Tensor:
        """Negative log-likelihood, elementwise, in nats."""
        return normal_nll(observed, location, self.log_scale.exp())

    def variance(self, location: Tensor) -> Tensor:
        """Square of the scale, the same at every location."""
        return (2 * self.log_scale).exp().expand_as(location)

    def evidence(self, low: Tensor, high: Tensor) -> Tensor:
        """Difference of the locations over the variance."""
        return (high - low).div_(self.variance(low))

    def draw(self, location: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw cells."""
        noise = torch.randn(location.shape, generator=generator, dtype=location.dtype, device=location.device)
        return location + self.log_scale.exp() * noise

    def carry(self, observed: Tensor, before: Tensor, after: Tensor, generator: Generator | None = None) -> Tensor:
        """Keep the distance to the location."""
        return observed + (after - before)


class SquaredError(Normal):
    """Squared error on the expression scale: a normal distribution whose spread is not modelled, as published.

    Examples
    --------
    >>> import torch
    >>> error = rg.nn.SquaredError(n_genes=2)
    >>> error.nll(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)).tolist()
    [[1.0, 9.0]]
    """

    def __init__(self, n_genes: int, *, learn_scale: bool = False, target_sum: float = 1e4) -> None:
        super().__init__(n_genes, learn_scale=False, target_sum=target_sum)

    def starting_values(self, control: ControlStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Mean of control cells."""
        return control.mean, None

    def nll(self, observed: Tensor, location: Tensor) -> Tensor:
        """Squared error, elementwise."""
        return (observed - location) ** 2

    def variance(self, location: Tensor) -> Tensor:
        """One half everywhere: the normal distribution whose likelihood is the squared error."""
        return torch.full_like(location, 0.5)

    def draw(self, location: Tensor, generator: Generator | None = None) -> Tensor:
        """Return the location: there is no noise."""
        return location

    def carry(self, observed: Tensor, before: Tensor, after: Tensor, generator: Generator | None = None) -> Tensor:
        """Return the new location: there is no noise to keep."""
        return after


class NegativeBinomial(Likelihood):
    r"""Negative binomial counts of mean :math:`\mu = l e^r` and variance :math:`\mu + \mu^2 / \theta_g`.

    r is what the decoder says, the logarithm of the rate, and l the library size of the cell.

    Parameters
    ----------
    n_genes, learn_scale, target_sum
        As in :class:`raptorgraph.nn.Likelihood`; the scale is :math:`\theta`, the inverse dispersion.

    Examples
    --------
    >>> import torch
    >>> nb = rg.nn.NegativeBinomial(n_genes=2)
    >>> library = torch.tensor([[1000.0]])
    >>> mean = nb.location(torch.tensor([[-6.0, -2.0]]), library)
    >>> mean.int()
    tensor([[  2, 135]], dtype=torch.int32)
    >>> bool((nb.expected_expression(mean, library) < torch.log1p(1e4 * mean / library)).all())
    True
    """

    name = "nb"
    needs_counts = True

    def observed(self, x: Tensor, expression: Tensor) -> Tensor:
        """Pick the counts."""
        return x

    def to_expression(self, observed: Tensor, library: Tensor | None) -> Tensor:
        """Normalize counts and take logarithms."""
        return torch.log1p(self.target_sum * observed / _given(library))

    def starting_values(self, control: ControlStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Rate of control cells, and the inverse dispersion by moments, from 0.2 to 50."""
        n, mean = control.n_cells, control.observed_mean
        excess = control.observed_variance * (n - 1) / n - mean
        theta = mean**2 / np.maximum(excess, 0.01 * mean**2 + 1e-8)
        return np.log((n * mean + 0.1) / control.total), np.log(np.clip(theta, 0.2, 50.0))

    def location(self, decoded: Tensor, library: Tensor | None) -> Tensor:
        """Mean counts."""
        return _given(library) * decoded.clamp(max=_HIGHEST).exp()

    def at_library_size(self, location: Tensor, library: Tensor | None, library_size: float | str) -> Tensor:
        """Mean counts at another library size."""
        return location if isinstance(library_size, str) else location / _given(library) * library_size

    def expected_expression(self, location: Tensor, library: Tensor | None, **quadrature: float) -> Tensor:
        """Integrate over the counts (:func:`raptorgraph.nn.expected_log1p_nb`)."""
        theta = self.log_scale.detach().exp()
        return expected_log1p_nb(location, theta, self.target_sum / _given(library), **quadrature)

    def training_mean(self, decoded: Tensor, library: Tensor | None) -> Tensor:
        r"""Mean over cells of the expected expression, from log rates (..., cells, genes); shape (..., genes).

        Polynomials stand for the quadrature of :meth:`expected_expression`: for a target sum of 1e4, library sizes from
        200 to 1e6 and :math:`\theta` from 0.05 to 1e4 their error is below 1e-3, that of the gradient below 0.5 %. The
        gradient goes to `decoded` alone.
        """
        decoded, theta = self._precise(decoded), self.log_scale.detach().exp()
        return mean_expression_nb(decoded, theta, _given(library), target_sum=self.target_sum, highest=_HIGHEST)

    def expected_over_draws(
        self, features: Features, read: Read, library: Tensor | None, offset: Tensor | float, **quadrature: float
    ) -> Tensor:
        """Integrate at three log rates that stand for all draws.

        Each draw would need a quadrature of its own. The expectation is smooth in the log rate instead, and taken at
        the three points that match the mean and the variance of the log rate over the draws (Gauss-Hermite): on a
        simulated screen within 1e-3 of the mean over all draws in every cell and gene.
        """
        library, n = _given(library), 0
        first = total = square = library
        for inputs, hidden in features:
            rate = read(inputs, hidden).add_(offset).clamp_(max=_HIGHEST)
            if n == 0:
                first, total, square = rate, torch.zeros_like(rate), torch.zeros_like(rate)
            else:  # moments about the first do not cancel
                rate -= first
                total += rate
                square.addcmul_(rate, rate)
            n += 1
        mean = first + total / n
        step = (3.0 * (square / n - (total / n) ** 2).clamp_min(0.0)).sqrt()
        low, middle, high = (
            self.expected_expression(library * torch.exp(at), library, **quadrature)
            for at in (mean - step, mean, mean + step)
        )
        return (low + 4.0 * middle + high) / 6.0

    def offset(self, target: Tensor, control: Tensor, location: Tensor, library: Tensor | None) -> Tensor:
        """Solve for the offset of the log rate, to 5e-4 of the mean.

        The mean grows with the offset, exponentially where it is small and linearly where it is large, as a softplus
        does: Newton's method after its inverse, kept within a shrinking bracket, of the genes that are still off.
        """
        target = torch.maximum(target, 1e-3 * control + 1e-6).float().to(location.device)

        def mean_at(genes: Tensor, offset: Tensor) -> Tensor:
            means = location[:, genes] * offset.exp()
            return self.of_genes(genes).expected_expression(means, library, **_OFFSET_QUADRATURE).mean(0)

        offset, low, wanted = torch.zeros_like(target), torch.full_like(target, -_LARGEST), _inverse_softplus(target)
        high, off = -low, torch.arange(len(target), device=target.device)
        for _ in range(_N_STEPS):
            mean = mean_at(off, offset[off])
            still = (mean - target[off]).abs() >= _TOLERANCE
            off, mean = off[still], mean[still]
            if len(off) == 0:
                break
            at, below = offset[off], mean < target[off]
            low[off[below]], high[off[~below]] = at[below], at[~below]
            found = _inverse_softplus(mean)
            slope = (_inverse_softplus(mean_at(off, at + 0.02)) - found) / 0.02
            step = at + (wanted[off] - found) / slope.clamp_min(1e-3)
            inside = (step > low[off]) & (step < high[off])
            offset[off] = torch.where(inside, step, 0.5 * (low[off] + high[off]))
        return offset

    def nll(self, observed: Tensor, location: Tensor) -> Tensor:
        """Negative log-likelihood of counts, elementwise, in nats."""
        return nb_nll(observed, location, self.log_scale.exp())

    def variance(self, location: Tensor) -> Tensor:
        """Variance of counts of these means."""
        return location + location**2 / self.log_scale.exp()

    def evidence(self, low: Tensor, high: Tensor) -> Tensor:
        r"""Logarithm of the ratio of :math:`\mu / (\mu + \theta)`, which each molecule adds."""
        theta = self.log_scale.exp()
        change = (high - low).mul_(theta).div_((low + _LEAST_MEAN).mul_(high + theta))
        return change.clamp_min_(_LEAST_RATIO - 1).log1p_()  # in single precision it can be -1 itself

    def training_nll(self, observed: Tensor, decoded: Tensor, library: Tensor | None) -> Tensor:
        """Negative log-likelihood of the counts of each cell, shape (cells,), from log rates (cells x genes), in nats.

        :meth:`nll` summed over genes, in one pass and with a gradient in closed form.
        """
        decoded = self._precise(decoded)
        log_theta = self.log_scale.to(decoded.dtype)
        return count_nll(observed, decoded, log_theta, _given(library), highest=_HIGHEST)

    def _precise(self, decoded: Tensor) -> Tensor:
        """In the precision of the parameters at least: half precision has too few digits for log rates."""
        return decoded.to(torch.promote_types(decoded.dtype, self.log_scale.dtype))

    def draw(self, location: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw counts: Poisson, at a rate with a gamma distribution."""
        theta = self.log_scale.exp().expand_as(location)
        gamma = torch._standard_gamma(theta, generator=generator)
        return torch.poisson(gamma * location / theta, generator=generator)

    def carry(self, observed: Tensor, before: Tensor, after: Tensor, generator: Generator | None = None) -> Tensor:
        r"""Take counts from one mean to another, with as few molecules changed as can be.

        The abduction of a counterfactual: a count is Poisson with rate :math:`\lambda g`, g a gamma variable of mean
        1. Given the count x, g is gamma with shape :math:`\theta + x` and rate :math:`\theta + \lambda`. Where
        :math:`\lambda` falls, each molecule stays with probability :math:`\lambda' / \lambda`; where it rises, a
        Poisson number of mean :math:`(\lambda' - \lambda) g` comes to it. If x follows the negative binomial of mean
        :math:`\lambda`, the result follows that of :math:`\lambda'`.
        """
        theta = self.log_scale.exp()
        kept = torch.binomial(observed, (after / before).clamp(max=1.0), generator=generator)
        gamma = torch._standard_gamma(theta + observed, generator=generator) / (theta + before)
        return kept + torch.poisson(gamma * (after - before).clamp_min(0.0), generator=generator)

    def pack(self, drawn: Tensor) -> Matrix:
        """Sparse counts."""
        return sparse.csr_matrix(drawn.cpu().numpy())

    def matrices(self, parts: Sequence[Matrix], library: NDArray[Any] | None) -> tuple[Matrix, dict[str, Matrix]]:
        """Stacked cells, and their counts as a layer."""
        counts = sparse.vstack(parts).tocsr()
        X = sparse.diags_array(self.target_sum / _given(library)) @ counts
        return X.log1p().astype(np.float32), {"counts": counts}


LIKELIHOODS = {kind.name: kind for kind in (NegativeBinomial, Normal)}
"""Likelihoods by name, the one that fits the data best first."""


def likelihood_for(name: str | None, *, counts: bool) -> str:
    """Name of the likelihood for counts or log values, the best one for None; ValueError where it needs other data."""
    if name is None:
        return next(known for known, kind in LIKELIHOODS.items() if counts or not kind.needs_counts)
    if LIKELIHOODS[name].needs_counts and not counts:
        raise ValueError(
            f"likelihood={name!r} needs counts and the data are log values; register the layer with the counts "
            "(setup_anndata(..., layer=...)) or use likelihood='normal'."
        )
    return name


def make_likelihood(name: str, n_genes: int, *, learn_scale: bool, target_sum: float = 1e4) -> Likelihood:
    """Build a likelihood by name; ``"normal"`` without a scale is the squared error."""
    kind = LIKELIHOODS[name]
    kind = SquaredError if kind is Normal and not learn_scale else kind
    return kind(n_genes, learn_scale=learn_scale, target_sum=target_sum)


def _given(library: T | None) -> T:
    """Library sizes; ValueError where counts have none."""
    if library is None:
        raise ValueError("likelihood='nb' needs the library sizes of the cells.")
    return library


def _inverse_softplus(x: Tensor) -> Tensor:
    x = x.clamp_min(1e-12)
    return x + torch.log(-torch.expm1(-x))
