"""Baselines that move control cells by a predicted mean effect."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from scipy import sparse

from raptorgraph.baselines._base import Baseline, draw_controls, stack_cells
from raptorgraph.screen._screen import Screen, design_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


class ShiftBaseline(Baseline):
    """A baseline whose perturbed cell is a control cell plus the predicted effect.

    Effects are measured by :func:`raptorgraph.pp.measured_effects`. Combinations are always predicted, also those in
    the training data. Predicted cells can lie below 0 on the expression scale: clipped there, their mean would not be
    the mean of the control cells plus the effect.
    """

    def fit(self, adata: AnnData) -> Self:
        """Measure the effects of the training perturbations; see :meth:`Baseline.fit`."""
        screen = self._screen(adata)
        self._check_training(screen)
        self._learn(screen)
        controls = screen.rows(screen.control)
        self._control = sparse.csr_matrix(screen.expression_at(controls))
        self._control_names = adata.obs_names[controls].to_numpy(dtype=str)
        self._var = screen.adata.var.copy()
        self._register(screen)
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
    def _check_training(self, screen: Screen) -> None:
        """Raise a ValueError if the training data lack what the baseline learns from, before anything is measured."""
        if self.needs_doubles and not screen.combinations:
            raise ValueError(
                f"{type(self).__name__} learns from combinations of perturbations, of which the training data have "
                "none; add some, or take a baseline that needs none."
            )

    @abc.abstractmethod
    def _learn(self, screen: Screen) -> None:
        """Learn from the measured effects."""

    @abc.abstractmethod
    def _shifts(self, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Predicted effects of gene sets, a new array of shape (n_sets, n_genes), float64."""


class SinglesBaseline(ShiftBaseline):
    """A baseline that makes the effect of a combination from those of its genes.

    With S the estimated effects of the singles and M the design of combinations (1 where a combination has the gene,
    else 0), a subclass may replace how S is estimated and how a combination follows from the sum M S. Training
    combinations with a gene that was not perturbed alone are not used.
    """

    def _check_training(self, screen: Screen) -> None:
        super()._check_training(screen)
        alone, conditions = set(_alone(screen)), screen.parsed.conditions
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

    def _learn(self, screen: Screen) -> None:
        alone, moments, conditions = screen.n_perturbed == 1, screen.moments, screen.parsed.conditions
        self._alone = _alone(screen)
        self._singles = self._estimate_singles(moments.effect[alone], moments.variance[alone])
        if self.needs_doubles:
            known = set(self._alone)
            usable = [i for i, genes in enumerate(conditions) if len(genes) > 1 and known.issuperset(genes)]
            design = design_matrix([conditions[i] for i in usable], self._alone)
            self._learn_combinations(design, design @ self._singles, moments.effect[usable])

    def _shifts(self, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
        for genes in sets:
            missing = [gene for gene in genes if gene not in self._alone]
            if missing:
                raise ValueError(
                    f"{self._label(genes)!r}: {type(self).__name__} needs the single effect of {', '.join(missing)}, "
                    "which the training data lack."
                )
        design = design_matrix(sets, self._alone)
        shifts: np.ndarray = design @ self._singles
        combined = design.sum(axis=1) > 1
        if combined.any():
            shifts[combined] = self._combine(design[combined], shifts[combined])
        return shifts

    def _estimate_singles(self, effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Estimated effects of the singles from the measured ones and their sampling variance, of the same shape."""
        return effect

    def _learn_combinations(self, design: np.ndarray, sums: np.ndarray, measured: np.ndarray) -> None:
        """Learn from training combinations: their design, sums of single effects, measured effects."""

    def _combine(self, design: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Effects of combinations from their design and the sums of their single effects."""
        return sums


def _alone(screen: Screen) -> list[str]:
    """Genes that were perturbed alone, in the order of the conditions."""
    return [screen.genes_of[label][0] for label in screen.singles]
