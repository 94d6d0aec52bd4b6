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

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._report import wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.pl._figure import BLUE, ORANGE
from raptorgraph.pl._panels import shared_legend

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables

OPTIONS = ("presets", "ratios", "max_epochs", "n_repeats")
RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0)
# Later revision of the paper, Norman et al. (2019): d/k, MK-MMD, Precision@10 of neomorphism
_REVISION = ((1, 0.140, 0.600), (1.25, 0.106, 0.600), (1.5, 0.091, 0.567), (2, 0.113, 0.433), (3, 0.184, 0.200))
_BY = ["preset", "latents per gene"]
_PANELS = ("relative MSE", "Pearson", "MK-MMD", variants.PRECISION["neomorphism"], "active latents", "seconds to fit")


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """For each seed one unit of references, and one for each preset and number of latents."""
    variants.unseen_split(load_screen(settings, settings.seeds[0]))
    ratios = settings.option("ratios", RATIOS, quick=(1.0, 1.5)) or RATIOS
    for ratio in ratios:
        if not ratio >= 1:
            raise ValueError(f"ratios: {ratio!r} is below 1, but every perturbed gene owns a latent.")
    found: list[tuple[str, dict[str, Any]]] = [(variants.REFERENCE, {})]
    for preset in chosen(settings, "presets", variants.PRESETS):
        found += [(f"{preset}-{ratio:g}", {"preset": preset, "ratio": float(ratio)}) for ratio in ratios]
    return units_by_seed(settings, found)


def work(unit: Unit, settings: Settings) -> Part:
    """Train with that many latents, and score the unseen combinations."""
    screen = load_screen(settings, unit.seed)
    if not unit.options:
        return variants.reference_part(screen, settings, unit.seed, _BY)
    preset, ratio = unit.options["preset"], unit.options["ratio"]
    k = len({gene for label in variants.unseen_split(screen).refit for gene in screen.genes_of[label]})
    method = variants.variant(preset, unit.seed, settings, screen, model_kwargs={"n_latent": round(ratio * k)})
    found = variants.fit_and_score(method, screen, settings, unit.seed)
    activity = method.model.latent_activity()
    found |= {
        "latents": len(activity),
        "active latents": int(activity["active"].sum()),
        "parameters": sum(p.numel() for p in method.model.module.parameters() if p.requires_grad),
    }
    return variants.long_part((preset, f"{ratio:g}"), found, _BY)


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``capacity`` (to read) and ``capacity_long``."""
    printed = [
        (variants.PUBLISHED, f"{ratio:g}", metric, value)
        for ratio, *values in _REVISION
        for metric, value in zip(("MK-MMD", variants.PRECISION["neomorphism"]), values, strict=True)
    ]
    summary = variants.summarize(parts, _BY, printed)
    return {"capacity": wide(summary, _BY).fillna("-"), "capacity_long": summary}


def draw(tables: Tables) -> Figure:
    """Scores against the number of latents for each gene, with the references as lines."""
    summary = tables["capacity_long"]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    colors = {"default": BLUE, "paper": ORANGE, variants.PUBLISHED: "black"}
    for ax, metric in zip(figure.subplots(2, 3, sharex=True).ravel(), _PANELS, strict=True):
        for preset, color in colors.items():
            here = summary[(summary["preset"] == preset) & (summary["metric"] == metric)]
            if len(here):
                printed = preset == variants.PUBLISHED
                label, marker = ("published, other data", "x") if printed else (f"preset {preset}", "o")
                style = {"color": color, "markersize": 6, "linewidth": 1.2, "label": label, "marker": marker}
                variants.draw_points(ax, here, "latents per gene", **style)
        variants.draw_references(ax, summary, metric, horizontal=True)
        ax.set_ylabel(metric)
        if metric.startswith("precision"):
            ax.set_ylim(-0.05, 1.05)
        elif metric in ("active latents", "seconds to fit"):
            ax.set_ylim(bottom=0)
    for ax in figure.axes[3:]:
        ax.set_xlabel("latents per perturbed gene")
    shared_legend(figure)
    return figure


CAPACITY = Experiment(
    "capacity",
    "Prediction of unseen combinations with more latents than perturbed genes",
    OPTIONS,
    units,
    work,
    tables,
    draw,
)
