"""What every likelihood answers, and the answers of those on the expression scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Generator, Tensor, nn

Features: TypeAlias = Iterable[tuple[Tensor, Tensor]]
Read: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Matrix: TypeAlias = NDArray[np.float32] | sparse.csr_matrix


@dataclass(frozen=True)
class ControlStatistics:
    """What is known of the control cells before training; arrays have the shape (genes,)."""

    mean: NDArray[np.float64]  # on the expression scale
    spread: NDArray[np.float64]  # standard deviation on the expression scale, with a lower bound
    observed_mean: NDArray[np.float64]  # of the values that the likelihood describes: counts, or expression
    observed_variance: NDArray[np.float64]  # sample variance of these
    n_cells: int
    total: float  # sum of the library sizes; of cells without one, their number


class Likelihood(nn.Module, ABC):
    """Distribution of each gene of a cell around a location, which comes from the decoder.

    The base class describes values on the expression scale, whose mean is the location; it leaves to its subclasses
    where training starts, the noise, and how measured noise is kept. A likelihood of other data says the rest, too.
    All tensors are cells x genes, library sizes cells x 1 (None for data without).

    Parameters
    ----------
    n_genes
        Number of genes.
    learn_scale
        Learn the spread of each gene.
    target_sum
        Total to which the expression scale, ``log1p(target_sum * count / library size)``, brings counts.

    Examples
    --------
    >>> issubclass(rg.nn.NegativeBinomial, rg.nn.Likelihood), rg.nn.NegativeBinomial.name
    (True, 'nb')
    """

    name: ClassVar[str]
    """What users call it: the argument `likelihood` of the model."""
    needs_counts: ClassVar[bool] = False
    """Whether it describes counts, and not values on the expression scale."""

    def __init__(self, n_genes: int, *, learn_scale: bool = True, target_sum: float = 1e4) -> None:
        super().__init__()
        self.target_sum = target_sum
        self.log_scale = nn.Parameter(torch.zeros(n_genes), requires_grad=learn_scale)

    def of_genes(self, columns: Tensor) -> Likelihood:
        """The same likelihood of the genes at these columns, in this order, for what is drawn and not trained."""
        found = copy(self)
        found._parameters = {name: value for name, value in self._parameters.items() if name != "log_scale"}
        found._buffers = {**self._buffers, "log_scale": self.log_scale.detach()[columns]}
        return found

    # -- data ------------------------------------------------------------------------------------------------------
    def observed(self, x: Tensor, expression: Tensor) -> Tensor:
        """Pick what is described: the data as they are, or the expression scale."""
        return expression

    def to_expression(self, observed: Tensor, library: Tensor | None) -> Tensor:
        """Bring values like the observed ones to the expression scale."""
        return observed

    @abstractmethod
    def starting_values(self, control: ControlStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Constant of the decoder, and the logarithm of the scale (None to leave it), for each gene."""

    # -- locations ---------------------------------------------------------------------------------------------------
    def location(self, decoded: Tensor, library: Tensor | None) -> Tensor:
        """Location, from the output of the decoder."""
        return decoded

    def at_library_size(self, location: Tensor, library: Tensor | None, library_size: float | str) -> Tensor:
        """Location of the same cells at another library size, as :meth:`check_library_size` takes it."""
        return location

    def check_library_size(self, library_size: Any) -> None:
        """ValueError unless `library_size` is ``"latent"`` (the cells' own) or positive for counts, 1 for others."""
        if library_size != "latent" and not (isinstance(library_size, Real) and 0 < float(library_size) < np.inf):
            raise ValueError(f"library_size={library_size!r} must be a positive number or 'latent'.")
        if not self.needs_counts and library_size != 1:
            raise ValueError(f"library_size={library_size!r}: likelihood={self.name!r} has none; leave it out.")

    def expected_expression(self, location: Tensor, library: Tensor | None, **quadrature: float) -> Tensor:
        """Expectation on the expression scale; `quadrature` as for :func:`raptorgraph.nn.expected_log1p_nb`."""
        return location

    def training_mean(self, decoded: Tensor, library: Tensor | None) -> Tensor:
        """Mean over cells of :meth:`expected_expression`, shape (..., genes), as fast as training needs it.

        `decoded` is what the decoder says, shape (..., cells, genes), and all that the gradient goes to.
        """
        return self.expected_expression(self.location(decoded, library), library).mean(-2)

    def expected_over_draws(
        self, features: Features, read: Read, library: Tensor | None, offset: Tensor | float, **quadrature: float
    ) -> Tensor:
        """Mean of :meth:`expected_expression` over draws of the latents.

        `features` are what the decoder's last, linear layers (`read`) read for each draw; the `offset` of each gene is
        added to their output. Where the expectation is linear in it, the mean of the features is decoded.
        """
        draws = iter(features)
        (inputs, hidden), n = next(draws), 1
        for more_inputs, more_hidden in draws:
            inputs, hidden, n = inputs + more_inputs, hidden + more_hidden, n + 1
        return read(inputs / n, hidden / n) + offset

    def offset(self, target: Tensor, control: Tensor, location: Tensor, library: Tensor | None) -> Tensor:
        """Offset of the decoder's output, shape (genes,), that brings the mean expression of cells to a target.

        `target` and `control` are means on the expression scale, shape (genes,): the one that is wanted, and that of
        control cells, far below which no mean of counts falls. `location` is that of the cells without an offset.
        """
        mean = location.mean(0)
        return target.to(mean) - mean

    # -- cells -------------------------------------------------------------------------------------------------------
    @abstractmethod
    def nll(self, observed: Tensor, location: Tensor) -> Tensor:
        """Negative log-likelihood, elementwise, in nats."""

    @abstractmethod
    def variance(self, location: Tensor) -> Tensor:
        """Variance of what is observed, elementwise."""

    def evidence(self, low: Tensor, high: Tensor) -> Tensor:
        """Log-likelihood ratio of two locations, `high` over `low`, for each unit that is observed, elementwise.

        The ratio must be linear in what is observed, as it is of the distributions of an exponential family.
        """
        one, none = low.new_ones(()), low.new_zeros(())
        at_one = self.nll(one, low) - self.nll(one, high)
        return at_one - (self.nll(none, low) - self.nll(none, high))

    def training_nll(self, observed: Tensor, decoded: Tensor, library: Tensor | None) -> Tensor:
        """Negative log-likelihood of each cell, shape (cells,): :meth:`nll` summed over genes.

        Takes what the decoder says, cells x genes, and not the location: a likelihood that spares operations by it
        does. Differentiable with respect to `decoded` and the scale.
        """
        return self.nll(observed, self.location(decoded, library)).sum(-1)

    @abstractmethod
    def draw(self, location: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw cells."""

    @abstractmethod
    def carry(self, observed: Tensor, before: Tensor, after: Tensor, generator: Generator | None = None) -> Tensor:
        """Take measured cells from one location to another, each with the noise that it was measured with."""

    def pack(self, drawn: Tensor) -> Matrix:
        """Drawn cells as they are kept in memory."""
        return drawn.cpu().numpy()

    def matrices(self, parts: Sequence[Matrix], library: NDArray[Any] | None) -> tuple[Matrix, dict[str, Matrix]]:
        """Packed cells on the expression scale, and the layers that an AnnData has besides."""
        return np.vstack(parts), {}
