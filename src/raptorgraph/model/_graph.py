"""The graph of a model: inferred from its screen, and asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from raptorgraph._arguments import LARGEST, check_number
from raptorgraph._progress import progress_bar
from raptorgraph.inference import GraphPosterior, infer_graph
from raptorgraph.nn import acyclic_support
from raptorgraph.screen._moments import LogRatioMoments, log_ratio_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.model._splitter import ScreenSplitter

logger = logging.getLogger(__name__)

GRAPHS = ("interventional", "dagma", "fixed")
CALLED = 0.5  # probability from which an edge is one
EDGE_COLUMNS = ("probability", "share", "frequency", "q_value")


def screen_graph(
    X,
    codes: np.ndarray,
    members: np.ndarray,
    targets: Sequence[int],
    *,
    library: np.ndarray | None = None,
    batch: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> GraphPosterior:
    """Infer the graph among perturbed genes from the cells of a screen.

    Parameters
    ----------
    X, codes, library, batch, rows
        As for :func:`raptorgraph.pp.effect_moments`: cells x genes, condition of each cell (0 is control)...
    members
        Conditions x perturbed genes, 0 or 1; row 0 is the control. Conditions of one gene are used; a gene that was
        not perturbed alone gets no edge.
    targets
        Column of each perturbed gene, -1 where it has none.

    Returns
    -------
    GraphPosterior
        Of all perturbed genes, in the order of the columns of `members`.
    """
    moments = log_ratio_moments(X, codes, len(members), library=library, batch=batch, rows=rows)
    return graph_of_log_ratios(moments, members, targets)


def graph_of_log_ratios(moments: LogRatioMoments, members: np.ndarray, targets: Sequence[int]) -> GraphPosterior:
    """Infer the graph from the log ratios of conditions; see :func:`screen_graph`."""
    k = members.shape[1]
    alone = np.flatnonzero((members.sum(1) == 1) & (moments.n > 0))
    alone = alone[alone > 0]
    genes = members[alone].argmax(1)
    genes, first = np.unique(genes, return_index=True)
    found = infer_graph(
        torch.as_tensor(moments.log_ratio[alone[first]]),
        torch.as_tensor(moments.variance[alone[first]]),
        torch.as_tensor(np.asarray(targets, dtype=np.int64)[genes]),
        shared_variance=torch.as_tensor(moments.shared_variance),
    )

    def of_all(values: torch.Tensor) -> torch.Tensor:
        whole = values.new_zeros(k, k)
        whole[np.ix_(genes, genes)] = values
        return whole

    programs = found.programs.new_zeros(k, found.programs.shape[1])
    programs[genes] = found.programs
    return GraphPosterior(of_all(found.weight), of_all(found.probability), of_all(found.share), programs)


class GraphMixin:
    """Inference of the graph before the network is trained on it, and its tables."""

    def _fit_graph(self, splitter: ScreenSplitter) -> None:
        """Infer the graph from all cells but those that are kept for a test, and fix it in the network.

        In units in which every perturbation shifts its own latent alike, weights are those of
        :func:`raptorgraph.inference.infer_graph`; so the strengths stay as they are, too.
        """
        with progress_bar("Inferring the graph"):
            found = graph_of_log_ratios(splitter.known_log_ratios(), self._members(), self._target_columns())
        module = self.module
        module.edge_weight.copy_(found.weight)
        module.edge_probability.copy_(found.probability)
        module.edge_share.copy_(found.share)
        module.edge_frequency.fill_(torch.nan)
        module.edge_q_value.fill_(torch.nan)
        module.graph.fix(torch.where(found.probability >= CALLED, found.weight, 0.0))
        module.modulator.strength.requires_grad_(False)
        n_edges = int((found.probability >= CALLED).sum())
        logger.info("The graph has %d of %d possible edges.", n_edges, len(found.weight) * (len(found.weight) - 1))

    def _known_graph(self) -> torch.Tensor | None:
        """Weights among the perturbed genes, k x k; None where the graph is still to be learned."""
        if self.module.graph_kind == "dagma":
            return None
        k = len(self.perturbed_genes_)
        return self.module.graph.adjacency()[:k, :k].detach()

    def _members(self) -> np.ndarray:
        """Conditions x perturbed genes, 0 or 1; row 0 is the control."""
        return self.screen.design

    def _target_columns(self) -> np.ndarray:
        """Column of each perturbed gene, -1 where it has none; the perturbed genes come first."""
        n_targets = self.module.encoder.preconditioned.n_targets
        columns = np.full(len(self.perturbed_genes_), -1)
        columns[:n_targets] = np.arange(n_targets)
        return columns

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
        k = len(self.perturbed_genes_)
        if min_probability is not None:
            if not self._has_edges:
                raise ValueError(
                    "Edges have probabilities in trained models with graph='interventional': leave min_probability out."
                )
            probability = self.module.edge_probability.cpu().numpy()
            adjacency[:] = 0.0
            adjacency[:k, :k] = np.where(probability >= min_probability, self.module.edge_weight.cpu().numpy(), 0.0)
        if min_frequency is not None:
            frequency = self.module.edge_frequency.cpu().numpy()
            if np.isnan(frequency).all():
                raise ValueError("Frequencies of edges are not known yet: call raptorgraph.tl.dag_stability(model).")
            adjacency[:k, :k][~(frequency >= min_frequency)] = 0.0
            adjacency[k:], adjacency[:, k:] = 0.0, 0.0
        if threshold is not None:
            adjacency[np.abs(adjacency) < threshold] = 0.0
        return pd.DataFrame(adjacency, index=self.latent_names, columns=self.latent_names)

    def get_edges(self) -> pd.DataFrame:
        """Edges of the graph, the most important first.

        Returns
        -------
        DataFrame with one row for each edge of :meth:`get_dag`: ``source``, ``target``, ``weight`` and, for graphs that
        were inferred from interventions, ``probability`` and ``share`` (size of what the edge carries as a part of the
        whole effect of its source, by which rows are sorted); ``frequency`` and ``q_value`` once
        :func:`raptorgraph.tl.dag_stability` was run.

        Examples
        --------
        >>> edges = model.get_edges()
        >>> list(edges.columns)
        ['source', 'target', 'weight', 'probability', 'share']
        """
        dag = self.get_dag()
        source, target = np.nonzero(dag.to_numpy())
        names = dag.index.to_numpy().astype(str)
        table = pd.DataFrame(
            {"source": names[source], "target": names[target], "weight": dag.to_numpy()[source, target]}
        )
        by = table["weight"].abs()
        if self._has_edges:
            for column in EDGE_COLUMNS:
                values = getattr(self.module, f"edge_{column}").cpu().double().numpy()
                if not np.isnan(values).all():
                    # latents without a gene come last, and of their edges nothing was inferred
                    table[column] = np.pad(values, (0, len(dag) - len(values)), constant_values=np.nan)[source, target]
            by = table["share"]
        return table.loc[by.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)

    @property
    def _has_edges(self) -> bool:
        """Whether the graph was inferred from interventions."""
        return self.module.graph_kind == "interventional" and bool(self.module.graph.projected)
