"""The section on which cells responded to their perturbation."""

from __future__ import annotations

from raptorgraph._text import counted, listed, percent
from raptorgraph.report import _figures as figures
from raptorgraph.report._blocks import Section, Text
from raptorgraph.report._findings import Findings, long_table
from raptorgraph.report._tables import Column, small, whole

_TOLD = 0.3  # how far cells must be told apart for that
_FEW = 0.8  # share of responders below which a perturbation is named


def responders(found: Findings) -> Section:
    """Which cells responded."""
    section = Section("responders", "Which cells responded")
    frame, guides = found.responders, found.guide_key
    whole_rows = frame if guides is None else frame[frame["guide"].isna()]
    strong = found.strength.index[found.strength["stands_out"] | found.strength["p"].isna()]
    told = whole_rows[(whole_rows["told"] > _TOLD) & whole_rows["perturbation"].isin(strong)]
    few = told[told["high"] < _FEW].sort_values("share", kind="stable")["perturbation"]
    text = (
        "A cell that carries a guide may have escaped its effect. The probability that a cell responded compares it "
        "with control cells and with the other cells of its perturbation; annotated.h5ad has it for each cell "
        "(raptorgraph_responded). "
    )
    if len(few):
        which = f"{counted(len(few), 'perturbation')} ({listed(few)})"
        text += f"Clearly fewer than {percent(_FEW)} of the cells responded in {which}."
    elif len(told):
        which = f"{counted(len(told), 'perturbation')} whose cells can be told apart"
        text += f"In none of {which} did clearly fewer than {percent(_FEW)} respond."
    else:
        text += (
            "In how many cells a perturbation took effect cannot be said here: cells that escaped are hardly told from "
            "those that responded."
        )
    section.add(Text(text))
    shares = list(zip(frame["share"], frame["low"], frame["high"], strict=True))
    columns = {
        "perturbation": Column("perturbation"),
        "n_cells": Column("cells", whole, number=True),
        "share": Column(
            "responded",
            _share,
            "Mean probability over the cells, with its interval of 90 %; of a combination, that all of its genes took "
            "effect.",
            number=True,
        ),
        "told": Column(
            "told apart",
            percent,
            "How far responders can be told from cells that escaped; 0 %: not at all, 100 %: surely.",
            number=True,
        ),
    }
    reading = "Where cells are hardly told apart, as where a perturbation does little, the share says nothing."
    if guides is not None:
        section.add(*_of_guides(found))
        columns = {"perturbation": columns.pop("perturbation"), "guide": Column("guide"), **columns}
        hint = "Test that all guides have the same share of responders: small where they differ."
        columns["q"] = Column("q value", small, hint, number=True)
        reading += " The first row of a perturbation has all of its guides."
    return section.add(
        long_table("responded", "Cells that responded", reading, frame.assign(share=shares), columns, "responders.csv")
    )


def _of_guides(found: Findings) -> list[Text | figures.Picture]:
    """Whether guides of one perturbation disagree, and what each does."""
    table, column = found.guides, found.guide_key
    assert table is not None
    n = table.loc[table["p"].notna(), "perturbation"].nunique()
    if not n:
        return [Text(f"No perturbation has two guides of five cells or more (column {column}).")]
    apart = list(dict.fromkeys(table.loc[table["disagrees"], "perturbation"]))
    if not apart:
        text = f"In none of {counted(n, 'perturbation')} do the guides differ clearly (column {column}). "
    else:
        text = (
            f"Guides of {counted(len(apart), 'perturbation')} of {n:,} disagree at a false discovery rate of 5 % "
            f"(column {column}): {listed(apart)}. One of them may not work, or hit something else: look at their cells "
            "apart. "
        )
    return [
        Text(f"{text}guides.csv has what each guide does."),
        figures.picture(
            figures.draw_guides(table),
            "Size of the effect, share of responders and number of cells of each guide, by perturbation.",
            "Guides of the perturbations whose guides differ most: effect along that of all guides (1 is their mean, 0 "
            "no effect), share of responders, and cells. Orange guides disagree.",
        ),
    ]


def _share(three: tuple[float, float, float]) -> str:
    value, low, high = map(percent, three)
    return f"{value} [{low}, {high}]"
