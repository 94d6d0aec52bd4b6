"""Similarity of the programs of latents, beyond what all perturbations of a screen have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats
from scipy.spatial.distance import squareform

from raptorgraph._arguments import check_choice
from raptorgraph._docs import docs
from raptorgraph._progress import progress_argument
from raptorgraph.screen import _noise
from raptorgraph.tl._common_direction import CommonDirection
from raptorgraph.tl._label_null import check_null, clear_latents, label_null
from raptorgraph.tl._latent_programs import latent_programs

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel

COLUMNS = ("similarity", "specific", "z", "p_null", "FDR_null")
_FEWEST = 5  # other latents that a spread of similarities is taken from
_MAD = 1.4826  # standard deviations of a normal distribution in one median absolute deviation


@progress_argument()
@docs.dedent
def program_similarity(
    model: RaptorGraphModel,
    *,
    activation: str = "unit",
    matrix: str | None = None,
    n_cells: int = 256,
    n_null: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> pd.DataFrame:
    r"""Ask which latents, as meta-pathways, resemble each other.

    All perturbations of a screen have something in common, slower growth or stress, so that most programs look alike.
    With unit vectors :math:`u_a, u_b` of two programs (:func:`latent_programs`, each without its own gene) and c that
    of the sum of all *other* latents' that stand out, the common direction,

    .. math::
        \text{similarity} = u_a \cdot u_b, \qquad
        \text{specific} = \frac{u_a \cdot u_b - (u_a \cdot c)(u_b \cdot c)}
        {\sqrt{1 - (u_a \cdot c)^2} \sqrt{1 - (u_b \cdot c)^2}},

    the cosines before and after the common direction is taken out. Two backgrounds are given for the latter: the other
    pairs of the screen (``z``), and the cells themselves (``p_null``).

    Parameters
    ----------
    model
        A trained model, with its data; without them for ``activation="learned"`` where `n_null` is 0.
    activation, n_cells
        As for :func:`latent_programs`.
    matrix
        Name of one of the numeric columns below, to have it as a matrix.
    n_null
        Pseudo-perturbations from which sampling noise is learned, as in :func:`enrich`; 0 for none: then all latents
        make up the common direction, and ``p_null``, ``FDR_null`` and ``stand_out`` are left out.
    seed
        Seed of the pseudo-perturbations and of ``activation="unit"``.
    %(progress)s

    Returns
    -------
    pandas.DataFrame
        One row for each pair of latents, the largest ``specific`` first:

        - ``latent_a``, ``latent_b``, in the order of ``model.latent_names``;
        - ``similarity``, ``specific``: see above, from -1 (opposite) to 1;
        - ``z``: ``specific`` in units of the spread (median absolute deviation, scaled to a standard deviation) of
          the specific similarities that either latent has to the others that stand out, the larger of the two spreads;
          NaN with fewer than five of these, or unless both stand out. What unrelated programs of this screen look like
          is not known: a latent with many relatives has a wide spread, so z ranks pairs and is not a test;
        - ``p_null``: probability, under sampling noise alone, of so large an inner product of the two *measured*
          effects, without the common direction (see Notes); NaN for latents without a gene, and for two genes whose
          effects come from the same cells, as neither or only one of them was perturbed alone;
        - ``FDR_null``: false discovery rate among all pairs (Benjamini and Hochberg);
        - ``stand_out``: whether both effects stand out from noise, as in :func:`enrich`.

        With `matrix`, latents x latents, symmetric; similarities are 1 on the diagonal, all else is NaN there.

    Raises
    ------
    ValueError
        If there are fewer than two latents, `activation` or `matrix` is unknown, `n_null` is neither 0 nor at least 20,
        or the model was loaded without data and `n_null` is not 0 or `activation` is ``"unit"``.

    Notes
    -----
    Learned programs of perturbations that do little are borrowed from others and from the noise of the shared
    controls, and then look very much alike. ``p_null`` therefore rests on the measured effects :math:`e_a, e_b`:
    without the common direction, :math:`e_a \cdot e_b` has the expectation
    :math:`\mu_a \cdot \mu_b + s_{ab} \operatorname{tr} S`, S the covariance of genes among control cells and
    :math:`s_{ab}` the noise of the controls that both are compared with. With :math:`s_a` the sampling variance of
    effect a over that of a single cell, its variance if :math:`\mu_a \cdot \mu_b = 0` is about

    .. math::
        s_b \, e_a^\top S e_a + s_a \, e_b^\top S e_b - s_a s_b \operatorname{tr} S^2,

    where the quadratic forms and the traces are means over pseudo-perturbations of control cells. As that noise would
    be part of the common direction, effects are measured against one half of the controls and the direction, that of
    measured effects here, against the other, both ways round, and the mean is taken over several pairs of halves (seven
    where each batch has eight controls, of which any two eighths are together equally often), so that the result
    depends less on which controls are in which half. In :math:`s` all controls count, but for the last term, which has
    those of a half: p-values are somewhat too large. A small ``p_null`` says that the programs share something beyond
    the common direction, in strong effects something small.

    Examples
    --------
    >>> table = rg.tl.program_similarity(model, n_null=100)
    >>> table.shape
    (45, 8)
    >>> rg.tl.program_similarity(model, activation="learned", n_null=0, matrix="specific").shape
    (6, 6)
    """
    if matrix is not None:
        check_choice("matrix", matrix, COLUMNS)
    check_null(model, n_null)
    if not n_null and matrix in ("p_null", "FDR_null"):
        raise ValueError(f"matrix={matrix!r} needs pseudo-perturbations: n_null must be at least 20.")
    programs = latent_programs(model, activation=activation, n_cells=n_cells, seed=seed)
    if len(programs) < 2:
        raise ValueError(f"There is one latent, {programs.index[0]!r}, and so no pair to compare.")
    units = _units(programs.to_numpy(dtype=np.float64), model)
    n_perturbed, clear = len(model.perturbed_genes), np.ones(len(programs), dtype=bool)
    if n_null:
        clear = clear_latents(model, label_null(model, [], n_null=n_null, seed=seed).p_effect, len(programs))

    first, second = np.triu_indices(len(programs), 1)
    common = CommonDirection(units, clear)
    table = pd.DataFrame({"latent_a": programs.index[first], "latent_b": programs.index[second]})
    table["similarity"] = common.inner[first, second]
    table["specific"] = common.specific()[first, second]
    table["z"] = _relative(table["specific"].to_numpy(), clear)
    if n_null:
        p = np.full(len(table), np.nan)
        p[second < n_perturbed] = _noise_probabilities(model, clear[:n_perturbed], n_null, seed)
        table["p_null"], table["FDR_null"] = p, _noise.false_discovery_rates(p)
        table["stand_out"] = clear[first] & clear[second]
    if matrix is not None:
        diagonal = 1.0 if matrix in COLUMNS[:2] else np.nan
        square = _square(table[matrix].to_numpy(), diagonal)
        return pd.DataFrame(square, index=programs.index, columns=programs.index.rename(None))
    return table.sort_values("specific", ascending=False, kind="stable", ignore_index=True)


def _without_targets(values: np.ndarray, model: RaptorGraphModel) -> np.ndarray:
    """Effects with 0 for the perturbed gene itself, perturbed genes x genes."""
    values = values.copy()
    for i, column in enumerate(model.target_columns):
        if column >= 0:
            values[i, column] = 0.0
    return values


def _units(values: np.ndarray, model: RaptorGraphModel) -> np.ndarray:
    """Unit vectors of effects without the perturbed genes themselves; 0 where there is no effect."""
    values = _without_targets(values, model)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(np.divide(values, norm, out=np.zeros_like(values), where=norm > 0))


def _relative(specific: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Specific similarities in units of the spread of those that the two latents have to others."""
    n = len(clear)
    square = _square(specific, np.nan)
    spread = np.full(n, np.nan)
    for i in np.flatnonzero(clear):
        others = square[i, clear & (np.arange(n) != i)]
        if len(others) >= _FEWEST:
            spread[i] = _MAD * np.median(np.abs(others))
    first, second = np.triu_indices(n, 1)
    largest = np.maximum(spread[first], spread[second])
    return np.asarray(np.divide(specific, largest, out=np.full_like(specific, np.nan), where=largest > 0))


