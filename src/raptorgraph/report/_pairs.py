"""The pairs that are predicted to interact most, type by type, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph import tl
from raptorgraph.evaluation._scores import TYPES, interaction_scores, pair_effects

if TYPE_CHECKING:
    from collections.abc import Collection

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Screen

_N_DRAWS = 100


@dataclass(frozen=True)
class Pairs:
    """The strongest pairs of each type.

    Attributes
    ----------
    top
        Type to table: ``pair``, ``score`` and ``size`` with ``score_low``, ``score_high``, ``size_low`` and
        ``size_high``, ``interaction`` (the pair's main type), ``measured`` (bool) and ``measured_score``.
    n_pairs, n_weak
        All pairs, and those left out as one of their genes does not stand out alone.
    intervals
        Whether there are intervals.
    """

    top: dict[str, pd.DataFrame]
    n_pairs: int
    n_weak: int
    intervals: bool


def top_pairs(
    model: RaptorGraphModel, table: pd.DataFrame, screen: Screen, strong: Collection[str], *, n: int = 10, seed: int = 0
) -> Pairs:
    """Rank all pairs by each score, and draw intervals for those at the top.

    Parameters
    ----------
    model
        Trained model.
    table
        All pairs, of :func:`raptorgraph.tl.interactions`, ``measured`` being true of all pairs of the screen.
    screen
        The measured cells.
    strong
        Genes whose own perturbation stands out. The other pairs are left out: the direction of an effect that is next
        to nothing is arbitrary, and so are the scores of a pair with it.
    n
        Pairs of each type.
    seed
        Seed of the draws.
    """
    strong = set(strong)
    both = table["gene_a"].isin(strong) & table["gene_b"].isin(strong)
    ranked = {type_: table[both & table[type_].notna()].nlargest(n, type_, keep="first") for type_ in TYPES}
    labels = list(dict.fromkeys(label for rows in ranked.values() for label in rows.index))
    intervals = bool(labels) and model.has_posterior
    drawn = None
    if intervals:
        pairs = list(table.loc[labels, ["gene_a", "gene_b"]].itertuples(index=False, name=None))
        drawn = tl.interactions(model, pairs, n_draws=_N_DRAWS, seed=seed)
    top = {type_: _shown(rows, type_, drawn, _measured_scores(screen, rows, type_)) for type_, rows in ranked.items()}
    return Pairs(top, len(table), int((~both).sum()), intervals)


def _shown(rows: pd.DataFrame, type_: str, drawn: pd.DataFrame | None, measured: pd.Series) -> pd.DataFrame:
    ends = ["score_low", "score_high", "size_low", "size_high"]
    found = pd.DataFrame(
        {
            "score": rows[type_],
            **dict.fromkeys(ends, np.nan),
            "size": rows["magnitude"],
            "interaction": rows["interaction"].astype(str),
            "measured": rows["measured"].astype(bool),
            "measured_score": measured,
        },
        index=rows.index,
    )
    if drawn is not None:
        found[ends] = drawn.loc[rows.index, [f"{type_}_low", f"{type_}_high", "magnitude_low", "magnitude_high"]]
    return found.rename_axis("pair").reset_index()


def _measured_scores(screen: Screen, rows: pd.DataFrame, type_: str) -> pd.Series:
    """The score of the measured effects, of the pairs that were measured together with both of their genes alone."""
    known = set(screen.conditions)
    labels = [
        label
        for label in rows.index
        if label in known and all(screen.single(gene) in known for gene in screen.genes_of[label])
    ]
    if not labels:
        return pd.Series(dtype=float)
    return pd.Series(interaction_scores(*pair_effects(screen.effects, labels, screen))[type_], index=labels)
