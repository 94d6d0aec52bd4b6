"""Experiment ``intervals``: how many true answers do intervals hold, of all that one may ask?

Simulated screens of several kinds (additive, saturating, interacting, without effects), whose kind the model is not
told, with the truth of the simulation; or a screen with combinations (``--screen FILE``), of which some are hidden.
Then the truth is measured itself, against the same control cells: draws are those of differences to these, and the
error of the measurement, correlated between genes as control cells show it, is added to them.

The model has seen the singles alone, half of the pairs too, or all but three singles (whose genes only combinations
show). Everything is asked of one set of joint draws (``model.sample_effects``) of

- pairs that were not seen, sets of three and measured pairs (simulated screens), singles of genes that were never
  alone:
- each gene, the 50 that are predicted to change most, means over random sets of 30 genes, over sets of 30 that move
  together, and over gene sets (``--gene-sets FILE``);
- the length of the effect, its length along the prediction, its cosine with each single;
- the rank of each perturbation by likeness to a query, in a reverse search;
- the five interaction scores, as :func:`raptorgraph.tl.interactions` gives them.

A column gives the share of true answers within the intervals of a level, which it should be; the median width of those
of 90 % stands beside it, since an interval that holds everything says nothing. Effects come from the posterior, so the
network is trained for one epoch only.

``raptorgraph benchmark intervals``; ``--screen FILE``.
"""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scvi
from matplotlib.figure import Figure

from raptorgraph.benchmark._experiments import Experiment
from raptorgraph.benchmark._intervals_questions import (
    GENE_SETS,
    KNOWN_TURN,
    NEOMORPHISM,
    QUESTIONS,
    answers,
    held,
    sets_of_genes,
)
from raptorgraph.benchmark._intervals_screens import KINDS, REGIMES, measured, simulated
from raptorgraph.benchmark._report import all_rows, in_order, mean_and_sd, wide
from raptorgraph.benchmark._settings import Part, Settings, Unit, chosen, units_by_seed
from raptorgraph.model import RaptorGraphModel
from raptorgraph.pl._figure import LIGHT, PALETTE
from raptorgraph.pl._panels import dots, name_rows, shared_legend
from raptorgraph.pp import read_gene_sets

if TYPE_CHECKING:
    from raptorgraph.benchmark._experiments import Parts, Tables
    from raptorgraph.benchmark._intervals_screens import Case

OPTIONS = ("kinds", "regimes", "n_draws", "gene_sets")
N_DRAWS, HELD = 200, "held at 90%"
_BY = ["screen", "seen", "of", "question"]


def units(settings: Settings) -> list[Unit]:
    """One unit for each kind of screen, regime and seed."""
    n_draws = settings.options.get("n_draws", N_DRAWS)
    if isinstance(n_draws, bool) or not isinstance(n_draws, int) or n_draws < 20:
        raise ValueError(f"n_draws: {n_draws!r} must be a whole number of 20 or more.")
    regimes = chosen(settings, "regimes", REGIMES)
    if settings.screen is not None and settings.options.get("kinds"):
        raise ValueError("kinds are of simulated screens: leave them or --screen out.")
    kinds = [settings.screen] if settings.screen is not None else chosen(settings, "kinds", list(KINDS))
    pieces = [(f"{kind}-{regime}", {"screen": kind, "seen": regime}) for kind in kinds for regime in regimes]
    if settings.screen is not None:
        pieces = [(regime, options) for (_, options), regime in zip(pieces, regimes, strict=True)]
        measured(settings, regimes[0], settings.seeds[0])  # what cannot be asked of it fails here
    return units_by_seed(settings, pieces)


def work(unit: Unit, settings: Settings) -> Part:
    """Fit, draw, and count what is held."""
    kind, regime = unit.options["screen"], unit.options["seen"]
    if settings.screen is None:
        case = simulated(kind, regime, unit.seed, quick=settings.quick)
    else:
        case = measured(settings, regime, unit.seed)
    columns = ["of", "question", "metric", "value"]
    if not case.asked:
        return Part(pd.DataFrame(columns=columns))
    scvi.settings.seed = unit.seed
    cells = case.screen.adata.copy()  # whose genes are put into another order
    RaptorGraphModel.setup_anndata(cells, **case.screen.setup)
    model = RaptorGraphModel(cells)
    model.train(max_epochs=1, enable_progress_bar=False)
    return Part(pd.DataFrame(counted(model, case, settings, unit.seed), columns=columns))


