"""The tables of a run: what is predicted, and how it compares with what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from raptorgraph import metrics, tl
from raptorgraph.model._export import long_effects
from raptorgraph.report._blocks import Note
from raptorgraph.tl._interactions import UNDETERMINED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Screen

_Z = 1.645  # an interval of 90 % is so many standard deviations to either side
_N_DRAWS, _FEWEST_DRAWS, _MOST_PAIRS = 100, 20, 2000  # more pairs get fewer draws, which take most of the time
_MOST_LISTED, _LISTED = 10_000, 2000  # of more pairs only those that come first are listed
_WORDS = ("perturbation", "gene_a", "gene_b", "interaction", "against_sum", "against_median")  # columns of pairs


@dataclass(frozen=True)
class Result:
    """What a run leaves behind for the terminal.

    Attributes
    ----------
    title
        What the summary compares.
    summary
        One row for each set of conditions and method: set, conditions, method, pearson, relative_mse.
    interactions
        All pairs, unmeasured ones first, and in each part first those that stand out.
    facts
        Short descriptions and their values.
    report
        The page that was written, if one was.
    notes
        What to know before using the results, what is important first.
    short, unsaid
        Sentences on what was found and on what cannot be said, as in the report.
    """

    title: str
    summary: pd.DataFrame
    interactions: pd.DataFrame
    facts: dict[str, Any]
    report: Path | None = None
    notes: Sequence[Note] = ()
    short: Sequence[str] = ()
    unsaid: Sequence[str] = ()

    @classmethod
    def read(cls, out: Path, title: str, found: Mapping[str, Mapping[str, Any]], training: float) -> Self:
        """The result of a finished run, from its files, what its stages have kept, and the seconds of the training."""
        facts = pd.read_csv(out / "facts.csv", dtype=str, keep_default_na=False)
        report, pairs = out / "report.html", pd.DataFrame()
        if found["tables"]["n_pairs"]:
            pairs = read_pairs(out / "interactions.csv")
            pairs.attrs["n_pairs"] = found["tables"]["n_pairs"]
        return cls(
            title,
            pd.read_csv(out / "summary.csv"),
            pairs,
            {**dict(zip(facts["fact"], facts["value"], strict=True)), "training": f"{training:.0f} s"},
            report=report if "page" in found["report"] else None,
            notes=[Note(*note) for note in found["report"].get("notes", ())],
            short=found["report"].get("short", ()),
            unsaid=found["report"].get("unsaid", ()),
        )


def read_pairs(path: Path) -> pd.DataFrame:
    """The table of :func:`ranked_pairs` as it was written; names may be any words, such as NA."""
    numbers = [name for name in pd.read_csv(path, nrows=0).columns if name not in _WORDS]
    return pd.read_csv(path, index_col=0, keep_default_na=False, na_values={name: [""] for name in numbers})


def effects_of(model: RaptorGraphModel, labels: list[str], genes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predicted effects, conditions x genes, and the table of them with 90 % intervals where there is a posterior."""
    if not model.has_posterior:
        effects = model.predict_effects(labels)[genes].set_axis(labels, axis=0) + 0.0  # a negative zero is a zero
        return effects, long_effects({"effect": effects})
    effects, sd = (x[genes].set_axis(labels, axis=0) for x in model.predict_effects(labels, return_sd=True))
    effects += 0.0
    ends = {"effect_low": effects - _Z * sd, "effect_high": effects + _Z * sd}
    return effects, long_effects({"effect": effects, "sd": sd, **ends})


def compare(name: str, truth: pd.DataFrame, predicted: pd.DataFrame, screen: Screen) -> pd.DataFrame:
    """Scores of the model and of two predictions that need no model, on the same conditions."""
    target = truth[predicted.columns].to_numpy(dtype=float)
    methods = {"raptorgraph": predicted.loc[truth.index].to_numpy(dtype=float)}
    measured = screen.effects[predicted.columns]
    singles = [[screen.single(gene) for gene in screen.genes_of[label]] for label in truth.index]
    # of a single the sum is the measured effect itself, which is no prediction
    if all(len(labels) > 1 and measured.index.isin(labels).sum() == len(labels) for labels in singles):
        methods["sum of measured singles"] = np.array([measured.loc[labels].sum() for labels in singles])
    methods["no change"] = np.zeros_like(target)
    return pd.DataFrame(
        {
            "set": name,
            "conditions": len(truth),
            "method": method,
            "pearson": metrics.pearson_delta(values, target),
            "relative_mse": metrics.relative_mse(values, target),
        }
        for method, values in methods.items()
    )


def ranked_pairs(
    model: RaptorGraphModel, measured: set[str], seed: int, say: Callable[[str], None]
) -> pd.DataFrame | None:
    """All pairs with 90 % intervals, unmeasured ones first, and first those whose interaction is determined.

    Of more than 10,000 pairs the 2,000 that depart most from the sum of both effects; ``attrs["n_pairs"]`` is then the
    number of all.

    ``measured`` says whether the whole screen has the pair; ``against_sum`` whether its effect is ``"stronger"`` or
    ``"weaker"`` than the sum of both genes' effects (:func:`against`), ``against_median`` the same for the median pair:
    in many screens all pairs fall short of the sum alike. Sizes are compared last, so that tiny effects do not come
    first.
    """
    n = len(model.perturbed_genes)
    if n < 2:
        return None
    n_draws = _N_DRAWS if model.has_posterior else 0
    n_pairs = n * (n - 1) // 2
    top = None
    if n_pairs > _MOST_LISTED:
        top = _LISTED
        say(f"Of {n_pairs:,} pairs the {top:,} are listed that depart most from the sum of both effects.")
    elif n_draws and n_pairs > _MOST_PAIRS:
        n_draws = max(_FEWEST_DRAWS, _N_DRAWS * _MOST_PAIRS // n_pairs)
        say(f"Intervals of {n_pairs:,} pairs take a while: {n_draws} draws each.")
    table = tl.interactions(model, top=top, n_draws=n_draws, seed=seed)
    table["measured"] = table.index.isin(measured)
    table["against_sum"] = against(table, 1.0)
    # the median of the pairs that depart most is not that of all
    table["against_median"] = against(table, table["synergy"].median()) if top is None else ""
    size = (table["magnitude"] - table["magnitude"] / table["synergy"]).abs()
    alike = {name: table[name] == "" for name in ("against_median", "against_sum")}
    unknown = table["interaction"] == UNDETERMINED
    order = pd.DataFrame({"measured": table["measured"], "unknown": unknown, **alike, "size": -size})
    return table.loc[order.sort_values(list(order), kind="stable").index]


def against(table: pd.DataFrame, value: float) -> np.ndarray:
    """Whether each pair's synergy is ``"stronger"`` or ``"weaker"`` than a value; empty where that cannot be told.

    It is where the interaction is determined and the whole interval lies on the same side of the value.
    """
    if "synergy_low" not in table:
        return np.full(len(table), "")
    known = table["interaction"] != UNDETERMINED
    stronger, weaker = known & (table["synergy_low"] > value), known & (table["synergy_high"] < value)
    return np.select([stronger, weaker], ["stronger", "weaker"], "")


def edge_count(edges: pd.DataFrame, truth: pd.DataFrame | None, genes: Sequence[str]) -> int | str:
    """How many edges there are and, where the truth is known (row = cause), how many of them are true ones."""
    if truth is None:
        return len(edges)
    right = sum(truth.loc[edge.source, edge.target] != 0 for edge in edges.itertuples())
    return f"{len(edges)}, of which {right} are among the {np.count_nonzero(truth.loc[genes, genes])} true ones"
