"""The sections of the report, in the order in which they are read."""

from __future__ import annotations

import numpy as np

from raptorgraph._text import counted, listed, percent
from raptorgraph.evaluation._held_out_scores import MODEL, PERFECT, SINGLES, UNSEEN, Scores
from raptorgraph.report import _figures as figures
from raptorgraph.report import _words as words
from raptorgraph.report._blocks import IMPORTANT, Bullets, Code, Heading, Notes, Section, Terms, Text
from raptorgraph.report._diagnosis import what_was_checked
from raptorgraph.report._findings import Findings, long_table
from raptorgraph.report._pathways import asked, labeled, pathways
from raptorgraph.report._quality import quality
from raptorgraph.report._record import of_run
from raptorgraph.report._relations import graph, interactions, unordered
from raptorgraph.report._responders import responders
from raptorgraph.report._tables import Column, fixed, whole, with_error, yes_no

_OFTEN = 0.9
FILES = {
    "effects.csv": "predicted effect of every perturbation on every gene, with intervals of 90 %",
    "summary.csv": "scores of this fit, as the terminal shows them",
    "dag.csv": "edges of the graph",
    "interactions.csv": "pairs of perturbed genes and their scores, with intervals of 90 %",
    "perturbations.csv": "the table of perturbations of this page",
    "responders.csv": "share of cells that responded, by perturbation and guide",
    "heldout.csv": "scores on held-out cells, of all methods",
    "enrichment.csv": "gene sets of every latent",
    "latents.csv": "label of every latent",
    "facts.csv": "what the terminal shows",
    "run.json": "the command, the versions, the times and the checksum of each file",
    "annotated.h5ad": "the cells with their latents, the graph and the effects",
    "model": "the trained model: raptorgraph.RaptorGraphModel.load",
}
OF_GENE_SETS = ("enrichment.csv", "latents.csv")


def sections(found: Findings) -> list[Section]:
    """All sections of the page."""
    return [
        _summary(found),
        _read(found),
        Section("know", "What to know before using the results").add(
            Notes(found.notes) if found.notes else Text("Nothing stood out.")
        ),
        what_was_checked(found),
        _perturbations(found),
        responders(found),
        quality(found),
        interactions(found),
        graph(found),
        pathways(found),
        _training(found),
        _repeat(found),
    ]


# -- in short ----------------------------------------------------------------------------------------------------------
def _summary(found: Findings) -> Section:
    screen, strength = found.screen, found.strength
    items = [
        f"{counted(screen.adata.n_obs, 'cell')} and {counted(screen.adata.n_vars, 'gene')}: "
        f"{counted(len(screen.rows(screen.control)), 'control cell')}, "
        f"{counted(len(screen.singles), 'gene')} perturbed alone, {counted(len(screen.combinations), 'combination')}.",
        f"{strength['stands_out'].sum():,} of {counted(len(strength), 'perturbation')} stand out from the noise of "
        "sampling cells.",
    ]
    items += verdicts(found)
    if found.edges.empty:
        items.append("The graph has no edge.")
    else:
        items.append(f"The graph has {counted(len(found.edges), 'edge')}.{_often(found)}{_no_direction(found)}")
    if found.latents is not None:
        latents = asked(found.latents)
        n_labeled = int(labeled(latents).sum())
        items.append(f"{n_labeled:,} of {counted(len(latents), 'latent')} have a gene set that marks them.")
    n_important = sum(note.level == IMPORTANT for note in found.notes)
    items.append(
        f"{counted(n_important, 'warning')} and {counted(len(found.notes) - n_important, 'note')}: read them first."
        if found.notes
        else "No warnings."
    )
    return Section("short", "In short").add(Bullets(items))


def verdicts(found: Findings) -> list[str]:
    """Sentences on how well effects were predicted on held-out cells."""
    if found.held.reason:
        return ["The predictions could not be tested on held-out cells."]
    tested = [name for name in (UNSEEN, SINGLES) if name in found.held.scores]
    return [_verdict(name, found.held.scores[name], explained=name == tested[0]) for name in tested]


