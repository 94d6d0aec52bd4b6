"""Experiment ``ablation``: each part of the default switched off in turn, and how often its intervals cover.

The default has two halves. The half ``posterior`` gives two tables:

- ``ablation``: parts of the hierarchical posterior that predicts mean effects. It is fitted to nine tenths of the
  cells of every condition (drawn anew for each seed, which is what the spread shows) and asked for combinations that
  it has not seen, in the regimes ``singles`` and ``doubles`` of ``prediction``. Coverage is the part of the measured
  effects that lie within an interval, that of the prediction and the sampling error of the measured effect together;
  "intervals alone" leaves the latter out.
- ``ablation_ranking``: what the default's intervals are worth for finding interacting pairs: Precision@10 of the
  paper's five types where pairs are ranked by the scores of the predicted effects, by the probability that
  :func:`raptorgraph.tl.interactions` gives, and by the scores of the sums of the measured singles.

The half ``network`` is about the parts of the network, which are fitted to three quarters of the controls and of the
singles. Its rows are

- "posterior and noise, no network": the decoder reads nothing. In every cell the output of the decoder (for counts the
  log rate) of a gene is shifted by the same offset, such that the mean effect is the posterior's; measured control
  cells are carried over by it as by the model. What the network adds to cells is the distance to this row.
- "linear start, not trained" and "one epoch": the network as it is started from effects and controls, and after one
  pass over the cells.
- "controls alone are encoded": the published terms on control cells, without the perturbed prior, with the shift loss
  on measured singles; the network is not started from effects, nor is it in "no linear path, no start".
- "one shift in all states": the modulator's weights of the background latents are held at 0.
- "decoder not held to the effects" and "no KL to the prior": those terms of the loss have weight 0.
- "measured effects, no posterior": the decoder is held to the measured effects of singles, and nothing shifts cells to
  the posterior's.
- "without graph", "graph by DAGMA", "without preconditioning" (every gene reaches every latent), "noise drawn anew"
  (cells do not keep that of the control cell), and the published configuration.

``ablation_cells`` has distances between predicted and measured cells of unseen combinations, unbiased MK-MMD (bandwidth
200) and energy distance, with floor and ceiling, and the ratio of variances. ``by state`` compares the cells within
each state and takes the mean: those predicted from control cells of a state with those measured in it. States are in
the column of ``obs`` that the option ``state`` names, by default "state" where there is one; numbers are cut into
tertiles.

``ablation_network`` has the error of the effects that the model predicts for unseen combinations; that of the network
alone (``decoder``), also against the posterior's effects; accuracies with which the perturbation of held-out cells is
told from their latents, and the share of these cells whose own latent is the largest, as in ``latents``. ``response
SD / mean`` says how much the effect of measured singles differs between control cells: norm over genes of its standard
deviation, over that of its mean. 0 is mean collapse; library sizes alone make it larger.

``ablation_differences`` (``ablation_posterior_differences`` for the other half) has the scores of each row less those
of the default on the same screen with the same seed, mean and SD over seeds. A part earns its place by a difference
beyond the SD.

Without a screen one is simulated for each seed whose effects depend on the state of the cells, ``simulated-states``.

``raptorgraph benchmark ablation --screen FILE``; ``--set 'halves="network"'`` leaves the posterior out, ``--set
'variants=["one epoch"]'`` names rows of the network, to which the default is added.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from raptorgraph.benchmark import _variants as variants
from raptorgraph.benchmark._ablation_cells import BY_STATE, CELL_SCORES, MMD, states_of
from raptorgraph.benchmark._ablation_network import (
    ACTIVE,
    DECODER,
    EDGES,
    NEIGHBORS,
    NETWORK,
    NETWORK_SCORES,
    PAPER,
    network_scores,
    reference_scores,
)
from raptorgraph.benchmark._ablation_posterior import BY, COVERAGE, DEFAULT, LEVELS, posterior_rows
from raptorgraph.benchmark._embeddings import LARGEST
from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._load import load_screen
from raptorgraph.benchmark._report import all_rows, mean_and_sd, paired_differences, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.pl._figure import BLUE, GRAY, ORANGE
from raptorgraph.pl._panels import dots, name_rows, shared_legend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.screen import Screen

OPTIONS = ("halves", "variants", "state", "max_epochs", "n_repeats", "n_folds", "n_draws")
SIMULATED = "simulated-states"
_DIGITS = 4  # of differences, which are small
_PANELS = (MMD, BY_STATE.format(MMD), DECODER, NEIGHBORS, LARGEST)


# -- work ------------------------------------------------------------------------------------------------------------
def units(settings: Settings) -> list[Unit]:
    """For each seed one unit of all variants of the posterior, one of references, and one for each of the network."""
    screen = _screen(settings, settings.seeds[0])
    variants.unseen_split(screen)
    states_of(screen, settings)
    asked = chosen(settings, "variants", list(NETWORK))
    of_half: dict[str, list[str | None]] = {
        "posterior": [None],
        "network": [None, *(name for name in NETWORK if name == DEFAULT or name in asked)],
    }
    found = [
        (f"{half}{i}", {"half": half, "variant": name})
        for half in chosen(settings, "halves", list(of_half))
        for i, name in enumerate(of_half[half])
    ]
    return units_by_seed(settings, found)


def work(unit: Unit, settings: Settings) -> Part:
    """Fit the variants of the unit and score them."""
    screen, name = _screen(settings, unit.seed), unit.options["variant"]
    if unit.options["half"] == "posterior":
        return Part(posterior_rows(screen, settings, unit.seed))
    if name is not None:
        return variants.long_part(("network", "singles", name), network_scores(name, screen, settings, unit.seed), BY)
    found = reference_scores(screen, settings, unit.seed).items()
    rows = [variants.long_part(("network", variants.REFERENCE, name), scores, BY).rows for name, scores in found]
    return Part(pd.concat(rows, ignore_index=True))


def _screen(settings: Settings, seed: int) -> Screen:
    return load_screen(settings if settings.screen is not None else replace(settings, screen=SIMULATED), seed)


# -- tables ----------------------------------------------------------------------------------------------------------
def tables(parts: Parts, settings: Settings) -> Tables:
    """``ablation``, ``_ranking``, ``_cells``, ``_network``, the differences, and as long tables the others."""
    rows = all_rows(parts)
    summary = mean_and_sd(rows, [*BY, "metric"])
    found = {"ablation_long": summary}
    posterior = summary[summary["half"] == "posterior"]
    if len(posterior):
        covered = posterior["metric"].str.startswith("coverage of")
        shown = posterior[~covered | posterior["metric"].str.startswith("coverage of 90%")]
        found["ablation"] = wide(shown, BY[1:]).fillna("-")
        found["ablation_calibration"] = posterior[covered & (posterior["variant"] == DEFAULT)]
        less = differences(rows[rows["half"] == "posterior"])
        covered = less["metric"].str.startswith("coverage of")
        shown = less[~covered | less["metric"].str.startswith("coverage of 90%")]
        found["ablation_posterior_differences"] = wide(shown, BY[1:], digits=_DIGITS).fillna("-")
    ranking = summary[summary["half"] == "ranking"]
    if len(ranking):
        found["ablation_ranking"] = wide(ranking.rename(columns={"variant": "ranked by"}), ["regime", "ranked by"])
    network = summary[summary["half"] == "network"]
    if len(network):
        for stem, scores in (("ablation_cells", CELL_SCORES), ("ablation_network", NETWORK_SCORES)):
            found[stem] = wide(network[network["metric"].isin(scores)], ["variant"]).fillna("-")
        of_default = (rows["regime"] != variants.REFERENCE) & ~rows["metric"].isin((ACTIVE, EDGES))
        less = differences(rows[(rows["half"] == "network") & of_default])
        if len(less):
            found["ablation_differences"] = wide(less, ["variant"], digits=_DIGITS).fillna("-")
            found["ablation_differences_long"] = less
    return found


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores less those of the default in the same regime with the same seed, mean and SD over seeds."""
    found = [
        paired_differences(part, DEFAULT, "variant").assign(regime=regime)
        for regime, part in rows.groupby("regime", sort=False)
    ]
    return pd.concat(found, ignore_index=True)


