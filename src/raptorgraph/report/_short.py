"""What a run found in a few sentences, for the page and the terminal alike; and what it cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph._text import counted, listed
from raptorgraph.report._blocks import IMPORTANT
from raptorgraph.report._pathways import asked, labeled
from raptorgraph.report._short_graph import graph, modules
from raptorgraph.report._short_pairs import pairs, to_measure
from raptorgraph.report._short_perturbations import genes_of_strongest, strongest
from raptorgraph.report._short_tested import against_truth, verdicts
from raptorgraph.report._states import sentence
from raptorgraph.report._unsaid import unsaid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from raptorgraph.evaluation._held_out_scores import HeldOut
    from raptorgraph.report._blocks import Note
    from raptorgraph.report._findings import Run
    from raptorgraph.screen import Screen

_N_LABELS, _N_STATES = 5, 3


def in_short(run: Run, notes: Sequence[Note], held: HeldOut | None) -> tuple[list[str], list[str]]:
    """What was found, and what cannot be said, in whole sentences.

    Parameters
    ----------
    run
        A finished run.
    notes
        What to know before using the results.
    held
        Scores on held-out cells; None where none were held out.
    """
    return list(_found(run, notes, held)), unsaid(run, held)


def _found(run: Run, notes: Sequence[Note], held: HeldOut | None) -> Iterator[str]:
    answers, model = run.answers, run.model
    yield _screen(run.screen)
    yield strongest(answers.strength)
    yield from genes_of_strongest(answers.strength, answers.top_genes, counts=model.module.config.counts)
    if answers.states is not None:
        for _, rows in list(answers.states.groupby("query", sort=False))[:_N_STATES]:
            yield sentence(rows)
    strong = strong_genes(answers.strength, run.screen)
    yield graph(run.edges, strong, n_alone=len(run.screen.singles))
    yield from modules(model.get_modules(), strong)
    yield pairs(run.interactions)
    yield to_measure(answers.next_pairs, answers.no_next)
    if held is not None:
        yield from verdicts(held)
    if run.truth is not None:
        yield against_truth(run.truth)
    if run.latents is not None:
        yield _labels(run.latents)
    yield _warnings(notes)


def strong_genes(strength: pd.DataFrame, screen: Screen) -> set[str]:
    """Genes whose own perturbation stands out from noise."""
    return {screen.genes_of[label][0] for label in screen.singles if strength.at[label, "stands_out"]}


def _screen(screen: Screen) -> str:
    n_control = len(screen.rows(screen.control))
    combinations = counted(len(screen.combinations), "combination") if screen.combinations else "no combination"
    return (
        f"The screen has {counted(screen.adata.n_obs, 'cell')} and {counted(screen.adata.n_vars, 'gene')}: "
        f"{counted(n_control, 'control cell')}, {counted(len(screen.singles), 'gene')} perturbed alone, and "
        f"{combinations}."
    )


def _labels(latents: pd.DataFrame) -> str:
    """The labels of the latents."""
    frame = asked(latents)
    found = frame[labeled(frame)]
    if found.empty:
        return f"None of {counted(len(frame), 'latent')} has a label, since no gene set passes both tests."
    named = [f"{latent} ({label})" for latent, label in found["label"].items()]
    verb = "has" if len(found) == 1 else "have"
    return (
        f"{len(found):,} of {counted(len(frame), 'latent')} {verb} a label, the gene set that marks the effect of its "
        f"gene: {listed(named, most=_N_LABELS)}."
    )


def _warnings(notes: Sequence[Note]) -> str:
    n_important = sum(note.level == IMPORTANT for note in notes)
    if not notes:
        return "The checks found nothing to warn of."
    said = [counted(n, what) for n, what in ((n_important, "warning"), (len(notes) - n_important, "note")) if n]
    verb = "says" if len(notes) == 1 else "say"
    return f"{' and '.join(said)} {verb} what to know before using the results."
