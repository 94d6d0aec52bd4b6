"""What a reader must know before using the results: everything that is weak, missing or assumed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from raptorgraph._text import counted, listed, percent
from raptorgraph.evaluation._held_out_scores import MODEL, SINGLES, UNSEEN, HeldOut
from raptorgraph.model._diagnose import run_checks
from raptorgraph.report._blocks import IMPORTANT, NOTE, Note
from raptorgraph.report._words import method
from raptorgraph.screen._checks import WARNING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from raptorgraph.report._findings import Run
    from raptorgraph.screen._checks import Checked

_DRIFT = 0.05  # of the squared size of an effect
_LITTLE_SPREAD, _MUCH_SPREAD = 0.8, 1.25  # predicted over measured variance

_warning, _note = partial(Note, IMPORTANT), partial(Note, NOTE)


def diagnosis(run: Run, strength: pd.DataFrame) -> list[Checked]:
    """All checks of :meth:`raptorgraph.RaptorGraphModel.diagnose`, on all cells of a run.

    Parameters
    ----------
    run
        A finished run.
    strength
        Table of :func:`raptorgraph.screen._strength.strengths`.
    """
    return run_checks(run.model, run.screen, strength, singles_only=bool(run.options.get("singles_only")))


def notes(run: Run, checks: Sequence[Checked], held: HeldOut | None) -> list[Note]:
    """All that applies, what is important first.

    Parameters
    ----------
    run
        A finished run.
    checks
        What :func:`diagnosis` found.
    held
        Scores on held-out cells; None where none were held out.
    """
    found = [
        *(
            Note(IMPORTANT if finding.level == WARNING else NOTE, finding.found, finding.text)
            for check in checks
            for finding in check.findings
        ),
        *(() if held is None else _quality(held)),
        *_network(run.control, run.options, run.model.has_posterior),
    ]
    return sorted(found, key=lambda note: note.level != IMPORTANT)


def _quality(held: HeldOut) -> Iterator[Note]:
    if held.reason:
        yield _warning("The predictions were not tested", f"That was not possible, because {held.reason}.")
        return
    if held.left_out:
        yield _note(
            f"{counted(len(held.left_out), 'perturbation')} not tested on held-out cells",
            f"{listed(held.left_out)}: too few cells to be divided in two.",
        )
    for name, what in {UNSEEN: "combinations that the fit had not seen", SINGLES: "single perturbations"}.items():
        scores = held.scores.get(name)
        if scores is None:
            continue
        if scores.value(MODEL, "relative_mse") >= 1:
            yield _warning(
                f"Predictions of {what} are no better than predicting no change",
                "On cells that were held out, their squared error is as large as the effects themselves. Do not use "
                "them.",
            )
        elif scores.verdict == "worse":
            advice = {
                UNSEEN: "Prefer it for effects of combinations in this screen.",
                SINGLES: "For a perturbation that was measured, the measured effect is the better estimate.",
            }
            yield Note(
                IMPORTANT if name == UNSEEN else NOTE,
                f"A simpler method predicts {what} better",
                f"The relative squared error of “{method(scores.best, name)[0]}” is "
                f"{scores.value(scores.best, 'relative_mse'):.2f}, that of raptorgraph "
                f"{scores.value(MODEL, 'relative_mse'):.2f}. {advice[name]}",
            )
    if UNSEEN not in held.scores:
        yield _note(
            "No combination could be left out to test predictions of combinations",
            "That needs combinations of genes that were also perturbed alone. How well pairs are predicted is unknown "
            "for this screen.",
        )
    if held.ranks is not None:
        poor = held.ranks[~(held.ranks["raptorgraph"] > held.chance)]
        if len(poor):
            untold = poor.loc[~(poor["half"] > held.chance), "type"]
            again = f" For {listed(untold)}, two measurements do not agree either, so these cells cannot tell."
            yield _warning(
                f"The order of pairs by {listed(poor['type'])} could not be told from chance",
                f"Among the {held.ranks['n_pairs'].iloc[0]:,} pairs that were left out, the predicted order does not "
                "agree with the measured one beyond chance. Take these lists as no more than candidates."
                + (again if len(untold) else ""),
            )
    for name, why in held.failed.items():
        yield _note(f"The baseline “{name}” could not be fitted", why)


def _network(control: Mapping[str, float], options: Mapping[str, Any], has_posterior: bool) -> Iterator[Note]:
    if control["drift"] > _DRIFT:
        yield _note(
            "Predicted control cells differ from the measured ones",
            f"The squared difference of their means is {percent(control['drift'])} of the squared size of a typical "
            "effect. Compare predicted cells with predicted control cells, not with measured ones.",
        )
    ratio = control["variance_ratio"]
    if not _LITTLE_SPREAD <= ratio <= _MUCH_SPREAD:
        yield _note(
            f"Predicted control cells vary {'less' if ratio < _LITTLE_SPREAD else 'more'} than measured ones",
            f"The variance of the median gene is {ratio:.2f} times the measured one.",
        )
    if options.get("max_epochs"):
        yield _note(
            f"The network was trained for {counted(options['max_epochs'], 'epoch')}, as asked",
            "Effects of the default preset do not depend on it; predicted cells and latents do.",
        )
    if not has_posterior:
        yield _note(
            f"The preset “{options.get('preset')}” has no intervals",
            "Its effects come from the network alone, which does not say how sure they are.",
        )