def _noise_probabilities(model: RaptorGraphModel, clear: np.ndarray, n_null: int, seed: int) -> np.ndarray:
    """Two-sided p-values of the inner products of measured effects, of all pairs of perturbed genes."""
    screen, rng = model.screen, np.random.default_rng([seed, 0])
    noise, every = _noise.control_noise(screen), _noise.measured_latents(screen)
    draws, variance = noise.draw(int(_noise.cell_classes(np.median(every.n_cells))), n_null, rng)
    draws = draws * np.sqrt(noise.variance.sum() / variance.sum())  # of covariance S
    size, n_pairs = _sizes(every, noise), len(clear) * (len(clear) - 1) // 2
    excess, spread = np.zeros((2, n_pairs))
    n = 0
    for halves in _noise.measured_on_halves(screen, rng):
        for one, other in (halves, halves[::-1]):
            found = _products(model, one, other, clear, noise, draws, size)
            excess += found[0]
            spread += found[1]
            n += 1
    p = 2 * stats.norm.sf(np.abs(excess / n) / np.sqrt(spread / n))
    return np.where(every.same_cells[np.triu_indices(len(clear), 1)], np.nan, p)


def _sizes(measured: _noise.MeasuredLatents, noise: _noise.ControlNoise) -> np.ndarray:
    """Sampling variance of each effect by that of a single cell, shape (k,)."""
    return np.asarray(np.median(measured.variance / noise.variance, axis=1))


