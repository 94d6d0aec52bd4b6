"""What the experiments on settings of our model share: one variant is trained, scored, and set beside references.

The model is trained on control and singles and asked for unseen combinations, as in the regime ``singles`` of
``prediction``; the seeds of the draws are those of ``prediction`` too. Nothing is chosen by these scores.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from raptorgraph import metrics
from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._methods import epochs_of, n_repeats_of
from raptorgraph.benchmark._report import mean_and_sd
from raptorgraph.benchmark._settings import Part
from raptorgraph.evaluation import _scores
from raptorgraph.evaluation._methods import RaptorGraphMethod
from raptorgraph.evaluation._scores import CEILING, CHANCE, FLOOR, HALF, TYPES
from raptorgraph.evaluation._splits import Split, singles_only
from raptorgraph.pl._figure import GRAY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from raptorgraph.baselines import Baseline
    from raptorgraph.benchmark._experiments import Parts
    from raptorgraph.benchmark._settings import Settings
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Screen

PRESETS = ("default", "paper")
REFERENCE, PUBLISHED = "reference", "published"
ADDITIVE = "sum of the measured singles"
_K = 10
PRECISION = {type_: f"precision@{_K}, {type_}" for type_ in TYPES}
_MMD = partial(metrics.mk_mmd, bandwidth=200.0)


# -- models ----------------------------------------------------------------------------------------------------------
class GivenGraph(RaptorGraphMethod):
    """The model with a graph that is set before the training and not trained.

    Parameters
    ----------
    preset
        ``"default"`` or ``"paper"``.
    adjacency
        Weights among the latents by name, row = cause; latents that are not named have no edge.
    **kwargs
        Further arguments of :class:`RaptorGraphMethod`.
    """

    def __init__(self, preset: str, adjacency: pd.DataFrame, **kwargs: Any):
        kwargs["model_kwargs"] = {**(kwargs.get("model_kwargs") or {}), "graph": "fixed"}
        super().__init__(preset, **kwargs)
        self.adjacency = adjacency

    def prepare(self, model: RaptorGraphModel) -> None:
        """Set the graph and fix it."""
        names = model.latent_names
        weights = self.adjacency.reindex(index=names, columns=names, fill_value=0.0).to_numpy()
        model.module.graph.fix(torch.tensor(weights, dtype=torch.float32))


# -- work ------------------------------------------------------------------------------------------------------------
def unseen_split(screen: Screen) -> Split:
    """Train on singles, test on combinations, as in the regime ``singles`` of ``prediction``."""
    return singles_only(screen.conditions, seed=0, **screen.spelling)


def variant(
    preset: str,
    seed: int,
    settings: Settings,
    screen: Screen,
    kind: type[RaptorGraphMethod] = RaptorGraphMethod,
    **kwargs: Any,
) -> RaptorGraphMethod:
    """Unfitted variant of our model without the posterior of the effects: what the network finds by itself.

    Parameters
    ----------
    preset
        ``"default"`` or ``"paper"``.
    seed
        Seed of the training.
    settings
        Settings with the number of epochs.
    screen
        Screen whose setup is used.
    kind
        Class of the variant.
    **kwargs
        Further arguments of that class, such as ``model_kwargs`` and ``plan_kwargs``.
    """
    kwargs["model_kwargs"] = {"effect_posterior": False, **(kwargs.get("model_kwargs") or {})}
    return kind(preset, seed=seed, max_epochs=epochs_of(settings), **kwargs, **screen.setup)


def fit_and_score(method: Baseline, screen: Screen, settings: Settings, seed: int) -> dict[str, float]:
    """Train a method on control and singles, and score the unseen combinations.

    Parameters
    ----------
    method
        Unfitted; it is trained in place.
    screen, settings
        Data, and the option ``n_repeats``.
    seed
        Seed of the draws of cells.

    Returns
    -------
    Relative MSE and Pearson of the effects against the predicted control, unbiased MK-MMD (bandwidth 200) and ratio of
    variances of the cells as means over combinations, Precision@10 of five types of interaction, seconds and megabytes
    of the training.
    """
    split = unseen_split(screen)
    train = screen.cells(split.refit)
    with Measured() as fit:
        method.fit(train)
    effects = method.predict_effects([*split.refit, *split.test])
    found = effect_scores(effects, screen.effects, screen, split.test)
    found |= cell_scores(method, screen, settings, seed)
    return {**found, "seconds to fit": fit.seconds, "memory, MB": fit.megabytes}


def cell_scores(method: Baseline, screen: Screen, settings: Settings, seed: int) -> dict[str, float]:
    """MK-MMD and ratio of variances of the predicted cells of unseen combinations, means over these."""
    n_cells, n_repeats, distances, ratios = _scores.sample_size(screen), n_repeats_of(settings), [], []
    for label in _scores.large_enough(screen, unseen_split(screen).test, n_cells):
        draw, real = _scores.draw_seed(seed, screen, label), screen.expression_of(label)
        drawn = method.predict(label, n_cells=n_cells * n_repeats, seed=draw).to_df().to_numpy()
        sampled = metrics.sampled_scores(drawn, real, n_cells=n_cells, n_repeats=n_repeats, seed=draw, score=_MMD)
        distances.append(sampled["value"].mean())
        ratios.append(metrics.variance_ratio(drawn, real))
    means: dict[str, float] = (
        pd.DataFrame({"MK-MMD": distances, "variance ratio": ratios}, dtype=float).mean().to_dict()
    )
    return means


def effect_scores(
    effects: pd.DataFrame, measured: pd.DataFrame, screen: Screen, test: Sequence[str]
) -> dict[str, float]:
    """Relative MSE, Pearson, and Precision@10 of every type of interaction among the tested pairs.

    Parameters
    ----------
    effects, measured
        Predicted and measured effects, conditions x genes, of the tested combinations and of their single genes.
    screen
        Genes of the conditions.
    test
        Tested combinations; those of two genes count for the interactions.
    """
    test = list(test)
    found = {
        "relative MSE": metrics.relative_mse(effects.loc[test], measured.loc[test]),
        "Pearson": metrics.pearson_delta(effects.loc[test], measured.loc[test]),
    }
    predicted, true = (_interactions(table, screen, test) for table in (effects, measured))
    return found | {PRECISION[type_]: metrics.precision_at_k(predicted[type_], true[type_], k=_K) for type_ in true}


def reference_part(screen: Screen, settings: Settings, seed: int, by: Sequence[str]) -> Part:
    """Scores of the references, as the scores of a model with the reference's name.

    Those are the sum of the measured singles, one half of the cells for the other, floor and ceiling of the distance of
    cells, and precision by chance.
    """
    split, n_cells = unseen_split(screen), _scores.sample_size(screen)
    sums = screen.effects.copy()
    for label in split.test:
        sums.loc[label] = sums.loc[[screen.single(gene) for gene in screen.genes_of[label]]].sum()
    first, second = (screen.effects_of(rows) for rows in screen.halves(seed))
    true = _interactions(screen.effects, screen, split.test)
    found = {
        ADDITIVE: effect_scores(sums, screen.effects, screen, split.test),
        HALF: effect_scores(first, second, screen, split.test),
        CHANCE: {PRECISION[type_]: metrics.chance_precision(values) for type_, values in true.items()},
    }
    control, distances = screen.expression_of(screen.control), []
    for label in _scores.large_enough(screen, split.test, n_cells):
        draw = _scores.draw_seed(seed, screen, label)
        draws = {"n_cells": n_cells, "n_repeats": n_repeats_of(settings), "seed": draw}
        distances.append(metrics.floor_and_ceiling(screen.expression_of(label), control, **draws, score=_MMD))
    if distances:
        means = pd.concat(distances).groupby("reference")["value"].mean()
        found |= {FLOOR: {"MK-MMD": means["floor"]}, CEILING: {"MK-MMD": means["ceiling"]}}
    rows = [long_part((REFERENCE, name), scores, by).rows for name, scores in found.items()]
    return Part(pd.concat(rows, ignore_index=True))


def long_part(key: Sequence[str], scores: Mapping[str, float], by: Sequence[str]) -> Part:
    """Scores of one variant as a long table with the columns `by`, ``metric`` and ``value``."""
    rows = [(*key, metric, float(value)) for metric, value in scores.items()]
    return Part(pd.DataFrame(rows, columns=[*by, "metric", "value"]))


def _interactions(effects: pd.DataFrame, screen: Screen, test: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores of every type for the tested pairs; none where there is no pair."""
    pairs = [label for label in test if len(screen.genes_of[label]) == 2]
    return _scores.interaction_scores(*_scores.pair_effects(effects, pairs, screen)) if pairs else {}


