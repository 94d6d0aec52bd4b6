"""Experiment ``capacity``: how many latents for each perturbed gene? (ablation of the paper's later revision)

The model with d = 1, 1.25, 1.5, 2 and 3 latents for each of the k perturbed genes is trained on control and singles,
and asked for unseen combinations; latents beyond k belong to no gene. Read each row beside the references: the sum of
the measured singles needs no model; MK-MMD lies between its floor (real against real cells) and its ceiling (control
against real cells); relative MSE, Pearson and precision of one half of the cells for the other are what noise allows;
precision is to be compared with chance, which it equals by definition where at most ten pairs are tested. A latent is
active if its KL to the prior exceeds 0.01 nats. The revision's values (other data, preset ``paper``) are printed too.
Nothing is chosen by these scores.

``raptorgraph benchmark capacity --screen FILE``; ``--set 'ratios=[1, 2]'`` and ``--set 'presets=["paper"]'`` narrow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import sparse

from raptorgraph.benchmark._measure import Measured
from raptorgraph.benchmark._methods import QUICK_EPOCHS, RaptorGraphMethod
from raptorgraph.benchmark._report import mean_and_sd, wide
from raptorgraph.benchmark._scores import sample_size
from raptorgraph.benchmark._screen import Screen, load_screen
from raptorgraph.benchmark._settings import Part, Settings, Unit
from raptorgraph.benchmark._splits import Split, singles_only
from raptorgraph.metrics import _interactions as interactions
from raptorgraph.metrics._distribution import mk_mmd, variance_ratio
from raptorgraph.metrics._effects import pearson_delta, relative_mse
from raptorgraph.metrics._precision import chance_precision, precision_at_k
from raptorgraph.metrics._reference import floor_and_ceiling, sampled_scores
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pp import format_perturbation

TITLE = "Prediction of unseen combinations with more latents than perturbed genes"
OPTIONS = ("presets", "ratios", "max_epochs", "n_repeats")
PRESETS = ("default", "paper")
RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0)
TYPES = ("synergy", "suppression", "neomorphism", "redundancy", "epistasis")
REFERENCE, PUBLISHED = "reference", "published"
HALF, ADDITIVE, FLOOR, CEILING, CHANCE = (
    "half of the cells, for the other half",
    "sum of the measured singles",
    "floor: real against real cells",
    "ceiling: control against real cells",
    "chance",
)
_K = 10
PRECISION = {type_: f"precision@{_K}, {type_}" for type_ in TYPES}
_MMD = partial(mk_mmd, bandwidth=200.0)
# Later revision of the paper, Norman et al. (2019): d/k, MK-MMD, Precision@10 of neomorphism
_REVISION = ((1, 0.140, 0.600), (1.25, 0.106, 0.600), (1.5, 0.091, 0.567), (2, 0.113, 0.433), (3, 0.184, 0.200))
_BY = ["preset", "latents per gene"]
_PANELS = ("relative MSE", "Pearson", "MK-MMD", PRECISION["neomorphism"], "active latents", "seconds to fit")


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """For each seed one unit of references, and one for each preset and number of latents."""
    unseen_split(load_screen(settings, settings.seeds[0]))
    presets = chosen(settings, "presets", PRESETS)
    ratios = settings.options.get("ratios") or ((1.0, 1.5) if settings.quick else RATIOS)
    for ratio in ratios:
        if not ratio >= 1:
            raise ValueError(f"ratios: {ratio!r} is below 1, but every perturbed gene owns a latent.")
    return [
        *(Unit(f"reference-seed{seed}", seed) for seed in settings.seeds),
        *(
            Unit(f"{preset}-{ratio:g}-seed{seed}", seed, {"preset": preset, "ratio": float(ratio)})
            for preset in presets
            for ratio in ratios
            for seed in settings.seeds
        ),
    ]


def work(unit: Unit, settings: Settings) -> Part:
    """Train with that many latents, and score the unseen combinations."""
    screen = load_screen(settings, unit.seed)
    if not unit.options:
        return reference_part(screen, unit.seed, settings, _BY)
    preset, ratio = unit.options["preset"], unit.options["ratio"]
    k = len({gene for label in unseen_split(screen).refit for gene in screen.genes_of[label]})
    method, found = fit_and_score(screen, unit.seed, settings, preset, model_kwargs={"n_latent": round(ratio * k)})
    activity = method.model.latent_activity()
    found |= {
        "latents": len(activity),
        "active latents": int(activity["active"].sum()),
        "parameters": sum(p.numel() for p in method.model.module.parameters() if p.requires_grad),
    }
    return long_part((preset, f"{ratio:g}"), found, _BY)


# -- what the experiments on settings of the model share -------------------------------------------------------------
def chosen(settings: Settings, option: str, known: Sequence[str]) -> list[str]:
    """Names that the option gives, or all; ValueError for one that is unknown."""
    asked = settings.options.get(option) or known
    for name in [asked] if isinstance(asked, str) else asked:
        if name not in known:
            raise ValueError(f"{option}: {name!r} is unknown; there are {', '.join(known)}.")
    return [asked] if isinstance(asked, str) else list(asked)


def unseen_split(screen: Screen) -> Split:
    """Train on singles, test on combinations, as in the regime ``singles`` of ``prediction``."""
    return singles_only(screen.conditions, seed=0, **_spelling(screen))


def fit_and_score(
    screen: Screen, seed: int, settings: Settings, preset: str, **kwargs: Any
) -> tuple[RaptorGraphMethod, dict[str, float]]:
    """Train one variant of the model on control and singles, and score its unseen combinations.

    Parameters
    ----------
    screen, seed, settings
        Data, seed of the training and of all samples, and the options ``max_epochs`` and ``n_repeats``.
    preset
        ``"default"`` or ``"paper"``.
    **kwargs
        ``model_kwargs`` and ``plan_kwargs`` that take precedence over the preset.

    Returns
    -------
    The trained model, and its scores: relative MSE and Pearson of the effects against the predicted control, unbiased
    MK-MMD (bandwidth 200) and ratio of variances of the cells as means over combinations, Precision@10 of five types of
    interaction, seconds and megabytes of the training.
    """
    split, n_cells, n_repeats = unseen_split(screen), sample_size(screen), _n_repeats(settings)
    epochs = settings.options.get("max_epochs") or (QUICK_EPOCHS if settings.quick else None)
    method = RaptorGraphMethod(preset, seed=seed, max_epochs=epochs, **kwargs, **screen.setup)
    train = screen.cells(split.refit)
    with Measured() as fit:
        method.fit(train)
    effects = method.predict_effects([*split.refit, *split.test])
    distances, ratios = [], []
    for label in _large_enough(screen, split):
        drawn = _dense(method.predict(label, n_cells=n_cells * n_repeats, seed=seed).X)
        real = _cells_of(screen, label)
        sampled = sampled_scores(drawn, real, n_cells=n_cells, n_repeats=n_repeats, seed=seed, score=_MMD)
        distances.append(sampled["value"].mean())
        ratios.append(variance_ratio(drawn, real))
    found = effect_scores(effects, screen.effects, screen, split.test)
    found |= {"MK-MMD": _mean(distances), "variance ratio": _mean(ratios)}
    return method, {**found, "seconds to fit": fit.seconds, "memory, MB": fit.megabytes}


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
        "relative MSE": relative_mse(effects.loc[test], measured.loc[test]),
        "Pearson": pearson_delta(effects.loc[test], measured.loc[test]),
    }
    predicted, true = (_interactions(table, screen, test) for table in (effects, measured))
    return found | {PRECISION[type_]: precision_at_k(predicted[type_], true[type_], k=_K) for type_ in true}


def reference_part(screen: Screen, seed: int, settings: Settings, by: Sequence[str]) -> Part:
    """Scores of the references, as the scores of a model with the reference's name.

    Those are the sum of the measured singles, one half of the cells for the other, floor and ceiling of the distance of
    cells, and precision by chance.
    """
    split, n_cells = unseen_split(screen), sample_size(screen)
    sums = screen.effects.copy()
    for label in split.test:
        sums.loc[label] = sums.loc[_members(screen, label)].sum()
    first, second = (
        pd.DataFrame(screen.moments_of(rows).effect[1:], index=screen.conditions, columns=screen.adata.var_names)
        for rows in screen.halves(seed)
    )
    true = _interactions(screen.effects, screen, split.test)
    found = {
        ADDITIVE: effect_scores(sums, screen.effects, screen, split.test),
        HALF: effect_scores(first, second, screen, split.test),
        CHANCE: {PRECISION[type_]: chance_precision(values) for type_, values in true.items()},
    }
    distances = [
        floor_and_ceiling(
            _cells_of(screen, label),
            _cells_of(screen, screen.control),
            n_cells=n_cells,
            n_repeats=_n_repeats(settings),
            seed=seed,
            score=_MMD,
        )
        for label in _large_enough(screen, split)
    ]
    if distances:
        means = pd.concat(distances).groupby("reference")["value"].mean()
        found |= {FLOOR: {"MK-MMD": means["floor"]}, CEILING: {"MK-MMD": means["ceiling"]}}
    rows = [long_part((REFERENCE, name), scores, by).rows for name, scores in found.items()]
    return Part(pd.concat(rows, ignore_index=True))


def long_part(key: Sequence[str], scores: Mapping[str, float], by: Sequence[str]) -> Part:
    """Scores of one variant as a long table with the columns `by`, ``metric`` and ``value``."""
    rows = [(*key, metric, float(value)) for metric, value in scores.items()]
    return Part(pd.DataFrame(rows, columns=[*by, "metric", "value"]))


def summarize(parts: Sequence[tuple[Unit, Part]], published: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean and SD over seeds of every variant, then of the references, then the published values (n = 0)."""
    rows = pd.concat([part.rows.astype(dict.fromkeys(by, str)) for _, part in parts], ignore_index=True)
    summary = mean_and_sd(rows, [*by, "metric"])
    last = summary[by[0]] == REFERENCE
    printed = published.rename(columns={"value": "value_mean"}).assign(value_sd=np.nan, n=0)
    return pd.concat([summary[~last], summary[last], printed], ignore_index=True)


