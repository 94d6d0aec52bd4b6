"""A finished run, and everything else that the page is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raptorgraph.report._tables import Column, Table, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    import pandas as pd

    from raptorgraph.evaluation._held_out_scores import HeldOut
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.report._answers import Answers
    from raptorgraph.report._blocks import Note
    from raptorgraph.report._pairs import Pairs
    from raptorgraph.screen import Screen
    from raptorgraph.screen._checks import Checked

_MOST_ROWS = 300


@dataclass(frozen=True)
class Run:
    """A finished run, of which `findings_of` and `page_of` make a page.

    Attributes
    ----------
    title
        Name of the screen.
    source
        What was read, as names and values.
    screen
        All cells, as they were before the model's setup.
    model
        Model trained on all cells, or on control and singles.
    options
        Settings of the run, among them ``preset``, ``seed``, ``max_epochs`` and ``singles_only``.
    answers
        Tables that answer the first questions.
    interactions
        All pairs, ``measured`` being true of all pairs of the screen; None for one perturbed gene.
    stability
        ``attrs`` of :func:`raptorgraph.tl.dag_stability` and ``n``; empty where the graph was not resampled.
    control
        ``drift`` and ``variance_ratio`` of predicted control cells.
    enrichment, latents
        Tables of :func:`raptorgraph.tl.enrich` and :func:`raptorgraph.tl.annotate_latents`; None without gene sets.
    truth
        Scores against the true effects of a simulated screen, or None.
    command
        The command as typed, or None.
    seconds
        What took how long.
    """

    title: str
    source: list[tuple[str, str]]
    screen: Screen
    model: RaptorGraphModel
    options: Mapping[str, Any]
    answers: Answers
    interactions: pd.DataFrame | None
    stability: Mapping[str, float]
    control: Mapping[str, float]
    enrichment: pd.DataFrame | None
    latents: pd.DataFrame | None
    truth: pd.DataFrame | None
    command: str | None
    seconds: Mapping[str, float]

    @property
    def edges(self) -> pd.DataFrame:
        """The graph, with frequencies where it was resampled."""
        return self.model.get_edges()

    @property
    def strength(self) -> pd.DataFrame:
        """How strong each perturbation is."""
        return self.answers.strength


@dataclass(frozen=True)
class Findings(Run):
    """A run with what was found for its report.

    Attributes
    ----------
    out
        Directory with the files of the run.
    date
        When the run began.
    held, checks, notes
        What :func:`raptorgraph.evaluation.held_out`, :func:`~raptorgraph.report._notes.diagnosis` and
        :func:`~raptorgraph.report._notes.notes` give.
    pairs
        What :func:`~raptorgraph.report._pairs.top_pairs` gives; None for one perturbed gene.
    responders, guides, guide_key
        Tables of :func:`raptorgraph.tl.responders` and :func:`raptorgraph.tl.guides`, and the column of the guides; the
        last two are None where none is known.
    """

    out: Path
    date: datetime
    held: HeldOut
    checks: list[Checked]
    notes: list[Note]
    pairs: Pairs | None
    responders: pd.DataFrame
    guides: pd.DataFrame | None
    guide_key: str | None


def long_table(
    name: str, caption: str, reading: str, frame: pd.DataFrame, columns: Mapping[str, Column], file: str
) -> Table:
    """Table of the first rows where there are many, with the name of the file that has all."""
    if len(frame) > _MOST_ROWS:
        reading += f" The first {_MOST_ROWS:,} of {len(frame):,} rows; {file} has all."
    return table(name, caption, reading, frame.head(_MOST_ROWS), columns)