# -- tables and figures ----------------------------------------------------------------------------------------------
def summarize(parts: Parts, by: Sequence[str], published: Sequence[tuple[object, ...]] = ()) -> pd.DataFrame:
    """Mean and SD over seeds of every variant, then of the references, then the published values (n = 0).

    Parameters
    ----------
    parts
        Finished units, tables of :func:`long_part` or :func:`reference_part`.
    by
        Columns that name a variant; the first of them is ``"reference"`` for references.
    published
        Rows of printed values: the columns `by`, metric, value.
    """
    # as text before they come together: a column of whole numbers would turn into one of floats
    rows = pd.concat([part.rows.astype(dict.fromkeys(by, str)) for _, part in parts], ignore_index=True)
    summary = mean_and_sd(rows, [*by, "metric"])
    last = summary[by[0]] == REFERENCE
    found = [summary[~last], summary[last]]
    if published:
        found.append(pd.DataFrame(published, columns=[*by, "metric", "value_mean"]).assign(value_sd=np.nan, n=0))
    return pd.concat(found, ignore_index=True)


def draw_points(ax: Axes, values: pd.DataFrame, column: str, **style: Any) -> None:
    """Mean and SD against the numbers of a column; markers are empty, so that points that agree stay visible."""
    x, sd = values[column].astype(float), values["value_sd"].fillna(0)
    ax.errorbar(x, values["value_mean"], yerr=sd, markerfacecolor="none", **style)


def draw_references(ax: Axes, summary: pd.DataFrame, metric: str, horizontal: bool) -> None:
    """Lines of the references that are defined for a score."""
    styles = {ADDITIVE: ":", HALF: "-", FLOOR: "--", CEILING: "-.", CHANCE: (0, (1, 3))}
    here = summary[(summary.iloc[:, 0] == REFERENCE) & (summary["metric"] == metric)]
    for name, value in zip(here.iloc[:, 1], here["value_mean"], strict=True):
        if name in styles and np.isfinite(value):
            line = ax.axhline if horizontal else ax.axvline
            line(value, color=GRAY, linestyle=styles[name], linewidth=1.3, label=name, zorder=0)