def draw_references(ax: Axes, summary: pd.DataFrame, metric: str, horizontal: bool) -> None:
    """Lines of the references that are defined for a score."""
    styles = {ADDITIVE: ":", HALF: "-", FLOOR: "--", CEILING: "-.", CHANCE: (0, (1, 3))}
    here = summary[(summary.iloc[:, 0] == REFERENCE) & (summary["metric"] == metric)]
    for name, value in zip(here.iloc[:, 1], here["value_mean"], strict=True):
        if name in styles and np.isfinite(value):
            line = ax.axhline if horizontal else ax.axvline
            line(value, color=GRAY, linestyle=styles[name], linewidth=1.3, label=name, zorder=0)


def shared_legend(figure: Figure) -> None:
    """One legend below, with every name once."""
    found = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def _interactions(effects: pd.DataFrame, screen: Screen, test: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores of every type for the tested pairs; none where there is no pair."""
    pairs = [label for label in test if len(screen.genes_of[label]) == 2]
    if not pairs:
        return {}
    members = np.array([_members(screen, pair) for pair in pairs])
    a, b, ab = (effects.loc[labels].to_numpy(float) for labels in (members[:, 0], members[:, 1], pairs))
    return {type_: getattr(interactions, type_)(a, b, ab) for type_ in TYPES}


def _members(screen: Screen, label: str) -> list[str]:
    return [format_perturbation([gene], **_spelling(screen)) for gene in screen.genes_of[label]]


def _spelling(screen: Screen) -> dict[str, Any]:
    return {"control": screen.setup["control"], "delimiter": screen.setup["delimiter"]}


def _large_enough(screen: Screen, split: Split) -> list[str]:
    """Tested combinations with cells for two samples."""
    return [label for label in split.test if len(screen.rows(label)) >= 2 * sample_size(screen)]


def _cells_of(screen: Screen, label: str) -> np.ndarray:
    return screen.expression[screen.rows(label)].toarray()


def _n_repeats(settings: Settings) -> int:
    return settings.options.get("n_repeats", 2 if settings.quick else 5)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _dense(X) -> np.ndarray:
    return X.toarray() if sparse.issparse(X) else np.asarray(X)


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Sequence[tuple[Unit, Part]], settings: Settings) -> dict[str, pd.DataFrame]:
    """``capacity`` (to read) and ``capacity_long``."""
    printed = [
        (PUBLISHED, f"{ratio:g}", metric, value)
        for ratio, *values in _REVISION
        for metric, value in zip(("MK-MMD", PRECISION["neomorphism"]), values, strict=True)
    ]
    summary = summarize(parts, pd.DataFrame(printed, columns=[*_BY, "metric", "value"]), _BY)
    return {"capacity": wide(summary, _BY).fillna("-"), "capacity_long": summary}


def draw(tables: dict[str, pd.DataFrame]) -> Figure:
    """Scores against the number of latents for each gene, with the references as lines."""
    summary = tables["capacity_long"]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    colors = {"default": BLUE, "paper": ORANGE, PUBLISHED: "black"}
    for ax, metric in zip(figure.subplots(2, 3, sharex=True).ravel(), _PANELS, strict=True):
        for preset, color in colors.items():
            here = summary[(summary["preset"] == preset) & (summary["metric"] == metric)]
            if len(here):
                ratio = here["latents per gene"].astype(float)
                ax.errorbar(
                    ratio,
                    here["value_mean"],
                    yerr=here["value_sd"].fillna(0),
                    marker="x" if preset == PUBLISHED else "o",
                    markerfacecolor="none",  # lines that agree stay visible
                    color=color,
                    markersize=6,
                    linewidth=1.2,
                    label="published, other data" if preset == PUBLISHED else f"preset {preset}",
                )
        draw_references(ax, summary, metric, horizontal=True)
        ax.set_ylabel(metric)
        if metric.startswith("precision"):
            ax.set_ylim(-0.05, 1.05)
        elif metric in ("active latents", "seconds to fit"):
            ax.set_ylim(bottom=0)
    for ax in figure.axes[3:]:
        ax.set_xlabel("latents per perturbed gene")
    shared_legend(figure)
    return figure
