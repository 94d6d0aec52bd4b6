"""The section on the labels of the latents: the gene sets that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from raptorgraph import pl
from raptorgraph._text import counted, listed, percent
from raptorgraph.pp._gene_sets import clean_set_name
from raptorgraph.report import _figures as figures
from raptorgraph.report._blocks import Section, Text
from raptorgraph.report._findings import Findings, long_table
from raptorgraph.report._tables import Column, Table, fixed, small, whole

if TYPE_CHECKING:
    import pandas as pd

_FDR = 0.05
_NOT_ASKED = "not analyzed"  # latents without a gene
_N_LISTED, _N_GENES = 5, 6  # sets of a latent, and genes of a leading edge
_N_SETS, _N_LATENTS = 25, 40  # of the figure


def pathways(found: Findings) -> Section:
    """The labels of the latents."""
    section = Section("pathways", "The labels of the latents")
    if found.enrichment is None or found.latents is None:
        return section.add(
            Text(
                "No gene sets were given. With --gene-sets FILE.gmt (for example the Hallmark sets of MSigDB) this "
                "section labels each latent with the gene set that rises or falls with it."
            )
        )
    scores = found.enrichment
    clear = significant(scores)
    n_latents, n_clear = scores["latent"].nunique(), clear["latent"].nunique()
    section.add(
        Text(
            "Each perturbed gene has a latent of its own, a number of each cell, and the effect of perturbing that "
            "gene is compared with "
            f"{counted(scores['gene_set'].nunique(), 'gene set')} (those with at least five of the genes; GSEA on the "
            "ranked genes, the perturbed gene itself left out). A set counts if it passes two tests, each at a false "
            "discovery rate of 5 %: against random sets of genes, and against random groups of control cells. Of a "
            f"perturbation that does not stand out from noise no set counts. {n_clear:,} of "
            f"{counted(n_latents, 'latent')} have one or more."
        )
    )
    if scores["NES"].notna().any():
        section.add(_picture(scores))
    section.add(_label_table(found.latents, scores))
    if len(clear):
        section.add(_set_table(clear))
    return section


def significant(scores: pd.DataFrame) -> pd.DataFrame:
    """Gene sets that pass both tests, of latents that stand out; the strongest first within each latent."""
    passed = scores["stands_out"].astype(bool) & (scores["FDR"] <= _FDR)
    in_cells = (scores["FDR_null"] <= _FDR) & (np.sign(scores["change"]) == np.sign(scores["NES"]))
    passed &= in_cells | scores["FDR_null"].isna()
    order = scores["NES"].abs().sort_values(ascending=False, kind="stable").index
    return scores.loc[order][passed.loc[order]].sort_values("latent", kind="stable")


def _picture(scores: pd.DataFrame) -> figures.Picture:
    n_sets = min(_N_SETS, scores["gene_set"].nunique())
    n_latents = min(_N_LATENTS, scores["latent"].nunique())
    figure = Figure(figsize=(float(np.clip(5.2 + 0.22 * n_latents, 7, 13)), 2.2 + 0.22 * n_sets), layout="constrained")
    pl.enrichment(scores, n_sets=_N_SETS, n_latents=_N_LATENTS, ax=figure.subplots())
    return figures.picture(
        figure,
        "Heat map of gene sets and latents: red sets rise and blue sets fall with the perturbation.",
        "Gene sets that rise (red) or fall (blue) with the perturbation of each gene, as normalized enrichment scores. "
        "Dots mark sets that count; faint columns belong to perturbations that do not stand out from noise.",
    )


def _label_table(latents: pd.DataFrame, scores: pd.DataFrame) -> Table:
    frame = asked(latents).reset_index()
    frame["text"] = frame["label"].where(labeled(frame), frame["reason"])
    magnitude = scores.groupby("latent")["magnitude"].first()
    frame["size"] = magnitude.reindex(frame["latent"]).to_numpy()
    columns = {
        "latent": Column("latent"),
        "text": Column("label", wide=True),
        "n_sets": Column("gene sets", whole, "How many count.", number=True),
        "shared": Column(
            "shared",
            percent,
            "Share of the other latents that stand out which the same set marks; near 100 % the label tells of the "
            "screen more than of the gene.",
            number=True,
        ),
        "size": Column("size of effect", fixed(2), "Over all genes but the perturbed one.", number=True),
    }
    reading = (
        "A latent is named after the gene whose perturbation moves it. Its label is the gene set with the largest "
        "score among those that count, with an arrow for up or down, or why there is none."
    )
    return long_table("latents", "Labels of the latents", reading, frame, columns, "latents.csv")


def _set_table(clear: pd.DataFrame) -> Table:
    frame = clear.groupby("latent").head(_N_LISTED)
    frame = frame.assign(gene_set=[clean_set_name(name) for name in frame["gene_set"]])
    frame["genes"] = [listed(str(edge).split(";"), most=_N_GENES) if edge else None for edge in frame["leading_edge"]]
    columns = {
        "latent": Column("latent"),
        "gene_set": Column("gene set"),
        "NES": Column(
            "NES",
            fixed(2),
            "Normalized enrichment score: above 0 the genes of the set rise with the perturbation, below 0 they fall; "
            "it says how consistently, not how much.",
            number=True,
        ),
        "FDR": Column("FDR, genes", small, "False discovery rate against random sets of genes.", number=True),
        "FDR_null": Column(
            "FDR, cells", small, "False discovery rate against random groups of control cells.", number=True
        ),
        "genes": Column("leading genes", hint="Those that make up most of the score.", wide=True),
    }
    reading = "The strongest first within each latent, by the size of the normalized enrichment score (NES)."
    caption = "Gene sets that count, latent by latent"
    if len(frame) < len(clear):
        reading += (
            f" At most {_N_LISTED} of each latent, {len(frame):,} of {len(clear):,} in all; enrichment.csv has all."
        )
    return long_table("gene-sets", caption, reading, frame, columns, "enrichment.csv")


def asked(latents: pd.DataFrame) -> pd.DataFrame:
    """Latents that gene sets were asked of."""
    return latents[latents["reason"] != _NOT_ASKED]


def labeled(latents: pd.DataFrame) -> pd.Series:
    """Whether each latent has a label."""
    return latents["label"].fillna("").astype(str).str.strip() != ""