def _often(found: Findings) -> str:
    if "frequency" not in found.edges:
        return ""
    n = int((found.edges["frequency"] >= _OFTEN).sum())
    return f" {percent(_OFTEN)} or more of the resampled screens have {n:,} of them."


def _no_direction(found: Findings) -> str:
    n = int(unordered(found.edges).sum())
    modules = found.model.get_modules().values()
    text = f" The data do not support the direction of {n:,} of them." if n else ""
    return text + "".join(f" They cannot order {listed(genes)}." for genes in modules)


def _verdict(name: str, scores: Scores, *, explained: bool) -> str:
    n = len(scores.labels)
    what = {
        UNSEEN: f"Effects of {counted(n, 'combination')} that the fit had not seen",
        SINGLES: f"Effects of {counted(n, 'single perturbation')}, on cells that the fit had not seen",
    }[name]
    ours, perfect = scores.value(MODEL, "relative_mse"), scores.value(PERFECT, "relative_mse")
    rival, value = words.method(scores.best, name)[0], scores.value(scores.best, "relative_mse")
    best = f"the best simple method ({rival}: {value:.2f})"
    text = {
        "better": f"{what}: the relative squared error is {ours:.2f}, clearly less than that of {best}.",
        "worse": f"{what}: the relative squared error is {ours:.2f}, clearly more than that of {best}.",
        "level": f"{what}: the relative squared error is {ours:.2f}, not clearly different from that of {best}.",
    }[scores.verdict]
    text += f" A perfect prediction would score {perfect:.2f}, as the measurement has noise."
    return text + (" No change at all would score 1." if explained else "")


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


# -- perturbations -----------------------------------------------------------------------------------------------------
def _perturbations(found: Findings) -> Section:
    frame = found.strength.join(found.held.conditions).sort_values("signal_to_noise", ascending=False, kind="stable")
    frame = frame.reset_index()
    frame["own"] = list(zip(frame["own_gene"], frame["own_gene_se"], strict=True))
    columns = {
        "perturbation": Column("perturbation"),
        "n_cells": Column("cells", whole, number=True),
        "size": Column("size of effect", fixed(2), "Length of the vector of the changes of all genes.", number=True),
        "signal_to_noise": Column(
            "signal to noise", fixed(1), "Squared size of the effect over that of sampling noise.", number=True
        ),
        "stands_out": Column("stands out", yes_no),
    }
    reading = (
        "Signal to noise compares the change over all genes with what the sampling of cells alone brings about: 1 is "
        "noise. A perturbation stands out if its change, of many genes or of few, is larger than that of random groups "
        "of control cells, at a false discovery rate of 5 %; its own gene does not count. "
    )
    if frame["own_gene"].notna().any():
        columns["own"] = Column("own gene", with_error(2), "Change of the perturbed gene itself.", number=True)
        reading += "“Own gene” is the change of the perturbed gene itself, with its standard error. "
    if not found.held.reason:
        hint = "Correlation over genes with the effect in cells that were held out: {}."
        columns["seen"] = Column("agreement, seen", fixed(2), hint.format("prediction"), number=True)
        reading += (
            "“Agreement” is a correlation over all genes with the effect in cells that were held out; 1 is perfect. "
            "“Seen” is that of a prediction whose fit had seen other cells of the perturbation. "
        )
        if frame["unseen"].notna().any():
            without = hint.format("prediction of a fit that had no cell of it")
            columns["unseen"] = Column("agreement, unseen", fixed(2), without, number=True)
            reading += "“Unseen” is that of a prediction whose fit had seen none of its cells. "
        again = hint.format("the other half of the cells")
        columns["half"] = Column("agreement, measured", fixed(2), again, number=True)
        reading += "“Measured” is that of the effect measured in the other half of the cells."
    return Section("perturbations", "Perturbations").add(
        long_table("all", "All perturbations, strongest first", reading, frame, columns, "perturbations.csv")
    )


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
    names = [name for name in FILES if found.enrichment is not None or name not in OF_GENE_SETS]
    return section.add(
        Terms(of_run(found)),
        Heading("Files beside this page"),
        Terms([(name, FILES[name]) for name in names if (found.out / name).exists()]),
    )
