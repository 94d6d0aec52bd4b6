r"""Genes that were not perturbed: the prior of their effects given those of the perturbed genes.

With the coefficients A and what is left R of :meth:`~raptorgraph.inference._gene_kernel.GeneKernel.regression`, the
effects of the others are :math:`A t + r`, :math:`r \sim N(0, \tau R)`, A being 0 for genes that were not perturbed
alone. So a covariance K of the perturbed genes becomes

.. math::
    \begin{pmatrix} K & K A^\top \\ A K & A K A^\top + R \end{pmatrix}

of all: what is said of the perturbed genes stays as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from raptorgraph.inference._gene_covariance import ExtendedCovariance, GeneCovariance
from raptorgraph.inference._gene_kernel import FEWEST, GeneKernel, known, learn_kernel
from raptorgraph.inference._learning import MEDIANS, _fit_genes, independent_prior, learn
from raptorgraph.inference._mixture import LEVELS, GeneMixture
from raptorgraph.inference._prior import N_CLASSES, SHARED, noise, signals
from raptorgraph.inference._state import Fitted, Hyperparameters

if TYPE_CHECKING:
    from raptorgraph.inference._config import EffectPosteriorConfig
    from raptorgraph.inference._state import Covariance, Measured

_EM_STEPS = 20
_MOST_SINGLES = 1000  # that the kernel is learned from
_NO_CELLS = 1e4  # noise of a condition, relative to a typical one, beyond which it says nothing


def check_embedding(embedding: torch.Tensor | None, k: int, n_fit_conditions: int | None) -> None:
    """ValueError for an embedding of other than k rows, and for a part of the conditions without one."""
    if embedding is not None and (embedding.ndim != 2 or len(embedding) != k):
        raise ValueError(
            f"embedding has shape {tuple(embedding.shape)}, and {k} genes were perturbed: give each of them one row."
        )
    if n_fit_conditions is not None and (embedding is None or n_fit_conditions < FEWEST):
        raise ValueError(f"n_fit_conditions={n_fit_conditions} needs an embedding, and to be {FEWEST} or more.")


def learn_with_embedding(
    measured: Measured,
    graph: torch.Tensor | None,
    embedding: torch.Tensor,
    config: EffectPosteriorConfig,
    n_fit_conditions: int | None,
    **sizes: int,
) -> Fitted:
    """Learn the prior as without an embedding, and the kernel beside it; or from a part of a table, with the kernel.

    Arguments are those of :meth:`~raptorgraph.inference.EffectPosterior.fit`.
    """
    n_conditions, k = measured.design.shape
    columns = _fit_genes(measured, sizes["n_fit_genes"])
    if n_fit_conditions is None or n_fit_conditions >= n_conditions:
        fitted = learn(measured, independent_prior(graph, k, n_conditions), config, **sizes)
        with torch.no_grad():
            kernel = kernel_of(measured, fitted.hyperparameters.excess_by_condition, embedding, columns)
        return replace(fitted, kernel=kernel)
    with torch.no_grad():  # what noise there is between conditions is then a gene's own, at first
        kernel = kernel_of(measured, torch.zeros_like(measured.condition_noise), embedding, columns)
        return _learn_table(measured, kernel, n_fit_conditions)


def kernel_of(measured: Measured, excess: torch.Tensor, embedding: torch.Tensor, columns: torch.Tensor) -> GeneKernel:
    """Learn the kernel from the single effects of a screen on some columns; `embedding` is k x features."""
    gene = measured.design.argmax(1)
    usable = (measured.design.sum(1) == 1) & known(embedding)[gene]
    usable &= measured.condition_noise < _NO_CELLS * measured.condition_noise.median()
    at = usable.nonzero().squeeze(1)
    if len(at) < FEWEST:
        raise ValueError(
            f"Of the genes in the embedding {len(at)} were perturbed alone and have cells; {FEWEST} or more are needed "
            "to learn what it says. Check that both name genes alike, or leave the embedding out."
        )
    at = at[torch.linspace(0, len(at) - 1, min(len(at), _MOST_SINGLES)).round().long()]
    effect = measured.effect[at][:, columns] / measured.gene_noise[columns].sqrt()
    own = ((1 + excess) * measured.condition_noise + measured.control_loadings.square().sum(1))[at].mean()
    return learn_kernel(effect, embedding[gene[at]], own, measured.control_noise, embedding)


def with_others(fitted: Fitted, rows: torch.Tensor, targets: torch.Tensor) -> Fitted:
    """Posterior of the perturbed genes and of others, which come behind them.

    Parameters
    ----------
    fitted
        Posterior with a kernel.
    rows
        Rows of the others in the embedding, others x features.
    targets
        Their columns among the G, -1 for those that have none.
    """
    assert fitted.kernel is not None
    measured, prior, kernel = fitted.measured, fitted.hyperparameters, fitted.kernel
    # Genes that are in combinations alone were chosen for these, often for being strong, and do not stand for others.
    alone = measured.design[measured.design.sum(1) == 1].sum(0) > 0
    coefficients, left = kernel.regression(rows, alone | (never_perturbed(measured) > 0))

    def extended(covariance: Covariance) -> Covariance:
        if isinstance(covariance, GeneCovariance):
            return ExtendedCovariance(covariance, coefficients, left)
        assert isinstance(covariance, torch.Tensor)
        cross = coefficients @ covariance
        return torch.cat([torch.cat([covariance, cross.mT], 1), torch.cat([cross, cross @ coefficients.mT + left], 1)])

    none = measured.design.new_zeros(len(rows))
    return replace(
        fitted,
        measured=replace(
            measured,
            design=torch.cat([measured.design, none.expand(len(measured.design), -1)], 1),
            target_columns=torch.cat([measured.target_columns, targets]),
        ),
        hyperparameters=replace(
            prior,
            shared_covariance=extended(prior.shared_covariance),
            independent_covariance=extended(prior.independent_covariance),
            unseen=torch.cat([prior.unseen, none]),
        ),
        kernel=replace(kernel, embedding=torch.cat([kernel.embedding, rows])),
    )


def never_perturbed(measured: Measured) -> torch.Tensor:
    """1 for genes that are in no condition, and 0 for others, shape (k,)."""
    return (measured.design.sum(0) == 0).to(measured.design.dtype)


# -- tables of thousands of conditions -------------------------------------------------------------------------------
def _part(fitted: Fitted, rows: torch.Tensor, genes: torch.Tensor) -> Fitted:
    """Some of the conditions and of the genes."""
    measured, prior = fitted.measured, fitted.hyperparameters
    shared, independent = prior.shared_covariance, prior.independent_covariance
    assert isinstance(shared, torch.Tensor)
    assert isinstance(independent, torch.Tensor)
    return Fitted(
        replace(
            measured,
            design=measured.design[rows][:, genes],
            effect=measured.effect[rows],
            condition_noise=measured.condition_noise[rows],
            control_loadings=measured.control_loadings[rows],
            target_columns=measured.target_columns[genes],
        ),
        replace(
            prior,
            shared_covariance=shared[genes][:, genes],
            independent_covariance=independent[genes][:, genes],
            unseen=prior.unseen[genes],
            scale_by_condition=prior.scale_by_condition[rows],
            excess_by_condition=prior.excess_by_condition[rows],
        ),
        fitted.responsibility,
    )


def _learn_table(measured: Measured, kernel: GeneKernel, n: int) -> Fitted:
    """Posterior of a whole table with the kernel for K, and levels learned from n conditions, evenly spaced.

    What the kernel leaves to a gene alone holds the noise between conditions, too, and what concerns combinations is at
    its prior median.
    """
    rows = torch.linspace(0, len(measured.design) - 1, n).round().long()
    dtype, k = measured.effect.dtype, measured.design.shape[1]
    singles = measured.design[measured.design.sum(1) == 1]
    none = torch.zeros((), dtype=dtype)
    medians = {name: torch.tensor(value, dtype=dtype) for name, value in MEDIANS.items()}
    prior = Hyperparameters(
        **medians | {"residual_variance": none, "excess": none},
        shared_covariance=kernel.among(kernel.embedding),
        independent_covariance=torch.eye(k, dtype=dtype),
        scale=torch.ones((), dtype=dtype),
        unseen_scale=torch.ones((), dtype=dtype),
        unseen=(singles.sum(0) == 0).to(dtype),
        scale_by_condition=torch.ones_like(measured.condition_noise),
        excess_by_condition=torch.zeros_like(measured.condition_noise),
        log_weights=torch.full((N_CLASSES, len(LEVELS)), -torch.inf, dtype=dtype),
    )
    genes = (measured.design[rows].sum(0) > 0).nonzero().squeeze(1)
    part = _part(Fitted(measured, prior, none), rows, genes)
    signal = signals(part.hyperparameters, part.measured.design)[SHARED, None]
    weights = torch.full((1, len(LEVELS), 1), 1 / len(LEVELS), dtype=dtype)
    mixture = GeneMixture(signal, noise(part.hyperparameters, part.measured), torch.zeros_like(weights))
    density = mixture.log_density(part.measured.effect / measured.gene_noise.sqrt())
    for _ in range(_EM_STEPS):
        of_genes = torch.softmax(density + weights.log(), 1)
        weights = of_genes.mean(2, keepdim=True).clamp_min(1e-12)
    responsibility = torch.zeros(N_CLASSES, *of_genes.shape[1:], dtype=dtype)
    responsibility[SHARED], prior.log_weights[SHARED] = of_genes[0], weights[0, :, 0].log()
    return Fitted(measured, prior, responsibility, kernel)
