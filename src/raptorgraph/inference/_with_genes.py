"""The posterior of effects for genes that nobody perturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import torch

from raptorgraph.inference._gene_kernel import known
from raptorgraph.inference._unseen_genes import with_others

if TYPE_CHECKING:
    from raptorgraph.inference._config import EffectPosteriorConfig
    from raptorgraph.inference._state import Fitted


class _Posterior(Protocol):
    """What is needed of :class:`~raptorgraph.inference.EffectPosterior`, whose method the function below is."""

    config: EffectPosteriorConfig

    @property
    def fitted(self) -> Fitted: ...

    def _of(self, fitted: Fitted) -> Self: ...


Posterior = TypeVar("Posterior", bound=_Posterior)


def with_genes(posterior: Posterior, embedding: torch.Tensor, targets: torch.Tensor | None = None) -> Posterior:
    """Posterior that also answers for genes that nobody perturbed, from what is known of them.

    Their effects are a regression on those of the perturbed genes, with the coefficients that the kernel of the
    embedding gives, and an uncertainty that it gives, too. What is said of the perturbed genes stays as it is.
    Predictions for sets with such a gene are the posterior mean.

    Parameters
    ----------
    embedding
        Others x features: their rows of the embedding that :meth:`fit` was given.
    targets
        Shape (others,): column of each among the G, -1 where it has none; by default none has.

    Returns
    -------
    A new posterior; designs have a column for each of the others, after those of the perturbed genes.

    Raises
    ------
    ValueError
        If :meth:`fit` was given no embedding or one with other features, and for a row that is not finite or zero.

    Examples
    --------
    Six genes of two kinds, of which the embedding knows; a seventh is of the first kind.

    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> kinds = torch.tensor([0, 0, 0, 1, 1, 1, 0])
    >>> effect = torch.randn(2, 50, generator=generator)[kinds] + 0.3 * torch.randn(7, 50, generator=generator)
    >>> embedding = torch.eye(2)[kinds]
    >>> posterior = rg.inference.EffectPosterior()
    >>> arguments = torch.full((6, 50), 0.01), torch.full((6,), 200.0), 500
    >>> posterior.fit(torch.eye(6), effect[:6], *arguments, embedding=embedding[:6])
    >>> more = posterior.with_genes(embedding[6:])
    >>> mean, sd = more.mean_and_sd(torch.eye(7))
    >>> bool(torch.corrcoef(torch.stack([mean[6], effect[6]]))[0, 1] > 0.8)
    True
    >>> bool(sd[6].mean() > sd[:6].mean(1).max())
    True
    """
    kernel = posterior.fitted.kernel
    if kernel is None:
        raise ValueError("The posterior was fitted without an embedding of genes: fit(..., embedding=...).")
    if embedding.ndim != 2 or embedding.shape[1] != kernel.embedding.shape[1]:
        raise ValueError(
            f"embedding has shape {tuple(embedding.shape)}: give one row a gene, of {kernel.embedding.shape[1]} "
            "features as in the fit."
        )
    rows = embedding.cpu().double()
    if not known(rows).all():
        raise ValueError(f"Rows {(~known(rows)).nonzero().squeeze(1).tolist()[:5]} of the embedding are 0 or not "
                         "finite: nothing is known of these genes.")  # fmt: skip
    n_genes = posterior.fitted.measured.effect.shape[1]
    if targets is not None and not (
        targets.shape == (len(rows),) and bool(((targets >= -1) & (targets < n_genes)).all())
    ):
        raise ValueError(
            f"targets={targets.tolist()[:5]}: give one for each of the {len(rows)} rows, the column of its gene "
            f"among the {n_genes}, or -1."
        )
    if targets is None or not posterior.config.target_effects:
        targets = torch.full((len(rows),), -1)
    return posterior._of(with_others(posterior.fitted, rows, targets.cpu().long()))
