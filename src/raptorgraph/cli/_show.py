"""A run in the terminal: what was read, how good it is, what to know, and the pairs to act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from raptorgraph.report._blocks import IMPORTANT
from raptorgraph.tl._interactions import UNDETERMINED, pairs_are_a_prior

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from raptorgraph.report._results import Result

_N_PAIRS = 10  # shown; the file has all


def show(result: Result, console: Console) -> None:
    """Print a run.

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
    for line in result.tested:
        console.print(f"On held-out cells: {line}")


def _show_pairs(pairs: pd.DataFrame, console: Console) -> None:
    if pairs.empty:
        return
    unmeasured = int((~pairs["measured"]).sum())
    n_all = pairs.attrs.get("n_pairs", len(pairs))
    which = f"all {n_all:,}" if n_all == len(pairs) else f"{len(pairs):,} of {n_all:,}"
    every = f"{which} pairs ({unmeasured:,} unmeasured) are in interactions.csv"
    if "synergy_low" not in pairs:
        console.print(f"This model has no intervals, so every interaction is undetermined; {every}.")
        return
    found = pairs[pairs["interaction"] != UNDETERMINED]
    if found.empty:
        console.print(f"No interaction is determined: {_why_none(pairs)}; {every}.")
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
        table.add_row(str(label), measured, row["interaction"], size, _between(row, "synergy"))
    console.print(table)
    median = pairs["synergy"].median()
    of_these = "" if n_all == len(pairs) else " of these"
    console.print(
        f"Synergy is the size of the pair's effect over that of the sum: 1 where effects add up, {median:.2f} for the "
        f"median pair{of_these}. The interaction of the others is undetermined; {every}."
    )
    if n_all == len(pairs) and not (found["against_median"] != "").any():
        console.print(
            "None of them stands out from the median pair: the model expects the pairs of this screen to differ from "
            "the sum alike, and has no reason to prefer one."
        )


def _why_none(pairs: pd.DataFrame) -> str:
    """What the pairs lack."""
    if pairs_are_a_prior(pairs):
        return (
            "no pair of two genes that were measured alone was among the training data, so all scores and intervals "
            "are a prior"
        )
    known = pairs[pairs["both_stand_out"] & pairs["singles_measured"]]
    if known.empty:
        return "there is no pair of two genes whose single effects were measured and stand out from noise"
    first = known.iloc[0]
    which = "measured" if first["measured"] else "unmeasured"
    return (
        "all intervals (90 %) hold additive effects. Largest difference among the "
        f"{which} pairs whose genes stand out: {known.index[0]}, synergy {_between(first, 'synergy')}"
    )


def _between(row: pd.Series, name: str) -> str:
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _show_notes(result: Result, console: Console) -> None:
    important = [note for note in result.notes if note.level == IMPORTANT]
    for note in important:
        console.print(f"Warning: {note.title}. {note.text}")
    others = [note.title for note in result.notes if note.level != IMPORTANT]
    if others:
        console.print(f"Note: {'; '.join(others)}.")
    if result.report is None:
        console.print("Predictions were not tested on held-out cells: --report does that, and explains all of this.")
