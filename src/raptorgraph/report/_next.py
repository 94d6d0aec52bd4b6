"""The section on what to measure next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptorgraph.report._blocks import Heading, Section, Text
from raptorgraph.report._tables import Column, Table, fixed, table, whole, yes_no

if TYPE_CHECKING:
    import pandas as pd

    from raptorgraph.report._findings import Findings

_TITLES = {
    "learn": (
        "To learn most about the other pairs",
        "In the order of choice, each for what it adds to those above it.",
        "Share of the variance of all other unmeasured pairs that this one removes beside those above it.",
    ),
    "interactions": (
        "To find strong interactions",
        "The likeliest first. No choice depends on another.",
        "Probability that the pair is in the quarter of those to choose from that departs most from the sum of both "
        "effects.",
    ),
}


def to_measure_next(found: Findings) -> Section:
    """Which pairs to measure next, by what one wants of them."""
    section = Section("next", "What to measure next")
    frame = found.answers.next_pairs
    if frame.empty:
        return section.add(Text(f"No pair is named, because {found.answers.no_next}."))
    section.add(
        Text(
            "Pairs that were not measured are ranked by what their cells are expected to tell. "
            "tl.next_pairs(model, ...) chooses among candidates of yours, for other numbers of cells, or for a wanted "
            "state; next_pairs.csv has what is shown here."
        )
    )
    for goal, (title, reading, gain) in _TITLES.items():
        rows = frame[frame["goal"] == goal]
        if len(rows):
            section.add(Heading(title), _table(goal, rows, reading, gain))
    return section


def _table(goal: str, rows: pd.DataFrame, reading: str, gain: str) -> Table:
    rows = rows.assign(cells_needed=rows["cells_needed"].where(np.isfinite(rows["cells_needed"])))
    columns = {
        "rank": Column("rank", whole, number=True),
        "perturbation": Column("pair"),
        "gain": Column("gain", fixed(3), gain, number=True),
        "total": Column("total", fixed(3), "Gain of this pair and those above it together.", number=True),
        "magnitude": Column("size of effect", fixed(2), "Predicted, over all genes.", number=True),
        "n_cells": Column("cells planned", whole, "As many as the median condition has.", number=True),
        "cells_needed": Column(
            "cells needed",
            whole,
            "Cells that teach 80 % of what many cells would."
            if goal == "learn"
            else "Cells with which such an interaction would be called with a probability of 0.8.",
            number=True,
        ),
        "singles_measured": Column("singles measured", yes_no, "Whether both genes were perturbed alone."),
    }
    if goal == "interactions":
        del columns["total"]  # a sum of probabilities
    caption = f"The first {len(rows)} pairs" if len(rows) > 1 else "The only pair"
    return table(f"next-{goal}", caption, reading, rows, columns)
