"""Weighted graphs among the perturbed genes by methods without a model of the whole screen."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LassoLarsIC, LinearRegression

from raptorgraph._docs import docs
from raptorgraph._progress import progress_bar
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._screen import Screen
from raptorgraph.screen._setup import Setup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

STANDARD_ERRORS = 3.0  # below which a log ratio counts as none
SINGULAR = 1e-3  # smallest singular value that is inverted as it is
RIDGE = 1e-3
DAGMA_CELLS = 5000


@docs.dedent
def difference_of_means(adata: AnnData, perturbation_key: str = "perturbation", **setup: Any) -> pd.DataFrame:
    """Total effects: the change of gene j where gene i is perturbed, along all paths between them.

    Parameters
    ----------
    %(graph_setup)s

    Returns
    -------
    pandas.DataFrame
        Shape k x k, row = cause: log ratio of the mean rate of gene j in the cells of i to that in control cells. The
        columns of genes that are not measured are 0.

    Raises
    ------
    KeyError, ValueError
        As :func:`raptorgraph.pp.measured_effects`, or if no gene was perturbed alone.

    Examples
    --------
    >>> graph = rg.baselines.difference_of_means(adata, library_size_key="total_counts")
    >>> bool(graph.loc["P03", "P04"] > 0)  # where P03 is knocked down, P04 rises
    True
    """
    targets = _read(adata, perturbation_key, setup)
    return targets.graph(targets.log_ratios()[0])


@docs.dedent
def modular_response(adata: AnnData, perturbation_key: str = "perturbation", **setup: Any) -> pd.DataFrame:
    r"""Direct effects by inverting the matrix of total effects (modular response analysis; Kholodenko et al. 2002).

    With the log ratios y of :func:`difference_of_means` and own effects as the unit,

    .. math:: T_{ij} = y_{ij} / y_{jj}, \qquad W = I - T^{-1},

    which is exact for the structural model :math:`u = u A + z` without noise, where
    :math:`W_{ij} = A_{ij} \delta_i / \delta_j` for shifts :math:`\delta`. Log ratios of less than three standard errors
    are taken as 0. Genes that are not measured or whose own effect is taken as 0 have no unit: they are left out and
    have no edges. Where the smallest singular value of T is below 1e-3 its inverse is that of a ridge
    regression, :math:`(T^\top T + 10^{-3} I)^{-1} T^\top`.

    Parameters
    ----------
    %(graph_setup)s

    Returns
    -------
    pandas.DataFrame
        Shape k x k, row = cause.

    Raises
    ------
    KeyError, ValueError
        As :func:`difference_of_means`.

    Examples
    --------
    >>> graph = rg.baselines.modular_response(adata, library_size_key="total_counts")
    >>> graph.shape, bool((np.diag(graph) == 0).all())
    ((6, 6), True)
    """
    targets = _read(adata, perturbation_key, setup)
    ratio, error = targets.log_ratios()
    ratio = np.where(np.abs(ratio) >= STANDARD_ERRORS * error, ratio, 0.0)
    used = np.flatnonzero(ratio.diagonal())
    total = ratio[np.ix_(used, used)]
    total = total / total.diagonal()
    weights = np.zeros_like(ratio)
    weights[np.ix_(used, used)] = np.eye(len(used)) - _inverse(total)
    return targets.graph(weights)


@docs.dedent
def sort_by_variance(adata: AnnData, perturbation_key: str = "perturbation", **setup: Any) -> pd.DataFrame:
    """Regress each target on those of smaller variance: what the order of the variances alone reveals.

    The variance is that of the log-normalized expression over all control cells and cells of singles. As in
    "sortnregress" (Reisach et al. 2021) the regression is an adaptive lasso: a lasso whose penalty is chosen by the
    BIC, on covariates times the absolute coefficients of least squares.

    Parameters
    ----------
    %(graph_setup)s

    Returns
    -------
    pandas.DataFrame
        Coefficients, k x k, row = cause. Genes that are not measured or do not vary have no edges.

    Raises
    ------
    KeyError, ValueError
        As :func:`difference_of_means`, or if there are fewer cells than targets.

    Examples
    --------
    >>> graph = rg.baselines.sort_by_variance(adata, library_size_key="total_counts")
    >>> rg.nn.acyclic_support(graph.to_numpy()).sum().item() == (graph != 0).to_numpy().sum().item()  # acyclic
    True
    """
    targets = _read(adata, perturbation_key, setup)
    X, nodes = targets.expression()
    weights = np.zeros((len(targets.genes), len(targets.genes)))
    order = np.argsort(X.var(axis=0), kind="stable")
    for place in range(1, len(order)):
        before, node = order[:place], order[place]
        size = np.abs(LinearRegression().fit(X[:, before], X[:, node]).coef_)
        found = LassoLarsIC(criterion="bic").fit(X[:, before] * size, X[:, node])
        weights[nodes[before], nodes[node]] = found.coef_ * size
    return targets.graph(weights)


@docs.dedent
def dagma_on_targets(
    adata: AnnData, perturbation_key: str = "perturbation", *, seed: int = 0, n_cells: int = DAGMA_CELLS, **setup: Any
) -> pd.DataFrame:
    """Linear DAGMA (Bello et al. 2022) on the expression of the targets, without the perturbation labels.

    The data are the log-normalized expression of control cells and cells of singles, each gene with mean 0 and
    variance 1. The settings are the package's defaults except for the threshold: all weights are returned, of which
    DAGMA's own graph has those of 0.3 or more. With 50 targets it converges within seconds on one core, long before
    its largest number of iterations.

    Parameters
    ----------
    %(graph_setup)s
    seed
        Seed of the draw of cells.
    n_cells
        Largest number of cells; from a larger screen so many are drawn at random.

    Returns
    -------
    pandas.DataFrame
        Weights, k x k, row = cause. Genes that are not measured or do not vary have no edges.

    Raises
    ------
    ImportError
        If dagma is not installed: ``pip install dagma``.
    KeyError, ValueError
        As :func:`difference_of_means`.

    Examples
    --------
    >>> graph = rg.baselines.dagma_on_targets(adata, library_size_key="total_counts", n_cells=500)
    >>> graph.shape
    (6, 6)
    """
    try:
        from dagma.linear import DagmaLinear
    except ImportError as error:
        raise ImportError("The graph of DAGMA needs the package dagma: pip install dagma") from error
    targets = _read(adata, perturbation_key, setup)
    X, nodes = targets.expression(n_cells, seed)
    weights = np.zeros((len(targets.genes), len(targets.genes)))
    if len(nodes) > 1:
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        # its own progress bar cannot be switched off
        with progress_bar("DAGMA"), contextlib.redirect_stderr(io.StringIO()):
            # a list of its own, since the default is changed in place where a step fails
            found = DagmaLinear("l2").fit(X, w_threshold=0.0, s=[1.0, 0.9, 0.8, 0.7, 0.6])
        weights[np.ix_(nodes, nodes)] = found
    return targets.graph(weights)


@docs.dedent
def random_graph_weights(
    adata: AnnData, perturbation_key: str = "perturbation", *, seed: int = 0, **setup: Any
) -> pd.DataFrame:
    """Standard normal weights from each gene to all that follow in a random order.

    Parameters
    ----------
    %(graph_setup)s
    seed
        Seed of weights and order.

    Returns
    -------
    pandas.DataFrame
        Weights of an acyclic graph, k x k, row = cause.

    Raises
    ------
    KeyError, ValueError
        As :func:`difference_of_means`.

    Examples
    --------
    >>> graph = rg.baselines.random_graph_weights(adata, seed=0, library_size_key="total_counts")
    >>> (graph != 0).to_numpy().sum().item()  # all pairs of six genes, in one direction each
    15
    """
    targets = _read(adata, perturbation_key, setup)
    rng = np.random.default_rng(seed)
    k = len(targets.genes)
    place = rng.permutation(k)
    return targets.graph(np.where(place[:, None] < place, rng.standard_normal((k, k)), 0.0))


@dataclass(frozen=True)
class _Targets:
    """The targets of a screen: `genes` (k) that were perturbed alone, and the `measured` ones among them (indices).

    `screen` has the measured targets as its genes; `rows` are the control cells and those of single perturbations.
    """

    screen: Screen
    genes: list[str]
    measured: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, screen: Screen) -> _Targets:
        """Reduce a screen to its targets."""
        genes = [screen.genes_of[label][0] for label in screen.singles]
        if not genes:
            raise ValueError("No gene was perturbed alone: a graph is learned from single perturbations.")
        measured = np.flatnonzero(np.isin(genes, screen.adata.var_names))
        rows = np.flatnonzero(screen.n_perturbed[screen.codes] <= 1)
        return cls(screen.of_genes([genes[i] for i in measured]), genes, measured, rows)

    def log_ratios(self) -> tuple[np.ndarray, np.ndarray]:
        """Log ratios to control and their standard errors, k x k; columns that are not measured are 0."""
        k, single = len(self.genes), self.screen.n_perturbed == 1
        moments = self.screen.log_ratios_of(self.rows)
        ratio, error = np.zeros((k, k)), np.zeros((k, k))
        ratio[:, self.measured] = moments.log_ratio[single]
        error[:, self.measured] = np.sqrt(moments.whole_variance[single])
        return ratio, error

    def expression(self, n_cells: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Expression of the targets that vary, cells x targets, and which of the genes these are.

        If there are more than `n_cells` cells, that many are drawn.
        """
        rows = self.rows
        if n_cells is not None and len(rows) > n_cells:
            rows = np.sort(np.random.default_rng(seed).choice(rows, n_cells, replace=False))
        values = to_dense(self.screen.expression_at(rows)).astype(np.float64)
        varies = np.ptp(values, axis=0) > 0
        return values[:, varies], self.measured[varies]

    def intervened(self) -> np.ndarray:
        """Which of the genes is perturbed in each cell of `rows`, -1 in control cells."""
        place = {gene: i for i, gene in enumerate(self.genes)}
        alone = zip(self.screen.labels, self.screen.n_perturbed == 1, strict=True)
        of_code = np.array([place[self.screen.genes_of[label][0]] if single else -1 for label, single in alone])
        found: np.ndarray = of_code[self.screen.codes[self.rows]]
        return found

    def graph(self, weights: np.ndarray) -> pd.DataFrame:
        """Table of weights, 0 on the diagonal."""
        weights = np.array(weights, dtype=np.float64)
        np.fill_diagonal(weights, 0.0)
        return pd.DataFrame(weights, index=self.genes, columns=self.genes)


def _read(adata: AnnData, perturbation_key: str, setup: Mapping[str, Any]) -> _Targets:
    return _Targets.of(Screen(adata, Setup(perturbation_key, **setup)))


def _inverse(total: np.ndarray) -> np.ndarray:
    """Inverse of total effects, by ridge regression where they are singular or nearly so."""
    if total.size == 0:
        return total
    if np.linalg.svd(total, compute_uv=False)[-1] >= SINGULAR:
        return np.linalg.inv(total)
    return np.linalg.solve(total.T @ total + RIDGE * np.eye(len(total)), total.T)
