"""A screen: cells, conditions, and effects with their sampling variance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import batch_codes, expression_source
from raptorgraph.screen._labels import format_perturbation, parse_obs
from raptorgraph.screen._moments import ConditionMoments, EffectMoments, condition_moments, effect_moments
from raptorgraph.screen._names import gene_names, strip_gene_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad


@dataclass
class Screen:
    """A screen and its setup.

    Attributes
    ----------
    adata
        Cells x genes.
    setup
        Arguments of ``setup_anndata``.

    Examples
    --------
    >>> screen = rg.benchmark.Screen(
    ...     adata, {"perturbation_key": "perturbation", "control": "control", "delimiter": "+"}
    ... )
    >>> screen.singles
    ['P01', 'P02', 'P03', 'P04', 'P05', 'P06']
    >>> screen.combinations
    ['P01+P03', 'P02+P03', 'P02+P06', 'P03+P06']
    >>> len(screen.rows("control"))
    300
    """

    adata: ad.AnnData
    setup: Mapping[str, Any]

    def __post_init__(self) -> None:
        parsed = parse_obs(self.adata, self.setup["perturbation_key"], require_control=True, **self.spelling)
        if list(gene_names(self.adata)) != list(self.adata.var_names):
            self.adata = self.adata.copy()
            strip_gene_names(self.adata)
        self.codes = parsed.codes
        self.labels = [self.label(genes) for genes in parsed.conditions]
        self.genes_of = dict(zip(self.labels, parsed.conditions, strict=True))
        self.control = self.labels[0]

    @property
    def spelling(self) -> dict[str, Any]:
        """How labels are spelled, as arguments of :func:`raptorgraph.format_perturbation`."""
        return {"control": self.setup["control"], "delimiter": self.setup["delimiter"]}

    def label(self, genes: Sequence[str]) -> str:
        """Canonical label of the perturbation of these genes; of control without any."""
        return format_perturbation(genes, **self.spelling)

    def single(self, gene: str) -> str:
        """Canonical label of the perturbation of one gene."""
        return self.label([gene])

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

    def rows(self, label: str) -> np.ndarray:
        """Rows of the cells of a condition, or of ``"control"``."""
        return np.flatnonzero(self.codes == self.labels.index(label))

    def cells(self, conditions: Sequence[str]) -> ad.AnnData:
        """Copy of the control cells and those of the given conditions."""
        wanted = [0, *(self.labels.index(label) for label in conditions)]
        return self.adata[np.isin(self.codes, wanted)].copy()

    @cached_property
    def expression(self) -> sparse.csr_matrix:
        """Cells x genes on the expression scale."""
        X, library = expression_source(self.adata, self.setup.get("layer"), self.setup.get("library_size_key"))
        return sparse.csr_matrix(to_expression(X, library))

    @cached_property
    def moments(self) -> EffectMoments:
        """Measured effects of control and all conditions, in the order of ``labels``."""
        return self.moments_of(None)

    @cached_property
    def condition_moments(self) -> ConditionMoments:
        """Number of cells, mean and variance of control and all conditions, in the order of ``labels``."""
        return condition_moments(self.expression, self.codes, len(self.labels))

    def expression_of(self, label: str) -> np.ndarray:
        """Cells of a condition x genes on the expression scale, dense."""
        return self.expression[self.rows(label)].toarray()

    def moments_of(self, rows: np.ndarray | None) -> EffectMoments:
        """Effects measured on some of the cells."""
        batch = batch_codes(self.adata, self.setup.get("batch_key"))
        return effect_moments(self.expression, self.codes, len(self.labels), batch=batch, rows=rows)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Measured effects, conditions x genes."""
        return self._table(self.moments)

    def effects_of(self, rows: np.ndarray) -> pd.DataFrame:
        """Effects measured on some of the cells, conditions x genes."""
        return self._table(self.moments_of(rows))

    def _table(self, moments: EffectMoments) -> pd.DataFrame:
        return pd.DataFrame(moments.effect[1:], index=self.conditions, columns=self.adata.var_names)

    @cached_property
    def control_mean(self) -> np.ndarray:
        """Mean of the control cells, shape (n_genes,)."""
        return np.asarray(self.expression[self.codes == 0].mean(axis=0), dtype=np.float64).ravel()

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of two random halves of every condition, control included."""
        rng = np.random.default_rng([seed, 1])
        first, second = [], []
        for code in range(len(self.labels)):
            rows = rng.permutation(np.flatnonzero(self.codes == code))
            first.append(rows[: len(rows) // 2])
            second.append(rows[len(rows) // 2 :])
        return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))
