"""The sections on pairs of genes: which interact, and which acts through which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from raptorgraph._text import counted, listed, percent
from raptorgraph.inference._graph_modules import ORDERED
from raptorgraph.report import _figures as figures
from raptorgraph.report import _words as words
from raptorgraph.report._blocks import Heading, Section, Text
from raptorgraph.report._findings import Findings, long_table
from raptorgraph.report._short import strong_genes
from raptorgraph.report._short_graph import between, unordered
from raptorgraph.report._tables import Column, Table, fixed, small, table, with_interval, yes_no

if TYPE_CHECKING:
    from raptorgraph.report._pairs import Pairs


def interactions(found: Findings) -> Section:
    """Which pairs are predicted to interact."""
    section = Section("interactions", "Which pairs are predicted to interact")
    pairs = found.pairs
    if pairs is None or found.interactions is None:
        return section.add(Text("There is no pair: only one gene was perturbed."))
    whole = pairs.n_pairs == pairs.n_all
    if whole:
        text = (
            f"All {pairs.n_pairs:,} pairs of perturbed genes were predicted, and each score compares the pair with the "
            "sum of its two effects; interactions.csv has them all. "
        )
    else:
        text = (
            f"Shown are {pairs.n_pairs:,} of {pairs.n_all:,} pairs of perturbed genes, those whose predicted effect "
            "departs most from the sum of both effects. Each score compares the pair with that sum; the lists below "
            "are of these pairs, and so is interactions.csv. tl.interactions(model, top=..., by=...) ranks all pairs "
            "by any score. "
        )
    if pairs.n_weak:
        text += (
            f"{pairs.n_weak:,} of them are not in the lists below, since one of their genes or both do not stand out, "
            "or were not perturbed, alone: the direction of an effect that is next to nothing is arbitrary. "
        )
    if found.held.ranks is not None:
        text += "How far such lists can be trusted is shown under “How good the predictions are”. "
    section.add(Text(text.strip()))
    section.add(Text(_determined(pairs)))
    if pairs.n_pairs > 1 and whole:
        section.add(
            figures.picture(
                figures.draw_pairs(found.interactions),
                "Map of all pairs, gene by gene: synergy above the diagonal, interaction below it.",
                "All pairs, gene by gene. Above the diagonal the synergy: orange or red pairs do more than the sum, "
                "blue ones less. Below it the interaction where it is determined; hatched is undetermined. Dots mark "
                "measured pairs.",
            )
        )
    for type_, frame in pairs.top.items():
        title, meaning, least = words.TYPES[type_]
        strong = frame if least is None else frame[frame["score"] > least]
        section.add(Heading(title))
        if len(strong):
            section.add(Text(meaning), _pair_table(type_, strong, found, intervals=pairs.intervals))
        elif len(frame):
            first = frame.iloc[0]
            highest = f"the highest is {first['pair']} with {first['score']:.2f}"
            section.add(Text(f"{meaning} No pair is predicted above {least:g}; {highest}."))
        else:
            section.add(Text(f"{meaning} No pair is left to be listed."))
    return section


def _determined(pairs: Pairs) -> str:
    """How many interactions are known, and what the others lack."""
    if not pairs.intervals:
        return "This model has no intervals, so every interaction is undetermined."
    among = "" if pairs.n_pairs == pairs.n_all else " among those shown"
    determined = f"The interaction of {counted(pairs.n_determined, 'pair')}{among} is determined. "
    text = determined if pairs.n_determined else f"The interaction of no pair{among} is determined. "
    if pairs.prior:
        return text + (
            "No pair of two genes that were measured alone was among the training data, so how effects combine is not "
            "learned from this screen: every score and interval in this section is a prior, of what pairs did in other "
            "screens."
        )
    return text + (
        "That takes an interval which excludes an additive pair (an effect within a tenth as long as the sum, and "
        "within 18 degrees of it), and two genes whose single effects were measured and stand out from noise. "
        "Undetermined does not mean additive."
    )


def _pair_table(type_: str, frame: pd.DataFrame, found: Findings, *, intervals: bool) -> Table:
    frame = frame.copy()
    for column in ("score", "size"):
        frame[f"{column}_text"] = list(zip(*(frame[column + end] for end in ("", "_low", "_high")), strict=True))
    columns = {
        "pair": Column("pair"),
        "score_text": Column(type_, with_interval(2), number=True),
        "size_text": Column("size of effect", with_interval(2), "Of the pair, over all genes.", number=True),
        "interaction": Column("interaction", hint="What is known of this pair; most are undetermined."),
        "measured": Column("measured", yes_no, "Whether the pair is in the screen."),
    }
    reading = (
        "The highest score first; in brackets the model's 90 % interval, about the median of the same draws."
        if intervals
        else "The highest score first, by the predicted effects."
    )
    if frame["measured_score"].notna().any():
        hint = "The same score of the measured effects, with the noise of the measurement in it."
        columns["measured_score"] = Column("measured score", fixed(2), hint, number=True)
        reading += (
            " Measured pairs were left out of the training."
            if found.options.get("singles_only")
            else " Measured pairs were part of the training."
        )
    caption = f"The {len(frame)} pairs with the highest score" if len(frame) > 1 else "The only pair"
    return table(f"pairs-{type_}", caption, reading, frame, columns)


def graph(found: Findings) -> Section:
    """Which perturbed gene acts through which."""
    section = Section("graph", "Which perturbed gene acts through which")
    section.add(
        Text(
            "An edge from A to B of weight 0.5 says: half of what happens when B is perturbed also happens when A is "
            "perturbed, because perturbing A moves B. It is inferred from the effects of single perturbations, under "
            "assumptions: each perturbation hits its own gene alone, direct effects reach few genes, and there is no "
            "feedback. Read an edge as a hypothesis to test. Genes that were not perturbed are not in the graph; what "
            "passes through them is part of the arrows."
        )
    )
    edges, resampled = found.edges, "frequency" in found.edges
    if edges.empty:
        return section.add(Text("No edge was found. That is no proof that no gene acts through another."))
    if found.stability:
        section.add(Text(_stability(found)))
    order = unordered(edges)
    if order.any():
        section.add(Text(_without_direction(edges, found.model.get_modules(), int(order.sum()))))
    if resampled:
        section.add(
            Text(
                "In the figure, solid edges came out again in 90 % of the resampled screens, dashed ones in half of "
                "them, and dotted ones in fewer."
            )
        )
    n_drawn = min(len(edges), figures.MOST_EDGES)
    which = "All edges of the graph" if n_drawn == len(edges) else f"The {n_drawn} heaviest of {len(edges):,} edges"
    section.add(
        figures.picture(
            figures.draw_graph(edges, found.latents),
            f"Directed graph of {counted(n_drawn, 'edge')} between perturbed genes; the table below lists them.",
            f"{which}, causes above effects; width is weight. Blue arrows: both perturbations push the same way; "
            "orange bars: against each other." + (" Lines: either way." if order.any() else ""),
        )
    )
    columns = {
        "source": Column("from"),
        "target": Column("to"),
        "weight": Column(
            "weight",
            fixed(2),
            "Part of the effect of perturbing the second gene that perturbing the first brings about; positive where "
            "both push the same way.",
            number=True,
        ),
        "share": Column(
            "share",
            percent,
            "How much of the first gene's effect runs through this edge; not given where the direction is not known.",
            number=True,
        ),
        "probability": Column(
            "probability", fixed(2), "Under the model's assumptions, and too high on real screens.", number=True
        ),
        "direction_support": Column(
            "direction",
            percent,
            f"Support that the edge runs this way and not the other; 50 % is either way, below {percent(ORDERED)} read "
            "it as a line.",
            number=True,
        ),
        "module": Column("module", hint="Genes that the data cannot order."),
        "frequency": Column("frequency", percent, "Share of the resampled screens with this edge.", number=True),
        "q_value": Column(
            "q value",
            small,
            "Expected share of such edges without any effect; it does not say that the edge runs this way.",
            number=True,
        ),
    }
    if order.any():
        edges = edges.assign(share=edges["share"].mask(order))
    reading = "The surest first: go by the frequency." if resampled else "The one that carries most first."
    by = ["frequency", "share"] if resampled else ["share"] if "share" in edges else ["weight"]
    ranked = found.edges.sort_values(by, ascending=False, kind="stable").index
    strong = between(edges, strong_genes(found.strength, found.screen))
    if strong.any() and not strong.all():
        n_weak = int((~strong).sum())
        reading += f" {counted(n_weak, 'edge')} of perturbations that do not stand out {_is(n_weak)} in dag.csv alone."
        ranked = ranked[strong.loc[ranked]]
    return section.add(
        long_table(
            "edges",
            f"{counted(len(ranked), 'edge')} of the graph",
            reading,
            edges.loc[ranked],
            {key: column for key, column in columns.items() if key in edges},
            "dag.csv",
        )
    )


def _without_direction(edges: pd.DataFrame, modules: dict[str, list[str]], n: int) -> str:
    """Warning in words: which genes must not be read as acting through each other."""
    text = (
        f"The data do not support the direction of {n:,} of {counted(len(edges), 'edge')}: the effects of both genes "
        "are nearly proportional, neither holds the whole of the other, or too little was measured. They say that the "
        "two genes have something in common, and not that one acts on the other. "
    )
    for name, genes in modules.items():
        text += f"{name} is a group that the data cannot order at all: {listed(genes)}. "
    return text.strip()


def _stability(found: Findings) -> str:
    stability = found.stability
    text = (
        f"The graph was inferred again from {stability['n']:.0f} resampled screens, in which the cells of every "
        "perturbation are drawn anew, with repetition, from those that there are. "
    )
    if pd.notna(stability["jaccard"]):
        text += (
            f"Two of them share {percent(stability['jaccard'])} of their heaviest edges (Jaccard index; by chance "
            f"{100 * stability['chance_jaccard']:.1f} %). "
        )
    n_null = stability["null_edges"]
    return text + (
        "With the labels of the cells permuted, so that there is nothing to find, "
        + ("no edge came out." if not n_null else f"{n_null:.1f} edges came out on average.")
        + " Resampling covers the sampling of cells and nothing else: a guide that also hits a second gene is found "
        "every time."
    )


def _is(n: int) -> str:
    return "is" if n == 1 else "are"
