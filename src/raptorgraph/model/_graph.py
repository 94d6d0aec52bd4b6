"""The graph of a model: inferred from its screen, and asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._acyclic import acyclic_support
from raptorgraph._arguments import LARGEST, check_choice, check_number
from raptorgraph._progress import progress_bar
from raptorgraph.inference import GraphPosterior, infer_graph
from raptorgraph.inference._graph_modules import ORDERED, cautious_support, gene_modules
from raptorgraph.inference._graph_prior import EDGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.model._module import RaptorGraphModule
    from raptorgraph.screen._moments import LogRatioMoments

logger = logging.getLogger(__name__)

CALLED = EDGE
SUPPORT = "direction_support"
EDGE_COLUMNS = ("probability", "share", SUPPORT, "frequency", "q_value")


def graph_of_log_ratios(
    moments: LogRatioMoments,
    design: np.ndarray,
    targets: Sequence[int] | np.ndarray,
    *,
    directions: bool = False,
) -> GraphPosterior:
    """Infer the graph among perturbed genes from the log ratios of control and conditions.

    Rows of `design` (0 or 1) are the control and the conditions. Conditions of one gene are used; a gene that was not
    perturbed alone gets no edge. Weights and probabilities are in the order of the columns.
    """
    k = design.shape[1]
    alone = np.flatnonzero((design.sum(1) == 1) & (moments.n > 0))
    alone = alone[alone > 0]
    genes = design[alone].argmax(1)
    genes, first = np.unique(genes, return_index=True)
    found = infer_graph(
        torch.as_tensor(moments.log_ratio[alone[first]]),
        torch.as_tensor(moments.variance[alone[first]]),
        torch.as_tensor(np.asarray(targets, dtype=np.int64)[genes]),
        control_variance=torch.as_tensor(moments.shared_variance),
        control_loadings=torch.as_tensor(moments.control_loadings[alone[first]]),
        directions=directions,
    )

    if len(genes) == k:
        return found

    def of_all(values: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        whole = values.new_full((k, k), fill)
        whole[np.ix_(genes, genes)] = values
        return whole

    programs = found.programs.new_zeros(k, found.programs.shape[1])
    programs[genes] = found.programs
    support = None if found.direction_support is None else of_all(found.direction_support, torch.nan)
    return GraphPosterior(of_all(found.weight), of_all(found.probability), of_all(found.share), programs, support)


@dataclass(frozen=True)
class EdgeTable:
    """The graph of a model: inferred from its screen, and asked for.

    Parameters
    ----------
    module
        The network, whose graph it is.
    names
        Name of each latent.

    Examples
    --------
    >>> model.edges.is_inferred
    True
    >>> model.edges.called.shape
    (6, 6)
    """

    module: RaptorGraphModule
    names: Sequence[str]

    # -- inference -------------------------------------------------------------------------------------------------
    def infer(self, moments: LogRatioMoments, design: np.ndarray, targets: np.ndarray) -> None:
        """Infer the graph from what was measured, and fix it in the network.

        Shifts are fixed at one value, so edge weights are in units of the perturbation's effect
        (:func:`raptorgraph.inference.infer_graph`). `moments` are those of all cells but the ones that are kept for a
        test; `design` and `targets` are as for :meth:`Calibration.fit`.
        """
        with progress_bar("Inferring the graph"):
            found = graph_of_log_ratios(moments, design, targets, directions=True)
        module = self.module
        for name in ("weight", "probability", "share", SUPPORT):
            getattr(module, f"edge_{name}").copy_(getattr(found, name))
        for name in ("frequency", "q_value"):  # of another graph
            getattr(module, f"edge_{name}").fill_(torch.nan)
        module.graph.fix(torch.where(found.probability >= CALLED, found.weight, 0.0))
        module.modulator.strength.requires_grad_(False)
        k = self.module.config.n_perturbed
        logger.info("The graph has %d of %d possible edges.", int(self.called.sum()), k * (k - 1))
        for label, genes in self.get_modules().items():
            logger.info("%s: the data do not support an order of %s.", label, ", ".join(genes))

    def keep_stability(self, frequency: np.ndarray, q_value: np.ndarray) -> None:
        """Keep how often edges are found again, and their false discovery rates, each k x k."""
        self.module.edge_frequency.copy_(torch.as_tensor(frequency))
        self.module.edge_q_value.copy_(torch.as_tensor(q_value))

    # -- what is known ---------------------------------------------------------------------------------------------
    @property
    def is_inferred(self) -> bool:
        """Whether the graph was inferred from interventions, so that edges have probabilities."""
        return self.module.config.graph == "interventional" and bool(self.module.graph.projected)

    @property
    def called(self) -> np.ndarray:
        """Edges of the network among the perturbed genes, k x k: those with a probability of 0.5 or more."""
        return self.values("probability") >= CALLED

    def known(self) -> torch.Tensor | None:
        """Weights of the network among the perturbed genes, k x k; None where they are still to be learned."""
        if self.module.config.graph == "dagma":
            return None
        adjacency: torch.Tensor = self.module.graph.adjacency().detach()
        k = self.module.config.n_perturbed
        return adjacency[:k, :k]

    def values(self, name: str) -> np.ndarray:
        """What was inferred of every pair of perturbed genes, k x k, float32, row = cause; NaN where it is not known.

        That is ``"weight"`` (its posterior mean, edge or not), ``"probability"``, ``"share"``,
        ``"direction_support"`` (by all that is known: :meth:`get_edges`), ``"frequency"`` or ``"q_value"``.
        """
        check_choice("name", name, ("weight", *EDGE_COLUMNS))
        values: np.ndarray = getattr(self.module, f"edge_{name}").cpu().numpy()
        return cautious_support(values, self.values("frequency")) if name == SUPPORT else values

    @property
    def unordered(self) -> np.ndarray:
        """Edges of the network whose direction the data do not support, k x k; none where that was not inferred."""
        support = self.values(SUPPORT)
        if not self.is_inferred or np.isnan(support).all():
            return np.zeros(support.shape, dtype=bool)
        return np.asarray(self.called & ~(support >= ORDERED))

    def _modules(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Edges that join genes of a module, and the module of each gene; None where directions were not inferred."""
        support = self.values(SUPPORT)
        if not self.is_inferred or np.isnan(support).all():
            return None
        return gene_modules(self.called, support, self.values("share"))

    def get_modules(self) -> dict[str, list[str]]:
        """Groups of genes that the data cannot order, the largest first.

        They are joined by edges that carry half or more of an effect, and whose direction is not supported: the effects
        are nearly proportional, or one direction is found about as often as the other. The genes belong together, and
        which of them acts through which is not known.

        Returns
        -------
        dict of str to list of str
            Genes by label of the module, as in the column ``module`` of :meth:`get_edges`.

        Examples
        --------
        >>> model.get_modules()  # every edge of this screen has a direction
        {}
        """
        found = self._modules()
        of_gene = np.empty(0, dtype=object) if found is None else found[1]
        names = sorted(set(of_gene) - {""}, key=lambda label: int(label[1:]))
        return {name: [self.names[i] for i in np.flatnonzero(of_gene == name).tolist()] for name in names}

    def get_dag(
        self,
        threshold: float | None = None,
        *,
        min_probability: float | None = None,
        min_frequency: float | None = None,
    ) -> pd.DataFrame:
        """Adjacency of the latents, acyclic.

        Parameters
        ----------
        threshold
            Drop edges with an absolute weight below it.
        min_probability
            Edges from this probability on; 0 gives every weight of the posterior, also of edges that are unlikely and
            not in the network. Default: the network's graph, whose edges have a probability of 0.5 or more.
        min_frequency
            Drop edges that were found in a smaller share of the resampled screens of
            :func:`raptorgraph.tl.dag_stability`.

        Returns
        -------
        DataFrame d x d, row = cause, column = effect: the part of the effect of perturbing the column's gene that
        perturbing the row's gene brings about directly. (With ``graph="dagma"`` in units of the latents.)

        Raises
        ------
        ValueError
            If probabilities are asked of a graph that was not inferred from interventions, or frequencies before
            :func:`raptorgraph.tl.dag_stability` was run; for a threshold below 0, and shares that are not from 0 to 1.

        Examples
        --------
        >>> dag = model.get_dag()
        >>> list(dag.index) == list(dag.columns) == model.latent_names
        True
        >>> sure = model.get_dag(min_probability=0.9)
        >>> bool(((sure == 0) | (sure == dag)).all(axis=None))
        True
        """
        for name, value, high in (
            ("threshold", threshold, LARGEST),
            ("min_probability", min_probability, 1),
            ("min_frequency", min_frequency, 1),
        ):
            if value is not None:
                check_number(name, value, 0, high)
        adjacency = self.module.graph.adjacency().detach().cpu().numpy().astype(float)
        adjacency = adjacency * acyclic_support(adjacency)
        k = self.module.config.n_perturbed
        if min_probability is not None:
            if not self.is_inferred:
                raise ValueError(
                    "Edges have probabilities in trained models with graph='interventional': leave min_probability out."
                )
            adjacency[:] = 0.0
            adjacency[:k, :k] = np.where(self.values("probability") >= min_probability, self.values("weight"), 0.0)
        if min_frequency is not None:
            frequency = self.values("frequency")
            if np.isnan(frequency).all():
                raise ValueError("Frequencies of edges are not known yet: call raptorgraph.tl.dag_stability(model).")
            adjacency[:k, :k][~(frequency >= min_frequency)] = 0.0
            adjacency[k:], adjacency[:, k:] = 0.0, 0.0
        if threshold is not None:
            adjacency[np.abs(adjacency) < threshold] = 0.0
        return pd.DataFrame(adjacency, index=list(self.names), columns=list(self.names))

    def get_edges(self) -> pd.DataFrame:
        """Edges of the graph, the most important first.

        Returns
        -------
        DataFrame with one row for each edge of :meth:`get_dag`: ``source``, ``target``, ``weight`` and, for graphs that
        were inferred from interventions,

        - ``probability`` of the edge under the model;
        - ``share``: size of what the edge carries as a part of the whole effect of its source, by which rows are
          sorted. It says that the source acts *through* the target only if the edge has a direction;
        - ``direction_support``: probability that the edge runs this way and not the other, by the evidence of the
          effects (:func:`raptorgraph.inference.infer_graph`). Once :func:`raptorgraph.tl.dag_stability` was run, the
          more cautious of that and of the part of the resampled graphs with either edge that have this one;
          Below 0.8 read the edge as a line without an arrowhead;
        - ``module``: category, the group of genes that the data cannot order (:meth:`get_modules`), of edges that join
          them: those that carry half or more of an effect and have no direction. NA for all others;
        - ``frequency`` and ``q_value`` once :func:`raptorgraph.tl.dag_stability` was run.

        Examples
        --------
        >>> edges = model.get_edges()
        >>> list(edges.columns)
        ['source', 'target', 'weight', 'probability', 'share', 'direction_support', 'module']
        """
        dag = self.get_dag()
        source, target = np.nonzero(dag.to_numpy())
        names = dag.index.to_numpy().astype(str)
        table = pd.DataFrame(
            {"source": names[source], "target": names[target], "weight": dag.to_numpy()[source, target]}
        )
        by = table["weight"].abs()
        if self.is_inferred:
            for column in EDGE_COLUMNS:
                values = self.values(column).astype(np.float64)
                if not np.isnan(values).all() or (table.empty and column in ("probability", "share", SUPPORT)):
                    # latents without a gene come last, and of their edges nothing was inferred
                    table[column] = np.pad(values, (0, len(dag) - len(values)), constant_values=np.nan)[source, target]
                if column == SUPPORT and column in table:
                    table["module"] = self._modules_of(source, target)
            by = table["share"]
        return table.loc[by.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)

    def _modules_of(self, source: np.ndarray, target: np.ndarray) -> pd.Categorical:
        modules = self._modules()
        labels = np.full(len(source), None, dtype=object)
        if modules is not None:
            joins, of_gene = modules
            known = np.flatnonzero((source < len(joins)) & (target < len(joins)))  # of latents with a gene
            known = known[joins[source[known], target[known]]]
            labels[known] = of_gene[source[known]]
        return pd.Categorical(labels, categories=list(self.get_modules()))
