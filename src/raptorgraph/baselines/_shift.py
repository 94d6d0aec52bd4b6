"""Baselines that move control cells by a predicted mean effect."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph.baselines._base import Baseline, draw_controls, stack_cells
from raptorgraph.screen._expression import to_expression
from raptorgraph.screen._inputs import batch_codes, expression_source
from raptorgraph.screen._moments import effect_moments
from raptorgraph.screen._names import gene_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from anndata import AnnData


@dataclass(frozen=True)
class TrainingEffects:
    """Measured effects of the training perturbations against control.

    Attributes
    ----------
    conditions
        Sorted genes of each perturbation, C of them, without the control.
    effect
        Shape (C, n_genes): mean difference on the expression scale.
    variance
        Shape (C, n_genes): sampling variance of `effect`.
    """

    conditions: tuple[tuple[str, ...], ...]
    effect: np.ndarray
    variance: np.ndarray

    @property
    def combined(self) -> np.ndarray:
        """Shape (C,), bool: whether the perturbation has two genes or more."""
        return np.array([len(genes) > 1 for genes in self.conditions])


class ShiftBaseline(Baseline):
    """A baseline whose perturbed cell is a control cell plus the predicted effect.

    Effects are measured by :func:`raptorgraph.pp.measured_effects`. Combinations are always predicted, also those in
    the training data. Predicted cells can lie below 0 on the expression scale: clipped there, their mean would not be
    the mean of the control cells plus the effect.
    """

    def fit(self, adata: AnnData) -> Self:
        """Measure the effects of the training perturbations; see :meth:`Baseline.fit`."""
        parsed = self._parse_training(adata)
        self._check_training(parsed.conditions[1:])
        args = self.setup_args
        X, library = expression_source(adata, args["layer"], args["library_size_key"])
        batch = batch_codes(adata, args["batch_key"])
        moments = effect_moments(X, parsed.codes, len(parsed.conditions), library=library, batch=batch)
        controls = np.flatnonzero(parsed.codes == 0)
        values = to_expression(X[controls], None if library is None else library[controls])
        self._learn(TrainingEffects(parsed.conditions[1:], moments.effect[1:], moments.variance[1:]))
        self._control = sparse.csr_matrix(values)
        self._control_names = adata.obs_names[controls].to_numpy(dtype=str)
        self._var = adata.var.set_axis(gene_names(adata))
        self._conditions = parsed.conditions[1:]
        return self

    def predict_effects(self, perturbations: str | Sequence[str]) -> pd.DataFrame:
        """Predict mean effects; see :meth:`Baseline.predict_effects`."""
        labels, sets = self._asked(perturbations)
        shifts = self._shifts(sets)
        shifts[[not genes for genes in sets]] = 0.0
        return pd.DataFrame(shifts, index=pd.Index(labels, name="perturbation"), columns=self._var.index)

    def predict(self, perturbations: str | Sequence[str], n_cells: int | None = None, seed: int = 0) -> AnnData:
        """Control cells plus the predicted effect; see :meth:`Baseline.predict`.

        The same control cells serve all perturbations: all of them by default, so that mean differences are the
        predicted effects; fewer are drawn without, more with replacement. ``X`` is dense, float32.
        """
        effects = self.predict_effects(perturbations)
        rows = draw_controls(len(self._control_names), n_cells, seed)
        start = self._control[rows].toarray()
        X = start[None] + effects.to_numpy(dtype=np.float32)[:, None]
        return stack_cells(X.reshape(-1, X.shape[-1]), list(effects.index), self._control_names[rows], self._var)

    def predict_control(self) -> np.ndarray:
        """Mean of the training data's control cells; see :meth:`Baseline.predict_control`."""
        self._fitted_conditions()
        return np.asarray(self._control.mean(axis=0, dtype=np.float64)).ravel()

    # -- what the kinds of baselines fill in -----------------------------------------------------------------------
    def _check_training(self, conditions: Sequence[tuple[str, ...]]) -> None:
        """Raise a ValueError if the training data lack what the baseline learns from, before anything is measured."""
        if self.needs_doubles and all(len(genes) == 1 for genes in conditions):
            raise ValueError(
                f"{type(self).__name__} learns from combinations of perturbations, of which the training data have "
                "none; add some, or take a baseline that needs none."
            )

    @abc.abstractmethod
    def _learn(self, training: TrainingEffects) -> None:
        """Learn from the measured effects."""

    @abc.abstractmethod
    def _shifts(self, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Predicted effects of gene sets, a new array of shape (n_sets, n_genes), float64."""


class SinglesBaseline(ShiftBaseline):
    """A baseline that makes the effect of a combination from those of its genes.

    With S the estimated effects of the singles and M the 0/1 membership of genes in combinations, a subclass may
    replace how S is estimated and how a combination follows from the sum M S. Training combinations with a gene that
    was not perturbed alone are not used.
    """

    def _check_training(self, conditions: Sequence[tuple[str, ...]]) -> None:
        super()._check_training(conditions)
        alone = {genes[0] for genes in conditions if len(genes) == 1}
        if not alone:
            raise ValueError(
                f"{type(self).__name__} combines the effects of single perturbations, of which the training data have "
                "none; add the cells of some."
            )
        if self.needs_doubles and not any(len(genes) > 1 and alone.issuperset(genes) for genes in conditions):
            raise ValueError(
                f"{type(self).__name__} compares combinations with their singles, but the training data hold no "
                "combination whose genes were all perturbed alone."
            )

    def _learn(self, training: TrainingEffects) -> None:
        alone = ~training.combined
        singles = [genes[0] for genes, single in zip(training.conditions, alone, strict=True) if single]
        self._row = {gene: i for i, gene in enumerate(singles)}
        self._singles = self._estimate_singles(training.effect[alone], training.variance[alone])
        if self.needs_doubles:
            usable = [
                i for i, genes in enumerate(training.conditions) if len(genes) > 1 and self._row.keys() >= set(genes)
            ]
            members = self._membership([training.conditions[i] for i in usable])
            self._learn_combinations(members, members @ self._singles, training.effect[usable])

    def _shifts(self, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
        for genes in sets:
            missing = [gene for gene in genes if gene not in self._row]
            if missing:
                raise ValueError(
                    f"{self._label(genes)!r}: {type(self).__name__} needs the single effect of {', '.join(missing)}, "
                    "which the training data lack."
                )
        members = self._membership(sets)
        shifts = members @ self._singles
        combined = members.sum(axis=1) > 1
        if combined.any():
            shifts[combined] = self._combine(members[combined], shifts[combined])
        return shifts

    def _membership(self, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
        """0/1 membership of the singles in gene sets, shape (n_sets, n_singles)."""
        members = np.zeros((len(sets), len(self._row)))
        for i, genes in enumerate(sets):
            members[i, [self._row[gene] for gene in genes]] = 1.0
        return members

    def _estimate_singles(self, effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Estimated effects of the singles from the measured ones and their sampling variance, of the same shape."""
        return effect

    def _learn_combinations(self, members: np.ndarray, sums: np.ndarray, measured: np.ndarray) -> None:
        """Learn from training combinations: membership, sums of single effects, measured effects."""

    def _combine(self, members: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Effects of combinations from their membership and the sums of their single effects."""
        return sums
