"""Interaction scores in joint draws of the effects of two genes and of their pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raptorgraph.screen._noise import effect_statistics

Floats = npt.NDArray[np.floating]
Values = npt.NDArray[np.float64]

SCORES = ("synergy", "suppression", "neomorphism", "redundancy", "epistasis")
# A pair counts as additive while its effect is within a tenth as long as the sum, and within 18 degrees of it.
LONGER, SHORTER, TURNED = 1.1, 0.9, 0.05
# GEARS's thresholds for its similarity and its equality of contribution, here of cosines, not distance correlations.
ALIKE, ONE_SIDED = 0.85, 0.28
_HELD = 0.975  # part of the draws whose departure from the mean is smaller than a known mean; of two statistics
_RELATIVE = 1e-12  # variance over the largest one below which a gene does not vary
_FAR_FROM_KNOWN = 0.5  # statistics of a mean that are smaller are not beyond draws, of which the mean is 1 or more
_TINY = 1e-300


@dataclass(frozen=True)
class PairDraws:
    """Scores of one pair in each draw, each of shape (draws,).

    Attributes
    ----------
    scores
        The five scores, as in :mod:`raptorgraph.metrics`, and ``magnitude``.
    known_turn
        The part of neomorphism that has a known direction (see :func:`known_turn`).
    types
        Score to whether the draw shows an interaction of that type.
    """

    scores: dict[str, Values]
    known_turn: Values
    types: dict[str, npt.NDArray[np.bool_]]


def score_draws(a: Floats, b: Floats, ab: Floats) -> PairDraws:
    """Scores of a pair from joint draws of the effects of its genes and of itself, each draws x genes."""
    total = a + b
    aa, bb, cross, pair = _dot(a, a), _dot(b, b), _dot(a, b), _dot(ab, ab)
    on_a, on_b = _dot(ab, a), _dot(ab, b)
    along, length = on_a + on_b, np.sqrt(np.maximum(aa + bb + 2 * cross, 0.0))
    norm_a, norm_b, magnitude = np.sqrt(aa), np.sqrt(bb), np.sqrt(pair)
    cos_a, cos_b = _cosine(on_a, norm_a * magnitude), _cosine(on_b, norm_b * magnitude)
    synergy = _ratio(magnitude, length)
    turn = known_turn(ab, total)
    one_sided_sum = _one_sided(_cosine(aa + cross, norm_a * length), _cosine(bb + cross, norm_b * length))
    shorter = synergy < SHORTER
    scores = {
        "synergy": synergy,
        "suppression": _ratio(length, magnitude),
        "neomorphism": 1 - _cosine(along, length * magnitude),
        "redundancy": np.minimum(cos_a, cos_b),
        "epistasis": np.abs(cos_a - cos_b),
        "magnitude": magnitude,
    }
    types = {
        "synergy": synergy > LONGER,
        "suppression": shorter,
        "neomorphism": turn > TURNED,
        "redundancy": shorter & (scores["redundancy"] > ALIKE),
        "epistasis": _one_sided(cos_a, cos_b) & ~one_sided_sum,
    }
    return PairDraws(scores, turn, types)


def known_turn(ab: Floats, total: Floats) -> Values:
    r"""How far each draw of the pair's effect turns away from the sum towards the side to which the other draws turn.

    Noise turns vectors away from each other, in every draw towards another side, so that 1 - cos is above 0 in all
    draws of an additive pair. Two things tell what is known from that.

    *Is there a turn?* Let :math:`t_i` be the part of the pair's effect at a right angle to the sum, and
    :math:`\bar t` its mean over draws. Of an additive pair it is 0. The turn is unknown unless :math:`\bar t` is
    larger than 97.5 % of the departures :math:`t_i - \bar t` of the draws from it, in units of each gene's standard
    deviation, either over all genes or over the ten largest (the statistics by which single effects are told from
    noise). That the mean is far from 0 along one direction is not enough: in many dimensions the mean of a posterior
    always is, even if the effect is nothing but noise.

    *How far?* With u the part of the mean effect of one half of the draws that is at a right angle to their mean sum,
    each draw of the other half has the angle

    .. math::
        \tan \phi = \frac{\langle ab, v \rangle}{\langle ab, s \rangle / \lVert s \rVert}, \qquad
        v = \frac{u - \langle u, s \rangle s / \lVert s \rVert^2}{\lVert \dots \rVert}

    to its sum s, within the plane of s and u.

    Parameters
    ----------
    ab, total
        Draws of the pair's effect and of the sum of its genes' effects, draws x genes.

    Returns
    -------
    Shape (draws,): 1 - cos of that angle; 0 where a draw turns to the other side, and in all draws where the turn is
    unknown. It is never above the neomorphism of the draw.
    """
    n = len(ab)
    found = np.zeros(n)
    square, along = np.maximum(_dot(total, total), _TINY), _dot(ab, total)
    turn = ab - (along / square)[:, None].astype(ab.dtype) * total
    if not _is_beyond_noise(turn):
        return found
    odd = np.arange(n) % 2 == 1
    for those, others in ((odd, ~odd), (~odd, odd)):
        if not those.any() or not others.any():
            continue
        center, center_sum = (x[others].mean(axis=0, dtype=np.float64) for x in (ab, total))
        u = center - center @ center_sum / max(center_sum @ center_sum, _TINY) * center_sum
        sum_on_u = total[those] @ u
        across = ab[those] @ u - sum_on_u * along[those] / square[those]
        width = np.sqrt(np.maximum(u @ u - sum_on_u**2 / square[those], _TINY))
        angle = np.arctan2(np.maximum(across / width, 0.0), along[those] / np.sqrt(square[those]))
        found[those] = np.where(across > 0, 1 - np.cos(angle), 0.0)
    return found


def _is_beyond_noise(draws: Floats) -> bool:
    """Whether the mean of the draws, draws x genes, is larger than nearly all of their departures from it."""
    mean = draws.mean(axis=0)
    apart = draws - mean
    variance = np.einsum("dg,dg->g", apart, apart) / len(draws)
    varies = variance > _RELATIVE * variance.max()
    if not varies.any():  # nothing is uncertain
        return bool((mean != 0).any())
    center = effect_statistics(mean[None], variance, varies)[0]
    if center.max() < _FAR_FROM_KNOWN:  # as most pairs that were not measured; saves the statistics of all draws
        return False
    ends = np.quantile(effect_statistics(apart, variance, varies), _HELD, axis=0)
    return bool((center > ends).any())


def _one_sided(cos_a: Values, cos_b: Values) -> npt.NDArray[np.bool_]:
    """Whether an effect resembles one gene's and hardly the other's."""
    larger, smaller = np.maximum(cos_a, cos_b), np.minimum(cos_a, cos_b)
    return (larger > 0) & (smaller < ONE_SIDED * larger)


def _dot(x: Floats, y: Floats) -> Values:
    """Inner products of rows."""
    return np.asarray(np.einsum("dg,dg->d", x, y), dtype=np.float64)


def _ratio(top: Values, bottom: Values) -> Values:
    ratio: Values = np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom > 0)
    return ratio


def _cosine(product: Values, norms: Values) -> Values:
    return np.clip(_ratio(product, norms), -1.0, 1.0)
