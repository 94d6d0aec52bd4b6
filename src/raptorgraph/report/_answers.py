"""What one asks of a screen first: how much each perturbation does, to which genes, and what to measure next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph import tl
from raptorgraph._progress import track
from raptorgraph.tl._effect_blocks import SURE

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Screen

N_TOP, N_SURE = 20, 4  # genes of each perturbation in the table, and of those that surely fall or rise
_N_DRAWS = 100  # of each effect
_MOST_DRAWN, _MOST_ROWS = 5e7, 2e6  # drawn values, and rows of all genes, at a time, which bounds the memory
_ENDS = (0.05, 0.95)
_N_NEXT = 10
_SIZE = ["magnitude", "magnitude_low", "magnitude_high"]
_MOST_GENES = 3000  # with more, tl.next_pairs cannot plan what teaches most


@dataclass(frozen=True)
class Answers:
    """Tables that answer the first questions.

    Attributes
    ----------
    strength
        Table of :func:`~raptorgraph.screen._strength.strengths` with the columns of :func:`sizes`.
    top_genes
        Table of :func:`top_genes`; None where it could not be made.
    next_pairs, no_next
        Table of :func:`next_pairs`, empty where there is none, and then the reason.
    states
        Table of :func:`~raptorgraph.report._states.ranked`, or None where no state was asked for.
    """

    strength: pd.DataFrame
    top_genes: pd.DataFrame | None
    next_pairs: pd.DataFrame
    no_next: str
    states: pd.DataFrame | None = None


def sizes(model: RaptorGraphModel, screen: Screen, seed: int) -> pd.DataFrame:
    """Size of the effect of every condition of a screen: the length of the vector of the changes of all genes.

    Returns
    -------
    Index: condition. ``magnitude`` with ``magnitude_low`` and ``magnitude_high``: median, 5 and 95 % quantile of draws
    from the posterior, as in :func:`raptorgraph.tl.interactions`. Without a posterior the size of the predicted effect,
    and no ends. NaN for conditions with a gene that the model does not know. ``trained`` says whether the condition was
    among the training data; the effects of others are predictions.
    """
    known = set(model.perturbed_genes)
    labels = [label for label in screen.conditions if known.issuperset(screen.genes_of[label])]
    found = pd.DataFrame(
        np.nan,
        index=pd.Index(screen.conditions, name="perturbation"),
        columns=_SIZE,
    )
    found["trained"] = found.index.isin(list(model.conditions))
    if not model.has_posterior:
        found.loc[labels, "magnitude"] = np.linalg.norm(model.predict_effects(labels).to_numpy(dtype=float), axis=1)
        return found
    # as many as fit: of many perturbations and genes no draw is kept, and each part draws all anew
    at_a_time = max(1, int(_MOST_DRAWN // (_N_DRAWS * len(screen.var_names))))
    for start in track(range(0, len(labels), at_a_time), "Sizes"):
        part = labels[start : start + at_a_time]
        drawn = np.linalg.norm(model.sample_effects(part, _N_DRAWS, seed), axis=2)
        low, high = np.quantile(drawn, _ENDS, axis=0)
        found.loc[part, _SIZE] = np.column_stack([np.median(drawn, axis=0), low, high])
    return found


def top_genes(model: RaptorGraphModel, screen: Screen) -> pd.DataFrame:
    """The genes that each condition changes most, with the columns of :func:`raptorgraph.tl.effects`.

    The 20 largest changes, sure or not, and the 4 largest sure ones of either direction among the genes that are not
    perturbed, so that what is said of a direction does not depend on how large those of the other are.
    """
    known = set(model.perturbed_genes)
    labels = [label for label in screen.conditions if known.issuperset(screen.genes_of[label])]
    parts, n_genes = [], len(screen.var_names)
    at_a_time = max(1, int(_MOST_ROWS // n_genes))
    for start in track(range(0, len(labels), at_a_time), "Genes"):
        table = tl.effects(model, labels[start : start + at_a_time], top=n_genes)
        kept = table.groupby("perturbation").cumcount() < N_TOP
        sure = sure_genes(table)
        direction = [sure["perturbation"], sure["effect"] > 0]
        kept[sure.index[sure.groupby(direction).cumcount() < N_SURE]] = True
        parts.append(table[kept])
    return pd.concat(parts, ignore_index=True)


def sure_genes(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`top_genes` whose change is sure, without the perturbed genes themselves."""
    return table[(table["FDR"] <= SURE) & ~table["own_target"]]


def next_pairs(model: RaptorGraphModel, screen: Screen, seed: int) -> tuple[pd.DataFrame, str]:
    """The pairs to measure next, by two goals of :func:`raptorgraph.tl.next_pairs`; or why none can be named.

    Returns
    -------
    Table with ``perturbation``, ``goal`` (``"learn"`` and ``"interactions"``) and the columns of
    :func:`raptorgraph.tl.next_pairs`; and an empty text. Or an empty table, and the reason. Pairs of the whole screen
    count as measured, whether or not they were left out of the training.
    """
    nothing = pd.DataFrame()
    genes = set(model.perturbed_genes)
    if len(genes) < 2:
        return nothing, "only one gene was perturbed"
    if not model.has_posterior:
        return nothing, "this model has no intervals, from which follows what a measurement would add"
    pairs = {parts: label for label, parts in screen.genes_of.items() if len(parts) == 2 and genes.issuperset(parts)}
    if len(pairs) == len(genes) * (len(genes) - 1) // 2:
        return nothing, "all pairs of the perturbed genes were measured"
    seen = set(model.conditions)
    left_out = [label for label in pairs.values() if label not in seen]
    goals = ("learn", "interactions") if len(genes) <= _MOST_GENES else ("interactions",)
    parts = {goal: tl.next_pairs(model, _N_NEXT, goal, exclude=left_out, seed=seed) for goal in goals}
    tables = [part.assign(goal=goal).reset_index() for goal, part in parts.items()]
    table = pd.concat(tables, ignore_index=True)
    return table[["perturbation", "goal", *(name for name in table if name not in ("perturbation", "goal"))]], ""
