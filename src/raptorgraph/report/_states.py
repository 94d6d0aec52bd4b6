"""Perturbations that bring cells to a wanted state: their ranking, and the section on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from raptorgraph import tl
from raptorgraph._text import counted, percent
from raptorgraph.report._blocks import Heading, Section, Text
from raptorgraph.report._tables import Column, Table, fixed, table, with_interval, yes_no

if TYPE_CHECKING:
    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.report._findings import Findings
    from raptorgraph.screen import Screen

N_LISTED = 20
_N_SHOWN, _MOST_SHOWN = 10, 5  # perturbations of a state, and states, of the page
_N_DRAWS, _FEWER_DRAWS, _MANY = 200, 50, 5000  # draws, and fewer of them for many perturbations
NEAR = 0.9  # probability from which a perturbation is said to come nearest


def ranked(model: RaptorGraphModel, wanted: pd.DataFrame, screen: Screen, seed: int) -> pd.DataFrame:
    """The perturbations of one or two genes whose effects come nearest to wanted ones.

    Parameters
    ----------
    model
        A trained model.
    wanted
        Effects that lead to the states, states x genes, on the expression scale.
    screen
        The measured cells.
    seed
        Seed of the draws.

    Returns
    -------
    Table of :func:`raptorgraph.tl.reverse` for the first 20 of each state, with draws where the model has a posterior;
    without ``genes``, and with ``measured`` (bool), ``of_no_change``, the distance as a part of that of unperturbed
    cells, and ``n_searched``, the number of perturbations that were compared.
    """
    n = len(model.perturbed_genes)
    n_searched = n + n * (n - 1) // 2
    n_draws = (_N_DRAWS if n_searched <= _MANY else _FEWER_DRAWS) if model.has_posterior else 0
    found = tl.reverse(model, wanted, max_genes=min(2, n), top=N_LISTED, n_draws=n_draws, seed=seed)
    genes = wanted.columns.intersection(screen.var_names).difference(model.perturbed_genes)  # as tl.reverse compares
    length = pd.Series(np.linalg.norm(wanted[genes].to_numpy(dtype=float), axis=1), index=wanted.index)
    length = length.where(length > 0)
    found = found.drop(columns="genes")
    found.insert(2, "measured", found["perturbation"].isin(screen.conditions))
    found["of_no_change"] = found["distance"] / length.loc[found["query"]].to_numpy()
    return found.assign(n_searched=n_searched)


def states(found: Findings) -> Section | None:
    """What brings cells to a state; None where none was asked for."""
    frame = found.answers.states
    if frame is None:
        return None
    n = int(frame["n_searched"].iloc[0])
    names = list(dict.fromkeys(frame["query"]))
    section = Section("state", "What brings cells to this state").add(
        Text(
            f"The wanted state is the mean change of the given cells against control cells. {_among(n)} are compared "
            "with it, measured or not, by the distance of their effect over all genes but the perturbed ones. "
            "reverse.csv has more of them."
        )
    )
    for k, name in enumerate(names[:_MOST_SHOWN]):
        rows = frame[frame["query"] == name]
        section.add(Heading(f"State “{name}”"), Text(sentence(rows), strong=True), _table(rows, k))
    if len(names) > _MOST_SHOWN:
        rest = counted(len(names) - _MOST_SHOWN, "further state")
        section.add(Text(f"reverse.csv has {rest}."))
    return section


def sentence(rows: pd.DataFrame) -> str:
    """What the ranking for one state says."""
    first, n = rows.iloc[0], int(rows["n_searched"].iloc[0])
    name = f"“{first['query']}”"
    if pd.isna(first["of_no_change"]):
        return f"No perturbation can be compared with the state {name}: it does not differ from control cells."
    if not first["of_no_change"] < 1:
        return (
            f"No perturbation is known to bring cells nearer to the state {name} than none at all: the first of "
            f"{n:,}, {first['perturbation']}, leaves {first['of_no_change']:.2f} times the distance of control cells."
        )
    if n == 1:
        what = f"{first['of_no_change']:.2f} of the distance between control cells and the state {name}"
        return f"The only perturbation, {first['perturbation']}, leaves {what}."
    leaves = f"It leaves {first['of_no_change']:.2f} of the distance between control cells and that state."
    if "best_probability" not in rows:
        return (
            f"{first['perturbation']} is predicted to come nearest to the state {name}. {leaves} How sure that is "
            "cannot be said, because this model has no intervals."
        )
    sure = first["best_probability"]
    if sure >= NEAR:
        return (
            f"{first['perturbation']} comes nearest to the state {name}, with a probability of {sure:.2f} that none "
            f"of the other {n - 1:,} perturbations of one or two genes comes nearer. {leaves}"
        )
    return (
        f"Which of {n:,} perturbations comes nearest to the state {name} is not certain: "
        f"{first['perturbation']} is ranked first, with a probability of {sure:.2f}. {leaves}"
    )


def _among(n: int) -> str:
    return "One perturbation of one gene" if n == 1 else f"All {n:,} perturbations of one or two genes"


def _table(rows: pd.DataFrame, number: int) -> Table:
    frame = rows.head(_N_SHOWN).copy()
    columns = {
        "perturbation": Column("perturbation"),
        "measured": Column("measured", yes_no, "Whether it is in the screen; the others are predicted."),
    }
    if "best_probability" in frame:
        frame["rank"] = list(zip(frame["rank"], frame["rank_low"], frame["rank_high"], strict=True))
        columns["rank"] = Column(
            "rank", with_interval(0), "Median over draws of the effects, with its interval of 90 %.", number=True
        )
        columns["best_probability"] = Column(
            "probability", fixed(2), "That no other perturbation comes nearer to the state.", number=True
        )
    else:
        columns["rank"] = Column("rank", fixed(0), "By the predicted effects; 1 is the nearest.", number=True)
    columns["of_no_change"] = Column(
        "distance left",
        percent,
        "Distance to the state, as a part of that of control cells: 0 % is there, 100 % no nearer than without a "
        "perturbation. The noise of the given cells is in it.",
        number=True,
    )
    return table(
        f"state-{number}",
        f"The {len(frame)} perturbations that come nearest" if len(frame) > 1 else "The only perturbation",
        "Nearest first. Read a rank with its interval: perturbations whose intervals overlap are not told apart.",
        frame,
        columns,
    )
