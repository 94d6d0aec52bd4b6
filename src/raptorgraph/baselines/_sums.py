"""Means and scaled sums of measured effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raptorgraph._arguments import check_number
from raptorgraph._docs import docs
from raptorgraph.baselines._shift import ShiftBaseline, SinglesBaseline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.screen._screen import Screen


class _OneEffect(ShiftBaseline):
    """A baseline that predicts the same effect for every perturbation, single or combined."""

    _effect: np.ndarray

    def _shifts(self, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
        return np.tile(self._effect, (len(sets), 1))


class NoChange(_OneEffect):
    """Predict that nothing changes: every effect is 0.

    Examples
    --------
    >>> baseline = rg.baselines.NoChange(library_size_key="total_counts").fit(adata)
    >>> baseline.predict_effects("P01+P02").abs().to_numpy().max().item()
    0.0
    """

    def _learn(self, screen: Screen) -> None:
        self._effect = np.zeros(screen.moments.effect.shape[1])


class MeanSingle(_OneEffect):
    """Predict the mean effect of the training singles for every perturbation, single or combined.

    Examples
    --------
    >>> baseline = rg.baselines.MeanSingle(library_size_key="total_counts").fit(adata)
    >>> effects = baseline.predict_effects(["P01", "P02+P03"])
    >>> np.allclose(effects.loc["P01"], effects.loc["P02+P03"])
    True
    """

    def _check_training(self, screen: Screen) -> None:
        if not screen.singles:
            raise ValueError("MeanSingle averages single perturbations, of which the training data have none.")

    def _learn(self, screen: Screen) -> None:
        self._effect = screen.moments.effect[screen.n_perturbed == 1].mean(axis=0)


class MeanDouble(_OneEffect):
    """Predict the mean effect of the training combinations for every perturbation, single or combined.

    Examples
    --------
    >>> baseline = rg.baselines.MeanDouble(library_size_key="total_counts").fit(adata)
    >>> effects = baseline.predict_effects(["P01+P02", "P04+P05"])
    >>> np.allclose(effects.loc["P01+P02"], effects.loc["P04+P05"])
    True
    """

    needs_doubles = True

    def _learn(self, screen: Screen) -> None:
        self._effect = screen.moments.effect[screen.n_perturbed > 1].mean(axis=0)


class Additive(SinglesBaseline):
    r"""Predict the sum of the single effects, :math:`\hat e_{ij} = S_i + S_j`; for a single its measured effect.

    Examples
    --------
    >>> baseline = rg.baselines.Additive(library_size_key="total_counts").fit(adata)
    >>> effects = baseline.predict_effects(["P01", "P02", "P01+P02"])
    >>> np.allclose(effects.loc["P01+P02"], effects.loc["P01"] + effects.loc["P02"])
    True
    """


class MeanOfTwo(SinglesBaseline):
    r"""Predict the mean of the single effects, :math:`\hat e_{ij} = (S_i + S_j) / 2`, over all genes of a combination.

    Examples
    --------
    >>> baseline = rg.baselines.MeanOfTwo(library_size_key="total_counts").fit(adata)
    >>> effects = baseline.predict_effects(["P01", "P02", "P01+P02"])
    >>> np.allclose(effects.loc["P01+P02"], (effects.loc["P01"] + effects.loc["P02"]) / 2)
    True
    """

    def _combine(self, design: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums / design.sum(axis=1, keepdims=True))


class ScaledAdditive(SinglesBaseline):
    r"""Predict a scaled sum of the single effects, with one scale for all combinations and genes.

    .. math::
        \hat e_{ij} = a (S_i + S_j), \qquad a = \frac{\sum_{d,g} P_{dg} D_{dg}}{\sum_{d,g} P_{dg}^2},

    the least squares fit over training combinations d with measured effects D and sums of singles P. The
    prediction for a single is its measured effect.

    Attributes
    ----------
    scale_
        The scale a.

    Examples
    --------
    >>> baseline = rg.baselines.ScaledAdditive(library_size_key="total_counts").fit(adata)
    >>> effects = baseline.predict_effects(["P01", "P02", "P01+P02"])
    >>> np.allclose(effects.loc["P01+P02"], baseline.scale_ * (effects.loc["P01"] + effects.loc["P02"]))
    True
    """

    needs_doubles = True

    def _learn_combinations(self, design: np.ndarray, sums: np.ndarray, measured: np.ndarray) -> None:
        self.scale_ = fit_scale(sums, measured)

    def _combine(self, design: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return self.scale_ * sums


@docs.dedent
class GeneScaledAdditive(SinglesBaseline):
    r"""Predict a scaled sum of the single effects, with a scale for each gene that is shrunk to the common one.

    .. math::
        \hat e_{ij,g} = a_g (S_{ig} + S_{jg}), \qquad
        a_g = \frac{\sum_d P_{dg} D_{dg} + \kappa a}{\sum_d P_{dg}^2 + \kappa}, \qquad
        \kappa = k \, \frac{1}{G} \sum_{d,g} P_{dg}^2,

    with training combinations d, their measured effects D and sums of singles P, the common scale a of
    :class:`ScaledAdditive` and the shrinkage k: a gene whose effects are small keeps the common scale. The prediction
    for a single is its measured effect.

    Parameters
    ----------
    %(perturbation_key)s
    shrinkage
        Weight k of the common scale, as a part of what an average gene tells; positive.
    %(baseline_setup)s

    Attributes
    ----------
    scale_
        Shape (n_genes,): the scales.

    Raises
    ------
    ValueError
        If `shrinkage` is not positive.

    Examples
    --------
    >>> baseline = rg.baselines.GeneScaledAdditive(shrinkage=0.2, library_size_key="total_counts").fit(adata)
    >>> baseline.scale_.shape  # one scale for each gene
    (100,)
    """

    needs_doubles = True

    def __init__(self, perturbation_key: str = "perturbation", *, shrinkage: float = 0.1, **setup: Any):
        super().__init__(perturbation_key, **setup)
        check_number("shrinkage", shrinkage, 0, above=True)
        self.shrinkage = shrinkage

    def _learn_combinations(self, design: np.ndarray, sums: np.ndarray, measured: np.ndarray) -> None:
        common, size = fit_scale(sums, measured), (sums**2).sum(axis=0)
        weight = self.shrinkage * size.mean()
        self.scale_ = ((sums * measured).sum(axis=0) + weight * common) / (size + weight)

    def _combine(self, design: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return np.asarray(self.scale_ * sums)


def fit_scale(sums: np.ndarray, measured: np.ndarray, weighted: np.ndarray | None = None) -> float:
    """Least squares scale of `sums` to `measured`, all combinations x genes; ValueError where it is undefined.

    `weighted` is W times `sums` for a symmetric matrix W of weights of combinations; default `sums`.
    """
    weighted = sums if weighted is None else weighted
    size = (weighted * sums).sum()
    # a smaller size is the rounding error of sums that do not vary
    if not size > 1e-12 * (sums**2).sum():
        raise ValueError(
            f"A scale cannot be fitted to {len(sums)} training combinations whose sums of single effects do not vary; "
            "add combinations."
        )
    return float((weighted * measured).sum() / size)
