"""Sums of single effects that are denoised first, by low rank or by shrinkage to zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from raptorgraph._arguments import check_integer, check_number
from raptorgraph._docs import docs
from raptorgraph.baselines._shift import SinglesBaseline


@docs.dedent
class LowRankAdditive(SinglesBaseline):
    r"""Predict the sum of the low-rank parts of the single effects.

    With the singular value decomposition :math:`S = U \Sigma V^\top` of the single effects (singles x genes, not
    centered), :math:`\hat e_{ij} = L_i + L_j` with :math:`L = U_r \Sigma_r V_r^\top` of the first r components. For a
    single :math:`L_i`.

    Parameters
    ----------
    %(perturbation_key)s
    rank
        Number r of components; all of them if there are fewer.
    %(baseline_setup)s

    Raises
    ------
    ValueError
        If `rank` is below 1.

    Examples
    --------
    >>> baseline = rg.baselines.LowRankAdditive(rank=2, library_size_key="total_counts").fit(adata)
    >>> singles = baseline.predict_effects(baseline.perturbed_genes)
    >>> np.linalg.matrix_rank(singles.to_numpy()).item()
    2
    """

    def __init__(self, perturbation_key: str = "perturbation", *, rank: int = 10, **setup: Any):
        super().__init__(perturbation_key, **setup)
        check_integer("rank", rank, 1)
        self.rank = rank

    def _estimate_singles(self, effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
        left, size, right = np.linalg.svd(effect, full_matrices=False)
        return np.asarray((left[:, : self.rank] * size[: self.rank]) @ right[: self.rank])


@docs.dedent
class DampedLowRank(LowRankAdditive):
    r"""Predict a damped sum of single effects, each the mean of its measured and its low-rank value.

    .. math::
        \hat e_{ij} = a (H_i + H_j), \qquad H = (L + S) / 2

    with measured single effects S, their low-rank part L as in :class:`LowRankAdditive`, and a given scale a, since
    effects of combinations are mostly smaller than the sum. For a single :math:`H_i`.

    Parameters
    ----------
    %(perturbation_key)s
    rank
        Number of components of the low-rank part.
    scale
        The scale a.
    %(baseline_setup)s

    Raises
    ------
    ValueError
        If `rank` is below 1 or `scale` is not positive.

    Examples
    --------
    >>> baseline = rg.baselines.DampedLowRank(scale=0.6, library_size_key="total_counts").fit(adata)
    >>> effects = baseline.predict_effects(["P01", "P02", "P01+P02"])
    >>> np.allclose(effects.loc["P01+P02"], 0.6 * (effects.loc["P01"] + effects.loc["P02"]))
    True
    """

    def __init__(self, perturbation_key: str = "perturbation", *, rank: int = 10, scale: float = 0.6, **setup: Any):
        super().__init__(perturbation_key, rank=rank, **setup)
        check_number("scale", scale, 0, above=True)
        self.scale = scale

    def _estimate_singles(self, effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
        return np.asarray((super()._estimate_singles(effect, variance) + effect) / 2)

    def _combine(self, design: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return self.scale * sums


class ShrunkenAdditive(SinglesBaseline):
    r"""Predict the sum of single effects that are shrunk to 0 by their sampling variance (empirical Bayes).

    The measured effect of single i on gene g is normal around the true one with sampling variance :math:`v_{ig}`, and
    the true one is normal around 0, with a variance that grows with the strength of the perturbation and the
    responsiveness of the gene:

    .. math::
        \theta_{ig} \sim N(0, \tau_{ig}^2), \qquad
        \hat\theta_{ig} = \frac{\tau_{ig}^2}{\tau_{ig}^2 + v_{ig}} S_{ig}, \qquad
        \tau_{ig}^2 = \frac{r_i c_g}{\sum_k r_k / n},

    by the method of moments, with the row and column means of :math:`S_{ig}^2 - v_{ig}`, at least 0:
    :math:`r_i` over genes and :math:`c_g` over the n singles. :math:`\hat e_{ij} = \hat\theta_i + \hat\theta_j`, and
    for a single :math:`\hat\theta_i`.

    Examples
    --------
    >>> baseline = rg.baselines.ShrunkenAdditive(library_size_key="total_counts").fit(adata)
    >>> shrunken = baseline.predict_effects("P01").abs()
    >>> measured = rg.baselines.Additive(library_size_key="total_counts").fit(adata).predict_effects("P01").abs()
    >>> bool((shrunken <= measured).all(axis=None))
    True
    """

    def _estimate_singles(self, effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
        excess = effect**2 - variance
        strength = np.maximum(excess.mean(axis=1), 0.0)
        response = np.maximum(excess.mean(axis=0), 0.0)
        prior = np.outer(strength, response) / (strength.mean() or 1.0)
        return np.asarray(prior / (prior + variance) * effect)
