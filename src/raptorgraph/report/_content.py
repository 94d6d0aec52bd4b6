"""The sections of the report, in the order in which they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raptorgraph.report import _figures as figures
from raptorgraph.report._blocks import Bullets, Code, Heading, Notes, Section, Terms, Text
from raptorgraph.report._diagnosis import what_was_checked
from raptorgraph.report._next import to_measure_next
from raptorgraph.report._pathways import pathways
from raptorgraph.report._perturbations import perturbations
from raptorgraph.report._quality import quality
from raptorgraph.report._record import of_run
from raptorgraph.report._relations import graph, interactions
from raptorgraph.report._responders import responders
from raptorgraph.report._short import in_short
from raptorgraph.report._states import states

if TYPE_CHECKING:
    from raptorgraph.report._findings import Findings

FILES = {
    "perturbations.csv": "how strong each perturbation is, with what held-out cells say of its prediction",
    "top_genes.csv": "the genes that every perturbation changes most, with intervals of 90 %",
    "effects.csv": "predicted effect of every perturbation on every gene, with intervals of 90 %",
    "interactions.csv": "pairs of perturbed genes and their scores, with intervals of 90 %",
    "next_pairs.csv": "pairs to measure next",
    "reverse.csv": "perturbations ranked by how near they come to the wanted state",
    "dag.csv": "edges of the graph",
    "responders.csv": "share of cells that responded, by perturbation and guide",
    "guides.csv": "what each guide does",
    "heldout.csv": "scores on held-out cells, of all methods",
    "enrichment.csv": "gene sets of every latent",
    "latents.csv": "label of every latent",
    "summary.csv": "scores of this fit, as the terminal shows them",
    "facts.csv": "what the terminal shows",
    "dag.png": "the graph",
    "effects.png": "predicted against measured effects",
    "effects_map.png": "perturbations and the genes that they change most",
    "similarity.png": "likeness of the effects",
    "volcano.png": "the strongest perturbations, gene by gene",
    "umap.png": "map of the cells",
    "training.png": "the training",
    "run.json": "the command, the versions, the times and the checksum of each file",
    "annotated.h5ad": "the cells with their latents, the graph and the effects",
    "model": "the trained model: raptorgraph.RaptorGraphModel.load",
}
OF_GENE_SETS = ("enrichment.csv", "latents.csv")


def sections(found: Findings) -> list[Section]:
    """All sections of the page."""
    parts = [
        _short(found),
        Section("know", "What to know before using the results").add(
            Notes(found.notes) if found.notes else Text("Nothing stood out.")
        ),
        _read(found),
        perturbations(found),
        states(found),
        responders(found),
        quality(found),
        interactions(found),
        to_measure_next(found),
        graph(found),
        pathways(found),
        what_was_checked(found),
        _training(found),
        _repeat(found),
    ]
    return [part for part in parts if part is not None]


def _short(found: Findings) -> Section:
    said, cannot = in_short(found, found.notes, found.held)
    section = Section("short", "In short").add(Bullets(said))
    return section.add(Heading("What cannot be said"), Bullets(cannot)) if cannot else section


# -- what was read -----------------------------------------------------------------------------------------------------
def _read(found: Findings) -> Section:
    text = "An effect in this report is the mean change of a gene's expression against the control cells, "
    if found.model.module.config.counts:
        text += (
            "on the scale log(1 + counts per 10,000). 0.7 is about a doubling for a gene that is well expressed, and "
            "less than that where counts are few."
        )
    else:
        text += "on the scale of the file."
    return Section("read", "What was read").add(Terms([*found.source, *_screen_facts(found)]), Text(text))


def _screen_facts(found: Findings) -> list[tuple[str, str]]:
    screen, counts = found.screen, found.model.module.config.counts
    setup, adata = screen.setup, screen.adata
    genes = sorted({gene for parts in screen.genes_of.values() for gene in parts})
    known = len(set(genes) & set(adata.var_names))
    sizes = screen.moments.n[1:]
    control = setup["control"] if isinstance(setup["control"], str) else ", ".join(setup["control"])
    library = setup.get("library_size_key")
    return [
        ("cells", f"{adata.n_obs:,}"),
        ("genes", f"{adata.n_vars:,}"),
        (
            "values",
            ("counts" if counts else "log-normalized")
            + (f" in layer {setup['layer']}" if setup.get("layer") else " in X"),
        ),
        (
            "library size of a cell",
            (f"column {library}" if library else "sum of its counts in the file")
            if counts
            else "not used for log values",
        ),
        ("labels", f"column {setup['perturbation_key']}, genes of a combination separated by {setup['delimiter']}"),
        ("control cells", f"{len(screen.rows(screen.control)):,}, labeled {control}"),
        ("genes perturbed alone", f"{len(screen.singles):,}"),
        ("combinations", f"{len(screen.combinations):,}"),
        ("cells of a perturbation", f"{int(np.median(sizes)):,} (median), from {sizes.min():,} to {sizes.max():,}"),
        ("perturbed genes that the file measures", f"{known:,} of {len(genes):,}"),
        ("batches", f"column {setup['batch_key']}" if setup.get("batch_key") else "not taken into account"),
        *([("guides", f"column {setup.guide_key}")] if setup.guide_key else []),
    ]


# -- training ----------------------------------------------------------------------------------------------------------
def _training(found: Findings) -> Section:
    activity, control = found.model.latent_activity(), found.control
    section = Section("training", "The trained network").add(
        Text(
            "The network learns how cells differ, and predicts cells and the latents of each cell. "
            + (
                "Mean effects come from a statistical model of their own, to which the network is held in training."
                if found.model.has_posterior
                else "In this preset, mean effects come from the network, too."
            )
        ),
        Terms(
            [
                ("active latents", f"{int(activity['active'].sum()):,} of {len(activity):,}"),
                (
                    "predicted control cells are off by",
                    f"{100 * control['drift']:.1f} % of the squared size of a mean effect",
                ),
                ("their variance, predicted / measured", f"{control['variance_ratio']:.2f} (median gene; 1 is right)"),
            ]
        ),
    )
    pictures = {
        "umap.png": (
            "Map of the cells by their latents (UMAP), control cells and the perturbations farthest from them in "
            "color.",
            "Each dot is a cell, placed by its latents (UMAP): near dots are similar cells. Distances between far "
            "groups mean little.",
        ),
        "training.png": (
            "Curves of the terms of the loss over the epochs of the training, for training and validation cells.",
            "The terms of the loss over the training. “Loss” should fall and level out, and on validation cells, which "
            "no update reads, not rise again.",
        ),
    }
    for name, (alt, caption) in pictures.items():
        if (found.out / name).is_file():
            section.add(figures.picture_file(found.out / name, alt, caption))
    return section


# -- again -------------------------------------------------------------------------------------------------------------
def _repeat(found: Findings) -> Section:
    section = Section("again", "How to get this again")
    if found.command:
        section.add(Code(found.command))
    absent = set() if found.enrichment is not None else set(OF_GENE_SETS)
    absent |= set() if found.answers.states is not None else {"reverse.csv"}
    absent |= set() if found.guides is not None else {"guides.csv"}
    return section.add(
        Terms(of_run(found)),
        Heading("Files beside this page"),
        Terms([(name, what) for name, what in FILES.items() if name not in absent and (found.out / name).exists()]),
    )
