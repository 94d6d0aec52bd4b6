"""Experiment ``interactions``: which pairs interact, by the paper's five scores and by GEARS's (Table 2, section D.4).

Control and singles are seen; the pairs are those that the regime ``singles`` of ``prediction`` tests, or all of them
(``--regimes paper``, as published); the fits are those of ``prediction``. A method predicts the effects of both genes
and of the pair, its scores rank the pairs, and Precision@10 is the part of its first ten that truly interact. Truly
means: among the strongest quarter of the measured scores (paper), beyond GEARS's thresholds in the measured scores, or
as labeled in a publication (``gi_labels``: a JSON file of type -> list of pairs). Chance is printed beside each column.
Ties count with their expected value: additive predictions have constant synergy and neomorphism, hence score chance
there.

``raptorgraph benchmark interactions --screen FILE``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptorgraph import metrics
from raptorgraph.benchmark import _fits as fits
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._report import in_order, mean_and_sd, wide
from raptorgraph.evaluation._methods import ordered
from raptorgraph.evaluation._scores import CHANCE, HALF, TYPES, interaction_scores, pair_effects
from raptorgraph.pl._panels import dot_panel
from raptorgraph.screen._labels import parse_perturbation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.benchmark._settings import Settings, Unit
    from raptorgraph.screen import Screen

    Scores = dict[str, dict[str, np.ndarray]]
    Positives = dict[str, tuple[str, dict[str, np.ndarray | None]]]

OPTIONS = ("methods", "regimes", "gene_sets", "predictions", "max_epochs", "n_repeats", "gi_labels", "n_genes")
_PUBLISHED = {  # names in GEARS's file of labels
    "synergy": ("SYNERGY_SIMILAR_PHENO", "SYNERGY_DISSIMILAR_PHENO"),
    "suppression": ("SUPPRESSOR",),
    "neomorphism": ("NEOMORPHIC",),
    "redundancy": ("REDUNDANT",),
    "epistasis": ("EPISTASIS",),
}
_K = 10


def units(settings: Settings) -> list[Unit]:
    """The units of ``prediction`` that fit singles alone."""
    screen = load_screen(settings, settings.seeds[0])
    _labels(settings, screen)
    for regime in fits.regimes_of_singles(settings):
        if len(_pairs(regime, screen, settings, settings.seeds[0])) < 2:
            raise ValueError(
                "The screen measured fewer than two pairs of genes that were perturbed alone: nothing to rank."
            )
    return fits.units_of_singles(settings)


def tables(parts: Parts, settings: Settings) -> Tables:
    """``interactions`` (to read), ``interactions_long``, and ``interactions_scores`` of every pair."""
    precision, pairs = [], []
    definitions: list[str] = []
    regimes = fits.regimes_of_singles(settings)
    for seed in settings.seeds:
        screen = load_screen(settings, seed)
        labels = _labels(settings, screen)
        genes = _expressed(screen, settings.options.get("n_genes", 1000))
        for regime in regimes:
            pairs_asked = _pairs(regime, screen, settings, seed)
            measured = _scores(screen.effects, pairs_asked, screen, genes)
            positives = _positives(measured, pairs_asked, labels)
            definitions = list(positives)
            predicted = {
                name: _scores(frame, pairs_asked, screen, genes)
                for name, frame in _predicted(parts, regime, screen, seed, settings, pairs_asked).items()
            }
            for kind, (strengths, positive) in positives.items():
                for type_, truth in positive.items():
                    if truth is None:
                        continue
                    precision.append((seed, regime, CHANCE, kind, type_, metrics.chance_precision(truth)))
                    for name, scores in predicted.items():
                        value = metrics.precision_at_k(scores[strengths][type_], truth, k=_K)
                        precision.append((seed, regime, name, kind, type_, value))
            for name, scores in {"measured": measured, **predicted}.items():
                table = pd.DataFrame({f"{kind} {key}": v for kind, part in scores.items() for key, v in part.items()})
                pairs.append(table.assign(pair=pairs_asked, method=name, seed=seed, regime=regime))
    long = pd.DataFrame(precision, columns=["seed", "regime", "method", "definition", "type", "value"])
    mean = long.groupby(["seed", "regime", "method", "definition"], sort=False)["value"].mean().reset_index()
    by = ["regime", "definition", "method"]
    summary = mean_and_sd(pd.concat([long, mean.assign(type="mean of all")], ignore_index=True), [*by, "type"])
    summary = in_order(summary, regime=regimes, definition=definitions, method=ordered(summary["method"]))
    all_pairs = pd.concat(pairs, ignore_index=True)
    first = ["seed", "regime", "method", "pair"]
    return {
        "interactions": wide(summary, by, columns="type").fillna("-"),
        "interactions_long": summary,
        "interactions_scores": all_pairs[first + [column for column in all_pairs if column not in first]],
    }


def draw(tables: Tables) -> Figure:
    """Precision@10 of every method, one panel for each regime, definition and type, with chance."""
    summary = tables["interactions_long"]
    rows = list(dict.fromkeys(summary[["regime", "definition"]].itertuples(index=False, name=None)))
    several = summary["regime"].nunique() > 1
    methods = [name for name in dict.fromkeys(summary["method"]) if name != CHANCE]
    figure = Figure(figsize=(14, len(rows) * (1.0 + 0.22 * len(methods))), layout="constrained")
    for axes, (regime, kind) in zip(figure.subplots(len(rows), len(TYPES), squeeze=False), rows, strict=True):
        of_row = summary[(summary["regime"] == regime) & (summary["definition"] == kind)]
        for ax, type_ in zip(axes, TYPES, strict=True):
            here = of_row[of_row["type"] == type_].set_index("method")
            lines = {"chance": here["value_mean"].get(CHANCE, np.nan)}
            title = f"{regime}, {kind}: {type_}" if several else f"{kind}: {type_}"
            dot_panel(ax, here, methods, lines, title=title, labels=ax is axes[0], limits=(0.0, 1.0))
    figure.suptitle("Precision@10", fontsize=10)
    return figure


# -- scores ----------------------------------------------------------------------------------------------------------
def _pairs(regime: str, screen: Screen, settings: Settings, seed: int) -> list[str]:
    """Pairs that were left out of the training."""
    [split] = fits.splits(regime, screen, seed, settings)
    return [label for label in split.test if len(screen.genes_of[label]) == 2]


def _scores(effects: pd.DataFrame, pairs: Sequence[str], screen: Screen, genes: np.ndarray) -> Scores:
    """Paper's scores on all genes, GEARS's on the highest expressed ones, each with larger for stronger."""
    a, b, ab = pair_effects(effects, pairs, screen)
    gears = metrics.gears_scores(a[:, genes], b[:, genes], ab[:, genes])
    return {
        "paper": interaction_scores(a, b, ab),
        "GEARS": metrics.gears_strengths(gears),
        "GEARS raw": gears,
    }


def _positives(measured: Scores, pairs: Sequence[str], labels: dict[str, set[str]]) -> Positives:
    """For each definition the scores to rank by, and which pairs are positive for each type (None: no such pair)."""
    gears = metrics.gears_classes(measured["GEARS raw"])
    found: Positives = {
        "paper": ("paper", {**measured["paper"]}),
        "GEARS": ("GEARS", {name: gears[name] if gears[name].any() else None for name in TYPES}),
    }
    if labels:
        known = {name: np.array([pair in labels[name] for pair in pairs]) for name in TYPES}
        found["published"] = ("GEARS", {name: hits if hits.any() else None for name, hits in known.items()})
    return found


def _predicted(
    parts: Parts, regime: str, screen: Screen, seed: int, settings: Settings, pairs: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Predicted effects of singles and pairs, for each method; and those measured on half of the cells."""
    effects = fits.predicted(parts, regime, screen, seed)
    found = {name: frame for (name, reference), frame in effects.items() if reference == fits.OWN}
    for name, tool in fits.external(settings, screen).items():
        singles = screen.effects.loc[[label for label in screen.singles if label not in tool.effects.index]]
        if not tool.missing(pairs):
            found[name] = pd.concat([tool.effects, singles])  # measured where the tool gives no singles
    rows, _ = screen.halves(seed)
    found[HALF] = screen.effects_of(rows)
    return found


