"""A run in the terminal: what was read, how good the fit is, the pairs to act on, what to know, and all in short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from raptorgraph.report._blocks import IMPORTANT
from raptorgraph.report._short_pairs import between, synergy_meaning
from raptorgraph.tl._interactions import UNDETERMINED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from rich.console import Console

    from raptorgraph.report._results import Result

_N_PAIRS = 10  # shown; the file has all


def show(result: Result, console: Console) -> None:
    """Print a run; the sentences at the end are those of the report.

    Parameters
    ----------
    result
        Result of the run.
    console
        Console to print to.
    """
    facts = Table(show_header=False, box=None)
    for name, value in result.facts.items():
        facts.add_row(f"{name}:", str(value))
    console.print(facts)
    _show_scores(result, console)
    _show_pairs(result.interactions, console)
    _show_notes(result, console)
    _show_sentences("In short", result.short, console)
    _show_sentences("What cannot be said", result.unsaid, console)
    if result.report is not None:
        console.print(f"The report is {result.report}: open it in a browser.", soft_wrap=True)


def _show_scores(result: Result, console: Console) -> None:
    table = Table(title=result.title, title_justify="left")
    for column in ("conditions", "method"):
        table.add_column(column)
    for column in ("Pearson", "relative MSE"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result.summary.itertuples():
        pearson = "-" if row.pearson != row.pearson else f"{row.pearson:.3f}"  # NaN: no effect, no correlation
        table.add_row(f"{row.conditions} {row.set}", row.method, pearson, f"{row.relative_mse:.3f}")
    console.print(table)


def _show_pairs(pairs: pd.DataFrame, console: Console) -> None:
    """The pairs whose interaction is determined; the sentences at the end say why there is none."""
    if pairs.empty or "synergy_low" not in pairs:
        return
    found = pairs[pairs["interaction"] != UNDETERMINED]
    if found.empty:
        return
    title = f"Pairs whose interaction is determined, unmeasured ones first ({len(found):,} of {len(pairs):,})"
    table = Table(title=title, title_justify="left")
    table.add_column("pair", overflow="fold")
    table.add_column("measured", width=8)  # the rest is for names
    table.add_column("interaction", no_wrap=True)
    for column in ("size", "synergy [90 %]"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, row in found.head(_N_PAIRS).iterrows():
        measured, size = "yes" if row["measured"] else "no", f"{row['magnitude']:.2f}"
        table.add_row(str(label), measured, row["interaction"], size, between(row))
    console.print(table)
    unmeasured = int((~pairs["measured"]).sum())
    n_all = pairs.attrs.get("n_pairs", len(pairs))
    which = f"All {n_all:,}" if n_all == len(pairs) else f"{len(pairs):,} of {n_all:,}"
    console.print(f"{which} pairs ({unmeasured:,} unmeasured) are in interactions.csv. {synergy_meaning(pairs)}")


def _show_notes(result: Result, console: Console) -> None:
    important = [note for note in result.notes if note.level == IMPORTANT]
    for note in important:
        console.print(f"Warning: {note.title}. {note.text}")
    others = [note.title for note in result.notes if note.level != IMPORTANT]
    if others:
        console.print(f"Note: {'; '.join(others)}.")


def _show_sentences(title: str, sentences: Sequence[str], console: Console) -> None:
    if not sentences:
        return
    console.print(f"{title}:")
    for sentence in sentences:
        console.print(f"- {sentence}")