def _products(
    model: RaptorGraphModel,
    measured: _noise.MeasuredLatents,
    other: _noise.MeasuredLatents,
    clear: np.ndarray,
    noise: _noise.ControlNoise,
    draws: np.ndarray,
    size: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of all pairs less that of the noise they share, and their variance; directions are of `other`.

    The variance is that of the mean over all halves: what is linear in the noise has the `size` of effects against all
    controls, and what is a product of noises no more than that of one half.
    """
    effect, common = _without_targets(measured.effect, model), CommonDirection(_units(other.effect, model), clear)
    of_half = _sizes(measured, noise)
    # inner products with the directions, with each other, and of draws with other draws
    effect_units, draw_units = effect @ common.units.T, draws @ common.units.T
    effects, draw_effects = effect @ effect.T, draws @ effect.T
    half, lengths = len(draws) // 2, (draws**2).sum(axis=1)
    pairs = np.einsum("ij,ij->i", draws[:half], draws[half : 2 * half])
    found, spread = [], []
    for a in range(len(effect) - 1):
        b = np.arange(a + 1, len(effect))
        along, of_draws = common.along(effect_units, a), common.along(draw_units, a)
        product = effects[a, b] - along[a] * along[b, b - a - 1]
        expected = measured.shared[a, b] * (lengths[:, None] - of_draws**2).mean(axis=0)
        form_a = ((draw_effects[:, [a]] - of_draws * along[a]) ** 2).mean(axis=0)
        form_b = ((draw_effects[:, b] - of_draws * along[b, b - a - 1]) ** 2).mean(axis=0)
        square = ((pairs[:, None] - of_draws[:half] * of_draws[half : 2 * half]) ** 2).mean(axis=0)
        both = of_half[a] * of_half[b] * square
        found.append(product - expected)
        spread.append(np.maximum(size[b] * form_a + size[a] * form_b - both, both))
    return np.concatenate(found), np.concatenate(spread)


def _square(values: np.ndarray, diagonal: float) -> np.ndarray:
    """Symmetric matrix of the values of all pairs, in the order of :func:`numpy.triu_indices`."""
    square = squareform(values)
    np.fill_diagonal(square, diagonal)
    return np.asarray(square)
