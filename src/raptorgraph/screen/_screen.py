"""A screen: its cells, their labels parsed once, the design of its conditions, and sums over cells."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph._order import name_order, places
from raptorgraph.screen._cell_labels import parse_obs
from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import batch_codes, expression_source
from raptorgraph.screen._matrix import to_dense
from raptorgraph.screen._moments import effects_of, log_ratios_of, moments_of
from raptorgraph.screen._names import gene_names, strip_gene_names
from raptorgraph.screen._setup import Setup
from raptorgraph.screen._stored import keeps_order, with_columns
from raptorgraph.screen._sums import add_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from raptorgraph.screen._labels import ParsedLabels
    from raptorgraph.screen._matrix import Matrix
    from raptorgraph.screen._moments import ConditionMoments, EffectMoments, LogRatioMoments
    from raptorgraph.screen._sums import Sums


class Screen:
    """Cells of a screen, their conditions, and what was measured on them.

    `adata` is unchanged. Labels are parsed at once, values are read when they are first needed.

    Parameters
    ----------
    adata
        Cells x genes, with a perturbation label for each cell.
    setup
        A :class:`Setup`, or its arguments by name.
    parsed
        Labels of the cells, where they are known already; default those in ``adata.obs``.
    source
        Matrix and library sizes, where they are known already; default as the setup says.
    batch
        Batch of each cell, where it is known already.
    var_names
        Genes of the matrix in `source`; default those of `adata`, in their order.

    Attributes
    ----------
    adata, setup, parsed, var_names
        As above; blanks around the names of genes are taken away, on a copy.
    codes
        Shape (n_cells,), int: condition of each cell, 0 being the control.
    labels
        Canonical labels of control and all conditions, by code.
    genes_of
        Genes of each label.

    Raises
    ------
    KeyError
        If the column of labels is not there.
    ValueError
        If labels are missing or none is that of a control.

    Examples
    --------
    >>> screen = rg.screen.Screen(adata, {"library_size_key": "total_counts"})
    >>> screen.singles
    ['P01', 'P02', 'P03', 'P04', 'P05', 'P06']
    >>> screen.combinations
    ['P01+P03', 'P02+P03', 'P02+P06', 'P03+P06']
    >>> len(screen.rows("control"))
    300
    >>> screen.effects.shape
    (10, 100)
    """

    def __init__(
        self,
        adata: AnnData,
        setup: Setup | Mapping[str, Any] | None = None,
        *,
        parsed: ParsedLabels | None = None,
        source: tuple[Matrix, np.ndarray | None] | None = None,
        batch: np.ndarray | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        self.setup = Setup.of({} if setup is None else setup)
        if parsed is None:
            parsed = parse_obs(adata, self.setup.perturbation_key, **self.setup.spelling, require_control=True)
        if list(gene_names(adata)) != list(adata.var_names):
            if keeps_order(adata, self.setup.layer):  # of which there is no copy
                var_names = gene_names(adata) if var_names is None else var_names
            else:
                adata = adata.copy()
                strip_gene_names(adata)
        self.adata, self.parsed, self.codes = adata, parsed, parsed.codes
        self.var_names = adata.var_names if var_names is None else pd.Index(var_names)
        self.labels = [self.setup.label(genes) for genes in parsed.conditions]
        self.genes_of = dict(zip(self.labels, parsed.conditions, strict=True))
        if source is not None:
            self.source = source
            self.batch = batch

    def of_genes(self, genes: Sequence[str]) -> Screen:
        """Screen of some of the genes, in the order given; library sizes stay those of all."""
        columns = self.var_names.get_indexer(genes)
        X, library = self.source
        source, cells = (X[:, columns], library), with_columns(self.adata, gene_names(self.adata).get_indexer(genes))
        return Screen(cells, self.setup, parsed=self.parsed, source=source, batch=self.batch)

    def with_codes(self, codes: np.ndarray) -> Screen:
        """Screen of the same cells in other conditions, such as permuted ones."""
        parsed = replace(self.parsed, codes=codes)
        known = {"source": self.source, "batch": self.batch, "var_names": self.var_names}
        return Screen(self.adata, self.setup, parsed=parsed, **known)

    def by_name(self) -> Screen:
        """Screen of the same cells whose conditions come in the order of their genes, the smallest sets first."""
        conditions = self.parsed.conditions
        order = [0, *sorted(range(1, len(conditions)), key=lambda i: (len(conditions[i]), conditions[i]))]
        parsed = replace(
            self.parsed,
            codes=places(np.array(order))[self.codes],
            conditions=tuple(conditions[i] for i in order),
        )
        known = {"source": self.source, "batch": self.batch, "var_names": self.var_names}
        return Screen(self.adata, self.setup, parsed=parsed, **known)

    # -- conditions --------------------------------------------------------------------------------------------------
    @property
    def control(self) -> str:
        """Canonical label of the control."""
        return self.labels[0]

    @property
    def conditions(self) -> list[str]:
        """Canonical labels of the perturbations, without control."""
        return self.labels[1:]

    @property
    def singles(self) -> list[str]:
        """Conditions of one gene."""
        return [label for label in self.conditions if len(self.genes_of[label]) == 1]

    @property
    def combinations(self) -> list[str]:
        """Conditions of two genes or more."""
        return [label for label in self.conditions if len(self.genes_of[label]) > 1]

    @property
    def spelling(self) -> dict[str, Any]:
        """How labels are spelled, as arguments of :func:`raptorgraph.pp.format_perturbation`."""
        return self.setup.spelling

    def label(self, genes: Sequence[str]) -> str:
        """Canonical label of the perturbation of these genes; that of the control without genes."""
        return self.setup.label(genes)

    def single(self, gene: str) -> str:
        """Canonical label of the perturbation of one gene."""
        return self.setup.label([gene])

    @cached_property
    def perturbed_genes(self) -> list[str]:
        """Perturbed genes: those with a column in the data first, both parts in alphabetical order."""
        return order_genes(self.parsed.genes, self.var_names)

    @cached_property
    def design(self) -> np.ndarray:
        """Control and conditions x perturbed genes, 0 or 1: which genes are perturbed in which condition."""
        return design_matrix(self.parsed.conditions, self.perturbed_genes)

    @cached_property
    def n_perturbed(self) -> np.ndarray:
        """Number of perturbed genes of control (0) and all conditions, by code."""
        return np.array([len(genes) for genes in self.parsed.conditions])

    # -- cells -------------------------------------------------------------------------------------------------------
    @cached_property
    def n_cells(self) -> pd.Series:
        """Number of cells of control and all conditions, by label."""
        return pd.Series(np.bincount(self.codes, minlength=len(self.labels)), index=self.labels)

    def rows(self, label: str) -> np.ndarray:
        """Rows of the cells of a condition, or of the control."""
        return np.flatnonzero(self.codes == self.labels.index(label))

    def rows_by_name(self, label: str) -> np.ndarray:
        """Rows of the cells of a condition, or of the control, in the order of their names, for random draws."""
        rows = self.rows(label)
        found: np.ndarray = rows[name_order(self.adata.obs_names[rows])]
        return found

    def cells(self, conditions: Sequence[str]) -> AnnData:
        """Copy of the control cells and those of the given conditions."""
        wanted = [0, *(self.labels.index(label) for label in conditions)]
        cells = self.adata[np.isin(self.codes, wanted)]
        return cells.to_memory() if cells.isbacked else cells.copy()

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of two random halves of every condition, control included."""
        rng = np.random.default_rng([seed, 1])
        first, second = [], []
        for code in range(len(self.labels)):
            rows = rng.permutation(self.rows_by_name(self.labels[code]))
            first.append(rows[: len(rows) // 2])
            second.append(rows[len(rows) // 2 :])
        return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))

    # -- values ------------------------------------------------------------------------------------------------------
    @cached_property
    def source(self) -> tuple[Matrix, np.ndarray | None]:
        """Cells x genes and library sizes, which are None where the matrix is on the expression scale."""
        return expression_source(self.adata, self.setup.layer, self.setup.library_size_key)

    @cached_property
    def batch(self) -> np.ndarray | None:
        """Shape (n_cells,), int: batch of each cell; None without batches."""
        return batch_codes(self.adata, self.setup.batch_key)

    @cached_property
    def expression(self) -> sparse.csr_matrix:
        """Cells x genes on the expression scale, float32."""
        return sparse.csr_matrix(to_expression(*self.source))

    def expression_at(self, rows: np.ndarray) -> Matrix:
        """Some of the cells x genes on the expression scale, float32, sparse where the data are."""
        X, library = self.source
        return to_expression(X[rows], None if library is None else library[rows])

    def expression_of(self, label: str) -> np.ndarray:
        """Cells of a condition x genes on the expression scale, dense."""
        return to_dense(self.expression_at(self.rows(label)))

    # -- what was measured -------------------------------------------------------------------------------------------
    def sums(self, rows: np.ndarray | None = None, *, part: np.ndarray | None = None, rates: bool = False) -> Sums:
        """Sums over cells by condition, batch and part, in one pass; arguments as for :func:`add_up`."""
        X, library = self.source
        n, batch = len(self.labels), self.batch
        return add_up(X, self.codes, n, library=library, batch=batch, part=part, rows=rows, rates=rates)

    @cached_property
    def _all(self) -> Sums:
        return self.sums()

    @cached_property
    def moments(self) -> EffectMoments:
        """Measured effects of control and all conditions, in the order of ``labels``."""
        return effects_of(self._all)

    @cached_property
    def condition_moments(self) -> ConditionMoments:
        """Number of cells, mean and variance of control and all conditions, in the order of ``labels``."""
        return moments_of(self._all)

    def moments_of(self, rows: np.ndarray | None = None, shrinkage: float = 10.0) -> EffectMoments:
        """Effects measured on some of the cells."""
        return effects_of(self._all if rows is None else self.sums(rows), shrinkage)

    def log_ratios_of(self, rows: np.ndarray | None = None) -> LogRatioMoments:
        """Log ratios of mean rates to those of control, measured on some of the cells."""
        return log_ratios_of(self.sums(rows, rates=True))

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Measured effects, conditions x genes, float64."""
        return self._table(self.moments)

    def effects_of(self, rows: np.ndarray) -> pd.DataFrame:
        """Effects measured on some of the cells, conditions x genes."""
        return self._table(self.moments_of(rows))

    def _table(self, moments: EffectMoments) -> pd.DataFrame:
        index = pd.Index(self.conditions, name="perturbation")
        return pd.DataFrame(moments.effect[1:], index=index, columns=self.var_names)

    @property
    def control_mean(self) -> np.ndarray:
        """Mean of the control cells, shape (n_genes,), float64."""
        return np.asarray(self.condition_moments.mean[0])


def order_genes(genes: Sequence[str], var_names: Sequence[str]) -> list[str]:
    """Perturbed genes with a column in the data first, both parts in alphabetical order."""
    present = set(var_names)
    return [g for g in genes if g in present] + [g for g in genes if g not in present]


def design_matrix(conditions: Sequence[Sequence[str]], genes: Sequence[str]) -> np.ndarray:
    """Conditions x genes, 0 or 1, float64."""
    return to_dense(sparse_design(conditions, genes))


def sparse_design(conditions: Sequence[Sequence[str]], genes: Sequence[str]) -> sparse.csr_matrix:
    """The same in CSR, which takes no memory for the genes that a condition leaves alone."""
    column = {gene: j for j, gene in enumerate(genes)}
    members = [sorted(column[gene] for gene in condition) for condition in conditions]
    ends = np.cumsum([0, *map(len, members)])
    columns = np.fromiter(chain.from_iterable(members), dtype=np.int64, count=ends[-1])
    return sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(conditions), len(genes)))
