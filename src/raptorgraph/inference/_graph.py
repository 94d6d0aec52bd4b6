r"""Posterior of the graph among perturbed latents: spike-and-slab regression of effects on each other.

=====================================  =======================  ====================================================
symbol                                 name                     meaning
=====================================  =======================  ====================================================
:math:`y, v`                           ``y``, ``v``             measured effects and their sampling variance, k x G
:math:`v_0`                            ``v0``                   sampling variance of the control cells
:math:`c`                              ``c``                    errors of the control cells, part of the effects
:math:`\Lambda`                        ``loadings``             of the effects on these errors, 1 on the first
:math:`e`                              ``e``, ``e_variance``    effects, posterior mean and variance
:math:`W`                              ``weight``, ``edge``,    weights: posterior mean, posterior mean under an
                                       ``probability``          edge, posterior probability of an edge
:math:`b`                              ``program()``            direct effects
:math:`\alpha`                         ``in_program``           posterior probability that a gene is in a program
:math:`\pi`                            ``program_fraction``     prior probability of that
:math:`\tau^2`                         ``program_variance``     variance of direct effects on genes in a program
:math:`\rho`                           ``edge_fraction``        prior probability of an edge
:math:`\sigma_1, \sigma_0`            ``EDGE_SD``,             prior SD of a weight with and without an edge
                                       ``NO_EDGE_SD``
=====================================  =======================  ====================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from raptorgraph._deprecated import with_old_arguments
from raptorgraph._threads import one_thread
from raptorgraph.inference._graph_blocks import BlockVariational
from raptorgraph.inference._graph_variational import Variational

_FEW_LATENTS = 100  # up to which one thread is about as fast as several
_EXACT = 200  # latents up to which every update is exact and in double precision


@dataclass(frozen=True)
class GraphPosterior:
    """What the effects of single perturbations say about the edges among their latents.

    Attributes
    ----------
    weight
        Posterior means of the edges of an acyclic graph, k x k, row = cause: the part of the effect of perturbing j
        that a perturbation of i brings about directly.
    probability
        Probability that there is an edge, k x k; that of edges left out by the acyclicity is 0.
    share
        Size of what the edge carries as a part of the whole effect of its cause, k x k: the best single number to rank
        edges by.
    programs
        Direct effect b of each perturbation, k x G.
    direction_support
        Of each pair with an edge, the probability that it runs from the row to the column and not the other way round,
        k x k: that of the other direction is 1 less this. NaN for other pairs; None where it was not asked for.

    Examples
    --------
    >>> import torch
    >>> effect, variance = torch.eye(3, 30), torch.full((3, 30), 0.01)  # each moves its own gene alone
    >>> found = rg.inference.infer_graph(effect, variance, targets=torch.arange(3))
    >>> found.programs.shape
    torch.Size([3, 30])
    >>> int((found.probability >= 0.5).sum())  # no edge
    0
    """

    weight: torch.Tensor
    probability: torch.Tensor
    share: torch.Tensor
    programs: torch.Tensor
    direction_support: torch.Tensor | None = None


@with_old_arguments(own="targets", shared_variance="control_variance")
@torch.no_grad()
def infer_graph(
    effect: torch.Tensor,
    variance: torch.Tensor,
    targets: torch.Tensor,
    *,
    control_variance: torch.Tensor | None = None,
    control_loadings: torch.Tensor | None = None,
    n_sweeps: int = 20,
    directions: bool = False,
) -> GraphPosterior:
    r"""Infer the graph from the effects of single perturbations and their sampling variance.

    Spike-and-slab regression of the effects on each other, by coordinate ascent variational inference as in [1]_.
    The graph is then made acyclic. Symbols, updates and approximations are in :doc:`/concepts/inference`.

    In the structural model u = u A + z a perturbation of gene i shifts z_i, and a decoder that is linear on the log
    scale turns the shift of u into a shift of log rates. In units of the shift of each perturbation, the effect e_i of
    perturbing i is then what i does itself and, for each child j, a part of the effect of perturbing j:

    .. math::
        e_i = b_i + \sum_j W_{ij} e_j, \qquad y_i = e_i + \sum_r \Lambda_{ir} c_r + \varepsilon_i, \qquad
        \varepsilon_{ig} \sim N(0, v_{ig}), \quad c_{rg} \sim N(0, v_{0g}),

    :math:`W_{ij} = A_{ij} \delta_i / \delta_j` for shifts :math:`\delta`. Only the children of an intervened latent
    explain its effect, its parents never do. Without more, W is not identified: any W fits, with
    :math:`b = (I - W) e`. Two assumptions anchor it. A direct program b reaches few genes,

    .. math:: b_{ig} \sim \pi N(0, \tau^2) + (1 - \pi) \delta_0,

    so that an effect which holds the whole of another, the genes downstream of it included, is explained by an edge
    and not by chance. And the target of a perturbation, where it is measured, is moved by it directly (a wide normal
    prior), while direct effects on the targets of *others* have a separate :math:`\pi` and :math:`\tau`. A weight is
    drawn from :math:`\rho N(0, 0.3^2) + (1 - \rho) N(0, 0.05^2)`, the slab of an edge and the spike of none.

    Parameters
    ----------
    effect
        Effects y on the log scale, k x G.
    variance
        Their sampling variance v without that of the control cells, k x G, positive; genes for which it is infinite in
        any row are left out.
    targets
        Column of each perturbed gene, k, int64; -1 where it is not measured.
    control_variance
        Sampling variance v_0 of the control cells, G; default 0. Their error is part of every effect.
    control_loadings
        Of the effects on further errors of this variance, k x errors: where batches have controls of their own, effects
        of one batch share the error of these (:math:`\Lambda` without its first column, which is 1).
    n_sweeps
        Rounds of updates, before and half as many after the graph was made acyclic.
    directions
        Also say how far the direction of each edge is supported. It takes longer than the graph itself.

    Returns
    -------
    GraphPosterior

    References
    ----------
    .. [1] Carbonetto, P. & Stephens, M. Scalable variational inference for Bayesian variable selection in regression,
       and its accuracy in genetic association studies. *Bayesian Analysis* 7, 73-108 (2012).

    Examples
    --------
    Perturbing 0 does three things directly and, by moving 1, half of what perturbing 1 does.

    >>> import torch
    >>> rng = np.random.default_rng(0)
    >>> program = np.zeros((2, 60))
    >>> program[0, [0, 10, 11, 12]], program[1, 1], program[1, 30:50] = 2.0, 2.0, rng.normal(0, 1.5, 20)
    >>> effect = np.stack([program[0] + 0.5 * program[1], program[1]]) + rng.normal(0, 0.1, (2, 60))
    >>> found = rg.inference.infer_graph(torch.tensor(effect), torch.full((2, 60), 0.01), torch.tensor([0, 1]))
    >>> found.weight.numpy().round(1) + 0.0
    array([[0. , 0.5],
           [0. , 0. ]])
    >>> found.probability.numpy().round(1) + 0.0
    array([[0., 1.],
           [0., 0.]])
    """
    targets, known = targets.to(effect.device), torch.isfinite(variance).all(0)
    v0 = None if control_variance is None else control_variance[known]
    column = torch.cumsum(known, 0) - 1
    targets = torch.where((targets >= 0) & known[targets.clamp_min(0)], column[targets.clamp_min(0)], -1)
    updates = Variational if len(effect) <= _EXACT else BlockVariational
    if control_loadings is not None and v0 is None:
        raise ValueError("control_loadings are of errors with the control_variance: pass that, too.")
    fit = updates(effect[:, known].double(), variance[:, known].double(), targets, v0, control_loadings)
    if len(effect) > 1 and bool(known.any()):
        with one_thread(len(effect) <= _FEW_LATENTS):
            fit.run(n_sweeps)
            fit.make_acyclic()
            fit.run(max(1, n_sweeps // 2), learn=False)
    programs = torch.zeros(effect.shape, dtype=torch.float64, device=effect.device)
    programs[:, known] = fit.program().double()
    support = None
    if directions:
        with one_thread(len(effect) <= _FEW_LATENTS):
            support = fit.direction_support()
    return GraphPosterior(fit.probability * fit.edge, fit.probability, fit.share(), programs, support)
