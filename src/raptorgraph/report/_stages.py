"""A run in stages, each of which writes its products; a stage whose products are there is not done again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
import torch

from raptorgraph import tl
from raptorgraph._files import remove, write_h5ad
from raptorgraph.model import RaptorGraphModel
from raptorgraph.report._folder import TRAINING, check_room, run_folder
from raptorgraph.report._results import Result, edge_count
from raptorgraph.report._short import in_short
from raptorgraph.report._short_perturbations import ranked
from raptorgraph.report._work import NEXT, STATES, STRENGTHS, TOP, Work
from raptorgraph.report._write import findings_of, page_of, tables_of, warnings_without_tests
from raptorgraph.report._write_figures import FIGURES, write_figures
from raptorgraph.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from raptorgraph.report._work import Order

RESAMPLES = 20  # screens from which the frequency of an edge comes
_ROW_BYTES = 80  # of a row of effects.csv, and of the same in annotated.h5ad
_SPARSE = ("data", "indices", "indptr")


def _network(work: Work) -> None:
    """Infer graph and effects, and train the network."""
    train = work.order.train
    model = work.order.new_model()
    genes = len(model.perturbed_genes)
    work.say(f"Training on {train.n_obs:,} cells, {train.n_vars:,} genes and {genes} perturbed genes.")
    train_network(model, work)
    with work.folder.product("model") as part:
        model.save(str(part))


def train_network(model: RaptorGraphModel, work: Work) -> None:
    """Train, or go on with a training that was broken off: after each epoch all that it needs is kept."""
    work.folder.inside.mkdir(exist_ok=True)
    checkpoints = work.folder.inside / TRAINING
    model.train(max_epochs=work.order.options["max_epochs"], checkpoint_dir=checkpoints, resume=True)


def _tables(work: Work) -> None:
    """Predict effects and interactions."""
    work.say("Predicting effects and interactions.")
    model, folder = work.model, work.folder
    folder.table("effects.csv", work.effects[1])
    folder.table("summary.csv", work.summary)
    folder.table("dag.csv", model.get_edges())
    activity = model.latent_activity()
    facts = {
        **work.order.facts,
        "active latents": f"{activity['active'].mean():.0%} of {len(activity)}",
        "variance of control cells, predicted / measured (median gene)": f"{work.control['variance_ratio']:.2f}",
        "edges of the graph": edge_count(model.get_edges(), work.order.true_graph, model.perturbed_genes),
    }
    folder.table("facts.csv", pd.DataFrame(facts.items(), columns=["fact", "value"]))
    pairs = work.interactions
    if pairs is not None:
        folder.table("interactions.csv", pairs, index=True)
    folder.keep(n_pairs=0 if pairs is None else pairs.attrs.get("n_pairs", len(pairs)))


def _graph(work: Work) -> None:
    """Say how often an edge is found again."""
    model, folder, n = work.model, work.folder, work.order.resamples
    if not (n and model.edges.is_inferred and len(model.perturbed_genes) > 1):
        return
    with folder.optional("frequency of edges"):
        work.say(f"Inferring the graph again from {n} resampled screens.")
        again = tl.dag_stability(model, n=n, n_null=max(1, n // 4), seed=work.seed)
        folder.table("dag.csv", model.get_edges())
        with folder.product("model") as part:
            model.save(str(part))
        folder.keep(**again.attrs, n=n)


def _gene_sets(work: Work) -> None:
    """Compare the latents with gene sets."""
    if work.order.gene_sets is None:
        return
    with work.folder.optional("comparison with gene sets"):
        work.say(f"Comparing the latents with {len(work.order.gene_sets):,} gene sets.")
        enrichment, latents = work.gene_sets
        assert enrichment is not None
        assert latents is not None
        work.folder.table("enrichment.csv", enrichment)
        work.folder.table("latents.csv", latents, index=True)


def _answers(work: Work) -> None:
    """Say how strong each perturbation is, which genes it changes, what to measure next and what leads to a state."""
    folder = work.folder
    work.say("Listing what each perturbation does, and what to measure next.")
    with folder.optional(STRENGTHS):
        folder.table(STRENGTHS, work.strength, index=True)
    with folder.optional(TOP):
        folder.table(TOP, work.top_genes)
    with folder.optional(NEXT):
        table, _ = work.next_pairs
        if len(table):
            folder.table(NEXT, table)
    with folder.optional(STATES):
        if work.states is not None:
            folder.table(STATES, work.states)


def _cells(work: Work) -> None:
    """Write the cells with what the model says of them."""
    with work.folder.optional("annotated.h5ad"), work.folder.product("annotated.h5ad") as part:
        if work.model.adata_manager.stored is not None:
            work.model.annotate(out=part)
            return
        work.model.annotate()
        cells = work.model.adata
        assert cells is not None
        # what scvi-tools knows its data by differs from run to run, and means nothing to others
        marks = {name: cells.uns.pop(name) for name in list(cells.uns) if name.startswith("_scvi")}
        try:
            write_h5ad(part, cells)
        finally:
            cells.uns.update(marks)


def _figures(work: Work) -> None:
    """Draw the graph, the training, the effects and a map of the cells."""
    order, threads = work.order, torch.get_num_threads()
    trained = Screen(order.train, order.screen.setup)
    conditions = np.array(["", *trained.conditions])[trained.codes]
    known = set(work.model.conditions)
    strong = [] if STRENGTHS in work.folder.failed("answers") else list(ranked(work.strength).index)
    strong = [label for label in strong if label in known]
    truth = list(order.truth.values())[-1]
    write_figures(work.folder, work.model, conditions, work.effects[0], truth, kind=order.kind, strong=strong)
    torch.set_num_threads(threads)  # numba, which draws the UMAP, changes it for all


def _report(work: Work) -> None:
    """Test the predictions and write the page, or only say what was found and what to know."""
    folder, found = work.folder, None
    if work.order.report:
        with folder.optional("report.html"):
            date = datetime.fromisoformat(folder.manifest["started"])
            found = findings_of(work.run(), folder.path, date, say=work.say)
            work.say("Writing the report.")
            for name, table in tables_of(found).items():
                folder.table(name, table)
            with folder.product("report.html") as part:
                part.write_text(page_of(found), encoding="utf-8")
            folder.keep(page=True)
    with folder.optional("list of warnings"):
        run = work.run() if found is None else found
        known = warnings_without_tests(run) if found is None else found.notes
        said, cannot = in_short(run, known, None if found is None else found.held)
        notes = [[note.level, note.title, note.text] for note in known]
        folder.keep(notes=notes, short=said, unsaid=cannot)


@dataclass(frozen=True)
class Stage:
    """A part of a run: what it does, and the names of what it may write."""

    do: Callable[[Work], None]
    products: tuple[str, ...]


STAGES = {
    "network": Stage(_network, ("model",)),
    "tables": Stage(_tables, ("effects.csv", "summary.csv", "dag.csv", "facts.csv", "interactions.csv")),
    "graph": Stage(_graph, ("dag.csv", "model")),
    "gene sets": Stage(_gene_sets, ("enrichment.csv", "latents.csv")),
    "answers": Stage(_answers, (STRENGTHS, TOP, NEXT, STATES)),
    "cells": Stage(_cells, ("annotated.h5ad",)),
    "figures": Stage(_figures, FIGURES),
    "report": Stage(_report, (STRENGTHS, "responders.csv", "guides.csv", "heldout.csv", "report.html")),
}
"""What took longest and cannot be had otherwise is written first; what comes after the tables may fail by itself."""

PRODUCTS = tuple(dict.fromkeys(name for stage in STAGES.values() for name in stage.products))


def carry_out(
    order: Order, out: Path, *, made: Mapping[str, Any], overwrite: bool, say: Callable[[str], None]
) -> Result:
    """Train, score the conditions, and write everything to a folder; what is there of the same run is kept.

    Parameters
    ----------
    order
        What to do.
    out
        Directory for the results, made if it is not there.
    made
        What the results depend on: only a run of which all this is the same is gone on with.
    overwrite
        Whether to replace the results of another run, once the new ones are complete.
    say
        Called with a line at each stage.

    Raises
    ------
    FileExistsError
        If there are results of another run, unless `overwrite`.
    OSError
        If the room on the disk does not suffice; at once where that can be told.
    RuntimeError
        If another process writes to the folder.
    """
    scvi.settings.seed = order.options["seed"]
    RaptorGraphModel.setup_anndata(order.train, **order.screen.setup)
    model = order.new_model()  # raises for data that do not suit, before there is a folder
    order.wanted(model)  # and so does this
    n_bytes = _size(order, model)
    with run_folder(out, made, PRODUCTS, command=order.command, overwrite=overwrite, say=say) as folder:
        todo = folder.begin(STAGES)
        kept = [name for name in STAGES if name not in todo]
        if kept:
            say(f"{', '.join(kept).capitalize()}: there already, and kept." if todo else f"All is in {out} already.")
        check_room(out, n_bytes - folder.n_bytes if todo else 0)
        work = Work(order, folder, say)
        for name in todo:
            if name == "cells":
                say(f"Writing results to {out}.")
            scvi.settings.seed = work.seed  # what a stage draws does not depend on those before it
            with folder.stage(name):
                STAGES[name].do(work)
        remove(folder.inside / TRAINING)
    found = {name: folder.found(name) for name in STAGES}
    return Result.read(out, order.title, found, folder.seconds("network"))


def _size(order: Order, model: RaptorGraphModel) -> float:
    """Bytes that the results are expected to take: of model, cells, latents and effects."""
    cells, module = order.train, model.module
    values = [cells.X, *cells.layers.values()] if model.adata_manager.stored is None else []
    tensors = [*module.parameters(), *module.buffers()]
    n_effects = (len(order.screen.conditions) + len(order.truth)) * cells.n_vars
    return float(
        sum(map(_nbytes, values))
        + sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        + cells.n_obs * len(model.latent_names) * 2 * 4
        + n_effects * 2 * _ROW_BYTES
    )


def _nbytes(values: Any) -> int:
    """Bytes of a matrix in memory; 0 of one that is not."""
    parts = [values] if isinstance(values, np.ndarray) else [getattr(values, name, None) for name in _SPARSE]
    return sum(int(part.nbytes) for part in parts if isinstance(part, np.ndarray))
