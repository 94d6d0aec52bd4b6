"""Graphs by methods that are told which gene of each cell was perturbed: dotears and SDCD."""

from __future__ import annotations

import contextlib
import io
import os
import random
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.linalg import expm
from scipy.optimize import Bounds, minimize

from raptorgraph._docs import docs
from raptorgraph._progress import progress_bar
from raptorgraph.baselines._graphs import _read
from raptorgraph.baselines._peer_environments import installed
from raptorgraph.baselines._peer_process import answered
from raptorgraph.baselines._peers import PEERS
from raptorgraph.baselines.peers import sdcd_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

LEAST_VARIANCE = 0.01  # of an intervened target, over that in control cells: a gene that is gone does not vary
_ROUNDS = 100
_TOLERANCE = 1e-8  # of the acyclicity
_LARGEST_PENALTY = 1e16
SDCD_TOOL = PEERS["sdcd"]
# it pins an old pandas, which it does not need
SDCD_INSTALL = (
    "pip install wandb && pip install --no-deps sdcd, or, in an environment of its own, raptorgraph peers install sdcd"
)


@docs.dedent
def dotears(
    adata: AnnData, perturbation_key: str = "perturbation", *, penalty: float = 0.1, **setup: Any
) -> pd.DataFrame:
    r"""Linear structural model of observed and intervened cells together (dotears; Xue et al. 2023).

    As in NOTEARS the weights are those of an acyclic linear model. A regime r of cells in which gene r is intervened on
    says nothing of the parents of r, and what is left of the variance of r there is its exogenous variance:

    .. math::
        \min_W \frac{1}{2 R} \sum_r \frac{1}{n_r} \big\| (X_r - X_r W_r)\, \Omega^{-1/2} \big\|_F^2 + \lambda \|W\|_1
        \quad \text{such that} \quad \operatorname{tr} e^{W \circ W} = k ,

    with :math:`W_r` the weights without those into r, every regime centered, and
    :math:`\Omega = \operatorname{diag}(\operatorname{Var}_{r}(x_r))`. This is an implementation of this package, since
    none can be installed; where the published script leaves the gradient of the weights into r in, this one has the
    gradient of the objective. A variance is at least 0.01 of that in control cells: a gene that is knocked out
    completely does not vary.

    Parameters
    ----------
    %(graph_setup)s
    penalty
        Weight :math:`\lambda` of the absolute weights.

    Returns
    -------
    pandas.DataFrame
        Weights, k x k, row = cause. Genes that are not measured or do not vary have no edges.

    Raises
    ------
    KeyError, ValueError
        As :func:`difference_of_means`.

    Examples
    --------
    >>> graph = rg.baselines.dotears(adata, library_size_key="total_counts")
    >>> graph.shape
    (6, 6)
    """
    targets = _read(adata, perturbation_key, setup)
    X, nodes = targets.expression()
    weights = np.zeros((len(targets.genes), len(targets.genes)))
    if len(nodes) > 1:
        regime = targets.intervened()
        regime = np.array([np.flatnonzero(nodes == gene)[0] if gene in nodes else -1 for gene in regime])
        kept = (regime >= 0) | (targets.intervened() < 0)  # cells of targets that are not measured are of no regime
        with progress_bar("dotears"):
            weights[np.ix_(nodes, nodes)] = fit_dotears(X[kept], regime[kept], penalty)
    return targets.graph(weights)


