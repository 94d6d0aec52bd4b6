"""The baselines by name, from the simplest up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph.baselines import _sums
from raptorgraph.baselines._linear_embedding import LinearEmbedding
from raptorgraph.baselines._ridge import MainEffectsRidge
from raptorgraph.baselines._smoothed import DampedLowRank, LowRankAdditive, ShrunkenAdditive

if TYPE_CHECKING:
    from raptorgraph.baselines._base import Baseline


def ladder() -> dict[str, type[Baseline]]:
    """Baselines by name, from the simplest up; those that need training combinations come last.

    Returns
    -------
    dict of str to type
        Classes by name; see :class:`Baseline` for their common arguments, all of which are optional.

    Examples
    --------
    >>> for name, cls in rg.baselines.ladder().items():
    ...     print(f"{name}: {cls.__name__}{' (needs combinations)' if cls.needs_doubles else ''}")
    no change: NoChange
    mean single: MeanSingle
    mean of two: MeanOfTwo
    additive: Additive
    shrunken additive: ShrunkenAdditive
    low-rank additive: LowRankAdditive
    damped low-rank: DampedLowRank
    linear model: LinearEmbedding
    mean double: MeanDouble (needs combinations)
    scaled additive: ScaledAdditive (needs combinations)
    gene-scaled additive: GeneScaledAdditive (needs combinations)
    main-effects ridge: MainEffectsRidge (needs combinations)
    """
    return {
        "no change": _sums.NoChange,
        "mean single": _sums.MeanSingle,
        "mean of two": _sums.MeanOfTwo,
        "additive": _sums.Additive,
        "shrunken additive": ShrunkenAdditive,
        "low-rank additive": LowRankAdditive,
        "damped low-rank": DampedLowRank,
        "linear model": LinearEmbedding,
        "mean double": _sums.MeanDouble,
        "scaled additive": _sums.ScaledAdditive,
        "gene-scaled additive": _sums.GeneScaledAdditive,
        "main-effects ridge": MainEffectsRidge,
    }
