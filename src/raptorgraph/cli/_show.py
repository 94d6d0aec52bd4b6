"""A run in the terminal: what was read, how good it is, what to know, and the pairs to act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from raptorgraph.report._notes import IMPORTANT

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
    every = f"all {len(pairs):,} pairs ({unmeasured:,} unmeasured) are in interactions.csv"
    if "synergy_low" not in pairs:
        console.print(f"This model has no intervals, so no pair is told from the sum of its genes; {every}.")
        return
    found = pairs[pairs["against_sum"] != ""]
    if found.empty:
        near = pairs[pairs["synergy"].notna()]
        line = (
            "No pair is told from the sum of its two effects: all intervals of synergy (90 %) hold 1 or miss the score"
        )
        if len(near):
            first = near.iloc[0]
            which = "unmeasured" if not first["measured"] else "measured"
            line += f". Largest difference among the {which} ones: {near.index[0]}, {_between(first, 'synergy')}"
        console.print(f"{line}; {every}.")
        return
    title = f"Pairs that differ from the sum of their effects, unmeasured ones first ({len(found):,} of {len(pairs):,})"
    table = Table(title=title, title_justify="left")
    table.add_column("pair", overflow="fold")
    for column in ("measured", "than the sum", "than median"):
        table.add_column(column, width=8)  # the rest is for names
    for column in ("size", "synergy (90 %)"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, row in found.head(_N_PAIRS).iterrows():
        verdicts = row["against_sum"], row["against_median"] or "-"
        size = f"{row['magnitude']:.2f}"
        table.add_row(str(label), "yes" if row["measured"] else "no", *verdicts, size, _between(row, "synergy"))
    console.print(table)
    median = pairs["synergy"].median()
    console.print(
        f"Synergy is the size of the pair's effect over that of the sum: 1 where effects add up, {median:.2f} for the "
        f"median pair. For these, the interval lies on one side of 1; {every}."
    )
    if not (found["against_median"] != "").any():
        console.print(
            "None of them stands out from the median pair: the model expects the pairs of this screen to differ from "
            "the sum alike, and has no reason to prefer one."
        )


def _between(row: pd.Series, name: str) -> str:
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"


def _show_notes(result: Result, console: Console) -> None:
    important = [note for note in result.notes if note.level == IMPORTANT]
    for note in important:
        console.print(f"Warning: {note.title}. {note.text}")
    others = [note.title for note in result.notes if note.level != IMPORTANT]
    if others:
        console.print(f"Note: {'; '.join(others)}.")
    if result.report is None:
        console.print("Predictions were not tested on held-out cells: --report does that, and explains all of this.")
