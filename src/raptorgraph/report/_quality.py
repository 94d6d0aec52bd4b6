"""The section on how good the predictions are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raptorgraph._text import counted, listed, percent
from raptorgraph.evaluation._held_out_scores import HALF, MODEL, SEEN, SINGLES, UNSEEN, HeldOut, Scores
from raptorgraph.report import _figures as figures
from raptorgraph.report import _words as words
from raptorgraph.report._blocks import Heading, Section, Text
from raptorgraph.report._short_tested import against_best, against_perfect, error
from raptorgraph.report._tables import Column, fixed, table, with_error

if TYPE_CHECKING:
    import pandas as pd

    from raptorgraph.report._findings import Findings

_TITLES = {
    UNSEEN: "Combinations that the fit had not seen",
    SINGLES: "Single perturbations, on cells that the fit had not seen",
    SEEN: "Combinations that the fit had seen, on cells that it had not",
}
_READING = (
    "Squared error: 0 is perfect, 1 is no better than predicting no change. Correlation: over genes, 1 is perfect. In "
    "brackets are intervals of 90 % over perturbations."
)


def quality(found: Findings) -> Section:
    """How good the predictions are."""
    held = found.held
    section = Section("quality", "How good the predictions are")
    if found.truth is not None:
        _add_truth(section, found.truth.copy())
    if held.reason:
        return section.add(Text(f"The predictions were not tested on held-out cells: {held.reason}."))
    section.add(Heading("How this was measured"), Text(_how(found)))
    for name, title in _TITLES.items():
        if name in held.scores:
            _add_scores(section, name, title, held.scores[name])
        elif name == UNSEEN:
            section.add(
                Heading(title),
                Text(
                    (
                        "None could be left out: that needs combinations of genes that were also perturbed alone."
                        if found.screen.combinations
                        else "None could be left out: this screen has no combinations."
                    )
                    + " How well pairs are predicted is not known for this screen."
                ),
            )
    _add_effects(section, held)
    if held.ranks is not None:
        _add_ranks(section, held.ranks, held.chance)
    return section


def _how(found: Findings) -> str:
    held = found.held
    text = (
        "The cells of every perturbation and of the control were divided into two halves at random. The model and the "
        "simple methods were fitted again to the first halves alone, and everything below compares them with the "
        "effects measured on the second halves. No score here is of cells that a fit has seen. "
    )
    if UNSEEN in held.scores:
        n = len(held.scores[UNSEEN].labels)
        if found.options.get("singles_only"):
            text += f"As in this run, the fit saw no combination; {n:,} were predicted. "
        elif held.n_fits == held.n_folds == 1:
            text += f"{counted(n, 'combination')} was left out of the fit altogether. "
        elif held.n_fits == held.n_folds:
            text += (
                f"The combinations were divided into {held.n_folds} parts; each was predicted by a fit that had seen "
                "none of its cells. "
            )
        else:
            text += (
                f"One of {held.n_folds} parts of the combinations ({n:,}) was left out of the fit altogether; only "
                "one, since a fit of this preset takes long. "
            )
    return text + (
        "The model that this report is about was fitted to all cells, twice as many, so its own predictions should be "
        "somewhat better. Scores of different screens cannot be compared: they depend on the number of cells."
    )


def _add_scores(section: Section, name: str, title: str, scores: Scores) -> None:
    frame = scores.table.sort_values("relative_mse", kind="stable").reset_index(drop=True)
    frame["short"], frame["what"] = zip(*(words.method(method, name) for method in frame["method"]), strict=True)
    for column in ("relative_mse", "pearson"):
        frame[column] = list(zip(frame[column], frame[f"{column}_se"], strict=True))
    shown = with_error(2, scores.errors_of(0.9))
    columns = {
        "short": Column("method"),
        "relative_mse": Column(
            "squared error",
            shown,
            "As a part of the squared size of the effects: 0 is perfect, 1 is predicting no change.",
            number=True,
        ),
        "pearson": Column("correlation", shown, "Over genes, mean over perturbations; 1 is perfect.", number=True),
        "discrimination": Column(
            "told apart",
            fixed(2),
            "Share of the other perturbations whose measured effect resembles the prediction less than that of the one "
            "that was predicted; 1 is perfect, 0.5 is guessing.",
            number=True,
        ),
        "what": Column("what it predicts", wide=True),
    }
    section.add(Heading(title), Text(_result(name, scores), strong=True))
    section.add(
        table(
            f"scores-{name.replace(' ', '-')}",
            f"{counted(len(scores.labels), 'perturbation')}; methods by their error",
            _READING,
            frame,
            columns,
            strong=[k for k, method in enumerate(frame["method"]) if method == MODEL],
        )
    )
    if name == UNSEEN:
        section.add(
            figures.picture(
                figures.draw_scores(scores, {key: value[0] for key, value in words.METHODS.items()}),
                f"Squared error and correlation of {counted(len(frame) - 2, 'method')} on combinations that were left "
                "out: the numbers of the table above.",
                "The table as a figure: dots with standard errors, raptorgraph in orange. The lines are the effect "
                "measured again (other half), and what a perfect prediction would score.",
            )
        )


def _result(name: str, scores: Scores) -> str:
    text = f"The squared error of raptorgraph is {error(scores, MODEL)}. "
    if name == SEEN:
        half = error(scores, HALF)
        text += f"Measuring the effect once more, on the other half of the cells, is off by {half}. "
    else:
        text += f"{against_best(name, scores)} "
    text += against_perfect(scores)
    if scores.coverage is not None:
        text += f" Intervals of 90 % held {percent(scores.coverage)} of the measured values."
    return text


def _add_effects(section: Section, held: HeldOut) -> None:
    figure, labels = figures.draw_effects(held.predicted, held.measured, most_columns=2, size=(4.2, 4.0))
    seen = "no cell" if held.shown == UNSEEN else "other cells"
    section.add(
        Heading("Gene by gene"),
        Text(
            f"Effects of the strongest perturbations, {listed(labels)}, as they were measured on held-out cells and as "
            f"they were predicted by a fit that had seen {seen} of them."
        ),
        figures.picture(
            figure,
            f"Scatter plots of predicted against measured effects of {listed(labels)}, one dot a gene.",
            "Predicted against measured effects, one dot a gene. On the diagonal both are equal. Diamonds on the edge "
            "lie outside, at the values in brackets.",
            kind="png",
        ),
    )


def _add_ranks(section: Section, frame: pd.DataFrame, chance: float) -> None:
    n = int(frame["n_pairs"].iloc[0])
    columns = {
        "type": Column("type of interaction"),
        "raptorgraph": Column(
            "predicted",
            fixed(2),
            "Rank correlation of the predicted score with that of the held-out cells.",
            number=True,
        ),
        "half": Column("measured again", fixed(2), "Rank correlation between both halves of the cells.", number=True),
    }
    reading = (
        f"Rank correlation of the scores of {n:,} pairs that were left out with those measured on held-out cells: 1 is "
        f"the same order, up to {chance:.2f} can be chance."
    )
    section.add(
        Heading("Are the right pairs said to interact?"),
        table("ranks", "Order of the pairs by each type of interaction", reading, frame, columns),
    )


def _add_truth(section: Section, frame: pd.DataFrame) -> None:
    names = {"sum of measured singles": "sum of singles"}
    frame["method"] = [names.get(method, method) for method in frame["method"]]
    columns = {
        "method": Column("method"),
        "relative_mse": Column("squared error", fixed(2), number=True),
        "pearson": Column("correlation", fixed(2), number=True),
    }
    n = int(frame["conditions"].iloc[0])
    section.add(
        Heading("Against the truth, which only a simulated screen has"),
        table(
            "truth",
            f"Predicted against true effects of {counted(n, 'double')} that the training did not see",
            "Squared error: 0 is perfect, 1 is no better than predicting no change. Correlation: over genes, 1 is "
            "perfect. The sum is of measured effects, with their noise.",
            frame,
            columns,
            strong=[k for k, method in enumerate(frame["method"]) if method == MODEL],
        ),
    )
