"""The section on what each perturbation does: how much, to which genes, and which do alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from raptorgraph._text import counted
from raptorgraph.report._answers import N_SURE, sure_genes
from raptorgraph.report._blocks import Heading, Section, Text
from raptorgraph.report._figures import picture_file
from raptorgraph.report._findings import Findings, long_table
from raptorgraph.report._short_perturbations import gene_text, known, ranked
from raptorgraph.report._tables import Column, fixed, whole, with_error, with_interval, yes_no
from raptorgraph.tl._effect_blocks import SURE

if TYPE_CHECKING:
    from raptorgraph.report._tables import Table

_PICTURES = {
    "volcano.png": (
        "Volcano plots of the strongest perturbations: the change of each gene against how sure its direction is.",
        "The strongest perturbations, one dot a gene: to the right it rises, to the left it falls, and the higher it "
        "is, the surer is the direction.",
    ),
    "effects_map.png": (
        "Heat map of perturbations and the genes that they change most: red genes rise, blue genes fall.",
        "Genes that change most, by perturbation: red rises, blue falls. Perturbations and genes that are alike stand "
        "side by side.",
    ),
    "similarity.png": (
        "Heat map of the likeness of all pairs of perturbations, with groups of like ones side by side.",
        "How alike the effects of two perturbations are: 1 is the same direction, 0 unrelated, below 0 opposite. Like "
        "ones stand side by side.",
    ),
}


def perturbations(found: Findings) -> Section:
    """What each perturbation does."""
    section = Section("perturbations", "What each perturbation does")
    section.add(
        Text(
            "The size of an effect is the length of the vector of the changes of all genes. A perturbation stands out "
            "if its change, of many genes or of few, is larger than that of random groups of control cells, at a false "
            "discovery rate of 5 %; its own gene does not count."
        )
    )
    for name, (alt, caption) in _PICTURES.items():
        if (found.out / name).is_file():
            section.add(picture_file(found.out / name, alt, caption))
    section.add(_strengths(found), Heading("Which genes change"))
    return section.add(*_genes(found))


def _strengths(found: Findings) -> Table:
    frame = found.strength.join(found.held.conditions)
    frame = frame.sort_values(["stands_out", "magnitude", "size"], ascending=False, kind="stable").reset_index()
    frame["effect"] = list(zip(*(frame[f"magnitude{end}"] for end in ("", "_low", "_high")), strict=True))
    frame["own"] = list(zip(frame["own_gene"], frame["own_gene_se"], strict=True))
    columns = {
        "perturbation": Column("perturbation"),
        "n_cells": Column("cells", whole, number=True),
        "effect": Column(
            "size of effect",
            with_interval(2),
            "By the model's effects, which are less noisy than the measured ones, with its interval of 90 %; a "
            "prediction where the perturbation was left out of the training.",
            number=True,
        ),
        "signal_to_noise": Column(
            "signal to noise",
            fixed(1),
            "Squared size of the measured effect over what the sampling of cells alone brings about; 1 is noise.",
            number=True,
        ),
        "stands_out": Column("stands out", yes_no, "Larger than in random groups of control cells."),
    }
    if frame["own_gene"].notna().any():
        columns["own"] = Column(
            "own gene",
            with_error(2),
            "Measured change of the perturbed gene itself; its interval of 90 % in brackets.",
            number=True,
        )
    reading = "Those that stand out first, the largest effect on top."
    if not found.held.reason:
        reading += " Agreement is a correlation over all genes with the effect in cells that were held out."
        hint = "Agreement of {} with the effect in held-out cells; 1 is perfect."
        columns["seen"] = Column(
            "agreement, seen", fixed(2), hint.format("a prediction whose fit had seen other cells of it"), number=True
        )
        if frame["unseen"].notna().any():
            columns["unseen"] = Column(
                "agreement, unseen", fixed(2), hint.format("a prediction whose fit had seen no cell of it"), number=True
            )
        columns["half"] = Column(
            "agreement, measured", fixed(2), hint.format("the effect in the other half of the cells"), number=True
        )
    return long_table("all", "All perturbations", reading, frame, columns, "perturbations.csv")


def _genes(found: Findings) -> list[Text | Table]:
    """A row for each perturbation that stands out, with the genes that surely fall and rise."""
    answers = found.answers
    strong = ranked(answers.strength)
    labels = list(known(strong).index)
    if strong.empty:
        return [Text("No perturbation stands out, so no gene is listed; top_genes.csv has the largest changes of all.")]
    if answers.top_genes is None:
        return [Text("The table of these genes could not be made; the same command tries again.")]
    if not answers.top_genes["FDR"].notna().any():
        return [
            Text(
                "This model has no intervals, so of no gene is it known how sure its change is; top_genes.csv has the "
                "largest predicted changes."
            )
        ]
    sure = sure_genes(answers.top_genes)
    by_label = dict(list(sure.groupby("perturbation", sort=False)))
    nothing = sure.iloc[:0]
    rows = []
    for label in labels:
        genes = by_label.get(label, nothing).sort_values("effect", kind="stable")
        falls, rises = genes[genes["effect"] < 0], genes[genes["effect"] > 0].iloc[::-1]
        rows.append((label, *(_listed(part.head(N_SURE)) for part in (falls, rises))))
    columns = {
        "perturbation": Column("perturbation"),
        "falls": Column("genes that fall", hint="The largest falls, with intervals of 90 %.", wide=True),
        "rises": Column("genes that rise", hint="The largest rises, with intervals of 90 %.", wide=True),
    }
    n_weak, n_unknown = len(answers.strength) - len(strong), len(strong) - len(labels)
    n_predicted = int((~strong.loc[labels, "trained"]).sum())
    without = ""
    if n_weak:
        without = f" {counted(n_weak, 'perturbation')} that {_do(n_weak)} not stand out {_is(n_weak)} left out."
    if n_unknown:
        genes = "with a gene that the model does not know"
        without += f" {counted(n_unknown, 'perturbation')} {genes} {_is(n_unknown)} left out."
    if n_predicted:
        what = f"{counted(n_predicted, 'perturbation')} that the training did not see"
        without += f" Changes by {what} are predictions, and come last."
    return [
        Text(
            f"Listed are genes that respond at a false discovery rate of at most {100 * SURE:g} %, which is the share "
            f"of them that are expected not to, but for the perturbed gene itself.{without} top_genes.csv has more "
            "genes of every perturbation."
        ),
        long_table(
            "genes",
            f"The genes that {counted(len(labels), 'perturbation')} {_change(len(labels))} most",
            f"At most {N_SURE} genes that fall and {N_SURE} that rise, the largest change first.",
            pd.DataFrame(rows, columns=list(columns)),
            columns,
            "top_genes.csv",
        ),
    ]


def _listed(rows: pd.DataFrame) -> str | None:
    return ", ".join(gene_text(row) for row in rows.itertuples()) or None


def _do(n: int) -> str:
    return "does" if n == 1 else "do"


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _change(n: int) -> str:
    return "changes" if n == 1 else "change"
