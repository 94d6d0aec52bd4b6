"""Effects that were measured in groups of cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from raptorgraph.inference._group_contrasts import Array

LEAST = 1e-12  # variance, above zero


@dataclass(frozen=True)
class GroupMeasurements:
    """Effects of P perturbations measured in S groups of cells on G genes, each against the controls of its group.

    Attributes
    ----------
    effect
        P x S x G: differences of means.
    variance
        P x S x G: their sampling variance, without that of the controls; infinite where there are no cells.
    control_variance
        S x G: that of the mean of the controls of each group, part of every effect.
    n_cells
        P x S: perturbed cells.
    n_controls
        Shape (S,): control cells.
    lowest
        S x G: effect that takes a gene to zero expression; by default there is no such bound.
    inflation
        Shape (P,): variance among cells of the score along a perturbation's common effect, over what it would be if
        genes varied independently; by default 1.

    Examples
    --------
    >>> measured = rg.inference.GroupMeasurements(
    ...     effect=np.array([[[2.0, 0.1], [0.1, 0.0]]]), variance=np.full((1, 2, 2), 0.01),
    ...     control_variance=np.full((2, 2), 0.001), n_cells=np.array([[50, 50]]), n_controls=np.array([500, 500]),
    ... )  # fmt: skip
    >>> measured.within.round(2)  # mean over the cells
    array([[1.05, 0.05]])
    """

    effect: Array
    variance: Array
    control_variance: Array
    n_cells: Array
    n_controls: Array
    lowest: Array | float = -np.inf
    inflation: Array | float = 1.0

    def __post_init__(self) -> None:
        shape = self.effect.shape
        if len(shape) != 3:
            raise ValueError(f"effect must be perturbations x groups x genes, got shape {shape}.")
        expected = {"variance": shape, "control_variance": shape[1:], "n_cells": shape[:2], "n_controls": shape[1:2]}
        for name, size in expected.items():
            if getattr(self, name).shape != size:
                raise ValueError(f"{name} must have shape {size}, got {getattr(self, name).shape}.")
        if not np.isfinite(self.effect).all():
            raise ValueError("A measured effect is not finite: look for extreme values in the data.")

    @cached_property
    def shares(self) -> Array:
        """P x S: weight of each group in the common effect, by the precision of its effects over all genes.

        A mean with these weights has errors that are independent of the contrasts between groups. Perturbations without
        cells have the shares of the controls.
        """
        noise = ((self.variance + self.control_variance) / self.gene_variance).mean(axis=2)
        precision = np.where(self.n_cells > 0, 1.0 / noise, 0.0)
        total = precision.sum(axis=1, keepdims=True)
        of_controls = self.n_controls / self.n_controls.sum()
        found: Array = np.where(total > 0, precision / np.where(total > 0, total, 1.0), of_controls)
        return found

    @property
    def within(self) -> Array:
        """P x G: mean of the effects over the groups, by these shares."""
        found: Array = np.einsum("ps,psg->pg", self.shares, self.effect)
        return found

    @property
    def gene_variance(self) -> Array:
        """Shape (G,): variance among control cells within groups."""
        found = np.average(self.control_variance * self.n_controls[:, None], axis=0, weights=self.n_controls)
        return np.maximum(found, LEAST)
