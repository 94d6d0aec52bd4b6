"""Sentences on pairs: which interact, and which to measure next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph._text import counted, listed, percent
from raptorgraph.tl._interactions import UNDETERMINED, pairs_are_a_prior

if TYPE_CHECKING:
    import pandas as pd

_N_PAIRS, _N_NEXT = 3, 3
_LEAST = 0.005  # share of the variance of other pairs from which a pair is said to teach about them


def pairs(table: pd.DataFrame | None) -> str:
    """Which pairs can be said to interact, or why none can.

    Parameters
    ----------
    table
        Table of :func:`~raptorgraph.report._results.ranked_pairs`; None or empty for one perturbed gene.
    """
    if table is None or table.empty:
        return "There is no pair: only one gene was perturbed."
    if "synergy_low" not in table:
        return "No interaction can be called, because this model has no intervals."
    found = table[table["interaction"] != UNDETERMINED]
    n_all = table.attrs.get("n_pairs", len(table))
    if found.empty:
        return f"No interaction can be called, because {why_none(table)}."
    of = f"{counted(n_all, 'pair')}"
    if n_all != len(table):
        of = f"the {len(table):,} pairs (of {n_all:,}) that depart most from the sum"
    text = f"{len(found):,} of {of} {'has' if len(found) == 1 else 'have'} an interaction that is determined. "
    for which, rows in (("not measured", found[~found["measured"]]), ("measured", found[found["measured"]])):
        if len(rows):
            named = [f"{label} ({row['interaction']}, {between(row)})" for label, row in rows.iterrows()]
            those = "The one that was {} is" if len(rows) == 1 else "Those that were {} are"
            text += f"{those.format(which)} {listed(named, most=_N_PAIRS)}. "
    text += synergy_meaning(table)
    if n_all == len(table) and not (found["against_median"] != "").any():
        text += " None of them stands out from the median pair, so the screen gives no reason to prefer one."
    return text


def synergy_meaning(table: pd.DataFrame) -> str:
    """What the numbers of the pairs are."""
    return (
        "The number is the synergy, the size of the pair's effect over that of the sum of both effects: 1 where "
        f"effects add up, {table['synergy'].median():.2f} for the median of these pairs."
    )


def why_none(table: pd.DataFrame) -> str:
    """What the pairs lack of which no interaction is determined, as the end of a sentence."""
    if pairs_are_a_prior(table):
        return (
            "no pair of two genes that were measured alone was among the training data, so all scores and intervals "
            "are a prior"
        )
    known = table[table["both_stand_out"] & table["singles_measured"]]
    if known.empty:
        return "there is no pair of two genes whose single effects were measured and stand out from noise"
    first = known.iloc[0]
    which = "measured" if first["measured"] else "unmeasured"
    return (
        "all intervals (90 %) hold additive effects; the largest difference among the "
        f"{which} pairs whose genes stand out is that of {known.index[0]}, with a synergy of {between(first)}"
    )


def between(row: pd.Series, name: str = "synergy") -> str:
    """A score with its interval."""
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def to_measure(table: pd.DataFrame, reason: str) -> str:
    """Which pairs to measure next, or why none is named.

    Parameters
    ----------
    table, reason
        What :func:`~raptorgraph.report._answers.next_pairs` gives.
    """
    if table.empty:
        return f"No pair to measure next is named, because {reason}."
    parts = []
    learn = table[table["goal"] == "learn"].head(_N_NEXT)
    if len(learn) and learn["total"].iloc[-1] >= _LEAST:
        last, cells = learn.iloc[-1], counted(int(learn["n_cells"].iloc[0]), "cell")
        removed = percent(last["total"])
        if len(learn) == 1:
            parts.append(
                f"Measure {last['perturbation']} next, in {cells}, to learn most about the other pairs: it is expected "
                f"to remove {removed} of the variance of their effects."
            )
        else:
            parts.append(
                f"Measure {listed(learn['perturbation'])} next, each in {cells}, to learn most about the other pairs: "
                f"together they are expected to remove {removed} of the variance of their effects."
            )
    likely = table[table["goal"] == "interactions"].head(_N_NEXT)
    if len(likely):
        named = [f"{row.perturbation} (probability {row.gain:.2f})" for row in likely.itertuples()]
        parts.append(
            f"{'To find' if not parts else 'Or, to find'} strong interactions, measure {listed(named)}: that is the "
            "probability that the pair is in the quarter of those to choose from that departs most from the sum."
        )
    return " ".join(parts)
