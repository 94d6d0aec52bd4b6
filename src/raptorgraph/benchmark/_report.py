"""Tables as CSV and Markdown, and the figure, of an experiment."""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raptorgraph._failures import optional
from raptorgraph._files import put_table, put_text
from raptorgraph.pl._figure import write_figure

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Experiment, Parts, Tables
    from raptorgraph.benchmark._settings import Settings


def all_rows(parts: Parts, *options: str) -> pd.DataFrame:
    """Tables of all parts, one below the other, with the seed and these options of the unit as columns."""
    tables = [part.rows.assign(seed=unit.seed, **{key: unit.options[key] for key in options}) for unit, part in parts]
    return pd.concat(tables, ignore_index=True)


def in_order(table: pd.DataFrame, **orders: Sequence[Hashable]) -> pd.DataFrame:
    """Rows in the given order of the values of some columns, the first of these first; ties as they were."""
    ranks = pd.DataFrame({name: table[name].map(list(order).index) for name, order in orders.items()})
    return table.loc[ranks.sort_values(list(orders), kind="stable").index].reset_index(drop=True)


def mean_and_sd(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, standard deviation and number of repetitions (seeds) of every group.

    Parameters
    ----------
    table
        One row for each repetition, with its ``value``.
    by
        Columns that name a group; groups stay in the order in which they first occur.

    Returns
    -------
    One row for each group: the columns of `by`, ``value_mean``, ``value_sd`` (ddof 1; NaN for one repetition) and
    ``n``, the number of repetitions with a value.
    """
    groups = table.groupby(list(by), sort=False, dropna=False)["value"]
    return groups.agg(value_mean="mean", value_sd="std", n="count").reset_index()


def paired_differences(rows: pd.DataFrame, baseline: str, column: str = "method") -> pd.DataFrame:
    """Values less those of one method with the same metric and seed: mean and SD over seeds of these.

    Parameters
    ----------
    rows
        One for each method, metric and seed, with its ``value``.
    baseline
        The method whose values are taken off, and which is left out.
    column
        Column that names the methods.

    Returns
    -------
    As :func:`mean_and_sd`, of each method and metric, in the order in which they first occur.
    """
    values = rows.pivot(index=["metric", "seed"], columns=column, values="value")
    less = values.sub(values[baseline], axis=0).drop(columns=baseline).melt(ignore_index=False).reset_index()
    orders = {name: list(dict.fromkeys(rows[name])) for name in (column, "metric")}
    return mean_and_sd(in_order(less, **orders), [column, "metric"])


def wide(
    summary: pd.DataFrame, index: Sequence[str], columns: str = "metric", digits: int | None = None
) -> pd.DataFrame:
    """Rows `index`, one column for each metric, with text ``mean +- SD``, as :func:`as_text` writes it."""
    text = summary.assign(
        text=[as_text(m, s, digits) for m, s in zip(summary["value_mean"], summary["value_sd"], strict=True)]
    )
    order = {name: list(dict.fromkeys(summary[name])) for name in (*index, columns)}
    table = text.pivot(index=list(index), columns=columns, values="text").reindex(columns=order[columns])
    rows = list(dict.fromkeys(summary[list(index)].itertuples(index=False, name=None)))
    return table.reindex(rows if len(index) > 1 else [row[0] for row in rows]).reset_index()


def as_text(mean: float, sd: float = np.nan, digits: int | None = None) -> str:
    """``mean +- SD``, the mean alone where there is no spread to give, ``-`` where there is no value.

    Without `digits` three decimals, one from 10 on, none from 1,000 on.
    """
    if not np.isfinite(mean):
        return "-"
    if digits is None:
        digits = 3 if abs(mean) < 10 else 1 if abs(mean) < 1000 else 0
    return f"{mean:.{digits}f}" + (f" +- {sd:.{digits}f}" if np.isfinite(sd) else "")


def to_markdown(table: pd.DataFrame) -> str:
    """Markdown table; numbers with four digits."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return "-" if not np.isfinite(value) else f"{value:.4g}"
        return " ".join(str(value).replace("|", "\\|").splitlines())

    lines = [
        "| " + " | ".join(map(str, table.columns)) + " |",
        "|" + "|".join("---:" if pd.api.types.is_numeric_dtype(table[c]) else "---" for c in table.columns) + "|",
    ]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def write_report(out: Path, experiment: Experiment, tables: Tables, settings: Settings) -> None:
    """Write every table as CSV and Markdown, the settings, and the figure or figures of an experiment.

    Where it cannot be drawn, a line on stderr says so.
    """
    for stem, table in tables.items():
        put_table(out / f"{stem}.csv", table)
        put_text(out / f"{stem}.md", to_markdown(table))
    facts = {"experiment": experiment.name, "title": experiment.title, **_plain(vars(settings)), "tables": list(tables)}
    put_text(out / f"{experiment.name}.json", json.dumps(facts, indent=1, default=str) + "\n")
    with optional(f"figure of {experiment.name}", lambda line: print(line, file=sys.stderr)):
        figures = experiment.draw(tables)
        for stem, figure in (figures if isinstance(figures, Mapping) else {experiment.name: figures}).items():
            write_figure(figure, out / f"{stem}.png")


def _plain(value: Any) -> Any:
    """Settings as JSON can hold them: files by their names, tables that were given as objects by their type."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, str | Path):
        return Path(value).name if Path(value).is_file() else str(value)
    return value if isinstance(value, list | tuple | int | float | bool) or value is None else type(value).__name__