# -- figures ---------------------------------------------------------------------------------------------------------
def draw(tables: Tables) -> dict[str, Figure]:
    """What each part of the posterior adds, the network less the default, and the calibration of the intervals."""
    figures, summary = {}, tables["ablation_long"]
    here = summary[summary["half"] == "posterior"]
    if len(here):
        figures["ablation"] = _panels(here, ("relative MSE", "Pearson", "discrimination"))
    if "ablation_differences_long" in tables:
        here = tables["ablation_differences_long"]
        here = here[here["variant"] != PAPER]  # so far off that nothing else could be told apart
        shown = [metric for metric in _PANELS if metric in set(here["metric"])]
        if shown:
            figures["ablation_differences"] = _panels(here, shown)
            figures["ablation_differences"].suptitle("less the default, mean and SD over seeds", fontsize=10)
    if "ablation_calibration" in tables:
        figures["ablation_calibration"] = _calibration(tables["ablation_calibration"])
    return figures


def _panels(here: pd.DataFrame, panels: Sequence[str]) -> Figure:
    names = list(dict.fromkeys(here["variant"]))[::-1]
    regimes = list(dict.fromkeys(here["regime"]))
    figure = Figure(figsize=(3 + 2.6 * len(panels), 1.2 + 0.3 * len(names)), layout="constrained")
    for ax, metric in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for i, regime in enumerate(regimes):
            values = here[(here["metric"] == metric) & (here["regime"] == regime)].set_index("variant")
            dots(ax, values, names, 0.12 * (len(regimes) - 1 - 2 * i), color=(BLUE, ORANGE)[i], label=regime)
            default = values["value_mean"].get(DEFAULT, 0.0)
            ax.axvline(default, color=(BLUE, ORANGE)[i], linestyle=":", linewidth=0.8)
        ax.set_xlabel(metric)
    name_rows(figure.axes, names)
    if len(regimes) > 1:
        shared_legend(figure)
    return figure


def _calibration(covered: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.plot([0.45, 1], [0.45, 1], color=GRAY, linestyle="--", label="ideal")
    names = [COVERAGE.format(level) for level in LEVELS]
    for (regime, values), color in zip(covered.groupby("regime", sort=False), (BLUE, ORANGE), strict=False):
        values = values.set_index("metric").reindex(names)
        style = {"fmt": "o-", "color": color, "markersize": 4, "label": regime}
        ax.errorbar(LEVELS, values["value_mean"], yerr=values["value_sd"].fillna(0), **style)
    ax.set_xlabel("level of the interval")
    ax.set_ylabel("measured effects within it")
    ax.legend(frameon=False)
    return figure


ABLATION = Experiment("ablation", "What each part of the default adds", OPTIONS, units, work, tables, draw, n_seeds=5)
