"""Sums of single effects with a correction for each gene in combinations."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from sklearn.linear_model import Ridge

from raptorgraph._arguments import check_choice, check_number
from raptorgraph._docs import docs
from raptorgraph.baselines._shift import SinglesBaseline
from raptorgraph.baselines._sums import fit_scale

Scale = Literal["joint", "before"]


@docs.dedent
class MainEffectsRidge(SinglesBaseline):
    r"""Predict a scaled sum of single effects plus a correction for each gene in combinations.

    .. math::
        \hat e_{ij} = a (S_i + S_j) + b + m_i + m_j

    with a number a, an effect b (over genes) that all combinations share, and a correction :math:`m_i` (over genes)
    for each perturbed gene, found from training combinations d with members M, sums of singles P and measured effects
    D as the minimum of

    .. math::
        \lVert D - a P - 1 b^\top - M m \rVert^2 + \lambda \lVert m \rVert^2 .

    A gene in no training combination has no correction. The prediction for a single is its measured effect.

    Parameters
    ----------
    %(perturbation_key)s
    ridge
        Penalty :math:`\lambda`, positive: a correction is shrunk as if it were 0 in that many more combinations.
    scale
        ``"joint"`` minimizes over a together with b and m; ``"before"`` fits a first, as :class:`ScaledAdditive` does.
    %(baseline_setup)s

    Attributes
    ----------
    scale_
        The scale a.

    Raises
    ------
    ValueError
        If `ridge` is not positive or `scale` is unknown.

    Examples
    --------
    >>> baseline = rg.baselines.MainEffectsRidge(ridge=3.0, library_size_key="total_counts").fit(adata)
    >>> baseline.predict_effects(["P01+P02", "P04+P05"]).shape
    (2, 100)
    """

    needs_doubles = True

    def __init__(
        self, perturbation_key: str = "perturbation", *, ridge: float = 3.0, scale: Scale = "joint", **setup: Any
    ):
        super().__init__(perturbation_key, **setup)
        check_number("ridge", ridge, 0, above=True)
        check_choice("scale", scale, get_args(Scale))
        self.ridge, self.scale = ridge, scale

    def _learn_combinations(self, design: np.ndarray, sums: np.ndarray, measured: np.ndarray) -> None:
        corrections = Ridge(alpha=self.ridge, solver="svd")
        # For a given scale the minimum over b and m is quadratic in D - aP, with the weights of a ridge fit's residual.
        left = sums - corrections.fit(design, sums).predict(design) if self.scale == "joint" else None
        self.scale_ = fit_scale(sums, measured, left)
        self._corrections = corrections.fit(design, measured - self.scale_ * sums)

    def _combine(self, design: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return np.asarray(self.scale_ * sums + self._corrections.predict(design))
