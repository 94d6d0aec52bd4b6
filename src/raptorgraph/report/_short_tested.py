"""Sentences on how well effects were predicted on held-out cells, beside simple methods and a perfect prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph._text import counted
from raptorgraph.evaluation._held_out_scores import MODEL, PERFECT, SINGLES, UNSEEN
from raptorgraph.report import _words as words
from raptorgraph.report._tables import with_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from raptorgraph.evaluation._held_out_scores import HeldOut, Scores


def verdicts(held: HeldOut) -> Iterator[str]:
    """A sentence or two on each set of conditions that was tested."""
    names = [name for name in (UNSEEN, SINGLES) if name in held.scores]
    for name in names:
        yield _verdict(name, held.scores[name], explained=name == names[0])


def _verdict(name: str, scores: Scores, *, explained: bool) -> str:
    n = len(scores.labels)
    what = {
        UNSEEN: f"Effects of {counted(n, 'combination')} that the fit had not seen",
        SINGLES: f"Effects of {counted(n, 'single perturbation')}, on cells that the fit had not seen",
    }[name]
    text = f"{what}: the relative squared error is {error(scores, MODEL)}. {against_best(name, scores)} "
    text += against_perfect(scores)
    return text + (" 0 is no error, 1 that of predicting no change at all." if explained else "")


def error(scores: Scores, method: str) -> str:
    """The relative squared error of a method with its interval of 90 %, as far as there is one."""
    row = scores.table.set_index("method").loc[method]
    return with_error(2, scores.errors_of(0.9))((row["relative_mse"], row.get("relative_mse_se", float("nan"))))


def against_best(name: str, scores: Scores) -> str:
    """The model beside the best simple method."""
    best = f"the best simple method, “{words.method(scores.best, name)[0]}”, with {error(scores, scores.best)}"
    if len(scores.labels) < 2:
        return f"Whether that is less than the error of {best}, cannot be told from one perturbation."
    return {
        "better": f"That is clearly less than the error of {best}.",
        "worse": f"That is clearly more than the error of {best}.",
        "level": f"That is not clearly different from the error of {best}.",
    }[scores.verdict]


def against_perfect(scores: Scores) -> str:
    """The model beside what the true effects would score, since the measurement has noise of its own.

    That score is an expectation: by chance a prediction may err by less than it, and is then as good as these cells can
    show, not better than the truth.
    """
    ours, perfect = scores.value(MODEL, "relative_mse"), scores.value(PERFECT, "relative_mse")
    if perfect >= 1:
        return (
            "The measured effects are no larger than the noise of measuring them, so these cells cannot judge any "
            "prediction."
        )
    if ours <= perfect:
        return (
            f"The noise of the measurement alone makes an error of about {perfect:.2f}, so these cells show no error "
            "of the prediction beyond it."
        )
    return f"The noise of the measurement alone makes an error of about {perfect:.2f}, also of a perfect prediction."


def against_truth(table: pd.DataFrame) -> str:
    """The model beside the sum of measured effects, against the true effects of a simulated screen."""
    frame, n = table.set_index("method"), counted(int(table["conditions"].iloc[0]), "double")
    text = (
        f"Against the true effects of {n} that the training did not see, which only a simulated screen has, the "
        f"relative squared error is {frame.at['raptorgraph', 'relative_mse']:.2f}"
    )
    rival = "sum of measured singles"
    return text + (f", and that of the {rival} {frame.at[rival, 'relative_mse']:.2f}." if rival in frame.index else ".")
