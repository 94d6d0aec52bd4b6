"""Screens of the experiment ``intervals``: what a model sees, and the effects that its intervals should hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raptorgraph.benchmark._load import load_screen
from raptorgraph.datasets import simulate
from raptorgraph.inference import loadings_of_cells
from raptorgraph.screen import Screen
from raptorgraph.screen._matrix import to_dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raptorgraph.benchmark._settings import Settings

KINDS: dict[str, dict[str, Any]] = {  # arguments of the simulator
    "additive": {"mechanism": "linear", "interaction_strength": 0.0},
    "saturating": {"interaction_strength": 0.0},
    "interacting": {"interaction_strength": 0.3},
    "strongly interacting": {"interaction_strength": 1.0},
    "no effects": {"effect_size": 0.0},
}
SINGLES, PAIRS, MISSING = "singles", "pairs too", "some genes never alone"
REGIMES = (SINGLES, PAIRS, MISSING)
UNSEEN, TRIPLES, NEVER_ALONE = "unseen pairs", "unseen triples", "genes never alone"
SEEN = "measured pairs"
_SETUP = {"perturbation_key": "perturbation", "library_size_key": "total_counts"}
_SIZE = {"n_genes": 400, "n_perturbed": 12, "n_doubles": 30, "n_control_cells": 1000, "truth_order": 3}
_QUICK_SIZE = {
    "n_genes": 60,
    "n_perturbed": 5,
    "n_doubles": 6,
    "n_control_cells": 100,
    "n_cells_per_perturbation": 20,
    "n_truth_cells": 20,
    "truth_order": 3,
}
_N_MISSING = 3  # genes whose single conditions are hidden
_MOST = 60  # sets of a kind that are asked for
_MOST_CELLS = 2000


@dataclass(frozen=True)
class Case:
    """A screen as the model sees it, and the truth of other sets.

    Attributes
    ----------
    screen
        What the model is fitted on.
    truth
        Sets x genes: effects, true ones or measured.
    variance
        The sampling variance of those that were measured, without that of the controls, which the model has seen; None
        for true ones.
    asked
        Labels of the sets to ask for, by their kind.
    """

    screen: Screen
    truth: pd.DataFrame
    variance: pd.DataFrame | None
    asked: dict[str, list[str]]

    def noise(self, labels: Sequence[str], genes: Sequence[str], n_draws: int, seed: int) -> np.ndarray | float:
        """Draws of the error with which the truth was measured, draws x sets x genes; 0 for a true one.

        Genes that vary together among control cells have errors that do so.
        """
        if self.variance is None:
            return 0.0
        rng = np.random.default_rng(seed)
        rows = self.screen.rows(self.screen.control)
        rows = np.sort(rng.choice(rows, min(_MOST_CELLS, len(rows)), replace=False))
        values = to_dense(self.screen.expression_at(rows)).astype(np.float64)
        loadings = loadings_of_cells(values)[self.screen.var_names.get_indexer(genes)]
        shape = n_draws, len(labels)
        own = rng.standard_normal((*shape, len(loadings))) * np.sqrt(1 - (loadings**2).sum(axis=1))
        common = rng.standard_normal((*shape, loadings.shape[1])) @ loadings.T
        return np.asarray((own + common) * np.sqrt(self.variance.loc[list(labels), list(genes)].to_numpy()))


def simulated(kind: str, regime: str, seed: int, *, quick: bool) -> Case:
    """Screen of a kind, with the truth of the simulation."""
    size: dict[str, Any] = _QUICK_SIZE if quick else _SIZE
    adata = simulate(**size, **KINDS[kind], seed=seed)
    return _case(Screen(adata, _SETUP), adata.uns["simulation"]["effects"].astype(float), None, regime, seed)


def measured(settings: Settings, regime: str, seed: int) -> Case:
    """A real screen, of which combinations (or singles) are hidden; they are the truth, with an error of their own."""
    screen = load_screen(settings, seed)
    if not screen.combinations:
        raise ValueError("intervals asks for combinations that were hidden from the model, and the screen has none.")
    cells = screen.condition_moments
    of_controls = cells.var[0] / cells.n[0]
    variance = pd.DataFrame(screen.moments.variance[1:] - of_controls, screen.conditions, screen.var_names)
    return _case(screen, screen.effects, variance.clip(lower=0.0), regime, seed)


def _case(screen: Screen, truth: pd.DataFrame, variance: pd.DataFrame | None, regime: str, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    alone = {label for label in screen.conditions if len(screen.genes_of[label]) == 1}
    genes = {gene for label in alone for gene in screen.genes_of[label]}
    pairs = [label for label in screen.conditions if len(screen.genes_of[label]) > 1]
    testable = [label for label in pairs if genes.issuperset(screen.genes_of[label])]
    shown = set(screen.conditions)
    if regime == SINGLES:
        shown -= set(testable)
    elif regime == PAIRS:
        shown -= {str(label) for label in rng.permutation(testable)[: -(-len(testable) // 2)]}
    hidden_singles = _hidden(screen, sorted(alone), pairs, rng) if regime == MISSING else []
    shown -= set(hidden_singles)
    seen = screen.cells([screen.control, *(label for label in screen.conditions if label in shown)])
    case = Screen(seen.copy(), screen.setup)
    known = {gene for label in shown for gene in screen.genes_of[label]}
    asked: dict[str, list[str]] = {NEVER_ALONE: hidden_singles} if regime == MISSING else {}
    if regime != MISSING:
        sets = {label: frozenset(label.split(screen.setup.delimiter)) for label in truth.index}
        for name, n in ((UNSEEN, 2), (TRIPLES, 3)):
            found = [label for label, members in sets.items() if len(members) == n and members <= known]
            found = [label for label in found if label not in shown]
            asked[name] = [str(label) for label in rng.permutation(found)[:_MOST]]
    if regime == PAIRS and variance is None:  # of measured truth this is the data itself
        asked[SEEN] = [label for label in testable if label in shown]
    return Case(case, truth, variance, {name: labels for name, labels in asked.items() if labels})


def _hidden(screen: Screen, alone: list[str], pairs: list[str], rng: np.random.Generator) -> list[str]:
    """Singles to hide: of genes that at least two combinations show, each with a gene that stays."""
    hidden: list[str] = []
    for label in rng.permutation(alone):
        (gene,) = screen.genes_of[str(label)]
        gone = {other for one in hidden for other in screen.genes_of[one]}
        with_it = [pair for pair in pairs if gene in screen.genes_of[pair] and not gone & set(screen.genes_of[pair])]
        if len(with_it) > 1:
            hidden.append(str(label))
        if len(hidden) == _N_MISSING:
            break
    return hidden
