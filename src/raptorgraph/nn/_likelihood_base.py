"""What every likelihood answers: the data it describes, locations, expectations, cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
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
    """What is known of the control cells before training; arrays have the shape (genes,).

    Parameters
    ----------
    mean, spread
        Mean and standard deviation on the expression scale, the latter with a lower bound.
    observed_mean, observed_variance
        Mean and sample variance of the values that the likelihood describes: counts, or expression.
    n_cells, total
        Number of control cells, and the sum of their library sizes (of cells without one, their number).
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    observed_mean: NDArray[np.float64]
    observed_variance: NDArray[np.float64]
    n_cells: int
    total: float


class Likelihood(nn.Module, ABC):
    """Distribution of each gene of a cell around a location, which comes from the decoder.

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
    needs_counts: ClassVar[bool]
    """Whether it describes counts, and not values on the expression scale."""

    def __init__(self, n_genes: int, *, learn_scale: bool = True, target_sum: float = 1e4) -> None:
        super().__init__()
        self.target_sum = target_sum
        self.log_scale = nn.Parameter(torch.zeros(n_genes), requires_grad=learn_scale)

    # -- data ------------------------------------------------------------------------------------------------------
    @abstractmethod
    def observed(self, x: Tensor, expression: Tensor) -> Tensor:
        """Pick what is described: the data as they are, or the expression scale."""

    @abstractmethod
    def to_expression(self, observed: Tensor, library: Tensor | None) -> Tensor:
        """Bring values like the observed ones to the expression scale."""

    @abstractmethod
    def starting_values(self, control: ControlStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Constant of the decoder, and the logarithm of the scale (None to leave it), for each gene."""

    # -- locations ---------------------------------------------------------------------------------------------------
    @abstractmethod
    def location(self, decoded: Tensor, library: Tensor | None) -> Tensor:
        """Location, from the output of the decoder."""

    def at_library_size(self, location: Tensor, library: Tensor | None, library_size: float | str) -> Tensor:
        """Location of the same cells at another library size, as :meth:`check_library_size` takes it."""
        return location

    def check_library_size(self, library_size: Any) -> None:
        """ValueError where `library_size` is neither ``"latent"``, the cells' own, nor a total."""
        if library_size != "latent" and not (isinstance(library_size, Real) and 0 < float(library_size) < np.inf):
            raise ValueError(f"library_size={library_size!r} must be a positive number or 'latent'.")

    @abstractmethod
    def expected_expression(self, location: Tensor, library: Tensor | None, **quadrature: float) -> Tensor:
        """Expectation on the expression scale; `quadrature` as for :func:`raptorgraph.nn.expected_log1p_nb`."""

    @abstractmethod
    def expected_over_draws(
        self, features: Features, read: Read, library: Tensor | None, offset: Tensor | float, **quadrature: float
    ) -> Tensor:
        """Mean of :meth:`expected_expression` over draws of the latents.

        Parameters
        ----------
        features
            What the decoder's last layers read, for each draw (:meth:`raptorgraph.nn.Decoder.features`).
        read
            These layers (:meth:`raptorgraph.nn.Decoder.read`).
        library
            Library sizes.
        offset
            Added to the output of the decoder, for each gene.
        **quadrature
            As for :meth:`expected_expression`.
        """

    @abstractmethod
    def offset(self, target: Tensor, control: Tensor, location: Tensor, library: Tensor | None) -> Tensor:
        """Offset of the decoder's output, shape (genes,), that brings the mean expression of cells to a target.

        Parameters
        ----------
        target, control
            Means on the expression scale, shape (genes,): the one that is wanted, and that of control cells, far below
            which no mean of counts falls.
        location, library
            The cells, without an offset.
        """

    # -- cells -------------------------------------------------------------------------------------------------------
    @abstractmethod
    def nll(self, observed: Tensor, location: Tensor) -> Tensor:
        """Negative log-likelihood, elementwise, in nats."""

    @abstractmethod
    def draw(self, location: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw cells."""

    @abstractmethod
    def carry(self, observed: Tensor, before: Tensor, after: Tensor, generator: Generator | None = None) -> Tensor:
        """Take measured cells from one location to another, each with the noise that it was measured with."""

    @abstractmethod
    def pack(self, drawn: Tensor) -> Matrix:
        """Drawn cells as they are kept in memory."""

    @abstractmethod
    def matrices(self, parts: Sequence[Matrix], library: NDArray[Any] | None) -> tuple[Matrix, dict[str, Matrix]]:
        """Packed cells on the expression scale, and the layers that an AnnData has besides."""
