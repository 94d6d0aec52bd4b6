"""Experiment ``latents``: do latents show the perturbations of cells that the fit did not see?

A quarter of the cells of each condition (at least 20, at most half) is held out; every method is fitted on the others
and embeds the held-out ones, in as many dimensions as our model has by default:

- ``raptorgraph``: all causal latents; ``, own latents``: the exogenous ones of perturbed genes; also as published;
- ``PCA`` of expression, ``log1p(1e4 * count / library size)``;
- ``scVI``, and ``contrastiveVI`` (its salient latents, control cells being its background), for screens of counts.

``accuracy``: balanced accuracy with which the condition of a cell, control included, is told from its latents in
4-fold cross-validation among the held-out cells, by 15 nearest neighbors and by logistic regression. ``silhouette`` is
that of the conditions, of 2,000 cells; it is low where many conditions do next to nothing. ``batch mixing`` is 1 where
batches mix as by chance, and shown where there are batches.

The own latent of a perturbation, less its mean in the control cells of the fit and in the direction in which the
modulator shifts it, is compared with those of the other perturbed genes (share of cells in which it is the largest,
its mean rank) and with control cells (AUROC); its mean shift is to be compared with the modulator's. These rest on the
conditions of one gene.

``raptorgraph benchmark latents --screen FILE``; ``--set 'conditions="singles"'`` leaves combinations out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import silhouette_score

from raptorgraph import metrics
from raptorgraph._arguments import check_choice
from raptorgraph.benchmark import _embeddings as embeddings
from raptorgraph.benchmark._embeddings import AUROC, FOR_COUNTS, LARGEST, METHODS, MODULATOR, N_CELLS, RANK, SHIFT
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, paired_differences, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.pl._panels import dot_panel

if TYPE_CHECKING:
    from raptorgraph.benchmark._embeddings import Parted
    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.screen import Screen

OPTIONS = ("methods", "conditions", "max_epochs")
CHANCE, BASELINE = "chance", "PCA"
NEIGHBORS, LOGISTIC, SILHOUETTE, MIXING = "accuracy, neighbors", "accuracy, logistic", "silhouette", "batch mixing"
DIMENSION, SECONDS = "latents", "seconds to fit and embed"
SCORES = (NEIGHBORS, LOGISTIC, SILHOUETTE, MIXING)
OF_OWN = (LARGEST, RANK, AUROC, SHIFT, MODULATOR)
ALL = "(all)"  # of the rows that are not of one perturbation
_SILHOUETTE_CELLS = 2000
_COLUMNS = ["method", "perturbation", "metric", "value"]


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """One unit for each seed and method, and one of what chance gives."""
    screen = load_screen(settings, settings.seeds[0])
    parted = _parted(screen, settings, settings.seeds[0])
    n_labels = len(np.unique(parted.codes))
    if n_labels < 2 or not (parted.codes == 0).any():
        raise ValueError(
            f"{n_labels} condition(s), control included, have the 16 cells of which some can be held out: control and "
            "at least one other are needed."
        )
    pieces = [(name, {"method": name}) for name in [*_methods(settings, screen), CHANCE]]
    return units_by_seed(settings, pieces)


def work(unit: Unit, settings: Settings) -> Part:
    """Fit on a part of the cells, embed the others, and score them."""
    screen, name = load_screen(settings, unit.seed), unit.options["method"]
    parted = _parted(screen, settings, unit.seed)
    if name == CHANCE:
        return Part(pd.DataFrame([(CHANCE, ALL, *item) for item in by_chance(parted).items()], columns=_COLUMNS))
    own, n_latent = pd.DataFrame(), embeddings.dimension(parted)
    with Measured() as fit:
        if name in embeddings.OURS:
            found, own = embeddings.embed_by_ours(name, parted, settings, unit.seed)
        elif name == BASELINE:
            found = {name: embeddings.embed_by_pca(parted, n_latent, unit.seed)}
        else:
            found = {name: embeddings.embed_by_deep_model(name, parted, n_latent, settings, unit.seed)}
    rows: list[tuple[str, str, str, float]] = []
    for method, latents in found.items():
        scores = {**score(latents, parted, unit.seed), DIMENSION: latents.shape[1], SECONDS: fit.seconds}
        rows += [(method, ALL, metric, value) for metric, value in scores.items()]
    rows += [(name, str(label), metric, value) for label, row in own.iterrows() for metric, value in row.items()]
    rows += [(name, ALL, metric, value) for metric, value in over_all(own).items()]
    return Part(pd.DataFrame(rows, columns=_COLUMNS))


def score(latents: np.ndarray, parted: Parted, seed: int) -> dict[str, float]:
    """Accuracies, silhouette and, where there are batches, their mixing, of the held-out cells x latents."""
    codes, batch = parted.codes, _batch(parted)
    found = {
        NEIGHBORS: metrics.label_accuracy(latents, codes, "neighbors", seed=seed),
        LOGISTIC: metrics.label_accuracy(latents, codes, "logistic", seed=seed),
        SILHOUETTE: float(
            silhouette_score(latents, codes, sample_size=min(_SILHOUETTE_CELLS, len(codes)), random_state=seed)
        ),
    }
    if batch is not None:
        found[MIXING] = metrics.batch_mixing(latents, batch)
    return found


def over_all(own: pd.DataFrame) -> dict[str, float]:
    """Share and rank as means over cells, all else as means over conditions; nothing without conditions."""
    if own.empty:
        return {}
    cells = own[N_CELLS].to_numpy()
    weighted = {name: float(np.average(own[name], weights=cells)) for name in (LARGEST, RANK)}
    return weighted | {name: float(own[name].mean()) for name in (AUROC, SHIFT, MODULATOR)}


def by_chance(parted: Parted) -> dict[str, float]:
    """What latents give that know nothing of the cells."""
    screen, accuracy = parted.screen, 1 / len(np.unique(parted.codes))
    k = len({gene for code in np.unique(screen.codes[parted.train]) for gene in screen.genes_of[screen.labels[code]]})
    found = {NEIGHBORS: accuracy, LOGISTIC: accuracy, LARGEST: 1 / k, RANK: (k + 1) / 2, AUROC: 0.5}
    return found | ({} if _batch(parted) is None else {MIXING: 1.0})


def _batch(parted: Parted) -> np.ndarray | None:
    """Batch of each held-out cell; None where they have one alone."""
    batch = None if parted.screen.batch is None else parted.screen.batch[parted.test]
    return None if batch is None or len(np.unique(batch)) < 2 else batch


def _parted(screen: Screen, settings: Settings, seed: int) -> Parted:
    wanted = check_choice("conditions", settings.option("conditions", "all"), ("all", "singles"))
    if wanted == "singles" and not screen.singles:
        raise ValueError("conditions='singles': the screen has no condition of one gene; use 'all'.")
    return embeddings.hold_out(screen, seed, combinations=wanted == "all")


def _methods(settings: Settings, screen: Screen) -> list[str]:
    asked = chosen(settings, "methods", METHODS, "has no latents or is unknown")
    if screen.source[1] is not None:
        return asked
    if settings.options.get("methods"):
        for name in asked:
            if name in FOR_COUNTS:
                raise ValueError(f"methods: {name!r} needs counts, the screen has logarithms: name their layer.")
    return [name for name in asked if name not in FOR_COUNTS]


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``latents`` and ``latents_own`` (to read), ``latents_differences`` to PCA, and the long tables.

    These are ``latents_long``, and ``latents_perturbations`` with every condition of one gene.
    """
    rows = all_rows(parts)
    overall, each = (rows[(rows["perturbation"] == ALL) == whole] for whole in (True, False))
    summary = mean_and_sd(overall, ["method", "metric"])
    methods = [*(name for name in summary["method"].unique() if name != CHANCE), CHANCE]
    summary = in_order(summary, method=methods, metric=[*SCORES, *OF_OWN, DIMENSION, SECONDS])
    table = wide(summary[summary["metric"].isin((*SCORES, SECONDS))], ["method"]).fillna("-")
    d = summary[summary["metric"] == DIMENSION].set_index("method")["value_mean"]
    table.insert(1, DIMENSION, [f"{d[name]:g}" if name in d else "-" for name in table["method"]])
    found = {"latents": table, "latents_long": summary}
    if len(each):
        found["latents_own"] = wide(summary[summary["metric"].isin(OF_OWN)], ["method"]).dropna(subset=LARGEST)
        found["latents_own"] = found["latents_own"].fillna("-")
        found["latents_perturbations"] = mean_and_sd(each, ["method", "perturbation", "metric"])
    if BASELINE in methods:
        found["latents_differences"] = wide(differences(overall), ["method"]).fillna("-")
    return found


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores less those of PCA on the same cells, mean and SD over seeds; `rows` has one for each method and seed."""
    scores = rows[rows["metric"].isin(SCORES) & (rows["method"] != CHANCE)]
    return paired_differences(in_order(scores, metric=SCORES), BASELINE)


# -- figure ----------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> Figure:
    """Accuracies, silhouette, batch mixing and the own latent of every method, with chance."""
    summary = tables["latents_long"].set_index(["metric", "method"])
    shown = [metric for metric in (*SCORES, LARGEST, AUROC) if metric in summary.index.get_level_values(0)]
    methods = [name for name in summary.index.get_level_values(1).unique() if name != CHANCE]
    figure = Figure(figsize=(2.2 + 2.2 * len(shown), 1.2 + 0.35 * len(methods)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(shown)))
    for ax, metric in zip(axes, shown, strict=True):
        values = summary.loc[metric]
        lines = values["value_mean"].reindex([CHANCE]).dropna().to_dict()
        mean, sd = values["value_mean"], values["value_sd"].fillna(0)
        limits = min(0.0, (mean - sd).min()), max(0.0, (mean + sd).max())
        dot_panel(ax, values, methods, lines, title=metric, labels=ax is axes[0], limits=limits)
    return figure


LATENTS = Experiment(
    "latents", "Perturbations of unseen cells in the latents of several methods", OPTIONS, units, work, tables, draw
)
