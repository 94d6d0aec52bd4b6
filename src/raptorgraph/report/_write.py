"""The report of a run: one HTML page that needs nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from raptorgraph._progress import progress_bar
from raptorgraph._version import __version__
from raptorgraph.evaluation import held_out
from raptorgraph.report import _record as record
from raptorgraph.report._content import sections
from raptorgraph.report._findings import Findings
from raptorgraph.report._notes import Note, notes
from raptorgraph.report._page import render
from raptorgraph.report._pairs import top_pairs
from raptorgraph.report._strength import strengths
from raptorgraph.screen._moments import condition_moments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from raptorgraph.model import RaptorGraphModel
    from raptorgraph.screen import Screen


FILES = (
    ("effects.csv", "predicted effect of every perturbation on every gene, with intervals of 90 %"),
    ("summary.csv", "scores of this fit, as the terminal shows them"),
    ("dag.csv", "edges of the graph"),
    ("interactions.csv", "all pairs of perturbed genes and their scores, with intervals of 90 %"),
    ("perturbations.csv", "the table of perturbations of this page"),
    ("heldout.csv", "scores on held-out cells, of all methods"),
    ("enrichment.csv", "gene sets of every latent"),
    ("latents.csv", "label of every latent"),
    ("facts.csv", "what the terminal shows"),
    ("annotated.h5ad", "the cells with their latents, the graph and the effects"),
    ("model", "the trained model: raptorgraph.RaptorGraphModel.load"),
)
OF_GENE_SETS = ("enrichment.csv", "latents.csv")


@dataclass(frozen=True)
class Run:
    """A finished run, of which `write_report` makes a page.

    Attributes
    ----------
    title
        Name of the screen.
    source
        What was read, as names and values.
    screen
        All cells, as they were before the model's setup.
    model
        Trained.
    options
        Settings of the run, among them ``preset``, ``seed``, ``max_epochs`` and ``singles_only``.
    interactions
        All pairs, ``measured`` being true of all pairs of the screen; None for one perturbed gene.
    stability
        ``attrs`` of :func:`raptorgraph.tl.dag_stability` and ``n``; empty where the graph was not resampled.
    variance_ratio
        Variance of predicted over measured control cells.
    enrichment, latents
        Of :func:`raptorgraph.tl.enrich` and :func:`raptorgraph.tl.annotate_latents`; None without gene sets.
    truth
        Scores against the truth of a simulated screen, or None.
    command
        As typed, or None.
    seconds
        What took how long.
    """

    title: str
    source: list[tuple[str, str]]
    screen: Screen
    model: RaptorGraphModel
    options: Mapping[str, Any]
    interactions: pd.DataFrame | None
    stability: Mapping[str, float]
    variance_ratio: float
    enrichment: pd.DataFrame | None
    latents: pd.DataFrame | None
    truth: pd.DataFrame | None
    command: str | None
    seconds: Mapping[str, float]


def write_report(run: Run, out: Path, *, say: Callable[[str], None] = lambda line: None) -> Findings:
    """Test the predictions on held-out cells and write ``report.html``, ``heldout.csv`` and ``perturbations.csv``.

    Parameters
    ----------
    run
        What to report on.
    out
        Directory with the results of the run.
    say
        Called with a line at each stage.

    Returns
    -------
    Everything that the page is made of.
    """
    options, screen, model, seed = run.options, run.screen, run.model, run.options["seed"]
    start = time.perf_counter()
    strength = strengths(screen, seed)
    held = held_out(
        screen,
        preset=options["preset"],
        seed=seed,
        max_epochs=options["max_epochs"],
        singles_only=options["singles_only"],
        say=say,
    )
    tested = time.perf_counter() - start
    say("Writing the report.")
    edges = model.get_edges()
    control = {"drift": control_drift(model, screen), "variance_ratio": run.variance_ratio}
    pairs = None
    if run.interactions is not None:
        alone = [label for label in screen.singles if strength.at[label, "stands_out"]]
        strong = {screen.genes_of[label][0] for label in alone}
        pairs = top_pairs(model, run.interactions, screen, strong, seed=seed)
    strength.join(held.conditions).to_csv(out / "perturbations.csv", float_format="%.6g")
    scores = [scores.table.assign(set=name, conditions=len(scores.labels)) for name, scores in held.scores.items()]
    if scores:
        pd.concat(scores).to_csv(out / "heldout.csv", index=False, float_format="%.6g")
    has_posterior = model.has_posterior
    date = datetime.now().astimezone()
    found = Findings(
        source=[*run.source, *_screen_facts(screen, model.module.config.counts)],
        screen=screen,
        model=model,
        options=options,
        strength=strength,
        held=held,
        pairs=pairs,
        notes=notes(screen, strength, held, options=options, edges=edges, control=control, has_posterior=has_posterior),
        interactions=run.interactions,
        edges=edges,
        stability=run.stability,
        control=control,
        out=out,
        enrichment=run.enrichment,
        latents=run.latents,
        truth=run.truth,
        record=record.of_run(
            model, options, {**run.seconds, "testing on held-out cells": tested}, f"{date:%Y-%m-%d %H:%M %Z}"
        ),
        command=run.command,
        files=[(name, what) for name, what in FILES if run.enrichment is not None or name not in OF_GENE_SETS],
    )
    path = out / "report.html"
    subtitle = f"Perturb-seq screen, fitted with raptorgraph {__version__} on {date:%d %B %Y}."
    with progress_bar("Sections"):
        path.write_text(render(run.title, subtitle, sections(found)), encoding="utf-8")
    return found


def warnings_without_tests(run: Run) -> list[Note]:
    """What to know before using the results, as far as it can be said without tests on held-out cells."""
    model, screen = run.model, run.screen
    return notes(
        screen,
        strengths(screen, run.options["seed"]),
        None,
        options=run.options,
        edges=model.get_edges(),
        control={"drift": control_drift(model, screen), "variance_ratio": run.variance_ratio},
        has_posterior=model.has_posterior,
    )


def control_drift(model: RaptorGraphModel, screen: Screen) -> float:
    """Squared difference of predicted and measured control means, as a part of a typical effect's squared size.

    The predicted cells are drawn anew from the likelihood: what the network has learned of controls. The noise of
    drawing them is taken off.
    """
    cells = model.predict(screen.label(()), noise="new")[:, screen.adata.var_names]
    drawn = condition_moments(cells.X, np.zeros(cells.n_obs, dtype=int), 1)
    off = ((drawn.mean[0] - screen.control_mean) ** 2).sum() - drawn.var[0].sum() / cells.n_obs
    typical = (screen.effects.to_numpy() ** 2).sum(axis=1).mean()
    return float(max(off, 0.0) / typical) if typical > 0 else 0.0


def _screen_facts(screen: Screen, counts: bool) -> list[tuple[str, str]]:
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
    ]
