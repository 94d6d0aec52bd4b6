"""The pairs with the highest scores, type by type, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph.evaluation._scores import TYPES, interaction_scores, pair_effects
from raptorgraph.tl._interactions import UNDETERMINED, pairs_are_a_prior

if TYPE_CHECKING:
    from collections.abc import Collection

    from raptorgraph.screen import Screen


@dataclass(frozen=True)
class Pairs:
    """The strongest pairs of each type.

    Attributes
    ----------
    top
        Type to table: ``pair``, ``score`` and ``size`` with ``score_low``, ``score_high``, ``size_low`` and
        ``size_high``, ``interaction`` (the pair's main type), ``measured`` (bool) and ``measured_score``.
    n_all, n_pairs, n_weak
        All pairs; those that are listed in the table; and those of them that are left out as one of their genes does
        not stand out alone.
    n_determined
        Pairs whose interaction is determined.
    prior
        Whether all scores are a prior, as no pair of genes that were measured alone was among the training data.
    intervals
        Whether there are intervals.
    """

    top: dict[str, pd.DataFrame]
    n_all: int
    n_pairs: int
    n_weak: int
    n_determined: int
    prior: bool
    intervals: bool


def top_pairs(table: pd.DataFrame, screen: Screen, strong: Collection[str], *, n: int = 10) -> Pairs:
    """Rank all pairs by each score.

    Parameters
    ----------
    table
        All pairs or those that come first, of :func:`raptorgraph.tl.interactions`, ``measured`` being true of all
        pairs of the screen.
    screen
        The measured cells.
    strong
        Genes whose own perturbation stands out. The other pairs are left out: the direction of an effect that is next
        to nothing is arbitrary, and so are the scores of a pair with it.
    n
        Pairs of each type.
    """
    strong = set(strong)
    both = table["gene_a"].isin(strong) & table["gene_b"].isin(strong)
    ranked = {type_: table[both & table[type_].notna()].nlargest(n, type_, keep="first") for type_ in TYPES}
    top = {type_: _shown(rows, type_, _measured_scores(screen, rows, type_)) for type_, rows in ranked.items()}
    determined = int((table["interaction"] != UNDETERMINED).sum())
    intervals = "synergy_low" in table
    n_all = table.attrs.get("n_pairs", len(table))
    return Pairs(top, n_all, len(table), int((~both).sum()), determined, pairs_are_a_prior(table), intervals)


def _shown(rows: pd.DataFrame, type_: str, measured: pd.Series) -> pd.DataFrame:
    ends = {
        f"{shown}_{end}": f"{name}_{end}"
        for shown, name in (("score", type_), ("size", "magnitude"))
        for end in ("low", "high")
    }
    found = pd.DataFrame(
        {
            "score": rows[type_],
            **{shown: rows.get(name, np.nan) for shown, name in ends.items()},
            "size": rows["magnitude"],
            "interaction": rows["interaction"].astype(str),
            "measured": rows["measured"].astype(bool),
            "measured_score": measured,
        },
        index=rows.index,
    )
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