def counted(model: RaptorGraphModel, case: Case, settings: Settings, seed: int) -> list[tuple[str, str, str, float]]:
    """Kind of the sets, question, metric and value, of all questions."""
    screen = case.screen
    names = pd.Index(model.var_names_)
    singles = [label for label in screen.singles if label in case.truth.index]
    position = {screen.genes_of[label][0]: i for i, label in enumerate(singles)}
    true_singles = case.truth.loc[singles, names].to_numpy()
    sets = sets_of_genes(true_singles, names.isin(model.perturbed_genes), seed)
    if "gene_sets" in settings.options:
        known = read_gene_sets(settings.options["gene_sets"])
        found = [np.flatnonzero(names.isin(genes) & ~names.isin(model.perturbed_genes)) for genes in known.values()]
        sets[GENE_SETS] = [columns for columns in found if len(columns) > 4]
    n_draws = settings.option("n_draws", N_DRAWS, quick=20)
    is_true = case.variance is None  # a measured truth is against the very control cells
    rows = []
    for kind, labels in case.asked.items():
        draw = model.sample_effects if is_true else partial(_against_controls, model)
        drawn = draw([*singles, *labels], n_draws, seed)
        drawn_singles, draws = drawn[:, : len(singles)], drawn[:, len(singles) :]
        draws = draws + case.noise(labels, names, n_draws, seed)
        genes = [screen.setup.genes(label) for label in labels]
        members = [tuple(position[g] for g in one) if position.keys() >= set(one) else () for one in genes]
        truth = case.truth.loc[labels, names].to_numpy()
        expected = model.predict_effects(labels)[names].to_numpy()
        single = drawn_singles + case.noise(singles, names, n_draws, seed + 1)
        asked = answers(draws, truth, expected, (single, true_singles), members, sets)
        answered = {question: (answer, true) for question, answer, true in asked}
        known_turn = answered.pop(KNOWN_TURN, (None, None))[0]
        for question, (answer, true) in answered.items():
            below = known_turn if question == NEOMORPHISM else None
            rows += [(kind, question, metric, value) for metric, value in held(answer, true, below)]
    return rows


def _against_controls(model: RaptorGraphModel, labels: list[str], n_draws: int, seed: int) -> np.ndarray:
    """Draws of differences to the very control cells of the screen, as measured ones are."""
    design = model.predictor.asked(labels).design
    drawn: np.ndarray = model.module.effects.draw(design, n_draws, seed, controls=True).numpy()
    return drawn


def tables(parts: Parts, settings: Settings) -> Tables:
    """``intervals`` (what those of 90 % hold), ``intervals_levels`` (all levels, and widths) and ``intervals_long``."""
    rows = all_rows(parts, "screen", "seen")
    orders = {name: list(dict.fromkeys(rows[name])) for name in ("screen", "seen", "of")}
    long = mean_and_sd(in_order(rows, seen=orders["seen"], of=orders["of"], question=QUESTIONS), [*_BY, "metric"])
    asked = long.assign(asked=long["of"] + ", seen: " + long["seen"])
    at_level = in_order(asked[asked["metric"] == HELD], screen=orders["screen"])
    main = wide(at_level, ["asked", "question"], "screen", digits=2)
    main = in_order(main, asked=list(dict.fromkeys(asked["asked"])), question=QUESTIONS)
    return {"intervals": main, "intervals_levels": wide(asked, ["screen", "asked", "question"]), "intervals_long": long}


def draw(tables: Tables) -> Figure:
    """What intervals of 90 % hold: a panel for each kind of sets, a row for each question, a color for each screen."""
    long = tables["intervals_long"]
    long = long[long["metric"] == HELD]
    groups = list(long.groupby(["seen", "of"], sort=False))
    screens, names = list(dict.fromkeys(long["screen"])), [name for name in QUESTIONS if name in set(long["question"])]
    shifts = np.linspace(-0.3, 0.3, len(screens)) if len(screens) > 1 else [0.0]
    figure = Figure(figsize=(2.6 * len(groups) + 1.8, 0.36 * len(names) + 1.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(groups), sharey=True))
    for ax, ((seen, of), rows) in zip(axes, groups, strict=True):
        for screen, shift, color in zip(screens, shifts, cycle(PALETTE), strict=False):
            here = rows[rows["screen"] == screen].set_index("question")
            dots(ax, here, names, shift, color=color, label=screen)
        ax.axvspan(0.85, 0.95, color=LIGHT, zorder=0)
        ax.set_xlim(0, 1.03)
        ax.set_title(f"{of}\nseen: {seen}", fontsize=9)
        ax.set_xlabel(HELD)
    name_rows(axes, names)
    axes[0].invert_yaxis()
    shared_legend(figure, "outside upper center")
    return figure


INTERVALS = Experiment("intervals", "What the intervals hold", OPTIONS, units, work, tables, draw)