def fit_dotears(X: np.ndarray, regime: np.ndarray, penalty: float) -> np.ndarray:
    """Weights p x p of dotears.

    `X` has n cells by p genes and `regime` the gene that is intervened on in each, -1 for none.
    """
    p = X.shape[1]
    regimes = np.unique(regime)
    covariance = np.stack([np.cov(X[regime == r], rowvar=False, ddof=0) for r in regimes])
    control = covariance[regimes < 0].mean(axis=0) if (regimes < 0).any() else covariance.mean(axis=0)
    variance = control.diagonal().copy()
    for r, here in zip(regimes, covariance, strict=True):
        if r >= 0:
            variance[r] = max(here[r, r], LEAST_VARIANCE * variance[r])
    free = np.ones((len(regimes), p))  # whether the parents of a gene act on it in a regime
    free[regimes >= 0, regimes[regimes >= 0]] = 0.0
    precision = 1 / np.maximum(variance, 1e-12)

    def loss(W: np.ndarray) -> tuple[float, np.ndarray]:
        rest = np.eye(p) - free[:, None, :] * W
        moved = covariance @ rest
        value = 0.5 * np.einsum("rij,rij,j->", rest, moved, precision) / len(regimes)
        return float(value), -(moved * free[:, None, :] * precision).sum(axis=0) / len(regimes)

    def objective(halves: np.ndarray, rho: float, alpha: float) -> tuple[float, np.ndarray]:
        W = halves[0] - halves[1]
        value, gradient = loss(W)
        grown = expm(W * W)
        h = np.trace(grown) - p
        gradient = gradient + (rho * h + alpha) * 2 * grown.T * W
        total = value + 0.5 * rho * h**2 + alpha * h + penalty * halves.sum()
        return total, np.stack([gradient + penalty, penalty - gradient])

    halves, rho, alpha, h = np.zeros((2, p, p)), 1.0, 0.0, np.inf
    bounds = Bounds(0, np.tile(np.where(np.eye(p, dtype=bool), 0.0, np.inf), (2, 1, 1)).ravel())
    for _ in range(_ROUNDS):
        found, found_h = halves, h
        while rho < _LARGEST_PENALTY:

            def flat(values: np.ndarray, rho: float = rho, alpha: float = alpha) -> tuple[float, np.ndarray]:
                value, gradient = objective(values.reshape(2, p, p), rho, alpha)
                return value, gradient.ravel()

            found = minimize(flat, halves.ravel(), method="L-BFGS-B", jac=True, bounds=bounds).x.reshape(2, p, p)
            W = found[0] - found[1]
            found_h = float(np.trace(expm(W * W)) - p)
            if found_h <= 0.25 * h:
                break
            rho *= 10
        halves, h = found, found_h
        alpha += rho * h
        if h <= _TOLERANCE or rho >= _LARGEST_PENALTY:
            break
    return np.asarray(halves[0] - halves[1])


@docs.dedent
def sdcd(
    adata: AnnData,
    perturbation_key: str = "perturbation",
    *,
    max_epochs: int = 2000,
    seed: int = 0,
    **setup: Any,
) -> pd.DataFrame:
    """Stable differentiable causal discovery (SDCD; Nazaret et al. 2024) on the expression of the targets.

    The original package, here or in an environment of its own, with its settings, on log-normalized expression, each
    gene with mean 0 and variance 1. Cells of genes that are not measured are left out.

    Parameters
    ----------
    %(graph_setup)s
    max_epochs
        Largest number of epochs of each of its two stages.
    seed
        Seed of the start and the order of the cells, although the package sets a seed of its own.

    Returns
    -------
    pandas.DataFrame
        Strengths of the edges, 0 or more, k x k, row = cause: its own graph has those of 0.1 or more. Genes that are
        not measured or do not vary have no edges.

    Raises
    ------
    ImportError
        If the package is installed neither here (``pip install wandb && pip install --no-deps sdcd``; it pins an old
        pandas, which it does not need) nor in an environment of its own (``raptorgraph peers install sdcd``).
    KeyError, ValueError
        As :func:`difference_of_means`.

    Examples
    --------
    >>> graph = rg.baselines.sdcd(adata, library_size_key="total_counts", max_epochs=2)  # doctest: +SKIP
    """
    here = find_spec("sdcd") is not None
    if not here and installed(SDCD_TOOL) is None:
        raise ImportError(f"The graph of SDCD needs the package sdcd: {SDCD_INSTALL}")
    targets = _read(adata, perturbation_key, setup)
    X, nodes = targets.expression()
    weights = np.zeros((len(targets.genes), len(targets.genes)))
    if len(nodes) > 1:
        hit = targets.intervened()
        kept = (hit < 0) | np.isin(hit, nodes)
        values = ((X - X.mean(axis=0)) / X.std(axis=0))[kept]
        # column of the gene that is perturbed in each cell
        column = np.array([np.flatnonzero(nodes == gene)[0] if gene >= 0 else -1 for gene in hit[kept]])
        with progress_bar("SDCD"):
            if here:
                with _own_randomness(seed), contextlib.redirect_stdout(io.StringIO()):
                    found = sdcd_adapter.strengths(values, column, max_epochs)
            else:
                found = _sdcd_apart(values, column, max_epochs, seed)
        weights[np.ix_(nodes, nodes)] = found
    return targets.graph(weights)


def _sdcd_apart(values: np.ndarray, column: np.ndarray, max_epochs: int, seed: int) -> np.ndarray:
    """Strengths by SDCD in an environment of its own."""
    obs = pd.DataFrame({"target": column}, index=[f"cell{i}" for i in range(len(column))])
    names = [f"gene{i}" for i in range(values.shape[1])]
    cells = ad.AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=names))
    task = {"epochs": max_epochs, "seed": seed}
    threads, log = torch.get_num_threads(), f"{SDCD_TOOL.name}-{os.getpid()}"
    with answered(SDCD_TOOL, cells, task, log=log, threads=threads) as answer:
        found = pd.read_csv(answer.folder / "strengths.csv", index_col=0)
    return np.asarray(found.loc[names, names], dtype=float)


@contextlib.contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Leave the global generators, which the package seeds, as they were."""
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])  # noqa: NPY002
