"""Everything that the page is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raptorgraph.report._tables import Column, Table, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from raptorgraph.evaluation._held_out_scores import HeldOut
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.report._notes import Note
    from raptorgraph.report._pairs import Pairs
    from raptorgraph.screen import Screen

_MOST_ROWS = 300


@dataclass(frozen=True)
class Findings:
    """Everything that the page is made of.

    Attributes
    ----------
    source
        What was read, as names and values.
    screen
        All cells.
    model
        Trained on all of them, or on the singles.
    options
        Settings of the run.
    strength, held, pairs, notes
        Tables of this package's modules; ``pairs`` is None for a single perturbed gene.
    interactions
        All pairs, or None.
    edges
        The graph, with frequencies where it was resampled.
    stability
        ``n``, ``jaccard``, ``chance_jaccard`` and ``null_edges`` of the resampled graphs; empty where there are none.
    control
        ``drift`` and ``variance_ratio`` of predicted control cells.
    out
        Where the files of the run are.
    enrichment, latents
        Gene sets of the latents and their labels, or None without gene sets.
    truth
        Scores against the true effects of a simulated screen, or None.
    record
        Names and values for whoever wants to repeat the run.
    command
        As typed, or None.
    files
        Files written, and what they hold.
    """

    source: list[tuple[str, str]]
    screen: Screen
    model: RaptorGraphModel
    options: Mapping[str, Any]
    strength: pd.DataFrame
    held: HeldOut
    pairs: Pairs | None
    notes: list[Note]
    interactions: pd.DataFrame | None
    edges: pd.DataFrame
    stability: Mapping[str, float]
    control: Mapping[str, float]
    out: Path
    enrichment: pd.DataFrame | None = None
    latents: pd.DataFrame | None = None
    truth: pd.DataFrame | None = None
    record: list[tuple[str, str]] = field(default_factory=list)
    command: str | None = None
    files: list[tuple[str, str]] = field(default_factory=list)


def long_table(
    name: str, caption: str, reading: str, frame: pd.DataFrame, columns: Mapping[str, Column], file: str
) -> Table:
    """Table of the first rows where there are many, with the name of the file that has all."""
    if len(frame) > _MOST_ROWS:
        reading += f" The first {_MOST_ROWS:,} of {len(frame):,} rows; {file} has all."
    return table(name, caption, reading, frame.head(_MOST_ROWS), columns)