def _expressed(screen: Screen, n_genes: int) -> np.ndarray:
    """The genes with the highest mean in control cells, as in GEARS's evaluation."""
    return np.sort(np.argsort(-screen.control_mean, kind="stable")[:n_genes])


def _labels(settings: Settings, screen: Screen) -> dict[str, set[str]]:
    """Published pairs of each type, as labels of the screen."""
    path = settings.options.get("gi_labels")
    if path is None:
        return {}
    if not Path(path).is_file():
        raise FileNotFoundError(f"gi_labels: there is no file {str(path)!r}.")
    given = json.loads(Path(path).read_text())
    missing = [key for keys in _PUBLISHED.values() for key in keys if key not in given]
    if missing:
        raise ValueError(f"gi_labels: {str(path)!r} lacks the type {missing[0]!r}; it has {sorted(given)}.")
    # targets that go by another name among the genes of a public screen
    aliases = dict(screen.adata.uns.get("target_aliases", {}))

    def labels(pairs: Iterable[str]) -> set[str]:
        genes = map(parse_perturbation, pairs)
        return {screen.label([aliases.get(gene, gene) for gene in pair]) for pair in genes}

    return {name: labels(pair for key in keys for pair in given[key]) for name, keys in _PUBLISHED.items()}


INTERACTIONS = Experiment(
    "interactions", "Precision@10 of genetic interactions", OPTIONS, units, fits.work, tables, draw, fits.WORK_OPTIONS
)
