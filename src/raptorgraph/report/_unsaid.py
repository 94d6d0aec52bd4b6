"""What a run cannot say, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph._text import counted, listed
from raptorgraph.evaluation._held_out_scores import UNSEEN
from raptorgraph.report._short_graph import unordered
from raptorgraph.tl._interactions import UNDETERMINED

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from raptorgraph.evaluation._held_out_scores import HeldOut
    from raptorgraph.report._findings import Run


def unsaid(run: Run, held: HeldOut | None) -> list[str]:
    """What cannot be said, in whole sentences; empty where nothing is missing.

    Parameters
    ----------
    run
        A finished run.
    held
        Scores on held-out cells; None where none were held out.
    """
    return [
        *_of_perturbations(run.answers.strength),
        *_of_pairs(run.interactions),
        *_of_directions(run.edges),
        *_of_predictions(run, held),
    ]


def _of_perturbations(strength: pd.DataFrame) -> Iterator[str]:
    if strength["p"].isna().all():
        yield (
            "Which perturbations do anything cannot be said: to tell effects from the noise of sampling cells takes 20 "
            "control cells or more."
        )
        return
    weak = list(strength.index[~strength["stands_out"]])
    if weak:
        what = f"What {listed(weak, most=8)} {'does' if len(weak) == 1 else 'do'}"
        yield f"{what} cannot be said: {_not_told(len(weak))} not told from noise."


def _not_told(n: int) -> str:
    return "its effect is" if n == 1 else f"the effects of these {n:,} perturbations are"


def _of_pairs(table: pd.DataFrame | None) -> Iterator[str]:
    if table is None or table.empty:
        return
    n = table.attrs.get("n_pairs", len(table)) - int((table["interaction"] != UNDETERMINED).sum())
    if n:
        which = f"{counted(n, 'pair')} {'interacts' if n == 1 else 'interact'}"
        yield f"Whether {which} cannot be said: undetermined does not mean that effects add up."


def _of_directions(edges: pd.DataFrame) -> Iterator[str]:
    n = int(unordered(edges).sum())
    if n:
        which = f"any of {counted(n, 'edge')}" if n == len(edges) else f"{n:,} of {len(edges):,} edges"
        yield f"Which gene acts on the other cannot be said of {which}: the data support neither direction."


def _of_predictions(run: Run, held: HeldOut | None) -> Iterator[str]:
    if held is None:
        yield "How good the predictions are cannot be said: --report tests them on held-out cells."
        return
    if held.reason:
        yield f"How good the predictions are cannot be said: they were not tested, because {held.reason}."
        return
    if UNSEEN not in held.scores and len(run.model.perturbed_genes) > 1:
        yield (
            "How well pairs are predicted cannot be said: no combination could be left out, which takes combinations "
            "of genes that were also perturbed alone."
        )
    if held.ranks is not None:
        poor = held.ranks.loc[~(held.ranks["raptorgraph"] > held.chance), "type"]
        if len(poor):
            what = f"Which pairs lead by {listed(poor)}"
            yield f"{what} cannot be said: on held-out cells their predicted order is not told from chance."
