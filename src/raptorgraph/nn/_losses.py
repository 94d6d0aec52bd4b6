"""Loss terms. Each states its reduction; none grows with the number of genes or cells."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from raptorgraph.nn._structural import acyclicity


def nb_nll(x: torch.Tensor, mean: torch.Tensor, inverse_dispersion: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of counts under a negative binomial, elementwise (cells x genes), in nats.

    Examples
    --------
    >>> import torch
    >>> from scipy.stats import nbinom
    >>> x, mean, theta = torch.tensor(3.0), torch.tensor(2.0), torch.tensor(4.0)
    >>> round(rg.nn.nb_nll(x, mean, theta).item(), 4), round(float(-nbinom.logpmf(3, 4, 4 / (4 + 2))), 4)
    (1.922, 1.922)
    """
    theta = inverse_dispersion
    log_sum = torch.log(theta + mean)
    return -(
        torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
        + theta * (torch.log(theta) - log_sum)
        + x * (torch.log(mean + 1e-10) - log_sum)
    )


def normal_nll(x: torch.Tensor, mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood under a normal distribution, elementwise, in nats.

    Examples
    --------
    >>> import torch
    >>> round(rg.nn.normal_nll(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)).item(), 4)
    1.4189
    """
    return 0.5 * ((x - mean) / sd) ** 2 + torch.log(sd) + 0.5 * math.log(2 * math.pi)


def kl_standard_normal(mean: torch.Tensor, log_var: torch.Tensor) -> torch.Tensor:
    """Return KL(N(mean, var) || N(0, 1)) elementwise (cells x latents), in nats.

    Examples
    --------
    >>> import torch
    >>> rg.nn.kl_standard_normal(torch.tensor([0.0, 1.0]), torch.zeros(2)).tolist()
    [0.0, 0.5]
    """
    return 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var)


def free_bits(kl: torch.Tensor, floor: float) -> torch.Tensor:
    """Mean over cells, floored at ``floor`` nats for each latent, summed over latents: a scalar.

    Examples
    --------
    >>> import torch
    >>> kl = torch.tensor([[0.0, 1.0], [0.0, 3.0]])  # cells x latents
    >>> round(rg.nn.free_bits(kl, 0.05).item(), 4)  # 0.05 + 2
    2.05
    """
    return kl.mean(0).clamp_min(floor).sum()


def shift_nll(predicted: torch.Tensor, measured: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    r"""Gaussian likelihood of pseudobulk shifts: mean over conditions and genes of :math:`(p - m)^2 / 2v`.

    Parameters
    ----------
    predicted, measured, variance
        Conditions x genes: predicted and measured difference of means to control, and the sampling variance of
        the measured one.

    Examples
    --------
    One condition of three genes; the last is predicted one standard error off, the first two exactly.

    >>> import torch
    >>> measured, variance = torch.tensor([[0.5, 0.0, -1.0]]), torch.tensor([[0.01, 0.01, 0.04]])
    >>> predicted = torch.tensor([[0.5, 0.0, -0.8]])
    >>> round(rg.nn.shift_nll(predicted, measured, variance).item(), 4)  # a half, over three genes
    0.1667
    """
    return 0.5 * ((predicted - measured) ** 2 / variance).mean()


def mk_mmd(
    x: torch.Tensor, y: torch.Tensor, *, fix_sigma: float = 200.0, n_kernels: int = 10, biased: bool = False
) -> torch.Tensor:
    r"""Unbiased multi-kernel squared MMD between two samples (Eq. S9, Eq. S10).

    :math:`k(x, y) = \sum_{l<L} \exp(-\|x - y\|^2 / b_l)`, :math:`b_l = \mathrm{fix\_sigma} \cdot 2^{l - L // 2}`.
    The kernels are summed, so the value lies below 2 L; negative values are normal for equal distributions.

    Parameters
    ----------
    x, y
        Cells x genes, at least two cells each.
    biased
        Count each cell's kernel with itself too, as dVAE and SENA do: never negative, and one cell each is enough.

    Examples
    --------
    >>> import torch
    >>> cells = torch.arange(12.0).view(4, 3)
    >>> round(rg.nn.mk_mmd(cells, cells, biased=True).item(), 6)  # the same cells
    0.0
    >>> rg.nn.mk_mmd(cells, cells + 20, biased=True).item() > 1
    True
    """
    n, m = len(x), len(y)
    if not biased and (n < 2 or m < 2):
        raise ValueError(f"The unbiased MMD needs two cells on each side, got {n} and {m}.")
    both = torch.cat([x, y])
    square = (both**2).sum(1)
    distance = (square[:, None] + square[None, :] - 2 * both @ both.T).clamp_min(0.0)
    kernels = [torch.exp(-distance / (fix_sigma * 2.0 ** (k - n_kernels // 2))) for k in range(n_kernels)]
    kernel = sum(kernels[1:], kernels[0])
    if biased:
        within = kernel[:n, :n].mean() + kernel[n:, n:].mean()
    else:
        kernel = kernel - torch.diag_embed(torch.diagonal(kernel))
        within = kernel[:n, :n].sum() / (n * (n - 1)) + kernel[n:, n:].sum() / (m * (m - 1))
    return within - 2 * kernel[:n, n:].mean()


def dagma_loss(
    z: torch.Tensor, adjacency: torch.Tensor, *, mu: float, lambda1: float, clamped: bool = False
) -> torch.Tensor:
    r"""DAGMA's objective on given latents (Eq. 7, Eq. S24).

    .. math:: \mu \left(\frac{1}{2n} \|z - zA\|^2 + \lambda_1 |A|\right) + h(A)

    Parameters
    ----------
    z
        Cells x d; detach it where the encoder is not to be shaped by the graph (section E.3.3).
    adjacency
        d x d.
    mu, lambda1
        Weight of the score, and of the sparsity in it.
    clamped
        As in :func:`acyclicity`.

    Examples
    --------
    An edge that explains latent 1 by latent 0 pays for its own weight.

    >>> import torch
    >>> z = torch.tensor([[1.0, 0.5], [-1.0, -0.5], [2.0, 1.0]])
    >>> empty, edge = torch.zeros(2, 2), torch.tensor([[0.0, 0.5], [0.0, 0.0]])
    >>> round(rg.nn.dagma_loss(z, empty, mu=1.0, lambda1=0.05).item(), 3)
    1.25
    >>> round(rg.nn.dagma_loss(z, edge, mu=1.0, lambda1=0.05).item(), 3)
    1.025
    """
    score = 0.5 * F.mse_loss(z @ adjacency, z, reduction="sum") / len(z)
    return mu * (score + lambda1 * adjacency.abs().sum()) + acyclicity(adjacency, clamped=clamped)
